//! What the green suite shares.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a test on an OS thread of its own, which has no hub yet, and aborts the process with the test's name if
/// it hangs: a loop that waits for ever would otherwise say nothing.
pub(crate) fn run<T: Send + 'static>(name: &str, test: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel::<()>();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
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
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    configure(&mut command);
    command.output().expect("the test program runs")
}

const CHILD: &str = "GREENHUB_TEST_CHILD";

/// Whether this process was started by [`in_child`].
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}
