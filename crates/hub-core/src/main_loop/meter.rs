//! The values that a loop publishes to a recorder of the crate `metrics`, with the feature of that name. Without it
//! they compile to nothing.
//!
//! The numbers are those of [`Stats`], which are derived from state that the loop keeps anyway. The latency of the loop
//! is measured only while publication is on: a turn lasts from the sample of the clock at the end of one wait until the
//! sample before the next.
//!
//! A recorder is foreign code. It is called between a turn and the next wait, where nothing is borrowed and nothing may
//! park, and its panics are contained. The state of the meter is taken out for the call. A recorder that panics is
//! called no more, except at the end of an OS thread: there its own thread-locals may be gone, and other OS threads go
//! on.

mod series;
mod slot;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::series::Series;
use super::stats::Stats;
use crate::base::id::HubId;
use crate::greenlet::exit::contained;
use crate::hub::Time;
use crate::report;

pub(crate) use self::series::describe;

/// The interval in nanoseconds; the largest value means that publication is off.
static INTERVAL: AtomicU64 = AtomicU64::new(OFF);
const OFF: u64 = u64::MAX;

/// The number of turns that are kept until the recorder is called with all of them.
const MOST_TURNS: usize = 1024;

/// Sets the interval of publication for the process. `None` switches it off.
pub(crate) fn set_interval(interval: Option<Duration>) {
    let nanos = interval.map_or(OFF, |interval| u64::try_from(interval.as_nanos()).unwrap_or(OFF).min(OFF - 1));
    INTERVAL.store(nanos, Ordering::Relaxed);
}

fn interval() -> Option<Duration> {
    Some(INTERVAL.load(Ordering::Relaxed)).filter(|nanos| *nanos != OFF).map(Duration::from_nanos)
}

/// Returns whether values are published.
#[inline]
pub(crate) fn is_on() -> bool {
    INTERVAL.load(Ordering::Relaxed) != OFF
}

/// Records the time that a job was queued in the pool of that name.
#[inline]
pub(crate) fn record_pool_wait(pool: &'static str, waited: impl FnOnce() -> Duration) {
    if is_on() {
        call_recorder(|| series::record_pool_wait(pool, waited()));
    }
}

/// Calls the recorder, unless publication is off. Never unwinds. A panic switches publication off, and is reported.
#[cold]
fn call_recorder(call: impl FnOnce()) {
    // The previous call of the same publication may have panicked.
    if !is_on() {
        return;
    }
    if let Err(error) = contained(call) {
        set_interval(None);
        report::callback_failed("the recorder of metrics, which is no longer called,", None, error);
    }
}

/// The measurements of one loop.
pub(super) struct Meter {
    /// The number of a wait and its end, unless the turn after it was measured or is none of this loop's.
    wait_ended: Cell<Option<(u64, Time)>>,
    /// Taken out for a call of the recorder.
    state: Cell<Option<Box<State>>>,
}

struct State {
    series: Series,
    /// The numbers as they were published last.
    published: Stats,
    /// The time of the next publication.
    due: Time,
    /// The turns that the recorder does not know yet.
    turns: Vec<Duration>,
    /// The longest turn since the last publication.
    longest: Duration,
    /// Whether a turn has ended since the last publication.
    has_news: bool,
}

impl Meter {
    pub(super) fn new() -> Meter {
        Meter { wait_ended: Cell::new(None), state: Cell::new(None) }
    }

    /// Notes the end of the wait with the number `wait`, at which a turn begins.
    pub(super) fn begin_turn(&self, wait: u64, now: Time) {
        self.wait_ended.set(Some((wait, now)));
    }

    /// Forgets the begun turn: the time until the next wait is not the loop's.
    pub(super) fn forget_turn(&self) {
        self.wait_ended.set(None);
    }

    /// Measures the turn that ends at `now`, and publishes if that is due. Calls the recorder. `wait` is the number of
    /// the last wait: while publication is off, not each wait is noted.
    #[cold]
    pub(super) fn end_turn(&self, wait: u64, hub: (HubId, &'static str), now: Time, stats: impl Fn() -> Stats) {
        let Some(interval) = interval() else { return };
        let mut state = match self.state.take() {
            Some(state) if state.series.is_of(hub.0) => state,
            former => {
                // The totals go on with the next hub. A wait of the former hub ended by another clock.
                self.forget_turn();
                let published = former.map(|former| former.end(&stats())).unwrap_or_default();
                Box::new(State::new(Series::new(hub.0, hub.1), published, now))
            }
        };
        if let Some((_, begun)) = self.wait_ended.take().filter(|(noted, _)| *noted == wait) {
            let turn = now - begun;
            state.longest = state.longest.max(turn);
            state.turns.push(turn);
        }
        state.has_news = true;
        if state.due <= now {
            state.due = now + interval;
            state.publish(stats());
        } else if state.turns.len() >= MOST_TURNS {
            state.record_turns();
        } else {
            // An interval that is shorter than before applies at once.
            state.due = state.due.min(now + interval);
        }
        self.state.set(Some(state));
    }

    /// Returns the longest wait of a loop whose last turns are not published yet. A loop with nothing to publish sleeps
    /// on.
    pub(super) fn longest_wait(&self, now: Time) -> Option<Duration> {
        let state = self.state.take()?;
        let left = state.has_news.then(|| state.due - now);
        self.state.set(Some(state));
        left.filter(|_| is_on())
    }

    /// Publishes for the last time, since the OS thread ends. Calls the recorder.
    ///
    /// The thread-locals of the recorder may be destroyed. So its panic ends only this publication.
    pub(super) fn end(&self, stats: impl FnOnce() -> Stats) {
        let Some(state) = self.state.take().filter(|_| is_on()) else { return };
        let published = contained(|| {
            state.series.record_turns(&state.turns);
            state.series.end(&state.published, &stats());
        });
        if let Err(error) = published {
            report::callback_failed("the recorder of metrics, at the end of an OS thread,", None, error);
        }
    }
}

impl State {
    fn new(series: Series, published: Stats, due: Time) -> State {
        State { series, published, due, turns: Vec::new(), longest: Duration::ZERO, has_news: false }
    }

    fn record_turns(&mut self) {
        let turns = std::mem::take(&mut self.turns);
        call_recorder(|| self.series.record_turns(&turns));
        // The memory is kept.
        self.turns = turns;
        self.turns.clear();
    }

    fn publish(&mut self, stats: Stats) {
        self.record_turns();
        self.has_news = false;
        let longest = std::mem::take(&mut self.longest);
        call_recorder(|| self.series.publish(&self.published, &stats, longest));
        self.published = stats;
    }

    /// Publishes the totals for the last time, and clears the numbers that only a living loop has. Returns the totals.
    fn end(mut self, stats: &Stats) -> Stats {
        self.record_turns();
        call_recorder(|| self.series.end(&self.published, stats));
        stats.clone()
    }
}
