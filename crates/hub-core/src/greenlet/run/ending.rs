//! The ends of greenlets: a body that returns, a cancellation before the start, an abandonment.
//!
//! Ground rules: those of the [run queue](super).

use std::sync::atomic::{Ordering, compiler_fence};

use super::super::control::{ControlRef, State};
use super::super::driver::FutureWaits;
use super::super::exit::drop_contained;
use super::super::local::Local;
use super::super::spans;
use super::queue::clear_queue;
use crate::error::GreenError;

/// Runs the body of `me`, a green thread, and finishes its cell. Never unwinds.
#[inline(always)]
pub(super) fn run_task(me: ControlRef) {
    // SAFETY: the greenlet keeps the cell until `finish`, after which the value is not used.
    let Some(task) = (unsafe { me.task.get() }) else { return };
    spans::entered(me);
    // SAFETY: the cell belongs to the running greenlet, which the queue has entered once. A cell that is cancelled
    // loses its greenlet.
    unsafe { task.run() };
    me.task.clear();
    // A signal handler that reads `task` here finds `None` or a live task.
    compiler_fence(Ordering::SeqCst);
    // Pending exits concerned the body. Links and destructors may block again.
    me.clear_exits();
    me.drop_locals();
    // SAFETY: `run` has stored the result. The greenlet refers to the cell no more, so nothing else finishes it.
    unsafe { task.finish() };
}

/// Ends a green thread whose body has not begun. If it is queued, it stays queued with nothing to run.
///
/// # Safety
///
/// The body has not begun. If the greenlet is in no queue, the caller gives its block back.
pub(super) unsafe fn cancel(target: ControlRef, error: GreenError) {
    // SAFETY: the body has not begun, by the contract, and never will: the greenlet loses its cell below.
    unsafe { target.set_state(State::Cancelled) };
    let _span = spans::unentered(target);
    target.drop_cold();
    // SAFETY: the cell is finished below.
    if let Some(task) = unsafe { target.task.take() } {
        // The dropped values may block, and the block may be given to another greenlet meanwhile.
        task.forget_control();
        // SAFETY: the body has not begun, and was taken from its greenlet, so nothing starts or finishes it.
        unsafe {
            task.fail(error);
            task.finish();
        }
    }
}

/// Empties the run queue, and abandons the given greenlets if they are suspended: nothing wakes or enters them again.
pub(crate) fn abandon(local: &Local, greenlets: &[ControlRef]) {
    clear_queue(local);
    for control in greenlets.iter().filter(|control| control.is_alive() && control.is_suspended()) {
        local.futures.forget(control.number());
        // SAFETY: the greenlet is suspended. The queue is empty, so it is in none.
        unsafe { control.set_state(State::Abandoned) };
        control.advance_ticket();
    }
}

/// Sets the result of an abandoned greenlet to `error`, for its waiters. Does nothing for any other greenlet.
pub(crate) fn end_abandoned(target: ControlRef, error: GreenError) {
    if target.state() != State::Abandoned {
        return;
    }
    // SAFETY: the cell is finished below.
    if let Some(task) = unsafe { target.task.take() } {
        // SAFETY: an abandoned greenlet is suspended in the body of its cell, and is never entered again. A greenlet
        // gives up its cell when the result is stored.
        unsafe { task.abandon(error) };
    }
}

impl ControlRef {
    /// Frees the state that only this use of the block needed.
    #[inline]
    pub(crate) fn drop_cold(self) {
        if !self.cold.is_empty() {
            self.free_cold();
        }
    }

    #[cold]
    fn free_cold(self) {
        // Drops values made after the body had ended, by a link, for instance.
        self.end_locals();
        spans::ended(self);
        // A pending exit may contain an error of the program, whose destructor is foreign code. The destructor may make
        // a new cold state.
        // SAFETY: the greenlet has ended, and this function holds no reference to its state.
        while let Some(cold) = unsafe { self.take_cold() } {
            drop_contained(cold);
        }
    }
}
