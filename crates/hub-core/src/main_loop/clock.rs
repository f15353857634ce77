//! The loop's view of its hub's clock: samples, ages, and the instant up to which timers fire.

use std::cell::Cell;
use std::time::Duration;

use crate::hub::{Stamp, Time};

/// The samples of the hub's clock that a loop has taken.
pub(super) struct Clock {
    /// The last sample.
    now: Cell<Time>,
    /// The last sample, for the ages of greenlets.
    stamp: Cell<Stamp>,
    /// The first sample, for the ages of greenlets.
    first_stamp: Cell<Stamp>,
    /// Whether the loop has waited since the last sample.
    is_old: Cell<bool>,
    /// The sample by which timers were fired last.
    fired_at: Cell<Time>,
    /// The end of the last wait, until the timers that were due then have fired.
    due: Cell<Option<Time>>,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock {
            now: Cell::new(Time::default()),
            stamp: Cell::new(Stamp::NONE),
            first_stamp: Cell::new(Stamp::NONE),
            is_old: Cell::new(false),
            fired_at: Cell::new(Time::default()),
            due: Cell::new(None),
        }
    }

    /// Takes a sample in. Returns it, or the last one if that is later: time never goes back.
    pub(super) fn take(&self, sample: Time) -> Time {
        let now = sample.max(self.now.get());
        self.now.set(now);
        self.stamp.set(Stamp::of(now));
        self.is_old.set(false);
        if self.first_stamp.get() == Stamp::NONE {
            self.first_stamp.set(self.stamp.get());
        }
        now
    }

    /// Returns the last sample.
    pub(super) fn last(&self) -> Time {
        self.now.get()
    }

    /// Returns the last sample, for ages.
    #[inline]
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp.get()
    }

    /// Returns the age of a greenlet that was made at `born`, or at [`Stamp::NONE`] before the first sample.
    pub(super) fn age(&self, born: Stamp) -> Duration {
        self.stamp.get().since(if born == Stamp::NONE { self.first_stamp.get() } else { born })
    }

    /// Forgets the last sample: the next hub may have another clock.
    pub(super) fn reset(&self) {
        self.now.set(Time::default());
    }

    /// Returns whether the loop has waited since the last sample.
    #[inline]
    pub(super) fn is_old(&self) -> bool {
        self.is_old.get()
    }

    pub(super) fn set_old(&self, is_old: bool) {
        self.is_old.set(is_old);
    }

    /// Makes the timers due that expire by `now`, the end of a wait.
    pub(super) fn make_due(&self, now: Time) {
        self.fired_at.set(now);
        self.due.set(Some(now));
    }

    /// Returns the instant up to which timers are due and have not been fired.
    pub(super) fn take_due(&self) -> Option<Time> {
        self.due.take()
    }

    /// Returns the sample by which timers were fired last.
    pub(super) fn fired_at(&self) -> Time {
        self.fired_at.get()
    }
}
