//! The values that plain greenlets pass to each other.

use std::any::Any;
use std::fmt;

use smallbox::{SmallBox, smallbox};

/// A value of any type, passed between [`Greenlet`](crate::Greenlet)s.
///
/// A value of at most one word, such as a number or a reference, allocates no memory.
///
/// ```
/// let payload = greenhub::greenlet::Payload::new(7);
/// assert!(payload.is::<i32>());
/// let payload = payload.downcast::<String>().unwrap_err();
/// assert_eq!(payload.downcast::<i32>().unwrap(), 7);
/// ```
pub struct Payload(Value);

/// The value, by its size. A large one is boxed by std: `smallbox` copies it several times in debug builds, and does
/// not free its memory if its destructor panics.
enum Value {
    Word(SmallBox<dyn Any, usize>),
    Boxed(Box<dyn Any>),
}

/// The value is never pinned.
impl Unpin for Payload {}

/// The value returned by a greenlet that was killed.
struct Killed;

impl Payload {
    /// Creates a payload that contains `value`.
    #[must_use]
    #[inline]
    pub fn new<T: 'static>(value: T) -> Payload {
        if size_of::<T>() > size_of::<usize>() || align_of::<T>() > align_of::<usize>() {
            return Payload(Value::Boxed(Box::new(value)));
        }
        Payload::word(value)
    }

    /// A function of its own, so that in debug builds its copies of the value are no part of the frame of
    /// [`new`](Payload::new).
    #[inline]
    fn word<T: 'static>(value: T) -> Payload {
        Payload(Value::Word(smallbox!(value)))
    }

    /// Creates an empty payload: `()`.
    #[must_use]
    pub fn unit() -> Payload {
        Payload::new(())
    }

    /// Creates the payload that a killed greenlet returns to its parent.
    pub(super) fn kill() -> Payload {
        Payload::new(Killed)
    }

    /// Returns whether the payload comes from a greenlet that was killed.
    #[must_use]
    pub fn is_kill(&self) -> bool {
        self.is::<Killed>()
    }

    /// Returns whether the payload contains a `T`.
    #[must_use]
    #[inline]
    pub fn is<T: 'static>(&self) -> bool {
        match &self.0 {
            Value::Word(value) => value.is::<T>(),
            Value::Boxed(value) => value.is::<T>(),
        }
    }

    /// Returns the value as a `T`.
    ///
    /// # Errors
    ///
    /// Returns the payload itself, if the value is of another type.
    #[inline]
    pub fn downcast<T: 'static>(self) -> Result<T, Payload> {
        match self.0 {
            Value::Word(value) => {
                value.downcast().map(SmallBox::into_inner).map_err(|value| Payload(Value::Word(value)))
            }
            Value::Boxed(value) => value.downcast().map(|value| *value).map_err(|value| Payload(Value::Boxed(value))),
        }
    }
}

impl Default for Payload {
    fn default() -> Payload {
        Payload::unit()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_kill() { "Payload(kill)" } else { "Payload(..)" })
    }
}
