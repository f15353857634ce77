//! No measurements: the feature `metrics` is off, and nothing of this module is left after compilation.

use std::time::Duration;

use super::stats::Stats;
use crate::base::id::HubId;
use crate::hub::Time;

/// Returns false.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    false
}

/// Does nothing.
#[inline(always)]
pub(crate) fn record_pool_wait(_pool: &'static str, _waited: impl FnOnce() -> Duration) {}

/// Measures nothing.
pub(super) struct Meter;

impl Meter {
    pub(super) fn new() -> Meter {
        Meter
    }

    #[inline(always)]
    pub(super) fn begin_turn(&self, _wait: u64, _now: Time) {}

    #[inline(always)]
    pub(super) fn forget_turn(&self) {}

    #[inline(always)]
    pub(super) fn end_turn(&self, _wait: u64, _hub: (HubId, &'static str), _now: Time, _stats: impl Fn() -> Stats) {}

    #[inline(always)]
    pub(super) fn longest_wait(&self, _now: Time) -> Option<Duration> {
        None
    }

    #[inline(always)]
    pub(super) fn end(&self, _stats: impl FnOnce() -> Stats) {}
}
