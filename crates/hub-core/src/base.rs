//! Tools that do not depend on greenlets: support for forks, signals and other OS threads.
//!
//! [`sync`] contains std's primitives, or those of loom. [`dormant`] tracks OS threads that sleep until another one
//! wakes them. The others are [`at_exit`], [`contain`], [`fork`], [`id`], [`os_thread`], [`prefetch`] and
//! [`wait_reason`].

pub(crate) mod at_exit;
pub(crate) mod contain;
pub(crate) mod dormant;
pub(crate) mod fork;
pub(crate) mod id;
pub(crate) mod os_thread;
pub(crate) mod prefetch;
pub(crate) mod sync;
pub(crate) mod wait_reason;
