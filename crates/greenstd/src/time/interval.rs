use std::time::{Duration, Instant};

use hub_core::hub::Time;
use hub_core::{LoopError, LoopErrorKind, get_hub, try_sleep};

/// The longest period that is added to a point in time, some 136 years.
const LONGEST: Duration = Duration::from_secs(1 << 32);

/// The delay of a tick that [`MissedTickBehavior::Delay`] disregards, if the period is not shorter.
const TOLERANCE: Duration = Duration::from_millis(5);

/// Creates an interval whose first tick is due at once. Does not switch.
///
/// Tokio's `interval`. The ticks do not drift: they are due at multiples of `period` after this call, however long the
/// work between them takes. [`MissedTickBehavior`] says what happens if it takes longer than the period.
///
/// ```
/// use greenhub::time::{Duration, Instant, interval};
/// let begun = Instant::now();
/// let mut ticks = interval(Duration::from_millis(5));
/// for _ in 0..3 {
///     ticks.tick();
/// }
/// assert!(begun.elapsed() >= Duration::from_millis(10));
/// ```
///
/// # Panics
///
/// Panics if `period` is zero, and if the hub cannot be built.
#[doc(alias = "ticker")]
#[must_use = "an interval does nothing unless it is waited for"]
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    Interval::new(None, period)
}

/// Creates an interval whose first tick is due at `start`. Does not switch.
///
/// Tokio's `interval_at`. With a start in the past, the ticks since then were missed.
///
/// ```
/// use greenhub::time::{Duration, Instant, interval_at};
/// let start = Instant::now() + Duration::from_millis(5);
/// let mut ticks = interval_at(start, Duration::from_millis(5));
/// ticks.tick();
/// assert!(Instant::now() >= start);
/// ```
///
/// # Panics
///
/// Panics if `period` is zero, and if the hub cannot be built.
#[must_use = "an interval does nothing unless it is waited for"]
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    Interval::new(Some(start), period)
}

/// The reaction of an [`Interval`] to ticks that were missed.
///
/// Ticks are missed if the caller is busy while they are due. The names and the behaviour are Tokio's.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum MissedTickBehavior {
    /// The missed ticks come at once, one after the other, until the interval has caught up.
    #[default]
    Burst,
    /// The next tick comes a whole period after the late one, and the later ticks follow it.
    ///
    /// A delay of up to 5 ms is disregarded, or of up to a period if that is shorter, so that small delays do not add
    /// up.
    Delay,
    /// The missed ticks are left out. The next tick comes at the next multiple of the period after the start.
    Skip,
}

/// A series of ticks that does not drift, from [`interval`] and [`interval_at`].
///
/// It uses the clock of the hub. It may move to another OS thread whose hub uses the same clock, as all do but those of
/// a [`ManualClock`](hub_core::hub::ManualClock).
///
/// As an iterator it never ends, and its `next` is [`tick`](Interval::tick):
///
/// ```
/// use greenhub::time::{Duration, interval};
/// for (count, _at) in interval(Duration::from_millis(1)).enumerate() {
///     if count == 3 {
///         break;
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    behavior: MissedTickBehavior,
    /// The instant at which the next tick is due.
    due: Instant,
    /// The creation by the hub's clock and as the instant that it counts as, so that instants follow a manual clock.
    origin: (Time, Instant),
}

impl Interval {
    #[track_caller]
    fn new(start: Option<Instant>, period: Duration) -> Interval {
        assert!(!period.is_zero(), "the period of an interval is zero");
        let origin = (get_hub().now(), Instant::now());
        let due = start.unwrap_or(origin.1);
        Interval { period, behavior: MissedTickBehavior::default(), due, origin }
    }

    /// Waits for the next tick, and returns the instant at which it was due. Switches.
    ///
    /// A tick that is due comes at once, after each ready green thread has run once. An exit that ends the wait takes
    /// no tick: the next call waits for the same one.
    ///
    /// # Panics
    ///
    /// The same as [`sleep`](crate::thread::sleep). A loop that is aborted does not end the wait.
    #[track_caller]
    pub fn tick(&mut self) -> Instant {
        loop {
            match self.try_tick() {
                Ok(due) => return due,
                Err(error) if error.kind() == LoopErrorKind::Aborted => {}
                Err(error) => panic!("tick: {error}"),
            }
        }
    }

    /// Like [`tick`](Interval::tick), but returns an error where `tick` panics. Switches.
    ///
    /// ```
    /// use greenhub::hub::{LoopErrorKind, interrupt_on};
    /// use greenhub::time::{Duration, interval};
    /// const SIGINT: i32 = 2;
    /// let _interrupt = interrupt_on(SIGINT)?;
    /// let mut ticks = interval(Duration::from_secs(3600));
    /// ticks.tick();
    /// # signal_hook::low_level::raise(SIGINT)?;
    /// let interrupted = ticks.try_tick().unwrap_err(); // Ctrl-C is typed now
    /// assert_eq!(interrupted.kind(), LoopErrorKind::Interrupted);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`try_sleep`](crate::thread::try_sleep). An error takes no tick.
    pub fn try_tick(&mut self) -> Result<Instant, LoopError> {
        let due = self.due;
        try_sleep(due.saturating_duration_since(self.now()))?;
        let late = self.now().saturating_duration_since(due);
        self.due = match self.behavior {
            MissedTickBehavior::Delay if late > self.period.min(TOLERANCE) => self.now_after_a_period(),
            MissedTickBehavior::Skip => due + self.skipped(late) + self.step(),
            MissedTickBehavior::Burst | MissedTickBehavior::Delay => due + self.step(),
        };
        Ok(due)
    }

    /// Makes the next tick due a whole period after this call. Does not switch.
    ///
    /// ```
    /// use greenhub::time::{Duration, Instant, interval};
    /// let begun = Instant::now();
    /// let mut ticks = interval(Duration::from_millis(5));
    /// ticks.reset(); // no tick at once
    /// ticks.tick();
    /// assert!(begun.elapsed() >= Duration::from_millis(5));
    /// ```
    pub fn reset(&mut self) {
        self.due = self.now_after_a_period();
    }

    /// Returns the time between two ticks. Does not switch.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Returns the reaction to missed ticks. Does not switch.
    #[must_use]
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.behavior
    }

    /// Sets the reaction to missed ticks, [`Burst`](MissedTickBehavior::Burst) at first. Does not switch.
    ///
    /// ```
    /// use greenhub::time::{Duration, MissedTickBehavior, interval};
    /// let mut ticks = interval(Duration::from_millis(1));
    /// ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    /// assert_eq!(ticks.missed_tick_behavior(), MissedTickBehavior::Skip);
    /// ```
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.behavior = behavior;
    }

    /// Returns the present time by the hub's clock, as an instant.
    fn now(&self) -> Instant {
        let (time, instant) = self.origin;
        instant + (get_hub().now() - time).min(LONGEST)
    }

    fn step(&self) -> Duration {
        self.period.min(LONGEST)
    }

    fn now_after_a_period(&self) -> Instant {
        self.now() + self.step()
    }

    /// Returns the whole periods in `late`.
    fn skipped(&self, late: Duration) -> Duration {
        // A remainder of a lateness of less than 584 years.
        let rest = (late.as_nanos() % self.period.as_nanos()) as u64;
        late - Duration::from_nanos(rest)
    }
}

impl Iterator for Interval {
    type Item = Instant;

    #[track_caller]
    fn next(&mut self) -> Option<Instant> {
        Some(self.tick())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}
