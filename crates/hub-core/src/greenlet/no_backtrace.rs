//! No backtraces of greenlets: the feature `backtrace` is off, or it was not tried on this system.
//!
//! Ground rule: nothing is read.

use super::control::ControlRef;
use crate::base::unwind::{Frames, Tables};

/// Whether this build makes backtraces.
pub(crate) const AVAILABLE: bool = false;

/// Returns no backtrace.
pub(crate) fn suspended(_: ControlRef, _: &Tables) -> Option<Frames> {
    None
}

/// Returns no backtrace.
pub(crate) fn running(_: ControlRef, _: &Tables) -> Option<Frames> {
    None
}
