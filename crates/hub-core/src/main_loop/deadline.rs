//! How long somebody is ready to wait.

use std::time::Duration;

use crate::greenlet::target::Target;
use crate::hub::Time;
use crate::timer_queue::{TimerId, TimerQueue};

/// How long somebody is ready to wait, over several parks: what begins again after it was woken in vain waits for
/// the rest only.
///
/// The time counts from the first park on, by the clock of the hub.
#[derive(Copy, Clone, Debug)]
pub struct Deadline(Kind);

#[derive(Copy, Clone, Debug)]
enum Kind {
    None,
    /// From the first park on.
    After(Duration),
    Until(Time),
}

impl From<Option<Duration>> for Deadline {
    #[inline]
    fn from(timeout: Option<Duration>) -> Deadline {
        Deadline(timeout.map_or(Kind::None, Kind::After))
    }
}

impl Deadline {
    /// A limit that is never reached.
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

    /// The first park is over: what follows ends when its timer would have fired.
    #[inline]
    pub(crate) fn fix(&mut self, timers: &TimerQueue<Target>, timer: TimerId) {
        if let Some(deadline) = timers.deadline(timer) {
            self.0 = Kind::Until(deadline);
        }
    }

    /// Returns the time left at `now` by the hub's clock, `None` without a limit. It counts down from now on.
    pub(crate) fn left_at(&mut self, now: Time) -> Option<Duration> {
        if let Kind::After(delay) = self.0 {
            self.0 = Kind::Until(now + delay);
        }
        match self.0 {
            Kind::Until(deadline) => Some(deadline - now),
            _ => None,
        }
    }

    /// For those who wait without a loop, by the system's clock: what is left of it, and from now on counts down.
    pub(crate) fn begin(&mut self) -> Option<Duration> {
        if let Kind::After(delay) = self.0 {
            self.0 = Kind::Until(Time::monotonic() + delay);
        }
        self.duration()
    }

    /// What is left of it at least, for those who wait without the loop.
    pub(crate) fn duration(self) -> Option<Duration> {
        match self.0 {
            Kind::None => None,
            Kind::After(delay) => Some(delay),
            Kind::Until(deadline) => Some(deadline - Time::monotonic()),
        }
    }
}
