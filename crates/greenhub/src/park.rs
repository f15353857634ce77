//! Waits for descriptors of your own, and the parts from which a synchronization primitive is made.
//!
//! A wait for a descriptor is [`trampoline`](crate::trampoline) or [`Trampoline`](crate::Trampoline); a [`Source`] is
//! for a descriptor that is used often. A primitive is a [`BiasedMutex`] over its state and the [`Unparker`]s of its
//! waiters: see [`Parker`]. A [`Waitable`] object can be waited for beside others.

pub use hub_core::{
    BiasedMutex, BiasedMutexGuard, Deadline, Grace, LeftMark, Parked, Parker, ReadHint, ReadyList, ReadyMark,
    ReadyMarks, Source, SourceWaker, Unparker, WaitReason, Waitable, consume_budget, notify_close, notify_opened,
    throw_exit, trampoline_any, trampoline_raw,
};
