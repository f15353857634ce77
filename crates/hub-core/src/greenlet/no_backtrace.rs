//! No backtraces of greenlets: the feature `backtrace` is off, or it was not tried on this system.
//!
//! Ground rule: nothing is read.

use super::control::ControlRef;
use crate::base::unwind::Frames;

/// Whether this build makes backtraces.
pub(crate) const AVAILABLE: bool = false;

/// Returns no backtrace.
pub(crate) fn suspended(_: ControlRef) -> Option<Frames> {
    None
}

/// Returns no backtrace.
pub(crate) fn running() -> Option<Frames> {
    None
}
