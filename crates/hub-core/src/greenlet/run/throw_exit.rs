//! Throws the pending exit of the running greenlet.

use std::panic::resume_unwind;

use super::super::control::{ControlRef, Kind};
use super::super::driver::Driver;
use super::super::exit::{Exit, Payload};
use super::super::local;
use super::super::raw::route::release_dropper;
use super::super::spans;
use super::super::task::cell::TaskRef;
use super::may_switch::must_not_switch;
use super::queue::{current, thread};
use crate::error::MAX_THROWS;
use crate::report::{self, Report};

/// Throws the exit that comes next, if there is one that neither a mask nor a shield nor a poll holds back.
///
/// An exit does not unwind a poll: the future may consist of tasks of an executor, which would catch it. It strikes at
/// the next wait outside.
///
/// Throws `own` instead of an earlier kill. A swallowed exit is thrown again after `between`, and given up after
/// [`MAX_THROWS`] throws.
pub(super) fn throw_pending(me: ControlRef, mut own: Option<Exit>, between: impl Fn(ControlRef)) {
    let mut yielded = false;
    while !me.is_masked()
        && !me.is_polling()
        && let Some(throws) = me.throws()
    {
        if throws >= MAX_THROWS {
            give_up_exit(me);
        } else if throws != 0 && !yielded {
            yielded = true;
            between(me);
        } else if let Some(exit) = me.next_throw() {
            throw(own.take().filter(|_| exit.scope().is_none()).unwrap_or(exit));
        }
    }
}

/// Lets the main loop take a turn, and other greenlets run, before `me` continues. Returns at once where that is not
/// possible.
pub(super) fn take_turn(me: ControlRef) {
    if must_not_switch() || local::get().main_loop.in_hub() {
        return;
    }
    spans::exited(me);
    let thread = thread();
    // Without a budget the switch goes to the main loop, past the ready greenlets. They run in its next turn.
    thread.end_turn();
    // Where no loop can be launched this fails, and the exit is thrown at once.
    let _ = thread.yield_current();
    spans::entered(me);
}

/// Gives up an exit that the greenlet catches again and again, so that the greenlet lives on.
#[cold]
pub(super) fn give_up_exit(me: ControlRef) {
    let refused = me.give_up_exit();
    if let Some(exit) = refused {
        let greenlet = match me.with_task(TaskRef::describe) {
            Some(task) => format!("the green thread {task}"),
            None if me.kind() == Kind::Main => "the main greenlet".to_owned(),
            None => me.describe_raw().unwrap_or_else(|| "a greenlet".to_owned()),
        };
        report::tell(Report::Refused { greenlet, exit });
    }
    release_dropper(me);
}

/// Returns whether the running greenlet has to exit as soon as no mask is in force.
pub(crate) fn exit_is_pending() -> bool {
    current().has_pending_exit()
}

/// Returns whether an exit is pending for `me`, and neither a mask nor a shield nor a poll holds it back.
pub(crate) fn has_to_exit(me: ControlRef) -> bool {
    !me.is_masked() && !me.is_polling() && me.has_pending_exit()
}

/// Makes the running greenlet exit: throws `exit`, unless a mask, a shield or a poll holds it back.
pub(crate) fn exit_now(exit: Exit) {
    let me = current();
    drop(me.set_exit(exit.clone()));
    if !std::thread::panicking() && !thread().has_ended() {
        throw_pending(me, Some(exit), take_turn);
    }
}

/// Continues the pending exit, which code of this library caught. The running greenlet [has to exit](has_to_exit).
pub(crate) fn exit_again() {
    if !std::thread::panicking()
        && let Some(exit) = current().next_again()
    {
        throw(exit);
    }
}

/// Throws the pending exit, if there is one that neither a mask nor a shield nor a poll holds back.
pub(crate) fn check_exit() {
    let me = current();
    if !std::thread::panicking() && !thread().has_ended() {
        throw_pending(me, None, take_turn);
    }
}

/// Throws the pending exit of the running green thread. Switches only before an exit that was swallowed.
///
/// Does nothing if no exit is pending, if a mask or a shield holds it back, and while panicking.
#[cold]
pub fn throw_exit() {
    if local::try_get().is_some() {
        check_exit();
    }
}

/// Starts the unwinding of the running greenlet. No panic hook runs.
fn throw(exit: Exit) -> ! {
    spans::back();
    resume_unwind(Box::new(Payload(exit)))
}
