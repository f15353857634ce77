//! The interval of publication.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The interval in nanoseconds; the largest value means that publication is off.
static INTERVAL: AtomicU64 = AtomicU64::new(OFF);
const OFF: u64 = u64::MAX;

/// Sets the interval of publication for the process. `None` switches it off.
pub(crate) fn set_interval(interval: Option<Duration>) {
    let nanos = interval.map_or(OFF, |interval| u64::try_from(interval.as_nanos()).unwrap_or(OFF).min(OFF - 1));
    INTERVAL.store(nanos, Ordering::Relaxed);
}

/// Returns the interval of publication, unless publication is off.
pub(super) fn interval() -> Option<Duration> {
    Some(INTERVAL.load(Ordering::Relaxed)).filter(|nanos| *nanos != OFF).map(Duration::from_nanos)
}

/// Returns whether values are published.
#[inline]
pub(crate) fn is_on() -> bool {
    INTERVAL.load(Ordering::Relaxed) != OFF
}
