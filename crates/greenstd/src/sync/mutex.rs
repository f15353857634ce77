//! std's `Mutex`: a green lock, and std's own around the value, which is free for whoever holds the green one.
//!
//! std's guard belongs to an OS thread, which a green thread never leaves; it tells of the poison, too.

use std::fmt;
use std::sync::{self, LockResult, TryLockError, TryLockResult};

use hub_core::{BiasedMutex, Doing};

use super::attempt::until;
use super::line::{Line, Wait};
use super::poison;

/// std's `Mutex`, for green threads of one or more hubs and for plain OS threads.
///
/// Those who wait get it in the order in which they came: whoever unlocks it hands it to the first of them. A guard
/// may be kept while the green thread parks.
///
/// A guard that is dropped while its green thread unwinds poisons the mutex, also if it unwinds because it was
/// killed or its [`with_timeout`](hub_core::with_timeout) has struck: what it was doing to the value is left half
/// done. One that waits for the lock does not poison it.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hub-core/tests/support/doctest.rs")); }
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
    /// If it has to wait in the main loop; in the main greenlet, with what the loop has to tell it. In a destructor
    /// that runs while panicking it waits for the time of
    /// [`set_panicking_grace`](hub_core::set_panicking_grace) at most, for only another OS thread could unlock it
    /// meanwhile; a panic there aborts the process, so such destructors better call [`try_lock`](Mutex::try_lock).
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.guard(self.lock.acquire())
    }

    /// Locks the mutex if nobody has it. Does not switch.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if somebody has it, `Poisoned` if it is poisoned.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let held = self.lock.try_acquire().ok_or(TryLockError::WouldBlock)?;
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
    held: bool,
    waiting: Line,
}

/// Until it is unlocked.
struct ToLock;

impl Wait for ToLock {
    type State = Locked;
    type Brought = ();

    const DOING: Doing = Doing::Lock;

    fn line(state: &mut Locked) -> &mut Line {
        &mut state.waiting
    }

    fn pass_on(state: &mut Locked) {
        state.release();
    }
}

impl Lock {
    const fn new() -> Lock {
        Lock(BiasedMutex::new(Locked { held: false, waiting: Line::new() }))
    }

    #[track_caller]
    fn acquire(&self) -> Held<'_> {
        // Who was chosen has it already.
        until::<ToLock, _>(&self.0, |locked, chosen| (chosen || locked.take()).then_some(()));
        Held(self)
    }

    fn try_acquire(&self) -> Option<Held<'_>> {
        self.0.lock().take().then(|| Held(self))
    }
}

impl Locked {
    fn take(&mut self) -> bool {
        !std::mem::replace(&mut self.held, true)
    }

    /// It goes to the first who waits, and is never free in between.
    fn release(&mut self) {
        self.held = self.waiting.choose();
    }
}

/// Gives the lock back.
struct Held<'a>(&'a Lock);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.lock().release();
    }
}
