//! The end of a loop: requests are made and carried out, and the main greenlet is told.

use super::MainLoop;
use super::callback_table::CallbackId;
use super::end_requests::Stop;
use super::standstill;
use crate::error::{LoopError, LoopErrorKind, LoopExit};
use crate::greenlet::control::Wake;
use crate::greenlet::local::{self, Local};
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::greenlet::{backtrace, describe, trace};
use crate::timer_queue::TimerId;

impl MainLoop {
    /// Asks the loop to end. An earlier request stands.
    pub(crate) fn abort(&self) {
        self.ending.abort();
        run::rouse();
    }

    /// Ends the loop with an error, in place of an [`abort`](MainLoop::abort). An earlier error stands.
    pub(super) fn stop_with(&self, error: LoopError) {
        if self.ending.fail(error) {
            run::rouse();
        }
    }

    /// Ends the loop with an interruption, in place of an earlier request.
    pub(crate) fn interrupt(&self) {
        self.fail(LoopErrorKind::Interrupted.into());
    }

    /// Ends the loop with an error, in place of an earlier request.
    pub(crate) fn fail(&self, error: LoopError) {
        self.ending.replace(error);
        run::rouse();
    }

    /// Carries out a request to end. Returns whether the loop ends now.
    pub(super) fn end_is_due(&self) -> bool {
        let Some(stop) = self.ending.take() else { return false };
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
        let mut callbacks: Vec<CallbackId> = Vec::new();
        for (timer, target) in armed {
            match target {
                Target::Call(number) => callbacks.extend(self.callbacks.borrow().id(number)),
                target => {
                    self.timers.borrow_mut().cancel(timer);
                    if !matches!(target, Target::Parked { greenlet, .. } if greenlet == local::get().main.number()) {
                        self.end_waiter(target, &LoopErrorKind::Aborted.into());
                    }
                }
            }
        }
        callbacks.extend(self.callbacks.borrow().immediate());
        // From here on foreign code runs. What it schedules belongs to the next loop.
        for id in callbacks {
            self.abort_callback(id);
        }
    }

    /// Reports a wait that nothing can end to the main greenlet: its park, its switch or its next park fails.
    ///
    /// A wait for the end of all work ends instead.
    pub(super) fn report_deadlock(&self, local: &Local) {
        if self.liveness.end_join() {
            return;
        }
        let parked = describe::parked(local).into_iter().map(|(_, text)| text).collect();
        let waits = if backtrace::AVAILABLE { standstill::waits(local) } else { Vec::new() };
        self.tell_main(LoopError::nothing_left(LoopExit { parked, waits }));
    }

    pub(super) fn tell_main(&self, error: LoopError) {
        trace::main_failed(&error);
        self.standstill.stir();
        self.ending.set_main_error(error);
        let main = local::get().main;
        // In a raw switch, too: the greenlet that it has switched to may be parked forever.
        run::end_switch(main, Wake::Failed);
    }

    /// Forgets a request to end the loop, and the error for the main greenlet.
    pub(crate) fn forget_errors(&self) {
        self.ending.forget();
    }
}
