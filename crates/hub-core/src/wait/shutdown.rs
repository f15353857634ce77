//! The ordered end of an OS thread's green threads, while the thread-locals of the OS thread are alive.
//!
//! ```text
//! refuse new bodies → make all exit → run the loop until all have ended or the deadline → lift the shields
//!   → abandon the rest → drop hub and callbacks → end the loop → unmap unused stacks
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::base::wait_reason::WaitReason;
use crate::error::{GreenError, LoopError, LoopErrorKind};
use crate::greenlet::control::{ControlRef, Kind};
use crate::greenlet::describe;
use crate::greenlet::driver::Driver;
use crate::greenlet::exit::{Exit, KillProgress, drop_contained};
use crate::greenlet::local::{self, Local};
use crate::greenlet::run::{self, Park};
use crate::greenlet::task::TaskRef;
use crate::hub::Time;
use crate::main_loop::reach;
use crate::main_loop::thread_end;
use crate::report;

/// The counts of a [shutdown](crate::HubRef::shutdown): how the greenlets of an OS thread ended.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The number of greenlets that have ended: their destructors have run.
    pub unwound: usize,
    /// The number of greenlets that had not begun, and never will.
    pub cancelled: usize,
    /// The number of greenlets that had not ended at the deadline.
    ///
    /// They never run again, and their destructors do not run.
    pub abandoned: usize,
}

impl Ended {
    /// Returns whether no greenlet was abandoned.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self.abandoned == 0
    }
}

/// Runs `f`, then [shuts down](crate::HubRef::shutdown) the hub of this OS thread for good. Switches.
///
/// An OS thread with green threads should call this as its outermost function. The shutdown waits for at most `limit`
/// (`None`: without a limit). It takes place also if `f` panics, and the panic continues after it. From then on the
/// OS thread has no green threads: in destructors of thread-locals a call that would switch blocks the OS thread, or
/// returns an error.
///
/// Within a green thread, and wherever else a shutdown is impossible, it only runs `f`.
///
/// ```
/// use std::time::Duration;
/// let thread = std::thread::spawn(|| {
///     greenhub::thread::os::run_and_shutdown(Duration::from_secs(10), || 6 * 7)
/// });
/// assert_eq!(thread.join().unwrap(), 42);
/// ```
///
/// # Panics
///
/// Panics if `f` does.
pub fn run_and_shutdown<R>(limit: impl Into<Option<Duration>>, f: impl FnOnce() -> R) -> R {
    let is_embedded = || local::try_get().is_some_and(|local| local.main_loop.is_embedded());
    let was_embedded = is_embedded();
    let result = catch_unwind(AssertUnwindSafe(f));
    // Within a green thread, the embedding is that of the main greenlet.
    if !was_embedded && is_embedded() && run::current() == local::get().main {
        // `f` has leaked its `Embedded`, which would prevent the shutdown.
        local::get().main_loop.end_embedding();
    }
    if local::try_get().is_none() || shut_down(limit.into()).is_ok() {
        thread_end::end_now();
    }
    match result {
        Ok(result) => result,
        Err(payload) => resume_unwind(payload),
    }
}

pub(crate) fn shut_down(limit: Option<Duration>) -> Result<Ended, LoopError> {
    let local = local::get_unless_ended()?;
    may_shut_down(local)?;
    // The errors concern a loop that ends anyway, and must not end the wait below.
    local.main_loop.forget_errors();
    let refusing = local.refuse_bodies();
    let mut ended = make_all_exit(local);
    wait_for_all(local, limit);
    strike_shielded(local);
    // A greenlet that began meanwhile is not in the count of unwound greenlets, hence the saturation.
    ended.abandoned = abandon_rest(local);
    ended.unwound = ended.unwound.saturating_sub(ended.abandoned);
    close(local);
    drop(refusing);
    Ok(ended)
}

fn may_shut_down(local: &Local) -> Result<(), LoopError> {
    let main = run::current();
    run::may_leave(main, WaitReason::Abort)?;
    let elsewhere = main.kind() != Kind::Main || main.is_masked() || local.main_scopes.get() != 0;
    if elsewhere || local.main_loop.in_hub() {
        return Err(LoopErrorKind::ShutdownRefused.into());
    }
    Ok(())
}

/// Makes each greenlet exit, and runs it up to its end or its next park. Counts the begun greenlets as unwound.
fn make_all_exit(local: &Local) -> Ended {
    let mut cancelled = 0;
    for target in local.alive().filter(|target| !target.has_begun()) {
        if let Some(timer) = target.with_task(TaskRef::take_timer).flatten() {
            local.main_loop.disarm(timer);
        }
        run::request_exit(target, ending(), false);
        cancelled += 1;
    }
    let unwound = local.alive().count();
    // A plain greenlet whose child ends first is resumed by that, and has to exit as well.
    for target in local.alive().filter(|target| target.is_suspended()) {
        drop_contained(target.set_exit(ending()));
    }
    for target in local.alive() {
        run::request_exit(target, ending(), true);
    }
    Ended { unwound, cancelled, abandoned: 0 }
}

/// Runs the loop until only greenlets that refuse to exit are left, the limit is reached, or the loop cannot go on.
fn wait_for_all(local: &Local, limit: Option<Duration>) {
    let main_loop = &local.main_loop;
    let none_ends = || local.alive().all(|target| target.kill_progress() == KillProgress::Refused);
    // With `panic = "abort"` no greenlet that has begun can be unwound.
    if none_ends() || cfg!(panic = "abort") {
        return;
    }
    let deadline: Option<Time> = limit.map(|limit| main_loop.now() + limit);
    while !none_ends() {
        let left = deadline.map(|deadline| deadline - main_loop.now());
        if left == Some(Duration::ZERO) {
            return;
        }
        // With green threads ready, the turn would run them and then sleep.
        let limit = if run::ready() == 0 { left } else { Some(Duration::ZERO) };
        match main_loop.run_once(limit) {
            // The next loop goes on.
            Ok(()) => {}
            Err(error) if error.is_restart() => {}
            Err(_) => return,
        }
    }
}

/// Lifts the shields of the remaining greenlets, and makes them exit.
fn strike_shielded(local: &Local) {
    for target in local.alive() {
        if run::lift_shields(target) {
            run::request_exit(target, ending(), true);
        }
    }
}

fn ending() -> Exit {
    Exit::Kill(GreenError::Loop(LoopErrorKind::ThreadEnding.into()))
}

/// Abandons the remaining greenlets, and reports them. Returns their number.
fn abandon_rest(local: &Local) -> usize {
    let rest: Vec<ControlRef> = local.alive().collect();
    if rest.is_empty() {
        return 0;
    }
    let described = rest.iter().map(|&control| describe::abandoned(local, control)).collect();
    // All are abandoned before the first is ended, since a link of one may wake another.
    run::abandon(local, &rest);
    reach::abandon(rest.iter().map(|control| control.number()));
    for &control in &rest {
        run::end_abandoned(control, GreenError::Loop(LoopErrorKind::ThreadEnding.into()));
    }
    report::abandoned(described);
    rest.len()
}

/// Makes the main loop return, so that its stack is free.
fn end_loop(local: &Local) {
    while local.main_loop_greenlet.get().is_some() {
        local.main_loop.abort();
        let parked = Park::current(WaitReason::Abort).and_then(Park::park);
        if parked.is_err_and(|error| !error.is_restart()) {
            return;
        }
    }
}

fn close(local: &Local) {
    let main_loop = &local.main_loop;
    // A destructor may block, and the last turn of the loop may read the clock: both build a hub again.
    for _ in 0..2 {
        // Drops the closures that other OS threads have sent and no turn has taken.
        main_loop.read_mail();
        main_loop.shut_down().for_each(|callback| callback.discard());
        end_loop(local);
    }
    main_loop.forget_errors();
    local.stacks.release();
    local.tasks.release();
}
