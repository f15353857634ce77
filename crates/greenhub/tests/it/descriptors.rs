//! Closed descriptors and reused numbers.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use crate::support::descriptors::{
    assert_no_waiters, assert_other_end_closed, fill, ms, pair, read, source, stats, until, write,
};
use crate::support::hubs::{Tap, Watch, use_tapped_hub};
use crate::support::{in_child, limited};
use greenhub::hub::{Hub, Readiness};
use greenhub::park::{Source, notify_close, notify_opened, trampoline_raw};
use greenhub::thread::yield_now;
use greenhub::{GreenThread, Interest, Trampoline, TrampolineError, get_hub, sleep, spawn, trampoline};

type Waiter = GreenThread<Result<Readiness, TrampolineError>>;

/// Parks a green thread in a read of the raw number `fd`.
fn raw_reader(fd: RawFd) -> Waiter {
    // SAFETY: each test closes the number after the wait, or notifies the hub of the close.
    let reader = spawn(move || unsafe { trampoline_raw(fd, Interest::READ, None) });
    yield_now();
    reader
}

/// Puts another file under the number `fd`.
///
/// Call it only in a child process: no other test may open a descriptor with that number.
fn reopen(fd: RawFd, file: OwnedFd) -> OwnedFd {
    // SAFETY: `dup2` replaces the file under the number atomically. The former owner has released the number.
    let got = unsafe { libc::dup2(file.as_raw_fd(), fd) };
    assert_eq!(got, fd);
    // SAFETY: `dup2` has just opened the number, and it has no other owner.
    unsafe { OwnedFd::from_raw_fd(got) }
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: `F_GETFD` has no effect on the descriptor, and is an error if the number is not open.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

fn send(stream: &UnixStream, bytes: &[u8]) {
    io::Write::write_all(&mut &*stream, bytes).expect("the buffer has room");
}

fn assert_closed(waited: Waiter, fd: RawFd) {
    let error = waited.join().expect("the waiter returns").expect_err("the descriptor is closed");
    assert!(matches!(error, TrampolineError::Closed { fd: number } if number == fd), "{error}");
}

#[test]
fn stale_waiters_are_marked_closed_before_the_number_is_reused() {
    limited(|| {
        let (here, _there) = UnixStream::pair().expect("a pair");
        let fd = here.as_raw_fd();
        let marks: Rc<RefCell<Vec<&str>>> = Rc::default();
        let filled = source(here.try_clone().expect("a copy"));
        fill(&filled);
        let here = Rc::new(here);
        let wait = |name: &'static str, read: bool| {
            let (marks, here) = (Rc::clone(&marks), Rc::clone(&here));
            spawn(move || {
                let wait = Trampoline::new(&*here).mark_as_closed(move || marks.borrow_mut().push(name));
                if read { wait.read().wait() } else { wait.write().wait() }
            })
        };
        let waiters = [wait("reader", true), wait("writer", false)];
        yield_now();
        notify_opened(fd);
        assert_eq!(*marks.borrow(), ["reader", "writer"]);
        waiters.into_iter().for_each(|waiter| assert_closed(waiter, fd));
        // A callback that was not called is dropped with the wait.
        let timed_out = Trampoline::new(&*here).read().timeout(ms(1)).mark_as_closed({
            let marks = Rc::clone(&marks);
            move || marks.borrow_mut().push("late")
        });
        timed_out.wait().expect_err("nothing comes");
        notify_close(fd);
        assert_eq!((marks.borrow().len(), Rc::strong_count(&marks)), (2, 1));
    });
}

#[test]
fn a_stale_waiter_gets_the_closed_error() {
    limited(|| {
        let (here, _there) = UnixStream::pair().expect("a pair");
        let fd = here.as_raw_fd();
        let reader = raw_reader(fd);
        let turns = stats().turns;
        notify_opened(fd);
        let error = reader.join().expect("the waiter returns").expect_err("the descriptor is closed");
        assert!(stats().turns - turns <= 2);
        assert!(error.to_string().contains(&fd.to_string()), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotConnected);
    });
}

#[test]
fn a_notification_of_an_unknown_number_does_nothing() {
    limited(|| {
        let (here, there) = UnixStream::pair().expect("a pair");
        let reader = raw_reader(here.as_raw_fd());
        for unknown in [-1, 500_000, there.as_raw_fd()] {
            notify_opened(unknown);
            notify_close(unknown);
        }
        send(&there, b"x");
        assert!(reader.join().expect("the waiter returns").is_ok());
    });
}

/// Records registrations.
struct Recording(Rc<RefCell<Vec<(RawFd, u32)>>>);

impl Tap for Recording {
    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> io::Result<()> {
        self.0.borrow_mut().push((call.key.fd(), call.key.generation()));
        call.forward(hub)
    }
}

#[test]
fn every_new_socket_is_registered_separately() {
    limited(|| {
        let watched: Rc<RefCell<Vec<(RawFd, u32)>>> = Rc::default();
        use_tapped_hub(Recording(Rc::clone(&watched)));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let listener = source(listener);
        let _ = get_hub();
        watched.borrow_mut().clear();
        let client = spawn(move || TcpStream::connect(address).expect("the listener has room"));
        listener.wait(Interest::READ, None).expect("a connection");
        let accepted: OwnedFd = listener.with(|fd| Ok(rustix::net::accept(fd)?)).expect("a connection");
        let copy = accepted.try_clone().expect("a copy");
        let _client = client.join().expect("the client returns");
        for socket in [source(accepted), source(copy)] {
            let number = socket.as_raw_fd();
            for _ in 0..2 {
                socket.wait(Interest::READ, Some(ms(1))).expect_err("nothing comes");
            }
            assert_eq!(watched.borrow().last().expect("the hub watches the descriptor").0, number);
        }
        let mut registrations = watched.borrow().clone();
        registrations.dedup();
        assert_eq!(registrations.len(), 3, "{registrations:?}");
    });
}

#[test]
fn a_closed_socket_never_closes_a_reused_number() {
    in_child(|| {
        let (here, _there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let number = here.as_raw_fd();
        here.close();
        assert!(!is_open(number), "the number is still open");
        let (other, other_peer) = UnixStream::pair().expect("a pair");
        let other = if other.as_raw_fd() == number { other.into() } else { reopen(number, other.into()) };
        assert_eq!(
            here.wait(Interest::READ, None).expect_err("the descriptor is closed").kind(),
            io::ErrorKind::NotConnected
        );
        assert_eq!(read(&here, 1).expect_err("the descriptor is closed").kind(), io::ErrorKind::NotConnected);
        here.close();
        drop(here);
        assert!(is_open(number));
        send(&other_peer, b"x");
        trampoline(&other, Interest::READ, None).expect("the descriptor becomes readable");
    });
}

#[test]
fn a_reused_number_serves_only_its_new_owner() {
    in_child(|| {
        let (old, old_peer) = UnixStream::pair().expect("a pair");
        let number = old.as_raw_fd();
        // A duplicate keeps the old file open, so that the kernel does not drop the registration by itself.
        let copy = old.try_clone().expect("a copy");
        let stale = raw_reader(old.into_raw_fd());
        let (new, new_peer) = UnixStream::pair().expect("a pair");
        let new = reopen(number, new.into());
        notify_opened(number);
        let owner = raw_reader(number);
        send(&old_peer, b"for the old one");
        sleep(ms(5));
        assert!(!owner.is_finished(), "data of the old file has woken the new waiter");
        send(&new_peer, b"x");
        assert!(owner.join().expect("the waiter returns").is_ok());
        assert_closed(stale, number);
        drop((copy, new));
    });
}

#[test]
fn closing_a_socket_wakes_its_waiters() {
    limited(|| {
        let (here, there) = pair();
        fill(&here);
        let number = here.as_raw_fd();
        let here = Rc::new(here);
        let reader = spawn({
            let here = Rc::clone(&here);
            move || read(&here, 8).map(drop)
        });
        let writer = spawn({
            let here = Rc::clone(&here);
            move || write(&here, b"x").map(drop)
        });
        let borrower = spawn({
            let here = Rc::clone(&here);
            // The source lends its descriptor, so the number stays open after `close`, until the source is dropped.
            move || trampoline(&*here, Interest::READ, None).map_err(io::Error::from).map(drop)
        });
        yield_now();
        here.close();
        for waiter in [reader, writer] {
            let error = waiter.join().expect("the waiter returns").expect_err("the descriptor is closed");
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
            assert!(error.to_string().contains(&number.to_string()), "{error}");
        }
        // The trampoline was refused at its start, because the socket had a reader.
        assert_eq!(
            borrower.join().expect("the waiter returns").expect_err("the direction has a waiter").kind(),
            io::ErrorKind::ResourceBusy
        );
        assert_no_waiters();
        drop(here);
        assert_other_end_closed(&there);
    });
}

#[test]
fn closing_a_socket_wakes_waiters_on_its_lent_descriptor() {
    limited(|| {
        let (here, _there) = pair();
        let here = Rc::new(here);
        let number = here.as_raw_fd();
        let borrower = spawn({
            let here = Rc::clone(&here);
            move || trampoline(&*here, Interest::READ, None)
        });
        yield_now();
        here.close();
        assert_closed(borrower, number);
    });
}

#[test]
fn a_timed_out_wait_keeps_waiters_on_the_lent_descriptor() {
    limited(|| {
        let (here, there) = pair();
        fill(&here);
        let here = Rc::new(here);
        let borrower = spawn({
            let here = Rc::clone(&here);
            move || trampoline(&*here, Interest::READ, None)
        });
        yield_now();
        here.wait(Interest::WRITE, Some(ms(5))).expect_err("no room");
        assert!(!borrower.is_finished());
        write(&there, b"x").expect("the buffer has room");
        assert!(borrower.join().expect("the waiter returns").is_ok());
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"x");
    });
}

#[test]
fn notify_close_wakes_the_waiters_of_a_raw_number() {
    limited(|| {
        let (here, _there) = UnixStream::pair().expect("a pair");
        fill(&source(here.try_clone().expect("a copy")));
        let number = here.as_raw_fd();
        let reader = raw_reader(number);
        // SAFETY: the number stays open until the end of the test.
        let writer = spawn(move || unsafe { trampoline_raw(number, Interest::WRITE, None) });
        yield_now();
        notify_close(number);
        assert_closed(reader, number);
        assert_closed(writer, number);
        assert_no_waiters();
    });
}

#[test]
fn an_ended_waiter_is_skipped_at_a_close() {
    limited(|| {
        let (here, there) = UnixStream::pair().expect("a pair");
        let number = here.as_raw_fd();
        let killed = raw_reader(number);
        killed.kill();
        notify_close(number);
        let woken = raw_reader(number);
        notify_close(number);
        // The close has woken the waiter, but the waiter is killed before it runs.
        woken.kill();
        assert!(woken.is_finished());
        let next = raw_reader(number);
        send(&there, b"x");
        assert!(next.join().expect("the waiter returns").is_ok());
    });
}

#[test]
fn waiters_of_closed_numbers_wake_in_order_and_before_timers() {
    limited(|| {
        let order: Rc<RefCell<Vec<String>>> = Rc::default();
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().expect("a pair")).collect();
        for (index, (here, _)) in pairs.iter().enumerate() {
            let (number, order) = (here.as_raw_fd(), Rc::clone(&order));
            spawn(move || {
                // SAFETY: the number stays open until the end of the test.
                unsafe { trampoline_raw(number, Interest::READ, None) }.expect_err("the descriptor is closed");
                order.borrow_mut().push(index.to_string());
            });
        }
        yield_now();
        let timer = Rc::clone(&order);
        let _timer = get_hub().schedule(ms(2), move || timer.borrow_mut().push("timer".to_owned()));
        std::thread::sleep(ms(5));
        for index in [2, 0, 1] {
            notify_close(pairs[index].0.as_raw_fd());
        }
        until(|| order.borrow().len() == 4);
        assert_eq!(*order.borrow(), ["2", "0", "1", "timer"]);
    });
}

#[test]
fn a_raw_number_reused_without_notification_serves_the_next_wait() {
    in_child(|| {
        let (old, old_peer) = UnixStream::pair().expect("a pair");
        let number = old.as_raw_fd();
        let copy = old.try_clone().expect("a copy");
        trampoline(&old, Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let _ = old.into_raw_fd();
        let (new, new_peer) = UnixStream::pair().expect("a pair");
        let new = reopen(number, new.into());
        send(&old_peer, b"for the old one");
        let error = trampoline(&new, Interest::READ, Some(ms(10))).expect_err("nothing for the new one");
        assert!(matches!(error, TrampolineError::TimedOut { .. }), "{error}");
        send(&new_peer, b"x");
        trampoline(&new, Interest::READ, None).expect("the descriptor becomes readable");
        drop(copy);
    });
}

#[test]
fn deregistering_a_closed_number_is_no_error() {
    in_child(|| {
        let (here, there) = UnixStream::pair().expect("a pair");
        let number = here.as_raw_fd();
        let reader = raw_reader(number);
        // SAFETY: the test owns the number, and notifies the hub of the close before anything else happens.
        drop(unsafe { OwnedFd::from_raw_fd(here.into_raw_fd()) });
        notify_close(number);
        assert_closed(reader, number);
        let lent = Rc::new(there);
        let registration = get_hub()
            .listen(Rc::clone(&lent), Interest::READ, |_: Readiness| {})
            .expect("the hub accepts the listener");
        notify_close(lent.as_raw_fd());
        drop(registration);
        sleep(ms(1));
        assert_no_waiters();
    });
}

#[test]
fn a_number_reused_between_two_waits_works() {
    in_child(|| {
        let mut number = None;
        for _ in 0..3 {
            let (here, there) = pair();
            let there = Rc::new(there);
            assert_eq!(
                *number.get_or_insert(here.as_raw_fd()),
                here.as_raw_fd(),
                "the system has chosen another number"
            );
            here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
            fill(&here);
            let peer = Rc::clone(&there);
            let drained = spawn(move || {
                sleep(ms(1));
                read(&peer, 1 << 22).expect("the read succeeds");
                write(&peer, b"back").expect("the buffer has room")
            });
            here.wait(Interest::WRITE, None).expect("the descriptor becomes writable");
            assert_eq!(read(&here, 8).expect("the read succeeds"), b"back");
            drained.join().expect("no panic");
        }
    });
}

#[test]
fn a_regular_file_is_refused_or_ready() {
    limited(|| {
        let file = std::fs::File::open("/etc/passwd").expect("a file");
        for direction in [Interest::READ, Interest::WRITE] {
            match trampoline(&file, direction, Some(Duration::from_secs(60))) {
                Ok(_) => {}
                Err(error) => assert_eq!(io::Error::from(error).raw_os_error(), Some(libc::EPERM)),
            }
        }
        // A source tries the operation before it registers.
        let file = source(file);
        assert!(!read(&file, 64).expect("the read succeeds").is_empty());
    });
}

#[test]
fn a_socket_closed_after_its_readiness_report_wakes_its_reader() {
    limited(|| {
        let (here, there) = pair();
        let here = Rc::new(here);
        let thief = Rc::clone(&here);
        let stolen = Rc::new(Cell::new(false));
        let seen = Rc::clone(&stolen);
        let (signal, signal_peer) = pair();
        // Woken in the same batch as the reader, and runs before it.
        let first = spawn(move || {
            signal.wait(Interest::READ, None).expect("the descriptor becomes readable");
            seen.set(thief.with(|fd| Ok(rustix::io::read(fd, &mut [0; 8])?)).is_ok());
            thief.close();
        });
        yield_now();
        let reader = spawn(move || read(&here, 8));
        yield_now();
        write(&signal_peer, b"x").expect("the buffer has room");
        write(&there, b"x").expect("the buffer has room");
        first.join().expect("no panic");
        let read = reader.join().expect("the waiter returns");
        if stolen.get() {
            assert_eq!(read.expect_err("the descriptor is closed").kind(), io::ErrorKind::NotConnected);
        } else {
            assert_eq!(read.expect("the read succeeds"), b"x");
        }
    });
}

#[test]
fn a_lent_number_stays_open_until_its_source_is_dropped() {
    in_child(|| {
        let (here, _there) = pair();
        let number = here.as_fd().as_raw_fd();
        here.close();
        assert!(is_open(number));
        drop(here);
        assert!(!is_open(number));
    });
}

#[test]
fn a_source_turned_into_its_descriptor_is_forgotten() {
    in_child(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let number = here.as_raw_fd();
        let fd = here.into_fd().expect("the source is open");
        assert_eq!(fd.as_raw_fd(), number);
        write(&there, b"x").expect("the buffer has room");
        let again = Source::new(fd).expect("the descriptor becomes non-blocking");
        assert_eq!(read(&again, 8).expect("the read succeeds"), b"x");
        again.wait(Interest::READ, Some(ms(1))).expect_err("nothing more");
        drop(again);
        assert!(!is_open(number));
    });
}

#[test]
fn sockets_of_an_earlier_hub_are_closed_at_once() {
    in_child(|| {
        let (here, _there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        greenhub::use_hub(None).expect("outside the loop");
        let _ = get_hub();
        let number = here.as_raw_fd();
        drop(here);
        assert!(!is_open(number));
    });
}
