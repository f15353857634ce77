//! The start of green threads: they enter the run queue, or are refused at the end of their OS thread.
//!
//! Ground rules: those of the [run queue](super).

use super::super::control::{ControlRef, State};
use super::super::local;
use super::ending::cancel;
use super::queue::thread;
use crate::error::{LoopError, LoopErrorKind};

/// Queues a greenlet whose body has not begun. After the end or during the shutdown of its OS thread, cancels it
/// instead.
///
/// # Safety
///
/// The greenlet has not begun, and is in no queue.
#[inline]
pub(in super::super) unsafe fn start(control: ControlRef) {
    if local::get().refuses_bodies() {
        // SAFETY: by the contract.
        return unsafe { refuse(control) };
    }
    // SAFETY: the greenlet has not begun and is in no queue, by the contract.
    unsafe { thread().push(control, State::Unstarted) };
}

/// Queues a green thread whose start time has come. Does nothing if it is not delayed any more.
pub(crate) fn start_delayed(control: ControlRef) {
    if control.state() == State::Delayed {
        // SAFETY: a delayed greenlet has not begun, and is in no queue.
        unsafe { start(control) };
    }
}

/// # Safety
///
/// The same as for [`start`].
#[cold]
unsafe fn refuse(control: ControlRef) {
    // SAFETY: by the contract, the greenlet is in no queue. The destructors that `cancel` runs do not queue a cancelled
    // greenlet.
    unsafe {
        cancel(control, LoopError::from(LoopErrorKind::ThreadEnding).into());
        local::get().controls.give(control);
    }
}
