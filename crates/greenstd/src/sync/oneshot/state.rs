//! The protocol of a oneshot channel: one value, which one waiter receives, and the ends of both halves.

use std::marker::PhantomData;

use hub_core::WaitReason;

use crate::sync::wait_queue::{Wait, WaitQueue};
use crate::sync::waiters::Waiters;

/// The state that both halves share.
pub(super) struct State<T> {
    value: Option<T>,
    /// Whether the value was granted to a waiter that has not run since. No newcomer gets it.
    promised: bool,
    has_sender: bool,
    /// Whether the receiver takes no value that is sent from now on.
    closed: bool,
    pub(super) receiving: Waiters,
    /// The senders that wait for the end of the receiver.
    pub(super) closing: Waiters,
}

/// The answer of a channel on which no value will come.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Closed;

/// The wait for the value.
pub(super) struct ReceiveWait<T>(PhantomData<T>);

impl<T> Wait for ReceiveWait<T> {
    type State = State<T>;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Channel;
    const CHARGED: bool = true;

    fn queue(state: &mut State<T>) -> &mut WaitQueue {
        &mut state.receiving.queue
    }

    fn regrant(state: &mut State<T>) {
        state.promised = false;
        state.settle();
    }
}

impl<T> State<T> {
    pub(super) const fn new() -> State<T> {
        State {
            value: None,
            promised: false,
            has_sender: true,
            closed: false,
            receiving: Waiters::new(),
            closing: Waiters::new(),
        }
    }

    /// Returns true if there is no value, and none will come.
    fn is_over(&self) -> bool {
        self.value.is_none() && (self.closed || !self.has_sender)
    }

    /// Grants what a change has made available. A value is granted to one waiter, the end of the channel to all.
    fn settle(&mut self) {
        if self.is_over() {
            self.receiving.grant_all();
        } else if self.value.is_some() && !self.promised {
            self.promised = self.receiving.grant();
        }
    }

    /// Stores the value, unless the receiver takes none, and disconnects the sender.
    pub(super) fn send(&mut self, value: T) -> Result<(), T> {
        let refused = if self.closed { Some(value) } else { self.value.replace(value) };
        self.disconnect_sender();
        refused.map_or(Ok(()), Err)
    }

    pub(super) fn disconnect_sender(&mut self) {
        self.has_sender = false;
        self.settle();
    }

    /// Refuses values from now on. A value that was sent before stays.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.closing.grant_all();
        self.settle();
    }

    /// Closes the channel and returns the value, which the caller drops without the lock.
    pub(super) fn disconnect_receiver(&mut self) -> Option<T> {
        let left = self.value.take();
        self.close();
        left
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the value. `None` if the caller has to wait for it.
    pub(super) fn take(&mut self, granted: bool) -> Option<Result<T, Closed>> {
        if granted {
            self.promised = false;
        }
        if self.is_over() {
            return Some(Err(Closed));
        }
        if self.promised {
            return None;
        }
        let value = self.value.take()?;
        // The other waiters learn that no value is left.
        self.settle();
        Some(Ok(value))
    }

    /// Returns true if a newcomer would not have to wait.
    pub(super) fn is_ready(&self) -> bool {
        self.is_over() || (self.value.is_some() && !self.promised)
    }
}
