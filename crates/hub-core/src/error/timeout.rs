//! The error of a scope that ran out of time.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// The error of a [`with_timeout`](crate::with_timeout) scope that ran out of time.
///
/// Eventlet's `Timeout`, as a value. Two timeouts are equal if they come from the same scope.
#[derive(Clone)]
pub struct Timeout {
    number: u64,
    after: Option<Duration>,
    unsupported: bool,
}

impl Timeout {
    /// Returns the duration of the timeout, or `None` if it is no longer known.
    #[must_use]
    pub fn after(&self) -> Option<Duration> {
        self.after
    }

    /// Returns whether the function did not run at all.
    ///
    /// With `panic = "abort"` nothing can be interrupted.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.unsupported
    }

    /// Creates the timeout of the scope with that number.
    pub(crate) fn of_scope(number: u64, after: Duration) -> Timeout {
        Timeout { number, after: Some(after), unsupported: false }
    }

    /// Creates the timeout of a scope that could not be opened, because nothing can be unwound.
    pub(crate) fn unsupported(number: u64, after: Duration) -> Timeout {
        Timeout { number, after: Some(after), unsupported: true }
    }

    /// Creates the timeout of an exit that unwound beyond its scope.
    pub(crate) fn orphan(number: u64) -> Timeout {
        Timeout { number, after: None, unsupported: false }
    }
}

impl PartialEq for Timeout {
    fn eq(&self, other: &Timeout) -> bool {
        self.number == other.number
    }
}

impl Eq for Timeout {}

/// The message, as of `Display`: a `main` that returns an error prints this form.
impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unsupported {
            return f.write_str("timeouts need unwinding, and this program was built with panic = \"abort\"");
        }
        match self.after {
            Some(after) if after == Duration::from_secs(1) => f.write_str("timed out after 1 second"),
            Some(after) => write!(f, "timed out after {} seconds", after.as_secs_f64()),
            None => f.write_str("timed out"),
        }
    }
}

impl Error for Timeout {}

impl From<Timeout> for io::Error {
    fn from(timeout: Timeout) -> io::Error {
        let kind = if timeout.unsupported { io::ErrorKind::Unsupported } else { io::ErrorKind::TimedOut };
        io::Error::new(kind, timeout)
    }
}
