//! std's `thread`, with green threads of the calling OS thread in place of OS threads.
//!
//! To use other cores, start OS threads with [`os`]. Such an OS thread unwinds its green threads when it ends.

pub mod os;

pub use std::thread::{available_parallelism, panicking};

pub use hub_core::{
    Builder, GreenThread as JoinHandle, Scope, ScopedGreenThread as ScopedJoinHandle, Thread, ThreadId, current, park,
    park_timeout, scope, sleep, spawn, try_sleep, yield_now,
};
