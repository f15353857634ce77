//! std's `sync`, green, and what Eventlet adds to it.
//!
//! One type serves green threads of one hub, green threads of different hubs, and plain OS threads: a green thread
//! parks, an OS thread without green threads blocks itself. A wake-up never switches. Neither does taking a lock, a token
//! or an event that is there; channels and queues that are served at once let others run after many operations in a row.
//!
//! An OS thread for which no hub can be built blocks itself, too, as long as it has no green threads, timers or listeners
//! of its own. With some of them a wait needs a hub: it gives the error of the hub, or panics where std has no error.
//!
//! A destructor of a thread-local that runs after the end of the green threads of its OS thread may use all of it. Its
//! waits block the OS thread until another one serves them, without a limit, as with std.
//!
//! Whoever waits is chosen in the order in which they came, and nobody who comes later gets what they were chosen
//! for. When they run is up to their OS threads: of two that were chosen one after the other on different ones, or
//! one from here and one from another, either may run first. Where what is given is not all alike, as with items of
//! a queue, each of them is sure of *one*, not of a particular one: whoever runs first takes the first.

mod attempt;
mod barrier;
mod channel;
mod condvar;
mod event;
mod lazy_lock;
pub(crate) mod line;
pub mod mpsc;
mod mutex;
mod once;
mod once_lock;
mod order;
mod poison;
mod queue;
mod rwlock;
mod semaphore;

pub use std::sync::{Arc, LockResult, PoisonError, TryLockError, TryLockResult, Weak, atomic};

pub use barrier::{Barrier, BarrierWaitResult};
pub use channel::Channel;
pub use condvar::{Condvar, WaitTimeoutResult};
pub use event::{Event, EventError};
pub use lazy_lock::LazyLock;
pub use mutex::{Mutex, MutexGuard};
pub use once::{Once, OnceState};
pub use once_lock::OnceLock;
pub use order::{Fifo, Lifo, Order, Priority};
pub use queue::{
    GetError, LifoQueue, LightQueue, OrderedLightQueue, OrderedQueue, PriorityQueue, PutError, Queue, TooManyTasksDone,
};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub(crate) use semaphore::difference;
pub use semaphore::{AboveLimit, BoundedSemaphore, CappedSemaphore, Semaphore, SemaphoreGuard, TooManyReleases};
