//! Operations on descriptors in destructors of thread-locals, after the end of their OS thread.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::mpsc;

use crate::support::green::{OnDrop, SHORT};
use greenhub::park::{ReadHint, Source};
use greenhub::{sleep, try_get_hub};

/// The results of the first tries of an operation. Each further try succeeds.
type Tries = &'static [ErrorKind];

/// An operation that runs when the OS thread has ended.
type Late = RefCell<Option<OnDrop<Box<dyn FnMut()>>>>;

/// Reads from a pipe that holds a byte, after the end of an OS thread. Returns the result and the number of tries.
fn read_late(nonblocking: bool, tries: Tries) -> (io::Result<()>, usize) {
    thread_local!(static LATE: Late = const { RefCell::new(None) });
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        assert!(try_get_hub().is_err(), "the thread has not ended");
        let (reader, mut writer) = io::pipe().expect("a pipe");
        io::Write::write_all(&mut writer, b"x").expect("the buffer has room");
        let source = Source::new(reader.into()).expect("a source");
        source.set_nonblocking(nonblocking);
        let mut tried = 0;
        let result = source.read(None, |_| {
            tried += 1;
            tries.get(tried - 1).map_or(Ok(((), ReadHint::Nothing)), |&kind| Err(kind.into()))
        });
        // A panic in a destructor of a thread-local would abort the process.
        sender.send((result, tried)).expect("a receiver");
    };
    let thread = std::thread::spawn(|| {
        // Initialized before the library's thread-locals, so destroyed after them.
        LATE.with(|_| ());
        sleep(SHORT);
        LATE.set(Some(OnDrop(Box::new(read))));
    });
    thread.join().expect("no panic");
    receiver.recv().expect("the destructor has run")
}

#[test]
fn a_late_read_continues_after_an_interruption() {
    let (result, tries) = read_late(false, &[ErrorKind::Interrupted, ErrorKind::Interrupted]);
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(tries, 3);
}

#[test]
fn a_late_read_waits_until_its_descriptor_is_ready() {
    // One report of readiness may be wrong.
    let (result, tries) = read_late(false, &[ErrorKind::WouldBlock, ErrorKind::WouldBlock]);
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(tries, 3);
}

#[test]
fn a_late_read_returns_an_error_at_once() {
    let (result, tries) = read_late(false, &[ErrorKind::ConnectionReset]);
    assert_eq!(result.expect_err("the peer resets the connection").kind(), ErrorKind::ConnectionReset);
    assert_eq!(tries, 1);
}

#[test]
fn a_late_read_of_a_nonblocking_source_does_not_wait() {
    let (result, tries) = read_late(true, &[ErrorKind::WouldBlock]);
    assert_eq!(result.expect_err("the read does not wait").kind(), ErrorKind::WouldBlock);
    assert_eq!(tries, 1);
}
