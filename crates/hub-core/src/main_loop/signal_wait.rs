//! The waits of greenlets for signals.
//!
//! A signal handler only leaves a note in the mailbox of the loop. The loop then wakes every wait, and each waiter
//! checks whether its signal has arrived.

use std::cell::RefCell;

use crate::greenlet::control::Waiter;

/// The greenlets of a loop that wait for signals.
#[derive(Default)]
pub(super) struct SignalWaits {
    waiters: RefCell<Vec<Waiter>>,
}

impl SignalWaits {
    /// Adds a wait, until the returned value is dropped, however the park ends.
    pub(super) fn begin(&self, waiter: Waiter) -> SignalWait<'_> {
        self.waiters.borrow_mut().push(waiter);
        SignalWait { waits: self, waiter }
    }

    /// Returns whether a greenlet waits for a signal.
    pub(super) fn any(&self) -> bool {
        !self.waiters.borrow().is_empty()
    }

    /// Ends all waits. Does not switch.
    pub(super) fn wake_all(&self) {
        for waiter in self.waiters.take() {
            waiter.wake();
        }
    }
}

/// A wait for a signal. `Drop` removes it.
pub(super) struct SignalWait<'a> {
    waits: &'a SignalWaits,
    waiter: Waiter,
}

impl Drop for SignalWait<'_> {
    fn drop(&mut self) {
        self.waits.waiters.borrow_mut().retain(|other| *other != self.waiter);
    }
}
