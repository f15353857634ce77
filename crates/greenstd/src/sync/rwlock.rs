//! std's `RwLock`: a green lock, and a std lock around the value, as in [`Mutex`](super::Mutex).
//!
//! Readers and writers pass a turnstile one at a time, in FIFO order. The access that holds the turnstile waits until
//! it conflicts with no present holder, takes the lock, and releases the turnstile to the next. So readers cannot
//! overtake a waiting writer, and consecutive readers share the lock.

use std::fmt;
use std::sync::{self, LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::{Duration, Instant};

use hub_core::internal::Holder;
use hub_core::{BiasedMutex, Grace, WaitReason};

use super::poison;
use super::wait_infallible::within_grace;
use super::wait_queue::{Wait, WaitQueue};

/// A reader-writer lock, std's `RwLock`.
///
/// It serves green threads of one or more hubs and plain OS threads. Readers and writers are served in FIFO order. So a
/// green thread that holds a read guard and calls `read` again deadlocks if a writer came in between.
///
/// An [exit](hub_core::is_exit) does not strike at once during a wait: see [`Mutex`](super::Mutex). A destructor that
/// runs while panicking goes before the waiters.
///
/// Dropping a write guard while its green thread unwinds poisons the lock, also if it unwinds by an exit. A read guard
/// does not poison it.
///
/// ```
/// use greenhub::thread;
/// use greenhub::sync::{Arc, RwLock};
/// let names = Arc::new(RwLock::new(vec!["epoll"]));
/// let (first, second) = (names.read().unwrap(), names.read().unwrap());
/// assert_eq!(first.len(), second.len());
/// let writer = Arc::clone(&names);
/// let writer = thread::spawn(move || writer.write().unwrap().push("poll"));
/// drop((first, second));
/// writer.join()?;
/// assert_eq!(*names.read().unwrap(), ["epoll", "poll"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RwLock<T: ?Sized> {
    lock: RawRwLock,
    data: sync::RwLock<T>,
}

/// Releases the shared access when dropped, std's `RwLockReadGuard`.
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    // The order of the fields matters: the value must be free before the next waiter gets the lock.
    data: sync::RwLockReadGuard<'a, T>,
    _held: RwHold<'a>,
}

/// Releases the exclusive access when dropped, std's `RwLockWriteGuard`.
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    // The order of the fields matters, as above.
    data: sync::RwLockWriteGuard<'a, T>,
    held: RwHold<'a>,
    rwlock: &'a RwLock<T>,
}

impl<T> RwLock<T> {
    /// Creates a new instance of an `RwLock<T>` which is unlocked.
    #[must_use]
    pub const fn new(value: T) -> RwLock<T> {
        RwLock { lock: RawRwLock::new(), data: sync::RwLock::new(value) }
    }

    /// Consumes this `RwLock`, returning the underlying data.
    ///
    /// # Errors
    ///
    /// Returns an error if the lock is poisoned; the error holds the value.
    pub fn into_inner(self) -> LockResult<T> {
        self.data.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Locks this `RwLock` with shared read access. Switches if it has to wait.
    ///
    /// # Errors
    ///
    /// Returns an error if the lock is poisoned; the error holds the guard.
    ///
    /// # Panics
    ///
    /// Like [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.read_guard(self.lock.acquire(Access::Shared))
    }

    /// Attempts to acquire shared read access. Does not switch.
    ///
    /// It fails if there is a waiter, also where only readers hold the lock.
    ///
    /// # Errors
    ///
    /// Returns `WouldBlock` if the access could not be granted, `Poisoned` if the lock is poisoned.
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        let held = self.lock.try_acquire(Access::Shared).ok_or(TryLockError::WouldBlock)?;
        Ok(self.read_guard(held)?)
    }

    /// Attempts to acquire shared read access for at most `timeout`, parking_lot's. Switches if it has to wait.
    ///
    /// ```
    /// use greenhub::sync::RwLock;
    /// use std::time::Duration;
    /// let lock = RwLock::new(1);
    /// let writer = lock.write().unwrap();
    /// assert!(lock.try_read_for(Duration::from_millis(1)).is_err());
    /// drop(writer);
    /// assert_eq!(*lock.try_read_for(Duration::from_millis(1)).unwrap(), 1);
    /// ```
    ///
    /// # Errors
    ///
    /// Returns `WouldBlock` if the access was not granted in time, `Poisoned` if the lock is poisoned.
    ///
    /// # Panics
    ///
    /// Like [`Mutex::try_lock_for`](super::Mutex::try_lock_for).
    #[track_caller]
    pub fn try_read_for(&self, timeout: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        let held =
            self.lock.acquire_within(Grace::begin, Some(timeout), Access::Shared).ok_or(TryLockError::WouldBlock)?;
        Ok(self.read_guard(held)?)
    }

    /// Locks this `RwLock` with exclusive write access. Switches if it has to wait.
    ///
    /// # Errors
    ///
    /// Returns an error if the lock is poisoned; the error holds the guard.
    ///
    /// # Panics
    ///
    /// Like [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.write_guard(self.lock.acquire(Access::Exclusive))
    }

    /// Attempts to lock this `RwLock` with exclusive write access. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns `WouldBlock` if the access could not be granted, `Poisoned` if the lock is poisoned.
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        let held = self.lock.try_acquire(Access::Exclusive).ok_or(TryLockError::WouldBlock)?;
        Ok(self.write_guard(held)?)
    }

    /// Attempts to acquire exclusive write access for at most `timeout`, parking_lot's. Switches if it has to wait.
    ///
    /// ```
    /// use greenhub::sync::RwLock;
    /// use std::time::Duration;
    /// let lock = RwLock::new(1);
    /// let reader = lock.read().unwrap();
    /// assert!(lock.try_write_for(Duration::from_millis(1)).is_err());
    /// drop(reader);
    /// *lock.try_write_for(Duration::from_millis(1)).unwrap() += 1;
    /// ```
    ///
    /// # Errors
    ///
    /// Returns `WouldBlock` if the access was not granted in time, `Poisoned` if the lock is poisoned.
    ///
    /// # Panics
    ///
    /// Like [`Mutex::try_lock_for`](super::Mutex::try_lock_for).
    #[track_caller]
    pub fn try_write_for(&self, timeout: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        let held =
            self.lock.acquire_within(Grace::begin, Some(timeout), Access::Exclusive).ok_or(TryLockError::WouldBlock)?;
        Ok(self.write_guard(held)?)
    }

    fn read_guard<'a>(&'a self, held: RwHold<'a>) -> LockResult<RwLockReadGuard<'a, T>> {
        let data = poison::uncontended(self.data.try_read());
        poison::map(data, |data| RwLockReadGuard { data, _held: held })
    }

    fn write_guard<'a>(&'a self, held: RwHold<'a>) -> LockResult<RwLockWriteGuard<'a, T>> {
        let data = poison::uncontended(self.data.try_write());
        poison::map(data, |data| RwLockWriteGuard { data, held, rwlock: self })
    }

    /// Determines whether the lock is poisoned.
    pub fn is_poisoned(&self) -> bool {
        self.data.is_poisoned()
    }

    /// Clears the poisoned state from the lock.
    pub fn clear_poison(&self) {
        self.data.clear_poison();
    }

    /// Returns a mutable reference to the underlying data.
    ///
    /// # Errors
    ///
    /// Returns an error if the lock is poisoned; the error holds the reference.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.data.get_mut()
    }
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Downgrades the write guard to a read guard. No writer gets in between. Does not switch.
    ///
    /// ```
    /// use greenhub::sync::{RwLock, RwLockWriteGuard};
    /// let lock = RwLock::new(1);
    /// let mut writer = lock.write().unwrap();
    /// *writer += 1;
    /// let reader = RwLockWriteGuard::downgrade(writer);
    /// assert_eq!(*reader + *lock.read().unwrap(), 4);
    /// ```
    pub fn downgrade(s: Self) -> RwLockReadGuard<'a, T> {
        let RwLockWriteGuard { data, mut held, rwlock } = s;
        // The green lock keeps all others out while std's lock is free.
        drop(data);
        let data = poison::uncontended(rwlock.data.try_read()).unwrap_or_else(PoisonError::into_inner);
        held.downgrade();
        RwLockReadGuard { data, _held: held }
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> RwLock<T> {
        RwLock::new(value)
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Through the green lock: its holder alone may touch std's lock.
        poison::debug(f, "RwLock", self.try_read(), self.is_poisoned())
    }
}

poison::guard!(RwLockReadGuard);
poison::guard!(RwLockWriteGuard, mut);

#[derive(Copy, Clone)]
enum Access {
    Shared,
    Exclusive,
}

/// A lock without a value.
struct RawRwLock(BiasedMutex<RwState>);

struct RwState {
    readers: usize,
    writer: bool,
    /// The green thread or OS thread that took the lock last.
    holder: Holder,
    /// Whether an access holds the turnstile.
    turnstile_taken: bool,
    /// The waiters for the turnstile.
    turnstile_queue: WaitQueue,
    /// The holder of the turnstile, while a conflicting access holds the lock.
    access_queue: WaitQueue,
}

/// The wait for the turnstile.
struct TurnstileWait;

impl Wait for TurnstileWait {
    type State = RwState;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Lock;
    const CALL: &'static str = "lock";
    const DEFERS_EXITS: bool = true;

    fn queue(state: &mut RwState) -> &mut WaitQueue {
        &mut state.turnstile_queue
    }

    fn regrant(state: &mut RwState) {
        state.release_turnstile();
    }
}

/// The wait of the turnstile's holder for conflicting accesses to end.
struct AccessWait;

impl Wait for AccessWait {
    type State = RwState;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Lock;
    const CALL: &'static str = "lock";
    const DEFERS_EXITS: bool = true;

    fn queue(state: &mut RwState) -> &mut WaitQueue {
        &mut state.access_queue
    }

    fn regrant(_: &mut RwState) {
        // The next holder of the turnstile checks for conflicts itself.
    }
}

impl RawRwLock {
    const fn new() -> RawRwLock {
        RawRwLock(BiasedMutex::new(RwState {
            readers: 0,
            writer: false,
            holder: Holder::NONE,
            turnstile_taken: false,
            turnstile_queue: WaitQueue::new(),
            access_queue: WaitQueue::new(),
        }))
    }

    #[track_caller]
    fn acquire(&self, access: Access) -> RwHold<'_> {
        match self.acquire_within(Grace::begin_whole, None, access) {
            Some(held) => held,
            None => self.panic_still_held(),
        }
    }

    /// Panics in a destructor that runs while unwinding, which aborts the process.
    #[cold]
    #[track_caller]
    fn panic_still_held(&self) -> ! {
        let holder = self.0.lock().holder.describe();
        panic!("a destructor cannot wait for a reader-writer lock while panicking: it was last taken by {holder}");
    }

    #[track_caller]
    fn acquire_within(&self, begin: fn() -> Grace, timeout: Option<Duration>, access: Access) -> Option<RwHold<'_>> {
        let started = timeout.map(|_| Instant::now());
        let acquired = within_grace::<TurnstileWait, _>(begin, timeout, &self.0, |state, granted| {
            if !granted && state.turnstile_taken {
                return state.bypass_turnstile(access).then_some(true);
            }
            state.turnstile_taken = true;
            let acquired = state.try_enter(access);
            if acquired {
                state.release_turnstile();
            }
            Some(acquired)
        });
        if !acquired.ok()? {
            let _turnstile = Turnstile(self);
            let left = timeout.zip(started).map(|(timeout, started)| timeout.saturating_sub(started.elapsed()));
            within_grace::<AccessWait, _>(begin, left, &self.0, |state, _| state.try_enter(access).then_some(()))
                .ok()?;
        }
        Some(RwHold { lock: self, access })
    }

    fn try_acquire(&self, access: Access) -> Option<RwHold<'_>> {
        let mut state = self.0.lock();
        let acquired = if state.turnstile_taken { state.bypass_turnstile(access) } else { state.try_enter(access) };
        acquired.then(|| RwHold { lock: self, access })
    }
}

impl RwState {
    /// Takes the lock, unless a present holder conflicts with `access`.
    fn try_enter(&mut self, access: Access) -> bool {
        let free = !self.writer && (self.readers == 0 || matches!(access, Access::Shared));
        match access {
            Access::Shared if free => self.readers += 1,
            Access::Exclusive if free => self.writer = true,
            _ => return false,
        }
        self.holder = Holder::current();
        true
    }

    /// Takes the lock before the holder of the turnstile: for a destructor that unwinds, which cannot let that holder
    /// run.
    #[cold]
    fn bypass_turnstile(&mut self, access: Access) -> bool {
        std::thread::panicking() && self.try_enter(access)
    }

    fn leave(&mut self, access: Access) {
        match access {
            Access::Shared => self.readers -= 1,
            Access::Exclusive => self.writer = false,
        }
        if self.readers == 0 {
            self.access_queue.grant();
        }
    }

    /// Hands the turnstile to its next waiter.
    fn release_turnstile(&mut self) {
        self.turnstile_taken = self.turnstile_queue.grant();
    }
}

/// Holds the turnstile, and releases it when dropped.
struct Turnstile<'a>(&'a RawRwLock);

impl Drop for Turnstile<'_> {
    fn drop(&mut self) {
        self.0.0.lock().release_turnstile();
    }
}

/// Holds an access, and releases it when dropped.
struct RwHold<'a> {
    lock: &'a RawRwLock,
    access: Access,
}

impl RwHold<'_> {
    fn downgrade(&mut self) {
        self.access = Access::Shared;
        let mut state = self.lock.0.lock();
        state.writer = false;
        state.readers = 1;
        // A reader with the turnstile may take the lock now; a writer finds that it still has to wait.
        state.access_queue.grant();
    }
}

impl Drop for RwHold<'_> {
    fn drop(&mut self) {
        self.lock.0.lock().leave(self.access);
    }
}
