//! Waits of greenlets and wakers for descriptors, and the watches of the hub that they need.
//!
//! Ground rules:
//! - A descriptor is armed only under a promise that it stays open: a trampoline borrows it, a callback's registration
//!   owns it, a socket is deregistered before it is closed. [`DescriptorWaiter`]'s destructor removes the waiter from
//!   the table, however the park ends.
//! - No cell is borrowed while the hub, a callback or a waker is called, nor across a switch; except the table, which
//!   the hub's `wait` reads. A change of the table from inside `wait` is posted to the loop's own mailbox, and the
//!   descriptor stays open until the change is carried out. A change that cannot wait panics.

use std::cell::Cell;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::MainLoop;
use super::deadline::Deadline;
use super::descriptors::{Owner, Prepared};
use super::hub_prevent_multiple_readers::prevents_multiple_readers;
use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, TrampolineError};
use crate::greenlet::control::{Reported, Wake};
use crate::greenlet::driver::Driver;
use crate::greenlet::exit::drop_contained;
use crate::greenlet::run::Park;
use crate::greenlet::target::Target;
use crate::hub::{Interest, Key, Lease, Readiness, Rearm};
use crate::timer_queue::TimerId;

impl MainLoop {
    /// Parks the running greenlet until `direction` of `fd` is ready. Switches.
    ///
    /// # Safety
    ///
    /// `fd` stays open until this returns or unwinds, or until [`closed`] gives up its number. A socket that is named
    /// as the `owner` owns `fd`, which stays open until its number is given up, also after this returns.
    ///
    /// [`closed`]: MainLoop::closed
    pub(crate) unsafe fn wait_for(
        &self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        deadline: &mut Deadline,
    ) -> Result<Wake, TrampolineError> {
        let park = Park::current(WaitReason::Descriptor)?;
        if self.heartbeat.is_in_hub() {
            return Err(LoopError::in_mainloop(WaitReason::Descriptor.as_str()).into());
        }
        self.ensure_hub()?;
        let target = Target::park(park.waiter());
        // SAFETY: the caller upholds the same contract.
        let entry = unsafe { self.add_waiter(fd, owner, direction, target) }?;
        if !deadline.is_none() {
            entry.timer.set(deadline.arm(&mut self.timers.borrow_mut(), target));
        }
        let wake = park.park()?;
        match entry.timer.get() {
            Some(timer) => deadline.fix(&self.timers.borrow(), timer),
            // The report has removed the waiter from the table.
            None if matches!(wake, Wake::Ready(_)) => entry.was_removed(),
            None => {}
        }
        match wake {
            // A wake-up without a reason is for another park of this greenlet: of code that was called on the way.
            Wake::Event => Err(LoopError::in_mainloop(WaitReason::Descriptor.as_str()).into()),
            Wake::Deadline => Err(TrampolineError::TimedOut { fd }),
            Wake::Closed => Err(TrampolineError::Closed { fd }),
            Wake::Ready(reported) if reported.readiness().contains(Readiness::INVALID) => {
                Err(TrampolineError::InvalidFd { fd })
            }
            wake => Ok(wake),
        }
    }

    /// Parks the running greenlet for `pause` without a watch of the hub. Switches.
    ///
    /// It is queued for `direction`, so it is woken when the number is given up.
    ///
    /// # Safety
    ///
    /// The same as for [`wait_for`](MainLoop::wait_for).
    pub(crate) unsafe fn pause(
        &self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        pause: Duration,
    ) -> Result<(), TrampolineError> {
        let park = Park::current(WaitReason::Descriptor)?;
        if self.heartbeat.is_in_hub() {
            return Err(LoopError::in_mainloop(WaitReason::Descriptor.as_str()).into());
        }
        self.ensure_hub()?;
        if self.descriptors.borrow().is_stale_for(fd, owner) {
            self.closed(fd, None);
        }
        let target = Target::park(park.waiter());
        let key = {
            let mut descriptors = self.descriptors.borrow_mut();
            // SAFETY: the caller upholds the same contract. The entry below removes the waiter.
            unsafe {
                descriptors.prepare(fd, owner, direction, self.slot.rearm());
                descriptors.queue_paused(fd, direction, target);
            }
            descriptors.watched.key(fd).expect("a prepared descriptor has a key")
        };
        let entry = DescriptorWaiter { main_loop: self, key, direction, target, timer: Cell::new(None) };
        entry.timer.set(Some(self.arm(pause, target)));
        let wake = park.park()?;
        drop(entry);
        match wake {
            Wake::Event => Err(LoopError::in_mainloop(WaitReason::Descriptor.as_str()).into()),
            Wake::Closed => Err(TrampolineError::Closed { fd }),
            Wake::Ready(reported) if reported.readiness().contains(Readiness::INVALID) => {
                Err(TrampolineError::InvalidFd { fd })
            }
            _ => Ok(()),
        }
    }

    /// Parks the running greenlet until any of several descriptors is ready. Switches.
    ///
    /// `many` is not empty, and has no duplicates.
    ///
    /// # Safety
    ///
    /// The same as for [`wait_for`](MainLoop::wait_for), for each descriptor.
    pub(crate) unsafe fn wait_for_any(
        &self,
        many: impl Iterator<Item = (RawFd, Interest)>,
        deadline: &mut Deadline,
    ) -> Result<(), TrampolineError> {
        let park = Park::current(WaitReason::Descriptor)?;
        // SAFETY: the caller upholds the same contract.
        unsafe { self.park_for_any(park, many, deadline, || ()) }
    }

    /// Like [`wait_for_any`](MainLoop::wait_for_any), for a park that another wake-up may end as well.
    ///
    /// Calls `begun` when nothing but the park can fail any more.
    ///
    /// # Safety
    ///
    /// The same as for [`wait_for`](MainLoop::wait_for), for each descriptor.
    pub(crate) unsafe fn park_for_any(
        &self,
        park: Park,
        many: impl Iterator<Item = (RawFd, Interest)>,
        deadline: &mut Deadline,
        begun: impl FnOnce(),
    ) -> Result<(), TrampolineError> {
        if self.in_hub() {
            return Err(LoopError::in_mainloop(WaitReason::Descriptor.as_str()).into());
        }
        self.ensure_hub()?;
        let target = Target::park(park.waiter());
        // SAFETY: the caller upholds the same contract.
        let entries = many.map(|(fd, direction)| unsafe { self.add_waiter(fd, Owner::RAW, direction, target) });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let Some(first) = entries.first() else { return Ok(()) };
        begun();
        // The first waiter keeps the timer, too.
        first.timer.set(deadline.arm(&mut self.timers.borrow_mut(), target));
        let wake = park.park()?;
        if let Some(timer) = first.timer.get() {
            deadline.fix(&self.timers.borrow(), timer);
        }
        match wake {
            Wake::Deadline => Err(TrampolineError::TimedOut { fd: first.key.fd() }),
            Wake::Closed => {
                let descriptors = self.descriptors.borrow();
                let closed = entries.iter().find(|entry| !descriptors.watched.is_current(entry.key));
                Err(TrampolineError::Closed { fd: closed.unwrap_or(first).key.fd() })
            }
            _ => Ok(()),
        }
    }

    /// Makes the hub notify `target` of a direction.
    ///
    /// # Safety
    ///
    /// `fd` stays open until the waiter is dropped; otherwise the same as for [`wait_for`](MainLoop::wait_for).
    #[inline]
    unsafe fn add_waiter(
        &self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        target: Target,
    ) -> Result<DescriptorWaiter<'_>, TrampolineError> {
        // SAFETY: the caller upholds the same contract.
        let key = unsafe { self.place_waiter(fd, owner, direction, target) }?;
        Ok(DescriptorWaiter { main_loop: self, key, direction, target, timer: Cell::new(None) })
    }

    /// Puts `target` into the table: the hub notifies it, or it waits behind the present waiter.
    ///
    /// # Safety
    ///
    /// `fd` stays open until the target leaves the table; otherwise the same as for [`wait_for`](MainLoop::wait_for).
    #[inline(always)]
    pub(super) unsafe fn place_waiter(
        &self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        target: Target,
    ) -> Result<Key, TrampolineError> {
        // SAFETY: the caller upholds the same contract.
        let again = unsafe { self.descriptors.borrow_mut().arm_again(fd, owner, direction, target) };
        match again {
            Some(key) => Ok(key),
            // SAFETY: the caller upholds the same contract.
            None => unsafe { self.arm_first(fd, owner, direction, target) },
        }
    }

    /// Puts `target` into the table without a watch of the hub: a close of the number notifies it.
    ///
    /// # Safety
    ///
    /// The same as for [`place_waiter`](MainLoop::place_waiter).
    pub(super) unsafe fn place_paused(
        &self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        target: Target,
    ) -> Result<Key, TrampolineError> {
        if self.descriptors.borrow().is_stale_for(fd, owner) {
            self.closed(fd, None);
        }
        let mut descriptors = self.descriptors.borrow_mut();
        // SAFETY: the caller upholds the same contract.
        let prepared = unsafe { descriptors.prepare(fd, owner, direction, self.slot.rearm()) };
        if prepared == Prepared::Taken && prevents_multiple_readers() {
            return Err(TrampolineError::SecondSimultaneous { direction, fd });
        }
        // SAFETY: the caller upholds the same contract.
        unsafe { descriptors.queue_paused(fd, direction, target) };
        Ok(descriptors.watched.key(fd).expect("a prepared descriptor has a key"))
    }

    /// Makes the hub watch a direction and notify `target` of it, or queues `target` behind the present waiter.
    ///
    /// # Safety
    ///
    /// The same as for [`add_waiter`](MainLoop::add_waiter).
    #[inline(never)]
    unsafe fn arm_first(
        &self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        target: Target,
    ) -> Result<Key, TrampolineError> {
        if self.descriptors.borrow().is_stale_for(fd, owner) {
            self.closed(fd, None);
        }
        // SAFETY: the caller upholds the same contract.
        let prepared = unsafe { self.descriptors.borrow_mut().prepare(fd, owner, direction, self.slot.rearm()) };
        match prepared {
            Prepared::Taken if prevents_multiple_readers() => {
                Err(TrampolineError::SecondSimultaneous { direction, fd })
            }
            Prepared::Taken => {
                let mut descriptors = self.descriptors.borrow_mut();
                // SAFETY: the caller upholds the same contract.
                unsafe { descriptors.queue(fd, direction, target) };
                Ok(descriptors.watched.key(fd).expect("a taken direction has a key"))
            }
            Prepared::Watched(key) => {
                // SAFETY: the caller upholds the same contract.
                unsafe { self.descriptors.borrow_mut().arm(key, direction, target) };
                Ok(key)
            }
            Prepared::Watch(key, interest) => {
                // SAFETY: the caller upholds the same contract.
                unsafe { self.watch(key, interest, direction, target) }?;
                Ok(key)
            }
        }
    }

    /// Makes the hub watch a direction, then arms it. On error nothing is armed.
    ///
    /// # Safety
    ///
    /// The same as for [`wait_for`](MainLoop::wait_for).
    pub(super) unsafe fn watch(
        &self,
        key: Key,
        interest: Interest,
        direction: Interest,
        target: Target,
    ) -> Result<(), TrampolineError> {
        self.counters.count_watch();
        let lease = self.descriptors.borrow().lease(key);
        // SAFETY: the number is open, by the contract.
        let fd = unsafe { BorrowedFd::borrow_raw(key.fd()) };
        match self.with_hub("watching a descriptor", |hub| hub.watch(key, fd, interest, lease))? {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
                return Err(TrampolineError::InvalidFd { fd: key.fd() });
            }
            Err(error) => return Err(TrampolineError::Register { fd: key.fd(), error: Arc::new(error) }),
        }
        let mut descriptors = self.descriptors.borrow_mut();
        // The hub is foreign code: it may have given up the number.
        if !descriptors.watched.is_current(key) {
            return Err(TrampolineError::Closed { fd: key.fd() });
        }
        // SAFETY: the caller upholds the contract of `arm`. With `Lease::Life` the owner of the slot is a source or the
        // wake-up descriptor. Either makes this loop give the number up before it is closed, which is the contract of
        // `lend`, whatever waiter comes here.
        unsafe {
            descriptors.arm(key, direction, target);
            if lease == Lease::Life {
                let lasting = if self.slot.rearm() == Rearm::Explicit { Interest::NONE } else { interest };
                descriptors.lend(key, lasting);
            }
        }
        Ok(())
    }

    /// Makes a new hub watch an armed key. An error is that of the hub, which is lost.
    pub(super) fn watch_again(&self, key: Key, interest: Interest) -> Result<(), LoopError> {
        let (lease, targets) = {
            let descriptors = self.descriptors.borrow();
            if descriptors.watched.armed(key).is_empty() {
                return Ok(());
            }
            (descriptors.lease(key), descriptors.targets(key))
        };
        // The hub is foreign code: it may deregister the listeners.
        let kept = targets.map(|target| (self.callbacks.borrow().descriptor_of(target), self.wakers.guard_of(target)));
        // SAFETY: the key is armed. `kept` holds the descriptor of a listener and that of a waker. A parked greenlet
        // keeps its descriptor open during this call, since no greenlet is left inside a hub.
        let fd = unsafe { BorrowedFd::borrow_raw(key.fd()) };
        self.counters.count_watch();
        let watched = self.with_hub("watching a descriptor", |hub| hub.watch(key, fd, interest, lease));
        // A listener that the hub has deregistered left the table, but could not make the busy hub forget the number.
        if matches!(watched, Ok(Ok(()))) && self.descriptors.borrow().may_be_forgotten(key) {
            // A hub that fails here has nothing left to forget.
            let _ = self.with_hub("forgetting a descriptor", |hub| hub.forget(key, Some(fd)));
        }
        kept.into_iter().for_each(drop_contained);
        if watched?.is_err() {
            self.closed(key.fd(), None);
        } else if lease == Lease::Life && self.slot.rearm() != Rearm::Explicit {
            // SAFETY: the number is that of a source or of the wake-up descriptor, which makes this loop give it up
            // before it is closed. A key that was given up meanwhile lends nothing.
            unsafe { self.descriptors.borrow_mut().lend(key, interest) };
        }
        Ok(())
    }

    /// Promotes the next queued waiter once the first one has gone.
    #[inline(always)]
    pub(super) fn promote_next_waiter(&self, key: Key, direction: Interest) {
        loop {
            let target = self.descriptors.borrow_mut().next_queued(key, direction);
            let Some(target) = target else { return };
            self.rearm_waiter(key, direction, target);
        }
    }

    /// Arms a queued waiter. If the hub does not watch for it, the caller promotes the one after it.
    #[cold]
    #[inline(never)]
    fn rearm_waiter(&self, key: Key, direction: Interest, target: Target) {
        let interest = self.descriptors.borrow().watched.armed(key) | direction;
        // SAFETY: a queued greenlet has a `DescriptorWaiter`, which removes it from the queue when the wait ends, and a
        // queued waker has a `PollGuard`, which it drops after it has left the queue. So its descriptor is open.
        match unsafe { self.watch(key, interest, direction, target) } {
            Ok(()) => {}
            Err(error) => {
                if let TrampolineError::Loop(error) = error {
                    self.stop_with(error);
                }
                // Its operation finds out what is wrong.
                // SAFETY: `next_queued` has removed the target from the queue, and a watch that fails arms nothing.
                self.tell(target, Wake::Ready(unsafe { Reported::new(Readiness::HANGUP) }));
            }
        }
    }
}

/// A waiter in the table. `Drop` removes it, however the park ends.
struct DescriptorWaiter<'a> {
    main_loop: &'a MainLoop,
    key: Key,
    direction: Interest,
    target: Target,
    timer: Cell<Option<TimerId>>,
}

impl DescriptorWaiter<'_> {
    /// Forgets the waiter, which the report has removed already.
    ///
    /// An entry that stays in the table would name a descriptor that its owner may close. The caller is `wait_for`,
    /// whose park has only this place, and was woken with a [`Reported`] of this park: its entry has left the table.
    /// The value is not of another park: a wake-up of a parked greenlet sets it, and a park that has ended before it
    /// began has none.
    #[inline]
    fn was_removed(self) {
        debug_assert!(!self.main_loop.descriptors.borrow_mut().leave(self.key, self.direction, self.target));
        std::mem::forget(self);
    }
}

impl Drop for DescriptorWaiter<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.get() {
            self.main_loop.disarm(timer);
        }
        let left = self.main_loop.descriptors.borrow_mut().leave(self.key, self.direction, self.target);
        if left {
            self.main_loop.promote_next_waiter(self.key, self.direction);
        }
    }
}
