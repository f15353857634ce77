//! Tools of the library's own that know nothing of greenlets: what forks, signals and other OS threads require.
//!
//! [`sync`] (std's primitives, or those of loom), [`fork`], [`os_thread`], [`wait_reason`], [`dormant`] (which OS threads
//! sleep until another one wakes them).

pub(crate) mod dormant;
pub(crate) mod fork;
pub(crate) mod os_thread;
pub(crate) mod sync;
pub(crate) mod wait_reason;
