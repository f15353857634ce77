//! The requests to end a loop, and the error that the main greenlet gets.

use std::cell::{Cell, RefCell};

use crate::error::LoopError;
use crate::greenlet::exit::drop_contained;

/// The reason for which a loop ends.
#[derive(Clone, Debug)]
pub(super) enum Stop {
    Abort,
    Error(LoopError),
}

/// The requests to end a loop.
#[derive(Default)]
pub(super) struct Ending {
    stop: RefCell<Option<Stop>>,
    main_error: RefCell<Option<LoopError>>,
    closing: Cell<bool>,
}

impl Ending {
    /// Takes the error for the main greenlet.
    pub(super) fn take_main_error(&self) -> Option<LoopError> {
        self.main_error.take()
    }

    /// Ends the loop for good: its OS thread ends.
    pub(super) fn close(&self) {
        self.closing.set(true);
    }

    /// Returns whether the loop was asked to end and has not ended yet.
    pub(super) fn is_requested(&self) -> bool {
        self.stop.borrow().is_some()
    }

    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Requests an end without an error. An earlier request stands.
    pub(super) fn abort(&self) {
        self.stop.borrow_mut().get_or_insert(Stop::Abort);
    }

    /// Requests an end with an error, in place of an [`abort`](Ending::abort). An earlier error stands.
    ///
    /// Returns whether the request is new.
    pub(super) fn fail(&self, error: LoopError) -> bool {
        if matches!(*self.stop.borrow(), Some(Stop::Error(_))) {
            // The first error names the cause; later ones mostly follow from it. Either may be a hub's, so its drop is
            // contained.
            drop_contained(error);
            return false;
        }
        self.stop.replace(Some(Stop::Error(error)));
        true
    }

    /// Requests an end with an error, in place of an earlier request.
    pub(super) fn replace(&self, error: LoopError) {
        drop_contained(self.stop.replace(Some(Stop::Error(error))));
    }

    /// Takes the request.
    pub(super) fn take(&self) -> Option<Stop> {
        self.stop.take()
    }

    /// Sets the error for the main greenlet.
    pub(super) fn set_main_error(&self, error: LoopError) {
        drop_contained(self.main_error.replace(Some(error)));
    }

    /// Forgets the request, and the error for the main greenlet.
    pub(super) fn forget(&self) {
        drop_contained((self.stop.take(), self.main_error.take()));
    }
}
