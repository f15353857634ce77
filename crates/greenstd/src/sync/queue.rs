use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::time::Duration;

use hub_core::{BiasedMutex, BiasedMutexGuard, Deadline, LoopError, WaitReason};

use super::order::{Fifo, Lifo, Order, Priority};
use super::wait_queue::{Unserved, Wait, WaitQueue};

/// A [`LightQueue`] whose items leave in the order `O`, with the same promises.
pub struct OrderedLightQueue<T, O> {
    state: BiasedMutex<State<T, O>>,
}

struct State<T, O> {
    items: O,
    /// `usize::MAX`: no limit.
    capacity: usize,
    getters: WaitQueue,
    /// The waiters for room, each with its item as payload.
    putters: WaitQueue<T>,
    /// The number of getters that were granted and have not run since. As many items belong to them.
    promised: usize,
    /// The number of items that were put and not reported done.
    unfinished: usize,
    joiners: WaitQueue,
    /// The panic of the order that no operation has resumed yet.
    panic: Option<PanicPayload>,
}

type PanicPayload = Box<dyn Any + Send>;

thread_local! {
    /// Whether an order that calls out is running on this OS thread, under the lock of a queue.
    static ORDERING: Cell<bool> = const { Cell::new(false) };
}

/// The reason why an item was not put.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PutError<T> {
    /// There is no room now. Holds the item.
    #[error("the queue is full")]
    Full(T),
    /// There was no room in time. Holds the item.
    #[error("timed out: the queue is full")]
    TimedOut(T),
    /// The caller cannot wait, or its wait failed. Holds the item, unless a getter took it before the error came.
    #[error("{error}")]
    Loop {
        /// The reason.
        error: LoopError,
        /// The item, unless a getter took it.
        item: Option<T>,
    },
}

/// The reason why no item was returned.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// There is no item now.
    #[error("the queue is empty")]
    Empty,
    /// There was no item in time.
    #[error("timed out: the queue is empty")]
    TimedOut,
    /// The caller cannot wait, or its wait failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutError::Full(_) => f.write_str("Full(..)"),
            PutError::TimedOut(_) => f.write_str("TimedOut(..)"),
            PutError::Loop { error, .. } => f.debug_struct("Loop").field("error", error).finish_non_exhaustive(),
        }
    }
}

impl<T> From<Unserved<T>> for PutError<T> {
    fn from(ended: Unserved<T>) -> PutError<T> {
        match ended {
            Unserved::TimedOut(item) => PutError::TimedOut(item),
            Unserved::Failed(error, item) => PutError::Loop { error, item },
        }
    }
}

impl From<Unserved> for GetError {
    fn from(ended: Unserved) -> GetError {
        match ended {
            Unserved::TimedOut(()) => GetError::TimedOut,
            Unserved::Failed(error, _) => GetError::Loop(error),
        }
    }
}

impl<T> From<PutError<T>> for io::Error {
    /// Drops the item.
    fn from(error: PutError<T>) -> io::Error {
        match error {
            PutError::Full(_) => io::Error::new(io::ErrorKind::WouldBlock, error.to_string()),
            PutError::TimedOut(_) => io::Error::new(io::ErrorKind::TimedOut, error.to_string()),
            PutError::Loop { error, .. } => error.into(),
        }
    }
}

impl From<GetError> for io::Error {
    fn from(error: GetError) -> io::Error {
        match error {
            GetError::Empty => io::Error::new(io::ErrorKind::WouldBlock, error),
            GetError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, error),
            GetError::Loop(error) => error.into(),
        }
    }
}

impl<T, O: Order<T>> State<T, O> {
    /// Returns the number of items that are not promised to a getter.
    fn unpromised(&self) -> usize {
        self.items.len().saturating_sub(self.promised)
    }

    /// Returns the number of items, those of waiting putters included.
    fn total(&self) -> usize {
        self.items.len().saturating_add(self.putters.len())
    }

    /// Returns true if a newcomer may get an item, from the queue or from a waiting putter.
    fn has_more(&self) -> bool {
        self.total() > self.promised
    }

    /// Returns true if one more item is within the limit, or has a getter that waits without one.
    fn has_room(&self) -> bool {
        self.unpromised() < self.capacity || self.total() < self.promised + self.getters.len()
    }

    /// Calls the order. Stores its panic, and returns `None` then.
    fn order<R>(&mut self, call: impl FnOnce(&mut O) -> R) -> Option<R> {
        if !O::CALLS_OUT {
            return Some(call(&mut self.items));
        }
        ORDERING.set(true);
        let result = hub_core::internal::without_switching(|| call(&mut self.items));
        ORDERING.set(false);
        match result {
            Ok(result) => Some(result),
            Err(payload) => {
                match self.panic {
                    None => self.panic = Some(payload),
                    // The payload's destructor is user code and must not run under the lock.
                    Some(_) => std::mem::forget(payload),
                }
                None
            }
        }
    }

    /// Returns the stored panic for the running operation, which resumes it without the lock.
    fn take_panic(&mut self) -> Option<PanicPayload> {
        // A second panic while unwinding would abort the process.
        if self.panic.is_some() && std::thread::panicking() { None } else { self.panic.take() }
    }

    fn push(&mut self, item: T) {
        let before = self.items.len();
        let pushed = self.order(|items| items.push(item));
        // An item that a panic left out of its place is still in the queue.
        self.unfinished += usize::from(pushed.is_some() || self.items.len() > before);
    }

    /// Moves the item of the first putter into the queue.
    fn admit_putter(&mut self) -> bool {
        let item = self.putters.grant_payload();
        item.map(|item| self.push(item)).is_some()
    }

    /// Grants getters while there are more items, and admits putters while there is room.
    fn settle(&mut self) {
        while self.has_more() && self.getters.grant() {
            self.promised += 1;
        }
        while self.unpromised() < self.capacity && self.admit_putter() {}
    }

    /// Removes the next item, for a getter without a promise. `None` if the putter that it was granted for has left.
    fn take(&mut self) -> Option<T> {
        if self.items.is_empty() && !self.admit_putter() {
            return None;
        }
        let item = self.order(O::pop).flatten();
        self.settle();
        item
    }
}

/// Resumes a panic of the order. Called after the lock is released.
fn throw(panic: Option<PanicPayload>) {
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}

/// The wait for an item.
struct GetWait<T, O>(PhantomData<(T, O)>);

impl<T, O: Order<T>> Wait for GetWait<T, O> {
    type State = State<T, O>;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Queue;
    const CHARGED: bool = true;

    fn queue(state: &mut State<T, O>) -> &mut WaitQueue {
        &mut state.getters
    }

    fn regrant(state: &mut State<T, O>) {
        state.promised -= 1;
        state.settle();
    }
}

/// The wait for room, or for a getter that takes the item.
struct PutWait<T, O>(PhantomData<(T, O)>);

impl<T, O: Order<T>> Wait for PutWait<T, O> {
    type State = State<T, O>;
    type Payload = T;

    const REASON: WaitReason = WaitReason::Queue;
    const CHARGED: bool = true;

    fn queue(state: &mut State<T, O>) -> &mut WaitQueue<T> {
        &mut state.putters
    }

    fn enqueued(state: &mut State<T, O>) {
        state.settle();
    }

    fn regrant(_: &mut State<T, O>) {
        // A getter that takes the item of a putter keeps it.
    }
}

/// The wait until all items are reported done.
struct JoinWait<T, O>(PhantomData<(T, O)>);

impl<T, O: Order<T>> Wait for JoinWait<T, O> {
    type State = State<T, O>;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Queue;

    fn queue(state: &mut State<T, O>) -> &mut WaitQueue {
        &mut state.joiners
    }

    fn regrant(_: &mut State<T, O>) {}
}

impl<T, O: Order<T>> OrderedLightQueue<T, O> {
    /// Creates a queue without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(usize::MAX)
    }

    /// Creates a queue that is full with `capacity` items. With zero, a put meets a get.
    #[must_use]
    pub fn bounded(capacity: usize) -> Self {
        let state = State {
            items: O::default(),
            capacity,
            getters: WaitQueue::default(),
            putters: WaitQueue::default(),
            promised: 0,
            unfinished: 0,
            joiners: WaitQueue::default(),
            panic: None,
        };
        Self { state: BiasedMutex::new(state) }
    }

    /// Creates a queue with these items.
    pub(super) fn filled(items: O, capacity: usize) -> Self {
        let queue = Self::bounded(capacity);
        queue.state.lock().items = items;
        queue
    }

    /// Puts an item, and waits for room if the queue is full. Switches.
    ///
    /// If an exit ends the wait, the item is dropped, and no getter gets it.
    ///
    /// # Errors
    ///
    /// Returns [`PutError::Loop`] where the caller may not wait (in the main loop, while panicking), and if the main
    /// loop ends the wait of the main greenlet by an error.
    pub fn put(&self, item: T) -> Result<(), PutError<T>> {
        self.put_within(item, Deadline::none())
    }

    /// Like [`put`](OrderedLightQueue::put), for at most `timeout`. Switches.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// # Errors
    ///
    /// Returns [`PutError::TimedOut`] if there was no room in time, or an error of [`put`](OrderedLightQueue::put).
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_within(item, Deadline::from(Some(timeout)))
    }

    fn put_within(&self, item: T, mut deadline: Deadline) -> Result<(), PutError<T>> {
        self.refuse_use_by_order();
        let panic = PutWait::wait(&self.state, &mut deadline, item, |state, item| match item {
            Some(item) if state.unpromised() >= state.capacity => Err(item),
            Some(item) => {
                state.push(item);
                state.settle();
                Ok(state.take_panic())
            }
            // The granting side has taken the item.
            None => Ok(state.take_panic()),
        })?;
        throw(panic);
        Ok(())
    }

    /// Panics in a call from an order: the OS thread would wait for the lock that it holds.
    #[inline]
    fn refuse_use_by_order(&self) {
        assert!(!(O::CALLS_OUT && ORDERING.get()), "the order of a queue, or a comparison of its items, uses a queue");
    }

    fn lock(&self) -> BiasedMutexGuard<'_, State<T, O>> {
        self.refuse_use_by_order();
        self.state.lock()
    }

    /// Puts an item if there is room or a waiting getter, Eventlet's `put_nowait`. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`PutError::Full`] if the queue is full.
    #[doc(alias = "put_nowait")]
    pub fn try_put(&self, item: T) -> Result<(), PutError<T>> {
        let mut state = self.lock();
        if !state.has_room() {
            return Err(PutError::Full(item));
        }
        // Putters that wait for a getter came before this call.
        while state.items.len() < state.promised && state.admit_putter() {}
        state.push(item);
        state.settle();
        let panic = state.take_panic();
        drop(state);
        throw(panic);
        Ok(())
    }

    /// Removes the next item and returns it, and waits for one if there is none. Switches.
    ///
    /// # Errors
    ///
    /// Returns [`GetError::Loop`] where the caller may not wait (in the main loop, while panicking), and if the main
    /// loop ends the wait of the main greenlet by an error.
    pub fn get(&self) -> Result<T, GetError> {
        self.get_within(Deadline::none())
    }

    /// Like [`get`](OrderedLightQueue::get), for at most `timeout`. Switches.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// # Errors
    ///
    /// Returns [`GetError::TimedOut`] if there was no item in time, or an error of [`get`](OrderedLightQueue::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_within(Deadline::from(Some(timeout)))
    }

    fn get_within(&self, mut deadline: Deadline) -> Result<T, GetError> {
        self.refuse_use_by_order();
        let got = GetWait::wait(&self.state, &mut deadline, (), |state, ungranted| {
            match ungranted {
                Some(()) if !state.has_more() => return Err(()),
                Some(()) => {}
                None => state.promised -= 1,
            }
            match state.take() {
                Some(item) => Ok(Ok(item)),
                // Without a panic, the putter that this getter was granted for has left.
                None => state.take_panic().map(Err).ok_or(()),
            }
        })?;
        Ok(got.unwrap_or_else(|payload| resume_unwind(payload)))
    }

    /// Removes the next item if there is one, Eventlet's `get_nowait`. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`GetError::Empty`] if there is none.
    #[doc(alias = "get_nowait")]
    pub fn try_get(&self) -> Result<T, GetError> {
        let mut state = self.lock();
        let item = if state.has_more() { state.take() } else { None };
        let panic = if item.is_none() { state.take_panic() } else { None };
        drop(state);
        throw(panic);
        item.ok_or(GetError::Empty)
    }

    /// Returns the number of items for newcomers, Eventlet's `qsize`. Does not switch.
    #[doc(alias = "qsize")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().unpromised()
    }

    /// Returns true if there are no items for newcomers. Does not switch.
    ///
    /// A get then waits, unless a putter waits.
    #[doc(alias = "empty")]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns true if the limit is reached; always with a limit of zero. Does not switch.
    #[doc(alias = "full")]
    #[must_use]
    pub fn is_full(&self) -> bool {
        let state = self.lock();
        state.unpromised() >= state.capacity
    }

    /// Returns the limit, or `None` if there is none. Eventlet's `maxsize`. Does not switch.
    #[doc(alias = "maxsize")]
    #[must_use]
    pub fn capacity(&self) -> Option<usize> {
        Some(self.lock().capacity).filter(|&capacity| capacity != usize::MAX)
    }

    /// Returns true if a get would return at once.
    pub(super) fn has_more(&self) -> bool {
        self.lock().has_more()
    }

    /// Returns the number of items not promised, those of waiting putters included, and the number of waiting getters.
    pub(super) fn available_and_waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.total().saturating_sub(state.promised), state.getters.len())
    }

    /// Changes the limit; `None` removes it. Does not switch.
    ///
    /// Putters that have room now go on. Items beyond the new limit stay.
    pub fn resize(&self, capacity: impl Into<Option<usize>>) {
        let capacity = capacity.into().unwrap_or(usize::MAX);
        let mut state = self.lock();
        state.capacity = capacity;
        state.settle();
        let panic = state.take_panic();
        drop(state);
        throw(panic);
    }

    /// Returns the number of waiting getters. Does not switch.
    #[must_use]
    pub fn getting(&self) -> usize {
        self.lock().getters.len()
    }

    /// Returns the number of waiting putters. Does not switch.
    #[must_use]
    pub fn putting(&self) -> usize {
        self.lock().putters.len()
    }
}

impl<T, O: Order<T>> Default for OrderedLightQueue<T, O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, O: Order<T>> fmt::Debug for OrderedLightQueue<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f, "LightQueue").finish()
    }
}

impl<T, O: Order<T>> OrderedLightQueue<T, O> {
    fn describe<'a, 'f>(&self, f: &'a mut fmt::Formatter<'f>, name: &str) -> fmt::DebugStruct<'a, 'f> {
        let capacity = self.capacity();
        let state = self.lock();
        let (items, getting, putting) = (state.unpromised(), state.getters.len(), state.putters.len());
        // The formatter is user code and may switch: hold no lock while calling it.
        drop(state);
        let mut shown = f.debug_struct(name);
        shown.field("capacity", &capacity).field("items", &items);
        shown.field("getting", &getting).field("putting", &putting);
        shown
    }
}

/// A [`Queue`] whose items leave in the order `O`.
///
/// It is an [`OrderedLightQueue`] that also counts unfinished items.
pub struct OrderedQueue<T, O>(OrderedLightQueue<T, O>);

/// A queue between putters and getters. Eventlet's `LightQueue`.
///
/// Unlike a [`Queue`] it does not count unfinished items.
///
/// Getters and putters are granted in FIFO order, and a newcomer takes nothing that was granted to a waiter. A granted
/// getter is sure of one item, not of a particular one. It takes the next item of the queue's order when it runs. Of
/// getters that were granted from or on several OS threads, a later one may run earlier. An exit that comes after the
/// grant strikes at the getter's next wait. If the main loop ends the wait of a granted getter by an error, another
/// getter is granted. A granted item takes no room. If its getter never comes for it, the item is kept, even beyond the
/// limit. The item of a waiting putter stays with it until there is room. It does not enter the queue if an exit, a
/// deadline or an error ends the wait of the putter.
///
/// A queue [`bounded`](OrderedLightQueue::bounded) to zero holds nothing: a putter waits until a getter has taken its
/// item.
///
/// Green threads of any hub and plain OS threads may share a queue: it is `Send + Sync` if `T` is `Send`.
///
/// ```
/// use greenhub::sync::LightQueue;
/// use std::sync::Arc;
/// let queue = Arc::new(LightQueue::bounded(1));
/// let putter = queue.clone();
/// let green = greenhub::thread::spawn(move || (1..=3).try_for_each(|n| putter.put(n)));
/// let got = (queue.get()?, queue.get()?, queue.get()?);
/// assert_eq!(got, (1, 2, 3));
/// green.join()??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type LightQueue<T> = OrderedLightQueue<T, Fifo<T>>;

/// A [`LightQueue`] that also counts unfinished items. Eventlet's `Queue`.
///
/// Callers can wait until all items are reported done.
///
/// ```
/// use greenhub::sync::Queue;
/// use std::sync::Arc;
/// let jobs: Arc<Queue<u32>> = Arc::default();
/// (1..=3).try_for_each(|n| jobs.put(n))?;
/// let worker = jobs.clone();
/// greenhub::thread::spawn(move || {
///     while let Ok(_job) = worker.get() {
///         worker.task_done().unwrap();
///     }
/// });
/// jobs.join()?;
/// assert!(jobs.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "JoinableQueue")]
#[doc(alias = "SimpleQueue")]
pub type Queue<T> = OrderedQueue<T, Fifo<T>>;

/// A [`Queue`] that returns the smallest item first. Eventlet's `PriorityQueue`.
///
/// Equal items leave in the order in which they were put.
///
/// Items are compared under the lock of the queue. In a comparison a wait or a yield fails or panics, as in the main
/// loop, and a use of a queue with such an order panics. A panic of a comparison reaches the operation and loses no
/// item: see [`Order`].
///
/// ```
/// use greenhub::sync::PriorityQueue;
/// let queue = PriorityQueue::new();
/// for (priority, job) in [(2, "later"), (1, "first"), (2, "last")] {
///     queue.try_put((priority, job))?;
/// }
/// assert_eq!(queue.try_get()?, (1, "first"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type PriorityQueue<T> = OrderedQueue<T, Priority<T>>;

/// A [`Queue`] that returns the item first that was put last.
///
/// ```
/// use greenhub::sync::LifoQueue;
/// let queue = LifoQueue::new();
/// queue.try_put("old")?;
/// queue.try_put("new")?;
/// assert_eq!(queue.try_get()?, "new");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type LifoQueue<T> = OrderedQueue<T, Lifo<T>>;

/// The error of a `task_done` without an unfinished item.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("task_done was called more often than items were put")]
#[non_exhaustive]
pub struct TooManyTasksDone;

impl<T, O: Order<T>> OrderedQueue<T, O> {
    /// Creates a queue without a limit.
    #[must_use]
    pub fn new() -> Self {
        OrderedQueue(OrderedLightQueue::new())
    }

    /// Creates a queue that is full with `capacity` items. With zero, a put meets a get.
    #[must_use]
    pub fn bounded(capacity: usize) -> Self {
        OrderedQueue(OrderedLightQueue::bounded(capacity))
    }

    /// Reports the work for one item as done. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`TooManyTasksDone`] if all items were reported done before.
    pub fn task_done(&self) -> Result<(), TooManyTasksDone> {
        let mut state = self.lock();
        state.unfinished = state.unfinished.checked_sub(1).ok_or(TooManyTasksDone)?;
        if state.unfinished == 0 {
            state.joiners.grant_all();
        }
        Ok(())
    }

    /// Waits until all items that were put are reported done. Switches if it waits.
    ///
    /// Items of waiting putters do not count.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error.
    pub fn join(&self) -> Result<(), LoopError> {
        self.refuse_use_by_order();
        let joined = JoinWait::wait(&self.state, &mut Deadline::none(), (), |state, ungranted| match ungranted {
            Some(()) if state.unfinished != 0 => Err(()),
            _ => Ok(()),
        });
        match joined {
            Ok(()) | Err(Unserved::TimedOut(())) => Ok(()),
            Err(Unserved::Failed(error, _)) => Err(error),
        }
    }

    /// Returns the number of items that are not reported done. Does not switch.
    #[doc(alias = "unfinished_tasks")]
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.lock().unfinished
    }
}

impl<T, O> Deref for OrderedQueue<T, O> {
    type Target = OrderedLightQueue<T, O>;

    fn deref(&self) -> &OrderedLightQueue<T, O> {
        &self.0
    }
}

impl<T, O: Order<T>> Default for OrderedQueue<T, O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, O: Order<T>> fmt::Debug for OrderedQueue<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f, "Queue").field("unfinished", &self.unfinished()).finish()
    }
}
