//! What the tests of the facade share.

#![allow(dead_code, reason = "the programs for the features use a part of it")]

pub(crate) mod counting;
pub(crate) mod descriptors;
pub(crate) mod example;
pub(crate) mod green;
pub(crate) mod greenlet_model;
pub(crate) mod loops;
pub(crate) mod nobody;
pub(crate) mod noting;
#[allow(unreachable_pub, reason = "hub-core shows it as a third party would write it")]
#[path = "../../../../hub-core/tests/support/poll_hub.rs"]
pub(crate) mod poll_hub;
pub(crate) mod random;
#[macro_use]
pub(crate) mod same;
pub(crate) mod site;
pub(crate) mod web_server;

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a test on an OS thread of its own, which has no hub yet, and aborts the process with the test's name if
/// it hangs: a loop that waits for ever would otherwise say nothing.
pub(crate) fn run<T: Send + 'static>(name: &str, test: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel::<()>();
    let name = test_name(name);
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        // Dropped at the end, however that comes about.
        let _done = done;
        greenhub::thread::os::run_and_shutdown(Some(LIMIT / 4), test)
    });
    let thread = thread.expect("an OS thread");
    if ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
        let _ = writeln!(std::io::stderr(), "test {name} hangs: it has run for {LIMIT:?}");
        std::process::abort();
    }
    match thread.join() {
        Ok(value) => value,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// How many descriptors this process has open.
pub(crate) fn open_descriptors() -> usize {
    // The listing itself has one open.
    std::fs::read_dir("/proc/self/fd").expect("proc").count() - 1
}

/// Runs one test of this program in a process of its own, as `configure` wants it, and returns what it did.
///
/// The test asks [`is_child`] whether it is the one that was started here.
pub(crate) fn in_child(test: &str, configure: impl FnOnce(&mut std::process::Command)) -> std::process::Output {
    let mut command = std::process::Command::new(std::env::current_exe().expect("a test program"));
    let name = test_name(test);
    command.args([&name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    configure(&mut command);
    let output = command.output().expect("the test program runs");
    // A program that finds no such test succeeds, too. Empty is what goes elsewhere.
    let told = &output.stdout;
    assert!(told.is_empty() || told.starts_with(b"\nrunning 1 test\n"), "{name} is not found: {output:?}");
    output
}

/// Runs a test that changes or counts something of the whole process: as [`run`], in a process of its own.
pub(crate) fn alone(name: &str, test: impl FnOnce() + Send + 'static) {
    if is_child() {
        return run(name, test);
    }
    let output = in_child(name, |_| ());
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// The name of the running test with its modules, as the thread of the harness is called; elsewhere it is `test`.
fn test_name(test: &str) -> String {
    let thread = std::thread::current();
    let path = thread.name().filter(|path| path.rsplit("::").next() == test.rsplit("::").next());
    path.unwrap_or(test).to_owned()
}

const CHILD: &str = "GREENHUB_TEST_CHILD";

/// Whether this process was started by [`in_child`].
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}
