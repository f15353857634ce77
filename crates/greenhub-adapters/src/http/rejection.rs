//! Responses to requests that are not served.

use std::fmt;
use std::io;

use ::http::StatusCode;

/// The response to a request that the server rejects.
#[derive(Clone, Debug)]
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

impl Rejection {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Rejection {
        Rejection { status, reason: reason.into() }
    }

    pub(super) fn bad(reason: impl Into<String>) -> Rejection {
        Rejection::new(StatusCode::BAD_REQUEST, reason)
    }

    /// Returns the rejection of a request that came too late, or the error of a connection that has failed.
    pub(super) fn of_late(error: io::Error, what: &str) -> Result<Rejection, io::Error> {
        match error.kind() {
            io::ErrorKind::TimedOut => {
                Ok(Rejection::new(StatusCode::REQUEST_TIMEOUT, format!("the {what} did not arrive in time")))
            }
            _ => Err(error),
        }
    }

    /// Returns the kind of the error that a handler gets for it.
    pub(super) fn kind(&self) -> io::ErrorKind {
        match self.status {
            StatusCode::REQUEST_TIMEOUT => io::ErrorKind::TimedOut,
            StatusCode::PAYLOAD_TOO_LARGE => io::ErrorKind::FileTooLarge,
            _ => io::ErrorKind::InvalidData,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Rejection {}
