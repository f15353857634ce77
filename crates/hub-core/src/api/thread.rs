//! Who a green thread is, and waits that only it has: std's `park`.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::sleep::consume_budget;
use crate::base::wait_reason::WaitReason;
use crate::error::LoopError;
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::task::TaskRef;
use crate::main_loop::deadline::Deadline;
use crate::wait::biased::BiasedMutex;
use crate::wait::grace::Grace;
use crate::wait::parker::{Parker, Unparker};

/// Who a green thread is, std's `Thread`. May go to other OS threads.
#[derive(Clone)]
pub struct Thread(Arc<Inner>);

struct Inner {
    id: ThreadId,
    name: Option<Box<str>>,
    token: BiasedMutex<Token>,
}

#[derive(Default)]
struct Token {
    there: bool,
    /// Who waits for it: one, or several plain greenlets of an OS thread, which share a token.
    waiting: Vec<Unparker>,
}

/// Names a green thread, std's `ThreadId`: no two of a process have the same, also if one has ended.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct ThreadId(u64);

thread_local! {
    /// The main greenlet's; plain ones have no other.
    static MAIN: Cell<Option<Thread>> = const { Cell::new(None) };
}

/// The running green thread, std's `current`. Does not switch.
///
/// Plain greenlets are taken for the main one of their OS thread.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let main = hub_core::current().id();
/// let green = hub_core::Builder::new().name("worker").spawn(hub_core::current)?;
/// assert_eq!(green.thread().name(), Some("worker"));
/// let worker = green.join()?;
/// assert_eq!(worker.name(), Some("worker"));
/// assert_ne!(worker.id(), main);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use]
pub fn current() -> Thread {
    match local::try_get().and_then(|_| run::current().task()) {
        Some(task) => of(task).clone(),
        None => MAIN.try_with(kept).unwrap_or_else(|_| Thread::new(None)),
    }
}

/// The handle of a green thread, made at first use.
pub(crate) fn of<'a>(task: TaskRef) -> &'a Thread {
    let made = task.companion(|| Box::new(Thread::new(task.name().as_deref())));
    made.downcast_ref().expect("a green thread has no other companion")
}

fn kept(main: &Cell<Option<Thread>>) -> Thread {
    let thread = main.take().unwrap_or_else(|| Thread::new(None));
    main.set(Some(thread.clone()));
    thread
}

/// Waits until somebody calls [`Thread::unpark`] for the running green thread, which may have happened before,
/// std's `park`. May return early. Switches.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let green = hub_core::spawn(hub_core::park);
/// let thread = green.thread().clone();
/// let other = std::thread::spawn(move || thread.unpark());
/// green.join()?;
/// other.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Panics
///
/// In the main loop, and in the main greenlet with what the loop has to tell it. While panicking it blocks the OS
/// thread for the time of [`set_panicking_grace`](crate::set_panicking_grace), and returns.
#[track_caller]
pub fn park() {
    park_within(None);
}

/// As [`park`], for `timeout` at most. Switches.
///
/// # Panics
///
/// As [`park`].
#[track_caller]
pub fn park_timeout(timeout: Duration) {
    park_within(Some(timeout));
}

#[track_caller]
fn park_within(timeout: Option<Duration>) {
    match current().wait(&mut Deadline::from(timeout)) {
        Ok(()) | Err(LoopError::Aborted | LoopError::HubReplaced) => {}
        Err(LoopError::Panicking) => {
            let grace = Grace::begin();
            std::thread::sleep(timeout.unwrap_or(Duration::MAX).min(grace.left()));
        }
        Err(error) => panic!("park: {error}"),
    }
}

impl Thread {
    fn new(name: Option<&str>) -> Thread {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = ThreadId(NEXT.fetch_add(1, Ordering::Relaxed));
        Thread(Arc::new(Inner { id, name: name.map(Box::from), token: BiasedMutex::default() }))
    }

    /// Tells it from every other.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        self.0.id
    }

    /// The name that [`Builder::name`](crate::Builder::name) gave it. The main greenlet of a thread has none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Ends its [`park`], or the next one if it does not wait. May be called on any OS thread. Does not switch.
    pub fn unpark(&self) {
        let mut token = self.0.token.lock();
        token.there = true;
        token.waiting.drain(..).for_each(Unparker::unpark);
    }

    /// Takes the token, waiting once if it is not there.
    fn wait(&self, limit: &mut Deadline) -> Result<(), LoopError> {
        // Another OS thread may bring the token each time.
        consume_budget().map_err(|refused| *refused)?;
        let mut token = self.0.token.lock();
        while !token.there {
            let Some(parker) = Parker::if_prepared(WaitReason::Park)? else {
                drop(token);
                Parker::prepare(WaitReason::Park)?;
                token = self.0.token.lock();
                continue;
            };
            let unparker = parker.unparker();
            token.waiting.push(unparker);
            drop(token);
            let leaving = Leaving { thread: self, unparker };
            let waited = parker.park(limit);
            drop(leaving);
            waited?;
            token = self.0.token.lock();
            break;
        }
        token.there = false;
        Ok(())
    }
}

/// Takes back what a wait has left, also if the wait is unwound.
struct Leaving<'a> {
    thread: &'a Thread,
    unparker: Unparker,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.thread.0.token.lock().waiting.retain(|waiting| *waiting != self.unparker);
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("id", &self.id()).field("name", &self.name()).finish_non_exhaustive()
    }
}
