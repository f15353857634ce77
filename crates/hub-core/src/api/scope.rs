//! Green threads that borrow: joined before what they borrow goes away.
//!
//! Ground rules:
//! - A child's cell forgets lifetimes. `scope` is a function, never a guard: whatever `f` does, every child
//!   has ended and is released when it returns or unwinds; the wait is masked, and if nothing can be
//!   waited for, no child is made.
//! - Handles of children may be in the hands of children and in their results, so none is released before
//!   all have ended and every result was dropped.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};

use super::green_thread::{wait_for, wait_once};
use super::kill::{KillOutcome, end};
use super::thread::{self, Thread};
use crate::base::wait_reason::WaitReason;
use crate::error::{GreenError, LoopError};
use crate::greenlet::control::Kind;
use crate::greenlet::local;
use crate::greenlet::run::{self, Waiter};
use crate::greenlet::task::{Task, TaskRef};
use crate::greenlet::unwind::Exit;

/// Where green threads of a [`scope`] are spawned, std's `thread::Scope`.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let total = std::cell::Cell::new(0);
/// hub_core::scope(|s| {
///     for n in 1..=3 {
///         let total = &total;
///         s.spawn(move || total.set(total.get() + n));
///     }
/// });
/// assert_eq!(total.get(), 6);
/// # });
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    children: RefCell<Vec<TaskRef>>,
    /// How many children have ended and lost their result.
    discarded: Cell<usize>,
    failed: Cell<bool>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// A handle of a green thread in a [`scope`], std's `ScopedJoinHandle`. Dropping it changes nothing: the scope waits.
pub struct ScopedGreenThread<'scope, T> {
    task: Task<T>,
    scope: PhantomData<&'scope ()>,
}

/// Runs `f`, which may spawn green threads that borrow from outside, and waits for all of them before it
/// returns. std's `thread::scope`, green. Switches.
///
/// If `f` panics, or the green thread that calls this is killed or times out, those that were spawned are
/// killed and waited for, and the unwinding goes on when the last one has ended. That wait is not left
/// early: kills, timeouts and what the main loop has to tell wait until it is over.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let mut words = vec!["green", "threads"];
/// let lengths: Vec<usize> = hub_core::scope(|s| {
///     let handles: Vec<_> = words.iter().map(|word| s.spawn(|| word.len())).collect();
///     handles.into_iter().map(|handle| handle.join().unwrap()).collect()
/// });
/// words.push("done");
/// assert_eq!(lengths, [5, 7]);
/// # });
/// ```
///
/// # Panics
///
/// If `f` does, if a green thread whose handle was not joined did, if called while panicking or from the
/// main loop, where nothing could be waited for. In a destructor of a thread-local, when the thread's green threads have
/// ended, each closure runs on the stack of the caller when it is waited for.
pub fn scope<'env, F, R>(f: F) -> R
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    // Refused before any child exists: nothing could be joined. In a thread that has ended the children run in place.
    if let Err(error) = Waiter::current(WaitReason::Scope)
        && !matches!(*error, LoopError::ThreadEnding)
    {
        panic!("scope: {error}");
    }
    let _open = OpenScope::of_main();
    let scope = Scope {
        children: RefCell::default(),
        discarded: Cell::new(0),
        failed: Cell::new(false),
        scope: PhantomData,
        env: PhantomData,
    };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    // The payload is caught, so the thread is not panicking while the children are waited for.
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

/// A scope of the main greenlet is open: what its children borrow must outlive them, so they cannot be abandoned.
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

/// Runs a child that has not begun on the stack of the caller, in a thread that has ended.
fn run_here(child: TaskRef) {
    if child.has_started() {
        // It waits for itself, up the stack.
        return;
    }
    if let Some(control) = child.control() {
        child.forget_control();
        local::get().controls.give(control);
    }
    child.run();
    child.finish();
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Spawns a green thread that may borrow. Otherwise like [`spawn`](crate::spawn). Never switches.
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedGreenThread<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let local = local::get();
        // SAFETY: `scope` joins every child, masked, and releases it before it returns or unwinds; what
        // they borrow lives at least as long.
        let task = unsafe { Task::borrowing(local, f, Location::caller()) };
        self.children.borrow_mut().push(*task);
        match task.control() {
            // It runs in place when it is waited for.
            Some(control) if local::has_ended() => control.set_delayed(),
            _ => task.begin(),
        }
        ScopedGreenThread { task, scope: PhantomData }
    }

    /// Waits for every child, killing them first if `killing`, or as soon as an exit is pending for this greenlet:
    /// then true, since what they were to do is not done. Children may spawn more.
    fn join_all(&self, mut killing: bool) -> bool {
        let mut cut_short = false;
        let mask = run::Mask::new();
        let next = || self.children.borrow().iter().copied().find(|child| !child.is_done());
        while let Some(child) = next() {
            if local::has_ended() && !killing {
                run_here(child);
                continue;
            }
            cut_short |= run::exit_is_pending();
            if killing || cut_short {
                let children = self.children.borrow().clone();
                for control in children.into_iter().filter_map(TaskRef::control) {
                    // Woken, not switched to.
                    run::interrupt(control, Exit::Kill(GreenError::Exit), false);
                }
                // One that had not begun is over already.
                if child.is_done() {
                    continue;
                }
            }
            // A masked wait that ends before the child does tells that this greenlet has to exit, or that
            // nobody is left to wake anything; then the children have to go.
            killing |= wait_once(child).is_err() || (!child.is_done() && !run::exit_is_pending());
        }
        drop(mask);
        // Results may hold handles of children, and their destructors may use those and spawn more. So no
        // cell is released before every result is gone.
        loop {
            let child = self.children.borrow().get(self.discarded.get()).copied();
            match child {
                Some(child) if child.is_done() => {
                    self.discarded.set(self.discarded.get() + 1);
                    self.failed.set(self.failed.get() | child.discard());
                }
                Some(_) => return self.join_all(killing) | cut_short,
                None => break,
            }
        }
        for child in self.children.take() {
            child.release();
        }
        cut_short
    }
}

impl<T> ScopedGreenThread<'_, T> {
    /// Who it is, std's `thread`.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        thread::of(*self.task)
    }

    /// Waits for its end and takes the result. Switches, unless it has ended.
    ///
    /// # Errors
    ///
    /// As [`GreenThread::join`](crate::GreenThread::join).
    pub fn join(self) -> Result<T, GreenError> {
        if local::has_ended() && !self.task.is_done() {
            run_here(*self.task);
        }
        wait_for(*self.task)?;
        self.task.take_result()
    }

    /// Ends it, see [`GreenThread::kill`](crate::GreenThread::kill). Switches.
    pub fn kill(&self) -> KillOutcome {
        end(*self.task, GreenError::Exit)
    }

    /// Whether it has ended.
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

/// What a green thread of a scope may not do.
///
/// Borrow what goes away before the scope is left:
///
/// ```compile_fail,E0597
/// hub_core::scope(|s| {
///     let text = String::new();
///     let short = text.as_str();
///     s.spawn(move || short.len());
/// });
/// ```
///
/// Leave it, as a handle or as a result:
///
/// ```compile_fail
/// let handle = hub_core::scope(|s| s.spawn(|| 1));
/// ```
///
/// ```compile_fail,E0521
/// let mut kept = None;
/// hub_core::scope(|s| kept = Some(s.spawn(|| 1)));
/// ```
///
/// Have the scope itself, or a handle, go to another OS thread:
///
/// ```compile_fail,E0277
/// hub_core::scope(|s| std::thread::scope(|threads| drop(threads.spawn(|| drop(s.spawn(|| 1))))));
/// ```
///
/// ```compile_fail,E0277
/// hub_core::scope(|s| {
///     let handle = s.spawn(|| 1);
///     std::thread::scope(|threads| drop(threads.spawn(|| handle.join())));
/// });
/// ```
///
/// Change what a sibling borrows:
///
/// ```compile_fail,E0499
/// let mut count = 0;
/// hub_core::scope(|s| {
///     s.spawn(|| count += 1);
///     s.spawn(|| count += 1);
/// });
/// ```
///
/// And one without a scope borrows nothing:
///
/// ```compile_fail,E0373
/// let text = String::new();
/// hub_core::spawn(|| text.len());
/// ```
#[cfg(doctest)]
struct Refused;
