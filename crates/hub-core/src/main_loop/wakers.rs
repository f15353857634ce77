//! The wakers of polled sources and of timers: one-shot targets beside the parked greenlets.
//!
//! Ground rules:
//! - A waker is foreign code. It is cloned, woken and dropped while no cell is borrowed, and its panics are contained.
//!   The loop's own waker is not in this table. A queued wake-up wakes it, so no cell is borrowed for that either.
//! - A waker is taken out of this table before it is woken, so each one is woken at most once.
//! - Wakers are woken on the main loop, where nothing may block. A close and a cancellation, which may happen in any
//!   greenlet, queue them. The end of a hub wakes them itself: the loop may never run again.
//! - The waker of a source keeps the source's number open, as a parked operation does, until it has left the table of
//!   descriptors.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use super::MainLoop;
use super::callback_table::Callback;
use super::descriptors::Owner;
use crate::error::{LoopError, TrampolineError};
use crate::greenlet::driver::Driver;
use crate::greenlet::exit::{contained, drop_contained};
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::hub::{Interest, Key};
use crate::report;
use crate::timer_queue::TimerId;

/// A source with an armed waker.
///
/// # Safety
///
/// The number of the source stays open from a `begin_poll` that returns true to its `end_poll`.
pub(crate) unsafe trait Polled {
    /// Begins an operation in progress, which the waker stands for. Returns false if the number is gone.
    fn begin_poll(&self) -> bool;

    /// Ends the operation.
    ///
    /// # Safety
    ///
    /// `begin_poll` has returned true, and this is the only end of that operation.
    unsafe fn end_poll(&self);
}

/// An operation in progress, which keeps the number of a source open. `Drop` ends it.
pub(crate) struct PollGuard(Arc<dyn Polled + Send + Sync>);

impl PollGuard {
    /// Begins an operation. Returns `None` if the number of the source is gone.
    pub(crate) fn new(source: Arc<dyn Polled + Send + Sync>) -> Option<PollGuard> {
        source.begin_poll().then(|| PollGuard(source))
    }
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        // SAFETY: `new` has begun the operation, and nothing else ends it.
        unsafe { self.0.end_poll() };
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
    fn target(self) -> Target {
        Target::Waker { number: self.number, serial: self.serial }
    }

    fn of(target: Target) -> Option<WakerId> {
        match target {
            Target::Waker { number, serial } => Some(WakerId { number, serial }),
            _ => None,
        }
    }
}

/// An armed waker.
struct Armed {
    serial: u64,
    waker: Waker,
    /// Its place in the table of descriptors.
    place: Option<(Key, Interest)>,
    timer: Option<TimerId>,
    guard: Option<PollGuard>,
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

    fn insert(&self, waker: Waker, guard: Option<PollGuard>) -> WakerId {
        let serial = self.serial.get() + 1;
        self.serial.set(serial);
        let number = self.entries.borrow_mut().insert(Armed { serial, waker, place: None, timer: None, guard });
        WakerId { number: number as u32, serial }
    }

    fn take(&self, id: WakerId) -> Option<Armed> {
        let mut entries = self.entries.borrow_mut();
        entries.get(id.number as usize).filter(|armed| armed.serial == id.serial)?;
        Some(entries.remove(id.number as usize))
    }

    fn with<R>(&self, id: WakerId, access: impl FnOnce(&mut Armed) -> R) -> Option<R> {
        let mut entries = self.entries.borrow_mut();
        entries.get_mut(id.number as usize).filter(|armed| armed.serial == id.serial).map(access)
    }

    fn ids(&self) -> Vec<WakerId> {
        let entries = self.entries.borrow();
        entries.iter().map(|(number, armed)| WakerId { number: number as u32, serial: armed.serial }).collect()
    }
}

impl MainLoop {
    /// Replaces the armed waker for a direction of a source by `waker`. Returns false if none is armed.
    pub(crate) fn renew_waker(&self, fd: RawFd, socket: u64, direction: Interest, waker: &Waker) -> bool {
        let armed = || {
            let target = self.descriptors.borrow().waker_of(fd, socket, direction)?;
            WakerId::of(target)
        };
        let Some(id) = armed() else { return false };
        if self.wakers.with(id, |armed| armed.waker.will_wake(waker)) == Some(true) {
            return true;
        }
        let fresh = waker.clone();
        // The clone was foreign code.
        let Some(id) = armed() else { return false };
        let mut fresh = Some(fresh);
        let old = self.wakers.with(id, |armed| fresh.take().map(|fresh| mem::replace(&mut armed.waker, fresh)));
        let renewed = old.is_some();
        drop_contained((old, fresh));
        renewed
    }

    /// Arms a waker for a direction of a source. It is woken once.
    ///
    /// # Safety
    ///
    /// `fd` stays open until `guard` is dropped, and until this loop has given it up: see
    /// [`wait_for`](MainLoop::wait_for) for an owned descriptor.
    pub(crate) unsafe fn arm_waker(
        &self,
        fd: RawFd,
        socket: u64,
        direction: Interest,
        waker: Waker,
        at: WakeAt,
        guard: PollGuard,
    ) -> Result<(), TrampolineError> {
        self.ensure_hub()?;
        // The clone of the waker, which is foreign code, may have polled.
        if self.renew_waker(fd, socket, direction, &waker) {
            drop_contained(waker);
            return Ok(());
        }
        let id = self.wakers.insert(waker, Some(guard));
        let owner = Owner::Socket(socket);
        let placed = match at {
            // SAFETY: the caller upholds the same contract.
            WakeAt::Pause(_) => unsafe { self.place_paused(fd, owner, direction, id.target()) },
            // SAFETY: the caller upholds the same contract.
            WakeAt::Report | WakeAt::ReportOr(_) => unsafe { self.place_waiter(fd, owner, direction, id.target()) },
        };
        let key = match placed {
            Ok(key) => key,
            Err(error) => {
                drop_contained(self.wakers.take(id));
                return Err(error);
            }
        };
        let timer = match at {
            WakeAt::Report => None,
            WakeAt::ReportOr(time) | WakeAt::Pause(time) => Some(self.arm(time, id.target())),
        };
        self.wakers.with(id, |armed| (armed.place, armed.timer) = (Some((key, direction)), timer));
        Ok(())
    }

    /// Begins another operation on the source of a waker, which keeps its number open.
    pub(super) fn guard_of(&self, target: Target) -> Option<PollGuard> {
        let source = self.wakers.with(WakerId::of(target)?, |armed| armed.guard.as_ref().map(|guard| guard.0.clone()));
        source.flatten().and_then(PollGuard::new)
    }

    /// Arms a waker for a time alone.
    pub(crate) fn arm_timer_waker(&self, delay: Duration, waker: Waker) -> Result<WakerId, LoopError> {
        self.ensure_hub()?;
        let id = self.wakers.insert(waker, None);
        let timer = self.arm(delay, id.target());
        self.wakers.with(id, |armed| armed.timer = Some(timer));
        run::rouse();
        // A hub that waits has its timeout already.
        if self.heartbeat.is_in_hub()
            && let Some(mailbox) = self.mailbox()
        {
            mailbox.notify();
        }
        Ok(id)
    }

    /// Replaces the waker of a timer by `waker`. Returns false if the timer has fired or was canceled.
    pub(crate) fn renew_timer_waker(&self, id: WakerId, waker: &Waker) -> bool {
        match self.wakers.with(id, |armed| armed.waker.will_wake(waker)) {
            None => return false,
            Some(true) => return true,
            Some(false) => {}
        }
        let mut fresh = Some(waker.clone());
        let old = self.wakers.with(id, |armed| fresh.take().map(|fresh| mem::replace(&mut armed.waker, fresh)));
        let renewed = old.is_some();
        drop_contained((old, fresh));
        renewed
    }

    /// Cancels a waker: it is dropped, and not woken.
    pub(crate) fn cancel_waker(&self, id: WakerId) {
        if let Some(waker) = self.disarm_waker(id) {
            drop_contained(waker);
        }
    }

    /// Removes the wakers of a source, and queues their wake-ups. Returns false, and removes nothing, inside the hub's
    /// `wait`.
    pub(crate) fn cancel_wakers(&self, fd: RawFd, socket: u64, directions: Interest) -> bool {
        for direction in super::descriptors::SIDES {
            if !directions.contains(direction) {
                continue;
            }
            let Some(target) = self.with_table(|table| table.waker_of(fd, socket, direction)) else { return false };
            // Not dropped: a later poll of another future may have armed it.
            if let Some(WakerId { number, serial }) = target.and_then(WakerId::of) {
                self.queue_waker(number, serial);
            }
        }
        true
    }

    /// Wakes a waker. Called on the main loop.
    pub(super) fn wake_waker(&self, number: u32, serial: u64) {
        if let Some(waker) = self.disarm_waker(WakerId { number, serial }) {
            wake(waker);
        }
    }

    /// Queues the wake-up of a waker for the main loop.
    pub(super) fn queue_waker(&self, number: u32, serial: u64) {
        if let Some(waker) = self.disarm_waker(WakerId { number, serial }) {
            let id = self.callbacks.borrow_mut().insert(Callback::Wake(waker));
            self.queue_due(id);
        }
    }

    /// Queues the wake-ups of all wakers: their futures try again.
    pub(super) fn queue_all_wakers(&self) {
        for id in self.wakers.ids() {
            self.queue_waker(id.number, id.serial);
        }
    }

    /// Empties the table of wakers, whose hub is gone. Returns them, for the caller to wake.
    pub(super) fn take_wakers(&self) -> Vec<Callback> {
        let ids = self.wakers.ids().into_iter();
        ids.filter_map(|id| self.disarm_waker(id)).map(Callback::Wake).collect()
    }

    /// Takes a waker out of all tables. Returns `None` if that has happened.
    fn disarm_waker(&self, id: WakerId) -> Option<Waker> {
        let Armed { waker, place, timer, guard, .. } = self.wakers.take(id)?;
        if let Some(timer) = timer {
            self.disarm(timer);
        }
        if let Some((key, direction)) = place
            && self.descriptors.borrow_mut().leave_and_retry(key, direction, id.target())
        {
            self.promote_next_waiter(key, direction);
        }
        drop(guard);
        Some(waker)
    }
}

/// Wakes a waker, which is foreign code.
pub(crate) fn wake(waker: Waker) {
    if let Err(error) = contained(|| waker.wake()) {
        report::callback_failed("the waker of a future", error);
    }
}
