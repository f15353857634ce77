//! Timeouts in the units of the system calls: rounded up, capped, never early.

use std::time::Duration;

/// Converts to milliseconds for calls such as `poll`; -1 means no limit.
///
/// ```
/// use greenhub::hub::round::millis;
/// use std::time::Duration;
/// assert_eq!(millis(Some(Duration::from_micros(1))), 1);
/// assert_eq!(millis(None), -1);
/// ```
#[must_use]
pub fn millis(timeout: Option<Duration>) -> i32 {
    match timeout {
        None => -1,
        Some(timeout) => i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
    }
}

/// Converts to seconds and microseconds, for calls that take a `timeval`.
///
/// ```
/// use greenhub::hub::round::micros;
/// use std::time::Duration;
/// assert_eq!(micros(Duration::from_nanos(1_500)), (0, 2));
/// ```
#[must_use]
pub fn micros(timeout: Duration) -> (i64, i32) {
    let timeout = timeout.min(LONGEST);
    let micros = timeout.as_nanos().div_ceil(1_000);
    ((micros / 1_000_000) as i64, (micros % 1_000_000) as i32)
}

/// Converts to seconds and nanoseconds, for calls that take a `timespec`.
///
/// ```
/// use greenhub::hub::round::nanos;
/// use std::time::Duration;
/// assert_eq!(nanos(Duration::from_millis(1_500)), (1, 500_000_000));
/// ```
#[must_use]
pub fn nanos(timeout: Duration) -> (i64, i32) {
    let timeout = timeout.min(LONGEST);
    (timeout.as_secs() as i64, timeout.subsec_nanos() as i32)
}

/// Some systems refuse timeouts of more than 10^8 seconds. One wake-up in three years is cheap.
const LONGEST: Duration = Duration::from_secs(100_000_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millis_round_up() {
        assert_eq!(millis(Some(Duration::from_micros(200))), 1);
        assert_eq!(millis(Some(Duration::ZERO)), 0);
        assert_eq!(millis(None), -1);
    }

    #[test]
    fn the_longest_duration_is_capped() {
        assert_eq!(millis(Some(Duration::MAX)), i32::MAX);
        assert_eq!(micros(Duration::MAX), (100_000_000, 0));
        assert_eq!(nanos(Duration::MAX), (100_000_000, 0));
    }

    #[test]
    fn micros_round_up_into_the_next_second() {
        assert_eq!(micros(Duration::from_nanos(999_999_999)), (1, 0));
    }
}
