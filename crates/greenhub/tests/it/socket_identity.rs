//! Rule 5 of `docs/design.md`: the library identifies a socket by its identity, not by its number, and waits for it on
//! one hub at a time.
//!
//! Each test runs in a process of its own, in which no other code opens or closes descriptors.

use std::io::{self, ErrorKind, PipeWriter, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::support::descriptors::{ms, pair, read, read_within, source, stats, write};
use crate::support::hubs::{Lent, default_hub, use_recording_hub};
use crate::support::in_child;
use greenhub::park::Source;
use greenhub::thread::yield_now;
use greenhub::{GreenThread, Interest, get_hub, sleep, spawn, use_hub_with};

/// Longer than any wait that a wake-up ends, so that a lost wake-up is a failure and not a hang.
const TIMEOUT: Duration = Duration::from_secs(60);

fn is_open(number: RawFd) -> bool {
    // SAFETY: `F_GETFD` only queries the number.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Puts another file under the number `fd`.
fn reuse(fd: RawFd, file: OwnedFd) -> OwnedFd {
    // SAFETY: `dup2` replaces the file under the number in one step, and the callers no longer use the former owner.
    let got = unsafe { libc::dup2(file.as_raw_fd(), fd) };
    assert_eq!(got, fd);
    // SAFETY: the number was made just now, and no other object owns it.
    unsafe { OwnedFd::from_raw_fd(got) }
}

/// Returns a reader that is registered with the hub of this OS thread, and its writer.
fn known_pipe() -> (Source, PipeWriter) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let reader = source(reader);
    read_within(&reader, 8, Some(ms(1))).expect_err("nothing yet");
    (reader, writer)
}

#[track_caller]
fn assert_kind<T: std::fmt::Debug>(result: io::Result<T>, kind: ErrorKind) {
    assert_eq!(result.expect_err("the call is refused").kind(), kind);
}

#[track_caller]
fn assert_closed(mut writer: PipeWriter) {
    assert_kind(writer.write(b"x"), ErrorKind::BrokenPipe);
}

fn reading(source: &Rc<Source>) -> GreenThread<io::Result<Vec<u8>>> {
    let source = Rc::clone(source);
    let reader = spawn(move || read_within(&source, 8, Some(TIMEOUT)));
    yield_now();
    // Lets the wait reach the hub.
    sleep(ms(1));
    reader
}

/// A socket whose number was reused for another socket without notifying the library.
struct Reused {
    /// Never closes the number.
    old: ManuallyDrop<Rc<Source>>,
    new: Rc<Source>,
    peer: Source,
    _old_peer: Source,
}

/// Opens a socket, applies `before` to it, which registers it with the hub, and reuses its number.
fn reused<T>(before: impl FnOnce(&Rc<Source>) -> T) -> (Reused, T) {
    let (old, old_peer) = pair();
    read_within(&old, 8, Some(ms(1))).expect_err("nothing yet");
    let old = ManuallyDrop::new(Rc::new(old));
    let used = before(&old);
    // Marks the descriptor as lent, so that `close` does not close the number.
    let _ = old.as_fd();
    let (new, peer) = UnixStream::pair().expect("a pair");
    let new = Rc::new(source(reuse(old.as_raw_fd(), new.into())));
    (Reused { old, new, peer: source(peer), _old_peer: old_peer }, used)
}

#[test]
fn rule_05_readiness_of_a_former_socket_does_not_apply_to_the_new_one() {
    in_child(|| {
        let (Reused { new, peer, old: _old, _old_peer }, ()) = reused(|_| ());
        write(&peer, b"x").expect("the buffer has room");
        let watches = stats().watches;
        assert_eq!(read(&new, 8).expect("the read succeeds"), b"x");
        assert_eq!(stats().watches, watches, "the readiness of the old socket was applied to the new one");
    });
}

#[test]
fn rule_05_a_registration_of_a_former_socket_does_not_serve_the_new_one() {
    in_child(|| {
        let (Reused { new, peer, old: _old, _old_peer }, ()) = reused(|_| ());
        let reader = reading(&new);
        write(&peer, b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn rule_05_closing_a_former_socket_leaves_the_waiter_of_the_new_one() {
    in_child(|| {
        let (Reused { old, new, peer, _old_peer }, ()) = reused(|_| ());
        let reader = reading(&new);
        old.close();
        sleep(ms(1));
        write(&peer, b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn rule_05_closing_a_socket_under_a_used_number_wakes_its_waiter() {
    in_child(|| {
        let (Reused { new, peer: _peer, old: _old, _old_peer }, ()) = reused(|_| ());
        let reader = reading(&new);
        new.close();
        assert_kind(reader.join().expect("no panic"), ErrorKind::NotConnected);
    });
}

#[test]
fn rule_05_the_waiter_of_a_former_socket_is_woken_with_an_error() {
    in_child(|| {
        let (Reused { new, peer, old: _old, _old_peer }, stale) = reused(reading);
        let reader = reading(&new);
        assert_kind(stale.join().expect("no panic"), ErrorKind::NotConnected);
        write(&peer, b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn rule_05_a_closed_socket_does_not_operate_on_its_former_number() {
    in_child(|| {
        let (old, _writer) = known_pipe();
        let number = old.as_raw_fd();
        old.close();
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let new = source(if reader.as_raw_fd() == number { reader.into() } else { reuse(number, reader.into()) });
        writer.write_all(b"x").expect("the buffer has room");
        assert_kind(read(&old, 8), ErrorKind::NotConnected);
        assert_kind(old.wait(Interest::READ, None), ErrorKind::NotConnected);
        assert_kind(old.with(|_| Ok(())), ErrorKind::NotConnected);
        drop(old);
        assert_eq!(read(&new, 8).expect("the read succeeds"), b"x");
    });
}

#[test]
fn rule_05_closing_a_socket_on_another_thread_wakes_its_waiter() {
    in_child(|| {
        let (reader, _writer) = known_pipe();
        let reader = Arc::new(reader);
        let closes = Arc::clone(&reader);
        let waiter = spawn(move || read_within(&reader, 8, Some(TIMEOUT)));
        yield_now();
        sleep(ms(1));
        std::thread::spawn(move || closes.close()).join().expect("no panic");
        assert_kind(waiter.join().expect("no panic"), ErrorKind::NotConnected);
    });
}

#[test]
fn rule_05_a_socket_closed_on_another_thread_is_deregistered_before_the_close() {
    in_child(|| {
        let (reader, writer) = known_pipe();
        let number = reader.as_raw_fd();
        std::thread::scope(|scope| scope.spawn(|| reader.close()).join()).expect("no panic");
        assert!(is_open(number), "the number was closed before its hub forgot it");
        sleep(ms(1));
        assert!(!is_open(number));
        assert_closed(writer);
    });
}

#[test]
fn rule_05_a_socket_dropped_on_another_thread_is_deregistered_before_the_close() {
    in_child(|| {
        let forgotten = use_recording_hub();
        let (reader, mut writer) = known_pipe();
        let number = reader.as_raw_fd();
        std::thread::spawn(move || drop(reader)).join().expect("no panic");
        // The hub has had no turn since the drop.
        writer.write_all(b"x").expect("its number is open until its hub has forgotten it");
        assert_eq!(*forgotten.borrow(), []);
        sleep(ms(1));
        assert_eq!(*forgotten.borrow(), [(number, Lent::Open)]);
        assert_closed(writer);
    });
}

#[test]
fn rule_05_a_socket_without_its_hub_is_closed_by_the_drop() {
    in_child(|| {
        for has_hub in [false, true] {
            if has_hub {
                sleep(ms(1));
            }
            let (reader, writer) = std::thread::spawn(known_pipe).join().expect("no panic");
            let number = reader.as_raw_fd();
            drop(reader);
            assert!(!is_open(number));
            assert_closed(writer);
        }
    });
}

#[test]
fn rule_05_a_socket_is_closed_when_its_hub_ends_with_the_request_pending() {
    in_child(|| {
        let (give, given) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            give.send(known_pipe()).expect("a receiver waits");
            // The hub's loop runs no further turn.
            let _ = ends.recv();
        });
        let (reader, writer) = given.recv().expect("a pipe");
        let number = reader.as_raw_fd();
        drop(reader);
        assert!(is_open(number), "the number was closed before its hub forgot it");
        drop(end);
        thread.join().expect("no panic");
        assert!(!is_open(number));
        assert_closed(writer);
    });
}

#[test]
fn rule_05_a_wait_on_a_second_hub_is_refused_each_time() {
    in_child(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        let waits = Arc::clone(&here);
        let waiter = spawn(move || read_within(&waits, 8, Some(TIMEOUT)));
        yield_now();
        let refused = std::thread::spawn(move || {
            for _ in 0..3 {
                for direction in [Interest::READ, Interest::WRITE] {
                    assert_kind(here.wait(direction, Some(ms(1))), ErrorKind::ResourceBusy);
                }
                assert_kind(read_within(&here, 8, Some(ms(1))), ErrorKind::ResourceBusy);
            }
        });
        refused.join().expect("no panic");
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(waiter.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn rule_05_a_moved_socket_is_deregistered_by_its_former_hub() {
    in_child(|| {
        let forgotten = use_recording_hub();
        let (reader, mut writer) = known_pipe();
        let number = reader.as_raw_fd();
        let thread = std::thread::spawn(move || read_within(&reader, 8, Some(TIMEOUT)));
        let begin = std::time::Instant::now();
        while forgotten.borrow().is_empty() && begin.elapsed() < TIMEOUT {
            sleep(ms(1));
        }
        assert_eq!(*forgotten.borrow(), [(number, Lent::Open)]);
        writer.write_all(b"x").expect("the buffer has room");
        assert_eq!(thread.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn rule_05_a_late_release_request_keeps_a_socket_that_came_back() {
    in_child(|| {
        let (reader, mut writer) = known_pipe();
        let reader = std::thread::spawn(move || {
            read_within(&reader, 8, Some(ms(1))).expect_err("nothing yet");
            reader
        });
        // This hub has had no turn since the request, so it reads the request when it waits for the socket again.
        let reader = reader.join().expect("no panic");
        let other = spawn(move || {
            sleep(ms(5));
            writer.write_all(b"x").expect("the buffer has room");
        });
        assert_eq!(read_within(&reader, 8, Some(TIMEOUT)).expect("the read succeeds"), b"x");
        other.join().expect("no panic");
    });
}

#[test]
fn rule_05_a_socket_closed_while_its_hub_is_built_is_not_waited_for() {
    in_child(|| {
        let (reader, _writer) = io::pipe().expect("a pipe");
        let reader = Rc::new(source(reader));
        let closes = Rc::clone(&reader);
        use_hub_with(move || {
            // The wait has begun, and no hub has registered the socket yet.
            closes.close();
            default_hub()
        })
        .expect("not in the main loop");
        assert_kind(reader.wait(Interest::READ, Some(TIMEOUT)), ErrorKind::NotConnected);
    });
}

#[test]
fn rule_05_a_number_stays_open_while_an_operation_uses_it() {
    in_child(|| {
        let (reader, writer) = known_pipe();
        let still_open = reader.with(|fd| {
            reader.close();
            Ok(is_open(fd.as_raw_fd()))
        });
        assert!(still_open.expect("the source is open"));
        assert_closed(writer);
    });
}

#[test]
fn rule_05_into_fd_deregisters_the_socket() {
    in_child(|| {
        let forgotten = use_recording_hub();
        let (reader, _writer) = known_pipe();
        let number = reader.as_raw_fd();
        let fd = reader.into_fd().expect("the source is open");
        assert_eq!((get_hub().name(), fd.as_raw_fd()), ("recorder", number));
        assert_eq!(*forgotten.borrow(), [(number, Lent::Open)]);
    });
}
