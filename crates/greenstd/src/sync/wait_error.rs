use std::io;

use hub_core::LoopError;

use super::wait_queue::Unserved;

/// The reason why a wait with a limit has no result.
///
/// ```
/// use greenhub::sync::{Semaphore, WaitError};
/// use std::time::Duration;
/// let semaphore = Semaphore::new(0);
/// assert!(!semaphore.try_acquire(), "not now");
/// let waited = semaphore.acquire_timeout(Duration::from_millis(1));
/// assert!(matches!(waited, Err(WaitError::TimedOut)));
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The limit was reached.
    #[error("timed out")]
    TimedOut,
    /// The caller cannot wait, or its wait failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

impl WaitError {
    /// Returns the error of a wait without a limit.
    pub(crate) fn without_limit(self) -> LoopError {
        match self {
            WaitError::Loop(error) => error,
            WaitError::TimedOut => unreachable!("a wait without a limit does not time out"),
        }
    }
}

impl<P> From<Unserved<P>> for WaitError {
    /// Drops the payload.
    fn from(ended: Unserved<P>) -> WaitError {
        match ended {
            Unserved::TimedOut(_) => WaitError::TimedOut,
            Unserved::Failed(error, _) => WaitError::Loop(error),
        }
    }
}

impl From<WaitError> for io::Error {
    fn from(error: WaitError) -> io::Error {
        match error {
            WaitError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, error),
            WaitError::Loop(error) => error.into(),
        }
    }
}
