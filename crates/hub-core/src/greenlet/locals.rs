//! The values of `green_local!` that one greenlet has.
//!
//! They are part of the cold state of a control block. Most greenlets never need that state. Code that uses a value
//! holds an `Rc` of it, so the value outlives its removal.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The values of one greenlet.
#[derive(Default)]
pub(crate) struct Locals {
    /// Each value with the address of its key.
    values: RefCell<Vec<(usize, Rc<dyn Any>)>>,
    /// Whether the values are being dropped, so that no new one is made.
    ending: Cell<bool>,
}

impl Locals {
    pub(crate) fn find(&self, key: usize) -> Option<Rc<dyn Any>> {
        self.values.borrow().iter().find(|(known, _)| *known == key).map(|(_, value)| Rc::clone(value))
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    pub(crate) fn insert(&self, key: usize, value: Rc<dyn Any>) {
        self.values.borrow_mut().push((key, value));
    }

    /// Removes the value that was made last. No value is made from now on.
    pub(super) fn end_one(&self) -> Option<Rc<dyn Any>> {
        self.ending.set(true);
        self.values.borrow_mut().pop().map(|(_, value)| value)
    }
}
