//! The deadline of a wait.

use std::time::Duration;

use crate::greenlet::target::Target;
use crate::hub::Time;
use crate::timer_queue::{TimerId, TimerQueue};

/// The deadline of a wait, over several parks.
///
/// A wait that begins again after a spurious wake-up waits only for the rest. The time counts from the first park on,
/// by the clock of the hub. An OS thread without green threads uses the system's clock.
#[derive(Copy, Clone, Debug)]
pub struct Deadline(Kind);

#[derive(Copy, Clone, Debug)]
enum Kind {
    None,
    /// The time counts from the first park on.
    After(Duration),
    Until(Time),
}

impl From<Option<Duration>> for Deadline {
    #[inline]
    fn from(timeout: Option<Duration>) -> Deadline {
        Deadline(timeout.map_or(Kind::None, Kind::After))
    }
}

impl From<Duration> for Deadline {
    #[inline]
    fn from(timeout: Duration) -> Deadline {
        Deadline(Kind::After(timeout))
    }
}

impl Deadline {
    /// Returns a deadline that never comes.
    #[inline]
    #[must_use]
    pub const fn none() -> Deadline {
        Deadline(Kind::None)
    }

    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        matches!(self.0, Kind::None)
    }

    #[inline]
    pub(crate) fn arm(self, timers: &mut TimerQueue<Target>, target: Target) -> Option<TimerId> {
        match self.0 {
            Kind::None => None,
            Kind::After(delay) => Some(timers.arm(delay, target)),
            Kind::Until(deadline) => Some(timers.arm_at(deadline, target)),
        }
    }

    /// Ends the first park: later parks end when its timer would have fired.
    #[inline]
    pub(crate) fn fix(&mut self, timers: &TimerQueue<Target>, timer: TimerId) {
        if let Some(deadline) = timers.deadline(timer) {
            self.0 = Kind::Until(deadline);
        }
    }

    /// Returns the time left at `now` by the hub's clock, or `None` without a deadline. The time counts down from now
    /// on.
    pub(crate) fn left_at(&mut self, now: Time) -> Option<Duration> {
        if let Kind::After(delay) = self.0 {
            self.0 = Kind::Until(now + delay);
        }
        match self.0 {
            Kind::Until(deadline) => Some(deadline - now),
            _ => None,
        }
    }

    /// Returns the time left by the system's clock, for waits without a loop. The time counts down from now on.
    pub(crate) fn begin(&mut self) -> Option<Duration> {
        if let Kind::After(delay) = self.0 {
            self.0 = Kind::Until(Time::monotonic() + delay);
        }
        self.duration()
    }

    /// Returns the time left by the system's clock, for waits without a loop. The time does not begin to count.
    pub(crate) fn duration(self) -> Option<Duration> {
        match self.0 {
            Kind::None => None,
            Kind::After(delay) => Some(delay),
            Kind::Until(deadline) => Some(deadline - Time::monotonic()),
        }
    }
}
