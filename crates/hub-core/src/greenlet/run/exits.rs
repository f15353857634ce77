//! Throws the exit that is pending for the running greenlet.

use super::super::control::{ControlRef, Kind};
use super::super::driver::Driver;
use super::super::local::{self};
use super::super::spans::{self};
use super::super::trace;
use super::super::unwind::{Exit, throw};
use super::{current, thread};
use crate::error::MOST_THROWS;
use crate::report::{self, Report};

/// Throws the exit that comes next, if there is one and nothing holds it back; instead of an earlier kill, `own`. One
/// that was swallowed before is thrown after `between`, and given up at some point.
pub(super) fn throw_pending(me: ControlRef, mut own: Option<Exit>, between: impl Fn(ControlRef)) {
    let mut gave_way = false;
    while !me.is_masked()
        && let Some(throws) = me.throws()
    {
        if throws >= MOST_THROWS {
            give_up_exit(me);
        } else if throws != 0 && !gave_way {
            gave_way = true;
            between(me);
        } else if let Some(exit) = me.next_throw() {
            throw(own.take().filter(|_| exit.scope().is_none()).unwrap_or(exit));
        }
    }
}

/// Lets the main loop take a turn, and others run, before `me` goes on; returns at once where that is not possible.
pub(super) fn take_turn(me: ControlRef) {
    if trace::is_telling() || local::get().main_loop.in_hub() {
        return;
    }
    spans::exited(me);
    let thread = thread();
    // Without a budget the way leads to the main loop, past those who are ready: they run in its next turn.
    thread.end_turn();
    // Where no loop can be launched this fails, and the exit is thrown at once.
    let _ = thread.give_way(me);
    spans::entered(me);
}

/// The greenlet catches its exit again and again, so it lives on.
#[cold]
pub(super) fn give_up_exit(me: ControlRef) {
    let refused = me.give_up_exit();
    if let Some(exit) = refused {
        let greenlet = match (me.kind(), me.task()) {
            (_, Some(task)) => format!("the green thread {}", task.describe()),
            (Kind::Main, None) => "the main greenlet".to_owned(),
            _ => me.describe_raw().unwrap_or_else(|| "a greenlet".to_owned()),
        };
        report::tell(Report::Refused { greenlet, exit });
    }
    super::super::raw::release_dropper(me);
}

/// Whether the running greenlet has to exit as soon as no mask is in force.
pub(crate) fn exit_is_pending() -> bool {
    current().has_pending_exit()
}

/// Whether an exit is pending for `me`, and neither a mask nor a shield holds it back.
pub(crate) fn has_to_exit(me: ControlRef) -> bool {
    !me.is_masked() && me.has_pending_exit()
}

/// The running greenlet kills itself: throws `exit`, unless something holds it back.
pub(crate) fn exit_now(exit: Exit) {
    let me = current();
    drop(me.set_exit(exit.clone()));
    if !std::thread::panicking() && !thread().ended.get() {
        throw_pending(me, Some(exit), take_turn);
    }
}

/// Throws the exit that is pending on, which was caught by code that is not the program's.
pub(crate) fn exit_again() {
    let me = current();
    if !me.is_masked()
        && !std::thread::panicking()
        && me.throws().is_some()
        && let Some(exit) = me.next_again()
    {
        throw(exit);
    }
}

/// Throws the exit that is pending, if one is and nothing holds it back.
pub(crate) fn check_exit() {
    let me = current();
    if !std::thread::panicking() && !thread().ended.get() {
        throw_pending(me, None, take_turn);
    }
}
