//! The calls of the loop's hub: it is built at first use, never called by two callers at once, dropped when it fails.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::MainLoop;
use super::hub_builder::default_builder;
use super::hub_slot::Built;
use crate::base::fork;
use crate::base::id::HubId;
use crate::error::{GreenError, HubError, LoopError};
use crate::greenlet::exit::{drop_contained, error_of};
use crate::greenlet::run;
use crate::greenlet::trace;
use crate::hub::{Hub, LoopWaker};

impl MainLoop {
    /// Returns the id of this hub, different for every hub of the process.
    pub(crate) fn id(&self) -> HubId {
        self.slot.id()
    }

    /// Returns the name of the hub, which is empty before it is built.
    pub(crate) fn name(&self) -> &'static str {
        self.slot.name()
    }

    /// Builds the hub if there is none.
    pub(crate) fn ensure_hub(&self) -> Result<(), LoopError> {
        self.notice_fork()?;
        if self.slot.is_empty() { self.build() } else { Ok(()) }
    }

    #[cold]
    pub(super) fn build(&self) -> Result<(), LoopError> {
        if self.ending.is_closing() {
            return Err(HubError::ThreadEnding.into());
        }
        if self.heartbeat.is_in_hub() {
            return Err(LoopError::in_mainloop("building a hub"));
        }
        let built = {
            let choice = self.slot.take_choice();
            let mut builder = match choice {
                Some(builder) => builder,
                None => default_builder()?,
            };
            // An empty name stands for an empty slot.
            let check = |hub: Box<dyn Hub>| match hub.name() {
                "" => Err(io::Error::other("a hub needs a name")),
                name => Ok(Built { name, rearm: hub.rearm(), stack_size: hub.stack_size(), hub }),
            };
            let build = || (builder.build)().and_then(check);
            let built = self.call_guarded(build).map_err(error_of);
            let name = builder.name.clone();
            self.slot.set_choice(Some(builder));
            match built {
                Ok(built) => built.map_err(|error| HubError::Build { name, error: Arc::new(error) })?,
                Err(error) => {
                    let error = Arc::new(io::Error::other(error));
                    return Err(HubError::Build { name, error }.into());
                }
            }
        };
        self.id();
        let name = built.name;
        self.slot.fill(built);
        // Waiters of an earlier hub that failed.
        let waiting = self.descriptors.borrow_mut().unwatch_all();
        if let Err(error) = self.make_bell() {
            self.drop_failed_hub();
            return Err(HubError::Build { name: name.to_owned(), error: Arc::new(error) }.into());
        }
        trace::hub_built(name, self.id());
        // The ages of greenlets from before count from here, though the first wait may last long.
        self.time_if_built();
        self.detect_blocking_by_environment();
        waiting.into_iter().try_for_each(|(key, interest)| self.watch_again(key, interest))
    }

    /// Drops a hub that has failed. Its waiters stay, and are registered with the next hub.
    #[cold]
    pub(super) fn drop_failed_hub(&self) {
        let hub = self.slot.remove();
        if fork::is_forked() {
            // It shares kernel objects with the parent's, which dropping it could disturb.
            std::mem::forget(hub);
        } else {
            self.drop_guarded(hub);
        }
        if self.embedding.is_embedded() {
            // An embedding program sleeps by a descriptor of this hub. Its next turn builds another one.
            run::rouse();
        }
        self.drop_waker();
        self.clock.reset();
        if let Some(wakeup) = self.wakeup.take() {
            self.unlisten(wakeup);
        }
    }

    /// Calls the loop's waker, which is foreign code: it must not switch, and no caller of a wake-up expects its panic.
    #[cold]
    pub(super) fn call_waker(&self, call: impl FnOnce(&LoopWaker)) {
        // No cell is borrowed meanwhile.
        let waker = self.descriptors.borrow().watched.loop_waker();
        if let Err(payload) = self.call_guarded(|| call(&waker)) {
            drop_contained(payload);
        }
    }

    /// Drops the waker that the hub or an embedding program has set.
    pub(super) fn drop_waker(&self) {
        self.call_waker(|waker| drop(waker.take()));
    }

    /// Drops a hub. Its destructor must not build another one.
    pub(super) fn drop_guarded(&self, hub: Option<Box<dyn Hub>>) {
        if let Err(payload) = self.call_guarded(|| drop(hub)) {
            drop_contained(payload);
        }
    }

    /// Runs code of a hub, or other code that must not switch. Meanwhile no hub can be built and no greenlet left.
    #[inline(always)]
    pub(crate) fn call_guarded<R>(&self, call: impl FnOnce() -> R) -> std::thread::Result<R> {
        let outer = self.heartbeat.enter_hub();
        let budget = run::stop_hand_off();
        let result = catch_unwind(AssertUnwindSafe(call));
        run::resume_hand_off(budget);
        self.heartbeat.leave_hub(outer);
        result
    }

    /// Calls the hub. A nested call is an error.
    pub(super) fn with_hub<R>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&mut dyn Hub) -> R,
    ) -> Result<R, LoopError> {
        self.ensure_hub()?;
        self.call_hub(operation, call)
    }

    /// Calls the hub that [`ensure_hub`](MainLoop::ensure_hub) has found.
    #[inline]
    pub(super) fn call_hub<R>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&mut dyn Hub) -> R,
    ) -> Result<R, LoopError> {
        let Some(mut hub) = self.slot.take() else { return Err(LoopError::in_mainloop(operation)) };
        match self.call_guarded(|| call(&mut *hub)) {
            Ok(result) => {
                self.slot.put_back(hub);
                Ok(result)
            }
            Err(payload) => {
                let message = match error_of(payload) {
                    GreenError::Panic(panic) => panic.message().to_owned(),
                    error => error.to_string(),
                };
                let name = self.slot.name();
                self.slot.put_back(hub);
                self.drop_failed_hub();
                Err(LoopError::hub_panicked(name, operation, &message))
            }
        }
    }
}
