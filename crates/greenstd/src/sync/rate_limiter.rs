use std::fmt;
use std::io;
use std::time::Duration;

use hub_core::hub::Time;
use hub_core::internal::present_time;
use hub_core::{BiasedMutex, Deadline, LoopError, Parker, WaitReason};

use super::wait_error::WaitError;
use super::wait_queue::{Unserved, Wait, WaitQueue};

/// The longest time for which a full burst may stand, some 136 years: sums with it stay below [`Time::NEVER`].
const LONGEST: u128 = 1_000_000_000 << 32;

/// A limit on how often something happens: permits that come back at a constant rate.
///
/// A caller acquires a permit before each operation and never releases it. After an idle time up to a *burst* of
/// permits is there at once. Later permits come one by one, evenly spaced. It is the generic cell rate algorithm, a
/// leaky bucket.
///
/// Waiters are served in FIFO order, and no form of acquiring overtakes them: a large request is not starved by small
/// ones behind it. A waiter that an exit or a limit ends has taken nothing.
///
/// Green threads of any hub and plain OS threads may share a limiter: it is `Send + Sync`. The time is that of each
/// caller's hub, so all of them have to use the same clock, as all do but those of a
/// [`ManualClock`](hub_core::hub::ManualClock).
///
/// ```
/// use greenhub::sync::RateLimiter;
/// use std::time::{Duration, Instant};
/// static REQUESTS: RateLimiter = RateLimiter::new(1000, Duration::from_secs(1)).with_burst(5);
/// let begun = Instant::now();
/// for _ in 0..10 {
///     REQUESTS.acquire()?; // five at once, then one each millisecond
/// }
/// assert!(begun.elapsed() >= Duration::from_millis(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "throttle")]
#[doc(alias = "leaky bucket")]
#[doc(alias = "token bucket")]
pub struct RateLimiter {
    state: BiasedMutex<State>,
    /// The time in which one permit comes back.
    period: Duration,
    burst: u32,
}

struct State {
    /// The time at which the burst is whole again, if nothing is acquired.
    whole_at: Time,
    /// Whether a waiter waits for the time of its permits. All other waiters are in the queue behind it.
    has_first: bool,
    waiting: WaitQueue,
}

/// The reason why permits of a [`RateLimiter`] were not acquired.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RateLimitError {
    /// The limit of the wait was reached.
    #[error("timed out")]
    TimedOut,
    /// There are never so many permits at once.
    #[error("cannot acquire {permits} permits at once: a burst has {burst}")]
    AboveBurst {
        /// The number of permits that were requested.
        permits: u32,
        /// The number of permits of a burst.
        burst: u32,
    },
    /// The caller cannot wait, or its wait failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

impl RateLimitError {
    /// Returns the error of a wait for a single permit, which every burst has.
    fn of_one(self) -> WaitError {
        match self {
            RateLimitError::TimedOut => WaitError::TimedOut,
            RateLimitError::AboveBurst { .. } => unreachable!("every burst has a permit"),
            RateLimitError::Loop(error) => WaitError::Loop(error),
        }
    }
}

impl From<RateLimitError> for io::Error {
    fn from(error: RateLimitError) -> io::Error {
        match error {
            RateLimitError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, error),
            RateLimitError::AboveBurst { .. } => io::Error::new(io::ErrorKind::InvalidInput, error),
            RateLimitError::Loop(error) => error.into(),
        }
    }
}

impl State {
    /// Takes permits that come back in `cost`, or returns the time until there are so many.
    fn take(&mut self, cost: Duration, now: Time, whole_burst: Duration) -> Result<(), Duration> {
        let whole_at = self.whole_at.max(now) + cost;
        let latest = now + whole_burst;
        if whole_at > latest {
            return Err(whole_at - latest);
        }
        self.whole_at = whole_at;
        Ok(())
    }

    /// Makes the next waiter the first.
    fn promote_next(&mut self) {
        self.has_first = self.waiting.grant();
    }
}

/// The wait of a caller to become the first waiter.
struct TurnWait;

impl Wait for TurnWait {
    type State = State;
    type Payload = ();

    const REASON: WaitReason = WaitReason::RateLimit;

    fn queue(state: &mut State) -> &mut WaitQueue {
        &mut state.waiting
    }

    fn regrant(state: &mut State) {
        state.promote_next();
    }
}

/// The first waiter. `Drop` promotes the next one, however the wait ends.
struct FirstWaiter<'a>(&'a RateLimiter);

impl Drop for FirstWaiter<'_> {
    fn drop(&mut self) {
        self.0.state.lock().promote_next();
    }
}

impl RateLimiter {
    /// Creates a limiter with `rate` permits in each `per`, and a burst of `rate`.
    ///
    /// # Panics
    ///
    /// Panics if `rate` or `per` is zero.
    #[track_caller]
    #[must_use]
    pub const fn new(rate: u32, per: Duration) -> RateLimiter {
        assert!(rate > 0, "the rate of a limiter is zero");
        assert!(!per.is_zero(), "the time for the rate of a limiter is zero");
        let state = State { whole_at: Time::from_nanos(0), has_first: false, waiting: WaitQueue::new() };
        let longest = if per.as_nanos() > LONGEST { LONGEST } else { per.as_nanos() };
        // Rounded up, so that the rate is never exceeded. The bound makes it fit.
        let period = Duration::from_nanos(longest.div_ceil(rate as u128) as u64);
        RateLimiter { state: BiasedMutex::new(state), period, burst: 1 }.with_burst(rate)
    }

    /// Sets the number of permits that are there at once after an idle time.
    ///
    /// With a burst of one, two permits are never closer than the time of one, and a delay is not made up for.
    ///
    /// # Panics
    ///
    /// Panics if `burst` is zero.
    #[track_caller]
    #[must_use]
    pub const fn with_burst(mut self, burst: u32) -> RateLimiter {
        assert!(burst > 0, "the burst of a limiter is zero");
        let longest = (LONGEST / burst as u128) as u64;
        if self.period.as_nanos() > longest as u128 {
            self.period = Duration::from_nanos(longest);
        }
        self.burst = burst;
        self
    }

    /// Takes a permit, and waits until there is one. Switches only if it waits.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error.
    pub fn acquire(&self) -> Result<(), LoopError> {
        self.acquire_within(1, None).map_err(|error| error.of_one().without_limit())
    }

    /// Like [`acquire`](RateLimiter::acquire), for at most `timeout`. Switches only if it waits.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::TimedOut`] if there was no permit in time, or an error of
    /// [`acquire`](RateLimiter::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        self.acquire_within(1, Some(timeout)).map_err(RateLimitError::of_one)
    }

    /// Takes several permits at once, and waits until there are so many. Switches only if it waits.
    ///
    /// ```
    /// use greenhub::sync::{RateLimitError, RateLimiter};
    /// use std::time::Duration;
    /// let bytes = RateLimiter::new(1_000_000, Duration::from_secs(1)).with_burst(4096);
    /// bytes.acquire_many(4096)?;
    /// assert!(!bytes.try_acquire_many(4096), "the burst is used up");
    /// assert!(matches!(bytes.acquire_many(5000), Err(RateLimitError::AboveBurst { burst: 4096, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`RateLimitError::AboveBurst`] if a burst has not so many permits, or an error of
    /// [`acquire`](RateLimiter::acquire).
    pub fn acquire_many(&self, permits: u32) -> Result<(), RateLimitError> {
        self.acquire_within(permits, None)
    }

    /// Like [`acquire_many`](RateLimiter::acquire_many), for at most `timeout`. Switches only if it waits.
    ///
    /// # Errors
    ///
    /// Returns [`RateLimitError::TimedOut`] if there were not so many permits in time, or an error of
    /// [`acquire_many`](RateLimiter::acquire_many).
    pub fn acquire_many_timeout(&self, permits: u32, timeout: Duration) -> Result<(), RateLimitError> {
        self.acquire_within(permits, Some(timeout))
    }

    /// Takes a permit if there is one, and no waiter. Does not switch.
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        self.try_acquire_many(1)
    }

    /// Takes several permits at once if there are so many, and no waiter. Does not switch.
    ///
    /// Always false for more permits than a [`burst`](RateLimiter::burst) has.
    #[must_use]
    pub fn try_acquire_many(&self, permits: u32) -> bool {
        // The clock of a hub is foreign code: hold no lock while calling it.
        let now = present_time();
        let mut state = self.state.lock();
        !state.has_first && state.take(self.cost(permits), now, self.cost(self.burst)).is_ok()
    }

    /// Returns the number of permits that are there at once after an idle time. Does not switch.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Returns the time in which `permits` come back.
    fn cost(&self, permits: u32) -> Duration {
        self.period.saturating_mul(permits)
    }

    fn acquire_within(&self, permits: u32, timeout: Option<Duration>) -> Result<(), RateLimitError> {
        let (burst, cost, whole_burst) = (self.burst, self.cost(permits), self.cost(self.burst));
        if permits > burst {
            return Err(RateLimitError::AboveBurst { permits, burst });
        }
        let now = present_time();
        let until = timeout.map(|timeout| now + timeout);
        let mut has_waited = timeout.is_none();
        let taken = TurnWait::wait(&self.state, &mut Deadline::from(timeout), (), |state, ungranted| match ungranted {
            Some(()) if state.has_first => Err(()),
            Some(()) => {
                let taken = state.take(cost, now, whole_burst).is_ok();
                state.has_first = !taken;
                Ok(taken)
            }
            None => {
                has_waited = true;
                Ok(false)
            }
        });
        match taken {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(Unserved::TimedOut(())) => return Err(RateLimitError::TimedOut),
            Err(Unserved::Failed(error, _)) => return Err(error.into()),
        }
        let _first = FirstWaiter(self);
        loop {
            let now = present_time();
            let Err(wait) = self.state.lock().take(cost, now, whole_burst) else { return Ok(()) };
            let left = until.map_or(Duration::MAX, |until| until - now);
            if left.is_zero() && has_waited {
                return Err(RateLimitError::TimedOut);
            }
            // Nothing unparks it: permits come with the time alone.
            Parker::new(WaitReason::RateLimit)?.park(&mut Deadline::from(wait.min(left)))?;
            has_waited = true;
        }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let waiting = state.waiting.len() + usize::from(state.has_first);
        // The formatter is user code and may switch: hold no lock while calling it.
        drop(state);
        f.debug_struct("RateLimiter")
            .field("period", &self.period)
            .field("burst", &self.burst)
            .field("waiting", &waiting)
            .finish()
    }
}
