use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use hub_core::{BiasedMutex, Deadline, LeftMark, LoopError, ReadyMark, WaitReason, Waitable};

use super::order::Order;
use super::queue::{GetError, OrderedLightQueue, PutError};
use super::wait_error::WaitError;
use super::wait_queue::{Wait, WaitQueue};
use super::waiters::Waiters;

/// A counter of permits, which any caller acquires and releases. Eventlet's `Semaphore`.
///
/// Waiters are served in FIFO order, and no form of acquiring overtakes them. Waits with a timeout queue like the
/// others, and [`try_acquire`](Semaphore::try_acquire) fails while there are waiters. A waiter that an exit unwinds
/// leaves the queue without a permit. A granted wait returns with its permit, and an exit after the grant strikes at
/// the next wait.
///
/// Green threads of any hub and plain OS threads may share a semaphore: it is `Send + Sync`.
///
/// ```
/// use greenhub::sync::Semaphore;
/// use std::sync::Arc;
/// let connections = Arc::new(Semaphore::new(2));
/// let (first, second) = (connections.access()?, connections.access()?);
/// let other = connections.clone();
/// let green = greenhub::thread::spawn(move || other.acquire());
/// greenhub::thread::yield_now();
/// assert_eq!(connections.balance(), -1);
/// drop(first);
/// green.join()??;
/// # drop(second);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "CountingSemaphore")]
#[doc(alias = "TokenPool")]
pub struct Semaphore {
    state: BiasedMutex<State>,
    limit: usize,
}

struct State {
    /// Above zero only while there are no waiters in the queue.
    free: usize,
    waiting: Waiters,
}

impl State {
    /// Takes a free permit.
    fn take(&mut self) -> bool {
        let free = self.free > 0;
        self.free -= usize::from(free);
        free
    }

    /// Grants the permit to the first waiter, or frees it and sets the marks.
    fn give(&mut self) {
        if !self.waiting.grant() {
            self.free += 1;
        }
    }
}

/// The wait for a permit.
struct PermitWait;

impl Wait for PermitWait {
    type State = State;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Semaphore;

    fn queue(state: &mut State) -> &mut WaitQueue {
        &mut state.waiting.queue
    }

    fn regrant(state: &mut State) {
        state.give();
    }
}

impl Semaphore {
    /// Creates a semaphore with that many permits. With one permit it is a lock without an owner.
    #[must_use]
    pub const fn new(permits: usize) -> Semaphore {
        Semaphore::with_limit(permits, usize::MAX)
    }

    const fn with_limit(permits: usize, limit: usize) -> Semaphore {
        let state = State { free: permits, waiting: Waiters::new() };
        Semaphore { state: BiasedMutex::new(state), limit }
    }

    /// Takes a permit, and waits for one if none is free. Switches only if it waits.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error.
    pub fn acquire(&self) -> Result<(), LoopError> {
        self.acquire_within(Deadline::none()).map_err(WaitError::without_limit)
    }

    /// Like [`acquire`](Semaphore::acquire), for at most `timeout`. Switches only if it waits.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::TimedOut`] if no permit was free in time, or an error of [`acquire`](Semaphore::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        self.acquire_within(Deadline::from(timeout))
    }

    fn acquire_within(&self, mut deadline: Deadline) -> Result<(), WaitError> {
        let acquired = PermitWait::wait(&self.state, &mut deadline, (), |state, ungranted| match ungranted {
            // A granted waiter has its permit.
            Some(()) if !state.take() => Err(()),
            _ => Ok(()),
        });
        Ok(acquired?)
    }

    /// Takes a permit if one is free. Does not switch.
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        self.state.lock().take()
    }

    /// Releases a permit, or adds a new one. Does not switch.
    ///
    /// The permit goes to the first waiter, which runs later.
    pub fn release(&self) {
        self.give();
    }

    /// Releases a permit. Returns false, and changes nothing, at the limit.
    fn give(&self) -> bool {
        let mut state = self.state.lock();
        let below = state.free < self.limit;
        if below {
            state.give();
        }
        below
    }

    /// Acquires a permit that is released when the guard is dropped. Switches if none is free.
    ///
    /// # Errors
    ///
    /// Like [`acquire`](Semaphore::acquire).
    #[doc(alias = "with")]
    pub fn access(&self) -> Result<SemaphoreGuard<'_>, LoopError> {
        self.acquire().map(|()| SemaphoreGuard { semaphore: self })
    }

    /// Like [`access`](Semaphore::access), for at most `timeout`. Switches if no permit is free.
    ///
    /// # Errors
    ///
    /// The same as [`acquire_timeout`](Semaphore::acquire_timeout).
    pub fn access_timeout(&self, timeout: Duration) -> Result<SemaphoreGuard<'_>, WaitError> {
        self.acquire_timeout(timeout).map(|()| SemaphoreGuard { semaphore: self })
    }

    /// Like [`access`](Semaphore::access), but only if a permit is free. Does not switch.
    #[must_use]
    pub fn try_access(&self) -> Option<SemaphoreGuard<'_>> {
        self.try_acquire().then(|| SemaphoreGuard { semaphore: self })
    }

    /// Returns true if acquiring would wait. Does not switch.
    #[must_use]
    pub fn locked(&self) -> bool {
        self.state.lock().free == 0
    }

    /// Returns the number of free permits, less the number of waiters. Does not switch.
    #[must_use]
    pub fn balance(&self) -> isize {
        let state = self.state.lock();
        difference(state.free, state.waiting.queue.len())
    }
}

/// Returns `there - taken`, which may be negative. A number too large for `isize` counts as `isize::MAX`.
pub(crate) fn difference(there: usize, taken: usize) -> isize {
    isize::try_from(there).unwrap_or(isize::MAX).saturating_sub_unsigned(taken)
}

/// A semaphore is ready when a permit is free. The waiter gets none, and takes one by
/// [`try_acquire`](Semaphore::try_acquire).
///
/// Callers that wait for a permit come first. A permit that was free for a moment may have been taken since.
impl Waitable for Semaphore {
    fn is_ready(&self) -> bool {
        !self.locked()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.state.lock();
        let is_ready = state.free > 0;
        state.waiting.leave(mark, is_ready)
    }

    fn take_back(&self, left: LeftMark) {
        self.state.lock().waiting.take_back(&left);
    }
}

/// The same as for [`Semaphore`].
impl Waitable for BoundedSemaphore {
    fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        self.0.leave(mark)
    }

    fn take_back(&self, left: LeftMark) {
        self.0.take_back(left);
    }
}

impl Default for Semaphore {
    /// Creates a semaphore with one permit.
    fn default() -> Semaphore {
        Semaphore::new(1)
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let (free, waiting, marks) = (state.free, state.waiting.queue.len(), state.waiting.marks.len());
        // The formatter is user code and may switch: hold no lock while calling it.
        drop(state);
        f.debug_struct("Semaphore").field("free", &free).field("waiting", &waiting).field("marks", &marks).finish()
    }
}

/// Releases its permit when dropped, which does not switch.
#[derive(Debug)]
#[must_use = "the permit goes back at once if the guard is not kept"]
pub struct SemaphoreGuard<'a> {
    semaphore: &'a Semaphore,
}

impl Drop for SemaphoreGuard<'_> {
    fn drop(&mut self) {
        self.semaphore.give();
    }
}

/// A [`Semaphore`] that never has more permits than at its start. Eventlet's `BoundedSemaphore`.
///
/// ```
/// use greenhub::sync::BoundedSemaphore;
/// let semaphore = BoundedSemaphore::new(1);
/// assert!(semaphore.try_acquire());
/// assert!(semaphore.release().is_ok());
/// assert!(semaphore.release().is_err());
/// ```
pub struct BoundedSemaphore(Semaphore);

/// The error of a release without a permit that was acquired.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the semaphore was released too many times")]
#[non_exhaustive]
pub struct TooManyReleases;

impl BoundedSemaphore {
    /// Creates a semaphore with that many permits.
    #[must_use]
    pub const fn new(permits: usize) -> BoundedSemaphore {
        BoundedSemaphore(Semaphore::with_limit(permits, permits))
    }

    /// Releases a permit to the first waiter, which runs later. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`TooManyReleases`] if all permits are free. Nothing changes then.
    pub fn release(&self) -> Result<(), TooManyReleases> {
        if self.0.give() { Ok(()) } else { Err(TooManyReleases) }
    }
}

/// Gives all methods but `release`. [`Semaphore::release`] has no effect at the limit, and does not report it.
impl Deref for BoundedSemaphore {
    type Target = Semaphore;

    fn deref(&self) -> &Semaphore {
        &self.0
    }
}

impl Default for BoundedSemaphore {
    /// Creates a semaphore with one permit.
    fn default() -> BoundedSemaphore {
        BoundedSemaphore::new(1)
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BoundedSemaphore").field(&self.0).finish()
    }
}

/// A semaphore that waits at both ends. Eventlet's `CappedSemaphore`.
///
/// Acquiring waits for a permit, releasing waits for room below a limit.
///
/// It is a queue whose items are all alike, and keeps the promises of queues. With a limit of zero, a release meets an
/// acquisition. A permit is not added if an exit unwinds its releaser from the wait for room. A permit that was granted
/// to a waiter takes no room. If that waiter never comes for it, the permit is kept, even beyond the limit. There is no
/// guard, because a release may wait.
///
/// ```
/// use greenhub::sync::CappedSemaphore;
/// let places = CappedSemaphore::new(0, 1)?;
/// places.release()?;
/// assert!(places.bounded());
/// places.acquire()?;
/// assert!(places.locked());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CappedSemaphore {
    permits: OrderedLightQueue<(), Permits>,
}

/// The error of a [`CappedSemaphore`] that would start above its limit.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a semaphore capped at {limit} cannot start with {permits} permits")]
#[non_exhaustive]
pub struct AboveLimit {
    /// The number of permits that the semaphore was to start with.
    pub permits: usize,
    /// The largest number of permits that it could have.
    pub limit: usize,
}

/// An order for items that are all alike.
#[derive(Default)]
struct Permits(usize);

impl Order<()> for Permits {
    const CALLS_OUT: bool = false;

    fn len(&self) -> usize {
        self.0
    }

    fn push(&mut self, (): ()) {
        self.0 += 1;
    }

    fn pop(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

impl CappedSemaphore {
    /// Creates a semaphore with that many permits, and never more than `limit`.
    ///
    /// # Errors
    ///
    /// Returns [`AboveLimit`] if `permits` is above `limit`.
    pub fn new(permits: usize, limit: usize) -> Result<CappedSemaphore, AboveLimit> {
        if permits > limit {
            return Err(AboveLimit { permits, limit });
        }
        Ok(CappedSemaphore { permits: OrderedLightQueue::filled(Permits(permits), limit) })
    }

    /// Takes a permit, and waits for one if there is none. Switches.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error.
    pub fn acquire(&self) -> Result<(), LoopError> {
        self.permits.get().map_err(|error| WaitError::from(error).without_limit())
    }

    /// Like [`acquire`](CappedSemaphore::acquire), for at most `timeout`. Switches.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::TimedOut`] if there was no permit in time, or an error of
    /// [`acquire`](CappedSemaphore::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        Ok(self.permits.get_timeout(timeout)?)
    }

    /// Takes a permit if there is one. Does not switch.
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        self.permits.try_get().is_ok()
    }

    /// Adds a permit, and waits for room at the limit. Switches.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error.
    pub fn release(&self) -> Result<(), LoopError> {
        self.permits.put(()).map_err(|error| WaitError::from(error).without_limit())
    }

    /// Like [`release`](CappedSemaphore::release), for at most `timeout`. Switches.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::TimedOut`] if there was no room in time, or an error of
    /// [`release`](CappedSemaphore::release).
    pub fn release_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        Ok(self.permits.put_timeout((), timeout)?)
    }

    /// Adds a permit if there is room for it, or a waiter. Does not switch.
    #[must_use]
    pub fn try_release(&self) -> bool {
        self.permits.try_put(()).is_ok()
    }

    /// Returns true if acquiring would wait. Does not switch.
    #[must_use]
    pub fn locked(&self) -> bool {
        !self.permits.has_more()
    }

    /// Returns true if the limit is reached; always with a limit of zero. Does not switch.
    ///
    /// A release then waits, unless an acquirer waits.
    #[must_use]
    pub fn bounded(&self) -> bool {
        self.permits.is_full()
    }

    /// Returns the number of permits, less the number of waiting acquirers. Does not switch.
    ///
    /// It counts the permits of waiting releasers, too.
    #[must_use]
    pub fn balance(&self) -> isize {
        let (available, waiting) = self.permits.available_and_waiting();
        difference(available, waiting)
    }
}

/// A semaphore is ready when there is a permit. The waiter gets none, and takes one by
/// [`try_acquire`](CappedSemaphore::try_acquire).
impl Waitable for CappedSemaphore {
    fn is_ready(&self) -> bool {
        self.permits.is_ready()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        self.permits.leave(mark)
    }

    fn take_back(&self, left: LeftMark) {
        self.permits.take_back(left);
    }
}

impl From<GetError> for WaitError {
    fn from(error: GetError) -> WaitError {
        match error {
            // The queue of a semaphore is never closed.
            GetError::Empty | GetError::TimedOut | GetError::Closed => WaitError::TimedOut,
            GetError::Loop(error) => WaitError::Loop(error),
        }
    }
}

impl From<PutError<()>> for WaitError {
    fn from(error: PutError<()>) -> WaitError {
        match error {
            PutError::Full(()) | PutError::TimedOut(()) | PutError::Closed(()) => WaitError::TimedOut,
            PutError::Loop { error, .. } => WaitError::Loop(error),
        }
    }
}

impl fmt::Debug for CappedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CappedSemaphore")
            .field("limit", &self.permits.capacity())
            .field("balance", &self.balance())
            .finish()
    }
}
