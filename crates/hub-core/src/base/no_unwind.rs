//! No backtraces: the feature `backtrace` is off, or it was not tried on this system.

use std::convert::Infallible;
use std::fmt;

/// A backtrace, of which there is none.
#[derive(Clone, Debug)]
pub(crate) struct Frames(Infallible);

impl fmt::Display for Frames {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}
