//! The calls of hooks, and the decision which phases a turn has.

use std::panic::Location;
use std::rc::Rc;

use super::MainLoop;
use super::phases::{HookId, Phase};
use crate::greenlet::exit::drop_contained;
use crate::greenlet::run;
use crate::report;

impl MainLoop {
    /// Sets a hook.
    pub(crate) fn set_hook(&self, phase: Phase, hook: Rc<dyn Fn()>, at: &'static Location<'static>) -> HookId {
        let id = self.phases.insert(phase, hook, at, self.counters.waits());
        // A sleeping loop calls an idle hook only after its sleep, so wake it.
        if phase == Phase::Idle {
            run::rouse();
        }
        id
    }

    /// Removes a hook. Does nothing if a panic has removed it.
    pub(crate) fn remove_hook(&self, id: HookId) {
        drop_contained(self.phases.remove(id));
    }

    /// Sets whether a hook keeps the loop alive.
    pub(crate) fn count_hook(&self, id: HookId, is_counted: bool) {
        self.phases.set_counted(id, is_counted);
    }

    /// Sets whether a hook has work to do.
    pub(crate) fn set_hook_due(&self, id: HookId, is_due: bool) {
        self.phases.set_due(id, is_due);
        if is_due {
            run::rouse();
        }
    }

    /// Calls the hooks that are due before a wait. `reported`: the last wait has reported a descriptor.
    #[cold]
    pub(super) fn call_hooks(&self, reported: bool) {
        if self.phases.take_fork() {
            self.call_hooks_of(Phase::Fork);
        }
        if self.phases.take_notice() {
            self.call_hooks_of(Phase::Notice);
        }
        self.call_hooks_after_wait(reported);
        self.call_hooks_of(Phase::Prepare);
    }

    /// Calls the hooks that are due after a wait, unless they were called since.
    #[cold]
    pub(super) fn call_hooks_after_wait(&self, reported: bool) {
        if !self.phases.has_waited(self.counters.waits()) {
            return;
        }
        let is_quiet = !self.phases.has_switched(run::switches());
        self.call_hooks_of(Phase::Check);
        if is_quiet && !reported && run::ready() == 0 && !self.timer_is_due() {
            self.call_hooks_of(Phase::Idle);
        }
    }

    fn call_hooks_of(&self, phase: Phase) {
        let (mut serial, last) = (0, self.phases.last());
        while let Some(entry) = self.phases.next(phase, serial, last) {
            serial = entry.serial();
            if let Err(error) = self.calls.call(entry.at(), || entry.call()) {
                report::callback_failed("a phase of the loop, a hook that is now removed,", Some(entry.at()), error);
                self.remove_hook(entry.id(phase));
            }
            drop_contained(entry);
        }
    }
}
