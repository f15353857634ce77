//! How a case is run: with a watchdog, and in a process of its own where it must not disturb others.
//!
//! Ground rules: what touches the whole process (a fork, a handler for a signal, a number that is closed while it
//! is in use) happens in a process that was started for one case. Its other threads, libtest's and the watchdog's,
//! only sleep, hold no lock and open nothing.

use std::env;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, fork};

/// Where a case runs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Home {
    /// Beside other tests.
    Shared,
    /// In a process of its own: it forks, takes signals, or needs numbers that nobody else reuses.
    Own,
}

/// Names the one test that a process was started for.
const ALONE: &str = "HUB_TESTKIT_ALONE";

/// How long a case may take. The slowest needs about a second.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the case of the test `test`, which is its path with the name of the crate.
///
/// # Panics
///
/// If the case fails. A case that hangs ends the process.
pub fn run(test: &str, home: Home, case: impl FnOnce()) {
    let test = test.split_once("::").map_or(test, |(_crate, path)| path);
    if home == Home::Shared || env::var(ALONE).is_ok_and(|alone| alone == test) {
        return watchdog(test, LIMIT, case);
    }
    let output = watchdog(test, LIMIT + LIMIT, || alone(test, ALONE, test));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} failed in a process of its own ({}):\n{out}{err}", output.status);
    for line in out.lines().filter(|line| line.starts_with(SKIPPED)) {
        println!("{line}");
    }
}

/// Runs the test `test` of this program in a new process, with `variable` set to `value`.
///
/// # Panics
///
/// If the program cannot be started.
pub fn alone(test: &str, variable: &str, value: &str) -> Output {
    let program = env::current_exe().expect("the test program knows its path");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture", "--include-ignored", "--test-threads=2"]);
    command.env(ALONE, test).env(variable, value);
    command.stdin(Stdio::null()).output().expect("the test program starts again")
}

/// Panics unless this process was started for one case.
pub(crate) fn assert_own() {
    assert!(env::var_os(ALONE).is_some(), "the case wants a process of its own: Home::Own");
}

/// Runs `child` in a forked child and expects it to end without a panic.
pub(crate) fn in_child(child: impl FnOnce()) {
    assert_own();
    // SAFETY: by the ground rules no lock is held, so the child may allocate. It leaves by `_exit`.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            // The watchdog did not come along.
            alarm::set(100);
            let result = catch_unwind(AssertUnwindSafe(child));
            // SAFETY: ends the process and touches nothing.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("the child ends");
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "the child failed: {status:?}");
        }
    }
}

/// The identity of a file: device and number. None if nothing is open there.
pub(crate) type Identity = Option<(u64, u64)>;

#[allow(clippy::unnecessary_cast, reason = "the types are narrower on other systems")]
pub(crate) fn identity_of(file: &OwnedFd) -> Identity {
    rustix::fs::fstat(file).ok().map(|stat| (stat.st_dev as u64, stat.st_ino as u64))
}

/// Closes every descriptor but the standard ones, and opens other files in their place. For a child, which must not use
/// what it had open before.
pub(crate) fn replace_all_descriptors() -> Vec<(OwnedFd, Identity)> {
    const HIGHEST: i32 = 256;

    assert_own();
    for number in 3..HIGHEST {
        // SAFETY: what has these numbers is not used any more by the case, nor dropped: the child leaves by `_exit`. The hub
        // under test has to do without.
        unsafe { libc::close(number) };
    }
    let pipes = (0..16).map(|_| std::io::pipe().expect("a pipe"));
    let files = pipes.flat_map(|(reader, writer)| [OwnedFd::from(reader), OwnedFd::from(writer)]);
    let identified = files.map(|file| {
        let identity = identity_of(&file);
        (file, identity)
    });
    identified.collect()
}

/// Lets `signal` interrupt what it hits, and nothing else.
pub(crate) fn let_interrupt(signal: Signal) {
    extern "C" fn interrupted(_signal: i32) {}
    assert_own();
    let action = SigAction::new(SigHandler::Handler(interrupted), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(signal, &action) }.expect("a handler for a signal");
}

/// Runs `work`, and ends the process with a line that names `what` if it takes longer than `limit`.
///
/// ```
/// use std::time::Duration;
/// let sum = hub_testkit::process::watchdog("an addition", Duration::from_secs(30), || 1 + 1);
/// assert_eq!(sum, 2);
/// ```
pub fn watchdog<T>(what: &str, limit: Duration, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    let name = what.to_owned();
    thread::spawn(move || {
        if is_done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs: not done after {limit:?}");
            std::process::abort();
        }
    });
    let result = work();
    drop(done);
    result
}

const SKIPPED: &str = "skipped: ";

/// Says why a case does not apply to a hub.
pub(crate) fn skip(hub: &str, why: &str) {
    println!("{SKIPPED}{hub}: {why}");
}
