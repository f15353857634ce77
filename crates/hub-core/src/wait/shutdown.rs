//! The ordered end of a thread's green threads: they are unwound while the thread-locals of the OS thread are alive.
//!
//! ```text
//! refuse new bodies → make all exit → run the loop until all have ended or the deadline → abandon the rest
//!   → drop hub and callbacks → end the loop → unmap unused stacks
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::base::wait_reason::WaitReason;
use crate::error::{GreenError, LoopError};
use crate::greenlet::control::{ControlRef, Kind};
use crate::greenlet::describe;
use crate::greenlet::driver::Driver;
use crate::greenlet::local::{self, Local};
use crate::greenlet::run::{self, Waiter};
use crate::greenlet::task::TaskRef;
use crate::greenlet::unwind::{Exit, KillProgress, drop_contained};
use crate::hub::Time;
use crate::main_loop::reach;
use crate::report;

/// How the greenlets of an OS thread ended in a [shutdown](crate::HubRef::shutdown).
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// How many have ended: their destructors have run.
    pub unwound: usize,
    /// How many had not begun, and never will.
    pub cancelled: usize,
    /// How many had not ended at the deadline. They never run again; their destructors do not run.
    pub abandoned: usize,
}

impl Ended {
    /// Whether none was abandoned.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self.abandoned == 0
    }
}

/// Runs `f`, then [shuts down](crate::HubRef::shutdown) the hub of the calling OS thread for good: what an OS thread with
/// green threads does as the outermost call. Switches.
///
/// The shutdown waits for `limit` at most (`None`: for ever). It takes place if `f` panics, too, and the panic goes on
/// after it. From then on the thread has no green threads: in destructors of thread-locals what would switch blocks the
/// OS thread, or is an error.
///
/// Within a green thread, or where a shutdown is not possible for another reason, it only runs `f`.
///
/// ```
/// use std::time::Duration;
/// let thread = std::thread::spawn(|| {
///     hub_core::run_and_shutdown(Some(Duration::from_secs(10)), || 6 * 7)
/// });
/// assert_eq!(thread.join().unwrap(), 42);
/// ```
///
/// # Panics
///
/// If `f` does.
pub fn run_and_shutdown<R>(limit: Option<Duration>, f: impl FnOnce() -> R) -> R {
    let result = catch_unwind(AssertUnwindSafe(f));
    if local::try_get().is_none() || shut_down(limit).is_ok() {
        local::end_now();
    }
    match result {
        Ok(result) => result,
        Err(payload) => resume_unwind(payload),
    }
}

pub(crate) fn shut_down(limit: Option<Duration>) -> Result<Ended, LoopError> {
    let local = local::get_unless_ended()?;
    may_shut_down(local)?;
    // They are about a loop that ends anyway, and must not end the wait below.
    local.main_loop.forget_errors();
    let refusing = local.refuse_bodies();
    let mut ended = make_all_exit(local);
    wait_for_all(local, limit);
    strike_shielded(local);
    // A greenlet that began meanwhile is one more.
    ended.abandoned = abandon_rest(local);
    ended.unwound = ended.unwound.saturating_sub(ended.abandoned);
    close(local);
    drop(refusing);
    Ok(ended)
}

fn may_shut_down(local: &Local) -> Result<(), LoopError> {
    let main = run::current();
    run::may_leave(main, WaitReason::Abort).map_err(|error| *error)?;
    let elsewhere = main.kind() != Kind::Main || main.is_masked() || local.main_scopes.get() != 0;
    if elsewhere || local.main_loop.in_hub() {
        return Err(LoopError::ShutdownRefused);
    }
    Ok(())
}

/// Makes each exit, and runs it up to its end or its next park. Those that have begun are counted as unwound.
fn make_all_exit(local: &Local) -> Ended {
    let mut cancelled = 0;
    for target in local.alive().filter(|target| !target.has_begun()) {
        if let Some(timer) = target.task().and_then(TaskRef::take_timer) {
            local.main_loop.disarm(timer);
        }
        run::interrupt(target, ending(), false);
        cancelled += 1;
    }
    let unwound = local.alive().count();
    // A plain greenlet whose child ends first is entered by that, and has to exit as well.
    for target in local.alive().filter(|target| !cfg!(panic = "abort") && target.is_suspended()) {
        drop_contained(target.set_exit(ending()));
    }
    for target in local.alive() {
        run::interrupt(target, ending(), true);
    }
    Ended { unwound, cancelled, abandoned: 0 }
}

/// Runs the loop until no greenlet is left but those that refuse to exit, the limit is reached, or the loop cannot go on.
fn wait_for_all(local: &Local, limit: Option<Duration>) {
    let main_loop = &local.main_loop;
    let none_ends = || local.alive().all(|target| target.kill_progress() == KillProgress::Refused);
    // Nothing that has begun can be unwound.
    if none_ends() || cfg!(panic = "abort") {
        return;
    }
    let deadline: Option<Time> = limit.map(|limit| main_loop.now() + limit);
    while !none_ends() {
        let left = deadline.map(|deadline| deadline - main_loop.now());
        if left == Some(Duration::ZERO) {
            return;
        }
        // A turn that begins with others ready sleeps after they have run.
        let limit = if run::ready() == 0 { left } else { Some(Duration::ZERO) };
        match main_loop.run_once(limit) {
            // The loop that is launched next goes on.
            Ok(()) | Err(LoopError::Aborted | LoopError::HubReplaced) => {}
            Err(_) => return,
        }
    }
}

/// Lifts the shields of those that are left, and makes them exit.
fn strike_shielded(local: &Local) {
    for target in local.alive() {
        if run::lift_shields(target) {
            run::interrupt(target, ending(), true);
        }
    }
}

fn ending() -> Exit {
    Exit::Kill(GreenError::Loop(LoopError::ThreadEnding))
}

/// Abandons what is left, and reports it. Returns how many that are.
fn abandon_rest(local: &Local) -> usize {
    let rest: Vec<ControlRef> = local.alive().collect();
    if rest.is_empty() {
        return 0;
    }
    let described = rest.iter().map(|&control| describe::abandoned(control)).collect();
    run::clear_queue(local);
    // All of them first, for links of one may wake another.
    rest.iter().for_each(|control| control.abandon());
    reach::abandon(rest.iter().map(|control| control.number()));
    for &control in &rest {
        run::end_abandoned(control, GreenError::Loop(LoopError::ThreadEnding));
    }
    report::abandoned(described);
    rest.len()
}

/// Has the main loop return, so that its stack is free.
fn end_loop(local: &Local) {
    while local.mainloop.get().is_some() {
        local.main_loop.abort();
        let parked = Waiter::current(WaitReason::Abort).and_then(Waiter::park);
        if !matches!(parked.map_err(|error| *error), Ok(_) | Err(LoopError::Aborted | LoopError::HubReplaced)) {
            return;
        }
    }
}

fn close(local: &Local) {
    let main_loop = &local.main_loop;
    // A destructor of a callback may block, and the last turn of the loop may ask for the time: both build a hub anew.
    for _ in 0..2 {
        main_loop.shut_down().for_each(drop_contained);
        end_loop(local);
    }
    main_loop.forget_errors();
    local.stacks.release();
    local.tasks.release();
}
