//! The main loop as greenlets see it: the methods that a switch, an exit and the end of an OS thread need.
//!
//! The loop is built of greenlets, so its type belongs to a higher layer. That layer names the type by implementing
//! [`Install`]. Calls stay direct, and the loop stays part of its OS thread's state. So does the table of the futures
//! that greenlets wait for.

use std::panic::Location;
use std::time::Duration;

use super::target::Target;
use crate::error::LoopError;
use crate::hub::Stamp;
use crate::timer_queue::TimerId;

/// The methods of a main loop that greenlets need.
pub(crate) trait Driver {
    /// Creates the loop of an OS thread, without a hub.
    fn new() -> Self;

    /// Arms a timer. [`disarm`](Driver::disarm) cancels it.
    fn arm(&self, delay: Duration, target: Target) -> TimerId;

    /// Cancels a timer. Returns false if it has fired.
    fn disarm(&self, id: TimerId) -> bool;

    /// Returns whether there is neither a hub nor a timer, so that a turn would do nothing.
    fn is_untouched(&self) -> bool;

    /// Returns the time of this turn, for the ages of the greenlets that are made in it.
    fn stamp(&self) -> Stamp;

    /// Like [`stamp`](Driver::stamp), where no foreign code may run.
    fn last_stamp(&self) -> Stamp;

    /// Runs the main loop, as the body of its greenlet. Returns when the loop ends. Never unwinds.
    ///
    /// Returns true if another loop has to go on at once, on a larger stack.
    fn run(&self) -> bool;

    /// Returns whether so much time has passed for timers since the last time they were fired.
    fn turn_has_lasted(&self, time: Duration) -> bool;

    /// Takes the error that the main loop has for the main greenlet, if there is one.
    fn take_main_error(&self) -> Result<(), LoopError>;

    /// Closes the loop, because the OS thread ends. Its greenlet returns when it is entered next, and new work is
    /// refused.
    ///
    /// Leaks the bodies that other OS threads sent to be run here, like parked green threads. Returns how many.
    fn close(&self) -> usize;

    /// Ends the OS thread while its thread-locals are being destroyed.
    fn end_with_thread_locals();

    /// Returns whether a call into the hub is under way.
    fn in_hub(&self) -> bool;

    /// Wakes the waker that the hub or an embedding program has given for the time in which it sleeps.
    fn wake_by_waker(&self);

    /// Returns the size of the stack that the loop needs; `None` stands for the default size.
    fn stack_size(&self) -> Option<usize>;

    /// Wakes the main greenlet with an error.
    fn fail_main(&self, error: LoopError);

    /// Returns whether the next callback without delay was scheduled in an earlier turn.
    ///
    /// If so, descriptors were polled in between.
    fn callback_is_due(&self) -> bool;

    /// Returns the place where the running callback was made.
    fn calling(&self) -> Option<&'static Location<'static>>;

    /// Runs the next callback without delay.
    fn run_callback(&self);
}

/// Names the type of the main loop. A higher layer implements it for [`Installed`].
pub(crate) trait Install {
    type MainLoop: Driver;
}

/// The futures for which the greenlets of an OS thread wait, as reports see them.
///
/// As with the main loop, a higher layer names the type, by implementing [`InstallFutures`].
pub(crate) trait FutureWaits {
    /// Creates the table of an OS thread.
    fn new() -> Self;

    /// Returns the type of the future for which a greenlet waits in its park `ticket`.
    fn type_name(&self, greenlet: u32, ticket: u64) -> Option<&'static str>;

    /// Returns whether a greenlet waits for a future.
    fn any(&self) -> bool;

    /// Forgets the wait of a greenlet that never runs again, if it waits for a future.
    fn forget(&self, greenlet: u32);
}

/// Names the type of the table of futures. A higher layer implements it for [`Installed`].
pub(crate) trait InstallFutures {
    type Futures: FutureWaits;
}

/// The type for which [`Install`] and [`InstallFutures`] are implemented.
pub(crate) enum Installed {}

/// The main loop of an OS thread.
pub(crate) type MainLoop = <Installed as Install>::MainLoop;

/// The table of futures of an OS thread.
pub(crate) type Futures = <Installed as InstallFutures>::Futures;
