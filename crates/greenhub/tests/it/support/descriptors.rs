//! What the tests of descriptors, threads and processes share.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::panic::Location;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use greenhub::{ReadHint, Source, Stats, get_hub};

/// Long for a machine that is busy, short for a person.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// Ends the process with the place of the test if it hangs; until it is dropped.
pub(crate) struct Deadline(#[allow(dead_code, reason = "its drop is what is waited for")] Sender<()>);

#[track_caller]
pub(crate) fn deadline() -> Deadline {
    let place = Location::caller();
    let name = std::thread::current().name().unwrap_or("").to_owned();
    let (sender, receiver) = channel::<()>();
    std::thread::spawn(move || {
        if receiver.recv_timeout(HANG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // Not by `eprintln!`, whose text is kept for the end of the test.
            let _ = writeln!(io::stderr(), "test {name} ({place}) hangs: it has run for {HANG:?}");
            std::process::abort();
        }
    });
    Deadline(sender)
}

const CHILD: &str = "GREENHUB_TEST_CHILD";

/// Runs `body` in a process of its own, in which no other test runs: this program again, with the test's
/// name.
#[track_caller]
pub(crate) fn in_child(body: impl FnOnce()) {
    let name = std::thread::current().name().expect("tests are named").to_owned();
    if std::env::var_os(CHILD).is_some() {
        let _deadline = deadline();
        return body();
    }
    let mut command = Command::new(std::env::current_exe().expect("the test program"));
    command.args([&name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    // A group of its own: a signal for it is none for the others.
    let mut child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a child");
    let mut errors = child.stderr.take().expect("piped");
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let output = child.wait_with_output().expect("a child");
    let errors = errors.join().expect("read");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{}: {told}{errors}", output.status);
}

/// Two ends of a connection.
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

/// The other end of `peer` is closed. A child that another test starts has a copy of it for a while.
#[track_caller]
pub(crate) fn assert_other_end_closed(peer: &Source) {
    until(|| write(peer, b"x").is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe));
}

/// Writes until the kernel takes no more.
pub(crate) fn fill(source: &Source) -> usize {
    source.set_nonblocking(true);
    let mut total = 0;
    while let Ok(count) = write(source, &[0; 16 * 1024]) {
        total += count;
    }
    source.set_nonblocking(false);
    total
}

/// Whether the hub reports each arrival once, waited for or not.
pub(crate) fn reports_arrivals() -> bool {
    match get_hub().name() {
        "epoll" => std::env::var("GREENHUB_EPOLL").is_ok_and(|ways| ways.contains("edge")),
        name => name == "kqueue",
    }
}

pub(crate) fn stats() -> Stats {
    get_hub().stats()
}

/// Nobody waits for any descriptor.
#[track_caller]
pub(crate) fn assert_nobody_waits() {
    let stats = stats();
    assert_eq!((stats.readers, stats.writers), (0, 0));
}

/// Gives way until `done`.
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

/// How many descriptors this process has open.
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}
