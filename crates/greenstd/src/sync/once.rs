//! std's `Once`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use hub_core::{BiasedMutex, Holder, WaitReason};

use super::attempt::until;
use super::line::{Line, Wait};

/// std's `Once`, for green threads of one or more hubs and for plain OS threads.
///
/// A closure that is left by unwinding poisons it, also if its green thread was killed or timed out.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::{sync::Once, thread};
/// static START: Once = Once::new();
/// let other = thread::spawn(|| START.call_once(thread::yield_now));
/// START.call_once(thread::yield_now);
/// assert!(START.is_completed());
/// other.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Once {
    /// Tells without the lock.
    completed: AtomicBool,
    progress: BiasedMutex<Progress>,
}

struct Progress {
    stage: Stage,
    /// The last that ran a closure.
    runner: Holder,
    waiting: Line,
}

impl Progress {
    /// Why a wait while panicking was in vain.
    fn describe(&self) -> String {
        match self.stage {
            Stage::Running => format!("a `Once` while panicking: {}, runs its closure", self.runner.describe()),
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

/// Until the closure that runs has ended.
struct ToEnd;

impl Wait for ToEnd {
    type State = Progress;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Event;

    fn line(state: &mut Progress) -> &mut Line {
        &mut state.waiting
    }

    fn pass_on(_: &mut Progress) {
        // All are woken at the end, and look.
    }
}

impl Once {
    /// One whose closure has not run.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "std's has none")]
    pub const fn new() -> Once {
        let progress = Progress { stage: Stage::New, runner: Holder::NOBODY, waiting: Line::new() };
        Once { completed: AtomicBool::new(false), progress: BiasedMutex::new(progress) }
    }

    /// Runs `f` if no closure has run here, or waits until the one that runs has returned. Switches if it has to
    /// wait, or `f` does.
    ///
    /// # Panics
    ///
    /// If it is poisoned; if `f` does; as [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        self.call_once_force(|state| {
            assert!(!state.is_poisoned(), "Once instance has previously been poisoned");
            f();
        });
    }

    /// As [`call_once`](Once::call_once), but tries again when poisoned. Switches if it has to wait, or `f` does.
    ///
    /// # Panics
    ///
    /// If `f` does; as [`Mutex::lock`](super::Mutex::lock).
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
        let before = until::<ToEnd, _>(&self.progress, begin, Progress::describe);
        if before != Stage::Completed {
            let mut run = Run { once: self, ends: Stage::Poisoned };
            f(&OnceState { poisoned: before == Stage::Poisoned });
            run.ends = Stage::Completed;
        }
    }

    /// Whether a closure has run here. Does not switch.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.completed.load(Ordering::Acquire)
    }

    /// Waits until a closure has run here. Switches if it has to wait.
    ///
    /// # Panics
    ///
    /// If it is poisoned; as [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn wait(&self) {
        self.wait_until(|stage| {
            assert!(stage != Stage::Poisoned, "Once instance has previously been poisoned");
            stage == Stage::Completed
        });
    }

    /// As [`wait`](Once::wait), but goes on when poisoned. Switches if it has to wait.
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn wait_force(&self) {
        self.wait_until(|stage| stage == Stage::Completed);
    }

    #[track_caller]
    fn wait_until(&self, mut done: impl FnMut(Stage) -> bool) {
        if !self.is_completed() {
            let attempt = |progress: &mut Progress, _| done(progress.stage).then_some(());
            until::<ToEnd, _>(&self.progress, attempt, Progress::describe);
        }
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

/// Ends the run however its closure ends.
struct Run<'a> {
    once: &'a Once,
    ends: Stage,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let mut progress = self.once.progress.lock();
        progress.stage = self.ends;
        self.once.completed.store(self.ends == Stage::Completed, Ordering::Release);
        progress.waiting.choose_all();
    }
}

/// What the closure of [`Once::call_once_force`] is told, std's `OnceState`.
#[derive(Debug)]
pub struct OnceState {
    poisoned: bool,
}

impl OnceState {
    /// Whether an earlier closure was left by unwinding.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }
}
