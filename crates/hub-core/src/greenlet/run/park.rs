//! Parks and yields of the running greenlet, and its arrival after them.
//!
//! Ground rules: those of the [run queue](super).

use super::super::control::{ControlRef, Kind, Waiter, Wake};
use super::super::driver::Driver;
use super::super::local;
use super::super::patience;
use super::super::spans;
use super::super::trace;
use super::fairness::{OPERATIONS, is_yield_due};
use super::may_switch::{in_mainloop, runs_loop};
use super::queue::{RunQueue, current, thread};
use super::throw_exit::{has_to_exit, take_turn, throw_pending};
use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, LoopErrorKind};

/// A park of the running greenlet, which may begin it once. Its [`waiter`](Park::waiter) is stored to end it.
#[derive(Copy, Clone, Debug)]
#[must_use = "nothing is waited for before `park`"]
pub(crate) struct Park {
    control: ControlRef,
    ticket: u64,
}

impl Park {
    /// Prepares the next park of the running greenlet.
    ///
    /// Throws the pending exit, if there is one.
    ///
    /// # Errors
    ///
    /// Returns an error where parking is not possible: in the main loop, in a subscriber during an event of this crate,
    /// while panicking, in a poll of a future, at the end of the OS thread.
    #[inline]
    pub(crate) fn current(reason: WaitReason) -> Result<Park, LoopError> {
        let control = current();
        if must_check(control) {
            may_park(control, reason)?;
            control.retire_given();
        }
        control.reason.set(reason);
        Ok(Park { control, ticket: control.ticket() })
    }

    /// Like [`current`](Park::current), but takes a fresh ticket, which the caller may give away.
    ///
    /// A wake-up meant for an earlier, abandoned park cannot end this one. If this one is abandoned,
    /// [`current`](Park::current) retires its ticket.
    ///
    /// Returns `None` if an exit must be thrown first, by [`check_exit`](super::check_exit): the caller may hold a
    /// lock, and others may run before a swallowed exit is thrown again.
    #[inline]
    pub(crate) fn begin(reason: WaitReason) -> Result<Option<Park>, LoopError> {
        let control = current();
        if must_check(control) && !may_begin(control, reason)? {
            return Ok(None);
        }
        control.reason.set(reason);
        // A hub may begin a park while the caller is about to park: that park ends, without an earlier one's result.
        control.set_wake(Wake::Event);
        control.note_given();
        let ticket = control.advance_ticket();
        Ok(Some(Park { control, ticket }))
    }

    /// Returns the park that [`begin`](Park::begin) has begun for the greenlet `number` with this ticket.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller came to a place without waits meanwhile: a poll of a future, or between two turns
    /// of a loop that it embeds.
    ///
    /// # Panics
    ///
    /// Panics if another greenlet is running.
    #[inline]
    #[track_caller]
    pub(crate) fn begun(number: u32, ticket: u64) -> Result<Park, LoopError> {
        let control = current();
        assert_eq!(control.number(), number, "a greenlet parks in a wait that another greenlet has made");
        // A park that has ended does not begin. The present ticket is that of a later parker, whose record stays.
        if control.ticket() != ticket {
            return Ok(Park { control, ticket });
        }
        if control.kind() != Kind::Thread || control.take_given() {
            may_go_on(control)?;
        }
        Ok(Park { control, ticket })
    }

    /// Returns the value that ends the park.
    #[inline]
    pub(crate) fn waiter(self) -> Waiter {
        Waiter::new(self.control, self.ticket)
    }

    #[inline]
    pub(crate) fn control(self) -> ControlRef {
        self.control
    }

    #[inline]
    pub(crate) fn ticket(self) -> u64 {
        self.ticket
    }

    /// Parks the running greenlet until this ticket is woken. Switches.
    ///
    /// Throws the exit that has ended the park, unless a mask is in force. An exit that came after the end of the park
    /// is left for the next wait, so that the result of the park is not lost.
    ///
    /// # Errors
    ///
    /// In the main greenlet, returns the error that the main loop has for it.
    ///
    /// # Panics
    ///
    /// Panics if the running greenlet is not the one that has made this value.
    #[inline(always)]
    pub(crate) fn park(self) -> Result<Wake, LoopError> {
        self.park_until_entered()?;
        let wake = self.control.wake();
        if matches!(wake, Wake::Exit | Wake::Failed) {
            arrive_interrupted(self.control)?;
        }
        Ok(wake)
    }

    /// Like [`park`](Park::park), but an exit only ends the park.
    ///
    /// The caller checks whether its wait was granted, and otherwise throws by [`check_exit`](super::check_exit).
    ///
    /// # Errors
    ///
    /// The same as [`park`](Park::park).
    ///
    /// # Panics
    ///
    /// The same as [`park`](Park::park).
    #[inline]
    pub(crate) fn park_deferring_exit(self) -> Result<Wake, LoopError> {
        self.park_until_entered()?;
        let wake = self.control.wake();
        if wake == Wake::Failed {
            take_main_error(self.control)?;
        }
        Ok(wake)
    }

    #[inline(always)]
    pub(super) fn park_until_entered(self) -> Result<(), LoopError> {
        let me = self.control;
        if trace::in_subscriber() {
            may_leave(me, me.reason())?;
        }
        if me.ticket() != self.ticket {
            forget_report(me);
        } else if spans::exited_for(self.waiter()) {
            thread().park(me).inspect_err(|_| spans::entered(me))?;
            // Every end of a park advances the ticket, so no late wake-up finds this greenlet.
            debug_assert_ne!(me.ticket(), self.ticket);
        }
        spans::entered(me);
        Ok(())
    }
}

/// Replaces the report of a park that has ended before it began.
///
/// Foreign code on the way to the park, such as the destructor of a callback, may have parked as well, with the same
/// ticket. Its report speaks of its own place in the table of descriptors.
#[cold]
fn forget_report(me: ControlRef) {
    if matches!(me.wake(), Wake::Ready(_)) {
        me.set_wake(Wake::Event);
    }
}

/// Lets every other ready greenlet run once, then continues. Switches.
#[inline(always)]
pub(crate) fn yield_now() -> Result<(), LoopError> {
    let me = current();
    if must_check(me) {
        may_park(me, WaitReason::Yield)?;
    }
    me.reason.set(WaitReason::Yield);
    spans::exited(me);
    // SAFETY: `me` is the running greenlet, and a subscriber does not switch.
    unsafe { thread().yield_running(me) }.inspect_err(|_| spans::entered(me))?;
    arrive(me).map(drop)
}

/// Grants operations anew, after a yield if no other greenlet has run since the last grant. Switches in that case.
///
/// The yield throws the pending exit, if there is one. No result can be lost, because the operation has not begun.
///
/// # Errors
///
/// In the main greenlet, returns the error that the main loop has for it.
#[cold]
#[inline(never)]
pub(crate) fn operations_used_up() -> Result<(), LoopError> {
    if !is_yield_due() {
        return Ok(());
    }
    let thread = thread();
    let yielded = thread.let_others_run();
    thread.operations.set(OPERATIONS - 1);
    thread.turn.charged_at.set(thread.hand_offs());
    yielded
}

impl RunQueue {
    /// Yields where that is possible. Elsewhere the operation is performed anyway.
    fn let_others_run(&self) -> Result<(), LoopError> {
        let Some(local) = local::try_get() else { return Ok(()) };
        // A program that never waits needs no loop.
        let needless =
            self.ready.get() == 0 && local.main_loop_greenlet.get().is_none() && local.main_loop.is_untouched();
        if needless {
            return Ok(());
        }
        let Err(refused) = yield_now() else { return Ok(()) };
        let for_main = current().kind() == Kind::Main && !refused.forbids_waits() && !refused.is_misplaced();
        if for_main { Err(refused) } else { Ok(()) }
    }
}

/// Handles the arrival of a greenlet that was entered again after it had yielded or switched by hand.
///
/// Throws the pending exit unless a mask is in force.
#[inline(always)]
pub(in super::super) fn arrive(me: ControlRef) -> Result<Wake, LoopError> {
    spans::entered(me);
    let wake = me.wake();
    if me.has_exit() || wake == Wake::Failed {
        arrive_interrupted(me)?;
    }
    Ok(wake)
}

#[cold]
pub(super) fn arrive_interrupted(me: ControlRef) -> Result<(), LoopError> {
    // The park is not taken down yet, so nothing else runs before this throw.
    throw_pending(me, None, |_| {});
    take_main_error(me)
}

/// Takes the error that the main loop left for `me`, if it is the main greenlet.
#[cold]
pub(super) fn take_main_error(me: ControlRef) -> Result<(), LoopError> {
    match me.kind() {
        Kind::Main if !me.is_masked() => Ok(local::get().main_loop.take_main_error()?),
        _ => Ok(()),
    }
}

/// Returns whether the checked path decides if `me` may wait.
#[inline(always)]
pub(super) fn must_check(me: ControlRef) -> bool {
    me.kind() != Kind::Thread || me.is_flagged() || trace::in_subscriber() || std::thread::panicking()
}

/// Returns whether the checked path decides if `me` may switch by hand.
#[inline(always)]
pub(in super::super) fn must_check_switch(me: ControlRef) -> bool {
    cfg!(feature = "tracing") || me.is_flagged() || runs_loop(me) || thread().has_ended() || std::thread::panicking()
}

/// Checks whether `me` may park in a wait that it began before. Throws no exit.
#[cold]
fn may_go_on(me: ControlRef) -> Result<(), LoopError> {
    if me.is_polling() || runs_loop(me) {
        me.retire_ticket();
        return may_leave(me, me.reason());
    }
    me.forget_given();
    Ok(())
}

#[cold]
pub(super) fn may_park(me: ControlRef, reason: WaitReason) -> Result<(), LoopError> {
    may_leave(me, reason)?;
    if me.kind() == Kind::Main {
        local::get().watch_for_end();
    }
    take_main_error(me)
}

/// Returns false if an exit must be thrown first.
#[cold]
pub(super) fn may_begin(me: ControlRef, reason: WaitReason) -> Result<bool, LoopError> {
    let may_throw = !in_mainloop() && !std::thread::panicking() && !local::has_ended();
    if has_to_exit(me) && may_throw && !patience::holds_exits(reason) {
        return Ok(false);
    }
    may_park(me, reason)?;
    if has_to_exit(me) {
        patience::begin(me, me.ticket() + 1);
    }
    Ok(true)
}

/// Checks whether the running greenlet may be left. Throws the pending exit, if there is one.
pub(crate) fn may_leave(me: ControlRef, reason: WaitReason) -> Result<(), LoopError> {
    // Must be first: an exit must not unwind a destructor of a thread-local.
    if thread().has_ended() {
        return Err(LoopErrorKind::ThreadEnding.into());
    }
    if runs_loop(me) {
        return Err(LoopError::in_mainloop(reason.as_str()));
    }
    if trace::in_subscriber() {
        return Err(LoopError::in_mainloop("a wait in a subscriber of `tracing`"));
    }
    if std::thread::panicking() {
        return Err(LoopErrorKind::Panicking.into());
    }
    if me.is_polling() {
        return Err(LoopError::in_poll(reason.as_str()));
    }
    if !patience::holds_exits(reason) {
        throw_pending(me, None, take_turn);
    }
    Ok(())
}
