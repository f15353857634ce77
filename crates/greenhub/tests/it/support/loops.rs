//! Helpers for tests of the main loop: a time limit for each test.

#![allow(dead_code)]

use std::io::{self, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// The time after which a test counts as hung.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a test, and aborts the process with the test's name if the test hangs.
pub(crate) fn limited<R>(test: impl FnOnce() -> R) -> R {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (done, is_done) = channel::<()>();
    thread::spawn(move || {
        if is_done.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            // The harness captures `eprintln!` until the end of the test, which never comes.
            let _ = writeln!(io::stderr(), "test {name} hangs: it has run for {LIMIT:?}");
            std::process::abort();
        }
    });
    let result = test();
    drop(done);
    result
}

/// Runs `test`, the body of the test `name`, in its own process.
pub(crate) fn in_child(name: &str, test: impl FnOnce()) {
    const CHILD: &str = "GREENHUB_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return test();
    }
    let output = super::in_child(name, |_| ());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
