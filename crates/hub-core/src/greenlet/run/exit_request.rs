//! Requests the exit of other greenlets.
//!
//! Ground rules: those of the [run queue](super), and
//! - A target is entered in the call that found it parked or switched, and no foreign code runs in between.

use super::super::control::{ControlRef, State, Wake};
use super::super::exit::Exit;
use super::super::local;
use super::super::patience;
use super::super::spans::{self, Away};
use super::ending::cancel;
use super::queue::{current, end_switch, thread};
use super::throw_exit::{check_exit, has_to_exit};

/// Makes a greenlet other than the running one exit.
///
/// If `at_once`, the running greenlet is queued and the target runs until its end or its next park. Otherwise the
/// target is only woken. An exit that is pending for the running greenlet itself is then thrown, after the target was
/// woken. An error of the main loop for the main greenlet waits for its next park.
///
/// Returns false if there is nothing to unwind: the target has ended, or had not begun and never will.
pub(crate) fn request_exit(target: ControlRef, exit: Exit, at_once: bool) -> bool {
    // Dropped last, because its destructor may switch.
    let _unneeded;
    // Must be first, because it may change the state of the target.
    let _away = (at_once && target.is_suspended()).then(Away::new);
    match target.state() {
        State::Unstarted => {
            if let Exit::Kill(error) = exit {
                // SAFETY: the target has not begun, and stays queued.
                unsafe { cancel(target, error) };
            }
            return false;
        }
        State::Delayed => {
            if let Exit::Kill(error) = exit {
                // SAFETY: a delayed greenlet has not begun and is in no queue. A cancelled one is not queued any more.
                unsafe {
                    cancel(target, error);
                    local::get().controls.give(target);
                }
            }
            return false;
        }
        State::Free | State::Cancelled | State::Callback | State::Abandoned => return false,
        // A begun greenlet cannot be unwound.
        _ if cfg!(panic = "abort") => {}
        State::Running => drop(target.set_exit(exit)),
        State::Ready => {
            let shielded = target.is_shielded_from(&exit);
            _unneeded = target.set_exit(exit);
            if at_once {
                check_exit();
                if !shielded {
                    // Without a main loop this fails, and the target runs later.
                    let _ = thread().yield_current();
                    spans::back();
                    check_exit();
                }
            }
        }
        State::Parked
            if !target.is_masked() && !target.is_shielded_from(&exit) && patience::holds_back(target, &exit) =>
        {
            if !target.has_pending_exit() {
                patience::begin(target, target.ticket());
            }
            _unneeded = target.set_exit(exit);
            if at_once {
                check_exit();
            }
        }
        State::Parked | State::Switched => {
            let shielded = target.is_shielded_from(&exit);
            let later = !at_once || target.is_masked() || shielded;
            _unneeded = target.set_exit(exit);
            let me = current();
            if later || has_to_exit(me) {
                // A masked wait passes the exit on to the greenlets it waits for. A shielded wait continues unchanged.
                if !shielded {
                    end_switch(target, Wake::Exit);
                }
                if at_once {
                    check_exit();
                }
                return true;
            }
            let thread = thread();
            target.advance_ticket();
            target.set_wake(Wake::Exit);
            me.set_wake(Wake::Event);
            // SAFETY: the running greenlet is left below.
            unsafe { thread.push(me, State::Ready) };
            // SAFETY: the target is suspended and in no queue, and no foreign code ran since that was checked; `me` is
            // queued.
            unsafe { thread.switch(me, target) };
            check_exit();
        }
    }
    true
}
