//! The panic of a green thread, kept for the green thread that joins it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::contain::drop_contained;

/// The panic of a green thread: its message, and its payload for the first taker.
///
/// Clones share the payload. It is dropped with the last clone, or earlier by the code that has taken it.
///
/// ```
/// use greenhub::GreenError;
/// let green = greenhub::spawn(|| -> () { std::panic::panic_any(7) });
/// match green.join() {
///     Err(GreenError::Panic(panic)) => assert_eq!(panic.into_payload().downcast_ref(), Some(&7)),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone)]
pub struct Panic(Arc<Caught>);

struct Caught {
    message: Box<str>,
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Panic {
    /// Creates the panic of a caught payload.
    ///
    /// ```
    /// use greenhub::GreenError;
    /// use greenhub::greenthread::Panic;
    /// use greenhub::sync::Event;
    /// let event: Event<()> = Event::new();
    /// if let Err(payload) = std::panic::catch_unwind(|| panic!("the work")) {
    ///     event.send_error(GreenError::Panic(Panic::new(payload)))?;
    /// }
    /// assert!(event.wait().unwrap_err().is_panic());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(payload: Box<dyn Any + Send>) -> Panic {
        let message = payload_text(payload.as_ref()).into();
        Panic(Arc::new(Caught { message, payload: Mutex::new(Some(payload)) }))
    }

    /// Returns the message of the panic.
    ///
    /// A payload that is no text has a message that says so.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the payload of the panic.
    ///
    /// Returns the message as a `String` if a clone has taken the payload.
    #[must_use]
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        let taken = self.0.payload.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| Box::new(String::from(self.message())))
    }
}

impl Drop for Caught {
    /// The payload is foreign: dropping it may panic again.
    fn drop(&mut self) {
        if let Some(payload) = self.payload.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            drop_contained(payload);
        }
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.message(), f)
    }
}

/// Returns the message of a panic payload.
pub(crate) fn payload_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "a payload that is not text"
    }
}
