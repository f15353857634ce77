//! The handle that ends the wait of a parker.
//!
//! An unpark of a green thread of the same OS thread only queues the green thread. All others go through a table of the
//! process: see [`reach`].

use std::num::NonZeroU64;

use crate::base::fork;
use crate::greenlet::control::{State, Waiter};
use crate::greenlet::local;
use crate::main_loop::late_wake;
use crate::main_loop::reach::{self, WaitId};

/// A handle that ends the wait of one [`Parker`](crate::Parker), once.
#[doc(alias = "Waker")]
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Unparker {
    pub(crate) wait: WaitId,
}

#[cfg(test)]
const _: () = assert!(size_of::<Option<Unparker>>() == 24);

impl Unparker {
    /// Ends the wait, if it still lasts. Never switches, and does not park.
    #[inline]
    pub fn unpark(self) {
        self.try_unpark();
    }

    /// Like [`unpark`](Unparker::unpark), but returns whether the waiter still exists.
    ///
    /// Returns false if its OS thread has ended or was left behind by a fork, or if a
    /// [shutdown](crate::HubRef::shutdown) has abandoned it. Such a waiter never takes what was granted, so the caller
    /// should grant it to another waiter.
    #[inline]
    pub fn try_unpark(self) -> bool {
        self.unpark_by(reach::unpark_elsewhere)
    }

    /// Ends the wait of a greenlet of this OS thread, or any other wait by `elsewhere`.
    #[inline]
    fn unpark_by(self, elsewhere: impl FnOnce(u64, NonZeroU64, u64) -> bool) -> bool {
        let WaitId { thread, greenlet, ticket } = self.wait;
        if let Some(number) = self.wait.number()
            && thread == fork::this_thread()
        {
            let Some(control) = local::try_get().and_then(|local| local.controls.get(number)) else { return false };
            Waiter::new(control, ticket).wake() || control.state() != State::Abandoned
        } else {
            elsewhere(thread, greenlet, ticket)
        }
    }

    /// Returns whether the waiter belongs to an OS thread that a fork has left behind.
    ///
    /// Such an OS thread belongs to an ancestor of this process, so there is no waiter to wake.
    #[inline]
    #[must_use]
    pub fn is_left_behind(self) -> bool {
        fork::is_left_behind(self.wait.thread)
    }
}

/// Does what [`Unparker::try_unpark`] does, for a caller that may hold a [`BiasedMutex`](crate::BiasedMutex), and does
/// not forget its guard. Another OS thread is woken when the lock is released.
#[inline]
pub fn unpark_under_lock(unparker: Unparker) -> bool {
    unparker.unpark_by(late_wake::unpark_elsewhere)
}
