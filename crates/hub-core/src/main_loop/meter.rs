//! The values that a loop publishes to a recorder of the crate `metrics`, with the feature of that name. Without it
//! they compile to nothing.
//!
//! The numbers are those of [`Stats`], which are derived from state that the loop keeps anyway. The latency of the loop
//! is measured only while publication is on: a turn lasts from the sample of the clock at the end of one wait until the
//! sample before the next.
//!
//! A recorder is foreign code, which may take long or panic, so an OS thread of its own calls it: see [`publisher`]. No
//! loop waits for it.

mod interval;
mod pool_waits;
mod publisher;
mod series;
mod slot;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use self::interval::interval;
use self::series::Series;
use self::slot::Slot;
use super::stats::Stats;
use crate::base::id::HubId;
use crate::hub::Time;

pub(crate) use self::interval::{is_on, set_interval};
pub(crate) use self::publisher::after_all;
pub(crate) use self::series::describe;

/// The number of turns that are kept until the recorder gets all of them.
const MOST_TURNS: usize = 1024;

/// Notes the time that a job was queued in the pool of that name.
#[inline]
pub(crate) fn record_pool_wait(pool: &'static str, waited: impl FnOnce() -> Duration) {
    if is_on() {
        pool_waits::note(pool, waited());
    }
}

/// Publishes the times that jobs were queued before a loop does.
pub(crate) fn publish_pool_waits() {
    if is_on() {
        publisher::publish(pool_waits::record);
    }
}

/// The measurements of one loop.
pub(super) struct Meter {
    /// The number of a wait and its end, unless the turn after it was measured or is none of this loop's.
    wait_ended: Cell<Option<(u64, Time)>>,
    /// Taken out while it is in use.
    state: Cell<Option<Box<State>>>,
}

struct State {
    hub: HubId,
    series: Arc<Series>,
    _slot: Slot,
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

    /// Measures the turn that ends at `now`, and publishes if that is due. `wait` is the number of the last wait: while
    /// publication is off, not each wait is noted.
    #[cold]
    pub(super) fn end_turn(&self, wait: u64, hub: (HubId, &'static str), now: Time, stats: impl Fn() -> Stats) {
        let Some(interval) = interval() else { return };
        let mut state = match self.state.take() {
            Some(state) if state.hub == hub.0 => state,
            former => {
                // The totals go on with the next hub. A wait of the former hub ended by another clock.
                self.forget_turn();
                let published = former.map(|former| former.end(&stats())).unwrap_or_default();
                Box::new(State::new(hub, published, now))
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

    /// Publishes before the interval has passed.
    pub(super) fn publish_now(&self, stats: impl FnOnce() -> Stats) {
        let Some(mut state) = self.state.take() else { return };
        if is_on() {
            state.publish(stats());
        }
        self.state.set(Some(state));
    }

    /// Publishes for the last time, since the OS thread ends.
    pub(super) fn end(&self, stats: impl FnOnce() -> Stats) {
        if let Some(state) = self.state.take().filter(|_| is_on()) {
            state.end(&stats());
        }
    }
}

impl State {
    fn new((hub, name): (HubId, &'static str), published: Stats, due: Time) -> State {
        let (series, slot) = Series::new(name);
        let (turns, longest) = (Vec::new(), Duration::ZERO);
        State { hub, series: Arc::new(series), _slot: slot, published, due, turns, longest, has_news: false }
    }

    fn record_turns(&mut self) {
        let (series, turns) = (Arc::clone(&self.series), std::mem::take(&mut self.turns));
        publisher::publish(move || series.record_turns(&turns));
    }

    fn publish(&mut self, now: Stats) {
        let (series, turns) = (Arc::clone(&self.series), std::mem::take(&mut self.turns));
        let (before, stats, longest) = (self.published.clone(), now.clone(), self.longest);
        let is_accepted = publisher::publish(move || {
            pool_waits::record();
            series.record_turns(&turns);
            series.publish(&before, &stats, longest);
        });
        // Otherwise the next publication has the numbers of both.
        if is_accepted {
            (self.published, self.longest, self.has_news) = (now, Duration::ZERO, false);
        }
    }

    /// Publishes the totals for the last time, and clears the numbers that only a living loop has. Returns the totals.
    fn end(self, stats: &Stats) -> Stats {
        let (now, Self { series, turns, published, .. }) = (stats.clone(), self);
        publisher::publish(move || {
            series.record_turns(&turns);
            series.end(&published, &now);
        });
        stats.clone()
    }
}
