//! Helpers for tests of descriptors, threads and processes.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::panic::Location;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use greenhub::get_hub;
use greenhub::hub::Stats;
use greenhub::park::{ReadHint, Source};

/// The time after which a test counts as hung. Ample even on a busy machine.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// Aborts the process with the location of the test if the test hangs. Dropping the value disarms it.
pub(crate) struct Deadline(#[allow(dead_code, reason = "the thread waits for its drop")] Sender<()>);

#[track_caller]
pub(crate) fn deadline() -> Deadline {
    let place = Location::caller();
    let name = std::thread::current().name().unwrap_or("").to_owned();
    let (sender, receiver) = channel::<()>();
    std::thread::spawn(move || {
        if receiver.recv_timeout(HANG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // The harness captures `eprintln!` until the end of the test, which never comes.
            let _ = writeln!(io::stderr(), "test {name} ({place}) hangs: it has run for {HANG:?}");
            std::process::abort();
        }
    });
    Deadline(sender)
}

const CHILD: &str = "GREENHUB_TEST_CHILD";

/// Runs `body` in its own process, in which no other test runs.
///
/// Starts this program again with the name of the calling test.
#[track_caller]
pub(crate) fn in_child(body: impl FnOnce()) {
    let name = std::thread::current().name().expect("tests are named").to_owned();
    if std::env::var_os(CHILD).is_some() {
        let _deadline = deadline();
        return body();
    }
    let mut command = Command::new(std::env::current_exe().expect("the test program"));
    command.args([&name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    // In its own process group, so that a signal to the group does not reach the other tests.
    let mut child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a child");
    let mut errors = child.stderr.take().expect("piped");
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let output = child.wait_with_output().expect("a child");
    let errors = errors.join().expect("read");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{}: {printed}{errors}", output.status);
}

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

/// Returns the number of open descriptors of this process.
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}
