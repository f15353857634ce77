//! std's `sync` for green threads, Eventlet's primitives, and the channels of Tokio that std lacks.
//!
//! | from | here |
//! |---|---|
//! | std | [`Mutex`], [`RwLock`], [`Condvar`], [`Barrier`], [`Once`], [`OnceLock`], [`LazyLock`], [`mpsc`] |
//! | Eventlet | [`Event`], [`Semaphore`] and its siblings, [`Queue`] and its siblings, [`Channel`] |
//! | Tokio | [`oneshot`]: one value; [`watch`]: the last value; [`broadcast`]: every value for every receiver; [`Notify`]: a wake-up without a value; [`CancellationToken`]: a request to stop |
//! | governor | [`RateLimiter`]: permits at a rate |
//!
//! The primitives from Tokio keep its names for types and calls. An `async` call is a plain one here, which switches,
//! with a sibling that takes a limit. A wait that reaches it returns `TimedOut`, and a caller that cannot wait gets
//! `Loop`.
//!
//! One primitive serves green threads of one hub, green threads of different hubs, and plain OS threads. A green thread
//! parks; an OS thread without green threads blocks. A wake-up never switches. Taking a lock, a permit or an event that
//! is available does not switch either. Channels, queues and capped semaphores that are served at once still yield
//! after many operations in a row.
//!
//! An OS thread for which no hub can be built blocks, too, as long as it has no green threads, timers or listeners of
//! its own. With some of them a wait needs a hub: it returns the error of the hub, or panics where std's signature has
//! no error.
//!
//! The destructor of a thread-local may use all of this module, also after the green threads of its OS thread have
//! ended. Its waits block the OS thread without a limit until another OS thread serves them, as with std.
//!
//! Waiters are granted in FIFO order, and a newcomer never gets what was granted to a waiter. Their OS threads decide
//! when the waiters run: of two waiters that were granted on different OS threads, or by different OS threads, either
//! may run first. Where the granted things differ, as the items of a queue do, a granted waiter is sure of *one* item,
//! not of a particular one: the first waiter that runs takes the first item.
//!
//! # The cost of a message
//!
//! [`mpsc`] is the fastest channel between green threads of one OS thread, before a [`Queue`] and a pair of [`Event`]s.
//! Between two OS threads a message is fast while both answer at once. Where an OS thread sleeps, the system has to
//! wake it, so few large messages are better than many small ones. The chapter "Which channel, pool or lock?" of the
//! guide has the measured costs.

mod barrier;
pub mod broadcast;
mod cancellation_token;
mod channel;
mod close_wait;
mod condvar;
mod event;
mod lazy_lock;
pub mod mpsc;
mod mutex;
mod notify;
mod once;
mod once_lock;
pub mod oneshot;
mod order;
mod poison;
mod queue;
mod rate_limiter;
mod recv_error;
mod rwlock;
mod semaphore;
mod wait_error;
mod wait_infallible;
pub(crate) mod wait_queue;
mod waiters;
pub mod watch;

pub use std::sync::{Arc, LockResult, PoisonError, TryLockError, TryLockResult, Weak, atomic};

pub use barrier::{Barrier, BarrierWaitResult};
pub use cancellation_token::{CancellationToken, DropGuard};
pub use channel::Channel;
pub use condvar::{Condvar, WaitTimeoutResult};
pub use event::{Event, EventError};
pub use lazy_lock::LazyLock;
pub use mutex::{Mutex, MutexGuard};
pub use notify::Notify;
pub use once::{Once, OnceState};
pub use once_lock::OnceLock;
pub use order::{Fifo, Lifo, Order, Priority};
pub use queue::{
    GetError, LifoQueue, LightQueue, OrderedLightQueue, OrderedQueue, PriorityQueue, PutError, Queue, TooManyTasksDone,
};
pub use rate_limiter::{RateLimitError, RateLimiter};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub(crate) use semaphore::difference;
pub use semaphore::{AboveLimit, BoundedSemaphore, CappedSemaphore, Semaphore, SemaphoreGuard, TooManyReleases};
pub use wait_error::WaitError;
