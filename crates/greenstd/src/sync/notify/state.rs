//! The protocol of a notification: a permit for one waiter, or a wake-up of all.

use std::cell::Cell;
use std::collections::VecDeque;

use hub_core::{BiasedMutex, Deadline, WaitReason};

use crate::sync::wait_queue::{Unserved, Wait, WaitQueue};
use crate::sync::waiters::Waiters;

pub(super) struct State {
    /// Set only while there are no waiters in the queue.
    permit: bool,
    /// The waiters, each with its number.
    pub(super) waiting: Waiters<u64>,
    next: u64,
    /// The numbers of the waiters that `notify_one` has granted and that have not run since. Only their grants are
    /// passed on: a waiter that `notify_waiters` has granted owes nothing.
    notified: VecDeque<u64>,
}

/// The wait for a notification. The waiter itself passes an unused grant on: only it knows its number.
struct NotifyWait;

impl Wait for NotifyWait {
    type State = State;
    type Payload = u64;

    const REASON: WaitReason = WaitReason::Notification;
    const CHARGED: bool = true;

    fn queue(state: &mut State) -> &mut WaitQueue<u64> {
        &mut state.waiting.queue
    }

    fn regrant(_: &mut State) {}
}

impl State {
    pub(super) const fn new() -> State {
        State { permit: false, waiting: Waiters::new(), next: 0, notified: VecDeque::new() }
    }

    /// Grants the first waiter, or stores a permit.
    pub(super) fn notify_one(&mut self) {
        if let Some(number) = self.waiting.grant_payload() {
            self.notified.push_back(number);
        } else {
            self.permit = true;
        }
    }

    /// Grants all waiters. A stored permit stays.
    pub(super) fn notify_waiters(&mut self) {
        while self.waiting.queue.grant_payload().is_some() {}
    }

    pub(super) fn has_permit(&self) -> bool {
        self.permit
    }

    pub(super) fn take_permit(&mut self) -> bool {
        std::mem::take(&mut self.permit)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.queue.len()
    }

    /// Returns true if a waiter that `notify_one` has granted has not run since.
    #[cfg(loom)]
    pub(super) fn has_grants(&self) -> bool {
        !self.notified.is_empty()
    }

    /// Removes the grant of `notify_one` to this waiter. Returns false if there is none.
    fn take_grant(&mut self, number: u64) -> bool {
        let index = self.notified.iter().position(|&notified| notified == number);
        index.and_then(|index| self.notified.remove(index)).is_some()
    }
}

/// Waits for a notification. Switches.
pub(super) fn wait(state: &BiasedMutex<State>, deadline: &mut Deadline) -> Result<(), Unserved<u64>> {
    let waiter = Waiter { state, number: Cell::new(0) };
    NotifyWait::wait(state, deadline, 0, |state, ungranted| match ungranted {
        Some(_) if state.take_permit() => Ok(()),
        Some(0) => {
            state.next += 1;
            waiter.number.set(state.next);
            Err(state.next)
        }
        Some(number) => Err(number),
        None => {
            state.take_grant(waiter.number.take());
            Ok(())
        }
    })
}

/// A waiter with its number, 0 outside of the queue. `Drop` passes a grant on that the waiter has not used.
struct Waiter<'a> {
    state: &'a BiasedMutex<State>,
    number: Cell<u64>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.number.get() == 0 {
            return;
        }
        let mut state = self.state.lock();
        if state.take_grant(self.number.get()) {
            state.notify_one();
        }
    }
}
