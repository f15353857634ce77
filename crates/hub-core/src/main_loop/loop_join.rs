//! The work that keeps the loop alive, and the wait for its end.

use std::time::Duration;

use super::MainLoop;
use super::callback_table::CallbackId;
use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, LoopErrorKind};
use crate::greenlet::control::Wake;
use crate::greenlet::driver::Driver;
use crate::greenlet::local;
use crate::greenlet::run::{self, Park};
use crate::greenlet::target::Target;
use crate::timer_queue::TimerId;

impl MainLoop {
    /// Sets whether a listener or a timer keeps the loop alive.
    pub(crate) fn count_callback(&self, id: CallbackId, is_counted: bool) {
        if !is_counted {
            self.liveness.differ();
        }
        self.callbacks.borrow_mut().set_counted(id, is_counted);
    }

    /// Returns whether the loop, whose next wait has a timeout, is kept alive by what limits it: ready greenlets, the
    /// caller of a single turn, or timers.
    #[inline]
    pub(super) fn is_kept_by_timeout(&self) -> bool {
        !self.liveness.may_differ() || self.has_counted_timeout()
    }

    #[cold]
    fn has_counted_timeout(&self) -> bool {
        let uncounted = || self.callbacks.borrow().uncounted_timers() + self.liveness.limits();
        run::ready() != 0 || self.embedding.longest_wait().is_some() || self.timers.borrow().len() > uncounted()
    }

    /// Returns whether a descriptor keeps the loop alive.
    pub(super) fn is_kept_by_descriptors(&self) -> bool {
        let own = usize::from(self.wakeup.get().is_some());
        let armed = self.descriptors.borrow().watched.len();
        armed > own && (!self.liveness.may_differ() || self.has_counted_waiter(armed - own))
    }

    /// Returns whether a waiter of one of the `armed` descriptors is counted.
    #[cold]
    fn has_counted_waiter(&self, armed: usize) -> bool {
        let callbacks = self.callbacks.borrow();
        if armed > callbacks.uncounted_listeners() {
            return true;
        }
        let own = self.wakeup.get();
        self.descriptors.borrow().first_waiters().any(|(_, _, target)| match target {
            Target::Call(number) => callbacks.id(number).is_some_and(|id| Some(id) != own && callbacks.is_counted(id)),
            _ => true,
        })
    }

    /// Parks the main greenlet until nothing is left that keeps the loop alive. Switches.
    ///
    /// Returns false if the limit was reached first.
    pub(crate) fn join(&self, limit: Option<Duration>) -> Result<bool, LoopError> {
        let park = Park::current(WaitReason::LoopJoin)?;
        if park.control() != local::get().main {
            return Err(LoopError::in_mainloop(WaitReason::LoopJoin.as_str()));
        }
        self.ensure_hub()?;
        let timer = limit.map(|limit| self.arm(limit, Target::park(park.waiter())));
        let joining = (self.liveness.begin_join(park.waiter(), timer.is_some()), Limit { main_loop: self, timer });
        let parked = park.park();
        drop(joining);
        match parked {
            Ok(wake) => Ok(wake != Wake::Deadline),
            // It was found for a wait that has ended since, such as that of an earlier hub.
            Err(error) if error.kind() == LoopErrorKind::LoopExit => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// The limit of a wait. `Drop` disarms its timer.
struct Limit<'a> {
    main_loop: &'a MainLoop,
    timer: Option<TimerId>,
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.main_loop.disarm(timer);
        }
    }
}
