//! A lock that costs next to nothing as long as one OS thread uses it.
//!
//! It is *biased* to the first thread that locks it, its owner, which goes in and out with plain loads and stores. When
//! another thread comes, the bias is over for good: that thread says so in `owner`, has the system put a memory
//! barrier into all threads of the process, and waits until the owner is not inside. From then on it is an ordinary
//! lock. Where the system has no such barrier, it is one from the beginning.
//!
//! Ground rules:
//!
//! 1. `owner` changes only under `shared`: from `NOBODY` to a thread, from there to `EVERYBODY`, which stays. (It goes
//!    back to the thread, before `shared` is unlocked, if the barrier failed.)
//! 2. `inside` is written by the owner alone, or by the thread that was the owner when it began.
//! 3. There are two ways in: the owner sets `inside`, and finds after that that it is the owner still; anybody else
//!    holds `shared` while `owner` is `EVERYBODY`, and `inside` was seen false after the barrier that follows the end
//!    of the bias.
//! 4. The two do not meet: of the owner's store to `inside` and its load of `owner` after it, with a light barrier
//!    between them, and the other's store to `owner` and its loads of `inside`, with the heavy one between them, one
//!    of the loads sees the other's store.
//! 5. A guard does not leave its thread, and is dropped by whoever made it. One that is forgotten leaves the lock
//!    locked.

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

/// A lock for the short moments in which a primitive looks at its state and changes it, of green threads of any hub
/// and of plain OS threads. As long as only one OS thread uses it, locking it takes a few loads and stores; the first
/// other one ends that, once, at the price of a system call.
///
/// It is locked for a moment only: whoever finds it locked blocks the OS thread. While a green thread holds it nothing
/// may switch.
///
/// ```
/// use hub_core::BiasedMutex;
/// static COUNT: BiasedMutex<u32> = BiasedMutex::new(0);
/// *COUNT.lock() += 1;
/// std::thread::spawn(|| *COUNT.lock() += 1).join().unwrap();
/// assert_eq!(*COUNT.lock(), 2);
/// ```
pub struct BiasedMutex<T: ?Sized> {
    bias: Bias,
    value: UnsafeCell<T>,
}

// SAFETY: rules 3 and 4: of all who call `lock`, one at a time gets to the value.
unsafe impl<T: ?Sized + Send> Sync for BiasedMutex<T> {}

// It tells of no poison, and its users change the value by what cannot panic.
impl<T: ?Sized> UnwindSafe for BiasedMutex<T> {}
impl<T: ?Sized> RefUnwindSafe for BiasedMutex<T> {}

/// Unlocks its [`BiasedMutex`] when dropped.
#[must_use = "if unused the BiasedMutex will immediately unlock"]
pub struct BiasedMutexGuard<'a, T: ?Sized> {
    mutex: &'a BiasedMutex<T>,
    way: Way,
    /// It stays on its thread.
    not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives shared access to the value only.
unsafe impl<T: ?Sized + Sync> Sync for BiasedMutexGuard<'_, T> {}

impl<T> BiasedMutex<T> {
    /// An unlocked one, biased to nobody.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(value: T) -> BiasedMutex<T> {
        BiasedMutex { bias: Bias::new(), value: UnsafeCell::new(value) }
    }

    /// An unlocked one, in a model.
    #[cfg(loom)]
    #[must_use]
    pub fn new(value: T) -> BiasedMutex<T> {
        BiasedMutex { bias: Bias::new(), value: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized> BiasedMutex<T> {
    /// Waits until it is unlocked, and locks it. Blocks the OS thread; does not switch.
    ///
    /// It knows no poison: a value that must be right after a panic is not changed by what can panic.
    ///
    /// # Panics
    ///
    /// If this thread holds it already and the lock is biased to it; it deadlocks if it is not. If its owner was inside
    /// at the moment of a fork and this is the child, which does not have that thread: the value is left half changed.
    /// Where it was an ordinary lock by then the child deadlocks, as at std's. If the system refuses the memory
    /// barrier that it had agreed to before: locks that are biased by then stay with their owners, new ones are
    /// ordinary.
    #[inline]
    pub fn lock(&self) -> BiasedMutexGuard<'_, T> {
        let way = self.bias.enter(fork::this_thread());
        BiasedMutexGuard { mutex: self, way, not_send: PhantomData }
    }
}

impl<T: ?Sized> Deref for BiasedMutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: until `way` is left nobody else gets to the value.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for BiasedMutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and this guard is borrowed alone.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for BiasedMutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it was entered that way, and is left once.
        unsafe { self.mutex.bias.leave(self.way) };
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

/// Not the token of a thread.
const NOBODY: u64 = u64::MAX;
const EVERYBODY: u64 = u64::MAX - 1;

/// The lock without a value.
struct Bias {
    owner: AtomicU64,
    inside: AtomicBool,
    shared: RawMutex,
}

/// How somebody got in. A guard of `shared` in it would have it copied through memory.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Way {
    /// As the owner.
    Biased,
    /// With `shared` locked.
    Shared,
}

impl Bias {
    #[cfg(not(loom))]
    const fn new() -> Bias {
        Bias { owner: AtomicU64::new(NOBODY), inside: AtomicBool::new(false), shared: RawMutex::new() }
    }

    #[cfg(loom)]
    fn new() -> Bias {
        Bias { owner: AtomicU64::new(NOBODY), inside: AtomicBool::new(false), shared: RawMutex::new() }
    }

    #[inline]
    fn enter(&self, me: u64) -> Way {
        if self.owner.load(Relaxed) == me && !self.inside.load(Relaxed) {
            self.inside.store(true, Relaxed);
            barrier::light();
            if self.owner.load(Relaxed) == me {
                return Way::Biased;
            }
            self.inside.store(false, Release);
        }
        self.enter_slowly(me)
    }

    /// # Safety
    ///
    /// The caller has entered that way, and leaves once.
    #[inline]
    unsafe fn leave(&self, way: Way) {
        match way {
            Way::Biased => self.inside.store(false, Release),
            // SAFETY: who got in that way has locked it.
            Way::Shared => unsafe { self.shared.unlock() },
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_slowly(&self, me: u64) -> Way {
        let shared = Shared::lock(&self.shared);
        match self.owner.load(Relaxed) {
            EVERYBODY => {}
            // An owner that a fork leaves behind has to be known for that.
            NOBODY if !barrier::available() || fork::install().is_err() => self.owner.store(EVERYBODY, Relaxed),
            NOBODY => {
                self.owner.store(me, Relaxed);
                drop(shared);
                return self.enter(me);
            }
            owner if owner == me => {
                drop(shared);
                assert!(!self.inside.load(Relaxed), "a lock was locked again by the thread that holds it");
                return self.enter(me);
            }
            owner => self.end_bias(owner),
        }
        std::mem::forget(shared);
        Way::Shared
    }

    /// Makes it an ordinary lock, and waits until its owner is not inside. Under `shared`.
    fn end_bias(&self, owner: u64) {
        assert!(
            !(fork::is_left_behind(owner) && self.inside.load(Relaxed)),
            "a lock was held by a thread that a fork has left behind: what it protects is half changed"
        );
        self.owner.store(EVERYBODY, Relaxed);
        if let Err(error) = barrier::heavy() {
            self.owner.store(owner, Relaxed);
            panic!("a lock cannot be taken over from another thread, as the system refuses membarrier now: {error}");
        }
        // A moment, or as long as the owner is not given the processor: a thread of a lower priority gets it only from one
        // that sleeps.
        let mut looks = 0;
        while self.inside.load(Acquire) {
            looks += 1;
            if looks < 100 { yield_now() } else { nap() }
        }
    }
}

/// Unlocks when dropped.
struct Shared<'a>(&'a RawMutex);

impl Shared<'_> {
    fn lock(mutex: &RawMutex) -> Shared<'_> {
        mutex.lock();
        Shared(mutex)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        // SAFETY: it was locked when this was made.
        unsafe { self.0.unlock() };
    }
}
