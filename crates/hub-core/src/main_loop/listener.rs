//! Callbacks of the main loop, for descriptors and for timers.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::hub::Readiness;

/// A callback for a ready or closed descriptor. Eventlet's listener.
///
/// [`HubRef::listen`](crate::HubRef::listen) registers it. It runs in the main loop, so it must not block: a blocking
/// call in it is an error. It may register, cancel and drop registrations, including its own. If it panics, the panic
/// is reported, the listener is deregistered and its descriptor is dropped. The loop goes on, and a waiter in the other
/// direction keeps waiting.
///
/// It is called in every turn in which the descriptor is still ready, and such a turn does not sleep. For a descriptor
/// that no operation makes unready, such as a socket with an entry in its error queue, a listener should drop its
/// registration and register again from a timer.
///
/// Closures that take a [`Readiness`] are listeners, and so are `Rc`s of listeners. A closure that changes its captures
/// is a listener within a [`RefCell`].
///
/// ```
/// use greenhub::{Interest, get_hub, sleep};
/// use greenhub::hub::{Listener, Readiness};
/// use std::os::fd::RawFd;
/// use std::time::Duration;
///
/// struct Announce;
///
/// impl Listener for Announce {
///     fn ready(&self, fd: RawFd, readiness: Readiness) {
///         println!("descriptor {fd}: {readiness:?}");
///     }
/// }
///
/// let (reader, writer) = std::io::pipe()?;
/// let _registration = get_hub().listen(reader, Interest::READ, Announce)?;
/// drop(writer);
/// sleep(Duration::from_millis(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "FdListener")]
#[doc(alias = "watcher")]
pub trait Listener {
    /// Called when the descriptor is ready. `readiness` has the ready directions.
    fn ready(&self, fd: RawFd, readiness: Readiness);

    /// Called when the descriptor was closed, or its number was given to another file. No further call follows.
    ///
    /// It runs in the main loop like [`ready`](Listener::ready), after the call that has closed the descriptor.
    fn closed(&self, fd: RawFd) {
        let _ = fd;
    }
}

impl<F: Fn(Readiness)> Listener for F {
    fn ready(&self, _fd: RawFd, readiness: Readiness) {
        self(readiness);
    }
}

/// Borrows the closure while it runs.
impl<F: FnMut(Readiness)> Listener for RefCell<F> {
    fn ready(&self, _fd: RawFd, readiness: Readiness) {
        (self.borrow_mut())(readiness);
    }
}

impl<L: Listener + ?Sized> Listener for Rc<L> {
    fn ready(&self, fd: RawFd, readiness: Readiness) {
        (**self).ready(fd, readiness);
    }

    fn closed(&self, fd: RawFd) {
        (**self).closed(fd);
    }
}

/// A callback for an expired timer. Eventlet's timer.
///
/// [`HubRef::schedule`](crate::HubRef::schedule) arms it. It runs in the main loop, so it must not block: a blocking
/// call in it is an error. A panic is reported, and the loop goes on. It is called once each time that it is scheduled.
/// An `Rc` of a timer may be scheduled several times, also by itself. Closures are timers. A closure that changes its
/// captures is a timer within a [`RefCell`]; [`HubRef::schedule_once`](crate::HubRef::schedule_once) takes one that can
/// be called only once.
///
/// ```
/// use greenhub::{get_hub, sleep};
/// use greenhub::hub::Timer;
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use std::time::Duration;
///
/// struct Countdown(Cell<u32>);
///
/// impl Timer for Countdown {
///     fn expired(&self) {
///         self.0.set(self.0.get() - 1);
///     }
/// }
///
/// let countdown = Rc::new(Countdown(Cell::new(2)));
/// for _ in 0..2 {
///     get_hub().schedule(Duration::from_millis(1), Rc::clone(&countdown));
/// }
/// sleep(Duration::from_millis(5));
/// assert_eq!(countdown.0.get(), 0);
/// ```
pub trait Timer {
    /// Called when the deadline has passed.
    fn expired(&self);

    /// Called when an [abort](crate::HubRef::abort) of the loop has discarded the timer. Does nothing by default.
    ///
    /// It runs in the main loop, like [`expired`](Timer::expired). A timer that it schedules belongs to the next loop.
    fn aborted(&self) {}
}

impl<T: Timer + ?Sized> Timer for Rc<T> {
    fn expired(&self) {
        (**self).expired();
    }

    fn aborted(&self) {
        (**self).aborted();
    }
}

/// Borrows the closure while it runs.
impl<F: FnMut()> Timer for RefCell<F> {
    fn expired(&self) {
        (self.borrow_mut())();
    }
}

impl<F: Fn()> Timer for F {
    fn expired(&self) {
        self();
    }
}
