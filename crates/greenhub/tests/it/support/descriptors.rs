//! Helpers for tests of descriptors, threads and processes.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::HANG;
use greenhub::get_hub;
use greenhub::hub::Stats;
use greenhub::park::{ReadHint, Source};

/// Returns the two ends of a connection.
pub(crate) fn pair() -> (Source, Source) {
    let (left, right) = UnixStream::pair().expect("a pair");
    (source(left), source(right))
}

pub(crate) fn source(fd: impl Into<std::os::fd::OwnedFd>) -> Source {
    Source::new(fd.into()).expect("a source")
}

/// Reads at most `limit` bytes.
pub(crate) fn read(source: &Source, limit: usize) -> io::Result<Vec<u8>> {
    read_within(source, limit, None)
}

pub(crate) fn read_within(source: &Source, limit: usize, timeout: Option<Duration>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; limit];
    let count = source.read(timeout, |fd| {
        let count = rustix::io::read(fd, &mut buffer)?;
        Ok((count, if count == limit { ReadHint::Perhaps } else { ReadHint::Nothing }))
    })?;
    buffer.truncate(count);
    Ok(buffer)
}

pub(crate) fn write(source: &Source, bytes: &[u8]) -> io::Result<usize> {
    source.write(None, |fd| Ok(rustix::io::write(fd, bytes)?))
}

/// Asserts that the other end of `peer` is closed.
///
/// Retries for a while: a child that another test starts holds a copy of the descriptor until its `exec`.
#[track_caller]
pub(crate) fn assert_other_end_closed(peer: &Source) {
    until(|| write(peer, b"x").is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe));
}

/// Writes until the kernel buffer is full, and returns the number of bytes.
pub(crate) fn fill(source: &Source) -> usize {
    source.set_nonblocking(true);
    let mut total = 0;
    while let Ok(count) = write(source, &[0; 16 * 1024]) {
        total += count;
    }
    source.set_nonblocking(false);
    total
}

/// Returns whether the hub is edge-triggered: it reports each arrival once, even without a waiter.
pub(crate) fn reports_arrivals() -> bool {
    match get_hub().name() {
        "epoll" => std::env::var("GREENHUB_EPOLL").is_ok_and(|ways| ways.contains("edge")),
        name => name == "kqueue",
    }
}

pub(crate) fn stats() -> Stats {
    get_hub().stats()
}

/// Asserts that no greenlet waits for a descriptor.
#[track_caller]
pub(crate) fn assert_no_waiters() {
    let stats = stats();
    assert_eq!((stats.readers, stats.writers), (0, 0));
}

/// Sleeps until `done` returns true.
#[track_caller]
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < HANG, "waited in vain");
        greenhub::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Waits for `number` as a foreign loop does. Returns whether it is readable.
pub(crate) fn is_readable(number: RawFd, limit: Duration) -> bool {
    let mut poll = libc::pollfd { fd: number, events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one entry on this stack, and the length is 1.
    let found = unsafe { libc::poll(&mut poll, 1, limit.as_millis() as i32) };
    assert!(found >= 0);
    found == 1
}
