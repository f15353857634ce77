//! Waits that other OS threads may end, so that the loop never takes them for hopeless.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{MainLoop, parked, told_of};
use crate::error::LoopError;
use crate::greenlet::control::Wake;
use crate::greenlet::local::Local;
use crate::greenlet::run::{Refused, Waiter};
use crate::limit::Limit;
use crate::parker;
use crate::report::{self, Report};
use crate::timer_queue::TimerId;

/// In nanoseconds; the largest value: never.
static QUIET_TIME: AtomicU64 = AtomicU64::new(10_000_000_000);

/// After what time without anything to do a loop reports, once, that all its green threads wait for locks, queues
/// or events which only another OS thread could still serve. `None`: never. For the whole process; ten seconds
/// unless it is set.
pub fn set_quiet_time(quiet: Option<Duration>) {
    let nanos = quiet.map_or(u64::MAX, |quiet| u64::try_from(quiet.as_nanos()).unwrap_or(u64::MAX));
    QUIET_TIME.store(nanos, Ordering::Relaxed);
}

fn quiet_time() -> Option<Duration> {
    match QUIET_TIME.load(Ordering::Relaxed) {
        u64::MAX => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}

/// How many wait so, and whether the silence was reported.
#[derive(Default)]
pub(super) struct Outside {
    waiting: Cell<usize>,
    reported: Cell<bool>,
}

impl Outside {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.get() == 0
    }

    /// How long the loop may stand still before it has something to report.
    pub(super) fn patience(&self) -> Option<Duration> {
        if self.is_empty() || self.reported.get() { None } else { quiet_time() }
    }

    pub(super) fn report(&self, local: &Local) {
        if !self.reported.replace(true) {
            let main = format!("the main greenlet, {}", local.main.doing().as_str());
            let parked = std::iter::once(main).chain(parked(local)).collect();
            report::tell(Report::Quiet { parked });
        }
    }
}

impl MainLoop {
    /// Makes this thread reachable for others that may end its waits.
    #[inline]
    pub(crate) fn be_reachable(&self) -> Result<(), LoopError> {
        self.ensure_hub()?;
        parker::register(|| self.mailbox())
            .map_err(|error| LoopError::Wait { hub: self.name.get(), error: Arc::new(error) })
    }

    /// Parks until the waiter is woken or the limit is reached: then false. Switches.
    #[inline]
    pub(crate) fn park_until(&self, waiter: Waiter, limit: &mut Limit) -> Result<bool, Refused> {
        let timer = limit.arm(&mut self.timers.borrow_mut(), told_of(waiter));
        self.outside.waiting.set(self.outside.waiting.get() + 1);
        let place = Place { main_loop: self, timer };
        let wake = waiter.park()?;
        self.outside.reported.set(false);
        if let Some(timer) = timer {
            limit.fix(&self.timers.borrow(), timer);
        }
        drop(place);
        Ok(wake != Wake::Deadline)
    }
}

/// Somebody's wait; over however the park ends.
struct Place<'a> {
    main_loop: &'a MainLoop,
    timer: Option<TimerId>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.main_loop.disarm(timer);
        }
        let waiting = &self.main_loop.outside.waiting;
        waiting.set(waiting.get() - 1);
    }
}
