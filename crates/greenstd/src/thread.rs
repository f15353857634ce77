//! std's `thread`, green: what std does with OS threads is done with green threads of the calling OS thread.
//!
//! Work for other cores is `std::thread`'s.

use std::rc::Rc;

pub use std::thread::{available_parallelism, panicking};

pub use hub_core::{
    Builder, GreenThread, GreenThread as JoinHandle, Scope, ScopedGreenThread, ScopedGreenThread as ScopedJoinHandle,
    scope, sleep, spawn, yield_now,
};

/// The running green thread, std's `current`. Does not switch.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hub-core/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::thread;
/// let main = thread::current().id();
/// let green = thread::Builder::new().name("worker").spawn(thread::current)?;
/// let worker = green.join()?;
/// assert_eq!(worker.name(), Some("worker"));
/// assert_ne!(worker.id(), main);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use]
pub fn current() -> Thread {
    Thread {
        id: ThreadId { os_thread: std::thread::current().id(), greenlet: hub_core::current_id() },
        name: hub_core::current_name(),
    }
}

/// Who a green thread is, std's `Thread`. It belongs to its OS thread.
#[derive(Clone, Debug)]
pub struct Thread {
    id: ThreadId,
    name: Option<Rc<str>>,
}

impl Thread {
    /// Tells it from every other that lives.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        self.id
    }

    /// The name that [`Builder::name`] gave it. The main greenlet of a thread has none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// Names one of the green threads that live, std's `ThreadId`. The id of one that has ended may be given to
/// another, which std promises not to do.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct ThreadId {
    os_thread: std::thread::ThreadId,
    greenlet: u32,
}
