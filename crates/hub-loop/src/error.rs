//! The errors of watchers.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;

use hub_core::{GreenError, LoopError, TrampolineError};

/// The reason why a watcher could not be started or changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatcherError {
    /// The watcher was closed.
    #[error("the watcher was closed; make another one")]
    Closed,
    /// The setting cannot change while the watcher is active.
    #[error("the watcher is active; stop it before you change its {setting}")]
    Active {
        /// The setting.
        setting: &'static str,
    },
    /// A green thread waits for the watcher.
    #[error(
        "a green thread waits for the watcher; start it when the wait has ended, which `stop` and `cancel_wait` bring about"
    )]
    Waited,
    /// The watcher has no callback yet.
    #[error("the watcher has no callback yet; call `start` first")]
    NoCallback,
    /// The hub of the watcher was replaced or shut down. gevent's `HubDestroyed`.
    #[error("the hub of this watcher was replaced or shut down; make the watcher anew from `event_loop()`")]
    HubDestroyed,
    /// The hub refuses the descriptor.
    #[error(transparent)]
    Refused(#[from] TrampolineError),
    /// The signal cannot be watched.
    #[error("signal {signal} cannot be watched: {reason}")]
    Signal {
        /// The number of the signal.
        signal: c_int,
        /// The reason, and the way out.
        reason: &'static str,
    },
    /// The process cannot be watched.
    #[error("process {pid} cannot be watched: {reason}")]
    Child {
        /// The ID of the process.
        pid: u32,
        /// The reason, and the way out.
        reason: &'static str,
    },
    /// The system refuses something that the watcher needs.
    #[error("the watcher cannot {operation}: {error}")]
    System {
        /// The operation.
        operation: &'static str,
        /// The error of the system.
        #[source]
        error: Arc<io::Error>,
    },
}

impl WatcherError {
    pub(crate) fn system(operation: &'static str, error: impl Into<io::Error>) -> WatcherError {
        WatcherError::System { operation, error: Arc::new(error.into()) }
    }
}

/// The reason why a wait for a watcher or a [`Waiter`](crate::Waiter) ended without its event.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The limit has elapsed.
    #[error("the wait for a watcher timed out")]
    TimedOut,
    /// Another green thread waits for the watcher or waiter, or the watcher is active with a callback. gevent's
    /// `ConcurrentObjectUseError`.
    #[error("another wait or a callback uses this watcher or waiter; make one for each wait")]
    ConcurrentUse,
    /// The watcher was stopped during the wait.
    #[error("the watcher was stopped during the wait")]
    Stopped,
    /// The watcher was closed during the wait.
    #[error("the watcher was closed during the wait")]
    Closed,
    /// The wait was cancelled with an error, or a [`Waiter`](crate::Waiter) got one.
    #[error("the wait was cancelled: {0}")]
    Cancelled(GreenError),
    /// The watcher could not be started.
    #[error(transparent)]
    Watcher(#[from] WatcherError),
    /// The caller cannot wait.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

impl From<WatcherError> for io::Error {
    fn from(error: WatcherError) -> io::Error {
        let kind = match &error {
            WatcherError::Closed => io::ErrorKind::NotConnected,
            WatcherError::Active { .. } | WatcherError::Waited => io::ErrorKind::ResourceBusy,
            WatcherError::NoCallback | WatcherError::Signal { .. } | WatcherError::Child { .. } => {
                io::ErrorKind::InvalidInput
            }
            WatcherError::HubDestroyed => io::ErrorKind::Other,
            WatcherError::Refused(error) => return error.clone().into(),
            WatcherError::System { error: cause, .. } => cause.kind(),
        };
        io::Error::new(kind, error)
    }
}

impl From<WaitError> for io::Error {
    fn from(error: WaitError) -> io::Error {
        let kind = match &error {
            WaitError::TimedOut => io::ErrorKind::TimedOut,
            WaitError::ConcurrentUse => io::ErrorKind::ResourceBusy,
            WaitError::Stopped => io::ErrorKind::ConnectionAborted,
            WaitError::Closed => io::ErrorKind::NotConnected,
            WaitError::Cancelled(cause) => io::Error::from(cause.clone()).kind(),
            WaitError::Watcher(error) => return error.clone().into(),
            WaitError::Loop(error) => return error.clone().into(),
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: impl Into<io::Error>) -> io::ErrorKind {
        error.into().kind()
    }

    #[test]
    fn the_error_of_a_wait_has_the_kind_of_its_cause() {
        assert_eq!(kind(WaitError::TimedOut), io::ErrorKind::TimedOut);
        assert_eq!(kind(WaitError::ConcurrentUse), io::ErrorKind::ResourceBusy);
        assert_eq!(kind(WaitError::Closed), io::ErrorKind::NotConnected);
        assert_eq!(kind(WaitError::Cancelled(GreenError::Deadlock)), io::ErrorKind::Deadlock);
        assert_eq!(kind(WaitError::Watcher(WatcherError::NoCallback)), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_error_of_a_watcher_has_the_kind_of_its_cause() {
        assert_eq!(kind(WatcherError::Closed), io::ErrorKind::NotConnected);
        assert_eq!(kind(WatcherError::Active { setting: "limit" }), io::ErrorKind::ResourceBusy);
        assert_eq!(kind(WatcherError::HubDestroyed), io::ErrorKind::Other);
        assert_eq!(kind(WatcherError::Refused(TrampolineError::TimedOut { fd: 0 })), io::ErrorKind::TimedOut);
        assert_eq!(kind(WatcherError::system("wait", io::ErrorKind::NotFound)), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_conversion_keeps_the_text_of_the_error() {
        for error in [WaitError::TimedOut, WaitError::Closed, WaitError::Cancelled(GreenError::Deadlock)] {
            assert_eq!(io::Error::from(error.clone()).to_string(), error.to_string());
        }
    }
}
