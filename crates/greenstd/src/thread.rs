//! std's `thread`, green: what std does with OS threads is done with green threads of the calling OS thread.
//!
//! Work for other cores is for OS threads: those of [`os`] end their green threads in order.

pub mod os;

pub use std::thread::{available_parallelism, panicking};

pub use hub_core::{
    Builder, GreenThread, GreenThread as JoinHandle, Scope, ScopedGreenThread, ScopedGreenThread as ScopedJoinHandle,
    Thread, ThreadId, current, park, park_timeout, scope, sleep, spawn, yield_now,
};
