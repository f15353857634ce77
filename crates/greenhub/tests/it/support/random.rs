//! Random numbers for randomized tests.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::Duration;

/// A small generator of random numbers (splitmix64).
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % end as u64) as usize
    }

    /// Returns an independent generator, for a user that draws at nondeterministic times.
    pub(crate) fn fork(&mut self) -> Random {
        Random(self.below(usize::MAX) as u64)
    }

    /// Returns a random time of less than 200 µs.
    pub(crate) fn moment(&mut self) -> Duration {
        Duration::from_micros(self.below(200) as u64)
    }
}
