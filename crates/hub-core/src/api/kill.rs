//! Ends green threads from outside.

use crate::error::GreenError;
use crate::greenlet::control::{ControlRef, Kind};
use crate::greenlet::driver::Driver;
use crate::greenlet::local;
use crate::greenlet::run::{self, Interrupted};
use crate::greenlet::task::TaskRef;
use crate::greenlet::unwind::{Exit, KillProgress};

/// What [`kill`](crate::GreenThread::kill) did.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KillOutcome {
    /// It has ended: its destructors have run.
    Ended,
    /// It had not begun, and never will; what it was to run was dropped.
    Cancelled,
    /// It will end when it runs next: the caller is the main loop or is panicking, or the target is in a
    /// [`shield`](crate::shield()) or in a wait that must not be left early.
    Scheduled,
    /// It has caught the exit a hundred times and lives on, which is reported once: see [`is_exit`](crate::is_exit).
    Refused,
    /// It was over before.
    Dead,
    /// With `panic = "abort"` nothing can be unwound.
    Unsupported,
}

/// Ends a green thread.
pub(crate) fn end(task: TaskRef, error: GreenError) -> KillOutcome {
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
    let may_switch = !run::in_mainloop() && !local::get().main_loop.in_hub() && !local::has_ended();
    let at_once = may_switch && !std::thread::panicking();
    if let Some(timer) = task.take_timer() {
        local::get().main_loop.disarm(timer);
    }
    // The handle that the caller holds keeps the cell.
    if run::interrupt(target, exit, at_once) == Interrupted::Cancelled {
        return KillOutcome::Cancelled;
    }
    loop {
        if task.is_done() {
            return KillOutcome::Ended;
        }
        if target.refused_kills() != refused {
            return KillOutcome::Refused;
        }
        // It has swallowed the exit, which is thrown again: what comes of it is known in a few turns.
        if !at_once || target.kill_progress() != KillProgress::Striking || run::yield_now().is_err() {
            return KillOutcome::Scheduled;
        }
    }
}

/// Has the greenlet with that [number](crate::current_id) exit when it runs next, if it is a green thread that has not
/// ended; one that has not begun never does. False if there is none. Never switches by itself.
///
/// A number may be given to another greenlet when its own has ended.
pub fn interrupt(number: u32) -> bool {
    interrupt_with(number, GreenError::Exit)
}

/// [`interrupt`] with an error of your choice, which those who wait for it get. Never switches by itself.
pub fn interrupt_with(number: u32, error: GreenError) -> bool {
    let target = local::try_get().and_then(|local| local.controls.get(number));
    let Some(target) = target.filter(|target| target.kind() == Kind::Thread && target.task().is_some()) else {
        return false;
    };
    run::interrupt(target, Exit::Kill(error), false);
    true
}

/// How far the kill of the greenlet with that number has come, which has not ended. Never switches.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{KillProgress, interrupt, kill_progress, sleep, spawn, yield_now};
/// let green = spawn(|| sleep(std::time::Duration::from_secs(3600)));
/// yield_now();
/// let number = green.id().unwrap();
/// assert_eq!(kill_progress(number), KillProgress::None);
/// interrupt(number);
/// assert_eq!(kill_progress(number), KillProgress::Striking);
/// # });
/// ```
#[must_use]
pub fn kill_progress(number: u32) -> KillProgress {
    let target = local::try_get().and_then(|local| local.controls.get(number));
    target.map_or(KillProgress::None, ControlRef::kill_progress)
}
