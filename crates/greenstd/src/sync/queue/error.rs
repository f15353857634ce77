use std::fmt;
use std::io;

use hub_core::LoopError;

use crate::sync::wait_queue::Unserved;

/// The reason why an item was not put.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PutError<T> {
    /// There is no room now. Holds the item.
    #[error("the queue is full")]
    Full(T),
    /// There was no room in time. Holds the item.
    #[error("timed out: the queue is full")]
    TimedOut(T),
    /// The queue is closed. Holds the item.
    #[error("the queue is closed")]
    Closed(T),
    /// The caller cannot wait, or its wait failed. Holds the item, unless a getter took it before the error came.
    #[error("{error}")]
    Loop {
        /// The reason.
        error: LoopError,
        /// The item, unless a getter took it.
        item: Option<T>,
    },
}

/// The reason why no item was returned.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// There is no item now.
    #[error("the queue is empty")]
    Empty,
    /// There was no item in time.
    #[error("timed out: the queue is empty")]
    TimedOut,
    /// The queue is closed, and there is no item left.
    #[error("the queue is closed and empty")]
    Closed,
    /// The caller cannot wait, or its wait failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutError::Full(_) => f.write_str("Full(..)"),
            PutError::TimedOut(_) => f.write_str("TimedOut(..)"),
            PutError::Closed(_) => f.write_str("Closed(..)"),
            PutError::Loop { error, .. } => f.debug_struct("Loop").field("error", error).finish_non_exhaustive(),
        }
    }
}

impl From<Unserved> for GetError {
    fn from(ended: Unserved) -> GetError {
        match ended {
            Unserved::TimedOut(()) => GetError::TimedOut,
            Unserved::Failed(error, _) => GetError::Loop(error),
        }
    }
}

impl<T> From<PutError<T>> for io::Error {
    /// Drops the item.
    fn from(error: PutError<T>) -> io::Error {
        match error {
            PutError::Full(_) => io::Error::new(io::ErrorKind::WouldBlock, error.to_string()),
            PutError::TimedOut(_) => io::Error::new(io::ErrorKind::TimedOut, error.to_string()),
            PutError::Closed(_) => io::Error::new(io::ErrorKind::BrokenPipe, error.to_string()),
            PutError::Loop { error, .. } => error.into(),
        }
    }
}

impl From<GetError> for io::Error {
    fn from(error: GetError) -> io::Error {
        match error {
            GetError::Empty => io::Error::new(io::ErrorKind::WouldBlock, error),
            GetError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, error),
            GetError::Closed => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            GetError::Loop(error) => error.into(),
        }
    }
}
