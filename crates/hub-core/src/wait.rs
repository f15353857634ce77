//! Waits of greenlets and of OS threads: for descriptors, for other OS threads, for jobs.
//!
//! [`source`] and [`trampoline`] wait for descriptors, and [`notify`] tells them of closed ones. Locks and queues are
//! built on [`parker`], [`unparker`] and [`biased`]; [`holder`] describes the holder of a lock. [`ready_list`] waits
//! for several objects. [`thread_pool`], [`offload`] and [`leftover`] run jobs on OS threads. [`sleep_future`] is a
//! future that ends after a time. [`grace`] bounds the waits of destructors that unwind. [`shutdown`] ends the green
//! threads of an OS thread in order.

pub(crate) mod biased;
pub(crate) mod grace;
pub(crate) mod holder;
pub(crate) mod leftover;
pub(crate) mod notify;
pub(crate) mod offload;
pub(crate) mod parker;
pub(crate) mod ready_list;
pub(crate) mod shutdown;
pub(crate) mod sleep_future;
pub(crate) mod source;
pub(crate) mod thread_pool;
pub(crate) mod trampoline;
pub(crate) mod unparker;
