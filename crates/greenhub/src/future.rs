//! Futures on every hub, without a runtime.
//!
//! A green thread waits for a future with [`block_on`]: other green threads run until the future is ready. No executor
//! is involved, the hub may be any, and the future need be neither `Send` nor `'static`. The way back, from a green
//! thread to a future, is [`defer_to_green_thread`].
//!
//! | to | see |
//! |---|---|
//! | wait for a future | [`block_on`], [`try_block_on`] |
//! | run a future in a green thread of its own | [`spawn_future`] |
//! | await what a green thread returns | [`defer_to_green_thread`], [`Deferred`] |
//! | the same from another OS thread, or from a runtime there | [`Remote::defer`](crate::hub::Remote::defer), [`RemoteDeferred`] |
//! | wait for a time in a future | [`sleep`] |
//! | give a green socket or pipe to asynchronous code | [`AsyncIo`] |
//! | call code that waits from within a future | [`defer_to_green_thread`], or [`block_in_place`] |
//! | let several green threads wait for one future | `futures::future::Shared`, with a [`block_on`] in each |
//!
//! ```
//! use greenhub::future::{block_on, defer_to_green_thread};
//! use greenhub::sleep;
//! use std::time::Duration;
//! let total = block_on(async {
//!     let one = defer_to_green_thread(|| {
//!         sleep(Duration::from_millis(1)); // straight-line code
//!         20
//!     });
//!     let other = defer_to_green_thread(|| 22);
//!     Ok::<_, greenhub::GreenError>(one.await? + other.await?)
//! })?;
//! assert_eq!(total, 42);
//! # Ok::<(), greenhub::GreenError>(())
//! ```

pub use greenstd::future::{AsyncIo, PollAccept, PollIo, PollRead, PollWrite};
#[cfg(feature = "hyper-io")]
pub use greenstd::future::{GreenExecutor, GreenTimer};
pub use hub_core::future::{
    Deferred, RemoteDeferred, Sleep, block_in_place, block_on, defer_to_green_thread, sleep, spawn_future, try_block_on,
};
