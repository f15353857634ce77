//! Callbacks of the main loop: listeners and timers, one number each.

use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use super::{Callback, MainLoop, Scheduled};
use crate::descriptors::Told;
use crate::error::TrampolineError;
use crate::greenlet::control::Kind;
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::unwind::{contained, drop_contained};
use crate::interest::{Interest, Readiness};
use crate::listener::{Listener, Timer};
use crate::watched::Key;

impl MainLoop {
    /// Registers a listener that owns its descriptor. Returns its number.
    pub(crate) fn listen(
        &self,
        fd: Rc<dyn AsFd>,
        interest: Interest,
        listener: Rc<dyn Listener>,
    ) -> Result<u32, TrampolineError> {
        let number = fd.as_fd().as_raw_fd();
        if interest != Interest::READ && interest != Interest::WRITE {
            return Err(TrampolineError::Interest(interest, number));
        }
        let callback =
            self.callbacks.borrow_mut().insert(Callback::Listener { key: Key::new(number, 0), interest, listener, fd });
        self.start_listening(callback as u32, number, interest).inspect_err(|_| {
            self.callbacks.borrow_mut().remove(callback);
        })?;
        Ok(callback as u32)
    }

    /// Notes under which key a listener is registered.
    pub(super) fn set_listener_key(&self, callback: u32, key: Key) {
        if let Some(Callback::Listener { key: known, .. }) = self.callbacks.borrow_mut().get_mut(callback as usize) {
            *known = key;
        }
    }

    /// Calls a listener, and looks at its descriptor again if it is still registered.
    pub(super) fn call_listener(&self, number: u32, key: Key, what: Readiness) {
        let (interest, listener) = match self.callbacks.borrow().get(number as usize) {
            // One that was taken back in this batch, or whose number was reused, is not called.
            Some(Callback::Listener { key: known, interest, listener, .. }) if *known == key => {
                (*interest, listener.clone())
            }
            _ => return,
        };
        if let Err(error) = contained(|| listener.ready(key.fd(), what)) {
            run::report_callback("a ready descriptor", error);
        }
        drop_contained(listener);
        let still = matches!(
            self.callbacks.borrow().get(number as usize),
            Some(Callback::Listener { key: known, .. }) if *known == key
        );
        if still {
            self.look_again(key, interest, number);
        }
    }

    /// Takes a listener back. Its descriptor is let go of.
    pub(crate) fn unlisten(&self, callback: u32) {
        let (key, interest) = match self.callbacks.borrow().get(callback as usize) {
            Some(Callback::Listener { key, interest, .. }) => (*key, *interest),
            _ => return,
        };
        let left = self.descriptors.borrow_mut().leave(key, interest, Told::Call(callback));
        if left {
            self.move_up(key, interest);
        }
        let callback = self.callbacks.borrow_mut().remove(callback as usize);
        if let Callback::Listener { fd, .. } = &callback
            && self.descriptors.borrow().may_be_forgotten(key)
            && !self.name.get().is_empty()
        {
            let _ = self.with_hub("forgetting a descriptor", |hub| hub.forget(key, Some(fd.as_fd())));
        }
        drop_contained(callback);
    }

    /// Schedules a callback; without delay it keeps its place among the greenlets that are ready.
    pub(crate) fn schedule(&self, delay: Duration, timer: Rc<dyn Timer>) -> Scheduled {
        let serial = self.scheduled.get();
        self.scheduled.set(serial + 1);
        let number = self.callbacks.borrow_mut().insert(Callback::Timer { serial, timer, armed: None }) as u32;
        if delay.is_zero() {
            self.immediate.borrow_mut().push_back((self.turn.get(), Some(number)));
            let stand_in = local::get().controls.take(Kind::Thread);
            run::queue_callback(stand_in);
        } else {
            let id = self.timers.borrow_mut().arm(delay, Told::Call(number));
            if let Some(Callback::Timer { armed, .. }) = self.callbacks.borrow_mut().get_mut(number as usize) {
                *armed = Some(id);
            }
        }
        Scheduled { number, serial }
    }

    /// Takes a scheduled callback back. False if it has run.
    pub(crate) fn unschedule(&self, scheduled: Scheduled) -> bool {
        // Numbers are used again, so one that has run may have given its number to another.
        let known = match self.callbacks.borrow().get(scheduled.number as usize) {
            Some(Callback::Timer { serial, .. }) => *serial == scheduled.serial,
            _ => false,
        };
        known && self.forget_timer(scheduled.number)
    }

    /// Drops the callback with this number, if there is one.
    pub(super) fn forget_timer(&self, number: u32) -> bool {
        let callback = match self.callbacks.borrow_mut().try_remove(number as usize) {
            Some(callback) => callback,
            None => return false,
        };
        if let Callback::Timer { armed, .. } = &callback {
            match armed {
                Some(id) => drop(self.timers.borrow_mut().cancel(*id)),
                None => {
                    for (_, immediate) in self.immediate.borrow_mut().iter_mut() {
                        if *immediate == Some(number) {
                            *immediate = None;
                        }
                    }
                }
            }
        }
        drop_contained(callback);
        true
    }

    /// Whether the next callback without delay was scheduled in an earlier turn: between the two,
    /// descriptors were looked at.
    pub(crate) fn callback_is_due(&self) -> bool {
        self.immediate.borrow().front().is_none_or(|(turn, _)| *turn != self.turn.get())
    }

    /// Runs the next callback without delay.
    pub(crate) fn run_callback(&self) {
        let next = self.immediate.borrow_mut().pop_front();
        if let Some((_, Some(number))) = next {
            self.expire(number);
        }
    }

    /// The time of a callback has come: it keeps its place among the greenlets that were woken.
    pub(super) fn queue_expired(&self, number: u32) {
        if let Some(Callback::Timer { armed, .. }) = self.callbacks.borrow_mut().get_mut(number as usize) {
            *armed = None;
        }
        // As if from the turn before: descriptors were looked at since.
        self.immediate.borrow_mut().push_back((self.turn.get() - 1, Some(number)));
        run::queue_callback(local::get().controls.take(Kind::Thread));
    }

    fn expire(&self, number: u32) {
        let Some(Callback::Timer { timer, .. }) = self.callbacks.borrow_mut().try_remove(number as usize) else {
            return;
        };
        if let Err(error) = contained(|| timer.expired()) {
            run::report_callback("a timer", error);
        }
        drop_contained(timer);
    }
}
