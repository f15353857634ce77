//! Hooks: closures of the program at fixed points of each turn.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use super::hub_ref::HubRef;
use crate::greenlet::local;
use crate::main_loop::{HookId, Phase};

impl HubRef {
    /// Calls `hook` in each turn of the main loop, at the point that `phase` names. Does not switch.
    ///
    /// The main loop makes the calls until the returned value is dropped, the hub is replaced or shut down, or a call
    /// panics, which is reported. Hooks of one phase are called in the order in which they were set. A hook may set and
    /// remove hooks, itself included: new ones are called from the next time on. A hook must not block. Other green
    /// threads do not run before it returns.
    ///
    /// A hook does not keep the loop alive, unless it is [counted](Hook::set_counted). It is for libraries that build a
    /// loop of their own on this one. libev's prepare, check and idle watchers.
    ///
    /// ```
    /// use greenhub::hub::Phase;
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use std::time::Duration;
    /// let waits = Rc::new(Cell::new(0));
    /// let count = Rc::clone(&waits);
    /// let hook = greenhub::get_hub().hook(Phase::Prepare, move || count.set(count.get() + 1));
    /// greenhub::sleep(Duration::from_millis(1));
    /// assert!(waits.get() > 0); // the loop has waited for the timer
    /// drop(hook);
    /// ```
    #[doc(alias = "prepare")]
    #[doc(alias = "check")]
    #[doc(alias = "idle")]
    #[track_caller]
    pub fn hook(&self, phase: Phase, hook: impl Fn() + 'static) -> Hook {
        hook_shared(phase, Rc::new(hook))
    }
}

/// Sets a hook, without an allocation of its own.
#[track_caller]
pub fn hook_shared(phase: Phase, hook: Rc<dyn Fn()>) -> Hook {
    let main_loop = &local::get().main_loop;
    let id = main_loop.set_hook(phase, hook, Location::caller());
    if local::has_ended() {
        main_loop.remove_hook(id);
    }
    Hook { id, hub: HubRef::present() }
}

/// A hook in the turns of a main loop, set by [`HubRef::hook`].
///
/// Dropping it removes the hook.
#[must_use = "the hook is removed when this is dropped"]
pub struct Hook {
    id: HookId,
    hub: HubRef,
}

impl Hook {
    /// Sets whether the hook keeps the loop alive. Does not switch.
    ///
    /// It is off by default. While a counted hook is set, the main greenlet gets no
    /// [`LoopExit`](crate::LoopErrorKind::LoopExit), and [`HubRef::join`] does not return before its limit.
    pub fn set_counted(&self, counted: bool) {
        if self.hub.is_current() {
            local::get().main_loop.count_hook(self.id, counted);
        }
    }

    /// Sets whether the hook has work to do. Does not switch.
    ///
    /// It is off by default. While it is on, the loop does not sleep, the main greenlet gets no
    /// [`LoopExit`](crate::LoopErrorKind::LoopExit), and [`HubRef::join`] does not return before its limit. The hook is
    /// called as always, and switches this off itself. It is for work that begins outside of the hook, such as a queue
    /// that the hook empties.
    ///
    /// ```
    /// use greenhub::hub::Phase;
    /// use std::cell::RefCell;
    /// use std::rc::Rc;
    /// let hub = greenhub::get_hub();
    /// let (queue, log) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
    /// let (from, to) = (Rc::clone(&queue), Rc::clone(&log));
    /// let hook = hub.hook(Phase::Prepare, move || to.borrow_mut().append(&mut from.borrow_mut()));
    /// queue.borrow_mut().push("work");
    /// hook.set_due(true);
    /// hub.run_once(None)?; // does not sleep
    /// hook.set_due(false);
    /// assert_eq!(*log.borrow(), ["work"]);
    /// # Ok::<(), greenhub::hub::LoopError>(())
    /// ```
    pub fn set_due(&self, due: bool) {
        if self.hub.is_current() {
            local::get().main_loop.set_hook_due(self.id, due);
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("id", &self.id).field("hub", &self.hub).finish()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        if self.hub.is_current() {
            local::get().main_loop.remove_hook(self.id);
        }
    }
}
