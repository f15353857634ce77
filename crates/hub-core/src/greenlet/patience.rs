//! Waits for locks hold exits back, up to a limit.
//!
//! A destructor that returns a resource does so under a lock. An exit that struck in the wait for that lock would lose
//! the resource. Most locks are free again soon, so an exit waits until its target has the lock, and strikes at the
//! next wait that is not for a lock. If the lock is not free after the *patience*, the exit strikes anyway. Otherwise a
//! wait for a lock that is never unlocked could not be ended.
//!
//! The *patience timer* ends the park with the exit. It is armed when an exit meets a park for a lock, or when such a
//! park begins with an exit pending. It is disarmed when that park ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::control::ControlRef;
use super::driver::Driver;
use super::exit::Exit;
use super::local;
use super::target::Target;
use crate::base::wait_reason::WaitReason;
use crate::error::GreenError;

/// The lock patience in nanoseconds. `u64::MAX` means no limit.
static LOCK_PATIENCE: AtomicU64 = AtomicU64::new(1_000_000_000);

/// Sets how long an exit waits for a target that waits for a lock. Does not switch.
///
/// Applies to the whole process. With `None`, an exit waits until the target has the lock. With zero, it does not wait.
/// The default is one second. [`with_timeout`] describes where exits strike.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(greenhub::greenthread::lock_patience(), Some(Duration::from_secs(1)));
/// greenhub::greenthread::set_lock_patience(None);
/// ```
///
/// [`with_timeout`]: crate::with_timeout
pub fn set_lock_patience(patience: impl Into<Option<Duration>>) {
    let nanos = patience.into().map_or(u64::MAX, |patience| u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
    LOCK_PATIENCE.store(nanos, Ordering::Relaxed);
}

/// Returns how long an exit waits for a target that waits for a lock. Does not switch.
///
/// See [`set_lock_patience`].
#[must_use]
pub fn lock_patience() -> Option<Duration> {
    match LOCK_PATIENCE.load(Ordering::Relaxed) {
        u64::MAX => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}

/// Returns whether a wait for this reason holds exits back.
pub(crate) fn holds_exits(reason: WaitReason) -> bool {
    reason == WaitReason::Lock && lock_patience() != Some(Duration::ZERO)
}

/// Returns whether the wait in which `target` is parked holds `exit` back.
///
/// An error of the loop strikes at once, because the loop's timers may be gone.
pub(super) fn holds_back(target: ControlRef, exit: &Exit) -> bool {
    !matches!(exit, Exit::Kill(GreenError::Loop(_))) && holds_exits(target.reason())
}

/// Arms the timer that ends the park `ticket` of `target` with the pending exit after the patience.
pub(super) fn begin(target: ControlRef, ticket: u64) {
    let Some(patience) = lock_patience() else { return };
    let entry = Target::Patience { greenlet: target.number(), ticket };
    if let Some(before) = target.replace_patience_timer(Some(local::get().main_loop.arm(patience, entry))) {
        local::get().main_loop.disarm(before);
    }
}

/// Disarms the patience timer, because the park of `me` is over.
#[cold]
pub(crate) fn end(me: ControlRef) {
    if let Some(timer) = me.replace_patience_timer(None) {
        local::get().main_loop.disarm(timer);
    }
}
