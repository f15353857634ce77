//! Forked children of a test.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::descriptors::until;

/// The number of seconds after which an alarm ends a hung child.
///
/// Less than the time after which its parent counts as hung.
const LIMIT: u32 = 100;

/// Forks. The child runs `body`, and exits with status 0, or with 1 if `body` panics.
pub(crate) fn forked(body: impl FnOnce()) -> Pid {
    fork_here().unwrap_or_else(|| exit_after(body))
}

/// Forks, and returns the child's ID in the parent. Both processes go on: the child has to end by [`exit_after`].
pub(crate) fn fork_here() -> Option<Pid> {
    // SAFETY: the child uses only memory that it has a copy of. A lock that another OS thread of the parent holds stays
    // locked in the child, so the data behind it stays out of reach: such a child hangs until the alarm.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => {
            nix::unistd::alarm::set(LIMIT);
            None
        }
    }
}

/// Runs `body` in a child, which exits with status 0, or with 1 if `body` panics.
pub(crate) fn exit_after(body: impl FnOnce()) -> ! {
    let done = catch_unwind(AssertUnwindSafe(body));
    exit(i32::from(done.is_err()))
}

/// Ends a forked child without running the destructors that it inherited from its parent.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Waits for a child while other green threads run, and asserts that it succeeded.
#[track_caller]
pub(crate) fn ends_well(child: Pid) {
    let mut status = WaitStatus::StillAlive;
    until(|| {
        status = waitpid(child, Some(WaitPidFlag::WNOHANG)).expect("our child");
        status != WaitStatus::StillAlive
    });
    assert_eq!(status, WaitStatus::Exited(child, 0));
}

/// Waits for a child without a turn of the loop, and asserts its exit status.
#[track_caller]
pub(crate) fn exits_with(child: Pid, status: i32) {
    assert_eq!(waitpid(child, None).expect("our child"), WaitStatus::Exited(child, status));
}

/// Runs `body` in a forked child that has a hub, and asserts that the child succeeds.
#[track_caller]
pub(crate) fn in_fork(body: fn()) {
    super::in_child(move || {
        greenhub::thread::yield_now();
        ends_well(forked(body));
    });
}
