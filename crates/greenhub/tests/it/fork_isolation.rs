//! Rule 13 of `docs/design.md`: a forked child has its own bell and hub, an executed program inherits no descriptor.
//!
//! The bell is the descriptor through which other OS threads wake the main loop.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::catch_unwind;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::support::descriptors::ms;
use crate::support::fork::{exit, exits_with, forked};
use crate::support::hubs::{Tap, Wait, Watch, use_tapped_hub};
use crate::support::{self, descriptors, in_child, open_descriptors};
use greenhub::hub::{Hub, Readiness};
use greenhub::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use greenhub::sync::Queue;
use greenhub::{Interest, get_hub, net, process, sleep, spawn, with_timeout};
use nix::unistd::{ForkResult, fork};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::FdFlags;

/// Longer than any wait that a wake-up ends, so that a lost wake-up is a failure and not a hang.
const TIMEOUT: Duration = Duration::from_secs(60);

type Hook = RefCell<Option<Box<dyn FnOnce()>>>;

thread_local! {
    /// Runs once, inside the hub's next `wait`.
    static ON_WAIT: Hook = const { RefCell::new(None) };
    /// Runs once, inside the hub's next `after_fork`.
    static AFTER_FORK: Hook = const { RefCell::new(None) };
    /// Makes the hub's `after_fork` fail.
    static FAILS: Cell<bool> = const { Cell::new(false) };
    /// Whether the hub was dropped.
    static DROPPED: Cell<bool> = const { Cell::new(false) };
    /// The numbers of the hub's `watch` calls.
    static WATCHED: RefCell<Vec<RawFd>> = const { RefCell::new(Vec::new()) };
}

/// The number of the bell: the first that the hub watches.
static BELL: AtomicI32 = AtomicI32::new(-1);

fn call(hook: &'static std::thread::LocalKey<Hook>) {
    if let Some(hook) = hook.take() {
        hook();
    }
}

struct Hooked;

impl Drop for Hooked {
    fn drop(&mut self) {
        DROPPED.set(true);
    }
}

impl Tap for Hooked {
    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> io::Result<()> {
        let number = call.key.fd();
        WATCHED.with_borrow_mut(|watched| watched.push(number));
        let _ = BELL.compare_exchange(-1, number, Ordering::SeqCst, Ordering::SeqCst);
        call.forward(hub)
    }
    fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
        self::call(&ON_WAIT);
        call.forward(hub)
    }
    fn after_fork(&mut self, hub: &mut dyn Hub) -> io::Result<()> {
        call(&AFTER_FORK);
        if FAILS.get() { Err(io::Error::other("on purpose")) } else { hub.after_fork() }
    }
}

/// Makes this OS thread use such a hub, and builds it.
fn use_hooked_hub() {
    use_tapped_hub(Hooked);
    sleep(ms(1));
    assert!(BELL.load(Ordering::SeqCst) >= 0);
}

/// Returns a duplicate of this process's bell.
fn bell() -> OwnedFd {
    // SAFETY: the main loop keeps the bell open.
    let bell = unsafe { BorrowedFd::borrow_raw(BELL.load(Ordering::SeqCst)) };
    bell.try_clone_to_owned().expect("a copy")
}

/// Returns whether the bell is readable, so that it would wake a loop. The caller must ensure that no loop drains it
/// meanwhile.
fn is_rung(bell: &OwnedFd) -> bool {
    let mut bells = [PollFd::new(bell, PollFlags::IN)];
    poll(&mut bells, Some(&rustix::event::Timespec::default())).expect("the poll succeeds") == 1
}

#[test]
fn rule_13_a_process_rings_its_own_bell() {
    // Proves that the tests below can fail.
    in_child(|| {
        use_hooked_hub();
        let (bell, remote) = (bell(), get_hub().remote());
        let seen = Rc::new(Cell::new(false));
        let to = seen.clone();
        ON_WAIT.set(Some(Box::new(move || {
            remote.notify();
            to.set(is_rung(&bell));
        })));
        sleep(ms(1));
        assert!(seen.get());
    });
}

#[test]
fn rule_13_a_child_does_not_ring_the_bell_of_a_lost_thread() {
    in_child(|| {
        use_hooked_hub();
        let (bell, remote, queue) = (bell(), get_hub().remote(), Arc::new(Queue::<u32>::new()));
        let gets = Arc::clone(&queue);
        let waiter = spawn(move || with_timeout(TIMEOUT, || gets.get()).is_ok());
        let hub = get_hub().remote();
        // Remote calls ring the bell only while the loop is inside the hub's wait.
        let (asks, asked) = std::sync::mpsc::channel::<()>();
        let (sender, receiver) = std::sync::mpsc::channel();
        let forks = std::thread::spawn(move || {
            asked.recv().expect("the other side waits");
            let child = forked(|| {
                hub.notify();
                hub.interrupt();
                assert!(hub.spawn(|| ()).is_err(), "its loop is not there");
                drop(queue.try_put(1));
                assert!(!is_rung(&bell));
            });
            exits_with(child, 0);
            sender.send(is_rung(&bell)).expect("the other side waits");
            queue.try_put(2).expect("the queue has room");
        });
        let rung = Rc::new(Cell::new(true));
        let to = rung.clone();
        ON_WAIT.set(Some(Box::new(move || {
            asks.send(()).expect("the other side waits");
            to.set(receiver.recv().expect("a child was forked"));
        })));
        assert!(waiter.join().expect("no panic"));
        forks.join().expect("no panic");
        assert!(!rung.get(), "the loop of the parent would have been woken");
        drop(remote);
    });
}

#[test]
fn rule_13_a_child_rings_the_bell_of_its_own_loop_only() {
    in_child(|| {
        use_hooked_hub();
        let parents = bell();
        let child = forked(|| {
            sleep(ms(1));
            let remote = get_hub().remote();
            let rung = Rc::new(Cell::new(true));
            let to = rung.clone();
            let looked_at = parents.try_clone().expect("a copy");
            ON_WAIT.set(Some(Box::new(move || {
                // The loop is inside the hub's wait, so that a notification rings the bell.
                remote.notify();
                to.set(is_rung(&looked_at));
            })));
            sleep(ms(1));
            assert!(!rung.get());
        });
        exits_with(child, 0);
        assert!(!is_rung(&parents));
    });
}

#[test]
fn rule_13_a_child_is_woken_by_a_bell_of_its_own() {
    in_child(|| {
        use_hooked_hub();
        let child = forked(|| {
            let (remote, queue) = (get_hub().remote(), Arc::new(Queue::new()));
            let puts = Arc::clone(&queue);
            let other = std::thread::spawn(move || {
                std::thread::sleep(ms(20));
                remote.spawn(move || puts.try_put(7).expect("the queue has room")).expect("the hub's OS thread lives");
            });
            let begin = Instant::now();
            assert_eq!(with_timeout(TIMEOUT, || queue.get()).expect("no timeout").expect("an item"), 7);
            // The loop reads its mail before it fires timers. So without a wake-up, the item comes only with the timer.
            assert!(begin.elapsed() < TIMEOUT);
            other.join().expect("no panic");
        });
        exits_with(child, 0);
    });
}

#[test]
fn rule_13_a_child_forked_in_a_listener_does_not_read_the_parents_mail() {
    in_child(|| {
        let (remote, queue) = (get_hub().remote(), Arc::new(Queue::new()));
        let (reader, writer) = io::pipe().expect("a pipe");
        let (registration, process) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
        let (puts, own, forks) = (Arc::clone(&queue), Rc::clone(&registration), Rc::clone(&process));
        let listener = move |_: Readiness| {
            // This is the last call of the hub in the turn. The loop reads its mail after it.
            drop(own.take());
            let puts = Arc::clone(&puts);
            remote.spawn(move || puts.try_put(()).expect("the queue has room")).expect("the hub's OS thread lives");
            // SAFETY: no other OS thread holds a lock that the child needs.
            forks.set(Some(unsafe { fork() }.expect("a child")));
        };
        registration.set(Some(
            get_hub().listen(Rc::new(reader), Interest::READ, listener).expect("the hub accepts the listener"),
        ));
        io::Write::write_all(&mut &writer, b"x").expect("the buffer has room");
        while process.get().is_none() {
            sleep(ms(1));
        }
        // Long enough for the loop to read all mail.
        sleep(ms(20));
        match process.get().expect("the process has forked") {
            ForkResult::Child => exit(i32::from(queue.try_get().is_ok())),
            ForkResult::Parent { child } => exits_with(child, 0),
        }
        assert!(queue.try_get().is_ok(), "the parent reads its mail");
    });
}

#[test]
fn rule_13_a_childs_bell_exists_before_its_hub_restarts() {
    in_child(|| {
        use_hooked_hub();
        let before = open_descriptors();
        let child = forked(|| {
            let open = Rc::new(Cell::new(0));
            let to = open.clone();
            AFTER_FORK.set(Some(Box::new(move || to.set(open_descriptors()))));
            sleep(ms(1));
            // The new bell may be a pipe with two ends.
            assert!(open.get() > before, "{} descriptors, and {before} in the parent", open.get());
        });
        exits_with(child, 0);
    });
}

#[test]
fn rule_13_a_child_does_not_watch_the_bell_of_its_parent() {
    in_child(|| {
        use_hooked_hub();
        let (here, _there) = descriptors::pair();
        let (number, here) = (here.as_raw_fd(), Rc::new(here));
        let waits = Rc::clone(&here);
        let waiter = spawn(move || descriptors::read(&waits, 8));
        sleep(ms(1));
        WATCHED.take();
        let child = forked(|| {
            sleep(ms(1));
            let watched = WATCHED.take();
            assert!(watched.contains(&number) && !watched.contains(&BELL.load(Ordering::SeqCst)), "{watched:?}");
        });
        exits_with(child, 0);
        here.close();
        waiter.join().expect("no panic").expect_err("the descriptor is closed");
    });
}

#[test]
fn rule_13_a_hub_that_fails_to_restart_is_not_dropped_in_the_child() {
    in_child(|| {
        use_hooked_hub();
        let child = forked(|| {
            FAILS.set(true);
            assert!(catch_unwind(|| sleep(ms(1))).is_err(), "the hub has failed");
            assert!(!DROPPED.get(), "the hub is the parent's, and its destructor may disturb the parent");
        });
        exits_with(child, 0);
        sleep(ms(1));
    });
}

/// Returns the descriptors that a program executed now would inherit.
fn inherited() -> Vec<RawFd> {
    let listed = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let numbers: Vec<RawFd> =
        listed.map(|entry| entry.expect("an entry").file_name().to_string_lossy().parse().expect("a number")).collect();
    let stays_open = |&number: &RawFd| {
        // SAFETY: `F_GETFD` has no effect on the descriptor. For the listing's own number, which is closed already,
        // the call fails.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        flags >= 0 && !FdFlags::from_bits_retain(flags.cast_unsigned()).contains(FdFlags::CLOEXEC)
    };
    numbers.into_iter().filter(stays_open).collect()
}

/// Calls everything in the library that opens descriptors, and checks the inherited ones after each call.
fn open_all_kinds_of_descriptors() {
    let before = inherited();
    let look = |step: &str| assert_eq!(inherited(), before, "after {step}");
    sleep(ms(1));
    look("the hub");
    let remote = get_hub().remote();
    std::thread::spawn(move || {
        sleep(ms(1));
        remote.notify();
    })
    .join()
    .expect("no panic");
    look("the hub of another thread");
    greenhub::tpool::execute(|| ()).expect("the job succeeds");
    look("the pool");

    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    look("bind");
    let address = listener.local_addr().expect("an address");
    let client = spawn(move || net::TcpStream::connect(address).expect("the server listens"));
    let (accepted, _) = listener.accept().expect("a client");
    let client = client.join().expect("no panic");
    look("accept and connect");
    let copies = (accepted.try_clone().expect("a copy"), listener.try_clone().expect("a copy"));
    look("try_clone");
    let datagrams = net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    look("UdpSocket::bind");
    let pairs = (UnixStream::pair().expect("a pair"), UnixDatagram::pair().expect("a pair"));
    look("pair");
    let path = std::env::temp_dir().join(format!("greenhub-fork-isolation-{}", std::process::id()));
    let local = UnixListener::bind(&path).expect("a name");
    let connects = path.clone();
    let to_local = spawn(move || UnixStream::connect(connects).expect("the server listens"));
    let from_local = local.accept().expect("a client");
    let to_local = to_local.join().expect("no panic");
    std::fs::remove_file(&path).expect("the file exists");
    look("Unix sockets");
    let pipe = greenhub::io::pipe().expect("a pipe");
    look("pipe");
    let file = greenhub::fs::File::open("/dev/null").expect("the file exists");
    look("open");
    let mut child = process::Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program `cat` starts");
    look("spawn");
    drop(child.stdin.take());
    child.wait().expect("our child");
    look("wait");
    drop((client, accepted, copies, datagrams, pairs, local, from_local, to_local, pipe, file));
    look("all");
}

#[test]
fn rule_13_an_executed_program_inherits_no_descriptor() {
    in_child(open_all_kinds_of_descriptors);
}

#[test]
fn rule_13_an_executed_program_inherits_no_pipe_bell() {
    let test = "rule_13_an_executed_program_inherits_no_pipe_bell";
    if support::is_child() {
        return in_child(open_all_kinds_of_descriptors);
    }
    let output = support::rerun(test, |command| _ = command.env("GREENHUB_WAKEUP", "pipe"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rule_13_the_dead_socket_of_a_child_is_not_inherited() {
    in_child(|| {
        let (here, _there) = descriptors::pair();
        let here = Arc::new(here);
        let waits = Arc::clone(&here);
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ResourceBusy;
        std::thread::spawn(move || while descriptors::read(&waits, 8).is_err_and(|error| refused(&error)) {});
        // Waits until the other OS thread waits for the socket.
        descriptors::until(|| here.wait(Interest::READ, Some(ms(1))).is_err_and(|error| refused(&error)));
        let before = inherited();
        let child = forked(|| {
            here.close();
            assert!(std::fs::read_link(format!("/proc/self/fd/{}", here.as_raw_fd())).is_ok(), "its number stays open");
            assert_eq!(inherited(), before);
        });
        exits_with(child, 0);
    });
}
