//! The numbers of calls that a loop has made.

use std::cell::Cell;

/// The numbers of calls that a loop has made.
#[derive(Default)]
pub(crate) struct Counters {
    waits: Cell<u64>,
    watches: Cell<u64>,
    operations: Cell<u64>,
}

impl Counters {
    #[inline]
    pub(super) fn count_wait(&self) {
        self.waits.set(self.waits.get() + 1);
    }

    pub(super) fn count_watch(&self) {
        self.watches.set(self.watches.get() + 1);
    }

    #[inline]
    pub(crate) fn count_operation(&self) {
        self.operations.set(self.operations.get() + 1);
    }

    pub(super) fn waits(&self) -> u64 {
        self.waits.get()
    }

    pub(super) fn watches(&self) -> u64 {
        self.watches.get()
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations.get()
    }
}
