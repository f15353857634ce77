//! Numbers that are given up: their waiters are woken, and the hub forgets them.

use std::os::fd::{BorrowedFd, RawFd};

use super::MainLoop;
use super::callback_table::Callback;
use super::descriptors::Descriptors;
use crate::greenlet::control::Wake;
use crate::greenlet::exit::contained;
use crate::greenlet::target::Target;
use crate::hub::Interest;
use crate::report;

impl MainLoop {
    /// Retires the number `fd`, which is closed, about to be closed, or given to another file. Wakes its waiters with
    /// an error, and makes the hub forget it. `open` is the descriptor, from a caller that keeps it open.
    pub(crate) fn closed(&self, fd: RawFd, open: Option<BorrowedFd<'_>>) {
        let Some((key, waited)) = self.give_up(fd, Descriptors::retire) else { return };
        if !self.slot.is_empty() {
            // A hub that fails here has nothing left to forget.
            let _ = self.with_hub("forgetting a descriptor", |hub| hub.forget(key, open));
        }
        self.notify_closed(fd, waited);
    }

    /// Gives up the number `fd` for the program. Its present owner is unknown, so the hub is lent no descriptor. A live
    /// socket and the loop's own wake-up descriptor keep their numbers in any case, and stay registered.
    pub(crate) fn given_up(&self, fd: RawFd) {
        if self.is_wakeup(fd) {
            return;
        }
        match self.give_up(fd, Descriptors::evict) {
            Some(waited) => self.notify_closed(fd, waited),
            None => self.closed(fd, None),
        }
    }

    /// Changes the table for a number that is given up.
    ///
    /// # Panics
    ///
    /// Panics inside the hub's `wait`, which may be using the number: the caller must not close it there.
    #[track_caller]
    fn give_up<R>(&self, fd: RawFd, change: fn(&mut Descriptors, RawFd) -> R) -> R {
        match self.with_table(|table| change(table, fd)) {
            Some(changed) => changed,
            None => panic!("descriptor {fd} cannot be given up inside a hub's `wait`: give it up after the wait"),
        }
    }

    fn is_wakeup(&self, fd: RawFd) -> bool {
        let callbacks = self.callbacks.borrow();
        let wakeup = self.wakeup.get().and_then(|id| callbacks.get(id));
        matches!(wakeup, Some(Callback::Listener { key, .. }) if key.fd() == fd)
    }

    /// Notifies the waiters of `fd` that it was closed.
    fn notify_closed(&self, fd: RawFd, waited: Vec<Target>) {
        for target in waited {
            if let Target::Call(number) = target {
                self.queue_closed(number, fd);
            } else {
                if let Target::Parked { greenlet, .. } = target
                    && let Some(mark) = self.marks.take(greenlet)
                    && let Err(error) = contained(mark)
                {
                    report::callback_failed("a closed descriptor", None, error);
                }
                self.tell(target, Wake::Closed);
            }
        }
    }

    /// Wakes the greenlets that wait for a socket in `directions`. Does not switch.
    ///
    /// Returns false, and wakes nothing, inside a call of the hub: a waiter may be about to park.
    pub(crate) fn wake_waiters(&self, fd: RawFd, socket: u64, directions: Interest) -> bool {
        if self.heartbeat.is_in_hub() {
            return false;
        }
        let Some(taken) = self.with_table(|table| table.take_parked(fd, socket, directions)) else { return false };
        for (target, reported) in taken {
            self.tell(target, Wake::Ready(reported));
        }
        true
    }
}
