//! What plain greenlets hand to each other.

use std::any::Any;
use std::fmt;

/// A value of any type, as [`Greenlet`](crate::Greenlet)s hand it to each other.
///
/// ```
/// let payload = hub_core::Payload::new(7);
/// assert!(payload.is::<i32>());
/// let payload = payload.downcast::<String>().unwrap_err();
/// assert_eq!(payload.downcast::<i32>().unwrap(), 7);
/// ```
pub struct Payload(Box<dyn Any>);

/// What a greenlet that was made to exit returns.
struct Exited;

impl Payload {
    /// A payload with `value` in it.
    #[must_use]
    pub fn new<T: 'static>(value: T) -> Payload {
        Payload(Box::new(value))
    }

    /// A payload with nothing in it: `()`.
    #[must_use]
    pub fn unit() -> Payload {
        Payload::new(())
    }

    /// What a greenlet that was made to exit returns to its parent.
    pub(super) fn exit() -> Payload {
        Payload::new(Exited)
    }

    /// Whether it comes from a greenlet that was made to exit, instead of from one that returned.
    #[must_use]
    pub fn is_exit(&self) -> bool {
        self.is::<Exited>()
    }

    /// Whether a `T` is in it.
    #[must_use]
    pub fn is<T: 'static>(&self) -> bool {
        self.0.is::<T>()
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// The payload itself, if the value is of another type.
    pub fn downcast<T: 'static>(self) -> Result<T, Payload> {
        self.0.downcast().map(|value| *value).map_err(Payload)
    }
}

impl Default for Payload {
    fn default() -> Payload {
        Payload::unit()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_exit() { "Payload(exit)" } else { "Payload(..)" })
    }
}
