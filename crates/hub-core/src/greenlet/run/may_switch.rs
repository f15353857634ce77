//! The places in which nothing switches: the main loop, subscribers, polls of futures.

use super::super::control::{ControlRef, Kind};
use super::super::trace;
use super::queue::thread;

/// Returns whether the running code must not block.
///
/// True in the main loop, in a main greenlet that embeds it, and in a subscriber during an event of this crate.
#[inline]
pub(crate) fn in_mainloop() -> bool {
    trace::in_subscriber() || thread().running().is_some_and(runs_loop)
}

/// Returns whether `control` is the main loop, or a main greenlet that embeds it.
pub(super) fn runs_loop(control: ControlRef) -> bool {
    match control.kind() {
        Kind::MainLoop => true,
        Kind::Main => thread().between_turns.get(),
        _ => false,
    }
}

/// Returns whether the running code must not switch: in the main loop, in a subscriber, in a poll of a future.
#[inline]
pub(crate) fn must_not_switch() -> bool {
    let thread = thread();
    in_mainloop() || thread.running().map_or(thread.is_polling(), |current| current.is_polling())
}
