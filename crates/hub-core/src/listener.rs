//! Callbacks of the main loop: what is told about descriptors and about time.

use std::os::fd::RawFd;

use crate::interest::Readiness;

/// Told that a descriptor is ready, or was closed.
///
/// Runs in the main loop, so it must not block: a blocking call in it is an error. A panic is
/// reported and the loop goes on. It may register, cancel and drop registrations, its own included.
///
/// Closures that take a [`Readiness`] are listeners.
pub trait Listener {
    /// The descriptor is ready as `what` says.
    fn ready(&self, fd: RawFd, what: Readiness);

    /// The descriptor was closed, or its number was given to another file. Nothing more is told.
    fn closed(&self, fd: RawFd) {
        let _ = fd;
    }
}

impl<F: Fn(Readiness)> Listener for F {
    fn ready(&self, _fd: RawFd, what: Readiness) {
        self(what);
    }
}

/// Told that its time has come.
///
/// Runs in the main loop, under the same rules as a [`Listener`]. Closures are timers.
pub trait Timer {
    /// The deadline has passed.
    fn expired(&self);
}

impl<F: Fn()> Timer for F {
    fn expired(&self) {
        self();
    }
}
