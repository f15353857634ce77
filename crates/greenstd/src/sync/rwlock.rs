//! std's `RwLock`: a green lock, and std's own around the value, as [`Mutex`](super::Mutex).
//!
//! Readers and writers come through one door, one after the other. Who stands in it waits until those inside have
//! left as far as they are in the way; then they go in and leave the door to the next. So a writer is not overtaken
//! by readers, and readers who follow each other are inside together.

use std::fmt;
use std::sync::{self, LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::{Duration, Instant};

use hub_core::{BiasedMutex, Grace, Holder, WaitReason};

use super::attempt::within_grace;
use super::line::{Line, Wait};
use super::poison;

/// std's `RwLock`, for green threads of one or more hubs and for plain OS threads.
///
/// Readers and writers are served in the order in which they came, so a second `read` of one that reads already
/// waits for ever if a writer came in between.
///
/// A kill or a timeout does not strike at once while it waits: see [`Mutex`](super::Mutex). A destructor that runs while
/// panicking goes before those that wait.
///
/// A write guard that is dropped while its green thread unwinds poisons the lock, also if it unwinds because it was
/// killed or timed out; a read guard does not.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::{sync::{Arc, RwLock}, thread};
/// let names = Arc::new(RwLock::new(vec!["epoll"]));
/// let (first, second) = (names.read().unwrap(), names.read().unwrap());
/// assert_eq!(first.len(), second.len());
/// let writer = Arc::clone(&names);
/// let writer = thread::spawn(move || writer.write().unwrap().push("poll"));
/// drop((first, second));
/// writer.join()?;
/// assert_eq!(*names.read().unwrap(), ["epoll", "poll"]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct RwLock<T: ?Sized> {
    lock: Lock,
    data: sync::RwLock<T>,
}

/// Ends a shared access when dropped, std's `RwLockReadGuard`.
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    // Dropped in this order: the value is free before the next one gets the lock.
    data: sync::RwLockReadGuard<'a, T>,
    _held: Held<'a>,
}

/// Ends an exclusive access when dropped, std's `RwLockWriteGuard`.
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    // As above.
    data: sync::RwLockWriteGuard<'a, T>,
    held: Held<'a>,
    rwlock: &'a RwLock<T>,
}

impl<T> RwLock<T> {
    /// An unlocked lock.
    #[must_use]
    pub const fn new(value: T) -> RwLock<T> {
        RwLock { lock: Lock::new(), data: sync::RwLock::new(value) }
    }

    /// The value, when nobody else has the lock any more.
    ///
    /// # Errors
    ///
    /// If it is poisoned; the value is in the error.
    pub fn into_inner(self) -> LockResult<T> {
        self.data.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits for shared access. Switches if it has to wait.
    ///
    /// # Errors
    ///
    /// If it is poisoned; the guard is in the error.
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.read_guard(self.lock.acquire(Access::Shared))
    }

    /// Takes shared access if it may be had at once, which is not so if somebody waits. Does not switch.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it may not be had, `Poisoned` if the lock is poisoned.
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        let held = self.lock.try_acquire(Access::Shared).ok_or(TryLockError::WouldBlock)?;
        Ok(self.read_guard(held)?)
    }

    /// Like [`read`](RwLock::read), but waits for at most `timeout`; parking_lot's. Switches if it has to wait.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use greenstd::sync::RwLock;
    /// use std::time::Duration;
    /// let lock = RwLock::new(1);
    /// let writer = lock.write().unwrap();
    /// assert!(lock.try_read_for(Duration::from_millis(1)).is_err());
    /// drop(writer);
    /// assert_eq!(*lock.try_read_for(Duration::from_millis(1)).unwrap(), 1);
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it was not to be had in time, `Poisoned` if the lock is poisoned.
    ///
    /// # Panics
    ///
    /// As [`Mutex::try_lock_for`](super::Mutex::try_lock_for).
    #[track_caller]
    pub fn try_read_for(&self, timeout: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        let held =
            self.lock.acquire_within(Grace::begin, Some(timeout), Access::Shared).ok_or(TryLockError::WouldBlock)?;
        Ok(self.read_guard(held)?)
    }

    /// Waits for exclusive access. Switches if it has to wait.
    ///
    /// # Errors
    ///
    /// If it is poisoned; the guard is in the error.
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.write_guard(self.lock.acquire(Access::Exclusive))
    }

    /// Takes exclusive access if nobody has any. Does not switch.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it may not be had, `Poisoned` if the lock is poisoned.
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        let held = self.lock.try_acquire(Access::Exclusive).ok_or(TryLockError::WouldBlock)?;
        Ok(self.write_guard(held)?)
    }

    /// Like [`write`](RwLock::write), but waits for at most `timeout`; parking_lot's. Switches if it has to wait.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use greenstd::sync::RwLock;
    /// use std::time::Duration;
    /// let lock = RwLock::new(1);
    /// let reader = lock.read().unwrap();
    /// assert!(lock.try_write_for(Duration::from_millis(1)).is_err());
    /// drop(reader);
    /// *lock.try_write_for(Duration::from_millis(1)).unwrap() += 1;
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it was not to be had in time, `Poisoned` if the lock is poisoned.
    ///
    /// # Panics
    ///
    /// As [`Mutex::try_lock_for`](super::Mutex::try_lock_for).
    #[track_caller]
    pub fn try_write_for(&self, timeout: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        let held =
            self.lock.acquire_within(Grace::begin, Some(timeout), Access::Exclusive).ok_or(TryLockError::WouldBlock)?;
        Ok(self.write_guard(held)?)
    }

    fn read_guard<'a>(&'a self, held: Held<'a>) -> LockResult<RwLockReadGuard<'a, T>> {
        let data = poison::held(self.data.try_read());
        poison::map(data, |data| RwLockReadGuard { data, _held: held })
    }

    fn write_guard<'a>(&'a self, held: Held<'a>) -> LockResult<RwLockWriteGuard<'a, T>> {
        let data = poison::held(self.data.try_write());
        poison::map(data, |data| RwLockWriteGuard { data, held, rwlock: self })
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

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Turns the exclusive access into a shared one; nobody writes in between. Does not switch.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use greenstd::sync::{RwLock, RwLockWriteGuard};
    /// let lock = RwLock::new(1);
    /// let mut writer = lock.write().unwrap();
    /// *writer += 1;
    /// let reader = RwLockWriteGuard::downgrade(writer);
    /// assert_eq!(*reader + *lock.read().unwrap(), 4);
    /// # });
    /// ```
    pub fn downgrade(s: Self) -> RwLockReadGuard<'a, T> {
        let RwLockWriteGuard { data, mut held, rwlock } = s;
        // The green lock keeps everybody out while std's is free.
        drop(data);
        let data = poison::held(rwlock.data.try_read()).unwrap_or_else(PoisonError::into_inner);
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
        // By the green lock, which tells who may touch std's.
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
struct Lock(BiasedMutex<Room>);

struct Room {
    readers: usize,
    writer: bool,
    /// The last that came in.
    holder: Holder,
    /// Somebody stands in the door.
    door: bool,
    /// Who wait for the door.
    outside: Line,
    /// Who stands in the door, if they have to wait.
    in_door: Line,
}

/// For the door.
struct Outside;

impl Wait for Outside {
    type State = Room;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Lock;
    const HOLDS_EXITS: bool = true;

    fn line(state: &mut Room) -> &mut Line {
        &mut state.outside
    }

    fn pass_on(state: &mut Room) {
        state.leave_door();
    }
}

/// In the door, for those who are in the way.
struct InDoor;

impl Wait for InDoor {
    type State = Room;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Lock;
    const HOLDS_EXITS: bool = true;

    fn line(state: &mut Room) -> &mut Line {
        &mut state.in_door
    }

    fn pass_on(_: &mut Room) {
        // Who leaves the door leaves it to somebody who looks by themselves.
    }
}

impl Lock {
    const fn new() -> Lock {
        Lock(BiasedMutex::new(Room {
            readers: 0,
            writer: false,
            holder: Holder::NOBODY,
            door: false,
            outside: Line::new(),
            in_door: Line::new(),
        }))
    }

    #[track_caller]
    fn acquire(&self, access: Access) -> Held<'_> {
        match self.acquire_within(Grace::begin_whole, None, access) {
            Some(held) => held,
            None => self.stays_held(),
        }
    }

    /// In a destructor that unwinds: the process is about to be aborted.
    #[cold]
    #[track_caller]
    fn stays_held(&self) -> ! {
        let holder = self.0.lock().holder.describe();
        panic!("a destructor cannot wait for a reader-writer lock while panicking: {holder}, took it last");
    }

    #[track_caller]
    fn acquire_within(&self, begin: fn() -> Grace, timeout: Option<Duration>, access: Access) -> Option<Held<'_>> {
        let started = timeout.map(|_| Instant::now());
        let entered = within_grace::<Outside, _>(begin, timeout, &self.0, |room, chosen| {
            if !chosen && room.door {
                return room.pass_door(access).then_some(true);
            }
            room.door = true;
            let entered = room.enter(access);
            if entered {
                room.leave_door();
            }
            Some(entered)
        });
        if !entered.ok()? {
            let _door = Door(self);
            let left = timeout.zip(started).map(|(timeout, started)| timeout.saturating_sub(started.elapsed()));
            within_grace::<InDoor, _>(begin, left, &self.0, |room, _| room.enter(access).then_some(())).ok()?;
        }
        Some(Held { lock: self, access })
    }

    fn try_acquire(&self, access: Access) -> Option<Held<'_>> {
        let mut room = self.0.lock();
        let entered = if room.door { room.pass_door(access) } else { room.enter(access) };
        entered.then(|| Held { lock: self, access })
    }
}

impl Room {
    /// Goes in, unless somebody is in the way.
    fn enter(&mut self, access: Access) -> bool {
        let free = !self.writer && (self.readers == 0 || matches!(access, Access::Shared));
        match access {
            Access::Shared if free => self.readers += 1,
            Access::Exclusive if free => self.writer = true,
            _ => return false,
        }
        self.holder = Holder::current();
        true
    }

    /// Goes in past a waiter in the door, which comes in later: for a destructor that unwinds, which cannot let it run.
    #[cold]
    fn pass_door(&mut self, access: Access) -> bool {
        std::thread::panicking() && self.enter(access)
    }

    fn leave(&mut self, access: Access) {
        match access {
            Access::Shared => self.readers -= 1,
            Access::Exclusive => self.writer = false,
        }
        if self.readers == 0 {
            self.in_door.choose();
        }
    }

    /// The door is the next one's.
    fn leave_door(&mut self) {
        self.door = self.outside.choose();
    }
}

/// Standing in the door.
struct Door<'a>(&'a Lock);

impl Drop for Door<'_> {
    fn drop(&mut self) {
        self.0.0.lock().leave_door();
    }
}

/// Gives the access back.
struct Held<'a> {
    lock: &'a Lock,
    access: Access,
}

impl Held<'_> {
    fn downgrade(&mut self) {
        self.access = Access::Shared;
        let mut room = self.lock.0.lock();
        room.writer = false;
        room.readers = 1;
        // A reader may come in now; a writer finds that it has to wait still.
        room.in_door.choose();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.lock.0.lock().leave(self.access);
    }
}
