use std::io;

use hub_core::LoopError;

use super::wait_queue::Unserved;

/// The reason why a wait on a channel has no result.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// There is nothing to receive, and nothing will come.
    #[error("the channel is closed")]
    Closed,
    /// The caller cannot wait, or its wait failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

/// The reason why a wait on a channel with a limit has no result.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvTimeoutError {
    /// The limit was reached.
    #[error("timed out")]
    TimedOut,
    /// There is nothing to receive, and nothing will come.
    #[error("the channel is closed")]
    Closed,
    /// The caller cannot wait, or its wait failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

impl RecvTimeoutError {
    /// Returns the error of a wait without a limit.
    pub(super) fn without_limit(self) -> RecvError {
        match self {
            RecvTimeoutError::Closed => RecvError::Closed,
            RecvTimeoutError::Loop(error) => RecvError::Loop(error),
            RecvTimeoutError::TimedOut => unreachable!("a wait without a limit does not time out"),
        }
    }
}

impl From<Unserved> for RecvTimeoutError {
    fn from(ended: Unserved) -> RecvTimeoutError {
        match ended {
            Unserved::TimedOut(()) => RecvTimeoutError::TimedOut,
            Unserved::Failed(error, _) => RecvTimeoutError::Loop(error),
        }
    }
}

impl From<RecvError> for RecvTimeoutError {
    fn from(error: RecvError) -> RecvTimeoutError {
        match error {
            RecvError::Closed => RecvTimeoutError::Closed,
            RecvError::Loop(error) => RecvTimeoutError::Loop(error),
        }
    }
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> io::Error {
        match error {
            RecvError::Closed => io::Error::new(io::ErrorKind::BrokenPipe, error),
            RecvError::Loop(error) => error.into(),
        }
    }
}

impl From<RecvTimeoutError> for io::Error {
    fn from(error: RecvTimeoutError) -> io::Error {
        match error {
            RecvTimeoutError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, error),
            RecvTimeoutError::Closed => io::Error::new(io::ErrorKind::BrokenPipe, error),
            RecvTimeoutError::Loop(error) => error.into(),
        }
    }
}
