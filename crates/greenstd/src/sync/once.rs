//! std's `Once`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use hub_core::internal::Holder;
use hub_core::{BiasedMutex, WaitReason};

use super::wait_infallible::until;
use super::wait_queue::{Wait, WaitQueue};

/// A primitive which can be used to run a one-time global initialization. std's `Once`.
///
/// It serves green threads of one or more hubs and plain OS threads. A closure that unwinds poisons it, also if it
/// unwinds by an [exit](hub_core::is_exit).
///
/// ```
/// use greenhub::thread;
/// use greenhub::sync::Once;
/// static START: Once = Once::new();
/// let other = thread::spawn(|| START.call_once(thread::yield_now));
/// START.call_once(thread::yield_now);
/// assert!(START.is_completed());
/// other.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Once {
    /// Whether a closure has run to its end. Read without the lock.
    completed: AtomicBool,
    progress: BiasedMutex<Progress>,
}

struct Progress {
    stage: Stage,
    /// The green thread or OS thread that ran a closure last.
    runner: Holder,
    waiting: WaitQueue,
}

impl Progress {
    /// Describes the state, for the message of a wait that panics.
    fn describe(&self) -> String {
        match self.stage {
            Stage::Running => format!("a `Once` while panicking: its closure is run by {}", self.runner.describe()),
            _ => "a `Once` while panicking: its closure does not run".to_owned(),
        }
    }
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Stage {
    New,
    Running,
    Poisoned,
    Completed,
}

/// The wait for the end of the running closure.
struct OnceWait;

impl Wait for OnceWait {
    type State = Progress;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Event;
    const CALL: &'static str = "once";

    fn queue(state: &mut Progress) -> &mut WaitQueue {
        &mut state.waiting
    }

    fn regrant(_: &mut Progress) {
        // The end of the closure wakes all waiters; each looks at the stage itself.
    }
}

impl Once {
    /// Creates a new `Once` value.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "std's has none")]
    pub const fn new() -> Once {
        let progress = Progress { stage: Stage::New, runner: Holder::NONE, waiting: WaitQueue::new() };
        Once { completed: AtomicBool::new(false), progress: BiasedMutex::new(progress) }
    }

    /// Performs an initialization routine once and only once. Switches if it waits, or if `f` does.
    ///
    /// It runs `f` if no closure has run here, or waits until the running closure has returned.
    ///
    /// # Panics
    ///
    /// Panics if the `Once` is poisoned, if `f` panics, and where [`Mutex::lock`](super::Mutex::lock) does.
    #[track_caller]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        self.call_once_force(|state| {
            assert!(!state.is_poisoned(), "Once instance has previously been poisoned");
            f();
        });
    }

    /// Like [`call_once`](Once::call_once), but ignores poisoning. Switches if it waits, or if `f` does.
    ///
    /// # Panics
    ///
    /// Panics if `f` panics, and where [`Mutex::lock`](super::Mutex::lock) does.
    #[track_caller]
    pub fn call_once_force<F: FnOnce(&OnceState)>(&self, f: F) {
        if self.is_completed() {
            return;
        }
        let begin = |progress: &mut Progress, _| match progress.stage {
            Stage::Running => None,
            Stage::Completed => Some(Stage::Completed),
            before => {
                progress.stage = Stage::Running;
                progress.runner = Holder::current();
                Some(before)
            }
        };
        let before = until::<OnceWait, _>(&self.progress, begin, Progress::describe);
        if before != Stage::Completed {
            let mut run = RunGuard { once: self, ends: Stage::Poisoned };
            f(&OnceState { poisoned: before == Stage::Poisoned });
            run.ends = Stage::Completed;
        }
    }

    /// Returns `true` if some `call_once` call has completed successfully. Does not switch.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.completed.load(Ordering::Acquire)
    }

    /// Blocks the caller until initialization has completed. Switches if it waits.
    ///
    /// # Panics
    ///
    /// Panics if the `Once` is poisoned, and where [`Mutex::lock`](super::Mutex::lock) does.
    #[track_caller]
    pub fn wait(&self) {
        self.wait_until(|stage| {
            assert!(stage != Stage::Poisoned, "Once instance has previously been poisoned");
            stage == Stage::Completed
        });
    }

    /// Like [`wait`](Once::wait), but ignores poisoning. Switches if it waits.
    ///
    /// # Panics
    ///
    /// Like [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn wait_force(&self) {
        self.wait_until(|stage| stage == Stage::Completed);
    }

    #[track_caller]
    fn wait_until(&self, mut done: impl FnMut(Stage) -> bool) {
        if !self.is_completed() {
            let attempt = |progress: &mut Progress, _| done(progress.stage).then_some(());
            until::<OnceWait, _>(&self.progress, attempt, Progress::describe);
        }
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

/// Sets the stage and wakes the waiters when dropped, however the closure ends.
struct RunGuard<'a> {
    once: &'a Once,
    ends: Stage,
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        let mut progress = self.once.progress.lock();
        progress.stage = self.ends;
        self.once.completed.store(self.ends == Stage::Completed, Ordering::Release);
        progress.waiting.grant_all();
    }
}

/// The state of a `Once`, for the closure of [`Once::call_once_force`].
///
/// std's `OnceState`.
#[derive(Debug)]
pub struct OnceState {
    poisoned: bool,
}

impl OnceState {
    /// Returns `true` if the `Once` was poisoned before the closure ran.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }
}
