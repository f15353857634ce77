//! Random numbers for randomized tests, and the seeds of these.
//!
//! `GREENHUB_SEEDS` sets the number of programs that a randomized test runs, and `GREENHUB_SEED` the first seed.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::ops::Range;
use std::time::Duration;

pub(crate) use fastrand::Rng;

/// Returns the seeds of a randomized test: `usual` of them, unless `GREENHUB_SEEDS` sets another number.
///
/// A program of the test takes as long as `weight` programs of `model.rs`, the scale of the variable.
pub(crate) fn seeds(usual: u64, weight: u64) -> Range<u64> {
    let first = number("GREENHUB_SEED").unwrap_or(0);
    let count = number("GREENHUB_SEEDS").map_or(usual, |seeds| (seeds / weight).max(1));
    first..first + count
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

pub(crate) trait Moment {
    /// Returns a random time of less than 200 µs.
    fn moment(&mut self) -> Duration;
}

impl Moment for Rng {
    fn moment(&mut self) -> Duration {
        Duration::from_micros(self.u64(..200))
    }
}
