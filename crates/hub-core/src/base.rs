//! Tools that do not depend on greenlets: support for forks, signals and other OS threads.
//!
//! [`sync`] contains std's primitives, or those of loom. [`dormant`] tracks OS threads that sleep until another one
//! wakes them. [`unwind`] makes backtraces. The others are [`at_exit`], [`contain`], [`fork`], [`id`], [`os_thread`],
//! [`own_stack`], [`prefetch`], `read_word` and [`wait_reason`].

pub(crate) mod at_exit;
pub(crate) mod contain;
pub(crate) mod dormant;
pub(crate) mod fork;
pub(crate) mod id;
pub(crate) mod os_thread;
pub(crate) mod own_stack;
pub(crate) mod pool_usage;
pub(crate) mod prefetch;
#[cfg(all(feature = "backtrace", target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod read_word;
pub(crate) mod sync;
#[cfg_attr(
    not(all(feature = "backtrace", target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "base/no_unwind.rs"
)]
pub(crate) mod unwind;
pub(crate) mod wait_reason;
