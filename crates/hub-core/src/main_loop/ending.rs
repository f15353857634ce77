//! The end of a loop: the requests for it, and the error that the main greenlet gets.

use std::cell::{Cell, RefCell};

use super::MainLoop;
use super::callback_table::CallbackId;
use crate::error::{LoopError, LoopErrorKind, LoopExit};
use crate::greenlet::control::Wake;
use crate::greenlet::exit::drop_contained;
use crate::greenlet::local::{self, Local};
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::greenlet::{describe, trace};
use crate::timer_queue::TimerId;

/// The reason for which a loop ends.
#[derive(Clone, Debug)]
enum Stop {
    Abort,
    Error(LoopError),
}

/// The requests to end a loop.
#[derive(Default)]
pub(super) struct Ending {
    stop: RefCell<Option<Stop>>,
    main_error: RefCell<Option<LoopError>>,
    closing: Cell<bool>,
}

impl Ending {
    /// Takes the error for the main greenlet.
    pub(super) fn take_main_error(&self) -> Option<LoopError> {
        self.main_error.take()
    }

    /// Ends the loop for good: its OS thread ends.
    pub(super) fn close(&self) {
        self.closing.set(true);
    }

    /// Returns whether the loop was asked to end and has not ended yet.
    pub(super) fn is_requested(&self) -> bool {
        self.stop.borrow().is_some()
    }

    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }
}

impl MainLoop {
    /// Asks the loop to end. An earlier request stands.
    pub(crate) fn abort(&self) {
        self.ending.stop.borrow_mut().get_or_insert(Stop::Abort);
        run::rouse();
    }

    /// Ends the loop with an error, in place of an [`abort`](MainLoop::abort). An earlier error stands.
    pub(super) fn stop_with(&self, error: LoopError) {
        if matches!(*self.ending.stop.borrow(), Some(Stop::Error(_))) {
            // The first error names the cause; later ones mostly follow from it. Either may be a hub's, so its drop is
            // contained.
            return drop_contained(error);
        }
        self.ending.stop.replace(Some(Stop::Error(error)));
        run::rouse();
    }

    /// Ends the loop with an interruption, in place of an earlier request.
    pub(crate) fn interrupt(&self) {
        drop_contained(self.ending.stop.replace(Some(Stop::Error(LoopErrorKind::Interrupted.into()))));
        run::rouse();
    }

    /// Carries out a request to end. Returns whether the loop ends now.
    pub(super) fn end_is_due(&self) -> bool {
        let Some(stop) = self.ending.stop.take() else { return false };
        let error = match stop {
            Stop::Abort => {
                self.queue_all_wakers();
                self.forget_timers();
                LoopErrorKind::Aborted.into()
            }
            Stop::Error(error) => error,
        };
        self.tell_main(error);
        true
    }

    /// Forgets the timers. Sleeping greenlets exit as aborted. The timers of exits stay, since their greenlets may live
    /// on.
    fn forget_timers(&self) {
        let armed: Vec<(TimerId, Target)> = {
            let timers = self.timers.borrow();
            let armed = timers.iter().filter(|(_, _, target)| !target.is_for_exits());
            armed.map(|(id, _, target)| (id, target)).collect()
        };
        for (timer, target) in armed {
            match target {
                Target::Call(number) => {
                    let id = self.callbacks.borrow().id(number);
                    id.map(|id| self.unschedule(id));
                }
                target => {
                    self.timers.borrow_mut().cancel(timer);
                    if !matches!(target, Target::Parked { greenlet, .. } if greenlet == local::get().main.number()) {
                        self.end_waiter(target, &LoopErrorKind::Aborted.into());
                    }
                }
            }
        }
        let immediate: Vec<CallbackId> = self.callbacks.borrow().immediate().collect();
        for id in immediate {
            self.unschedule(id);
        }
    }

    /// Reports a wait that nothing can end to the main greenlet: its park, its switch or its next park fails.
    pub(super) fn report_deadlock(&self, local: &Local) {
        self.tell_main(LoopError::nothing_left(LoopExit { parked: describe::parked(local) }));
    }

    pub(super) fn tell_main(&self, error: LoopError) {
        trace::main_failed(&error);
        self.standstill.stir();
        drop_contained(self.ending.main_error.replace(Some(error)));
        let main = local::get().main;
        // In a raw switch, too: the greenlet that it has switched to may be parked forever.
        run::end_switch(main, Wake::Failed);
    }

    /// Forgets a request to end the loop, and the error for the main greenlet.
    pub(crate) fn forget_errors(&self) {
        drop_contained((self.ending.stop.take(), self.ending.main_error.take()));
    }
}
