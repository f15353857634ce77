//! The exceptions from the rule that each timer and descriptor keeps the loop alive.

use std::cell::Cell;

use crate::greenlet::control::Waiter;

/// Whether there are exceptions, and the wait of the main greenlet for the end of all work.
#[derive(Default)]
pub(super) struct Liveness {
    /// Whether there may be an exception. Once set it stays.
    may_differ: Cell<bool>,
    /// The wait for the end of all work, and whether a timer limits it.
    joining: Cell<Option<(Waiter, bool)>>,
}

impl Liveness {
    /// Notes that there is an exception.
    pub(super) fn differ(&self) {
        self.may_differ.set(true);
    }

    /// Returns whether there may be an exception.
    #[inline]
    pub(super) fn may_differ(&self) -> bool {
        self.may_differ.get()
    }

    /// Begins the wait of `waiter` for the end of all work. `is_limited`: a timer limits it.
    ///
    /// The wait is forgotten when the returned value is dropped, however the park ends.
    pub(super) fn begin_join(&self, waiter: Waiter, is_limited: bool) -> Joining<'_> {
        self.differ();
        self.joining.set(Some((waiter, is_limited)));
        Joining(self)
    }

    /// Returns whether the main greenlet waits for the end of all work.
    pub(super) fn is_joining(&self) -> bool {
        self.joining.get().is_some()
    }

    /// Returns the number of timers that limit such a wait.
    pub(super) fn limits(&self) -> usize {
        usize::from(self.joining.get().is_some_and(|(_, is_limited)| is_limited))
    }

    /// Ends the wait for the end of all work. Returns false if there is none.
    pub(super) fn end_join(&self) -> bool {
        self.joining.take().is_some_and(|(waiter, _)| waiter.wake())
    }
}

/// A wait for the end of all work. `Drop` forgets it.
pub(super) struct Joining<'a>(&'a Liveness);

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.0.joining.set(None);
    }
}
