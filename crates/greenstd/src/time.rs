//! std's `time`, unchanged: reading a clock never blocks. To wait there is [`thread::sleep`](crate::thread::sleep).

pub use std::time::*;
