//! Bounds the cost of unconfirmed reports: the hub says "ready", the operation "would block".
//!
//! A single one occurs where another handle of the same file was faster. For some files it lasts: a socket with an
//! entry in its error queue, a Unix listener that was shut down. Then each turn of the loop would bring the same
//! report, and the waiter would try in vain in each turn.

use std::time::Duration;

use crate::hub::Time;

/// The longest pause is the first pause, 1 ms, doubled this often: 64 ms.
const DOUBLINGS: u8 = 6;

fn pause(doublings: u8) -> Duration {
    Duration::from_millis(1 << doublings.min(DOUBLINGS))
}

/// Growing pauses: 1 ms, 2 ms, and so on up to 64 ms.
#[derive(Copy, Clone)]
pub(crate) struct Pauses(u8);

impl Pauses {
    /// No pause yet.
    pub(crate) const NONE: Pauses = Pauses(0);

    /// The longest pause.
    pub(crate) const LONGEST: Duration = Duration::from_millis(1 << DOUBLINGS);

    pub(crate) fn next(&mut self) -> Duration {
        let pause = pause(self.0);
        self.0 = (self.0 + 1).min(DOUBLINGS);
        pause
    }
}

/// The consecutive unconfirmed reports of one operation. It is small, since every operation has one.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Doubts {
    /// The time of the last report, or the end of the pause after it: the lower 32 bits of the clock's microseconds.
    last: u32,
    /// The number of reports, counted only as far as it makes a difference.
    count: u8,
}

impl Doubts {
    /// No report yet.
    pub(crate) const NONE: Doubts = Doubts { last: 0, count: 0 };

    /// Records that an operation has confirmed a report.
    pub(crate) fn clear(&mut self) {
        *self = Doubts::NONE;
    }

    /// Records that a report was not confirmed at `now`. Returns for how long the hub must not be asked.
    ///
    /// The first time that is `None`. Then the pauses grow, until a report comes later after the one before than such a
    /// pause would have lasted.
    pub(crate) fn add(&mut self, now: Time) -> Option<Duration> {
        let now = (now.as_nanos() / 1000) as u32;
        let pause = pause(self.count.saturating_sub(1));
        let micros = pause.as_micros() as i32;
        if self.count > 0 && (now.wrapping_sub(self.last) as i32) < micros {
            *self = Doubts { last: now.wrapping_add(micros as u32), count: (self.count + 1).min(DOUBLINGS + 1) };
            return Some(pause);
        }
        *self = Doubts { last: now, count: 1 };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn at(time: Duration) -> Time {
        Time::from_nanos(time.as_nanos() as u64)
    }

    #[test]
    fn endless_reports_are_bounded_by_growing_pauses() {
        let (mut doubts, mut now) = (Doubts::NONE, Duration::from_secs(5));
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let pause = doubts.add(at(now));
            pauses.push(pause.map(|pause| pause.as_millis()));
            now += pause.unwrap_or_default();
        }
        let expected = [None, Some(1), Some(2), Some(4), Some(8), Some(16), Some(32), Some(64), Some(64), Some(64)];
        assert_eq!(pauses, expected);
    }

    #[test]
    fn rare_reports_cause_no_pause() {
        let (mut doubts, mut now) = (Doubts::NONE, Duration::ZERO);
        for _ in 0..100 {
            assert_eq!(doubts.add(at(now)), None);
            now += 2 * MILLISECOND;
        }
    }

    #[test]
    fn a_report_after_a_quiet_time_ends_the_doubt() {
        let mut doubts = Doubts::NONE;
        assert_eq!(doubts.add(at(MILLISECOND)), None);
        assert_eq!(doubts.add(at(MILLISECOND)), Some(MILLISECOND));
        assert_eq!(doubts.add(at(20 * MILLISECOND)), None);
        assert_eq!(doubts.add(at(20 * MILLISECOND)), Some(MILLISECOND));
    }
}
