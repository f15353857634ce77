//! The callbacks that are due, and the one that runs.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::Location;

use super::callback_table::CallbackId;
use crate::error::GreenError;
use crate::greenlet::exit::contained;
use crate::greenlet::run;

/// The callbacks that are due, cancelled ones included, and the place where the running one was made.
#[derive(Default)]
pub(super) struct Calls {
    /// Each with the turn in which it was scheduled, and with a stand-in in the run queue.
    due: RefCell<VecDeque<(u64, CallbackId)>>,
    calling: Cell<Option<&'static Location<'static>>>,
}

impl Calls {
    /// Queues a callback that was scheduled in the turn `turn`. It keeps its place among the ready greenlets.
    ///
    /// It may wake the waker of the loop, which is foreign code: the caller holds no borrow.
    pub(super) fn queue(&self, turn: u64, id: CallbackId) {
        self.due.borrow_mut().push_back((turn, id));
        run::queue_callback();
    }

    /// Returns whether the next callback was scheduled in another turn than `turn`, or was forgotten.
    pub(super) fn next_is_from_before(&self, turn: u64) -> bool {
        self.due.borrow().front().is_none_or(|(scheduled, _)| *scheduled != turn)
    }

    /// Takes the next callback.
    pub(super) fn take_next(&self) -> Option<CallbackId> {
        self.due.borrow_mut().pop_front().map(|(_, id)| id)
    }

    /// Forgets the due callbacks, whose stand-ins the caller removes.
    pub(super) fn forget_due(&self) {
        self.due.take();
    }

    /// Runs a callback that was made at `at`. Returns a panic as an error.
    pub(super) fn call(&self, at: &'static Location<'static>, callback: impl FnOnce()) -> Result<(), GreenError> {
        self.calling.set(Some(at));
        let called = contained(callback);
        self.calling.set(None);
        called
    }

    /// Returns the place where the running callback was made.
    pub(super) fn calling(&self) -> Option<&'static Location<'static>> {
        self.calling.get()
    }
}
