//! The primitives of code that crosses OS threads: std's, or loom's when a model is checked.

#[cfg(not(loom))]
pub(crate) use self::std_sync::*;
#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize},
    sync::{Condvar, Mutex, MutexGuard},
    thread::yield_now,
};

/// Yields: a model has no time.
#[cfg(loom)]
pub(crate) use loom::thread::yield_now as nap;

/// Orders a sequentially consistent load after an earlier store: loom treats both as acquire and release, and orders
/// only fences.
#[cfg(loom)]
pub(crate) fn order_for_model() {
    loom::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

#[cfg(not(loom))]
mod std_sync {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread::yield_now;

    /// Does nothing: without loom, the accesses themselves are sequentially consistent.
    #[inline(always)]
    pub(crate) fn order_for_model() {}

    /// Sleeps for a moment.
    pub(crate) fn nap() {
        #[expect(clippy::disallowed_methods, reason = "another OS thread is about to finish")]
        std::thread::sleep(std::time::Duration::from_micros(50));
    }

    /// std's cell with the interface of loom's.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(crate) fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
            look(self.0.get())
        }

        #[inline]
        pub(crate) fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
            change(self.0.get())
        }
    }
}
