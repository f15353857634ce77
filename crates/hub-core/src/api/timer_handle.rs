//! The handles of scheduled callbacks.

use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::base::id::HubId;
use crate::greenlet::local;
use crate::hub::Time;
use crate::main_loop::listener::Timer;
use crate::main_loop::{self, CallbackId, MainLoop};

/// A scheduled callback. Eventlet's `Timer`.
///
/// Returned by [`HubRef::schedule`](crate::HubRef::schedule) and [`schedule_once`](crate::HubRef::schedule_once).
///
/// Dropping it changes nothing: the callback runs all the same.
#[derive(Debug)]
pub struct TimerHandle {
    id: CallbackId,
    hub: HubId,
    here: PhantomData<*const ()>,
}

impl TimerHandle {
    /// Returns the handle of a callback, which is cancelled if the OS thread has ended its green threads.
    pub(super) fn of(main_loop: &MainLoop, id: CallbackId) -> TimerHandle {
        if local::has_ended() {
            main_loop.unschedule(id);
        }
        TimerHandle { id, hub: main_loop.id(), here: PhantomData }
    }

    /// Cancels the callback and drops it at once. Returns false if it has run or was cancelled before.
    pub fn cancel(&self) -> bool {
        main_loop::of_hub(self.hub).is_some_and(|main_loop| main_loop.unschedule(self.id))
    }

    /// Sets whether the callback keeps the loop alive. Does not switch.
    ///
    /// It is on by default. A callback that is not counted is called at its time, but the main greenlet gets
    /// [`LoopExit`](crate::LoopErrorKind::LoopExit), and [`HubRef::join`](crate::HubRef::join) returns, as if it did
    /// not exist. gevent's `ref`.
    #[doc(alias = "ref")]
    pub fn set_counted(&self, counted: bool) {
        if let Some(main_loop) = main_loop::of_hub(self.hub) {
            main_loop.count_callback(self.id, counted);
        }
    }
}

/// Schedules a timer for an instant by the hub's clock.
///
/// Makes no allocation of its own.
#[track_caller]
pub fn schedule_shared(time: Time, timer: Rc<dyn Timer>) -> TimerHandle {
    let main_loop = &local::get().main_loop;
    let id = main_loop.schedule_at(time, timer);
    TimerHandle::of(main_loop, id)
}

/// The timer of a closure that is called once.
pub(super) struct OnceTimer<F>(Cell<Option<F>>);

impl<F> OnceTimer<F> {
    pub(super) fn new(f: F) -> OnceTimer<F> {
        OnceTimer(Cell::new(Some(f)))
    }
}

impl<F: FnOnce()> Timer for OnceTimer<F> {
    fn expired(&self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}
