//! Futures on every hub, without a runtime.
//!
//! [`block_on`] waits for a future in a green thread, and [`defer_to_green_thread`] makes a future of a green thread.
//! The module of this name in `greenhub` has a table of all uses.

pub use crate::api::future::deferred::{Deferred, defer_to_green_thread};
pub use crate::api::future::remote::RemoteDeferred;
pub use crate::api::future::{block_in_place, block_on, spawn_future, try_block_on};
pub use crate::wait::sleep::{Sleep, sleep};
