//! The wakers of polled sources and of timers: one-shot targets beside the parked greenlets.
//!
//! Ground rules:
//! - A waker is foreign code. It is cloned, woken and dropped while no cell is borrowed, and its panics are contained.
//!   The loop's own waker is not in that table. A queued wake-up wakes it, so no cell is borrowed for that either.
//! - A waker is taken out of its table before it is woken, so each one is woken at most once.
//! - Wakers are woken on the main loop, where nothing may block. A close and a cancellation, which may happen in any
//!   greenlet, queue them. The end of a hub wakes them itself: the loop may never run again.
//! - The waker of a source keeps the source's number open, as a parked operation does, until it has left the table of
//!   descriptors.

use std::mem;
use std::os::fd::RawFd;
use std::task::Waker;
use std::time::Duration;

use super::MainLoop;
use super::callback_table::Callback;
use super::descriptors::Owner;
use super::waker_table::{Armed, PollGuard, WakeAt, WakerId, wake};
use crate::error::{LoopError, TrampolineError};
use crate::greenlet::driver::Driver;
use crate::greenlet::exit::drop_contained;
use crate::greenlet::run;
use crate::hub::Interest;

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
        let owner = Owner::socket(socket);
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
            if let Some(id) = target.and_then(WakerId::of) {
                self.queue_waker(id);
            }
        }
        true
    }

    /// Wakes a waker. Called on the main loop.
    pub(super) fn wake_waker(&self, id: WakerId) {
        if let Some(waker) = self.disarm_waker(id) {
            wake(waker);
        }
    }

    /// Queues the wake-up of a waker for the main loop.
    pub(super) fn queue_waker(&self, id: WakerId) {
        if let Some(waker) = self.disarm_waker(id) {
            let id = self.callbacks.borrow_mut().insert(Callback::Wake(waker));
            self.queue_due(id);
        }
    }

    /// Queues the wake-ups of all wakers: their futures try again.
    pub(super) fn queue_all_wakers(&self) {
        for id in self.wakers.ids() {
            self.queue_waker(id);
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
