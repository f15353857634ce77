//! std's `Mutex`: a green lock, and a std mutex around the value, which the holder of the green lock always finds free.
//!
//! std's guard belongs to an OS thread, which a green thread never leaves. std's mutex keeps the poison flag, too.

use std::fmt;
use std::sync::{self, LockResult, TryLockError, TryLockResult};
use std::time::Duration;

use hub_core::internal::Holder;
use hub_core::{BiasedMutex, Deadline, Grace, LoopError, WaitReason};

use super::poison;
use super::wait_error::WaitError;
use super::wait_infallible::within_grace;
use super::wait_queue::{Wait, WaitQueue};

/// A mutual exclusion primitive useful for protecting shared data, std's `Mutex`.
///
/// It serves green threads of one or more hubs and plain OS threads. Waiters get the lock in FIFO order: an unlock
/// hands it to the first of them. A guard may be held while its green thread parks.
///
/// An [exit](hub_core::is_exit) does not strike at once in a wait for the lock, so a destructor that needs the lock can
/// do its work. It strikes at the next wait, or after the time of
/// [`set_lock_patience`](hub_core::set_lock_patience).
///
/// Dropping a guard while its green thread unwinds poisons the mutex. That includes the unwinding by an exit, which may
/// leave the value half changed. A wait for the lock that is unwound does not poison it.
///
/// ```
/// use greenhub::thread;
/// use greenhub::sync::{Arc, Mutex};
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
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Lock")]
#[doc(alias = "RLock")]
pub struct Mutex<T: ?Sized> {
    lock: RawMutex,
    data: sync::Mutex<T>,
}

/// Unlocks its [`Mutex`] when dropped, std's `MutexGuard`.
#[must_use = "if unused the Mutex will immediately unlock"]
pub struct MutexGuard<'a, T: ?Sized> {
    // The order of the fields matters: the value must be free before the next waiter gets the lock.
    data: sync::MutexGuard<'a, T>,
    mutex: &'a Mutex<T>,
    _held: MutexHold<'a>,
}

impl<T> Mutex<T> {
    /// Creates a new mutex in an unlocked state.
    #[must_use]
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { lock: RawMutex::new(), data: sync::Mutex::new(value) }
    }

    /// Consumes this mutex, returning the underlying value.
    ///
    /// # Errors
    ///
    /// Returns an error if the mutex is poisoned; the error holds the value.
    pub fn into_inner(self) -> LockResult<T> {
        self.data.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Acquires the mutex, parking the caller until it is able to do so. Switches if it has to wait.
    ///
    /// # Errors
    ///
    /// Returns an error if the mutex is poisoned; the error holds the guard.
    ///
    /// # Panics
    ///
    /// Panics if it has to wait in the main loop, or if the main loop ends the wait of the main greenlet by an error.
    ///
    /// A destructor that runs while panicking cannot switch. It takes a lock that was handed to a waiter that has not
    /// run since. For a lock that is held, it blocks the OS thread for at most the time of
    /// [`set_panicking_grace`](hub_core::set_panicking_grace): only another OS thread could unlock it meanwhile. Then
    /// it panics, which aborts the process; the message names the lock holder. This happens if a guard is held over a
    /// wait. A destructor that has to cope with it calls [`try_lock`](Mutex::try_lock).
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.guard(self.lock.acquire())
    }

    /// Like [`lock`](Mutex::lock), for a caller that returns the error of a wait. Switches if it has to wait.
    pub(crate) fn lock_or_fail(&self) -> Result<LockResult<MutexGuard<'_, T>>, LoopError> {
        Ok(self.guard(self.lock.acquire_or_fail()?))
    }

    /// Attempts to acquire the mutex. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns `WouldBlock` if the mutex is locked, `Poisoned` if it is poisoned.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let held = self.lock.try_acquire().ok_or(TryLockError::WouldBlock)?;
        Ok(self.guard(held)?)
    }

    /// Attempts to acquire the mutex for at most `timeout`, parking_lot's. Switches if it has to wait.
    ///
    /// ```
    /// use greenhub::sync::Mutex;
    /// use std::time::Duration;
    /// let mutex = Mutex::new(1);
    /// let guard = mutex.lock().unwrap();
    /// assert!(mutex.try_lock_for(Duration::from_millis(1)).is_err());
    /// drop(guard);
    /// assert_eq!(*mutex.try_lock_for(Duration::from_millis(1)).unwrap(), 1);
    /// ```
    ///
    /// # Errors
    ///
    /// Returns `WouldBlock` if the mutex was not unlocked in time, `Poisoned` if it is poisoned.
    ///
    /// # Panics
    ///
    /// Like [`lock`](Mutex::lock), except at the end of the panicking grace: then it returns `WouldBlock`.
    #[track_caller]
    pub fn try_lock_for(&self, timeout: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        let held = self.lock.acquire_within(Grace::begin, Some(timeout)).ok_or(TryLockError::WouldBlock)?;
        Ok(self.guard(held)?)
    }

    fn guard<'a>(&'a self, held: MutexHold<'a>) -> LockResult<MutexGuard<'a, T>> {
        let data = poison::uncontended(self.data.try_lock());
        poison::map(data, |data| MutexGuard { data, mutex: self, _held: held })
    }

    /// Determines whether the mutex is poisoned.
    pub fn is_poisoned(&self) -> bool {
        self.data.is_poisoned()
    }

    /// Clears the poisoned state from the mutex.
    pub fn clear_poison(&self) {
        self.data.clear_poison();
    }

    /// Returns a mutable reference to the underlying data.
    ///
    /// # Errors
    ///
    /// Returns an error if the mutex is poisoned; the error holds the reference.
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
        // Through the green lock: its holder alone may touch std's mutex.
        poison::debug(f, "Mutex", self.try_lock(), self.is_poisoned())
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Returns the mutex of the guard.
    pub(super) fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }
}

poison::guard!(MutexGuard, mut);

/// A lock without a value.
struct RawMutex(BiasedMutex<MutexState>);

struct MutexState {
    hold: LockState,
    /// The green thread or OS thread that took the lock last.
    holder: Holder,
    waiting: WaitQueue,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum LockState {
    Free,
    Held,
    /// Granted to a waiter that has not run since. A destructor that runs while unwinding may take the lock, because it
    /// cannot let the waiter run. The waiter then finds the lock taken and regains its place in the queue.
    Handed,
}

/// The wait for the lock.
struct LockWait;

impl Wait for LockWait {
    type State = MutexState;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Lock;
    const CALL: &'static str = "lock";
    const DEFERS_EXITS: bool = true;

    fn queue(state: &mut MutexState) -> &mut WaitQueue {
        &mut state.waiting
    }

    fn regrant(state: &mut MutexState) {
        if state.hold == LockState::Handed {
            state.release();
        }
    }
}

impl RawMutex {
    const fn new() -> RawMutex {
        RawMutex(BiasedMutex::new(MutexState {
            hold: LockState::Free,
            holder: Holder::NONE,
            waiting: WaitQueue::new(),
        }))
    }

    #[track_caller]
    fn acquire(&self) -> MutexHold<'_> {
        match self.acquire_within(Grace::begin_whole, None) {
            Some(held) => held,
            None => self.panic_still_held(),
        }
    }

    /// Panics in a destructor that runs while unwinding, which aborts the process.
    #[cold]
    #[track_caller]
    fn panic_still_held(&self) -> ! {
        let holder = self.0.lock().holder.describe();
        panic!("a destructor cannot wait for a mutex while panicking: it is held by {holder}");
    }

    #[inline(always)]
    #[track_caller]
    fn acquire_within(&self, begin: fn() -> Grace, timeout: Option<Duration>) -> Option<MutexHold<'_>> {
        let waited =
            within_grace::<LockWait, _>(begin, timeout, &self.0, |locked, granted| locked.take(granted).then_some(()));
        waited.ok().map(|()| MutexHold(self))
    }

    fn acquire_or_fail(&self) -> Result<MutexHold<'_>, LoopError> {
        let waited = LockWait::wait(&self.0, &mut Deadline::none(), (), |locked, ungranted| {
            if locked.take(ungranted.is_none()) { Ok(()) } else { Err(()) }
        });
        waited.map(|()| MutexHold(self)).map_err(|ended| WaitError::from(ended).without_limit())
    }

    fn try_acquire(&self) -> Option<MutexHold<'_>> {
        self.0.lock().take(false).then(|| MutexHold(self))
    }
}

impl MutexState {
    /// Takes the lock if it is free or was handed to the caller.
    #[inline]
    fn take(&mut self, granted: bool) -> bool {
        if self.hold != LockState::Free {
            return self.take_handed(granted);
        }
        self.hold = LockState::Held;
        self.holder = Holder::current();
        true
    }

    #[cold]
    fn take_handed(&mut self, granted: bool) -> bool {
        let takes = self.hold == LockState::Handed && (granted || std::thread::panicking());
        if takes {
            self.hold = LockState::Held;
            self.holder = Holder::current();
        }
        takes
    }

    /// Hands the lock to the first waiter; it is never free in between.
    fn release(&mut self) {
        self.hold = if self.waiting.grant() { LockState::Handed } else { LockState::Free };
    }
}

/// Releases the lock when dropped.
struct MutexHold<'a>(&'a RawMutex);

impl Drop for MutexHold<'_> {
    fn drop(&mut self) {
        self.0.0.lock().release();
    }
}
