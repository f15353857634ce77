//! Points in time of the loop's clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time of a hub's clock, in nanoseconds. Arithmetic saturates.
///
/// ```
/// use greenhub::hub::Time;
/// use std::time::Duration;
/// let start = Time::monotonic();
/// let deadline = start + Duration::from_millis(5);
/// assert_eq!(deadline - start, Duration::from_millis(5));
/// assert_eq!(start - deadline, Duration::ZERO);
/// ```
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(u64);

impl Time {
    /// Later than every deadline.
    pub const NEVER: Time = Time(u64::MAX);

    /// Creates the point `nanos` nanoseconds after the clock's own beginning.
    #[must_use]
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Returns the nanoseconds since the clock's own beginning.
    #[must_use]
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Reads the system's monotonic clock. Wall-clock jumps do not move it.
    #[must_use]
    #[inline]
    pub fn monotonic() -> Time {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // The monotonic clock starts at boot: neither part is negative, and 2^64 ns are 584 years.
        Time((now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64))
    }

    /// Returns the time from `earlier` until `self`, or zero if `earlier` is later.
    #[must_use]
    #[inline]
    pub const fn saturating_since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    #[inline]
    fn add(self, delay: Duration) -> Time {
        let nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

impl Sub for Time {
    type Output = Duration;
    #[inline]
    fn sub(self, earlier: Time) -> Duration {
        self.saturating_since(earlier)
    }
}

/// A point in time to the nearest 17 ms, for ages.
///
/// It is copied from the loop's last sample of the clock, and is half as large as a [`Time`]. It wraps around: an age
/// of more than a year looks like a recent one.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Stamp(u32);

impl Stamp {
    const STEP: u32 = 24;

    /// Before the first sample of the clock.
    pub(crate) const NONE: Stamp = Stamp(0);

    #[inline]
    pub(crate) fn of(time: Time) -> Stamp {
        Stamp(((time.as_nanos() >> Stamp::STEP) as u32).max(1))
    }

    /// Returns the number of steps, from an arbitrary beginning.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// Returns the time from `earlier` until `self`, or zero if `earlier` is later: another hub may have another clock.
    pub(crate) fn since(self, earlier: Stamp) -> Duration {
        let steps = self.0.wrapping_sub(earlier.0);
        if steps > u32::MAX / 2 { Duration::ZERO } else { Duration::from_nanos(u64::from(steps) << Stamp::STEP) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_measure_ages_across_a_wrap_around() {
        let year = Duration::from_secs(365 * 24 * 3600);
        assert_eq!(Stamp::of(Time::from_nanos(0)).since(Stamp::of(Time::from_nanos(1 << 40))), Duration::ZERO);
        for begin in [0, 1 << 30, 3 << 55, (1 << 56) - 1] {
            let begin = Time::from_nanos(begin);
            for later in [Duration::ZERO, Duration::from_secs(3), year] {
                let age = Stamp::of(begin + later).since(Stamp::of(begin));
                assert!(age.abs_diff(later) < Duration::from_millis(40), "{age:?} instead of {later:?}");
            }
        }
    }

    #[test]
    fn adding_the_longest_duration_saturates() {
        assert_eq!(Time::from_nanos(5) + Duration::MAX, Time::NEVER);
    }

    #[test]
    fn the_monotonic_clock_does_not_go_backwards() {
        let first = Time::monotonic();
        assert!(Time::monotonic() >= first);
    }
}
