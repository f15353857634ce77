//! The wait of a sender for the end of its receivers.

use std::marker::PhantomData;

use hub_core::{BiasedMutex, Deadline, WaitReason};

use super::wait_error::WaitError;
use super::wait_queue::{Wait, WaitQueue};
use super::waiters::Waiters;

/// The state of a channel that ends with its receivers.
pub(super) trait Close {
    /// Returns true if no value that is sent now can be received.
    fn is_closed(&self) -> bool;

    /// Returns the senders that wait for the end. They are granted it when the channel closes.
    fn closing(&mut self) -> &mut Waiters;
}

/// The wait for the end. It is for all waiters: there is nothing to regrant.
struct CloseWait<S>(PhantomData<S>);

impl<S: Close> Wait for CloseWait<S> {
    type State = S;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Channel;

    fn queue(state: &mut S) -> &mut WaitQueue {
        &mut state.closing().queue
    }

    fn regrant(_: &mut S) {}
}

/// Waits until the channel is closed. Switches if it waits.
pub(super) fn closed<S: Close>(state: &BiasedMutex<S>, mut deadline: Deadline) -> Result<(), WaitError> {
    let closed = CloseWait::wait(state, &mut deadline, (), |state, ungranted| match ungranted {
        Some(()) if !state.is_closed() => Err(()),
        // A receiver may have subscribed since the grant.
        _ => Ok(()),
    });
    Ok(closed?)
}
