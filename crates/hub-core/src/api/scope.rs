//! Scoped green threads: they may borrow, and are joined before the borrowed values go away.
//!
//! Ground rules:
//! - A child's cell erases lifetimes. `scope` is a function and never a guard: whatever `f` does, every child is done
//!   and released before `scope` returns or unwinds, so its closure and its result are gone. The cell itself may live
//!   until its green thread has woken its waiters; it contains nothing borrowed. The wait for the children is masked.
//!   If the caller cannot wait or mask, no child is made, except in an ended OS thread, where the children run in
//!   place.
//! - Children and their results may hold handles of other children. So no cell is released before every child is done
//!   and every result was dropped.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::time::Duration;

use super::green_thread::{wait_for, wait_once};
use super::kill::{KillOutcome, end};
use super::thread::{self, Thread};
use crate::base::wait_reason::WaitReason;
use crate::error::{GreenError, LoopErrorKind};
use crate::greenlet::control::Kind;
use crate::greenlet::exit::Exit;
use crate::greenlet::local;
use crate::greenlet::run::{self, Park};
use crate::greenlet::task::{NewTask, Task, TaskHandle, TaskRef};

/// A scope to spawn scoped green threads in, see [`scope()`]. std's `thread::Scope`.
///
/// ```
/// let total = std::cell::Cell::new(0);
/// greenhub::scope(|s| {
///     for n in 1..=3 {
///         let total = &total;
///         s.spawn(move || total.set(total.get() + n));
///     }
/// });
/// assert_eq!(total.get(), 6);
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    children: RefCell<Vec<TaskHandle>>,
    /// The number of children that have ended and whose result was dropped.
    discarded: Cell<usize>,
    failed: Cell<bool>,
    /// Dropped after `children`.
    _open: OpenScope,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// A handle to a scoped green thread. std's `ScopedJoinHandle`.
///
/// Dropping it changes nothing: the scope still waits for the green thread.
#[doc(alias = "ScopedJoinHandle")]
pub struct ScopedGreenThread<'scope, T> {
    task: ManuallyDrop<Task<T>>,
    scope: PhantomData<&'scope ()>,
}

/// Creates a scope for green threads that borrow from outside. std's `thread::scope`. Switches.
///
/// All green threads spawned within the scope are joined before this function returns.
///
/// If `f` panics or an exit strikes the caller, the children are killed and joined. The unwinding goes on when the last
/// child has ended. That wait is not left early: exits and errors of the main loop are held back until it is over.
///
/// ```
/// let mut words = vec!["green", "threads"];
/// let lengths: Vec<usize> = greenhub::scope(|s| {
///     let handles: Vec<_> = words.iter().map(|word| s.spawn(|| word.len())).collect();
///     handles.into_iter().map(|handle| handle.join().unwrap()).collect()
/// });
/// words.push("done");
/// assert_eq!(lengths, [5, 7]);
/// ```
///
/// # Panics
///
/// Panics if `f` does, and if a green thread whose handle was not joined failed: by a panic or by an exit other than a
/// plain kill.
///
/// Panics if the caller cannot wait: while panicking, in the main loop, in a poll of a future, in the main greenlet if
/// the loop has an error for it, and if scopes are nested 255 deep in destructors of their own green threads.
///
/// In a destructor of a thread-local that runs after the OS thread's green threads have ended, each closure runs on the
/// stack of the caller when it is joined.
#[track_caller]
pub fn scope<'env, F, R>(f: F) -> R
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    let scope = Scope::open();
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    // The payload is caught, so the OS thread is not panicking while the children are waited for.
    let cut_short = scope.join_all(result.is_err());
    match result {
        Ok(_) if scope.failed.get() => panic!("a scoped green thread panicked"),
        Ok(result) => {
            if cut_short {
                run::check_exit();
            }
            result
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// The pause between two attempts to wait for killed children, where no greenlet can run and no loop can be launched.
const RETRY: Duration = Duration::from_millis(1);

/// Counts an open scope of the main greenlet. A shutdown is refused meanwhile: the borrowed values must outlive the
/// children, so the children cannot be abandoned.
struct OpenScope(Option<&'static Cell<usize>>);

impl OpenScope {
    fn of_main() -> OpenScope {
        let open = (run::current().kind() == Kind::Main).then(|| &local::get().main_scopes);
        open.inspect(|open| open.set(open.get() + 1));
        OpenScope(open)
    }
}

impl Drop for OpenScope {
    fn drop(&mut self) {
        self.0.inspect(|open| open.set(open.get() - 1));
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    #[track_caller]
    fn open() -> Scope<'scope, 'env> {
        // Refused before any child exists, since nothing could join it. In an ended OS thread the children run in
        // place.
        if let Err(error) = Park::current(WaitReason::Scope)
            && error.kind() != LoopErrorKind::ThreadEnding
        {
            panic!("scope: {error}");
        }
        // The wait for the children is masked. It must not panic, since they borrow from the caller's frame.
        assert!(run::Mask::fits(), "scope: scopes are nested 255 deep in destructors of their own green threads");
        Scope {
            children: RefCell::default(),
            discarded: Cell::new(0),
            failed: Cell::new(false),
            _open: OpenScope::of_main(),
            scope: PhantomData,
            env: PhantomData,
        }
    }

    /// Spawns a green thread within the scope, which may borrow. Does not switch.
    ///
    /// Otherwise like [`spawn`](crate::spawn).
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedGreenThread<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        self.spawn_with(Location::caller(), f, |_| ())
    }

    /// Spawns a child whose cell `prepare` has set up.
    pub(super) fn spawn_with<F, T>(
        &'scope self,
        place: &'static Location<'static>,
        f: F,
        prepare: impl FnOnce(&TaskRef),
    ) -> ScopedGreenThread<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        // SAFETY: `scope` has made sure that it can mask. It waits under a mask until every child is done, and drops
        // every result, before it returns or unwinds. The values that the children borrow live at least as long.
        let task = unsafe { NewTask::borrowing(local::get(), f, place) };
        prepare(&task);
        let (child, greenlet) = task.split();
        // SAFETY: the scope keeps the cell until every child is done and every result was dropped. Only children and
        // their results can have kept the returned value for so long.
        let task = unsafe { child.lend() };
        self.children.borrow_mut().push(child.erase());
        if local::has_ended() {
            // The child runs in place when it is joined.
            greenlet.delay();
        } else {
            greenlet.begin(&task);
        }
        ScopedGreenThread { task, scope: PhantomData }
    }

    /// Waits for every child. Children may spawn more.
    ///
    /// Kills the children first if `killing`, or as soon as an exit is pending for this greenlet. In the second case it
    /// returns true, since the work of the children was cut short.
    fn join_all(&self, mut killing: bool) -> bool {
        let mut cut_short = false;
        let mask = run::Mask::new();
        let next = || self.children.borrow().iter().find(|child| !child.is_done()).map(lend);
        while let Some(child) = next() {
            if local::has_ended() && !killing {
                // Nothing is run if the child waits for itself, further up the stack.
                child.run_here(local::get());
                continue;
            }
            cut_short |= run::exit_is_pending();
            if killing || cut_short {
                let children: Vec<_> = self.children.borrow().iter().filter_map(|child| child.control()).collect();
                for control in children {
                    // The child is woken, not switched to.
                    run::request_exit(control, Exit::Kill(GreenError::Kill), false);
                }
                // A child that had not begun is done already.
                if child.is_done() {
                    continue;
                }
            }
            // If a masked wait ends before the child does, then this greenlet has to exit, the loop has an error, or no
            // loop can be launched. In the last two cases the children have to be killed.
            let refused = wait_once(&child).is_err();
            if refused && killing && !child.is_done() {
                // Nothing can run. The next attempt launches a loop if the lack is over.
                #[expect(clippy::disallowed_methods, reason = "no green thread can run")]
                std::thread::sleep(RETRY);
            }
            killing |= refused || (!child.is_done() && !run::exit_is_pending());
        }
        drop(mask);
        // Results may hold handles of children, and their destructors may use those and spawn more. So no cell is
        // released before every result is dropped.
        loop {
            let child = self.children.borrow().get(self.discarded.get()).map(lend);
            match child {
                Some(child) if child.is_done() => {
                    self.discarded.set(self.discarded.get() + 1);
                    self.failed.set(self.failed.get() | child.discard());
                }
                Some(_) => return self.join_all(killing) | cut_short,
                None => break,
            }
        }
        drop(self.children.take());
        cut_short
    }
}

/// Returns a value for a child that is usable while nothing of the scope is borrowed.
fn lend(child: &TaskHandle) -> ManuallyDrop<TaskHandle> {
    // SAFETY: `join_all`, which alone uses the value, drops the handles as its last step.
    unsafe { child.lend() }
}

impl<T> ScopedGreenThread<'_, T> {
    pub(super) fn task(&self) -> &TaskRef {
        &self.task
    }

    /// Returns the [`Thread`] of this green thread. std's `thread`.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        thread::of(&self.task)
    }

    /// Waits for the green thread to finish and returns its result. Switches, unless it has ended.
    ///
    /// # Errors
    ///
    /// The same as [`GreenThread::join`](crate::GreenThread::join).
    pub fn join(self) -> Result<T, GreenError> {
        if local::has_ended() && !self.task.is_done() {
            self.task.run_here(local::get());
        }
        wait_for(&self.task)?;
        self.task.take_result()
    }

    /// Ends the green thread, see [`GreenThread::kill`](crate::GreenThread::kill). Switches.
    pub fn kill(&self) -> KillOutcome {
        end(&self.task, GreenError::Kill)
    }

    /// Returns whether the green thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_done()
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter is user code and may switch: nothing is borrowed while it is called.
        let children = self.children.borrow().len();
        f.debug_struct("Scope").field("children", &children).finish()
    }
}

impl<T> fmt::Debug for ScopedGreenThread<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedGreenThread").field("name", &self.task.describe()).finish()
    }
}

/// Uses of a scope that the compiler refuses.
///
/// A scoped green thread cannot borrow a value of the closure:
///
/// ```compile_fail,E0597
/// greenhub::scope(|s| {
///     let text = String::new();
///     let short = text.as_str();
///     s.spawn(move || short.len());
/// });
/// ```
///
/// Neither a handle nor a result that holds one can leave the scope:
///
/// ```compile_fail
/// let handle = greenhub::scope(|s| s.spawn(|| 1));
/// ```
///
/// ```compile_fail,E0521
/// let mut kept = None;
/// greenhub::scope(|s| kept = Some(s.spawn(|| 1)));
/// ```
///
/// Neither the scope nor a handle can go to another OS thread:
///
/// ```compile_fail,E0277
/// greenhub::scope(|s| std::thread::scope(|threads| drop(threads.spawn(|| drop(s.spawn(|| 1))))));
/// ```
///
/// ```compile_fail,E0277
/// greenhub::scope(|s| {
///     let handle = s.spawn(|| 1);
///     std::thread::scope(|threads| drop(threads.spawn(|| handle.join())));
/// });
/// ```
///
/// Two green threads cannot borrow the same value mutably:
///
/// ```compile_fail,E0499
/// let mut count = 0;
/// greenhub::scope(|s| {
///     s.spawn(|| count += 1);
///     s.spawn(|| count += 1);
/// });
/// ```
///
/// A green thread without a scope borrows nothing:
///
/// ```compile_fail,E0373
/// let text = String::new();
/// greenhub::spawn(|| text.len());
/// ```
#[cfg(doctest)]
struct CompileErrors;
