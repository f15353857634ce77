//! The handles of watchers, and the methods that all kinds have.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use hub_core::{Deadline, GreenError, LeftMark, Parked, Parker, ReadyMark, Waitable};

use crate::cancel::call_later;
use crate::error::{WaitError, WatcherError};
use crate::node::{Kind, Node};
use crate::state::Priority;

/// A watcher of one kind, such as [`Io`](crate::Io) or [`Timer`](crate::Timer). Its methods are those of [`Watcher`].
///
/// Dropping it closes the watcher.
#[must_use = "the watcher is closed when this is dropped"]
pub struct Watch<K: Kind> {
    node: Rc<Node<K>>,
    /// Whether the drop of this value closes the watcher: a callback gets a view of its watcher.
    is_owner: bool,
}

impl<K: Kind> Watch<K> {
    pub(crate) fn new(node: Rc<Node<K>>) -> Watch<K> {
        Watch { node, is_owner: true }
    }

    pub(crate) fn view(node: Rc<Node<K>>) -> Watch<K> {
        Watch { node, is_owner: false }
    }

    pub(crate) fn node(&self) -> &Rc<Node<K>> {
        &self.node
    }
}

impl<K: Kind> Drop for Watch<K> {
    fn drop(&mut self) {
        if self.is_owner {
            self.node.close();
        }
    }
}

impl<K: Kind> fmt::Debug for Watch<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.node, f)
    }
}

/// A watcher is ready when an event has come whose callback was not called, when it was closed, and when its hub is
/// gone.
///
/// A watcher that is not active is started for the wait and stopped after it, as by [`Watcher::wait`]. If it cannot be
/// started, it is ready, and a [`start`](Watcher::start) returns the reason. With the watcher its event is given, so a
/// watcher that was given is not ready any more. If a watcher was not given, an async watcher, a signal, a child, a
/// file and a fork keep their event for the next wait. A timer begins anew then, a descriptor is looked at anew, and
/// the other phases come again.
impl<K: Kind> Waitable for Watch<K> {
    fn is_ready(&self) -> bool {
        self.node.is_pending() || self.node.is_closed() || !self.node.state.is_current()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        self.node.leave(mark)
    }

    fn take_back(&self, left: LeftMark) {
        self.node.take_back(&left);
    }

    fn give(&self, left: LeftMark) {
        self.node.give(&left);
    }
}

pub(crate) mod sealed {
    use std::rc::Rc;

    use hub_core::GreenError;

    use crate::error::WaitError;
    use crate::node::{Kind, Node};

    pub trait Sealed {
        /// Closes the watcher. Returns the wait of a green thread for it, which goes on.
        fn close_during_wait(&self) -> Option<Box<dyn Cancel>>;
    }

    /// The wait of a green thread for a watcher of any kind.
    pub trait Cancel {
        /// Ends the wait with an error, unless it has ended.
        fn cancel(&self, error: &GreenError);
    }

    impl<K: Kind> Sealed for super::Watch<K> {
        fn close_during_wait(&self) -> Option<Box<dyn Cancel>> {
            let node = self.node();
            node.close_during_wait().then(|| Box::new(Rc::clone(node)) as Box<dyn Cancel>)
        }
    }

    impl<K: Kind> Cancel for Rc<Node<K>> {
        fn cancel(&self, error: &GreenError) {
            self.end_wait(|| WaitError::Cancelled(error.clone()));
        }
    }
}

/// A watcher of any kind, for functions that take several.
///
/// This trait is sealed: only the watchers of this crate implement it.
pub trait AnyWatcher: sealed::Sealed + fmt::Debug {}

impl<K: Kind> AnyWatcher for Watch<K> {}

/// The methods of every watcher.
///
/// This trait is sealed: only the watchers of this crate implement it.
pub trait Watcher: sealed::Sealed + fmt::Debug + Sized {
    /// The event that the callback gets.
    type Event;

    /// Calls `callback` for each event, from the main loop. Does not switch. gevent's `watcher.start`.
    ///
    /// The callback gets the watcher itself and the event. It may start, stop and close watchers, its own included. If
    /// the watcher is active already, the callback takes the place of the former one, and the schedule stays. If the
    /// callback panics, that is reported, and the watcher stays active; an [`Io`](crate::Io) is closed.
    ///
    /// # Errors
    ///
    /// Returns an error, and starts nothing, if the watcher was closed, if its hub was replaced, or if the hub refuses
    /// the descriptor. Returns [`WatcherError::Waited`] while a green thread [waits](Watcher::wait) for the watcher.
    #[track_caller]
    fn start(&self, callback: impl FnMut(&Self, Self::Event) + 'static) -> Result<(), WatcherError>;

    /// Starts a stopped watcher with the callback that it has. Does not switch, and does not allocate.
    ///
    /// # Errors
    ///
    /// The same as [`start`](Watcher::start), and [`WatcherError::NoCallback`] if it was never started.
    fn resume(&self) -> Result<(), WatcherError>;

    /// Stops the watcher: its callback is not called any more. Does not switch. gevent's `watcher.stop`.
    ///
    /// An event that has come and was not delivered is dropped. A green thread that [waits](Watcher::wait) for the
    /// watcher gets [`WaitError::Stopped`] in a later turn, unless its event was delivered before. For an
    /// [`iwait`](crate::iwait) the watcher is ready then, since no event of it will come.
    fn stop(&self);

    /// Stops the watcher for good, and drops its callback. Does not switch. gevent's `watcher.close`.
    ///
    /// A green thread that [waits](Watcher::wait) for it gets [`WaitError::Closed`] in a later turn.
    fn close(&self);

    /// Delivers `event` as if it had happened, also to a watcher that was not started. Does not switch.
    ///
    /// The callback is called before the next wait of the loop; after it, if it was called since the last one. Nothing
    /// else changes: a timer that fires once stays armed, and a child is not reaped. gevent's `watcher.feed`.
    fn feed(&self, event: Self::Event);

    /// Returns whether the watcher was started, and neither stopped nor closed. gevent's `watcher.active`.
    ///
    /// Does not switch.
    #[doc(alias = "active")]
    fn is_active(&self) -> bool;

    /// Returns whether an event has come whose callback was not called. gevent's `watcher.pending`.
    ///
    /// Does not switch.
    #[doc(alias = "pending")]
    fn is_pending(&self) -> bool;

    /// Sets whether the active watcher keeps the loop alive. Does not switch. gevent's `ref`.
    ///
    /// It is on by default.
    #[doc(alias = "ref")]
    fn set_counted(&self, counted: bool);

    /// Returns whether the active watcher keeps the loop alive. Does not switch.
    #[doc(alias = "ref")]
    fn is_counted(&self) -> bool;

    /// Sets the priority. Does not switch. gevent's `watcher.priority`.
    ///
    /// If a stopped watcher is [pending](Watcher::is_pending), it is called after those of its new priority that are
    /// pending already.
    ///
    /// # Errors
    ///
    /// Returns [`WatcherError::Active`] while the watcher is active.
    fn set_priority(&self, priority: Priority) -> Result<(), WatcherError>;

    /// Returns the priority. Does not switch.
    fn priority(&self) -> Priority;

    /// Starts the watcher, waits for one event and stops it. Switches. gevent's `hub.wait`.
    ///
    /// An event that has come is never lost with the wait. It is returned even if `limit` has elapsed in the same turn.
    /// If the caller is killed or a timeout strikes, a wake-up, a signal, a fork or a change of a file goes to the next
    /// wait or callback of the watcher, unless [`stop`](Watcher::stop) drops it. A descriptor that is still ready is
    /// reported anew then, and the status of a child is kept, too. A timer begins anew, and the other phases come
    /// again.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::ConcurrentUse`] at once if the watcher is in use, [`WaitError::TimedOut`] if `limit`
    /// elapses, [`WatcherError::HubDestroyed`] if the hub is replaced meanwhile, [`WaitError::Stopped`] or
    /// [`WaitError::Closed`] if the watcher is stopped or closed during the wait, and [`WaitError::Cancelled`] after
    /// [`cancel_wait`](Watcher::cancel_wait). Returns an error if the watcher cannot be started, or where the caller
    /// cannot wait, such as on the main loop.
    #[doc(alias = "wait_on_watcher")]
    fn wait(&self, limit: impl Into<Option<Duration>>) -> Result<Self::Event, WaitError>;

    /// Ends the wait of a green thread with `error`, in a later turn. Does not switch. gevent's `hub.cancel_wait`.
    ///
    /// Returns false if no green thread waits. A wait that has ended by then is not disturbed.
    ///
    /// ```
    /// use greenhub::GreenError;
    /// use greenhub::gevent::{Watcher, event_loop};
    /// use std::rc::Rc;
    /// use std::time::Duration;
    /// let timer = Rc::new(event_loop().timer(Duration::from_secs(3600)));
    /// let watcher = Rc::clone(&timer);
    /// let waiting = greenhub::spawn(move || watcher.wait(None));
    /// greenhub::thread::yield_now();
    /// assert!(timer.cancel_wait(GreenError::custom("it takes too long")));
    /// assert!(waiting.join()?.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn cancel_wait(&self, error: GreenError) -> bool;
}

impl<K: Kind> Watcher for Watch<K> {
    type Event = K::Event;

    #[track_caller]
    fn start(&self, callback: impl FnMut(&Self, K::Event) + 'static) -> Result<(), WatcherError> {
        self.node.check_unwaited()?;
        self.node.activate()?;
        self.node.set_callback(Box::new(callback), Location::caller());
        Ok(())
    }

    fn resume(&self) -> Result<(), WatcherError> {
        self.node.resume()
    }

    fn stop(&self) {
        self.node.stop();
    }

    fn close(&self) {
        self.node.close();
    }

    fn feed(&self, event: K::Event) {
        self.node.feed(event);
    }

    fn is_active(&self) -> bool {
        self.node.is_active()
    }

    fn is_pending(&self) -> bool {
        self.node.is_pending()
    }

    fn set_counted(&self, counted: bool) {
        self.node.set_counted(counted);
    }

    fn is_counted(&self) -> bool {
        self.node.is_counted()
    }

    fn set_priority(&self, priority: Priority) -> Result<(), WatcherError> {
        self.node.set_priority(priority)
    }

    fn priority(&self) -> Priority {
        self.node.priority()
    }

    fn wait(&self, limit: impl Into<Option<Duration>>) -> Result<K::Event, WaitError> {
        let mut deadline = Deadline::from(limit.into());
        let wait = self.node.begin_wait()?;
        loop {
            let parker = Parker::new(K::REASON)
                .map_err(|error| error.with_operation(|| format!("waiting for {:?}", self.node)))?;
            let parked =
                if wait.parks_by(parker.unparker()) { parker.park(&mut deadline) } else { Ok(Parked::Unparked) };
            // An event that has come counts before the limit and before an error of the loop.
            match wait.take_outcome() {
                Some(outcome) => return outcome,
                None if parked? == Parked::TimedOut => return Err(WaitError::TimedOut),
                None => {}
            }
        }
    }

    fn cancel_wait(&self, error: GreenError) -> bool {
        let Some(waiter) = self.node.waiter() else { return false };
        let node = Rc::downgrade(&self.node);
        call_later(move || {
            if let Some(node) = node.upgrade()
                && node.waiter() == Some(waiter)
            {
                node.end_wait(|| WaitError::Cancelled(error));
            }
        });
        true
    }
}
