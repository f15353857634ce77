//! The error of a scope that ended with a linked green thread.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::GreenError;

/// The error of a scope whose [linked](crate::GreenThread::with_link) green thread has ended.
#[derive(Clone, Debug)]
pub struct Linked(Option<Arc<LinkedEnd>>);

#[derive(Debug)]
struct LinkedEnd {
    name: String,
    error: Option<GreenError>,
}

impl Linked {
    pub(crate) fn new(name: String, error: Option<&GreenError>) -> Linked {
        Linked(Some(Arc::new(LinkedEnd { name, error: error.cloned() })))
    }

    /// Creates the error of a scope that could not be opened, because nothing can be unwound.
    pub(crate) fn unsupported() -> Linked {
        Linked(None)
    }

    /// Returns the error of the linked green thread, or `None` if it returned a value.
    ///
    /// ```
    /// let green = greenhub::spawn(|| ());
    /// green.kill();
    /// let linked = green.with_link(|| ()).unwrap_err();
    /// assert!(linked.error().unwrap().is_kill());
    /// ```
    #[must_use]
    pub fn error(&self) -> Option<&GreenError> {
        self.0.as_ref()?.error.as_ref()
    }

    /// Returns whether the function did not run at all.
    ///
    /// With `panic = "abort"` nothing can be interrupted.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Linked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_deref() {
            Some(LinkedEnd { name, error: None }) => write!(f, "the linked green thread {name} has returned"),
            Some(LinkedEnd { name, error: Some(error) }) => {
                write!(f, "the linked green thread {name} has ended: {error}")
            }
            None => f.write_str("linked scopes need unwinding, and this program was built with panic = \"abort\""),
        }
    }
}

impl Error for Linked {}

impl From<Linked> for io::Error {
    fn from(linked: Linked) -> io::Error {
        let kind = if linked.is_unsupported() { io::ErrorKind::Unsupported } else { io::ErrorKind::Other };
        io::Error::new(kind, linked)
    }
}
