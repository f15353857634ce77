//! Waits for descriptors.
//!
//! Ground rules:
//! - A descriptor is armed only under a promise that it stays open: a trampoline borrows it, a callback's registration
//!   owns it, a socket is deregistered before it is closed. [`DescriptorWaiter`]'s destructor removes the waiter from
//!   the table, however the park ends.
//! - No cell is borrowed while the hub, a callback or a waker is called, nor across a switch; except the table, which
//!   the hub's `wait` reads. A change of the table from inside `wait` is posted to the loop's own mailbox, and the
//!   descriptor stays open until the change is carried out. A change that cannot wait panics.

use std::cell::Cell;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::callback_table::{Callback, CallbackId};
use super::deadline::Deadline;
use super::descriptors::{Descriptors, Owner, Prepared, ReadHint};
use super::listener::Listener;
use super::remote::Message;
use super::{MainLoop, prevents_multiple_readers};
use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, TrampolineError};
use crate::greenlet::control::Wake;
use crate::greenlet::driver::Driver;
use crate::greenlet::exit::{contained, drop_contained};
use crate::greenlet::local;
use crate::greenlet::run::{self, Park};
use crate::greenlet::target::Target;
use crate::hub::{Interest, Key, Lease, Readiness, Rearm};
use crate::report;
use crate::timer_queue::TimerId;

impl MainLoop {
    /// Parks the running greenlet until `direction` of `fd` is ready. Switches.
    ///
    /// # Safety
    ///
    /// `fd` stays open until this returns or unwinds, or until [`closed`] gives up its number. An owned descriptor
    /// stays open until its number is given up, also after this returns.
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
            Wake::Ready(readiness) if readiness.contains(Readiness::INVALID) => Err(TrampolineError::InvalidFd { fd }),
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
            descriptors.prepare(fd, owner, direction, self.slot.rearm());
            // SAFETY: the caller upholds the same contract. The entry below removes the waiter.
            unsafe { descriptors.queue_paused(fd, direction, target) };
            descriptors.watched.key(fd).expect("a prepared descriptor has a key")
        };
        let entry = DescriptorWaiter { main_loop: self, key, direction, target, timer: Cell::new(None) };
        entry.timer.set(Some(self.arm(pause, target)));
        let wake = park.park()?;
        drop(entry);
        match wake {
            Wake::Event => Err(LoopError::in_mainloop(WaitReason::Descriptor.as_str()).into()),
            Wake::Closed => Err(TrampolineError::Closed { fd }),
            Wake::Ready(readiness) if readiness.contains(Readiness::INVALID) => Err(TrampolineError::InvalidFd { fd }),
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
        if self.in_hub() {
            return Err(LoopError::in_mainloop(WaitReason::Descriptor.as_str()).into());
        }
        self.ensure_hub()?;
        let target = Target::park(park.waiter());
        // SAFETY: the caller upholds the same contract.
        let entries = many.map(|(fd, direction)| unsafe { self.add_waiter(fd, Owner::Raw, direction, target) });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let Some(first) = entries.first() else { return Ok(()) };
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
        let prepared = descriptors.prepare(fd, owner, direction, self.slot.rearm());
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
        let prepared = self.descriptors.borrow_mut().prepare(fd, owner, direction, self.slot.rearm());
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
        // SAFETY: the caller upholds the contract of `arm`. With `Lease::Life` the owner of the slot is a source. It makes
        // this loop give the number up before it is closed, which is the contract of `lend`, whatever waiter comes here.
        unsafe {
            descriptors.arm(key, direction, target);
            if lease == Lease::Life {
                let lasting = if self.slot.rearm() == Rearm::Explicit { Interest::NONE } else { interest };
                descriptors.lend(key, lasting);
            }
        }
        Ok(())
    }

    /// Arms the direction of a registered listener.
    pub(super) fn start_listening(
        &self,
        callback: CallbackId,
        fd: RawFd,
        direction: Interest,
    ) -> Result<(), TrampolineError> {
        self.ensure_hub()?;
        let prepared = self.descriptors.borrow_mut().prepare(fd, Owner::Raw, direction, self.slot.rearm());
        let (key, interest) = match prepared {
            Prepared::Taken => return Err(TrampolineError::SecondSimultaneous { direction, fd }),
            Prepared::Watch(key, interest) => (key, interest),
            Prepared::Watched(key) => (key, direction),
        };
        self.set_listener_key(callback, key);
        // SAFETY: the registration owns the descriptor, and leaves the table before it releases the descriptor.
        unsafe { self.watch(key, interest, direction, Target::Call(callback.number())) }
    }

    /// Deregisters a listener, and releases its descriptor.
    pub(crate) fn unlisten(&self, id: CallbackId) {
        if self.with_table(|_| ()).is_none() {
            return self.unlisten_after_wait(id);
        }
        let (key, interest) = match self.callbacks.borrow().get(id) {
            Some(&Callback::Listener { key, interest, .. }) => (key, interest),
            _ => return,
        };
        let callback = self.callbacks.borrow_mut().remove(id);
        // SAFETY: `callback` owns the descriptor, and is dropped after the call.
        unsafe { self.release(key, interest, Target::Call(id.number())) };
        drop_contained(callback);
    }

    /// Silences a listener that is dropped inside the hub's `wait`. The table lends its descriptor, so it stays
    /// registered until the loop reads its mail.
    #[cold]
    fn unlisten_after_wait(&self, id: CallbackId) {
        let listener = match self.callbacks.borrow_mut().get_mut(id) {
            Some(Callback::Listener { listener, .. }) => mem::replace(listener, Rc::new(Silent)),
            _ => return,
        };
        if let Some(mailbox) = self.mailbox() {
            drop(mailbox.post(Message::Run(Box::new(move || local::get().main_loop.unlisten(id)))));
        }
        drop_contained(listener);
    }

    /// Removes the waiter of a listener. Makes the hub forget the number if it has no other waiter.
    ///
    /// # Safety
    ///
    /// The descriptor of the listener stays open until this returns.
    unsafe fn release(&self, key: Key, interest: Interest, target: Target) {
        if self.descriptors.borrow_mut().leave(key, interest, target) {
            self.promote_next_waiter(key, interest);
        }
        if self.descriptors.borrow().may_be_forgotten(key) && !self.slot.is_empty() {
            // SAFETY: the number is open, by the contract.
            let fd = unsafe { BorrowedFd::borrow_raw(key.fd()) };
            // A hub that fails here has nothing left to forget.
            let _ = self.with_hub("forgetting a descriptor", |hub| hub.forget(key, Some(fd)));
        }
    }

    /// Rearms a listener that stays: the hub reports again what is left.
    pub(super) fn rearm_listener(&self, key: Key, interest: Interest, id: CallbackId) {
        let armed = {
            let descriptors = self.descriptors.borrow();
            if !descriptors.watched.is_current(key) {
                return;
            }
            descriptors.watched.armed(key)
        };
        // The hub is foreign code: it may deregister the listener.
        let kept = match self.callbacks.borrow().get(id) {
            Some(Callback::Listener { fd, .. }) => fd.clone(),
            _ => return,
        };
        let target = Target::Call(id.number());
        // SAFETY: `kept` holds the descriptor during the call. After it the registration does, or nothing stays armed.
        let watched = unsafe { self.watch(key, armed | interest, interest, target) };
        if self.callbacks.borrow().get(id).is_none() {
            // SAFETY: `kept` holds the descriptor during the call.
            unsafe { self.release(key, interest, target) };
            if let Err(TrampolineError::Loop(error)) = watched {
                // The error is the hub's, not the listener's.
                self.stop_with(error);
            }
            return drop_contained(kept);
        }
        drop_contained(kept);
        match watched {
            Ok(()) => {}
            Err(TrampolineError::Closed { .. }) => {}
            Err(error) => {
                // SAFETY: the registration owns the descriptor.
                unsafe { self.descriptors.borrow_mut().arm(key, interest, target) };
                match error {
                    // The hub is lost. The next hub watches whatever is armed.
                    TrampolineError::Loop(error) => self.stop_with(error),
                    // The close notifies the armed waiters.
                    _ => self.closed(key.fd(), None),
                }
            }
        }
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
        let kept = targets.map(|target| (self.descriptor_of(target), self.guard_of(target)));
        // SAFETY: the key is armed. `kept` holds the descriptor of a listener and that of a waker. A parked greenlet keeps
        // its descriptor open during this call, since no greenlet is left inside a hub.
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
            // SAFETY: the number is a source's, which makes this loop give it up before it is closed. A key that was given
            // up meanwhile lends nothing.
            unsafe { self.descriptors.borrow_mut().lend(key, interest) };
        }
        Ok(())
    }

    /// Returns the descriptor of a listener, `None` for other targets.
    fn descriptor_of(&self, target: Target) -> Option<Rc<dyn AsFd>> {
        let Target::Call(number) = target else { return None };
        let callbacks = self.callbacks.borrow();
        match callbacks.get(callbacks.id(number)?) {
            Some(Callback::Listener { fd, .. }) => Some(Rc::clone(fd)),
            _ => None,
        }
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
                self.tell(target, Wake::Ready(Readiness::HANGUP));
            }
        }
    }

    /// Retires the number `fd`, which is closed, about to be closed, or given to another file. Wakes its waiters with
    /// an error, and makes the hub forget it. `open` is the descriptor, from a caller that keeps it open.
    pub(crate) fn closed(&self, fd: RawFd, open: Option<BorrowedFd<'_>>) {
        let Some((key, waited)) = self.give_up(fd, Descriptors::retire) else { return };
        if !self.slot.is_empty() {
            // A hub that fails here has nothing left to forget.
            let _ = self.with_hub("forgetting a descriptor", |hub| hub.forget(key, open));
        }
        self.notify_closed(fd, waited);
    }

    /// Gives up the number `fd` for the program. Its present owner is unknown, so the hub is lent no descriptor. A live
    /// socket and the loop's own wake-up descriptor keep their numbers in any case, and stay registered.
    pub(crate) fn given_up(&self, fd: RawFd) {
        if self.is_wakeup(fd) {
            return;
        }
        match self.give_up(fd, Descriptors::evict) {
            Some(waited) => self.notify_closed(fd, waited),
            None => self.closed(fd, None),
        }
    }

    /// Changes the table for a number that is given up.
    ///
    /// # Panics
    ///
    /// Panics inside the hub's `wait`, which may be using the number: the caller must not close it there.
    fn give_up<R>(&self, fd: RawFd, change: fn(&mut Descriptors, RawFd) -> R) -> R {
        match self.with_table(|table| change(table, fd)) {
            Some(changed) => changed,
            None => panic!("descriptor {fd} cannot be given up inside a hub's `wait`: give it up after the wait"),
        }
    }

    fn is_wakeup(&self, fd: RawFd) -> bool {
        let callbacks = self.callbacks.borrow();
        let wakeup = self.wakeup.get().and_then(|id| callbacks.get(id));
        matches!(wakeup, Some(Callback::Listener { key, .. }) if key.fd() == fd)
    }

    /// Notifies the waiters of `fd` that it was closed.
    fn notify_closed(&self, fd: RawFd, waited: Vec<Target>) {
        for target in waited {
            if let Target::Call(number) = target {
                self.queue_closed(number, fd);
            } else {
                if let Target::Parked { greenlet, .. } = target
                    && let Some(mark) = self.take_mark(greenlet)
                    && let Err(error) = contained(mark)
                {
                    report::callback_failed("a closed descriptor", error);
                }
                self.tell(target, Wake::Closed);
            }
        }
    }

    /// Wakes the greenlets that wait for a socket in `directions`. Does not switch.
    ///
    /// Returns false, and wakes nothing, inside a call of the hub: a waiter may be about to park.
    pub(crate) fn wake_waiters(&self, fd: RawFd, socket: u64, directions: Interest) -> bool {
        if self.heartbeat.is_in_hub() {
            return false;
        }
        let Some(taken) = self.with_table(|table| table.take_parked(fd, socket, directions)) else { return false };
        for (target, direction) in taken {
            self.tell(target, Wake::Ready(direction.into()));
        }
        true
    }

    /// Sets the callback for a close of the descriptor that the running greenlet waits for, until
    /// [`take_mark`](MainLoop::take_mark).
    pub(crate) fn put_mark(&self, mark: Box<dyn FnOnce()>) {
        self.marks.borrow_mut().push((run::current().number(), mark));
    }

    /// Removes the close callback of a greenlet.
    pub(crate) fn take_mark(&self, greenlet: u32) -> Option<Box<dyn FnOnce()>> {
        let mut marks = self.marks.borrow_mut();
        let index = marks.iter().position(|(number, _)| *number == greenlet)?;
        Some(marks.swap_remove(index).1)
    }

    /// Calls `access` with the table of descriptors. Returns `None` inside the hub's `wait`, which reads the table.
    #[inline]
    pub(crate) fn with_table<R>(&self, access: impl FnOnce(&mut Descriptors) -> R) -> Option<R> {
        self.descriptors.try_borrow_mut().ok().map(|mut table| access(&mut table))
    }

    /// Records an operation on a socket that has succeeded, or would block (`None`).
    #[inline]
    pub(crate) fn operated(&self, fd: RawFd, socket: u64, direction: Interest, left: Option<ReadHint>) {
        let keep = match left {
            None | Some(ReadHint::Nothing) => false,
            // A level-triggered hub reports the rest again, so a probe would waste a system call. A hub that reports
            // each arrival once does not.
            Some(ReadHint::Perhaps) => self.slot.rearm() == Rearm::Automatic,
            Some(ReadHint::Likely) => true,
        };
        if !keep {
            self.with_table(|table| table.used_up(fd, socket, direction, left.is_none()));
        }
    }
}

/// The listener of a registration that was dropped inside the hub's `wait`.
struct Silent;

impl Listener for Silent {
    fn ready(&self, _: RawFd, _: Readiness) {}
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
    /// An entry that stays in the table would name a descriptor that its owner may close. `Wake::Ready` is delivered for a
    /// ticket only after its target was taken out of the table: by a report, by `take_parked`, or by `next_queued`.
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
