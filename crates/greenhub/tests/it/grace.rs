//! The grace: how long the waits of unwinding destructors may block the OS thread, singly and in total.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::support::alone;
use crate::support::green;
use crate::support::green::{LONG, OnDrop, SHORT, pipe};
use greenhub::fs::File;
use greenhub::greenthread::{KillOutcome, set_panicking_grace};
use greenhub::hub::LoopErrorKind;
use greenhub::net::{TcpListener, TcpStream, UdpSocket, serve};
use greenhub::park::{Grace, Source};
use greenhub::process::{Child, Command, Stdio};
use greenhub::sync::{Condvar, Mutex};
use greenhub::thread::{try_sleep, yield_now};
use greenhub::{GreenPool, Interest, sleep, spawn, trampoline};

/// Runs `f` in a destructor of a killed green thread, within one turn of the loop.
fn while_unwinding(f: impl FnMut() + 'static) {
    // Starts the loop, and lets it begin a turn.
    sleep(SHORT);
    let green = spawn(move || {
        let _unwinds = OnDrop(f);
        sleep(LONG);
    });
    yield_now();
    assert_eq!(green.kill(), KillOutcome::Ended);
    assert!(green.join().unwrap_err().is_kill());
}

/// Returns a TCP connection with a full send buffer, and its peer, which does not read.
fn full_connection(listener: &TcpListener) -> (TcpStream, std::net::TcpStream) {
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 1 << 16]).is_ok() {}
    stream.set_nonblocking(false).unwrap();
    (stream, peer)
}

/// A wait with its name.
type Wait = (&'static str, Box<dyn FnMut()>);

/// The number of calls of each wait in one turn.
const WAITS: u32 = 40;

/// A named pipe, removed on drop.
struct Fifo(PathBuf);

impl Fifo {
    fn new(name: &str) -> Fifo {
        let path = std::env::temp_dir().join(format!("greenhub-grace-{name}-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Fifo(path)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// Spawns a child process that ends when the writer of its input is dropped.
fn child_of(input: std::io::PipeReader) -> Child {
    Command::new("cat").stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Returns the waits that only the end of the grace ends.
fn waits() -> Vec<Wait> {
    let mut waits = single_waits();
    waits.extend(waits_in_pieces());
    waits
}

/// Returns the waits that consist of several shorter waits.
fn waits_in_pieces() -> Vec<Wait> {
    let late = |kind: ErrorKind| assert_eq!(kind, ErrorKind::TimedOut);
    let (to_read, to_write) = (Fifo::new("read"), Fifo::new("write"));
    let (input, writer) = std::io::pipe().unwrap();
    let mut children: Vec<_> = (0..WAITS).map(|_| child_of(input.try_clone().unwrap())).collect();
    let (mut child, writer) = (child_of(input), Rc::new(writer));
    let keeps = Rc::clone(&writer);
    let (mutex, condvar) = (Mutex::new(()), Condvar::new());
    let (listener, pool) = (TcpListener::bind("127.0.0.1:0").unwrap(), GreenPool::new(1));
    vec![
        ("a FIFO to read", Box::new(move || late(File::open(&to_read.0).unwrap_err().kind()))),
        ("a FIFO to write", Box::new(move || late(File::options().write(true).open(&to_write.0).unwrap_err().kind()))),
        (
            "the output of a child",
            Box::new(move || {
                let _keeps = &keeps;
                late(children.pop().unwrap().wait_with_output().unwrap_err().kind());
            }),
        ),
        (
            "the end of a child",
            Box::new(move || {
                let _keeps = &writer;
                late(child.wait().unwrap_err().kind());
            }),
        ),
        (
            "a condition with a predicate",
            Box::new(move || {
                let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = condvar.wait_timeout_while(guard, LONG, |_| true);
                assert!(waited.unwrap_or_else(PoisonError::into_inner).1.timed_out());
            }),
        ),
        (
            "a server",
            Box::new(move || {
                let served = serve(&listener, &pool, |_, _| ());
                late(std::io::Error::from(served.unwrap_err()).kind());
            }),
        ),
    ]
}

/// Returns the waits that block once.
fn single_waits() -> Vec<Wait> {
    let late = |kind: ErrorKind| assert_eq!(kind, ErrorKind::TimedOut);
    let (reader, writer) = pipe();
    let (silent, speaker) = pipe();
    let source = Source::new(silent.into()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut full, peer) = full_connection(&listener);
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (sender, receiver) = greenhub::sync::mpsc::channel::<()>();
    let (rendezvous, idle_receiver) = greenhub::sync::mpsc::sync_channel::<()>(0);
    let (mutex, condvar) = (Mutex::new(()), Condvar::new());
    let (polled, keep) = pipe();
    vec![
        ("sleep", Box::new(|| sleep(LONG))),
        ("park", Box::new(greenhub::thread::park)),
        ("park with a timeout", Box::new(|| greenhub::thread::park_timeout(LONG))),
        (
            "trampoline",
            Box::new(move || {
                let _writer = &writer;
                assert!(trampoline(&reader, Interest::READ, None).is_err());
            }),
        ),
        (
            "a source",
            Box::new(move || {
                let _speaker = &speaker;
                let read = source.read(None, |_| Err::<((), _), _>(ErrorKind::WouldBlock.into()));
                late(read.unwrap_err().kind());
            }),
        ),
        (
            "a stream to write to",
            Box::new(move || {
                let _peer = &peer;
                late(full.write_all(&vec![1; 1 << 22]).unwrap_err().kind());
            }),
        ),
        ("a listener", Box::new(move || late(listener.accept().unwrap_err().kind()))),
        ("datagrams", Box::new(move || late(datagrams.recv(&mut [0]).unwrap_err().kind()))),
        (
            "select",
            Box::new(move || {
                let _keep = &keep;
                let mut fds = [greenhub::select::PollFd::new(&polled, Interest::READ)];
                assert_eq!(greenhub::select::poll(&mut fds, None).unwrap(), 0);
            }),
        ),
        (
            "a receiver",
            Box::new(move || {
                let _sender = &sender;
                assert!(receiver.recv_timeout(LONG).is_err());
            }),
        ),
        (
            "a sender",
            Box::new(move || {
                let _receiver = &idle_receiver;
                assert!(rendezvous.send(()).is_err());
            }),
        ),
        (
            "a condition with a timeout",
            Box::new(move || {
                let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = condvar.wait_timeout(guard, LONG);
                assert!(waited.unwrap_or_else(PoisonError::into_inner).1.timed_out());
            }),
        ),
    ]
}

#[test]
fn all_waits_of_a_turn_share_the_grace() {
    alone("all_waits_of_a_turn_share_the_grace", || {
        green::keep_reports();
        let grace = Duration::from_millis(100);
        set_panicking_grace(grace);
        for (name, mut wait) in waits() {
            let blocked = Rc::new(Cell::new(Duration::ZERO));
            let measured = Rc::clone(&blocked);
            while_unwinding(move || {
                let begin = Instant::now();
                (0..WAITS).for_each(|_| wait());
                measured.set(begin.elapsed());
            });
            // Without a shared grace, each wait would have blocked for the whole grace.
            let blocked = blocked.get();
            assert!(blocked >= grace / 2 && blocked < WAITS * grace * 3 / 4, "{name}: blocked for {blocked:?}");
        }
    });
}

#[test]
fn a_sleep_that_the_grace_cuts_short_returns_an_error() {
    alone("a_sleep_that_the_grace_cuts_short_returns_an_error", || {
        set_panicking_grace(4 * SHORT);
        let slept = Rc::new(Cell::new(None));
        let kept = Rc::clone(&slept);
        while_unwinding(move || {
            let ends = [SHORT, LONG, LONG].map(|time| try_sleep(time).map_err(|error| error.kind()));
            sleep(LONG);
            kept.set(Some(ends));
        });
        let cut = Err(LoopErrorKind::Panicking);
        assert_eq!(slept.take().expect("the destructor has run"), [Ok(()), cut, cut]);
    });
}

#[test]
fn destructors_of_many_green_threads_share_the_grace() {
    alone("destructors_of_many_green_threads_share_the_grace", || {
        const CONNECTIONS: u32 = 50;
        let grace = Duration::from_millis(100);
        set_panicking_grace(grace);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (pool, ended) = (GreenPool::new(CONNECTIONS as usize), Rc::new(Cell::new(0)));
        let mut peers = Vec::new();
        for _ in 0..CONNECTIONS {
            let (mut stream, peer) = full_connection(&listener);
            peers.push(peer);
            let count = Rc::clone(&ended);
            pool.spawn_n(move || {
                let _goodbye = OnDrop(move || {
                    assert_eq!(stream.write_all(&vec![1; 1 << 22]).unwrap_err().kind(), ErrorKind::TimedOut);
                    count.set(count.get() + 1);
                });
                sleep(LONG);
            })
            .unwrap();
        }
        sleep(SHORT);
        let begin = Instant::now();
        pool.kill_all();
        pool.wait_all().unwrap();
        let took = begin.elapsed();
        assert_eq!(ended.get(), CONNECTIONS);
        assert!(took < CONNECTIONS * grace * 3 / 4, "the OS thread was blocked for {took:?}");
    });
}

#[test]
fn a_ready_wait_succeeds_without_grace() {
    alone("a_ready_wait_succeeds_without_grace", || {
        set_panicking_grace(SHORT);
        let (reader, mut writer) = pipe();
        writer.write_all(b"x").unwrap();
        while_unwinding(move || {
            sleep(LONG);
            assert!(Grace::begin().left().is_zero());
            trampoline(&reader, Interest::READ, None).unwrap();
        });
    });
}

#[test]
fn the_next_turn_has_grace_again() {
    alone("the_next_turn_has_grace_again", || {
        set_panicking_grace(SHORT);
        for _ in 0..3 {
            while_unwinding(|| {
                assert!(!Grace::begin().left().is_zero());
                sleep(LONG);
                assert!(Grace::begin().left().is_zero());
            });
        }
    });
}

#[test]
fn a_thread_without_a_loop_has_the_whole_grace_each_time() {
    alone("a_thread_without_a_loop_has_the_whole_grace_each_time", || {
        set_panicking_grace(SHORT);
        for _ in 0..3 {
            let unwound = std::panic::catch_unwind(|| {
                let _sleeps = OnDrop(|| sleep(LONG));
                green::quiet_panic("out");
            });
            assert!(unwound.is_err());
            assert!(!Grace::begin().left().is_zero());
        }
    });
}

#[test]
fn the_destructors_of_an_ending_thread_share_one_grace() {
    const GRACE: Duration = Duration::from_millis(100);
    const READS: usize = 40;
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            let (mut stream, _peer) = {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (TcpStream::from_std(listener.accept().unwrap().0).unwrap(), peer)
            };
            // Without a shared grace, each read would take the whole grace. The first read does, and so does a read
            // that the system delays.
            let waits = |_: &usize| {
                let begin = Instant::now();
                assert!(stream.read(&mut [0]).is_err());
                begin.elapsed() >= GRACE / 2
            };
            let slow = (0..READS).filter(waits).count();
            assert!(slow < READS / 2, "{slow} of {READS} reads have waited");
        }
    }
    thread_local!(static LATE: Late = const { Late });
    set_panicking_grace(GRACE);
    let thread = std::thread::spawn(|| {
        LATE.with(|_| ());
        sleep(SHORT);
    });
    thread.join().unwrap();
}

#[test]
fn a_wait_for_a_lock_has_the_whole_grace() {
    alone("a_wait_for_a_lock_has_the_whole_grace", || {
        let grace = Duration::from_millis(2500);
        set_panicking_grace(grace);
        let mutex = Arc::new(Mutex::new(0));
        let (other, (unlock, unlocked), (lock, locked)) = (Arc::clone(&mutex), mpsc::channel(), mpsc::channel());
        let holder = std::thread::spawn(move || {
            let guard = other.lock().unwrap();
            lock.send(()).unwrap();
            unlocked.recv().unwrap();
            std::thread::sleep(SHORT);
            drop(guard);
        });
        locked.recv().unwrap();
        let own = Arc::clone(&mutex);
        while_unwinding(move || {
            sleep(LONG);
            assert!(Grace::begin().left().is_zero());
            unlock.send(()).unwrap();
            *own.lock().unwrap() += 1;
        });
        holder.join().unwrap();
        assert_eq!(*mutex.lock().unwrap(), 1);
    });
}
