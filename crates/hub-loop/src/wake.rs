//! The wake-ups of a loop by other OS threads and by signal handlers.
//!
//! All latches of a loop have one descriptor, made when the first of their watchers starts. When it is readable, each
//! latch is looked at. Its listener is not counted: the watchers keep the loop alive.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use hub_core::hub::{Interest, Readiness};
use hub_core::internal::{Latch, LatchWakeup, listen_shared, report_failure};
use hub_core::{Listener, Registration};

use crate::error::WatcherError;
use crate::state::{State, for_each, remove};

/// A part of the loop whose watchers a latch makes pending.
pub(crate) trait Look {
    /// Makes the watchers pending if the latch is set. Runs no foreign code.
    fn look(self: Rc<Self>);
}

/// The descriptor of all latches of a loop.
pub(crate) struct Wake {
    wakeup: Arc<LatchWakeup>,
    registration: RefCell<Option<Registration>>,
    listener: Rc<dyn Listener>,
    latched: RefCell<Vec<Rc<dyn Look>>>,
}

impl Wake {
    pub(crate) fn new(own: &Weak<State>) -> Wake {
        Wake {
            wakeup: LatchWakeup::new(),
            registration: RefCell::default(),
            listener: Rc::new(WakeListener(Weak::clone(own))),
            latched: RefCell::default(),
        }
    }

    /// Makes a latch whose setting wakes this loop.
    pub(crate) fn latch(&self) -> Arc<Latch> {
        Latch::new(Arc::clone(&self.wakeup))
    }

    /// Looks at `latched` from now on.
    pub(crate) fn add(&self, latched: Rc<dyn Look>) -> Result<(), WatcherError> {
        self.listen()?;
        self.latched.borrow_mut().push(latched);
        Ok(())
    }

    pub(crate) fn remove(&self, latched: &dyn Look) {
        remove(&self.latched, latched);
    }

    /// Makes the descriptor, unless there is one.
    pub(crate) fn listen(&self) -> Result<(), WatcherError> {
        if self.registration.borrow().is_some() {
            return Ok(());
        }
        let fd = self.wakeup.open().map_err(|error| WatcherError::system("make its wake-up descriptor", error))?;
        let registration = listen_shared(fd, Interest::READ, Rc::clone(&self.listener))?;
        registration.set_counted(false);
        self.registration.replace(Some(registration));
        // A latch that was set before has not written to it.
        self.look();
        Ok(())
    }

    /// Returns whether a latch was set at which the loop has not looked. Its descriptor is readable then.
    pub(crate) fn has_rung(&self) -> bool {
        self.wakeup.has_rung() && self.registration.borrow().is_some()
    }

    /// Returns whether there is a descriptor.
    pub(crate) fn is_open(&self) -> bool {
        self.registration.borrow().is_some()
    }

    /// Replaces the descriptor in a forked child, which shares it with its parent.
    pub(crate) fn renew(&self) {
        self.listen_again("wake-ups from signals and other OS threads in a forked child");
    }

    /// Replaces the listener, if there is one. Reports a failure, of the part of the loop for `purpose`.
    fn listen_again(&self, purpose: &'static str) {
        let former = self.registration.take();
        if former.is_some() {
            drop(former);
            if let Err(error) = self.listen() {
                // The watchers get no events until the next start of one listens.
                report_failure(purpose, error);
                self.look();
            }
        }
    }

    /// Looks at all latches. In a child that has not made its own descriptor, that of the parent stays as it is.
    fn look(&self) {
        self.wakeup.drain();
        for_each(&self.latched, |latched| latched.look());
    }
}

/// The listener of a [`Wake`]. It runs no callback.
struct WakeListener(Weak<State>);

impl Listener for WakeListener {
    fn ready(&self, _: RawFd, _: Readiness) {
        if let Some(state) = self.0.upgrade() {
            state.wake.look();
        }
    }

    /// The hub has refused to watch the descriptor further, or the program has given up its number by mistake.
    fn closed(&self, _: RawFd) {
        if let Some(state) = self.0.upgrade() {
            state.wake.listen_again("wake-ups from signals and other OS threads");
        }
    }
}
