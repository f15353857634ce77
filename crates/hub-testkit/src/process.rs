//! Runs a case with a watchdog, and in a process of its own if it would disturb other tests.
//!
//! Ground rule: actions that affect the whole process (a fork, a signal handler, closing a number in use) happen only
//! in a process that was started for one case. Its other OS threads, libtest's and the watchdog's, only sleep: they
//! hold no lock and open no descriptor.

use std::env;
use std::os::fd::{OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, fork};

/// The process in which a case runs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Home {
    /// Beside other tests.
    Shared,
    /// In a process of its own: the case forks, takes signals, or needs numbers that no other test reuses.
    Own,
}

/// The environment variable with the name of the test that a process was started for.
const ALONE: &str = "HUB_TESTKIT_ALONE";

/// The time limit of a case. The slowest case needs about a second.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the case of the test `test`, a path that begins with the name of the crate.
///
/// A case that hangs ends the process.
///
/// # Panics
///
/// Panics if the case fails.
#[track_caller]
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

/// Runs `test` of this program in a new process, with `variable` set to `value`.
///
/// # Panics
///
/// Panics if the program cannot be started.
#[track_caller]
pub fn alone(test: &str, variable: &str, value: &str) -> Output {
    let program = env::current_exe().expect("the test program knows its path");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture", "--include-ignored", "--test-threads=2"]);
    command.env(ALONE, test).env(variable, value);
    command.stdin(Stdio::null()).output().expect("the test program starts again")
}

/// Panics unless this process was started for one case.
pub(crate) fn assert_own() {
    assert!(env::var_os(ALONE).is_some(), "the case needs a process of its own: Home::Own");
}

/// Runs `child` in a forked child process and expects it to return without a panic.
pub(crate) fn in_child(child: impl FnOnce()) {
    assert_own();
    // SAFETY: by the ground rule no other OS thread holds a lock, so the child may allocate. The child ends by `_exit`.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            // The watchdog's OS thread does not exist in the child.
            alarm::set(100);
            let result = catch_unwind(AssertUnwindSafe(child));
            // SAFETY: `_exit` has no preconditions. It runs no destructors of the parent's copied state.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("the child ends");
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "the child failed: {status:?}");
        }
    }
}

/// Raises the limit of descriptors. Returns false if the system allows fewer than `count`.
pub(crate) fn allow_descriptors(count: RawFd) -> bool {
    assert_own();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of descriptors");
    let allowed = hard >= count as libc::rlim_t;
    if allowed {
        setrlimit(Resource::RLIMIT_NOFILE, count as libc::rlim_t, hard).expect("a limit within the hard one");
    }
    allowed
}

/// The identity of an open file: device and inode. It is `None` if the descriptor is closed.
pub(crate) type Identity = Option<(u64, u64)>;

#[allow(clippy::unnecessary_cast, reason = "the types are narrower on other systems")]
pub(crate) fn identity_of(file: &OwnedFd) -> Identity {
    rustix::fs::fstat(file).ok().map(|stat| (stat.st_dev as u64, stat.st_ino as u64))
}

/// Closes every descriptor but the standard ones, and opens other files in their place.
///
/// For a forked child that does not use its earlier descriptors again.
pub(crate) fn replace_all_descriptors() -> Vec<(OwnedFd, Identity)> {
    const HIGHEST: i32 = 256;

    assert_own();
    for number in 3..HIGHEST {
        // SAFETY: the case neither uses nor drops the owners of these numbers any more: the child ends by `_exit`. The
        // hub under test must cope with the closed numbers by clause 16.
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

/// Installs a handler for `signal` that only interrupts system calls.
pub(crate) fn let_interrupt(signal: Signal) {
    extern "C" fn interrupted(_signal: i32) {}
    assert_own();
    let action = SigAction::new(SigHandler::Handler(interrupted), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    unsafe { sigaction(signal, &action) }.expect("a handler for a signal");
}

/// Runs `work` under a time limit.
///
/// If `work` takes longer than `limit`, the process prints a line with `name` and aborts.
///
/// ```
/// use std::time::Duration;
/// let sum = hub_testkit::process::watchdog("an addition", Duration::from_secs(30), || 1 + 1);
/// assert_eq!(sum, 2);
/// ```
pub fn watchdog<T>(name: &str, limit: Duration, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    let name = name.to_owned();
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

/// Prints why a case does not apply to a hub.
pub(crate) fn skip(hub: &str, why: &str) {
    println!("{SKIPPED}{hub}: {why}");
}
