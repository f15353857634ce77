//! Pools of shared resources that are created on demand, Eventlet's `pools`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use hub_core::{BiasedMutex, BiasedMutexGuard, Deadline, WaitReason};

use crate::sync::difference;
use crate::sync::wait_queue::{Unserved, Wait, WaitQueue};

/// A bounded number of resources, such as connections, Eventlet's `pools.Pool`.
///
/// A resource is created when it is asked for and none is free. Green threads of one or several OS threads and plain OS
/// threads may share a pool.
///
/// ```
/// let pool = greenhub::pools::Pool::new(2, || Ok(String::from("connection")));
/// let mut one = pool.item()?;
/// let two = pool.item()?;
/// one.push_str(", used");
/// assert_eq!(pool.free(), 0); // another `item` would wait
/// drop(one);
/// assert_eq!(*pool.item()?, "connection, used");
/// # drop(two);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "ConnectionPool")]
#[doc(alias = "db_pool")]
pub struct Pool<T> {
    make: Box<Make<T>>,
    state: BiasedMutex<State<T>>,
}

type Make<T> = dyn Fn() -> io::Result<T> + Send + Sync;

struct State<T> {
    free: VecDeque<T>,
    /// The number of items that exist or are being created.
    made: usize,
    /// The number of permits in use. A caller uses one while it has an item, and before it takes or creates the item.
    taken: usize,
    size: usize,
    newest_first: bool,
    waiting: WaitQueue,
}

impl<T> State<T> {
    fn settle(&mut self) {
        while self.taken < self.size && self.waiting.grant() {
            self.taken += 1;
        }
    }

    /// Releases a permit.
    fn release_permit(&mut self) {
        self.taken = self.taken.saturating_sub(1);
        self.settle();
    }

    /// Removes an item that is gone, and releases its permit.
    fn discard_item(&mut self) {
        self.made = self.made.saturating_sub(1);
        self.release_permit();
    }

    /// Removes the newest free item if there are too many, unless a waiter is about to take it.
    fn surplus(&mut self) -> Option<T> {
        if self.made <= self.size.max(self.taken) {
            return None;
        }
        let item = self.free.pop_back()?;
        self.made -= 1;
        Some(item)
    }
}

/// The wait for a permit to take an item or to create one.
struct ItemWait<T>(PhantomData<T>);

impl<T> Wait for ItemWait<T> {
    type State = State<T>;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Queue;

    fn queue(state: &mut State<T>) -> &mut WaitQueue {
        &mut state.waiting
    }

    fn regrant(state: &mut State<T>) {
        state.release_permit();
    }
}

/// Drops a surplus item when dropped. The item was kept for a waiter that cannot take it any more.
struct SurplusGuard<'a, T>(&'a Pool<T>);

impl<T> Drop for SurplusGuard<'_, T> {
    fn drop(&mut self) {
        let surplus = self.0.lock().surplus();
        drop(surplus);
    }
}

/// Discards the item when dropped: its creation has failed.
struct CreateGuard<'a, T>(&'a Pool<T>);

impl<T> Drop for CreateGuard<'_, T> {
    fn drop(&mut self) {
        self.0.lock().discard_item();
    }
}

impl<T> Pool<T> {
    /// Creates a pool of at most `size` items. Does not switch.
    ///
    /// `make` creates an item, and may block. Items are handed out oldest first. In a pool of size zero all callers
    /// wait until it is [resized](Pool::resize).
    pub fn new(size: usize, make: impl Fn() -> io::Result<T> + Send + Sync + 'static) -> Pool<T> {
        let state = State {
            free: VecDeque::new(),
            made: 0,
            taken: 0,
            size,
            newest_first: false,
            waiting: WaitQueue::default(),
        };
        Pool { make: Box::new(make), state: BiasedMutex::new(state) }
    }

    /// Makes the pool hand out the newest item first, Eventlet's `order_as_stack`.
    ///
    /// ```
    /// let pool = greenhub::pools::Pool::new(2, || Ok(0)).newest_first();
    /// let (_, _) = (pool.get()?, pool.get()?);
    /// pool.put(1);
    /// pool.put(2);
    /// assert_eq!(pool.get()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn newest_first(self) -> Pool<T> {
        self.lock().newest_first = true;
        self
    }

    /// Takes an item that is put back when dropped. Switches if it has to wait.
    ///
    /// # Errors
    ///
    /// Like [`get`](Pool::get).
    ///
    /// # Panics
    ///
    /// Panics if the creation of an item panics.
    #[doc(alias = "acquire")]
    pub fn item(&self) -> io::Result<Item<'_, T>> {
        Ok(Item { pool: self, value: Some(self.get()?) })
    }

    /// Takes a free item, or creates one. Switches if it has to wait.
    ///
    /// At the limit it waits until an item is [put](Pool::put) back; waiters are served in FIFO order. The caller has
    /// to put the item back: [`item`](Pool::item) does that by itself.
    ///
    /// ```
    /// let pool = greenhub::pools::Pool::new(1, || Ok(7));
    /// let seven = pool.get()?;
    /// pool.put(seven);
    /// assert_eq!(pool.free(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error of the creation; the permit goes to the next waiter. Returns an error if the caller cannot
    /// wait.
    ///
    /// # Panics
    ///
    /// Panics if the creation panics; the permit goes to the next waiter as well.
    pub fn get(&self) -> io::Result<T> {
        let surplus_guard = SurplusGuard(self);
        let got = ItemWait::wait(&self.state, &mut Deadline::none(), (), |state, ungranted| {
            match ungranted {
                Some(()) if state.taken >= state.size => return Err(()),
                Some(()) => state.taken += 1,
                // A granted waiter has its permit.
                None => {}
            }
            let item = if state.newest_first { state.free.pop_back() } else { state.free.pop_front() };
            state.made += usize::from(item.is_none());
            Ok(item)
        });
        let item = match got {
            Err(Unserved::Failed(error, _)) => return Err(error.into()),
            // Does not occur without a timeout.
            Err(Unserved::TimedOut(())) => None,
            Ok(item) => item,
        };
        std::mem::forget(surplus_guard);
        if let Some(item) = item {
            return Ok(item);
        }
        let create_guard = CreateGuard(self);
        let item = (self.make)()?;
        std::mem::forget(create_guard);
        Ok(item)
    }

    /// Puts back an item of [`get`](Pool::get), or a replacement. Never switches by itself.
    ///
    /// The first waiter gets it. After shrinking, surplus items are dropped.
    pub fn put(&self, item: T) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(1);
        state.free.push_back(item);
        let surplus = state.surplus();
        state.settle();
        drop(state);
        // The item's destructor is user code: it runs without the lock.
        drop(surplus);
    }

    /// Gives up the permit of an item of [`get`](Pool::get) that cannot be used any more. Does not switch.
    ///
    /// Another item may be created.
    pub fn forget(&self) {
        self.lock().discard_item();
    }

    /// Changes the limit. Never switches by itself.
    ///
    /// Surplus items are dropped: free ones at once, others when they are put back. Growing lets waiters create more.
    ///
    /// ```
    /// let pool = greenhub::pools::Pool::new(2, || Ok("connection"));
    /// let (one, two) = (pool.get()?, pool.get()?);
    /// pool.resize(1);
    /// pool.put(one); // dropped
    /// pool.put(two); // kept
    /// assert_eq!((pool.free(), pool.len()), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resize(&self, size: usize) {
        let mut surplus = Vec::new();
        let mut state = self.lock();
        state.size = size;
        while let Some(item) = state.surplus() {
            surplus.push(item);
        }
        state.settle();
        drop(state);
        drop(surplus);
    }

    /// Returns the limit.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lock().size
    }

    /// Returns how many items are available without waiting, created or not. Eventlet's `free`.
    ///
    /// It is negative while too many are in use.
    #[must_use]
    pub fn free(&self) -> isize {
        let state = self.lock();
        difference(state.size, state.taken)
    }

    /// Returns the number of items: in use, being created and free.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().made
    }

    /// Returns true if there are no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of callers that wait for an item, Eventlet's `waiting`.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> BiasedMutexGuard<'_, State<T>> {
        self.state.lock()
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let (size, made, taken, waiting) = (state.size, state.made, state.taken, state.waiting.len());
        // The formatter is user code and may switch: hold no lock while calling it.
        drop(state);
        let mut debug = f.debug_struct("Pool");
        debug.field("size", &size).field("made", &made).field("taken", &taken);
        debug.field("waiting", &waiting).finish_non_exhaustive()
    }
}

/// An item of a [`Pool`], put back when dropped.
#[must_use = "the item goes back at once if it is not kept"]
pub struct Item<'a, T> {
    pool: &'a Pool<T>,
    /// `Some` until the guard is dropped, or the item is taken out of the pool.
    value: Option<T>,
}

impl<T> Item<'_, T> {
    /// Takes the item out of the pool for good. Does not switch.
    ///
    /// Another item may be created in its place.
    ///
    /// ```
    /// let pool = greenhub::pools::Pool::new(1, || Ok("connection"));
    /// let broken = pool.item()?.into_inner();
    /// assert!(pool.is_empty());
    /// # let _ = broken;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn into_inner(mut self) -> T {
        self.pool.forget();
        self.value.take().expect(THERE)
    }
}

const THERE: &str = "a guard has its item until the guard is dropped";

impl<T> Deref for Item<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect(THERE)
    }
}

impl<T> DerefMut for Item<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect(THERE)
    }
}

impl<T> Drop for Item<'_, T> {
    fn drop(&mut self) {
        if let Some(item) = self.value.take() {
            self.pool.put(item);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Item<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Item").field(&**self).finish()
    }
}
