//! std's `io`, unchanged: its traits are what green sockets implement.
//!
//! Standard input and output are std's own: reading from a terminal blocks every green thread of the thread.

pub use std::io::*;
