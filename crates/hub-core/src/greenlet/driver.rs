//! The main loop as its greenlets see it: the few verbs that a switch, an exit and the end of a thread need.
//!
//! The loop is built of greenlets, so its type lives on the floor above this one. That floor names it by implementing
//! [`Install`]: calls stay direct, and the loop stays part of its thread's state.

use std::panic::Location;
use std::time::Duration;

use super::local::Local;
use super::target::Target;
use crate::error::LoopError;
use crate::hub::Stamp;
use crate::timer_queue::TimerId;

/// The verbs of a main loop that greenlets need.
pub(crate) trait Driver {
    /// The loop of a thread, without a hub.
    fn new() -> Self;

    /// Arms a timer; [`disarm`](Driver::disarm) takes it back.
    fn arm(&self, delay: Duration, target: Target) -> TimerId;

    /// Takes a timer back. False if it has fired.
    fn disarm(&self, id: TimerId) -> bool;

    /// Whether there is neither a hub nor a timer, so that a turn would find nothing.
    fn is_untouched(&self) -> bool;

    /// The time of this turn, for the ages of the greenlets that are made in it.
    fn stamp(&self) -> Stamp;

    /// Like [`stamp`](Driver::stamp), where no foreign code may run.
    fn last_stamp(&self) -> Stamp;

    /// The body of the main loop's greenlet. Returns when the loop ends. Never unwinds.
    fn run(&self, local: &Local);

    /// Whether so much time has passed for timers since some were fired last.
    fn turn_has_lasted(&self, time: Duration) -> bool;

    /// What the main loop has for the main greenlet, once.
    fn take_main_error(&self) -> Result<(), LoopError>;

    /// The thread ends: the loop's greenlet returns when it is entered next, nothing more is taken in.
    ///
    /// Leaks the bodies that other threads sent to be run here, like green threads that are parked. Returns how many.
    fn close(&self) -> usize;

    /// Stops the watchdog of this thread. False if it does not end: its report may wait for what the caller holds.
    fn end_detector(&self) -> bool;

    /// Whether a call into the hub is under way.
    fn in_hub(&self) -> bool;

    /// Drops hub and wake-up descriptor of a thread that has ended, which other threads reach no more. Leaks the callbacks:
    /// what they own is the program's.
    fn close_hub(&self);

    /// Whether the next callback without delay was scheduled in an earlier turn: between the two,
    /// descriptors were looked at.
    fn callback_is_due(&self) -> bool;

    /// Where the callback that runs was made.
    fn calling(&self) -> Option<&'static Location<'static>>;

    /// Runs the next callback without delay.
    fn run_callback(&self);
}

/// Names the type of the main loop. The floor above implements it, for [`Installed`].
pub(crate) trait Install {
    type MainLoop: Driver;
}

/// The type for which [`Install`] is implemented.
pub(crate) enum Installed {}

/// The main loop of a thread.
pub(crate) type MainLoop = <Installed as Install>::MainLoop;
