//! A lock that costs next to nothing as long as only one OS thread uses it.
//!
//! The lock is *biased* to the first OS thread that locks it, its owner. The owner locks and unlocks with plain loads
//! and stores. When another OS thread comes, the bias ends for good: that OS thread marks it in `owner`, makes the
//! system put a memory barrier into all OS threads of the process, and waits until the owner is not inside. From then
//! on it is an ordinary lock. Where the system has no such barrier, it is ordinary from the beginning.
//!
//! Ground rules:
//!
//! 1. `owner` changes only under `shared`: from `NO_OWNER` to an OS thread, and from there to `UNBIASED`, which stays.
//!    (If the barrier fails, `owner` is set back to the OS thread before `shared` is unlocked.)
//! 2. `inside` is written only by the owner, or by an OS thread that was the owner when its entry began.
//! 3. There are two entries. The owner sets `inside`, and finds after that that it is still the owner. Any other
//!    OS thread, or the former owner, holds `shared` while `owner` is `UNBIASED`. Either no OS thread was ever the
//!    owner, or `inside` was seen false after the barrier that follows the end of the bias.
//! 4. The two entries exclude each other. The owner stores `inside`, passes the light barrier, and loads `owner`. The
//!    other OS thread stores `owner`, passes the heavy barrier, and loads `inside`. So at least one of the loads sees
//!    the other OS thread's store.
//! 5. A guard does not leave its OS thread, and only the OS thread that made it drops it. A guard that is forgotten
//!    leaves the lock locked.

mod barrier;
#[cfg(all(test, loom))]
mod model;
mod raw_mutex;
#[cfg(all(test, not(loom)))]
mod tests;

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use self::raw_mutex::RawMutex;
use crate::base::fork;
use crate::base::sync::{AtomicBool, AtomicU64, nap, yield_now};
use crate::main_loop::late_wake;

/// A lock for short critical sections, of green threads and of OS threads.
///
/// It is for primitives. The green threads may be those of any hub.
///
/// As long as only one OS thread uses it, locking takes a few loads and stores. The first other OS thread ends that,
/// once, at the price of a system call.
///
/// A caller that finds it locked blocks its OS thread, so it must be held only briefly. While a green thread holds
/// it, nothing may switch.
///
/// ```
/// use greenhub::park::BiasedMutex;
/// static COUNT: BiasedMutex<u32> = BiasedMutex::new(0);
/// *COUNT.lock() += 1;
/// std::thread::spawn(|| *COUNT.lock() += 1).join().unwrap();
/// assert_eq!(*COUNT.lock(), 2);
/// ```
pub struct BiasedMutex<T: ?Sized> {
    bias: Bias,
    value: UnsafeCell<T>,
}

// SAFETY: by rules 3 and 4 only one of the OS threads that call `lock` gets access to the value at a time.
unsafe impl<T: ?Sized + Send> Sync for BiasedMutex<T> {}

// It has no poison: its users change the value only by code that cannot panic.
impl<T: ?Sized> UnwindSafe for BiasedMutex<T> {}
impl<T: ?Sized> RefUnwindSafe for BiasedMutex<T> {}

/// A guard that unlocks its [`BiasedMutex`] when dropped.
#[must_use = "if unused the BiasedMutex will immediately unlock"]
pub struct BiasedMutexGuard<'a, T: ?Sized> {
    mutex: &'a BiasedMutex<T>,
    entry: Entry,
    /// A guard stays on its OS thread.
    not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives only shared access to the value.
unsafe impl<T: ?Sized + Sync> Sync for BiasedMutexGuard<'_, T> {}

impl<T> BiasedMutex<T> {
    /// Creates an unlocked lock without an owner.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(value: T) -> BiasedMutex<T> {
        BiasedMutex { bias: Bias::new(), value: UnsafeCell::new(value) }
    }

    /// Creates an unlocked lock without an owner, in a model.
    #[cfg(loom)]
    #[must_use]
    pub fn new(value: T) -> BiasedMutex<T> {
        BiasedMutex { bias: Bias::new(), value: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized> BiasedMutex<T> {
    /// Acquires the lock. Blocks the OS thread while it is locked; does not switch.
    ///
    /// It has no poison: a value that must be right after a panic must be changed only by code that cannot panic.
    ///
    /// # Panics
    ///
    /// Panics if this OS thread already holds the lock and the lock is biased to it. If the lock is not biased, it
    /// deadlocks.
    ///
    /// Panics in a forked child if the owner was inside at the fork: that OS thread does not exist in the child, and
    /// the value is half changed. If the lock was ordinary by then, the child deadlocks, as with std's.
    ///
    /// Panics if the system refuses the memory barrier that it granted before. Locks that are biased by then stay with
    /// their owners, and new locks are ordinary.
    #[inline]
    pub fn lock(&self) -> BiasedMutexGuard<'_, T> {
        let entry = self.bias.enter(fork::this_thread());
        BiasedMutexGuard { mutex: self, entry, not_send: PhantomData }
    }
}

impl<T: ?Sized> Deref for BiasedMutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by rules 3 and 4 no other OS thread gets access to the value until this entry is left.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for BiasedMutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and this guard is borrowed exclusively.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for BiasedMutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard has entered this way, and leaves once.
        unsafe { self.mutex.bias.leave(self.entry) };
    }
}

impl<T: Default> Default for BiasedMutex<T> {
    fn default() -> BiasedMutex<T> {
        BiasedMutex::new(T::default())
    }
}

impl<T: ?Sized> fmt::Debug for BiasedMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BiasedMutex").finish_non_exhaustive()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for BiasedMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The two values of `owner` that are not the token of an OS thread.
const NO_OWNER: u64 = u64::MAX;
const UNBIASED: u64 = u64::MAX - 1;

/// The lock without a value.
struct Bias {
    owner: AtomicU64,
    inside: AtomicBool,
    shared: RawMutex,
}

/// The kind of an entry. A guard of `shared` here would be copied through memory.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Entry {
    /// As the owner.
    Biased,
    /// With `shared` locked.
    Shared,
}

impl Bias {
    #[cfg(not(loom))]
    const fn new() -> Bias {
        Bias { owner: AtomicU64::new(NO_OWNER), inside: AtomicBool::new(false), shared: RawMutex::new() }
    }

    #[cfg(loom)]
    fn new() -> Bias {
        Bias { owner: AtomicU64::new(NO_OWNER), inside: AtomicBool::new(false), shared: RawMutex::new() }
    }

    #[inline]
    fn enter(&self, me: u64) -> Entry {
        if self.owner.load(Relaxed) == me && !self.inside.load(Relaxed) {
            self.inside.store(true, Relaxed);
            barrier::light();
            if self.owner.load(Relaxed) == me {
                return Entry::Biased;
            }
            self.inside.store(false, Release);
        }
        self.enter_slowly(me)
    }

    /// # Safety
    ///
    /// The caller has entered this way, and leaves once.
    #[inline]
    unsafe fn leave(&self, entry: Entry) {
        match entry {
            Entry::Biased => self.inside.store(false, Release),
            // SAFETY: this kind of entry has locked `shared`, by the contract.
            Entry::Shared => unsafe { self.leave_shared() },
        }
    }

    /// # Safety
    ///
    /// The caller has locked `shared`, and leaves once.
    #[inline(never)]
    unsafe fn leave_shared(&self) {
        // SAFETY: by the contract.
        unsafe { self.shared.unlock() };
        late_wake::lock_released();
    }

    #[cold]
    #[inline(never)]
    fn enter_slowly(&self, me: u64) -> Entry {
        let shared = Shared::lock(&self.shared);
        match self.owner.load(Relaxed) {
            UNBIASED => {}
            // An owner that a fork leaves behind has to be recognized, which needs the fork handler.
            NO_OWNER if !barrier::available() || fork::install().is_err() => self.owner.store(UNBIASED, Relaxed),
            NO_OWNER => {
                self.owner.store(me, Relaxed);
                drop(shared);
                return self.enter(me);
            }
            owner if owner == me => {
                drop(shared);
                assert!(!self.inside.load(Relaxed), "a lock was locked again by the OS thread that holds it");
                return self.enter(me);
            }
            owner => self.end_bias(owner),
        }
        std::mem::forget(shared);
        late_wake::lock_taken();
        Entry::Shared
    }

    /// Makes it an ordinary lock, and waits until the owner is not inside. Called under `shared`.
    fn end_bias(&self, owner: u64) {
        assert!(
            !(fork::is_left_behind(owner) && self.inside.load(Relaxed)),
            "a lock was held by an OS thread that a fork has left behind: the value it protects is half changed"
        );
        self.owner.store(UNBIASED, Relaxed);
        if let Err(error) = barrier::heavy() {
            self.owner.store(owner, Relaxed);
            panic!("a lock cannot be taken over from another OS thread, as the system refuses membarrier now: {error}");
        }
        // This takes a moment, or as long as the owner gets no processor: an OS thread of a lower priority gets it only
        // from an OS thread that sleeps.
        let mut rounds = 0;
        while self.inside.load(Acquire) {
            rounds += 1;
            if rounds < 100 { yield_now() } else { nap() }
        }
    }
}

/// A guard of `shared`.
struct Shared<'a>(&'a RawMutex);

impl Shared<'_> {
    fn lock(mutex: &RawMutex) -> Shared<'_> {
        mutex.lock();
        Shared(mutex)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        // SAFETY: `shared` was locked when this was made.
        unsafe { self.0.unlock() };
    }
}
