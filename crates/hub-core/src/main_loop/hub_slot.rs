//! The loop's hub: built at first use, never called by two callers at once, replaced on request.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::MainLoop;
use super::builder::{HubBuilder, default_builder};
use crate::base::id::HubId;
use crate::error::{GreenError, HubError, LoopError};
use crate::greenlet::exit::{drop_contained, error_of};
use crate::greenlet::run;
use crate::greenlet::stack;
use crate::greenlet::trace;
use crate::hub::{Hub, LoopWaker, Rearm};

/// The hub of a thread, and the choice of the next one.
pub(super) struct HubSlot {
    id: Cell<u64>,
    /// Empty while there is no hub.
    name: Cell<&'static str>,
    rearm: Cell<Rearm>,
    /// The stack size that the hub asks for, in bytes; zero stands for the default.
    stack_size: Cell<usize>,
    /// Taken out for the time of a call.
    hub: RefCell<Option<Box<dyn Hub>>>,
    choice: RefCell<Option<HubBuilder>>,
}

/// A new hub, and its answers that hold for its life.
struct Built {
    name: &'static str,
    rearm: Rearm,
    stack_size: usize,
    hub: Box<dyn Hub>,
}

impl Default for HubSlot {
    fn default() -> HubSlot {
        HubSlot {
            id: Cell::new(0),
            name: Cell::new(""),
            rearm: Cell::new(Rearm::Explicit),
            stack_size: Cell::new(0),
            hub: RefCell::new(None),
            choice: RefCell::new(None),
        }
    }
}

impl HubSlot {
    /// Returns the id of this hub, different for every hub of the process.
    fn id(&self) -> HubId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.id.get() == 0 {
            self.id.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        HubId::new(self.id.get())
    }

    /// Forgets the number of the hub, so that the next hub gets another one.
    pub(super) fn forget_id(&self) {
        self.id.set(0);
    }

    #[inline]
    pub(super) fn name(&self) -> &'static str {
        self.name.get()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.name.get().is_empty()
    }

    #[inline]
    pub(super) fn rearm(&self) -> Rearm {
        self.rearm.get()
    }

    /// Returns the size of the stack that the loop needs with this hub; `None` stands for the default size.
    pub(super) fn stack_size(&self) -> Option<usize> {
        Some(self.stack_size.get()).filter(|size| *size > stack::default_size())
    }

    /// Returns whether the hub asks for a stack size.
    #[inline]
    pub(super) fn asks_for_stack(&self) -> bool {
        self.stack_size.get() != 0
    }

    fn fill(&self, built: Built) {
        self.name.set(built.name);
        self.rearm.set(built.rearm);
        self.stack_size.set(built.stack_size);
        self.put_back(built.hub);
    }

    /// Removes the hub for good: the slot is empty.
    pub(super) fn remove(&self) -> Option<Box<dyn Hub>> {
        self.name.set("");
        self.stack_size.set(0);
        self.take()
    }

    #[inline(always)]
    fn take(&self) -> Option<Box<dyn Hub>> {
        self.hub.take()
    }

    #[inline(always)]
    fn put_back(&self, hub: Box<dyn Hub>) {
        *self.hub.borrow_mut() = Some(hub);
    }

    pub(super) fn take_choice(&self) -> Option<HubBuilder> {
        self.choice.take()
    }

    /// Chooses the next hub. Returns the former choice.
    pub(super) fn set_choice(&self, choice: Option<HubBuilder>) -> Option<HubBuilder> {
        self.choice.replace(choice)
    }
}

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
        waiting.into_iter().try_for_each(|(key, interest)| self.watch_again(key, interest))
    }

    /// Drops a hub that has failed. Its waiters stay, and are registered with the next hub.
    #[cold]
    pub(super) fn drop_failed_hub(&self) {
        self.drop_guarded(self.slot.remove());
        if self.embedded.get() {
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
