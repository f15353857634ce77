//! Kills of green threads.

use super::green_thread::GreenThread;
use crate::base::id::GreenletId;
use crate::error::GreenError;
use crate::greenlet::control::{ControlRef, Kind, State};
use crate::greenlet::driver::Driver;
use crate::greenlet::exit::{Exit, KillProgress};
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::task::TaskRef;

/// The outcome of a [`kill`](crate::GreenThread::kill).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KillOutcome {
    /// The target has ended: its destructors have run.
    Ended,
    /// The target had not begun, and never will; its closure was dropped.
    Cancelled,
    /// The kill is pending. The target ends when it next runs outside shields and waits that must not be left early.
    ///
    /// The call does not switch in the main loop, in a hub, in a poll of a future and in a panic. Or the target is in a
    /// [`shield`](crate::shield()) or in such a wait, or polls a future. A wait for a lock is such a wait for as long
    /// as the [patience](crate::set_lock_patience).
    Scheduled,
    /// The target has caught the exit a hundred times and lives on.
    ///
    /// This is reported once: see [`is_exit`](crate::is_exit).
    Refused,
    /// The target had ended before, or is abandoned and never runs again.
    ///
    /// A shutdown abandons green threads, and so does an OS thread that ends without a shutdown.
    Dead,
    /// Nothing can be unwound with `panic = "abort"`.
    Unsupported,
}

/// Kills `green`, like [`GreenThread::kill`]. Eventlet's `kill`. Switches, except in the main loop.
///
/// ```
/// let green = greenhub::spawn(|| "never");
/// assert_eq!(greenhub::kill(&green), greenhub::greenthread::KillOutcome::Cancelled);
/// ```
pub fn kill<T>(green: &GreenThread<T>) -> KillOutcome {
    green.kill()
}

impl<T> GreenThread<T> {
    /// Ends the green thread. Eventlet's `kill`. Switches, except in the main loop.
    ///
    /// The call in which it blocks starts to unwind, its destructors run, and its waiters get [`GreenError::Kill`]. The
    /// returned [`KillOutcome`] says whether it has ended, or why not.
    ///
    /// A green thread that has not begun never runs: its closure is dropped, and its links and waiters are notified. A
    /// green thread that kills itself starts to unwind at once. An exit that the target catches is thrown again at its
    /// next wait, after a turn of the main loop. A target that catches it a hundred times lives on
    /// ([`KillOutcome::Refused`]). Code that calls [`catch_unwind`](std::panic::catch_unwind) in a loop can tell an
    /// exit from a panic by [`is_exit`](crate::is_exit); the example there is a worker that does so.
    ///
    /// ```
    /// use greenhub::greenthread::KillOutcome;
    /// use std::time::Duration;
    /// let green = greenhub::spawn(|| greenhub::sleep(Duration::from_secs(3600)));
    /// greenhub::thread::yield_now();
    /// assert_eq!(green.kill(), KillOutcome::Ended);
    /// assert_eq!(green.kill(), KillOutcome::Dead);
    /// assert!(green.join().unwrap_err().is_kill());
    /// ```
    pub fn kill(&self) -> KillOutcome {
        self.kill_with(GreenError::Kill)
    }

    /// Ends the green thread with an error of the caller, which its waiters get.
    ///
    /// Otherwise like [`kill`](GreenThread::kill).
    ///
    /// ```
    /// use greenhub::GreenError;
    /// let green = greenhub::spawn(|| 1);
    /// green.kill_with(GreenError::custom("shutting down"));
    /// assert_eq!(green.join().unwrap_err().to_string(), "shutting down");
    /// ```
    #[doc(alias = "throw")]
    pub fn kill_with(&self, error: GreenError) -> KillOutcome {
        end(&self.task, error)
    }

    /// Cancels the green thread if it has not begun. Eventlet's `cancel`. Does not switch.
    ///
    /// A cancelled green thread never runs, and its waiters get [`GreenError::Kill`]. Returns false, and does nothing,
    /// if it has begun.
    ///
    /// ```
    /// use std::time::Duration;
    /// let later = greenhub::spawn_after(Duration::from_secs(3600), || "never");
    /// assert!(later.cancel());
    /// let running = greenhub::spawn(|| greenhub::sleep(Duration::from_millis(1)));
    /// greenhub::thread::yield_now();
    /// assert!(!running.cancel());
    /// ```
    pub fn cancel(&self) -> bool {
        if self.task.has_started() {
            return false;
        }
        matches!(end(&self.task, GreenError::Kill), KillOutcome::Cancelled)
    }
}

/// Ends a green thread.
pub(crate) fn end(task: &TaskRef, error: GreenError) -> KillOutcome {
    let Some(target) = task.control() else {
        return if task.is_done() { KillOutcome::Dead } else { KillOutcome::Cancelled };
    };
    let exit = Exit::Kill(error);
    if cfg!(panic = "abort") && task.has_started() {
        return KillOutcome::Unsupported;
    }
    let refused = target.refused_kills();
    if target == run::current() {
        run::exit_now(exit);
        return if target.refused_kills() == refused { KillOutcome::Scheduled } else { KillOutcome::Refused };
    }
    let may_switch = !run::must_not_switch() && !local::get().main_loop.in_hub() && !local::has_ended();
    let at_once = may_switch && !std::thread::panicking();
    if let Some(timer) = task.take_timer() {
        local::get().main_loop.disarm(timer);
    }
    let never_runs = target.state() == State::Abandoned || local::has_ended();
    if never_runs && task.has_started() {
        return KillOutcome::Dead;
    }
    // The caller's handle keeps the cell alive.
    if !run::request_exit(target, exit, at_once) {
        return KillOutcome::Cancelled;
    }
    loop {
        if task.is_done() {
            return KillOutcome::Ended;
        }
        if target.refused_kills() != refused {
            return KillOutcome::Refused;
        }
        // The target has swallowed the exit, which is thrown again in the next turn. `MAX_THROWS` limits the number of
        // throws.
        if !at_once || target.kill_progress() != KillProgress::Striking || run::yield_now().is_err() {
            return KillOutcome::Scheduled;
        }
    }
}

/// Makes the green thread with this id exit when it runs next. Never switches by itself.
///
/// A green thread that has not begun is cancelled. Returns false if no living green thread has the id.
///
/// The id of an ended greenlet may be given to another one.
pub fn request_exit(id: GreenletId) -> bool {
    request_exit_with(id, GreenError::Kill)
}

/// Returns the birth of the green thread with this id. Does not switch.
///
/// It is the time of the spawn, in steps of 17 ms, and distinguishes the green thread from others that had the id. Only
/// a successor that was spawned within the same step has the same birth. Returns `None` if no living green thread has
/// the id.
pub fn birth_of(id: GreenletId) -> Option<u32> {
    let target = local::try_get()?.controls.get(id.number())?;
    (target.kind() == Kind::Thread && target.has_task()).then(|| target.born().number())
}

/// Like [`request_exit`], with an error of your choice, which the waiters get. Never switches by itself.
pub fn request_exit_with(id: GreenletId, error: GreenError) -> bool {
    let Some(local) = local::try_get() else { return false };
    let target = local.controls.get(id.number());
    let Some(target) = target.filter(|target| target.kind() == Kind::Thread && target.has_task()) else {
        return false;
    };
    if let Some(timer) = target.with_task(TaskRef::take_timer).flatten() {
        local.main_loop.disarm(timer);
    }
    run::request_exit(target, Exit::Kill(error), false);
    true
}

/// Returns how far the kill of the greenlet with this id has come. Does not switch.
///
/// The result is [`KillProgress::None`] if no living greenlet has the id.
///
/// ```
/// use greenhub::{sleep, spawn};
/// use hub_core::internal::{KillProgress, kill_progress, request_exit};
/// use greenhub::thread::yield_now;
/// let green = spawn(|| sleep(std::time::Duration::from_secs(3600)));
/// yield_now();
/// let id = green.id().unwrap();
/// assert_eq!(kill_progress(id), KillProgress::None);
/// request_exit(id);
/// assert_eq!(kill_progress(id), KillProgress::Striking);
/// ```
#[must_use]
pub fn kill_progress(id: GreenletId) -> KillProgress {
    let target = local::try_get().and_then(|local| local.controls.get(id.number()));
    target.map_or(KillProgress::None, ControlRef::kill_progress)
}
