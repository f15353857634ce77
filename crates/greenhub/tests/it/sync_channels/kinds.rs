//! The kinds of channels, each with the calls that it shares with others.

use std::time::Duration;

use greenhub::hub::{LoopError, LoopErrorKind};
use greenhub::park::Waitable;
use greenhub::sync::{WaitError, broadcast, mpsc, oneshot, watch};

/// The outcome of a wait for a value.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Received {
    Value(u32),
    TimedOut,
    Closed,
    Failed(LoopErrorKind),
}

/// A kind of channel. A new one has no value for its receiver.
pub(super) trait Kind: 'static {
    type Sender: Send + 'static;
    type Receiver: Waitable + Send + 'static;

    fn channel() -> (Self::Sender, Self::Receiver);

    /// Sends a value, and ends the sender.
    fn send_last(sender: Self::Sender, value: u32);

    fn recv(receiver: &mut Self::Receiver) -> Received;

    fn recv_timeout(receiver: &mut Self::Receiver, timeout: Duration) -> Received;
}

/// A kind that Tokio has, too. Its waits return errors of the main loop, and its sender may wait for its receiver.
pub(super) trait TokioKind: Kind<Sender: Waitable> {
    fn closed(sender: &Self::Sender) -> Result<(), LoopError>;

    fn closed_timeout(sender: &Self::Sender, timeout: Duration) -> Result<(), WaitError>;
}

/// A kind with several senders and receivers, and with a value for all receivers.
pub(super) trait SharedKind: TokioKind<Sender: Clone> {
    fn send(sender: &Self::Sender, value: u32);

    fn subscribe(sender: &Self::Sender) -> Self::Receiver;
}

pub(super) struct Mpsc;

impl Kind for Mpsc {
    type Sender = mpsc::Sender<u32>;
    type Receiver = mpsc::Receiver<u32>;

    fn channel() -> (Self::Sender, Self::Receiver) {
        mpsc::channel()
    }

    fn send_last(sender: Self::Sender, value: u32) {
        sender.send(value).unwrap();
    }

    fn recv(receiver: &mut Self::Receiver) -> Received {
        receiver.recv().map_or_else(|mpsc::RecvError| Received::Closed, Received::Value)
    }

    fn recv_timeout(receiver: &mut Self::Receiver, timeout: Duration) -> Received {
        match receiver.recv_timeout(timeout) {
            Ok(value) => Received::Value(value),
            Err(mpsc::RecvTimeoutError::Timeout) => Received::TimedOut,
            Err(mpsc::RecvTimeoutError::Disconnected) => Received::Closed,
        }
    }
}

pub(super) struct Oneshot;

impl Kind for Oneshot {
    type Sender = oneshot::Sender<u32>;
    type Receiver = oneshot::Receiver<u32>;

    fn channel() -> (Self::Sender, Self::Receiver) {
        oneshot::channel()
    }

    fn send_last(sender: Self::Sender, value: u32) {
        sender.send(value).unwrap();
    }

    fn recv(receiver: &mut Self::Receiver) -> Received {
        receiver.recv().map_or_else(Received::from, Received::Value)
    }

    fn recv_timeout(receiver: &mut Self::Receiver, timeout: Duration) -> Received {
        receiver.recv_timeout(timeout).map_or_else(Received::from, Received::Value)
    }
}

pub(super) struct Watch;

impl Kind for Watch {
    type Sender = watch::Sender<u32>;
    type Receiver = watch::Receiver<u32>;

    fn channel() -> (Self::Sender, Self::Receiver) {
        watch::channel(u32::MAX)
    }

    fn send_last(sender: Self::Sender, value: u32) {
        sender.send(value).unwrap();
    }

    fn recv(receiver: &mut Self::Receiver) -> Received {
        receiver.changed().map_or_else(Received::from, |()| Received::Value(*receiver.borrow()))
    }

    fn recv_timeout(receiver: &mut Self::Receiver, timeout: Duration) -> Received {
        receiver.changed_timeout(timeout).map_or_else(Received::from, |()| Received::Value(*receiver.borrow()))
    }
}

pub(super) struct Broadcast;

impl Kind for Broadcast {
    type Sender = broadcast::Sender<u32>;
    type Receiver = broadcast::Receiver<u32>;

    fn channel() -> (Self::Sender, Self::Receiver) {
        broadcast::channel(4)
    }

    fn send_last(sender: Self::Sender, value: u32) {
        sender.send(value).unwrap();
    }

    fn recv(receiver: &mut Self::Receiver) -> Received {
        match receiver.recv() {
            Ok(value) => Received::Value(value),
            Err(broadcast::RecvError::Closed) => Received::Closed,
            Err(broadcast::RecvError::Loop(error)) => Received::Failed(error.kind()),
            Err(error) => panic!("{error}"),
        }
    }

    fn recv_timeout(receiver: &mut Self::Receiver, timeout: Duration) -> Received {
        match receiver.recv_timeout(timeout) {
            Ok(value) => Received::Value(value),
            Err(broadcast::RecvTimeoutError::TimedOut) => Received::TimedOut,
            Err(broadcast::RecvTimeoutError::Closed) => Received::Closed,
            Err(broadcast::RecvTimeoutError::Loop(error)) => Received::Failed(error.kind()),
            Err(error) => panic!("{error}"),
        }
    }
}

macro_rules! tokio_kinds {
    ($($kind:ident)+) => {
        $(
            impl TokioKind for $kind {
                fn closed(sender: &Self::Sender) -> Result<(), LoopError> {
                    sender.closed()
                }

                fn closed_timeout(sender: &Self::Sender, timeout: Duration) -> Result<(), WaitError> {
                    sender.closed_timeout(timeout)
                }
            }
        )+
    };
}

tokio_kinds!(Oneshot Watch Broadcast);

impl SharedKind for Watch {
    fn send(sender: &Self::Sender, value: u32) {
        sender.send(value).unwrap();
    }

    fn subscribe(sender: &Self::Sender) -> Self::Receiver {
        sender.subscribe()
    }
}

impl SharedKind for Broadcast {
    fn send(sender: &Self::Sender, value: u32) {
        sender.send(value).unwrap();
    }

    fn subscribe(sender: &Self::Sender) -> Self::Receiver {
        sender.subscribe()
    }
}

/// The errors of `oneshot` and `watch`.
impl From<oneshot::RecvError> for Received {
    fn from(error: oneshot::RecvError) -> Received {
        Received::from(oneshot::RecvTimeoutError::from(error))
    }
}

impl From<oneshot::RecvTimeoutError> for Received {
    fn from(error: oneshot::RecvTimeoutError) -> Received {
        match error {
            oneshot::RecvTimeoutError::TimedOut => Received::TimedOut,
            oneshot::RecvTimeoutError::Closed => Received::Closed,
            oneshot::RecvTimeoutError::Loop(error) => Received::Failed(error.kind()),
            error => panic!("{error}"),
        }
    }
}
