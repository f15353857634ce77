//! std's `time`, with deadlines and intervals for green threads.
//!
//! Reading a clock never blocks, so std's items are unchanged. [`sleep_until`], [`timeout_at`] and [`interval`] have
//! Tokio's names. They wait by the clock of the hub: with a [`ManualClock`](hub_core::hub::ManualClock) a test of them
//! takes no time. [`thread::sleep`](crate::thread::sleep) and [`with_timeout`](hub_core::with_timeout()) take
//! durations.

mod interval;

pub use std::time::*;

use hub_core::{Timeout, sleep, with_timeout};

pub use interval::{Interval, MissedTickBehavior, interval, interval_at};

/// Puts the green thread to sleep until `deadline` has passed. Switches.
///
/// The time left counts by the hub's clock. A deadline in the past lets each ready green thread run once.
///
/// ```
/// use greenhub::time::{Duration, Instant, sleep_until};
/// let deadline = Instant::now() + Duration::from_millis(5);
/// sleep_until(deadline);
/// assert!(Instant::now() >= deadline);
/// ```
///
/// # Panics
///
/// The same as [`sleep`].
#[track_caller]
pub fn sleep_until(deadline: Instant) {
    sleep(deadline.saturating_duration_since(Instant::now()));
}

/// Runs `f`, and unwinds it if it has not returned by `deadline`. Switches if `f` does.
///
/// It is [`with_timeout`](hub_core::with_timeout()) with the time left, so several calls in a row can share one
/// deadline. The time left counts by the hub's clock. A deadline in the past strikes at the first wait or yield.
///
/// ```
/// use greenhub::sleep;
/// use greenhub::time::{Duration, Instant, timeout_at};
/// let deadline = Instant::now() + Duration::from_millis(5);
/// assert_eq!(timeout_at(deadline, || 1)?, 1);
/// assert!(timeout_at(deadline, || sleep(Duration::from_secs(3600))).is_err());
/// assert!(timeout_at(deadline, || sleep(Duration::from_secs(3600))).is_err(), "the deadline has passed");
/// # Ok::<(), greenhub::Timeout>(())
/// ```
///
/// # Errors
///
/// Returns [`Timeout`] if the deadline passed, or if the program is built with `panic = "abort"`.
///
/// # Panics
///
/// Panics if `f` does.
pub fn timeout_at<R>(deadline: Instant, f: impl FnOnce() -> R) -> Result<R, Timeout> {
    with_timeout(deadline.saturating_duration_since(Instant::now()), f)
}
