//! The grace: for how long waits may block the whole OS thread while it unwinds.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::greenlet::local;
use crate::hub::Time;

/// The grace in nanoseconds.
static GRACE: AtomicU64 = AtomicU64::new(100_000_000);

/// Sets how long waits may block the OS thread while it is panicking. Does not switch.
///
/// A destructor that runs because of a panic or an exit cannot switch. A wait in it blocks the whole OS thread, with
/// all its green threads, and fails with [`TimedOut`](std::io::ErrorKind::TimedOut) when the grace is over. All such
/// waits in one turn of the main loop share the grace. Once it is used up, they fail at once until the next turn. Waits
/// whose failure would abort the process, such as a wait for a lock, have the whole grace each. The default is 100 ms;
/// the setting is that of the process.
///
/// ```
/// use std::time::Duration;
/// greenhub::greenthread::set_panicking_grace(Duration::from_millis(20));
/// ```
pub fn set_panicking_grace(grace: Duration) {
    GRACE.store(u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Returns the grace that [`set_panicking_grace`] has set. Does not switch.
#[must_use]
pub fn panicking_grace() -> Duration {
    Duration::from_nanos(GRACE.load(Ordering::Relaxed))
}

thread_local! {
    /// The last turn in which grace was used, and how much.
    static USED: Cell<(u64, Duration)> = const { Cell::new((0, Duration::ZERO)) };
}

/// One wait that blocks the OS thread while it is panicking. For primitives.
///
/// Until it is dropped, the time counts against the grace of the turn: see [`set_panicking_grace`].
///
/// ```
/// use greenhub::greenthread::panicking_grace;
/// use greenhub::park::Grace;
/// let grace = Grace::begin();
/// assert!(grace.left() <= panicking_grace());
/// ```
#[derive(Debug)]
#[must_use = "the time counts until this is dropped"]
pub struct Grace {
    begun: Time,
    allowed: Duration,
    /// The part of the turn's grace that was used before.
    before: Duration,
}

impl Grace {
    /// Begins a wait that has the rest of the grace of this turn of the main loop. Does not switch.
    pub fn begin() -> Grace {
        let before = used();
        Grace { begun: Time::monotonic(), allowed: panicking_grace().saturating_sub(before), before }
    }

    /// Begins a wait that has the whole grace, since its failure aborts the process. Does not switch.
    pub fn begin_whole() -> Grace {
        Grace { begun: Time::monotonic(), allowed: panicking_grace(), before: used() }
    }

    /// Returns how long the wait may still block. Does not switch.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.allowed.saturating_sub(Time::monotonic() - self.begun)
    }
}

impl Drop for Grace {
    fn drop(&mut self) {
        if let Some(turn) = turn() {
            // Waits within this one have recorded their time already; it counts once.
            let until_now = self.before.saturating_add(Time::monotonic() - self.begun);
            USED.set((turn, used_in(turn).max(until_now)));
        }
    }
}

/// The limit of a wait that consists of shorter waits.
///
/// An example is a loop of growing sleeps. For primitives.
///
/// Where nothing may switch, all parts together have the rest of the [grace](set_panicking_grace). Once it is used up,
/// each part returns at once, so the loop has to end. Elsewhere there is no limit.
///
/// ```
/// use greenhub::sleep;
/// use hub_core::internal::PiecewiseWait;
/// use std::time::Duration;
/// fn wait_until(mut is_done: impl FnMut() -> bool) -> std::io::Result<()> {
///     let wait = PiecewiseWait::begin();
///     while !is_done() {
///         wait.check()?;
///         sleep(Duration::from_millis(1));
///     }
///     Ok(())
/// }
/// let mut looks = 0;
/// wait_until(|| {
///     looks += 1;
///     looks == 3
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "the time counts until this is dropped"]
pub struct PiecewiseWait(Option<Grace>);

impl PiecewiseWait {
    /// Begins the wait, before its first part. Does not switch.
    pub fn begin() -> PiecewiseWait {
        let blocks = std::thread::panicking() || local::has_ended();
        PiecewiseWait(blocks.then(Grace::begin))
    }

    /// Returns whether the grace is used up, so that no part can wait any more. Does not switch.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|grace| grace.left().is_zero())
    }

    /// Returns an error if the wait [is over](PiecewiseWait::is_over). Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`TimedOut`](io::ErrorKind::TimedOut).
    pub fn check(&self) -> io::Result<()> {
        if self.is_over() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

/// Returns how much of the grace was used in the present turn.
fn used() -> Duration {
    turn().map_or(Duration::ZERO, used_in)
}

fn used_in(turn: u64) -> Duration {
    let (last, used) = USED.get();
    if last == turn { used } else { Duration::ZERO }
}

/// Returns the span that shares one grace: the present turn, or the end of the OS thread. `None` without a main loop,
/// where a blocking wait delays no green thread.
fn turn() -> Option<u64> {
    const END: u64 = u64::MAX;
    match local::try_get() {
        None => local::has_ended().then_some(END),
        Some(local) => local.main_loop_greenlet.get().is_some().then(|| local.main_loop.turn()),
    }
}
