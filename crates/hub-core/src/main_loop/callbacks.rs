//! Callbacks of the main loop: listeners and timers, one number each.

use std::os::fd::RawFd;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use super::MainLoop;
use super::callback_table::{Callback, CallbackId};
use super::listener::{Listener, Timer};
use super::origin::Origin;
use super::waker_table;
use crate::greenlet::exit::{contained, drop_contained};
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::hub::{Interest, Key, Readiness, Time};
use crate::report;
use crate::timer_queue::TimerId;

/// Calls foreign code that was made at `made_at`, on the main loop. Reports a panic as that of a callback for
/// `operation`.
///
/// Returns false if `f` has panicked.
pub fn call_contained(
    operation: impl FnOnce() -> String,
    made_at: &'static Location<'static>,
    f: impl FnOnce(),
) -> bool {
    let Err(error) = local::get().main_loop.calls.call(made_at, f) else { return true };
    let operation = contained(operation).unwrap_or_else(|_| "a watcher".into());
    report::callback_failed(operation, Some(made_at), error);
    false
}

impl MainLoop {
    /// Returns the number of registered listeners and timers of the program.
    pub(crate) fn registered(&self) -> usize {
        self.callbacks.borrow().len() - usize::from(self.wakeup.get().is_some())
    }

    /// Calls a listener, and rearms its descriptor if it is still registered.
    pub(super) fn call_listener(&self, number: u32, key: Key, direction: Interest, readiness: Readiness) {
        let (id, listener, at) = {
            let callbacks = self.callbacks.borrow();
            let Some(id) = callbacks.id(number) else { return };
            match callbacks.get(id) {
                // A listener that was deregistered in this batch, or whose number was reused, is not called.
                Some(Callback::Listener { key: known, interest, listener, origin, .. })
                    if *known == key && *interest == direction =>
                {
                    (id, listener.clone(), origin.at())
                }
                _ => return,
            }
        };
        let called = self.calls.call(at, || listener.ready(key.fd(), readiness));
        drop_contained(listener);
        if let Err(error) = called {
            report::callback_failed("a ready descriptor, which is dropped,", Some(at), error);
            self.unlisten(id);
        } else if self.callbacks.borrow().get(id).is_some() {
            self.rearm_listener(key, direction, id);
        }
    }

    /// Schedules a callback. Without a delay it keeps its place among the ready greenlets.
    #[track_caller]
    pub(crate) fn schedule(&self, delay: Duration, timer: Rc<dyn Timer>) -> CallbackId {
        let id = self.callbacks.borrow_mut().insert(Callback::Timer {
            timer,
            origin: Origin::of_timer(),
            is_counted: true,
            armed: None,
        });
        if delay.is_zero() {
            self.calls.queue(self.heartbeat.turn(), id);
        } else {
            let timer = self.timers.borrow_mut().arm(delay, Target::Call(id.number()));
            self.set_armed(id, timer);
        }
        id
    }

    /// Schedules a callback for an instant by the hub's clock.
    #[track_caller]
    pub(crate) fn schedule_at(&self, deadline: Time, timer: Rc<dyn Timer>) -> CallbackId {
        if deadline <= self.cached_now() {
            return self.schedule(Duration::ZERO, timer);
        }
        let callback = Callback::Timer { timer, origin: Origin::of_timer(), is_counted: true, armed: None };
        let id = self.callbacks.borrow_mut().insert(callback);
        let timer = self.timers.borrow_mut().arm_at(deadline, Target::Call(id.number()));
        self.set_armed(id, timer);
        id
    }

    /// Sets the armed timer of a callback.
    fn set_armed(&self, id: CallbackId, timer: TimerId) {
        self.callbacks.borrow_mut().set_armed(id, Some(timer));
        run::rouse();
    }

    /// Cancels a scheduled callback. Returns false if it has run or was cancelled.
    pub(crate) fn unschedule(&self, id: CallbackId) -> bool {
        let callback = self.callbacks.borrow_mut().remove(id);
        if let Some(Callback::Timer { armed: Some(timer), .. }) = &callback {
            self.timers.borrow_mut().cancel(*timer);
        }
        let scheduled = callback.is_some();
        drop_contained(callback);
        scheduled
    }

    /// Cancels a scheduled callback because the loop ends, and notifies its timer.
    pub(super) fn abort_callback(&self, id: CallbackId) {
        let callback = self.callbacks.borrow().get(id).and_then(|callback| match callback {
            Callback::Timer { timer, origin, .. } => Some((Rc::clone(timer), origin.at())),
            _ => None,
        });
        self.unschedule(id);
        let Some((timer, at)) = callback else { return };
        if let Err(error) = self.calls.call(at, || timer.aborted()) {
            report::callback_failed("an aborted timer", Some(at), error);
        }
        drop_contained(timer);
    }

    /// Queues a callback whose timer has fired. It keeps its place among the woken greenlets.
    pub(super) fn queue_expired(&self, number: u32) {
        let id = {
            let mut callbacks = self.callbacks.borrow_mut();
            let Some(id) = callbacks.id(number) else { return };
            callbacks.set_armed(id, None);
            id
        };
        self.queue_due(id);
    }

    /// Runs a due callback, unless it was cancelled.
    pub(super) fn expire(&self, id: CallbackId) {
        let callback = self.callbacks.borrow_mut().remove(id);
        match callback {
            Some(Callback::Timer { timer, origin, .. }) => {
                let expired = self.calls.call(origin.at(), || timer.expired());
                if let Err(error) = expired {
                    report::callback_failed("a timer", Some(origin.at()), error);
                }
                drop_contained(timer);
            }
            Some(Callback::Closed { listener, fd }) => self.notify_listener(listener, fd),
            Some(Callback::Wake(waker)) => waker_table::wake(waker),
            Some(Callback::Listener { .. } | Callback::Leftover { .. }) | None => {}
        }
    }

    /// Queues the notification of a listener that its descriptor was closed: the close may happen in any greenlet.
    pub(super) fn queue_closed(&self, number: u32, fd: RawFd) {
        let id = {
            let mut callbacks = self.callbacks.borrow_mut();
            let Some(listener) = callbacks.id(number) else { return };
            callbacks.insert(Callback::Closed { listener, fd })
        };
        self.queue_due(id);
    }

    /// Notifies a listener that its descriptor was closed, unless it was deregistered meanwhile.
    fn notify_listener(&self, id: CallbackId, fd: RawFd) {
        let (listener, at) = match self.callbacks.borrow().get(id) {
            Some(Callback::Listener { listener, origin, .. }) => (listener.clone(), origin.at()),
            _ => return,
        };
        let closed = self.calls.call(at, || listener.closed(fd));
        if let Err(error) = closed {
            report::callback_failed("a closed descriptor", Some(at), error);
        }
        drop_contained(listener);
    }

    /// Queues a callback as if from the turn before: descriptors were polled since.
    ///
    /// It may wake the waker of the loop, which is foreign code: the caller holds no borrow.
    pub(super) fn queue_due(&self, id: CallbackId) {
        self.calls.queue(self.heartbeat.turn().wrapping_sub(1), id);
    }
}
