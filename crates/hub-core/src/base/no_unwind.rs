//! No backtraces: the feature `backtrace` is off, or it was not tried on this system.

use std::convert::Infallible;
use std::fmt;

/// A backtrace, of which there is none.
#[derive(Clone, Debug)]
pub(crate) struct Frames(Infallible);

impl Frames {
    pub(crate) fn to_text(&self, _: &mut Names) -> String {
        match self.0 {}
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

/// The unwind tables of the process, of which there are none.
pub(crate) struct Tables;

impl Tables {
    pub(crate) fn of_process() -> Option<Tables> {
        None
    }
}

/// The names of calls, of which there are none.
#[derive(Default)]
pub(crate) struct Names(());
