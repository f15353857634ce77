//! No spans: the feature `tracing` is off, and nothing of this module is left after compilation.

use super::control::{ControlRef, Waiter};
use super::task::cell::TaskRef;

#[inline(always)]
pub(crate) fn open(_task: &TaskRef) {}

#[inline(always)]
pub(super) fn exited(_me: ControlRef) -> bool {
    false
}

#[inline(always)]
pub(super) fn exited_for(_park: Waiter) -> bool {
    true
}

#[inline(always)]
pub(super) fn entered(_me: ControlRef) {}

#[inline(always)]
pub(super) fn back() {}

pub(super) struct Away;

impl Away {
    #[inline(always)]
    pub(super) fn new() -> Away {
        Away
    }
}

#[inline(always)]
pub(super) fn ended(_me: ControlRef) {}

pub(super) struct Unentered;

#[inline(always)]
pub(super) fn unentered(_target: ControlRef) -> Unentered {
    Unentered
}
