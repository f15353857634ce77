//! std's `Mutex`: a green lock, and std's own around the value, which is free for whoever holds the green one.
//!
//! std's guard belongs to an OS thread, which a green thread never leaves; it tells of the poison, too.

use std::fmt;
use std::sync::{self, LockResult, TryLockError, TryLockResult};
use std::time::Duration;

use hub_core::{BiasedMutex, Grace, Holder, WaitReason};

use super::attempt::within_grace;
use super::line::{Line, Wait};
use super::poison;

/// std's `Mutex`, for green threads of one or more hubs and for plain OS threads.
///
/// Waiters get it in the order in which they came: an unlock hands it to the first of them. A guard may be kept while
/// the green thread parks.
///
/// A kill or a timeout does not strike at once while it waits for the lock, so that a destructor that needs the lock does
/// its work: it strikes at the next wait, or after the time of [`set_lock_patience`](hub_core::set_lock_patience).
///
/// A guard that is dropped while its green thread unwinds poisons the mutex, also if it unwinds because it was
/// killed or its [`with_timeout`](hub_core::with_timeout) has struck: what it was doing to the value is left half
/// done. One that waits for the lock does not poison it.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::{sync::{Arc, Mutex}, thread};
/// let total = Arc::new(Mutex::new(0));
/// let adders: Vec<_> = (0..10)
///     .map(|n| {
///         let total = Arc::clone(&total);
///         thread::spawn(move || {
///             let mut total = total.lock().unwrap();
///             thread::yield_now(); // the others wait
///             *total += n;
///         })
///     })
///     .collect();
/// for adder in adders {
///     adder.join()?;
/// }
/// assert_eq!(*total.lock().unwrap(), 45);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Mutex<T: ?Sized> {
    lock: Lock,
    data: sync::Mutex<T>,
}

/// Unlocks its [`Mutex`] when dropped, std's `MutexGuard`.
#[must_use = "if unused the Mutex will immediately unlock"]
pub struct MutexGuard<'a, T: ?Sized> {
    // Dropped in this order: the value is free before the next one gets the lock.
    data: sync::MutexGuard<'a, T>,
    mutex: &'a Mutex<T>,
    _held: Held<'a>,
}

impl<T> Mutex<T> {
    /// An unlocked mutex.
    #[must_use]
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { lock: Lock::new(), data: sync::Mutex::new(value) }
    }

    /// The value, when nobody else has the mutex any more.
    ///
    /// # Errors
    ///
    /// If it is poisoned; the value is in the error.
    pub fn into_inner(self) -> LockResult<T> {
        self.data.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until the mutex is unlocked, and locks it. Switches if it has to wait.
    ///
    /// # Errors
    ///
    /// If it is poisoned; the guard is in the error.
    ///
    /// # Panics
    ///
    /// If it has to wait in the main loop; in the main greenlet, with what the loop has to tell it.
    ///
    /// A destructor that runs while panicking cannot switch. It gets a lock that was handed to a green thread that has
    /// not run since. For one that is held it blocks the OS thread, for the time of
    /// [`set_panicking_grace`](hub_core::set_panicking_grace) at most: only another OS thread could unlock it meanwhile.
    /// Then it panics, which aborts the process; the message names the holder. That happens if a guard is kept over a wait; a destructor that has to
    /// cope with it calls [`try_lock`](Mutex::try_lock).
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.guard(self.lock.acquire())
    }

    /// Locks the mutex if it is unlocked. Does not switch.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it is locked, `Poisoned` if it is poisoned.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let held = self.lock.try_acquire().ok_or(TryLockError::WouldBlock)?;
        Ok(self.guard(held)?)
    }

    /// Like [`lock`](Mutex::lock), but waits for at most `timeout`; parking_lot's. Switches if it has to wait.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use greenstd::sync::Mutex;
    /// use std::time::Duration;
    /// let mutex = Mutex::new(1);
    /// let guard = mutex.lock().unwrap();
    /// assert!(mutex.try_lock_for(Duration::from_millis(1)).is_err());
    /// drop(guard);
    /// assert_eq!(*mutex.try_lock_for(Duration::from_millis(1)).unwrap(), 1);
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it was not unlocked in time, `Poisoned` if it is poisoned.
    ///
    /// # Panics
    ///
    /// As [`lock`](Mutex::lock), but for the time of grace, after which it returns `WouldBlock`.
    #[track_caller]
    pub fn try_lock_for(&self, timeout: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        let held = self.lock.acquire_within(Grace::begin, Some(timeout)).ok_or(TryLockError::WouldBlock)?;
        Ok(self.guard(held)?)
    }

    fn guard<'a>(&'a self, held: Held<'a>) -> LockResult<MutexGuard<'a, T>> {
        let data = poison::held(self.data.try_lock());
        poison::map(data, |data| MutexGuard { data, mutex: self, _held: held })
    }

    /// Whether it is poisoned.
    pub fn is_poisoned(&self) -> bool {
        self.data.is_poisoned()
    }

    /// Takes the poison away: the value is right again.
    pub fn clear_poison(&self) {
        self.data.clear_poison();
    }

    /// The value, which nobody else has.
    ///
    /// # Errors
    ///
    /// If it is poisoned; the value is in the error.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.data.get_mut()
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Mutex<T> {
        Mutex::new(value)
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By the green lock, which tells who may touch std's.
        poison::debug(f, "Mutex", self.try_lock(), self.is_poisoned())
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The mutex that it unlocks.
    pub(super) fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }
}

poison::guard!(MutexGuard, mut);

/// A lock without a value.
struct Lock(BiasedMutex<Locked>);

struct Locked {
    hold: Hold,
    /// The last that took it.
    holder: Holder,
    waiting: Line,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Hold {
    Free,
    Held,
    /// Given to a waiter that was chosen, and has not run since. A destructor that unwinds may take it: it cannot let
    /// the waiter run, which finds that and takes its place in the line again.
    Handed,
}

/// Until it is unlocked.
struct ToLock;

impl Wait for ToLock {
    type State = Locked;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Lock;
    const HOLDS_EXITS: bool = true;

    fn line(state: &mut Locked) -> &mut Line {
        &mut state.waiting
    }

    fn pass_on(state: &mut Locked) {
        if state.hold == Hold::Handed {
            state.release();
        }
    }
}

impl Lock {
    const fn new() -> Lock {
        Lock(BiasedMutex::new(Locked { hold: Hold::Free, holder: Holder::NOBODY, waiting: Line::new() }))
    }

    #[track_caller]
    fn acquire(&self) -> Held<'_> {
        match self.acquire_within(Grace::begin_whole, None) {
            Some(held) => held,
            None => self.stays_held(),
        }
    }

    /// In a destructor that unwinds: the process is about to be aborted.
    #[cold]
    #[track_caller]
    fn stays_held(&self) -> ! {
        let holder = self.0.lock().holder.describe();
        panic!("a destructor cannot wait for a mutex while panicking: {holder}, holds it");
    }

    #[inline(always)]
    #[track_caller]
    fn acquire_within(&self, begin: fn() -> Grace, timeout: Option<Duration>) -> Option<Held<'_>> {
        let waited =
            within_grace::<ToLock, _>(begin, timeout, &self.0, |locked, chosen| locked.take(chosen).then_some(()));
        waited.ok().map(|()| Held(self))
    }

    fn try_acquire(&self) -> Option<Held<'_>> {
        self.0.lock().take(false).then(|| Held(self))
    }
}

impl Locked {
    /// Takes what is free, or was handed to the caller.
    #[inline]
    fn take(&mut self, chosen: bool) -> bool {
        if self.hold != Hold::Free {
            return self.take_handed(chosen);
        }
        self.hold = Hold::Held;
        self.holder = Holder::current();
        true
    }

    #[cold]
    fn take_handed(&mut self, chosen: bool) -> bool {
        let takes = self.hold == Hold::Handed && (chosen || std::thread::panicking());
        if takes {
            self.hold = Hold::Held;
            self.holder = Holder::current();
        }
        takes
    }

    /// It goes to the first waiter, and is never free in between.
    fn release(&mut self) {
        self.hold = if self.waiting.choose() { Hold::Handed } else { Hold::Free };
    }
}

/// Gives the lock back.
struct Held<'a>(&'a Lock);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.lock().release();
    }
}
