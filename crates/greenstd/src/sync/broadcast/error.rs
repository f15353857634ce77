use std::io;

use hub_core::LoopError;

/// The reason why [`Receiver::recv`](super::Receiver::recv) has no value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The receiver has missed that many values. The next call returns the oldest value that is left.
    #[error("the channel skipped {0} values")]
    Lagged(u64),
    /// All values were received, and all senders are gone.
    #[error("the channel is closed")]
    Closed,
    /// The caller cannot wait, or its wait failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

/// The reason why [`Receiver::recv_timeout`](super::Receiver::recv_timeout) has no value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvTimeoutError {
    /// The limit was reached.
    #[error("timed out")]
    TimedOut,
    /// The receiver has missed that many values. The next call returns the oldest value that is left.
    #[error("the channel skipped {0} values")]
    Lagged(u64),
    /// All values were received, and all senders are gone.
    #[error("the channel is closed")]
    Closed,
    /// The caller cannot wait, or its wait failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

/// The reason why [`Receiver::try_recv`](super::Receiver::try_recv) has no value.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryRecvError {
    /// There is no value now.
    #[error("the channel is empty")]
    Empty,
    /// The receiver has missed that many values. The next call returns the oldest value that is left.
    #[error("the channel skipped {0} values")]
    Lagged(u64),
    /// All values were received, and all senders are gone.
    #[error("the channel is closed")]
    Closed,
}

impl RecvTimeoutError {
    /// Returns the error of a wait without a limit.
    pub(super) fn without_limit(self) -> RecvError {
        match self {
            RecvTimeoutError::Lagged(missed) => RecvError::Lagged(missed),
            RecvTimeoutError::Closed => RecvError::Closed,
            RecvTimeoutError::Loop(error) => RecvError::Loop(error),
            RecvTimeoutError::TimedOut => unreachable!("a wait without a limit does not time out"),
        }
    }
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> io::Error {
        match error {
            RecvError::Lagged(_) => io::Error::other(error),
            RecvError::Closed => io::Error::new(io::ErrorKind::BrokenPipe, error),
            RecvError::Loop(error) => error.into(),
        }
    }
}

impl From<RecvTimeoutError> for io::Error {
    fn from(error: RecvTimeoutError) -> io::Error {
        match error {
            RecvTimeoutError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, error),
            RecvTimeoutError::Lagged(_) => io::Error::other(error),
            RecvTimeoutError::Closed => io::Error::new(io::ErrorKind::BrokenPipe, error),
            RecvTimeoutError::Loop(error) => error.into(),
        }
    }
}

impl From<TryRecvError> for io::Error {
    fn from(error: TryRecvError) -> io::Error {
        let kind = match error {
            TryRecvError::Empty => io::ErrorKind::WouldBlock,
            TryRecvError::Lagged(_) => io::ErrorKind::Other,
            TryRecvError::Closed => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error)
    }
}
