//! The table of armed wakers, and the operations that keep the numbers of their sources open.
//!
//! Ground rules: those of [`wakers`](super::wakers).

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use crate::greenlet::exit::{contained, drop_contained};
use crate::greenlet::target::Target;
use crate::hub::{Interest, Key};
use crate::report;
use crate::timer_queue::TimerId;

/// A source with an armed waker.
///
/// # Safety
///
/// The number of the source stays open from a `begin_poll` that returns a value to its `end_poll`.
pub(crate) unsafe trait Polled {
    /// Begins an operation in progress, which the waker stands for. Returns the era in which it is counted, or `None`
    /// if the number is gone.
    fn begin_poll(&self) -> Option<Era>;

    /// Ends the operation, which is counted in `era`.
    ///
    /// # Safety
    ///
    /// `begin_poll` has returned a value, and this is the only end of that operation.
    unsafe fn end_poll(&self, era: Era);
}

/// The time between two counts of the waiters of a source that will never leave.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Era(pub(crate) u16);

/// An operation in progress, which keeps the number of a source open. `Drop` ends it.
pub(crate) struct PollGuard {
    pub(super) source: Arc<dyn Polled + Send + Sync>,
    era: Era,
}

impl PollGuard {
    /// Begins an operation. Returns `None` if the number of the source is gone.
    pub(crate) fn new(source: Arc<dyn Polled + Send + Sync>) -> Option<PollGuard> {
        let era = source.begin_poll()?;
        Some(PollGuard { source, era })
    }

    /// Returns the era in which the operation is counted, which the source may correct.
    pub(crate) fn era(&mut self) -> &mut Era {
        &mut self.era
    }
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        // SAFETY: `new` has begun the operation, and nothing else ends it.
        unsafe { self.source.end_poll(self.era) };
    }
}

/// The event that wakes a waker.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum WakeAt {
    /// A report of the hub.
    Report,
    /// A report of the hub, or the end of this time: the system may not report every event.
    ReportOr(Duration),
    /// The end of this time alone: the last reports were not confirmed.
    Pause(Duration),
}

/// The number of a waker, and the serial number by which a stale target is distinguished from a new one.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct WakerId {
    number: u32,
    serial: u64,
}

impl WakerId {
    /// Returns the id that a [`Target::Waker`] names.
    pub(super) fn new(number: u32, serial: u64) -> WakerId {
        WakerId { number, serial }
    }

    pub(super) fn target(self) -> Target {
        Target::Waker { number: self.number, serial: self.serial }
    }

    pub(super) fn of(target: Target) -> Option<WakerId> {
        match target {
            Target::Waker { number, serial } => Some(WakerId { number, serial }),
            _ => None,
        }
    }
}

/// An armed waker.
pub(super) struct Armed {
    serial: u64,
    pub(super) waker: Waker,
    /// Its place in the table of descriptors.
    pub(super) place: Option<(Key, Interest)>,
    pub(super) timer: Option<TimerId>,
    pub(super) guard: Option<PollGuard>,
}

/// The table of wakers.
#[derive(Default)]
pub(crate) struct Wakers {
    entries: RefCell<Slab<Armed>>,
    serial: Cell<u64>,
    refusals: RefCell<Vec<Refusal>>,
}

/// The error of a poll inside a hub call, whose waker could not be armed after the call.
struct Refusal {
    source: Weak<dyn Polled + Send + Sync>,
    /// The id of the source.
    id: u64,
    direction: Interest,
    error: io::Error,
}

impl Wakers {
    /// Begins another operation on the source of a waker, which keeps its number open.
    pub(super) fn guard_of(&self, target: Target) -> Option<PollGuard> {
        let source = self.with(WakerId::of(target)?, |armed| armed.guard.as_ref().map(|guard| guard.source.clone()));
        source.flatten().and_then(PollGuard::new)
    }

    /// Replaces the waker of a timer by `waker`. Returns false if the timer has fired or was cancelled.
    pub(crate) fn renew_for_timer(&self, id: WakerId, waker: &Waker) -> bool {
        match self.with(id, |armed| armed.waker.will_wake(waker)) {
            None => return false,
            Some(true) => return true,
            Some(false) => {}
        }
        let mut fresh = Some(waker.clone());
        let old = self.with(id, |armed| fresh.take().map(|fresh| mem::replace(&mut armed.waker, fresh)));
        let renewed = old.is_some();
        drop_contained((old, fresh));
        renewed
    }

    /// Keeps an error for the next poll of a source in `direction`.
    pub(crate) fn keep_refusal(
        &self,
        source: Weak<dyn Polled + Send + Sync>,
        id: u64,
        direction: Interest,
        error: io::Error,
    ) {
        let fresh = Refusal { source, id, direction, error };
        let is_kept = |refusal: &Refusal| {
            refusal.source.strong_count() != 0 && (refusal.id, refusal.direction) != (id, direction)
        };
        let (mut kept, dropped): (Vec<_>, Vec<_>) = self.refusals.take().into_iter().partition(is_kept);
        kept.push(fresh);
        self.refusals.replace(kept);
        // An error of a hub is foreign code: no cell is borrowed here.
        drop_contained(dropped);
    }

    /// Removes and returns the error that was kept for a direction of a source.
    #[inline]
    pub(crate) fn take_refusal(&self, id: u64, direction: Interest) -> Option<io::Error> {
        let mut refusals = self.refusals.borrow_mut();
        if refusals.is_empty() {
            return None;
        }
        let index = refusals.iter().position(|refusal| (refusal.id, refusal.direction) == (id, direction))?;
        Some(refusals.swap_remove(index).error)
    }

    pub(super) fn insert(&self, waker: Waker, guard: Option<PollGuard>) -> WakerId {
        let serial = self.serial.get() + 1;
        self.serial.set(serial);
        let number = self.entries.borrow_mut().insert(Armed { serial, waker, place: None, timer: None, guard });
        WakerId { number: number as u32, serial }
    }

    pub(super) fn take(&self, id: WakerId) -> Option<Armed> {
        let mut entries = self.entries.borrow_mut();
        entries.get(id.number as usize).filter(|armed| armed.serial == id.serial)?;
        Some(entries.remove(id.number as usize))
    }

    pub(super) fn with<R>(&self, id: WakerId, access: impl FnOnce(&mut Armed) -> R) -> Option<R> {
        let mut entries = self.entries.borrow_mut();
        entries.get_mut(id.number as usize).filter(|armed| armed.serial == id.serial).map(access)
    }

    pub(super) fn ids(&self) -> Vec<WakerId> {
        let entries = self.entries.borrow();
        entries.iter().map(|(number, armed)| WakerId { number: number as u32, serial: armed.serial }).collect()
    }
}

/// Wakes a waker, which is foreign code.
pub(crate) fn wake(waker: Waker) {
    if let Err(error) = contained(|| waker.wake()) {
        report::callback_failed("the waker of a future", None, error);
    }
}
