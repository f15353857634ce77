//! Waiting for descriptors.
//!
//! Ground rules:
//! - A descriptor is armed only under a promise that it stays open: a trampoline borrows it, a callback's
//!   registration owns it, a socket is forgotten before it is closed. Whoever waits leaves the table
//!   however the park ends, by [`Waiting`]'s destructor.
//! - No cell is borrowed while the hub or a callback is called, and when a greenlet is left.

use std::cell::Cell;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::callback_table::{Callback, CallbackId};
use super::deadline::Deadline;
use super::descriptors::{Owner, Place, ReadHint};
use super::{MainLoop, PREVENT_MULTIPLE_READERS};
use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, TrampolineError};
use crate::greenlet::control::Wake;
use crate::greenlet::driver::Driver;
use crate::greenlet::run::{self, Waiter};
use crate::greenlet::target::Target;
use crate::greenlet::unwind::{contained, drop_contained};
use crate::hub::Key;
use crate::hub::{Interest, Readiness};
use crate::hub::{Lease, Rearm};
use crate::timer_queue::TimerId;

impl MainLoop {
    /// Parks the running greenlet until `direction` of `fd` is ready. Switches.
    ///
    /// # Safety
    ///
    /// `fd` stays open until this returns or unwinds, or its number is given up by [`closed`]. For an
    /// owned descriptor it stays open until then even after this.
    ///
    /// [`closed`]: MainLoop::closed
    pub(crate) unsafe fn wait_for(
        &self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        limit: &mut Deadline,
    ) -> Result<Wake, TrampolineError> {
        let waiter = Waiter::current(WaitReason::Descriptor)?;
        if self.pulse.is_in_hub() {
            return Err(LoopError::InMainloop { doing: WaitReason::Descriptor.as_str() }.into());
        }
        self.ensure_hub()?;
        let target = Target::park(waiter);
        // SAFETY: by the contract of this function.
        let place = unsafe { self.take_place(fd, owner, direction, target) }?;
        if !limit.is_none() {
            place.timer.set(limit.arm(&mut self.timers.borrow_mut(), target));
        }
        let wake = waiter.park()?;
        match place.timer.get() {
            Some(timer) => limit.fix(&self.timers.borrow(), timer),
            // The report has taken it out of the table.
            None if matches!(wake, Wake::Ready(_)) => place.was_taken_out(),
            None => {}
        }
        match wake {
            // Nothing ends such a wait without a reason: what was called on the way wanted to wait itself.
            Wake::Event => Err(LoopError::InMainloop { doing: WaitReason::Descriptor.as_str() }.into()),
            Wake::Deadline => Err(TrampolineError::TimedOut(fd)),
            Wake::Closed => Err(TrampolineError::Closed(fd)),
            Wake::Ready(what) if what.contains(Readiness::INVALID) => Err(TrampolineError::InvalidFd(fd)),
            wake => Ok(wake),
        }
    }

    /// Parks the running greenlet for `pause` without asking the hub. It stands in line for `direction`, so it is woken
    /// when the number is given up. Switches.
    ///
    /// # Safety
    ///
    /// As for [`wait_for`](MainLoop::wait_for).
    pub(crate) unsafe fn pause(
        &self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        pause: Duration,
    ) -> Result<(), TrampolineError> {
        let waiter = Waiter::current(WaitReason::Descriptor)?;
        if self.pulse.is_in_hub() {
            return Err(LoopError::InMainloop { doing: WaitReason::Descriptor.as_str() }.into());
        }
        self.ensure_hub()?;
        if self.descriptors.borrow().is_stale_for(fd, owner) {
            self.closed(fd, None);
        }
        let target = Target::park(waiter);
        let key = {
            let mut descriptors = self.descriptors.borrow_mut();
            descriptors.prepare(fd, owner, direction, self.rearm.get());
            descriptors.queue_paused(fd, direction, target);
            descriptors.watched.key(fd).expect("a prepared place has a key")
        };
        let timer = Cell::new(Some(self.arm(pause, target)));
        let place = Waiting { main_loop: self, key, direction, target, timer };
        let wake = waiter.park()?;
        drop(place);
        match wake {
            Wake::Event => Err(LoopError::InMainloop { doing: WaitReason::Descriptor.as_str() }.into()),
            Wake::Closed => Err(TrampolineError::Closed(fd)),
            Wake::Ready(what) if what.contains(Readiness::INVALID) => Err(TrampolineError::InvalidFd(fd)),
            _ => Ok(()),
        }
    }

    /// Parks the running greenlet until one of several is ready, no matter which. There is one at least, and none
    /// twice. Switches.
    ///
    /// # Safety
    ///
    /// As for [`wait_for`](MainLoop::wait_for), for each of them.
    pub(crate) unsafe fn wait_for_any(
        &self,
        many: impl Iterator<Item = (RawFd, Interest)>,
        limit: &mut Deadline,
    ) -> Result<(), TrampolineError> {
        let waiter = Waiter::current(WaitReason::Descriptor)?;
        if self.in_hub() {
            return Err(LoopError::InMainloop { doing: WaitReason::Descriptor.as_str() }.into());
        }
        self.ensure_hub()?;
        let target = Target::park(waiter);
        // SAFETY: by the contract of this function.
        let places = many.map(|(fd, direction)| unsafe { self.take_place(fd, Owner::Raw, direction, target) });
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let Some(first) = places.first() else { return Ok(()) };
        // One of them keeps the timer, too.
        first.timer.set(limit.arm(&mut self.timers.borrow_mut(), target));
        let wake = waiter.park()?;
        if let Some(timer) = first.timer.get() {
            limit.fix(&self.timers.borrow(), timer);
        }
        match wake {
            Wake::Deadline => Err(TrampolineError::TimedOut(first.key.fd())),
            Wake::Closed => {
                let descriptors = self.descriptors.borrow();
                let closed = places.iter().find(|place| !descriptors.watched.is_current(place.key));
                Err(TrampolineError::Closed(closed.unwrap_or(first).key.fd()))
            }
            _ => Ok(()),
        }
    }

    /// Has the hub tell `told` of a direction.
    ///
    /// # Safety
    ///
    /// `fd` stays open until the place is dropped, else as for [`wait_for`](MainLoop::wait_for).
    #[inline]
    unsafe fn take_place(
        &self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        target: Target,
    ) -> Result<Waiting<'_>, TrampolineError> {
        // SAFETY: by the contract of this function.
        let again = unsafe { self.descriptors.borrow_mut().arm_again(fd, owner, direction, target) };
        let key = match again {
            Some(key) => key,
            // SAFETY: by the contract of this function.
            None => unsafe { self.arm_first(fd, owner, direction, target) }?,
        };
        Ok(Waiting { main_loop: self, key, direction, target, timer: Cell::new(None) })
    }

    /// Has the hub watch a direction and tell `told` of it, or queues it behind who is told before.
    ///
    /// # Safety
    ///
    /// As for [`take_place`](MainLoop::take_place).
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
        let place = self.descriptors.borrow_mut().prepare(fd, owner, direction, self.rearm.get());
        match place {
            Place::Taken if PREVENT_MULTIPLE_READERS.load(Ordering::Relaxed) => {
                Err(TrampolineError::SecondSimultaneous(direction, fd))
            }
            Place::Taken => {
                let mut descriptors = self.descriptors.borrow_mut();
                descriptors.queue(fd, direction, target);
                Ok(descriptors.watched.key(fd).expect("a taken place has a key"))
            }
            Place::Watched(key) => {
                // SAFETY: by the contract of this function.
                unsafe { self.descriptors.borrow_mut().arm(key, direction, target) };
                Ok(key)
            }
            Place::Watch(key, interest) => {
                // SAFETY: by the contract of this function.
                unsafe { self.watch(key, interest, direction, target) }?;
                Ok(key)
            }
        }
    }

    /// Has the hub watch, then arms. On error nothing is armed.
    ///
    /// # Safety
    ///
    /// As for [`wait_for`](MainLoop::wait_for).
    pub(super) unsafe fn watch(
        &self,
        key: Key,
        interest: Interest,
        direction: Interest,
        target: Target,
    ) -> Result<(), TrampolineError> {
        self.watches.set(self.watches.get() + 1);
        let lease = self.descriptors.borrow().lease(key);
        // SAFETY: open, by the contract.
        let fd = unsafe { BorrowedFd::borrow_raw(key.fd()) };
        match self.with_hub("watching a descriptor", |hub| hub.watch(key, fd, interest, lease))? {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
                return Err(TrampolineError::InvalidFd(key.fd()));
            }
            Err(error) => return Err(TrampolineError::Register(key.fd(), Arc::new(error))),
        }
        let mut descriptors = self.descriptors.borrow_mut();
        // The hub is foreign code: it may have had the number given up.
        if !descriptors.watched.is_current(key) {
            return Err(TrampolineError::Closed(key.fd()));
        }
        // SAFETY: by the contract.
        unsafe {
            descriptors.arm(key, direction, target);
            if lease == Lease::Life {
                let lasting = if self.rearm.get() == Rearm::Explicit { Interest::NONE } else { interest };
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
        let place = self.descriptors.borrow_mut().prepare(fd, Owner::Raw, direction, self.rearm.get());
        let (key, interest) = match place {
            Place::Taken => return Err(TrampolineError::SecondSimultaneous(direction, fd)),
            Place::Watch(key, interest) => (key, interest),
            Place::Watched(key) => (key, direction),
        };
        self.set_listener_key(callback, key);
        // SAFETY: the registration owns the descriptor, and leaves the table before it lets go of it.
        unsafe { self.watch(key, interest, direction, Target::Call(callback.number())) }
    }

    /// Takes a listener back. Its descriptor is let go of.
    pub(crate) fn unlisten(&self, id: CallbackId) {
        let (key, interest) = match self.callbacks.borrow().get(id) {
            Some(&Callback::Listener { key, interest, .. }) => (key, interest),
            _ => return,
        };
        let callback = self.callbacks.borrow_mut().remove(id);
        self.release(key, interest, Target::Call(id.number()));
        drop_contained(callback);
    }

    /// A listener waits no more; its descriptor is open still.
    fn release(&self, key: Key, interest: Interest, target: Target) {
        if self.descriptors.borrow_mut().leave(key, interest, target) {
            self.promote_next_waiter(key, interest);
        }
        if self.descriptors.borrow().may_be_forgotten(key) && !self.name.get().is_empty() {
            // SAFETY: open, for the caller keeps it so.
            let fd = unsafe { BorrowedFd::borrow_raw(key.fd()) };
            // A hub that fails here has nothing left to forget.
            let _ = self.with_hub("forgetting a descriptor", |hub| hub.forget(key, Some(fd)));
        }
    }

    /// Has the hub look again for a listener that stays: what is left is reported again.
    pub(super) fn rearm_listener(&self, key: Key, interest: Interest, id: CallbackId) {
        let armed = {
            let descriptors = self.descriptors.borrow();
            if !descriptors.watched.is_current(key) {
                return;
            }
            descriptors.watched.armed(key)
        };
        // The hub is foreign code: the registration may be taken back meanwhile.
        let kept = match self.callbacks.borrow().get(id) {
            Some(Callback::Listener { fd, .. }) => fd.clone(),
            _ => return,
        };
        let target = Target::Call(id.number());
        // SAFETY: `kept` holds the descriptor, and then the registration, or nothing stays armed.
        let watched = unsafe { self.watch(key, armed | interest, interest, target) };
        if self.callbacks.borrow().get(id).is_none() {
            self.release(key, interest, target);
            if let Err(TrampolineError::Loop(error)) = watched {
                // Of the hub, whoever it was to watch for.
                self.stop_with(error);
            }
            return drop_contained(kept);
        }
        drop_contained(kept);
        match watched {
            Ok(()) => {}
            Err(TrampolineError::Closed(_)) => {}
            Err(error) => {
                // SAFETY: the registration owns the descriptor.
                unsafe { self.descriptors.borrow_mut().arm(key, interest, target) };
                match error {
                    // The hub is lost; the next one is told of whoever is armed.
                    TrampolineError::Loop(error) => self.stop_with(error),
                    // Whoever is armed is told.
                    _ => self.closed(key.fd(), None),
                }
            }
        }
    }

    /// Has a hub that knows nothing watch what is armed. An error is that of the hub, which is lost.
    pub(super) fn watch_again(&self, key: Key, interest: Interest) -> Result<(), LoopError> {
        let lease = {
            let descriptors = self.descriptors.borrow();
            if descriptors.watched.armed(key).is_empty() {
                return Ok(());
            }
            descriptors.lease(key)
        };
        // SAFETY: armed, so whoever waits keeps it open.
        let fd = unsafe { BorrowedFd::borrow_raw(key.fd()) };
        if self.with_hub("watching a descriptor", |hub| hub.watch(key, fd, interest, lease))?.is_err() {
            self.closed(key.fd(), None);
        } else if lease == Lease::Life && self.rearm.get() != Rearm::Explicit {
            // SAFETY: lent for life before, under the same promise.
            unsafe { self.descriptors.borrow_mut().lend(key, interest) };
        }
        Ok(())
    }

    /// The waiter that was told has gone: the next one moves up.
    #[inline]
    pub(super) fn promote_next_waiter(&self, key: Key, direction: Interest) {
        loop {
            let target = self.descriptors.borrow_mut().next_queued(key, direction);
            let Some(target) = target else { return };
            self.rearm_waiter(key, direction, target);
        }
    }

    /// Where the hub does not watch, the next one is asked for after this one.
    fn rearm_waiter(&self, key: Key, direction: Interest, target: Target) {
        let interest = self.descriptors.borrow().watched.armed(key) | direction;
        // SAFETY: a queued waiter keeps the descriptor open like the one before it.
        match unsafe { self.watch(key, interest, direction, target) } {
            Ok(()) => {}
            Err(error) => {
                if let TrampolineError::Loop(error) = error {
                    self.stop_with(error);
                }
                // It finds out what is wrong by trying.
                self.tell(target, Wake::Ready(Readiness::HANGUP));
            }
        }
    }

    /// The number `fd` is closed, or about to be, or given to another file: its waiters are woken with
    /// an error, and the hub lets go of it. `open`: the descriptor, from a caller that keeps it open.
    pub(crate) fn closed(&self, fd: RawFd, open: Option<BorrowedFd<'_>>) {
        let Some((key, waited)) = self.descriptors.borrow_mut().retire(fd) else { return };
        if !self.name.get().is_empty() {
            // A hub that fails here has nothing left to forget.
            let _ = self.with_hub("forgetting a descriptor", |hub| hub.forget(key, open));
        }
        self.tell_closed(fd, waited);
    }

    /// The program says that the number `fd` is given up. Nothing shows whose it is now, so the hub is lent no
    /// descriptor. A live socket of ours and the loop's own wake-up descriptor keep their numbers, whatever is said, and
    /// stay registered.
    pub(crate) fn given_up(&self, fd: RawFd) {
        if self.is_wakeup(fd) {
            return;
        }
        let evicted = self.descriptors.borrow_mut().evict(fd);
        match evicted {
            Some(waited) => self.tell_closed(fd, waited),
            None => self.closed(fd, None),
        }
    }

    fn is_wakeup(&self, fd: RawFd) -> bool {
        let callbacks = self.callbacks.borrow();
        let wakeup = self.wakeup.get().and_then(|id| callbacks.get(id));
        matches!(wakeup, Some(Callback::Listener { key, .. }) if key.fd() == fd)
    }

    /// Tells the waiters of `fd` that it was closed.
    fn tell_closed(&self, fd: RawFd, waited: Vec<Target>) {
        for target in waited {
            if let Target::Call(number) = target {
                self.queue_closed(number, fd);
            } else {
                if let Target::Parked { greenlet, .. } = target
                    && let Some(mark) = self.take_mark(greenlet)
                    && let Err(error) = contained(mark)
                {
                    run::report_callback("a closed descriptor", error);
                }
                self.tell(target, Wake::Closed);
            }
        }
    }

    /// Wakes the greenlets that wait for a socket in `directions`. Does not switch.
    pub(crate) fn wake_waiters(&self, fd: RawFd, socket: u64, directions: Interest) {
        let taken = self.descriptors.borrow_mut().take_parked(fd, socket, directions);
        for (target, direction) in taken {
            self.tell(target, Wake::Ready(direction.into()));
        }
    }

    /// Has `mark` called if a descriptor is closed while the running greenlet waits for it; until
    /// [`take_mark`](MainLoop::take_mark).
    pub(crate) fn put_mark(&self, mark: Box<dyn FnOnce()>) {
        self.marks.borrow_mut().push((run::current().number(), mark));
    }

    /// Takes back what was to be called for a greenlet.
    pub(crate) fn take_mark(&self, greenlet: u32) -> Option<Box<dyn FnOnce()>> {
        let mut marks = self.marks.borrow_mut();
        let index = marks.iter().position(|(number, _)| *number == greenlet)?;
        Some(marks.swap_remove(index).1)
    }

    /// What is known of a socket's direction, see [`Descriptors::may_succeed`](super::descriptors::Descriptors::may_succeed).
    #[inline]
    pub(crate) fn may_succeed(&self, fd: RawFd, socket: u64, direction: Interest) -> bool {
        self.descriptors.borrow().may_succeed(fd, socket, direction)
    }

    /// An operation on a socket has succeeded, or would block (`None`).
    #[inline]
    pub(crate) fn operated(&self, fd: RawFd, socket: u64, direction: Interest, left: Option<ReadHint>) {
        let keep = match left {
            None | Some(ReadHint::Nothing) => false,
            // What is left is reported again, so that probing would cost a call for nothing; but hubs that
            // report each arrival once are silent about it.
            Some(ReadHint::Perhaps) => self.rearm.get() == Rearm::Automatic,
            Some(ReadHint::Likely) => true,
        };
        if !keep {
            self.descriptors.borrow_mut().used_up(fd, socket, direction, left.is_none());
        }
    }

    /// See [`Descriptors::has_ended`](super::descriptors::Descriptors::has_ended).
    pub(crate) fn has_ended(&self, fd: RawFd, socket: u64) -> bool {
        self.descriptors.borrow().has_ended(fd, socket)
    }

    /// See [`Descriptors::has_not_ended`](super::descriptors::Descriptors::has_not_ended).
    pub(crate) fn has_not_ended(&self, fd: RawFd, socket: u64) {
        self.descriptors.borrow_mut().has_not_ended(fd, socket);
    }

    /// Counts an operation on an owned descriptor.
    #[inline]
    pub(crate) fn count_operation(&self) {
        self.operations.set(self.operations.get() + 1);
    }

    /// Somebody has found out by other means that a socket is ready.
    pub(crate) fn make_ready(&self, fd: RawFd, socket: u64, direction: Interest) {
        self.descriptors.borrow_mut().make_ready(fd, socket, direction);
    }

    /// See [`Descriptors::adopt`](super::descriptors::Descriptors::adopt).
    pub(crate) fn adopt(&self, fd: RawFd, socket: u64) {
        self.descriptors.borrow_mut().adopt(fd, socket);
    }

    /// Whether a socket is registered here.
    pub(crate) fn knows(&self, fd: RawFd, socket: u64) -> bool {
        self.descriptors.borrow().key_of(fd, socket).is_some()
    }
}

/// Somebody's place in the table; leaves it however the park ends.
struct Waiting<'a> {
    main_loop: &'a MainLoop,
    key: Key,
    direction: Interest,
    target: Target,
    timer: Cell<Option<TimerId>>,
}

impl Waiting<'_> {
    /// There is nothing to leave any more.
    #[inline]
    fn was_taken_out(self) {
        debug_assert!(!self.main_loop.descriptors.borrow_mut().leave(self.key, self.direction, self.target));
        std::mem::forget(self);
    }
}

impl Drop for Waiting<'_> {
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
