//! The main loop's part of a turn: it runs the ready greenlets.
//!
//! Ground rules: those of the [run queue](super), and of [fairness](super::fairness).

use super::super::control::{ControlRef, State};
use super::super::driver::Driver;
use super::super::local::Local;
use super::ending::cancel;
use super::fairness::OPERATIONS;
use super::hand_off::give_stack;
use super::queue::{RunQueue, current, thread};

/// The least number of hand-offs granted to a turn.
const HAND_OFFS: usize = 256;

/// Runs the ready greenlets, up to the end of the turn. For the main loop. Switches.
///
/// Returns true if the turn was cut, so that ready greenlets are left over.
pub(crate) fn run_ready(local: &Local) -> bool {
    let thread = thread();
    let turn = &thread.turn;
    thread.operations.set(OPERATIONS);
    if !turn.cut.get() || thread.run_due(local) {
        thread.run_turn(local);
    }
    turn.end(thread.ready.get());
    turn.cut.get()
}

impl RunQueue {
    /// Runs ready greenlets until the hand-offs or the time of the turn are used up.
    #[inline]
    fn run_turn(&self, local: &Local) {
        let granted = HAND_OFFS.max(self.ready.get());
        self.grant_slice(granted);
        self.run_queue(local);
        if self.turn.over.get() {
            self.end_in_time(local, granted);
        }
        self.turn.fired.set(0);
    }

    #[inline(always)]
    fn run_queue(&self, local: &Local) {
        while let Some(next) = self.head.get()
            && (self.budget.get() != 0 || self.renew())
            && self.run_head(local, next)
        {}
    }

    /// Handles a turn that is over by the system's clock. Its last slice is used up.
    #[cold]
    fn end_in_time(&self, local: &Local, granted: usize) {
        debug_assert_eq!(self.budget.get(), 0);
        let turn = &self.turn;
        while turn.over.get() {
            let left = turn.left.get();
            if turn.is_cut(local) {
                return self.set_due_aside(granted - left);
            }
            // No time has passed for the timers, so nothing is late.
            self.grant_slice(left);
            self.run_queue(local);
        }
    }

    /// Runs the due greenlets, and then one of those that a cut turn has left behind. Returns false if this turn is cut
    /// too.
    #[cold]
    fn run_due(&self, local: &Local) -> bool {
        let turn = &self.turn;
        turn.left.set(0);
        turn.cut.set(false);
        while !turn.cut.get()
            && let Some(next) = turn.pop_due()
        {
            self.push_front(next, next);
            self.run_one(local);
            if turn.look() {
                turn.is_cut(local);
            }
        }
        self.run_one(local);
        !turn.cut.get()
    }

    /// Runs the first greenlet of the queue, and none after it.
    fn run_one(&self, local: &Local) {
        self.grant(1);
        if let Some(next) = self.head.get() {
            self.run_head(local, next);
        }
        self.grant(0);
    }

    /// Runs the head of the queue, and the greenlets that follow by hand-off. For the main loop.
    ///
    /// Returns false if the head is a callback that is due only in the next turn.
    #[inline(always)]
    fn run_head(&self, local: &Local, head: ControlRef) -> bool {
        match head.state() {
            State::Callback => {
                if !local.main_loop.callback_is_due() {
                    return false;
                }
                self.pop_unrun(head);
                // SAFETY: the entry of a callback, which was just taken out of the queue.
                unsafe { local.controls.give(head) };
                local.main_loop.run_callback();
                return true;
            }
            State::Cancelled => {
                self.discard_cancelled(local, head);
                return true;
            }
            State::Unstarted => {
                if let Err(error) = give_stack(local, head) {
                    self.pop_unrun(head);
                    // SAFETY: `head` has not begun, and was just taken out of the queue. A cancelled greenlet is not
                    // queued again.
                    unsafe {
                        cancel(head, error.into());
                        local.controls.give(head);
                    }
                    return true;
                }
            }
            _ => {}
        }
        let me = current();
        self.pop(head);
        self.budget.set(self.budget.get() - 1);
        // SAFETY: `head` is suspended or fresh and was just taken out of the queue. The main loop is left, and entered
        // by a greenlet that finds nothing to run.
        unsafe {
            me.set_state(State::Switched);
            self.switch(me, head);
        }
        true
    }
}
