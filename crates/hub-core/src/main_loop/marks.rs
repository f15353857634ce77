//! The callbacks for a close of the descriptor that a greenlet waits for.

use std::cell::RefCell;

use crate::greenlet::run;

/// A parked greenlet, by number, and the function to call if its descriptor is closed.
struct Mark {
    greenlet: u32,
    closed: Box<dyn FnOnce()>,
}

/// The parked greenlets with a callback for a close of their descriptor.
#[derive(Default)]
pub(crate) struct Marks(RefCell<Vec<Mark>>);

impl Marks {
    /// Sets the callback of the running greenlet, until [`take`](Marks::take).
    ///
    /// A wait within a wait, as of an `AsFd` that waits, may take the callback of the outer one: only its own caller
    /// misses the call, and no memory depends on it.
    pub(crate) fn put(&self, closed: Box<dyn FnOnce()>) {
        self.0.borrow_mut().push(Mark { greenlet: run::current().number(), closed });
    }

    /// Removes the callback of a greenlet.
    pub(crate) fn take(&self, greenlet: u32) -> Option<Box<dyn FnOnce()>> {
        let mut marks = self.0.borrow_mut();
        let index = marks.iter().position(|mark| mark.greenlet == greenlet)?;
        Some(marks.swap_remove(index).closed)
    }
}
