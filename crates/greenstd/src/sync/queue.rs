use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::time::Duration;

use hub_core::{BiasedMutex, BiasedMutexGuard, Deadline, LoopError, WaitReason};

use super::line::{Ended, Line, Wait};
use super::order::{Fifo, Lifo, Order, Priority};

/// A [`LightQueue`] whose items leave in the order `O`. What is said there holds for it.
pub struct OrderedLightQueue<T, O> {
    state: BiasedMutex<State<T, O>>,
}

struct State<T, O> {
    items: O,
    /// `usize::MAX`: without limit.
    capacity: usize,
    getters: Line,
    /// With the items that wait for room.
    putters: Line<T>,
    /// How many getters were woken and did not run yet. As many items are theirs.
    promised: usize,
    /// What was taken in and is not reported done.
    unfinished: usize,
    joiners: Line,
    /// Of a panic of the order that no operation was told of yet.
    panic: Option<Payload>,
}

type Payload = Box<dyn Any + Send>;

thread_local! {
    /// Whether an order that calls out works on this OS thread: it has the lock of a queue.
    static ORDERING: Cell<bool> = const { Cell::new(false) };
}

/// Why nothing was put.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PutError<T> {
    /// There is no room, or was none in time. The item comes back.
    #[error("the queue is full")]
    Full(T),
    /// The caller cannot wait. The item comes back, unless somebody had taken it before the error came.
    #[error("{0}")]
    Loop(LoopError, Option<T>),
}

/// Why nothing was got.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// There is no item, or was none in time.
    #[error("the queue is empty")]
    Empty,
    /// The caller cannot wait.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutError::Full(_) => f.write_str("Full(..)"),
            PutError::Loop(error, _) => f.debug_tuple("Loop").field(error).finish_non_exhaustive(),
        }
    }
}

impl<T> From<Ended<T>> for PutError<T> {
    fn from(ended: Ended<T>) -> PutError<T> {
        match ended {
            Ended::Late(item) => PutError::Full(item),
            Ended::Failed(error, item) => PutError::Loop(*error, item),
        }
    }
}

impl From<Ended> for GetError {
    fn from(ended: Ended) -> GetError {
        match ended {
            Ended::Late(()) => GetError::Empty,
            Ended::Failed(error, _) => GetError::Loop(*error),
        }
    }
}

impl<T, O: Order<T>> State<T, O> {
    /// Items that nobody was promised.
    fn free(&self) -> usize {
        self.items.len().saturating_sub(self.promised)
    }

    /// Items that are there or with putters.
    fn there(&self) -> usize {
        self.items.len().saturating_add(self.putters.len())
    }

    /// Whether there is an item for one who gets now, or comes with one who waits to put.
    fn has_more(&self) -> bool {
        self.there() > self.promised
    }

    /// Whether an item taken in now is within the limit, or for a getter that has none to get.
    fn has_room(&self) -> bool {
        self.free() < self.capacity || self.there() < self.promised + self.getters.len()
    }

    /// Calls the order, and keeps its panic: `None` then.
    fn order<R>(&mut self, call: impl FnOnce(&mut O) -> R) -> Option<R> {
        if !O::CALLS_OUT {
            return Some(call(&mut self.items));
        }
        ORDERING.set(true);
        let result = hub_core::without_switching(|| call(&mut self.items));
        ORDERING.set(false);
        match result {
            Ok(result) => Some(result),
            Err(payload) => {
                match self.panic {
                    None => self.panic = Some(payload),
                    // Its destructor is foreign code, too.
                    Some(_) => std::mem::forget(payload),
                }
                None
            }
        }
    }

    /// For the running operation, which throws it without the lock.
    fn take_panic(&mut self) -> Option<Payload> {
        // A second panic would abort the process.
        if self.panic.is_some() && std::thread::panicking() { None } else { self.panic.take() }
    }

    fn push(&mut self, item: T) {
        let before = self.items.len();
        let pushed = self.order(|items| items.push(item));
        // An item that is kept out of its place is there.
        self.unfinished += usize::from(pushed.is_some() || self.items.len() > before);
    }

    /// Takes in the item of the putter that waits longest.
    fn take_in(&mut self) -> bool {
        let item = self.putters.choose_with();
        item.map(|item| self.push(item)).is_some()
    }

    /// Wakes getters while there is more to get, and takes in what waits while there is room.
    fn settle(&mut self) {
        while self.has_more() && self.getters.choose() {
            self.promised += 1;
        }
        while self.free() < self.capacity && self.take_in() {}
    }

    /// The next item, for one who has it promised no more. `None` if the putter that came with it has left.
    fn take(&mut self) -> Option<T> {
        if self.items.is_empty() && !self.take_in() {
            return None;
        }
        let item = self.order(O::pop).flatten();
        self.settle();
        item
    }
}

/// Goes on with a panic of the order, when the lock is released.
fn throw(panic: Option<Payload>) {
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}

/// For an item.
struct ToGet<T, O>(PhantomData<(T, O)>);

impl<T, O: Order<T>> Wait for ToGet<T, O> {
    type State = State<T, O>;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Queue;
    const CHARGED: bool = true;

    fn line(state: &mut State<T, O>) -> &mut Line {
        &mut state.getters
    }

    fn pass_on(state: &mut State<T, O>) {
        state.promised -= 1;
        state.settle();
    }
}

/// For room, or somebody who takes the item.
struct ToPut<T, O>(PhantomData<(T, O)>);

impl<T, O: Order<T>> Wait for ToPut<T, O> {
    type State = State<T, O>;
    type Brought = T;

    const DOING: WaitReason = WaitReason::Queue;
    const CHARGED: bool = true;

    fn line(state: &mut State<T, O>) -> &mut Line<T> {
        &mut state.putters
    }

    fn entered(state: &mut State<T, O>) {
        state.settle();
    }

    fn pass_on(_: &mut State<T, O>) {
        // Who takes an item from a putter keeps it.
    }
}

/// Until all is done.
struct ToJoin<T, O>(PhantomData<(T, O)>);

impl<T, O: Order<T>> Wait for ToJoin<T, O> {
    type State = State<T, O>;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Queue;

    fn line(state: &mut State<T, O>) -> &mut Line {
        &mut state.joiners
    }

    fn pass_on(_: &mut State<T, O>) {}
}

impl<T, O: Order<T>> OrderedLightQueue<T, O> {
    /// A queue that is never full.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(usize::MAX)
    }

    /// A queue that is full with `capacity` items. With zero, who puts meets who gets.
    #[must_use]
    pub fn bounded(capacity: usize) -> Self {
        let state = State {
            items: O::default(),
            capacity,
            getters: Line::default(),
            putters: Line::default(),
            promised: 0,
            unfinished: 0,
            joiners: Line::default(),
            panic: None,
        };
        Self { state: BiasedMutex::new(state) }
    }

    /// One that has these items from the beginning.
    pub(super) fn filled(items: O, capacity: usize) -> Self {
        let queue = Self::bounded(capacity);
        queue.state.lock().items = items;
        queue
    }

    /// Puts an item in, and waits for room if the queue is full. Switches.
    ///
    /// If a timeout or a kill ends the wait the item is dropped, and nobody gets it.
    ///
    /// # Errors
    ///
    /// [`PutError::Loop`] where nobody may wait: in the main loop, while panicking.
    pub fn put(&self, item: T) -> Result<(), PutError<T>> {
        self.put_within(item, Deadline::none())
    }

    /// As [`put`](OrderedLightQueue::put), for `timeout` at most. One of zero lets others run once.
    ///
    /// # Errors
    ///
    /// [`PutError::Full`] if there was no room in time; else as there.
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_within(item, Deadline::from(Some(timeout)))
    }

    fn put_within(&self, item: T, mut limit: Deadline) -> Result<(), PutError<T>> {
        self.refuse_use_by_order();
        let panic = ToPut::wait(&self.state, &mut limit, item, |state, item| match item {
            Some(item) if state.free() >= state.capacity => Err(item),
            Some(item) => {
                state.push(item);
                state.settle();
                Ok(state.take_panic())
            }
            // The item was taken.
            None => Ok(state.take_panic()),
        })?;
        throw(panic);
        Ok(())
    }

    /// Without this the OS thread would wait for the lock that it has.
    #[inline]
    fn refuse_use_by_order(&self) {
        assert!(!(O::CALLS_OUT && ORDERING.get()), "the order of a queue, or a comparison of its items, uses a queue");
    }

    fn lock(&self) -> BiasedMutexGuard<'_, State<T, O>> {
        self.refuse_use_by_order();
        self.state.lock()
    }

    /// Puts an item in if there is room, or if somebody waits for it. Eventlet's `put_nowait`. Does not switch.
    ///
    /// # Errors
    ///
    /// [`PutError::Full`] if not.
    pub fn try_put(&self, item: T) -> Result<(), PutError<T>> {
        let mut state = self.lock();
        if !state.has_room() {
            return Err(PutError::Full(item));
        }
        // Those who wait for a getter came before.
        while state.items.len() < state.promised && state.take_in() {}
        state.push(item);
        state.settle();
        let panic = state.take_panic();
        drop(state);
        throw(panic);
        Ok(())
    }

    /// Takes the next item, and waits for one if there is none. Switches.
    ///
    /// # Errors
    ///
    /// [`GetError::Loop`] where nobody may wait: in the main loop, while panicking.
    pub fn get(&self) -> Result<T, GetError> {
        self.get_within(Deadline::none())
    }

    /// As [`get`](OrderedLightQueue::get), for `timeout` at most. One of zero lets others run once.
    ///
    /// # Errors
    ///
    /// [`GetError::Empty`] if there was no item in time; else as there.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_within(Deadline::from(Some(timeout)))
    }

    fn get_within(&self, mut limit: Deadline) -> Result<T, GetError> {
        self.refuse_use_by_order();
        let got = ToGet::wait(&self.state, &mut limit, (), |state, unchosen| {
            match unchosen {
                Some(()) if !state.has_more() => return Err(()),
                Some(()) => {}
                None => state.promised -= 1,
            }
            match state.take() {
                Some(item) => Ok(Ok(item)),
                // Without a panic the putter has left for which this getter was woken.
                None => state.take_panic().map(Err).ok_or(()),
            }
        })?;
        Ok(got.unwrap_or_else(|payload| resume_unwind(payload)))
    }

    /// Takes the next item if there is one. Eventlet's `get_nowait`. Does not switch.
    ///
    /// # Errors
    ///
    /// [`GetError::Empty`] if there is none.
    pub fn try_get(&self) -> Result<T, GetError> {
        let mut state = self.lock();
        let item = if state.has_more() { state.take() } else { None };
        let panic = if item.is_none() { state.take_panic() } else { None };
        drop(state);
        throw(panic);
        item.ok_or(GetError::Empty)
    }

    /// How many items are there for those who come. Eventlet's `qsize`. Does not switch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().free()
    }

    /// Whether there is none: a get would wait, unless somebody waits to put. Does not switch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the limit is reached. With a limit of zero it always is. Does not switch.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let state = self.lock();
        state.free() >= state.capacity
    }

    /// How many items it may hold; `None` if that has no limit. Eventlet's `maxsize`. Does not switch.
    #[must_use]
    pub fn capacity(&self) -> Option<usize> {
        Some(self.lock().capacity).filter(|&capacity| capacity != usize::MAX)
    }

    /// Whether a get would return at once.
    pub(super) fn has_more(&self) -> bool {
        self.lock().has_more()
    }

    /// How many items nobody was promised, there or with those who wait for room, and how many wait for one.
    pub(super) fn there_and_waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.there().saturating_sub(state.promised), state.getters.len())
    }

    /// Changes the limit; `None` removes it. Who waits for room that is there now goes on; what is there beyond the
    /// new limit stays. Does not switch.
    pub fn resize(&self, capacity: impl Into<Option<usize>>) {
        let capacity = capacity.into().unwrap_or(usize::MAX);
        let mut state = self.lock();
        state.capacity = capacity;
        state.settle();
        let panic = state.take_panic();
        drop(state);
        throw(panic);
    }

    /// How many wait for an item. Does not switch.
    #[must_use]
    pub fn getting(&self) -> usize {
        self.lock().getters.len()
    }

    /// How many wait for room. Does not switch.
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
        let (items, getting, putting) = (state.free(), state.getters.len(), state.putters.len());
        // What is written to may be anybody's, and switch.
        drop(state);
        let mut shown = f.debug_struct(name);
        shown.field("capacity", &capacity).field("items", &items);
        shown.field("getting", &getting).field("putting", &putting);
        shown
    }
}

/// A [`Queue`] whose items leave in the order `O`: an [`OrderedLightQueue`] that also counts what is done.
pub struct OrderedQueue<T, O>(OrderedLightQueue<T, O>);

/// Items that some put and others get. Eventlet's `LightQueue`: a [`Queue`] that does not count what is done.
///
/// Getters and putters are chosen in the order in which they came, and a newcomer takes nothing that somebody
/// before it was chosen for. A getter that is woken is sure of one item, not of a particular one: it takes the next
/// by the queue's order when it runs, and of getters that were woken from or on several OS threads a later one may
/// run earlier. If it is killed before it runs, another getter is woken. An item that somebody is sure of takes no
/// room, and is kept, even beyond the limit, if nobody comes for it. The item of a putter that waits stays with it until
/// there is room, and is not taken in if the putter is killed or gives up.
///
/// A queue [`bounded`](OrderedLightQueue::bounded) to zero holds nothing: who puts waits until somebody has taken the
/// item.
///
/// Green threads of any hub and plain OS threads may share one: it is `Send + Sync` if `T` is `Send`.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::sync::LightQueue;
/// use std::sync::Arc;
/// let queue = Arc::new(LightQueue::bounded(1));
/// let putter = queue.clone();
/// let green = greenstd::thread::spawn(move || (1..=3).try_for_each(|n| putter.put(n)));
/// let got = (queue.get()?, queue.get()?, queue.get()?);
/// assert_eq!(got, (1, 2, 3));
/// green.join()??;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub type LightQueue<T> = OrderedLightQueue<T, Fifo<T>>;

/// A [`LightQueue`] that also counts what is done with its items, so that one can wait until all of it is. Eventlet's
/// `Queue`.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::sync::Queue;
/// use std::sync::Arc;
/// let jobs: Arc<Queue<u32>> = Arc::default();
/// (1..=3).try_for_each(|n| jobs.put(n))?;
/// let worker = jobs.clone();
/// greenstd::thread::spawn(move || {
///     while let Ok(_job) = worker.get() {
///         worker.task_done().unwrap();
///     }
/// });
/// jobs.join()?;
/// assert!(jobs.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub type Queue<T> = OrderedQueue<T, Fifo<T>>;

/// A [`Queue`] that gives the smallest item first, and of equal ones the one that was put first.
///
/// Items are compared under the lock of the queue: a comparison that waits, gives way, or uses a queue with such an order
/// panics. A panic of a comparison reaches the operation and loses no item: see [`Order`].
///
/// ```
/// use greenstd::sync::PriorityQueue;
/// let queue = PriorityQueue::new();
/// for (priority, job) in [(2, "later"), (1, "first"), (2, "last")] {
///     queue.try_put((priority, job))?;
/// }
/// assert_eq!(queue.try_get()?, (1, "first"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type PriorityQueue<T> = OrderedQueue<T, Priority<T>>;

/// A [`Queue`] that gives the item first that was put last.
///
/// ```
/// use greenstd::sync::LifoQueue;
/// let queue = LifoQueue::new();
/// queue.try_put("old")?;
/// queue.try_put("new")?;
/// assert_eq!(queue.try_get()?, "new");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type LifoQueue<T> = OrderedQueue<T, Lifo<T>>;

/// More was reported done than was put.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("task_done was called more often than items were put")]
pub struct TooManyTasksDone;

impl<T, O: Order<T>> OrderedQueue<T, O> {
    /// A queue that is never full.
    #[must_use]
    pub fn new() -> Self {
        OrderedQueue(OrderedLightQueue::new())
    }

    /// A queue that is full with `capacity` items. With zero, who puts meets who gets.
    #[must_use]
    pub fn bounded(capacity: usize) -> Self {
        OrderedQueue(OrderedLightQueue::bounded(capacity))
    }

    /// Says that what was to be done with one item is done. Does not switch.
    ///
    /// # Errors
    ///
    /// [`TooManyTasksDone`] if it was said for each item before.
    pub fn task_done(&self) -> Result<(), TooManyTasksDone> {
        let mut state = self.lock();
        state.unfinished = state.unfinished.checked_sub(1).ok_or(TooManyTasksDone)?;
        if state.unfinished == 0 {
            state.joiners.choose_all();
        }
        Ok(())
    }

    /// Waits until all that was put is done; returns at once if it is. Items that still wait for room do not count.
    /// Switches if something is to be done.
    ///
    /// # Errors
    ///
    /// Where nobody may wait: in the main loop, while panicking.
    pub fn join(&self) -> Result<(), LoopError> {
        self.refuse_use_by_order();
        let joined = ToJoin::wait(&self.state, &mut Deadline::none(), (), |state, unchosen| match unchosen {
            Some(()) if state.unfinished != 0 => Err(()),
            _ => Ok(()),
        });
        match joined {
            Ok(()) | Err(Ended::Late(())) => Ok(()),
            Err(Ended::Failed(error, _)) => Err(*error),
        }
    }

    /// How many items are not reported done. Does not switch.
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
