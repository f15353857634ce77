//! The end of a hub: it is replaced, or its OS thread ends.

use super::MainLoop;
use super::callback_table::Callback;
use super::descriptors::Descriptors;
use super::hub_builder::HubBuilder;
use crate::base::fork;
use crate::error::{GreenError, HubError, LoopError, LoopErrorKind};
use crate::greenlet::control::Waiter;
use crate::greenlet::control::Wake;
use crate::greenlet::exit::{Exit, drop_contained};
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::report;
use crate::timer_queue::TimerId;

impl MainLoop {
    /// Drops the present hub and sets the one to be built next.
    ///
    /// Descriptors and timers are forgotten, except the timers of exits. Greenlets parked on them are unwound, except
    /// the main greenlet, which gets an error. Wakers are woken.
    pub(crate) fn replace_hub(&self, builder: Option<HubBuilder>) -> Result<(), HubError> {
        if self.embedding.is_embedded() {
            return Err(HubError::Embedded);
        }
        if run::in_mainloop() || self.heartbeat.is_in_hub() {
            return Err(HubError::InMainloop);
        }
        if self.ending.is_closing() {
            return Err(HubError::ThreadEnding);
        }
        // The hub is dropped in any case.
        let _ = self.notice_fork();
        let choice = self.slot.set_choice(builder);
        let waiters = self.take_waiters();
        let callbacks = self.drop_hub();
        // The next hub has another number. Other OS threads reach it as they did the old one.
        self.slot.forget_id();
        // From here on foreign code runs. Its waits belong to the next hub.
        for waiter in waiters {
            self.end_waiter(waiter, &LoopErrorKind::HubReplaced.into());
        }
        callbacks.for_each(Callback::discard);
        drop_contained(choice);
        Ok(())
    }

    /// Drops the hub and the wake-up descriptor, and forgets all registrations. Returns the callbacks, whose
    /// destructors may block, for the caller to discard.
    pub(crate) fn drop_hub(&self) -> impl Iterator<Item = Callback> + use<> {
        let hub = self.slot.remove();
        if fork::take_forked() {
            // The hub shares kernel objects with the parent's hub, which a drop could disturb.
            std::mem::forget(hub);
        } else {
            self.drop_guarded(hub);
        }
        self.drop_waker();
        self.wakeup.set(None);
        self.clock.reset();
        *self.descriptors.borrow_mut() = Descriptors::default();
        let wakers = self.take_wakers();
        let handler = report::set_filter(None).map(|handler| Callback::Leftover { _closure: Box::new(handler) });
        let hooks = self.phases.take_all().map(|hook| Callback::Leftover { _closure: Box::new(hook) });
        wakers.into_iter().chain(self.callbacks.borrow_mut().take_all()).chain(hooks).chain(handler)
    }

    /// Forgets the timers, and drops the hub and the wake-up descriptor. Returns the callbacks, for the caller to
    /// discard.
    pub(crate) fn shut_down(&self) -> impl Iterator<Item = Callback> + use<> {
        drop(self.take_waiters());
        self.calls.forget_due();
        run::clear_queue(local::get());
        let callbacks = self.drop_hub();
        if let Some(inbox) = self.inbox.get() {
            inbox.remove_bell();
        }
        self.slot.forget_id();
        callbacks
    }

    /// Cancels the timers, except those of exits, whose greenlets may live on. Returns the waits that a timer or a
    /// descriptor would have ended.
    fn take_waiters(&self) -> Vec<Target> {
        let mut timers = self.timers.borrow_mut();
        let armed: Vec<(TimerId, Target)> =
            timers.iter().filter(|(_, _, target)| !target.is_for_exits()).map(|(id, _, target)| (id, target)).collect();
        let mut waiters: Vec<Target> = Vec::new();
        for (id, target) in armed {
            timers.cancel(id);
            waiters.push(target);
        }
        waiters.extend(self.descriptors.borrow().waiting().map(|(_, _, target)| target));
        waiters
    }

    pub(super) fn end_waiter(&self, target: Target, error: &LoopError) {
        let (Target::Parked { greenlet, ticket } | Target::Start { greenlet, ticket }) = target else { return };
        let Some(control) = local::get().controls.get(greenlet) else { return };
        if control.ticket() != ticket {
            return;
        }
        if control == local::get().main {
            self.tell_main(error.clone());
        } else {
            let exit = Exit::Kill(GreenError::Loop(error.clone()));
            // Queued, not switched to. Under a shield the exit waits, but nothing is left that could end this park.
            run::request_exit(control, exit, false);
            // A greenlet that cannot be unwound must not see its wait as granted.
            if cfg!(panic = "unwind") {
                Waiter::new(control, ticket).wake_with(Wake::Exit);
            }
        }
    }
}
