//! Helpers for the tests of the facade.

#![allow(dead_code, reason = "the programs for the features use a part of it")]

pub(crate) mod async_pair;
pub(crate) mod bare_hub;
pub(crate) mod closed_port;
pub(crate) mod counting;
pub(crate) mod descriptors;
pub(crate) mod example;
pub(crate) mod fork;
pub(crate) mod green;
pub(crate) mod greenlet_model;
pub(crate) mod hubs;
#[allow(unreachable_pub, reason = "hub-core shows it as a third party would write it")]
#[path = "../../../../hub-core/tests/support/poll_hub.rs"]
pub(crate) mod poll_hub;
pub(crate) mod random;
#[macro_use]
pub(crate) mod same;
pub(crate) mod site;
pub(crate) mod web_server;

use std::any::Any;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::panic::Location;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::Duration;

/// The time after which a test counts as hung. Ample even on a busy machine.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// Returns the features with which an example is built.
///
/// The hub under test, or the example, may need a feature that is off by default.
fn example_features() -> String {
    let features = [
        ("libevent", cfg!(feature = "libevent")),
        ("tokio", cfg!(feature = "tokio")),
        ("hyper-io", cfg!(feature = "hyper-io")),
        ("metrics", cfg!(feature = "metrics")),
    ];
    features.into_iter().filter(|&(_, on)| on).map(|(name, _)| name).collect::<Vec<_>>().join(",")
}

/// Runs a test on a new OS thread, which has no hub yet.
///
/// If the test hangs, aborts the process with the test's name: a main loop that waits forever prints nothing.
pub(crate) fn run<T: Send + 'static>(name: &str, test: impl FnOnce() -> T + Send + 'static) -> T {
    let value = run_boxed(name, Box::new(move || Box::new(test())));
    *value.downcast().expect("the type that the test returns")
}

/// Is compiled once, whereas each test compiles [`run`].
fn run_boxed(name: &str, test: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>) -> Box<dyn Any + Send> {
    let (done, ended) = mpsc::channel::<()>();
    let name = test_name(name);
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        // Dropped at the end, by a panic too.
        let _done = done;
        greenhub::thread::os::run_and_shutdown(Some(HANG / 4), test)
    });
    let thread = thread.expect("an OS thread");
    abort_unless_dropped(&ended, &name);
    match thread.join() {
        Ok(value) => value,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Runs a test on this OS thread, and aborts the process with the test's name if the test hangs.
#[track_caller]
pub(crate) fn limited<T>(test: impl FnOnce() -> T) -> T {
    let _deadline = deadline();
    test()
}

/// Aborts the process with the name and location of the test if the test hangs. Dropping the value disarms it.
pub(crate) struct Deadline(#[allow(dead_code, reason = "the thread waits for its drop")] mpsc::Sender<()>);

#[track_caller]
pub(crate) fn deadline() -> Deadline {
    let place = Location::caller();
    let name = format!("{} ({place})", std::thread::current().name().unwrap_or_default());
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || abort_unless_dropped(&ended, &name));
    Deadline(done)
}

/// Waits until the sender is dropped, and aborts the process if that takes too long.
fn abort_unless_dropped(sender: &mpsc::Receiver<()>, name: &str) {
    if sender.recv_timeout(HANG) == Err(mpsc::RecvTimeoutError::Timeout) {
        // The harness captures `eprintln!` until the end of the test, which never comes.
        let _ = writeln!(std::io::stderr(), "test {name} hangs: it has run for {HANG:?}");
        std::process::abort();
    }
}

/// Returns the number of open descriptors of this process.
pub(crate) fn open_descriptors() -> usize {
    // The listing itself holds one descriptor.
    std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").count() - 1
}

/// Runs one test of this program in a new process, and returns its output.
///
/// `configure` may change the command. In the new process the test sees [`is_child`] return true.
pub(crate) fn rerun(test: &str, configure: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("a test program"));
    let name = test_name(test);
    command.args([&name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    configure(&mut command);
    let output = command.output().expect("the test program runs");
    // The harness succeeds even if it finds no such test. The output is empty if `configure` redirected it.
    let printed = &output.stdout;
    assert!(printed.is_empty() || printed.starts_with(b"\nrunning 1 test\n"), "{name} is not found: {output:?}");
    output
}

/// Runs a test like [`run`], but in its own process: for a test that changes or counts process-wide state.
#[track_caller]
pub(crate) fn alone(name: &str, test: impl FnOnce() + Send + 'static) {
    if is_child() {
        return run(name, test);
    }
    assert_succeeded(&rerun(name, |_| ()));
}

/// Runs a test like [`limited`], but in its own process: for a test that needs the OS thread of the harness.
#[track_caller]
pub(crate) fn in_child(test: impl FnOnce()) {
    if is_child() {
        return limited(test);
    }
    let name = std::thread::current().name().expect("tests are named").to_owned();
    // In its own process group, so that a signal to the group does not reach the other tests.
    let output = rerun(&name, |command| _ = command.process_group(0));
    assert_succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[track_caller]
pub(crate) fn assert_succeeded(output: &Output) {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}: {out}{err}", output.status);
}

/// Returns the name of the running test with its modules, taken from the harness thread. On other threads, returns
/// `test`.
fn test_name(test: &str) -> String {
    let thread = std::thread::current();
    let path = thread.name().filter(|path| path.rsplit("::").next() == test.rsplit("::").next());
    path.unwrap_or(test).to_owned()
}

const CHILD: &str = "GREENHUB_TEST_CHILD";

/// Lets [`is_child`] return true in the process of `command`.
pub(crate) fn mark_child(command: &mut Command) -> &mut Command {
    command.env(CHILD, "1")
}

/// Returns whether this process was started by [`rerun`].
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}
