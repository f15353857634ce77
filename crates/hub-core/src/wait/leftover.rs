//! The leftovers of a job on its OS thread: green threads, callbacks, handles of the hub.
//!
//! An OS thread that waits for work runs no loop. So all green threads of a job end before its OS thread takes another
//! job.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::base::wait_reason::WaitReason;
use crate::error::{GreenError, LoopError, LoopErrorKind};
use crate::greenlet::control::{ControlRef, Kind, State};
use crate::greenlet::driver::Driver;
use crate::greenlet::exit::Exit;
use crate::greenlet::local::{self, Local};
use crate::greenlet::run::{self, Park};
use crate::greenlet::target::Target;
use crate::greenlet::task::TaskRef;
use crate::report;

/// Runs the green threads that a job has left on this OS thread until they have ended. Switches.
///
/// Returns false if the OS thread has to end, because only its hub could serve the rest: a green thread that does not
/// exit, a callback, or a handle of the hub. Never unwinds.
///
/// Green threads that cannot run to their end are reported and killed. Callbacks that are still registered are
/// reported, and dropped with the hub when the OS thread ends.
pub(crate) fn finish() -> bool {
    let Some(local) = local::try_get() else { return true };
    // The job may have leaked its `Embedded`.
    local.main_loop.end_embedding();
    if let Err(error) = run_to_end(local) {
        report::warn(cannot_end(local, &error));
        for green in green_threads(local) {
            run::request_exit(green, Exit::Kill(GreenError::Kill), false);
        }
        if run_to_end(local).is_err() {
            return false;
        }
    }
    // Requests of this job, such as an interrupt, do not concern the next one.
    local.main_loop.forget_errors();
    match local.main_loop.registered() {
        0 => local.main_loop.mailbox().is_none_or(|mailbox| mailbox.users() == 0),
        left => {
            report::warn(format!("a job of the thread pool has left {left} timers or listeners, which are dropped"));
            false
        }
    }
}

fn run_to_end(local: &Local) -> Result<(), LoopError> {
    loop {
        let left: Vec<ControlRef> = green_threads(local).collect();
        if left.is_empty() {
            return Ok(());
        }
        match left.into_iter().filter(|green| green.has_task()).collect::<Vec<_>>() {
            // These green threads have ended, and a link of theirs waits. Nothing notifies of the end of a link.
            running if running.is_empty() => wait_briefly(local)?,
            running => wait_for_ends(&running)?,
        }
    }
}

fn wait_for_ends(running: &[ControlRef]) -> Result<(), LoopError> {
    let park = Park::current(WaitReason::Join)?;
    let left = Rc::new(Cell::new(running.len()));
    for green in running {
        let left = Rc::clone(&left);
        let ended = move |_: &TaskRef| {
            left.set(left.get() - 1);
            if left.get() == 0 {
                park.waiter().wake();
            }
        };
        green.with_task(|task| task.add_link(Box::new(ended)));
    }
    park.park().map(drop)
}

fn wait_briefly(local: &Local) -> Result<(), LoopError> {
    let park = Park::current(WaitReason::Join)?;
    let timer = local.main_loop.arm(Duration::from_millis(1), Target::park(park.waiter()));
    let woken = park.park();
    local.main_loop.disarm(timer);
    woken.map(drop)
}

fn green_threads(local: &Local) -> impl Iterator<Item = ControlRef> {
    local.controls.in_use().into_iter().filter(|one| one.kind() == Kind::Thread && one.state() != State::Cancelled)
}

/// Returns the report of green threads that cannot run to their end, one a line.
fn cannot_end(local: &Local, error: &LoopError) -> String {
    let why = match error.kind() {
        LoopErrorKind::LoopExit => "nothing can wake them".to_owned(),
        _ => error.to_string(),
    };
    let mut text = format!("green threads that a job of the thread pool has left are killed: {why}");
    for green in green_threads(local) {
        if let Some(task) = green.with_task(TaskRef::describe) {
            text.push_str(&format!("\n  {task}, {}", green.reason().as_str()));
        }
    }
    text
}
