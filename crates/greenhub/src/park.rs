//! Waits for descriptors of your own, and the parts from which a synchronization primitive is made.
//!
//! A wait for a descriptor is [`trampoline`](crate::trampoline) or [`Trampoline`](crate::Trampoline); a [`Source`] is
//! for a descriptor that is used often. A primitive is a [`BiasedMutex`] over its state and the [`Unparker`]s of its
//! waiters: see [`Parker`].

pub use hub_core::{
    BiasedMutex, BiasedMutexGuard, Deadline, Grace, Parked, Parker, ReadHint, Source, SourceWaker, Unparker,
    WaitReason, consume_budget, notify_close, notify_opened, throw_exit, trampoline_any, trampoline_raw,
};
