//! std's `sync`, green, and what Eventlet adds to it.
//!
//! One type serves green threads of one hub, green threads of different hubs, and plain OS threads: a green thread
//! parks, an OS thread without green threads blocks itself. Whoever waits is served in the order in which they
//! came. A wake-up never switches.

mod attempt;
mod barrier;
mod channel;
mod condvar;
mod event;
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
pub use mutex::{Mutex, MutexGuard};
pub use once::{Once, OnceState};
pub use once_lock::OnceLock;
pub use order::{Fifo, Lifo, Order, Priority};
pub use queue::{
    GetError, LifoQueue, LightQueue, OrderedLightQueue, OrderedQueue, PriorityQueue, PutError, Queue, TooManyTasksDone,
};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{AboveLimit, BoundedSemaphore, CappedSemaphore, Semaphore, SemaphoreGuard, TooManyReleases};
