//! The listeners of the program: callbacks that own a descriptor, and stay registered.
//!
//! Ground rules: those of [`watching`](super::watching), and
//! - A registration owns its descriptor, and leaves the table before it releases the descriptor. The registration of
//!   the wake-up descriptor also gives the number up, because the hub keeps that number without a waiter.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use super::MainLoop;
use super::callback_table::{Callback, CallbackId};
use super::descriptors::{Owner, Prepared};
use super::listener::Listener;
use super::origin::Origin;
use super::remote::Message;
use super::wakeup::Wakeup;
use crate::error::{LoopError, TrampolineError};
use crate::greenlet::ask_owner::ask_owner;
use crate::greenlet::exit::drop_contained;
use crate::greenlet::local;
use crate::greenlet::target::Target;
use crate::hub::{Interest, Key, Readiness};

impl MainLoop {
    /// Registers a listener of the program, which owns its descriptor.
    #[track_caller]
    pub(crate) fn listen(
        &self,
        fd: Rc<dyn AsFd>,
        interest: Interest,
        listener: Rc<dyn Listener>,
    ) -> Result<CallbackId, TrampolineError> {
        // SAFETY: no owner is named.
        unsafe { self.listen_as(Owner::RAW, fd, interest, listener) }
    }

    /// Registers a listener that owns its descriptor.
    ///
    /// # Safety
    ///
    /// `owner` is [`RAW`](Owner::RAW), or it is [`WAKEUP`](Owner::WAKEUP) and `fd` names the same number forever.
    #[track_caller]
    unsafe fn listen_as(
        &self,
        owner: Owner,
        fd: Rc<dyn AsFd>,
        interest: Interest,
        listener: Rc<dyn Listener>,
    ) -> Result<CallbackId, TrampolineError> {
        let number = ask_owner(&*fd)?.as_raw_fd();
        if interest != Interest::READ && interest != Interest::WRITE {
            return Err(TrampolineError::Interest { interest, fd: number });
        }
        if self.heartbeat.is_in_hub() {
            return Err(LoopError::in_mainloop("registering a listener inside a hub").into());
        }
        let callback = Callback::Listener {
            key: Key::new(number, 0),
            interest,
            listener,
            origin: Origin::of_listener(),
            is_counted: true,
            owner,
            fd,
        };
        let callback = self.callbacks.borrow_mut().insert(callback);
        // SAFETY: the registration owns the descriptor. That of the wake-up descriptor gives the number up before it
        // releases the descriptor.
        if let Err(error) = unsafe { self.start_listening(callback, number, owner, interest) } {
            let callback = self.callbacks.borrow_mut().remove(callback);
            drop_contained(callback);
            return Err(error);
        }
        Ok(callback)
    }

    /// Registers the loop's wake-up descriptor, which is drained when it is ready.
    pub(super) fn listen_to_wakeup(&self, wakeup: Arc<Wakeup>) -> Result<CallbackId, TrampolineError> {
        let held = Rc::new(HeldWakeup(Arc::clone(&wakeup)));
        // SAFETY: `held` has one descriptor for its life.
        unsafe { self.listen_as(Owner::WAKEUP, held, Interest::READ, Rc::new(DrainWakeup(wakeup))) }
    }

    /// Arms the direction of a registered listener.
    ///
    /// # Safety
    ///
    /// The registration owns the descriptor. If `owner` is the wake-up descriptor, the registration gives the number up
    /// before it releases the descriptor.
    pub(super) unsafe fn start_listening(
        &self,
        callback: CallbackId,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
    ) -> Result<(), TrampolineError> {
        self.ensure_hub()?;
        if self.descriptors.borrow().is_stale_for(fd, owner) {
            self.closed(fd, None);
        }
        // SAFETY: the caller upholds the same contract.
        let prepared = unsafe { self.descriptors.borrow_mut().prepare(fd, owner, direction, self.slot.rearm()) };
        let (key, interest) = match prepared {
            Prepared::Taken => return Err(TrampolineError::SecondSimultaneous { direction, fd }),
            Prepared::Watch(key, interest) => (key, interest),
            Prepared::Watched(key) => (key, direction),
        };
        self.callbacks.borrow_mut().set_key(callback, key);
        // SAFETY: the registration owns the descriptor, and leaves the table before it releases the descriptor.
        let watched = unsafe { self.watch(key, interest, direction, Target::Call(callback.number())) };
        if watched.is_err() && owner != Owner::RAW {
            let mut descriptors = self.descriptors.borrow_mut();
            if descriptors.watched.is_current(key) {
                // The hub does not watch it, and the number is another file's soon.
                descriptors.retire(fd);
            }
        }
        watched
    }

    /// Deregisters a listener, and releases its descriptor.
    pub(crate) fn unlisten(&self, id: CallbackId) {
        if self.with_table(|_| ()).is_none() {
            return self.unlisten_after_wait(id);
        }
        let (key, interest, owner) = match self.callbacks.borrow().get(id) {
            Some(&Callback::Listener { key, interest, owner, .. }) => (key, interest, owner),
            _ => return,
        };
        let callback = self.callbacks.borrow_mut().remove(id);
        // SAFETY: `callback` owns the descriptor, and is dropped after the call.
        unsafe { self.release(key, interest, owner, Target::Call(id.number())) };
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

    /// Removes the waiter of a listener. Makes the hub forget the number if it has no other waiter, or if it is that of
    /// the wake-up descriptor.
    ///
    /// # Safety
    ///
    /// The descriptor of the listener stays open until this returns.
    unsafe fn release(&self, key: Key, interest: Interest, owner: Owner, target: Target) {
        if owner != Owner::RAW {
            if self.descriptors.borrow().watched.is_current(key) {
                // SAFETY: the number is open, by the contract.
                self.closed(key.fd(), Some(unsafe { BorrowedFd::borrow_raw(key.fd()) }));
            }
            return;
        }
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
        let target = Target::Call(id.number());
        let (armed, owner, kept) = {
            let mut descriptors = self.descriptors.borrow_mut();
            if !descriptors.watched.is_current(key) {
                drop(descriptors);
                if self.wakeup.get() == Some(id) {
                    self.lose_wakeup(io::Error::from_raw_os_error(libc::EBADF));
                }
                return;
            }
            let callbacks = self.callbacks.borrow();
            let Some(Callback::Listener { owner, fd, .. }) = callbacks.get(id) else { return };
            // SAFETY: the registration owns the descriptor. That of the wake-up descriptor gives the number up before
            // it releases the descriptor.
            if unsafe { descriptors.arm_again(key.fd(), *owner, interest, target) }.is_some() {
                return;
            }
            // The hub is foreign code: it may deregister the listener.
            (descriptors.watched.armed(key), *owner, fd.clone())
        };
        // SAFETY: `kept` holds the descriptor during the call. After it the registration does, or nothing stays armed.
        let watched = unsafe { self.watch(key, armed | interest, interest, target) };
        if self.callbacks.borrow().get(id).is_none() {
            // SAFETY: `kept` holds the descriptor during the call.
            unsafe { self.release(key, interest, owner, target) };
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
            Err(error) if owner != Owner::RAW => match error {
                TrampolineError::Loop(error) => self.stop_with(error),
                error => self.lose_wakeup(error.into()),
            },
            Err(error) => {
                // The hub may have had the number given up meanwhile, which is another descriptor's then.
                let is_current = self.descriptors.borrow().watched.is_current(key);
                if is_current {
                    // SAFETY: the registration owns the descriptor.
                    unsafe { self.descriptors.borrow_mut().arm(key, interest, target) };
                }
                match error {
                    // The hub is lost. The next hub watches whatever is armed.
                    TrampolineError::Loop(error) => self.stop_with(error),
                    // The close notifies the armed waiters.
                    _ if is_current => self.closed(key.fd(), None),
                    _ => {}
                }
            }
        }
    }
}

impl MainLoop {
    /// Drops a hub that does not watch the wake-up descriptor any more, and ends the loop with the error. Other OS
    /// threads could not wake it.
    #[cold]
    fn lose_wakeup(&self, error: io::Error) {
        let hub = self.slot.name();
        self.drop_failed_hub();
        self.stop_with(LoopError::wait_failed(hub, error));
    }
}

/// The listener of a registration that was dropped inside the hub's `wait`.
struct Silent;

impl Listener for Silent {
    fn ready(&self, _: RawFd, _: Readiness) {}
}

struct DrainWakeup(Arc<Wakeup>);

impl Listener for DrainWakeup {
    fn ready(&self, _fd: RawFd, _readiness: Readiness) {
        self.0.drain();
    }
}

/// Keeps the wake-up descriptor open.
struct HeldWakeup(Arc<Wakeup>);

impl AsFd for HeldWakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
