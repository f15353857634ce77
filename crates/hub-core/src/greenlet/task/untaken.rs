//! The failure of a green thread whose result is never taken.

use super::super::exit::contained;
use super::super::unhandled::{self, LostError};
use crate::error::GreenError;

/// A failure that was never taken.
pub(super) enum Failure {
    /// The green thread panicked, or exited with an error. Contains the text.
    Ended(String),
    /// The green thread returned an `Err`.
    Returned(LostError),
}

/// Finds the error in a result that was never taken.
pub(super) trait Unhandled<T> {
    fn error_in(value: &T) -> Option<LostError>;
}

/// For a result that may borrow: without the message.
pub(super) struct Borrowed;

impl<T> Unhandled<T> for Borrowed {
    #[inline]
    fn error_in(value: &T) -> Option<LostError> {
        unhandled::error_in(value)
    }
}

/// For a result that owns its content.
pub(super) struct Owned;

impl<T: 'static> Unhandled<T> for Owned {
    #[inline]
    fn error_in(value: &T) -> Option<LostError> {
        unhandled::error_with_message_in(value)
    }
}

/// For a result that owns its content, and is `None` if the body was not run.
pub(super) struct OwnedOption;

impl<T: 'static> Unhandled<Option<T>> for OwnedOption {
    #[inline]
    fn error_in(value: &Option<T>) -> Option<LostError> {
        value.as_ref().and_then(unhandled::error_with_message_in)
    }
}

/// Returns the text of an error. Foreign code makes it.
pub(super) fn text_of(error: &GreenError) -> String {
    contained(|| error.to_string()).unwrap_or_else(unhandled::no_text)
}
