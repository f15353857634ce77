//! Resources that are made on demand and shared: Eventlet's `pools`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use hub_core::{BiasedMutex, BiasedMutexGuard, Deadline, WaitReason};

use crate::sync::difference;
use crate::sync::wait_queue::{Wait, WaitError, WaitQueue};

/// At most so many resources, such as connections, made when they are asked for and none is free. Eventlet's
/// `pools.Pool`. For green threads of one or several OS threads, and for plain ones.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let pool = greenstd::pools::Pool::new(2, || Ok(String::from("connection")));
/// let mut one = pool.item()?;
/// let two = pool.item()?;
/// one.push_str(", used");
/// assert_eq!(pool.free(), 0); // another `item` would wait
/// drop(one);
/// assert_eq!(*pool.item()?, "connection, used");
/// # drop(two);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Pool<T> {
    make: Box<Make<T>>,
    state: BiasedMutex<State<T>>,
}

type Make<T> = dyn Fn() -> io::Result<T> + Send + Sync;

struct State<T> {
    free: VecDeque<T>,
    /// Items that exist or are being made.
    made: usize,
    /// Places of those who have an item, or will take or make one.
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

    /// One who had a place has it no more.
    fn release_permit(&mut self) {
        self.taken = self.taken.saturating_sub(1);
        self.settle();
    }

    /// One item is no more, and its place is free.
    fn discard_item(&mut self) {
        self.made = self.made.saturating_sub(1);
        self.release_permit();
    }

    /// Takes out a free item, the last that came, if there are more than may be, unless somebody will take it.
    fn surplus(&mut self) -> Option<T> {
        if self.made <= self.size.max(self.taken) {
            return None;
        }
        let item = self.free.pop_back()?;
        self.made -= 1;
        Some(item)
    }
}

/// For an item, or leave to make one.
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

/// Drops, when it is dropped, the item that was kept for one who cannot take it any more, if it is one too many.
struct SurplusGuard<'a, T>(&'a Pool<T>);

impl<T> Drop for SurplusGuard<'_, T> {
    fn drop(&mut self) {
        let surplus = self.0.lock().surplus();
        drop(surplus);
    }
}

/// Counts an item as lost when it is dropped: making it has failed.
struct CreateGuard<'a, T>(&'a Pool<T>);

impl<T> Drop for CreateGuard<'_, T> {
    fn drop(&mut self) {
        self.0.lock().discard_item();
    }
}

impl<T> Pool<T> {
    /// A pool of at most `size` items; `make` makes one, and may block. Items are handed out oldest first. In one of
    /// size zero all wait until it is [resized](Pool::resize). Does not switch.
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

    /// Has the item that was put back last be handed out first. Eventlet's `order_as_stack`.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let pool = greenstd::pools::Pool::new(2, || Ok(0)).newest_first();
    /// let (_, _) = (pool.get()?, pool.get()?);
    /// pool.put(1);
    /// pool.put(2);
    /// assert_eq!(pool.get()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn newest_first(self) -> Pool<T> {
        self.lock().newest_first = true;
        self
    }

    /// An item that goes back when it is dropped: see [`get`](Pool::get). Switches if it has to wait.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get).
    ///
    /// # Panics
    ///
    /// If making one does.
    pub fn item(&self) -> io::Result<Item<'_, T>> {
        Ok(Item { pool: self, value: Some(self.get()?) })
    }

    /// A free item, or a new one; if there are as many as may be, waits until one is [put](Pool::put) back, after
    /// those who came before. Switches then. Each has to be put back: [`item`](Pool::item) sees to that.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let pool = greenstd::pools::Pool::new(1, || Ok(7));
    /// let seven = pool.get()?;
    /// pool.put(seven);
    /// assert_eq!(pool.free(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// What making one failed with; the place goes to the next who waits. If the caller cannot wait.
    ///
    /// # Panics
    ///
    /// If making one does; its place goes to the next as well.
    pub fn get(&self) -> io::Result<T> {
        let surplus_guard = SurplusGuard(self);
        let got = ItemWait::wait(&self.state, &mut Deadline::none(), (), |state, ungranted| {
            match ungranted {
                Some(()) if state.taken >= state.size => return Err(()),
                Some(()) => state.taken += 1,
                // Who was chosen has a place.
                None => {}
            }
            let item = if state.newest_first { state.free.pop_back() } else { state.free.pop_front() };
            state.made += usize::from(item.is_none());
            Ok(item)
        });
        let item = match got {
            Err(WaitError::Failed(error, _)) => return Err((*error).into()),
            // Without a limit it is never too late.
            Err(WaitError::TimedOut(())) => None,
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

    /// Puts an item back that [`get`](Pool::get) gave, or another in its stead; the first who waits has it then. After
    /// shrinking, those that are too many are dropped. Never switches by itself.
    pub fn put(&self, item: T) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(1);
        state.free.push_back(item);
        let surplus = state.surplus();
        state.settle();
        drop(state);
        // Foreign code, and so not under the lock.
        drop(surplus);
    }

    /// Gives the place of an item up that [`get`](Pool::get) gave and that is of no use any more: another may be made.
    /// Never switches.
    pub fn forget(&self) {
        self.lock().discard_item();
    }

    /// Changes how many there may be. Free ones that are too many are dropped, others when they are put back. Growing
    /// lets those who wait make more. Never switches by itself.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let pool = greenstd::pools::Pool::new(2, || Ok("connection"));
    /// let (one, two) = (pool.get()?, pool.get()?);
    /// pool.resize(1);
    /// pool.put(one); // dropped
    /// pool.put(two); // kept
    /// assert_eq!((pool.free(), pool.len()), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
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

    /// How many there may be.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lock().size
    }

    /// How many can be had without waiting, made or not; negative while more are in use than may be. Eventlet's `free`.
    #[must_use]
    pub fn free(&self) -> isize {
        let state = self.lock();
        difference(state.size, state.taken)
    }

    /// How many there are: in use, being made and free.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().made
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait for an item. Eventlet's `waiting`.
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
        // What is written to may be anybody's, and switch.
        drop(state);
        let mut debug = f.debug_struct("Pool");
        debug.field("size", &size).field("made", &made).field("taken", &taken);
        debug.field("waiting", &waiting).finish_non_exhaustive()
    }
}

/// An item of a [`Pool`], which goes back when this is dropped.
pub struct Item<'a, T> {
    pool: &'a Pool<T>,
    /// There until it is dropped.
    value: Option<T>,
}

impl<T> Item<'_, T> {
    /// The item for good, of no use to others any more: another may be made in its place. Does not switch.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let pool = greenstd::pools::Pool::new(1, || Ok("connection"));
    /// let broken = pool.item()?.into_inner();
    /// assert!(pool.is_empty());
    /// # let _ = broken;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn into_inner(mut self) -> T {
        self.pool.forget();
        self.value.take().expect(THERE)
    }
}

const THERE: &str = "an item is there until it is dropped";

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
