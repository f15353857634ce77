//! std's `time`, unchanged: reading a clock never blocks. [`thread::sleep`](crate::thread::sleep) waits.

pub use std::time::*;
