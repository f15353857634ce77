//! The failure of a green thread whose result is never taken.

use super::super::unhandled::{self, LostError};
use super::super::unwind::contained;
use crate::error::GreenError;

/// A failure that was never taken.
pub(super) enum Failure {
    /// The green thread panicked, or exited with an error: this one.
    Ended(String),
    /// It returned an `Err`.
    Returned(LostError),
}

/// Finds the error in a result that was never taken.
pub(super) trait Unhandled<T> {
    fn error_in(value: &T) -> Option<LostError>;
}

/// In a result that may borrow: without its message.
pub(super) struct Borrowed;

impl<T> Unhandled<T> for Borrowed {
    #[inline]
    fn error_in(value: &T) -> Option<LostError> {
        unhandled::error_in(value)
    }
}

/// In a result that owns what it holds.
pub(super) struct Owned;

impl<T: 'static> Unhandled<T> for Owned {
    #[inline]
    fn error_in(value: &T) -> Option<LostError> {
        unhandled::error_with_message_in(value)
    }
}

/// In a result that owns what it holds and is `None` if the body was not run.
pub(super) struct OwnedOption;

impl<T: 'static> Unhandled<Option<T>> for OwnedOption {
    #[inline]
    fn error_in(value: &Option<T>) -> Option<LostError> {
        value.as_ref().and_then(unhandled::error_with_message_in)
    }
}

/// The text of an error, which foreign code makes.
pub(super) fn text_of(error: &GreenError) -> String {
    contained(|| error.to_string()).unwrap_or_else(unhandled::no_text)
}
