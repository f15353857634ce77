use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::iter;
use std::marker::PhantomData;
use std::mem;
use std::panic::resume_unwind;
use std::time::Duration;

use hub_core::{BiasedMutex, BiasedMutexGuard, Deadline, LeftMark, ReadyMark, WaitReason, Waitable};

use super::order::{Fifo, Order};
use super::wait_queue::{Unserved, Wait, WaitQueue};
use super::waiters::Waiters;

mod error;
mod joinable;

pub use error::{GetError, PutError};
pub use joinable::{LifoQueue, OrderedQueue, PriorityQueue, Queue, TooManyTasksDone};

/// A [`LightQueue`] whose items leave in the order `O`, with the same promises.
pub struct OrderedLightQueue<T, O> {
    state: BiasedMutex<State<T, O>>,
}

struct State<T, O> {
    items: O,
    /// `usize::MAX`: no limit.
    capacity: usize,
    getters: Waiters,
    /// The waiters for room, each with its item as payload.
    putters: WaitQueue<Offer<T>>,
    next_offer: u64,
    /// The offers of waiting putters after the queue was closed; each putter takes its own back.
    returned: Vec<Offer<T>>,
    is_closed: bool,
    /// The number of getters that were granted and have not run since. As many items belong to them.
    promised: usize,
    /// The number of items that were put and not reported done.
    unfinished: usize,
    joiners: WaitQueue,
    /// The panic of the order that no operation has resumed yet.
    panic: Option<PanicPayload>,
}

/// The item of a waiting putter.
struct Offer<T> {
    number: u64,
    item: T,
}

type PanicPayload = Box<dyn Any + Send>;

/// The end of a get without an item.
enum NoItem {
    Closed,
    /// The order has panicked.
    Panic(PanicPayload),
}

thread_local! {
    /// Whether an order that calls out is running on this OS thread, under the lock of a queue.
    static ORDERING: Cell<bool> = const { Cell::new(false) };
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
        self.unpromised() < self.capacity || self.total() < self.promised + self.getters.queue.len()
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
        let offer = self.putters.grant_payload();
        offer.map(|offer| self.push(offer.item)).is_some()
    }

    /// Admits the putters whose items are granted to getters.
    fn admit_promised(&mut self) {
        while self.items.len() < self.promised && self.admit_putter() {}
    }

    /// Closes the queue: waiting putters get their items back, and waiting getters end.
    fn close(&mut self) {
        self.is_closed = true;
        while let Some(offer) = self.putters.grant_payload() {
            self.returned.push(offer);
        }
        // Getters wait only while each item is granted to a getter before them. These woken getters find no item. The
        // last call finds no getter, and sets the marks.
        while self.getters.grant() {
            self.promised += 1;
        }
    }

    /// Reports the work for `count` items as done.
    fn finish(&mut self, count: usize) {
        self.unfinished = self.unfinished.saturating_sub(count);
        if self.unfinished == 0 {
            self.joiners.grant_all();
        }
    }

    /// Returns the number of a new offer. No number is zero.
    fn number_offer(&mut self) -> u64 {
        self.next_offer += 1;
        self.next_offer
    }

    /// Returns the item of an offer that the end of the queue has put back.
    fn take_back(&mut self, number: u64) -> Option<T> {
        let index = self.returned.iter().position(|offer| offer.number == number)?;
        Some(self.returned.swap_remove(index).item)
    }

    /// Serves the waiters after a change.
    #[inline]
    fn settle(&mut self) {
        // The common case: no waiter.
        if !(self.getters.is_empty() && self.putters.is_empty()) {
            self.serve_waiters();
        }
    }

    /// Grants getters while there are more items, or sets the marks, and admits putters while there is room.
    fn serve_waiters(&mut self) {
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
        &mut state.getters.queue
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
    type Payload = Offer<T>;

    const REASON: WaitReason = WaitReason::Queue;
    const CHARGED: bool = true;

    fn queue(state: &mut State<T, O>) -> &mut WaitQueue<Offer<T>> {
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
            getters: Waiters::new(),
            putters: WaitQueue::default(),
            next_offer: 0,
            returned: Vec::new(),
            is_closed: false,
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
    /// Returns [`PutError::Closed`] if the queue is closed, before or during the wait. Returns [`PutError::Loop`] where
    /// the caller may not wait (in the main loop, while panicking), and if the main loop ends the wait of the main
    /// greenlet by an error.
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
        let mut number = 0;
        let put = PutWait::wait(&self.state, &mut deadline, Offer { number, item }, |state, offer| match offer {
            Some(offer) if state.is_closed => Ok(Err(offer.item)),
            Some(mut offer) if state.unpromised() >= state.capacity => {
                if number == 0 {
                    number = state.number_offer();
                    offer.number = number;
                }
                Err(offer)
            }
            Some(offer) => {
                state.push(offer.item);
                state.settle();
                Ok(Ok(state.take_panic()))
            }
            // The granting side has taken the item, or has put it back.
            None => Ok(state.take_back(number).map_or_else(|| Ok(state.take_panic()), Err)),
        });
        match put {
            Ok(Ok(panic)) => {
                throw(panic);
                Ok(())
            }
            Ok(Err(item)) => Err(PutError::Closed(item)),
            Err(Unserved::TimedOut(offer)) => Err(PutError::TimedOut(offer.item)),
            Err(Unserved::Failed(error, offer)) => {
                let item = offer.map(|offer| offer.item).or_else(|| self.lock().take_back(number));
                Err(PutError::Loop { error, item })
            }
        }
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
    /// Returns [`PutError::Full`] if the queue is full, and [`PutError::Closed`] if it is closed.
    #[doc(alias = "put_nowait")]
    pub fn try_put(&self, item: T) -> Result<(), PutError<T>> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(PutError::Closed(item));
        }
        if !state.has_room() {
            return Err(PutError::Full(item));
        }
        // Putters that wait for a getter came before this call.
        state.admit_promised();
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
    /// Returns [`GetError::Closed`] if the queue is closed and no item is left, or none that is not granted to another
    /// getter. Returns [`GetError::Loop`] where the caller may not wait (in the main loop, while panicking), and if the
    /// main loop ends the wait of the main greenlet by an error.
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
                Some(()) if !state.has_more() => {
                    return if state.is_closed { Ok(Err(NoItem::Closed)) } else { Err(()) };
                }
                Some(()) => {}
                None => state.promised -= 1,
            }
            match (state.take(), state.is_closed) {
                (Some(item), _) => Ok(Ok(item)),
                (None, is_closed) => match state.take_panic() {
                    Some(payload) => Ok(Err(NoItem::Panic(payload))),
                    None if is_closed => Ok(Err(NoItem::Closed)),
                    // The putter that this getter was granted for has left.
                    None => Err(()),
                },
            }
        })?;
        got.or_else(|none| match none {
            NoItem::Closed => Err(GetError::Closed),
            NoItem::Panic(payload) => resume_unwind(payload),
        })
    }

    /// Removes the next item if there is one, Eventlet's `get_nowait`. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`GetError::Empty`] if there is none, and [`GetError::Closed`] if the queue is closed as well.
    #[doc(alias = "get_nowait")]
    pub fn try_get(&self) -> Result<T, GetError> {
        let mut state = self.lock();
        let item = if state.has_more() { state.take() } else { None };
        let panic = if item.is_none() { state.take_panic() } else { None };
        let is_closed = state.is_closed;
        drop(state);
        throw(panic);
        item.ok_or(if is_closed { GetError::Closed } else { GetError::Empty })
    }

    /// Closes the queue: no more items can be put, and the items that are left are still delivered. Does not switch.
    ///
    /// gevent's and Python's `shutdown`. A put fails from then on, and so does each put that waits; the error holds the
    /// item. A get returns the items that are left, and then ends with [`GetError::Closed`], as does each get that
    /// waits. What was granted before stays: an item that a waiting putter hands to a granted getter is delivered.
    ///
    /// ```
    /// use greenhub::sync::{GetError, PutError, Queue};
    /// use std::sync::Arc;
    /// let jobs = Arc::new(Queue::new());
    /// let worker = jobs.clone();
    /// let green = greenhub::spawn(move || {
    ///     let mut done = Vec::new();
    ///     while let Ok(job) = worker.get() {
    ///         done.push(job);
    ///     }
    ///     done
    /// });
    /// (1..=3).try_for_each(|job| jobs.put(job))?;
    /// jobs.close();
    /// assert!(matches!(jobs.put(4), Err(PutError::Closed(4))));
    /// assert_eq!(green.join()?, [1, 2, 3]);
    /// assert!(matches!(jobs.get(), Err(GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if the [order](Order) does. The queue is closed then.
    #[doc(alias = "shutdown")]
    pub fn close(&self) {
        let mut state = self.lock();
        state.admit_promised();
        state.close();
        let panic = state.take_panic();
        drop(state);
        throw(panic);
    }

    /// Closes the queue and returns the items that no get has returned. Does not switch.
    ///
    /// `shutdown(immediate=True)` of gevent and Python. The items leave in the order of the queue, and count as done
    /// for [`join`](OrderedQueue::join). Waiting putters get their items back in their errors. A getter that was
    /// granted an item and has not run since gets [`GetError::Closed`], as each other getter does.
    ///
    /// ```
    /// use greenhub::sync::{GetError, Queue};
    /// let jobs = Queue::new();
    /// (1..=3).try_for_each(|job| jobs.put(job))?;
    /// assert_eq!(jobs.close_now(), [1, 2, 3]);
    /// jobs.join()?;
    /// assert!(matches!(jobs.get(), Err(GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if the [order](Order) does. The items that have not left by then are dropped.
    #[doc(alias = "shutdown")]
    pub fn close_now(&self) -> Vec<T> {
        // Outside of the lock: the constructor of an order is user code, and may panic.
        let empty = O::default();
        let mut state = self.lock();
        state.close();
        let mut left = mem::replace(&mut state.items, empty);
        state.finish(left.len());
        drop(state);
        iter::from_fn(|| left.pop()).collect()
    }

    /// Returns true if the queue is closed. Does not switch.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
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
        (state.total().saturating_sub(state.promised), state.getters.queue.len())
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
        self.lock().getters.queue.len()
    }

    /// Returns the number of waiting putters. Does not switch.
    #[must_use]
    pub fn putting(&self) -> usize {
        self.lock().putters.len()
    }
}

/// A queue is ready when a get would return at once, with an item or because the queue is closed. The waiter gets no
/// item, and takes one by [`try_get`](OrderedLightQueue::try_get).
///
/// Getters come first. An item that was there for a moment may have been taken since.
impl<T, O: Order<T>> Waitable for OrderedLightQueue<T, O> {
    fn is_ready(&self) -> bool {
        let state = self.lock();
        state.has_more() || state.is_closed
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.lock();
        let is_ready = state.has_more() || state.is_closed;
        state.getters.leave(mark, is_ready)
    }

    fn take_back(&self, left: LeftMark) {
        self.lock().getters.take_back(&left);
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
        let (items, getting, putting) = (state.unpromised(), state.getters.queue.len(), state.putters.len());
        let is_closed = state.is_closed;
        // The formatter is user code and may switch: hold no lock while calling it.
        drop(state);
        let mut shown = f.debug_struct(name);
        shown.field("capacity", &capacity).field("items", &items);
        shown.field("getting", &getting).field("putting", &putting).field("closed", &is_closed);
        shown
    }
}

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
