//! The time of grace: for how long waits may block the whole OS thread while it unwinds.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::greenlet::local;
use crate::hub::Time;

/// In nanoseconds.
static GRACE: AtomicU64 = AtomicU64::new(100_000_000);

/// Sets how long waits may block the OS thread while it is panicking. Does not switch.
///
/// A destructor that runs because of a panic, a kill or a timeout cannot switch, so a wait in it blocks the whole OS
/// thread, with all green threads, and fails with [`TimedOut`](std::io::ErrorKind::TimedOut) when the grace is over. The
/// grace is for one wait, and also for all of them together in one turn of the main loop: once it is used up, such waits
/// fail at once until the next turn. Waits whose failure would abort the process, such as that for a lock, have the
/// whole grace each. 100 ms by default, for the whole process.
///
/// ```
/// use std::time::Duration;
/// hub_core::set_panicking_grace(Duration::from_millis(20));
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
    /// The turn in which grace was used last, and how much of it.
    static USED: Cell<(u64, Duration)> = const { Cell::new((0, Duration::ZERO)) };
}

/// One wait that blocks the OS thread while it is panicking. Until it is dropped, the time is taken from the grace of the
/// turn. For primitives: see [`set_panicking_grace`].
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{Grace, panicking_grace};
/// let grace = Grace::begin();
/// assert!(grace.left() <= panicking_grace());
/// # });
/// ```
#[derive(Debug)]
#[must_use = "the time counts until this is dropped"]
pub struct Grace {
    begun: Time,
    allowed: Duration,
    /// How much of the turn's grace was used before.
    before: Duration,
}

impl Grace {
    /// A wait that has what is left of the grace in this turn of the main loop. Does not switch.
    pub fn begin() -> Grace {
        let before = used();
        Grace { begun: Time::monotonic(), allowed: panicking_grace().saturating_sub(before), before }
    }

    /// A wait that has the whole grace, for one whose failure aborts the process. Does not switch.
    pub fn begin_whole() -> Grace {
        Grace { begun: Time::monotonic(), allowed: panicking_grace(), before: used() }
    }

    /// For how long it may still block. Does not switch.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.allowed.saturating_sub(Time::monotonic() - self.begun)
    }
}

impl Drop for Grace {
    fn drop(&mut self) {
        if let Some(turn) = turn() {
            // The waits within this one have taken their time already, which counts once.
            let until_now = self.before.saturating_add(Time::monotonic() - self.begun);
            USED.set((turn, used_in(turn).max(until_now)));
        }
    }
}

/// The limit of a wait that consists of shorter waits, such as a loop that looks in growing pauses.
///
/// Where nothing may switch, all its parts together have what is left of the [grace](set_panicking_grace): each part
/// returns at once when the grace is used up, so the loop has to end then. Elsewhere there is no limit. For primitives.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{PiecewiseWait, sleep};
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
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
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

    /// Fails if the wait [is over](PiecewiseWait::is_over). Does not switch.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut).
    pub fn check(&self) -> io::Result<()> {
        if self.is_over() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

/// How much of the grace was used in the present turn.
fn used() -> Duration {
    turn().map_or(Duration::ZERO, used_in)
}

fn used_in(turn: u64) -> Duration {
    let (last, used) = USED.get();
    if last == turn { used } else { Duration::ZERO }
}

/// The span in which the grace is shared: the present turn, or the end of the OS thread. `None` without a main loop: nothing else
/// would run meanwhile.
fn turn() -> Option<u64> {
    const END: u64 = u64::MAX;
    match local::try_get() {
        None => local::has_ended().then_some(END),
        Some(local) => local.mainloop.get().is_some().then(|| local.main_loop.turn()),
    }
}
