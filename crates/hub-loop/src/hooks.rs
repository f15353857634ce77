//! The hooks of a loop in the turns of its hub.
//!
//! They are set while a watcher is active or pending, so that a turn costs nothing more without such watchers. The hook
//! for a forked child stays while the loop has a descriptor for wake-ups, which the child replaces.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use hub_core::internal::hook_shared;
use hub_core::{Hook, Phase};

use crate::state::State;

pub(crate) struct Hooks {
    check: Rc<dyn Fn()>,
    prepare: Rc<dyn Fn()>,
    /// The hook of forks while it is not set. The hub drops it at its end, which ends the waits for watchers. So this
    /// value must not keep it while it is set.
    fork: RefCell<Option<Rc<dyn Fn()>>>,
    set_fork: RefCell<Option<ForkHook>>,
    set: RefCell<Option<[Hook; 2]>>,
}

/// The hook of forks while it is set.
struct ForkHook {
    hook: Hook,
    call: Weak<dyn Fn()>,
}

impl Hooks {
    pub(crate) fn new(own: &Weak<State>) -> Hooks {
        let hook = |call: fn(&State)| {
            let own = Weak::clone(own);
            Rc::new(move || own.upgrade().iter().for_each(|state| call(state))) as Rc<dyn Fn()>
        };
        let end = HubEnd(Weak::clone(own));
        let fork: Rc<dyn Fn()> = Rc::new(move || end.0.upgrade().iter().for_each(|state| state.renew()));
        Hooks {
            check: hook(State::check),
            prepare: hook(State::prepare),
            fork: RefCell::new(Some(fork)),
            set_fork: RefCell::default(),
            set: RefCell::default(),
        }
    }

    /// Sets the hooks, unless they are set. Returns whether it did.
    pub(crate) fn set(&self) -> bool {
        if let Some(fork) = self.fork.take() {
            let call = Rc::downgrade(&fork);
            self.set_fork.replace(Some(ForkHook { hook: hook_shared(Phase::Fork, fork), call }));
        }
        if self.set.borrow().is_some() {
            return false;
        }
        self.set.replace(Some([
            hook_shared(Phase::Check, Rc::clone(&self.check)),
            hook_shared(Phase::Prepare, Rc::clone(&self.prepare)),
        ]));
        true
    }

    /// Removes the hooks, that of forks only if no descriptor has to be replaced in a child.
    pub(crate) fn remove(&self, has_descriptor: bool) {
        let former = self.set.take();
        drop(former);
        let former = self.set_fork.borrow_mut().take_if(|_| !has_descriptor);
        if let Some(ForkHook { hook, call }) = former {
            self.fork.replace(call.upgrade());
            drop(hook);
        }
    }

    /// Sets whether the loop must not sleep.
    pub(crate) fn set_due(&self, due: bool) {
        if let Some([hook, ..]) = &*self.set.borrow() {
            hook.set_due(due);
        }
    }

    /// Sets whether the hooks keep the loop alive.
    pub(crate) fn set_counted(&self, counted: bool) {
        if let Some([hook, ..]) = &*self.set.borrow() {
            hook.set_counted(counted);
        }
    }

    /// Returns whether the hooks are set, and whether that of forks is.
    #[cfg(test)]
    pub(crate) fn are_set(&self) -> (bool, bool) {
        (self.set.borrow().is_some(), self.set_fork.borrow().is_some())
    }
}

/// The part of a hook that is dropped with the hub.
struct HubEnd(Weak<State>);

impl Drop for HubEnd {
    fn drop(&mut self) {
        if let Some(state) = self.0.upgrade() {
            state.end();
        }
    }
}
