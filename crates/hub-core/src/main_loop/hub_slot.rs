//! The hub of a loop, its answers that hold for its life, and the choice of the next one.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

use super::hub_builder::HubBuilder;
use crate::base::id::HubId;
use crate::greenlet::stack;
use crate::hub::{Hub, Rearm};

/// The hub of an OS thread, and the choice of the next one.
pub(super) struct HubSlot {
    id: Cell<u64>,
    /// Empty while there is no hub.
    name: Cell<&'static str>,
    /// The label that the program has given.
    label: RefCell<String>,
    rearm: Cell<Rearm>,
    /// The stack size that the hub asks for, in bytes; zero stands for the default.
    stack_size: Cell<usize>,
    /// Taken out for the time of a call.
    hub: RefCell<Option<Box<dyn Hub>>>,
    choice: RefCell<Option<HubBuilder>>,
}

/// A new hub, and its answers that hold for its life.
pub(super) struct Built {
    pub(super) name: &'static str,
    pub(super) rearm: Rearm,
    pub(super) stack_size: usize,
    pub(super) hub: Box<dyn Hub>,
}

impl Default for HubSlot {
    fn default() -> HubSlot {
        HubSlot {
            id: Cell::new(0),
            name: Cell::new(""),
            label: RefCell::default(),
            rearm: Cell::new(Rearm::Explicit),
            stack_size: Cell::new(0),
            hub: RefCell::new(None),
            choice: RefCell::new(None),
        }
    }
}

impl HubSlot {
    /// Returns the id of this hub, different for every hub of the process.
    pub(super) fn id(&self) -> HubId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.id.get() == 0 {
            self.id.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        HubId::new(self.id.get())
    }

    /// Forgets the number and the label of the hub, so that the next hub gets others.
    pub(super) fn forget_id(&self) {
        self.id.set(0);
        self.label.take();
    }

    pub(super) fn set_label(&self, label: String) {
        self.label.replace(label);
    }

    pub(super) fn with_label<R>(&self, read: impl FnOnce(&str) -> R) -> R {
        read(&self.label.borrow())
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

    /// Returns whether the hub asks for a larger stack than `present`, that of a loop which was launched before the hub
    /// was built.
    #[inline(always)]
    pub(super) fn outgrows(&self, present: impl FnOnce() -> usize) -> bool {
        self.stack_size.get() != 0 && self.stack_size().is_some_and(|needed| present() < needed)
    }

    /// Puts a new hub into the slot.
    pub(super) fn fill(&self, built: Built) {
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

    /// Takes the hub out for the time of a call.
    #[inline(always)]
    pub(super) fn take(&self) -> Option<Box<dyn Hub>> {
        self.hub.take()
    }

    /// Puts the hub back after the call.
    #[inline(always)]
    pub(super) fn put_back(&self, hub: Box<dyn Hub>) {
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
