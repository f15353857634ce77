//! Handles of green threads, and std's `park`.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::budget::consume_budget;
use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, LoopErrorKind};
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::task::TaskRef;
use crate::main_loop::deadline::Deadline;
use crate::wait::biased::BiasedMutex;
use crate::wait::grace::Grace;
use crate::wait::parker::Parker;
use crate::wait::unparker::Unparker;

/// A handle to a green thread. std's `Thread`. May be sent to other OS threads.
#[derive(Clone)]
pub struct Thread(Arc<Inner>);

struct Inner {
    id: ThreadId,
    name: Option<Box<str>>,
    token: BiasedMutex<Token>,
}

#[derive(Default)]
struct Token {
    available: bool,
    /// The waiters: at most one, or several plain greenlets of an OS thread, which share a token.
    waiting: Vec<Unparker>,
}

/// A unique identifier of a green thread. std's `ThreadId`.
///
/// No two green threads of a process have the same, even after one has ended. It is made when it is first asked for.
/// [`GreenletId`](crate::GreenletId) is the number by which reports and listings name a green thread while it lives.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct ThreadId(u64);

thread_local! {
    /// The handle of the main greenlet and of all plain greenlets of this OS thread.
    static MAIN: Cell<Option<Thread>> = const { Cell::new(None) };
}

/// Returns a handle to the running green thread. std's `current`. Does not switch.
///
/// In a plain greenlet it is the handle of the main greenlet of its OS thread.
///
/// ```
/// let main = greenhub::thread::current().id();
/// let green = greenhub::Builder::new().name("worker".into()).spawn(greenhub::thread::current)?;
/// assert_eq!(green.thread().name(), Some("worker"));
/// let worker = green.join()?;
/// assert_eq!(worker.name(), Some("worker"));
/// assert_ne!(worker.id(), main);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "getcurrent")]
#[must_use]
pub fn current() -> Thread {
    match local::try_get().and_then(|_| run::current().with_task(|task| of(task).clone())) {
        Some(thread) => thread,
        None => MAIN.try_with(main_thread).unwrap_or_else(|_| Thread::new(None)),
    }
}

/// Returns the handle of a green thread, made on first use.
pub(crate) fn of(task: &TaskRef) -> &Thread {
    let made = task.companion(|| Box::new(Thread::new(task.name().as_deref())));
    made.downcast_ref().expect("a green thread has no other companion")
}

fn main_thread(main: &Cell<Option<Thread>>) -> Thread {
    let thread = main.take().unwrap_or_else(|| Thread::new(None));
    main.set(Some(thread.clone()));
    thread
}

/// Blocks until the running green thread's token is made available. std's `park`. Switches.
///
/// [`Thread::unpark`] makes the token available. Returns at once if that happened before. May return early.
///
/// ```
/// let green = greenhub::spawn(greenhub::thread::park);
/// let thread = green.thread().clone();
/// let other = std::thread::spawn(move || thread.unpark());
/// green.join()?;
/// other.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// Panics in the main loop, and in the main greenlet if the main loop has an error for it.
///
/// While panicking it does not panic: it blocks the OS thread for at most the time of
/// [`set_panicking_grace`](crate::set_panicking_grace), and returns.
#[track_caller]
pub fn park() {
    park_within(None);
}

/// Like [`park`], but waits for at most `timeout`. Switches.
///
/// # Panics
///
/// The same as [`park`].
#[track_caller]
pub fn park_timeout(timeout: Duration) {
    park_within(Some(timeout));
}

#[track_caller]
fn park_within(timeout: Option<Duration>) {
    match current().wait(&mut Deadline::from(timeout)) {
        Ok(()) => {}
        Err(error) if error.is_restart() => {}
        Err(error) if error.kind() == LoopErrorKind::Panicking => {
            let grace = Grace::begin();
            #[expect(clippy::disallowed_methods, reason = "no green thread can run during a panic")]
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

    /// Returns the unique identifier of the green thread.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        self.0.id
    }

    /// Returns the name that [`Builder::name`](crate::Builder::name) set. The main greenlet has none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Makes the green thread's token available. It ends the present [`park`] or the next one. Does not switch.
    ///
    /// May be called on any OS thread.
    pub fn unpark(&self) {
        let mut token = self.0.token.lock();
        token.available = true;
        token.waiting.drain(..).for_each(Unparker::unpark);
    }

    /// Takes the token. Waits once if it is not available.
    fn wait(&self, deadline: &mut Deadline) -> Result<(), LoopError> {
        // Another OS thread may make the token available each time, so the loop needs a budget.
        consume_budget()?;
        let mut token = self.0.token.lock();
        while !token.available {
            let Some(parker) = Parker::if_prepared(WaitReason::Park)? else {
                drop(token);
                Parker::prepare(WaitReason::Park)?;
                token = self.0.token.lock();
                continue;
            };
            let unparker = parker.unparker();
            token.waiting.push(unparker);
            drop(token);
            let entry = TokenEntry { thread: self, unparker };
            let waited = parker.park(deadline);
            drop(entry);
            waited?;
            token = self.0.token.lock();
            break;
        }
        token.available = false;
        Ok(())
    }
}

/// Removes the unparker of a wait from the waiters, also if the wait is unwound.
struct TokenEntry<'a> {
    thread: &'a Thread,
    unparker: Unparker,
}

impl Drop for TokenEntry<'_> {
    fn drop(&mut self) {
        self.thread.0.token.lock().waiting.retain(|waiting| *waiting != self.unparker);
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("id", &self.id()).field("name", &self.name()).finish_non_exhaustive()
    }
}
