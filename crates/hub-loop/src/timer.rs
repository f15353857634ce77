//! Watchers of time.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::time::Duration;

use hub_core::hub::Time;
use hub_core::internal::schedule_shared;
use hub_core::{TimerHandle, WaitReason};

use crate::error::WatcherError;
use crate::node::{Kind, Node};
use crate::state::State;
use crate::watcher::Watch;

/// A watcher of time. gevent's `loop.timer`.
///
/// Made by [`Loop::timer`](crate::Loop::timer), to fire once, and [`Loop::repeating`](crate::Loop::repeating). A timer
/// without a period stops before its callback is called. A timer with a period does not drift: the next call is due one
/// period after the last one was. Periods that have passed by then are skipped.
///
/// ```
/// use greenhub::gevent::{Watcher, event_loop};
/// use std::time::Duration;
/// let timer = event_loop().timer(Duration::from_millis(1));
/// timer.wait(None)?; // a green thread waits in place of a callback
/// assert!(!timer.is_active());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Timer = Watch<TimerKind>;

/// The part of a [`Timer`] that other watchers do not have.
pub struct TimerKind {
    after: Cell<Duration>,
    /// The period; zero for a timer that fires once.
    every: Cell<Duration>,
    due: Cell<Time>,
    armed: RefCell<Option<TimerHandle>>,
    expiry: OnceCell<Rc<dyn hub_core::Timer>>,
}

impl Timer {
    /// Creates a timer.
    pub(crate) fn of(state: Rc<State>, after: Duration, every: Duration) -> Timer {
        Watch::new(Node::new(
            state,
            TimerKind {
                after: Cell::new(after),
                every: Cell::new(every),
                due: Cell::default(),
                armed: RefCell::default(),
                expiry: OnceCell::new(),
            },
        ))
    }

    /// Returns the period; zero for a timer that fires once. Does not switch. libev's `repeat`.
    #[doc(alias = "repeat")]
    #[must_use]
    pub fn every(&self) -> Duration {
        self.node().kind.every.get()
    }

    /// Sets the period, from the next call on. Does not switch. With zero the timer fires once.
    pub fn set_every(&self, every: Duration) {
        let node = self.node();
        let kind = &node.kind;
        kind.every.set(every);
        // The call of an expiry without a period is pending: the timer goes on after it.
        if !every.is_zero() && node.is_active() && kind.armed.borrow().is_none() {
            kind.schedule_next(node);
        }
    }

    /// Starts or restarts the timer, with its period as the delay. Does not switch.
    ///
    /// A call that is pending is put off, too. A timer without a period stops. `callback` takes the place of the former
    /// one; [`restart`](Timer::restart) keeps it. gevent's `timer.again`.
    ///
    /// # Errors
    ///
    /// The same as [`start`](crate::Watcher::start).
    #[doc(alias = "ev_timer_again")]
    #[track_caller]
    pub fn again(&self, callback: impl FnMut(&Timer, ()) + 'static) -> Result<(), WatcherError> {
        let node = self.node();
        node.check_unwaited()?;
        if self.every().is_zero() {
            return node.check_open().map(|()| node.stop());
        }
        self.rearm()?;
        node.set_callback(Box::new(callback), Location::caller());
        Ok(())
    }

    /// Starts or restarts the timer with the callback that it has, and with its period as the delay. Does not switch.
    ///
    /// It is [`again`](Timer::again) without a new callback, and does not allocate: a timer of inactivity is put off by
    /// each activity. libev's `ev_timer_again`.
    ///
    /// ```
    /// use greenhub::gevent::{Run, Watcher, event_loop};
    /// use std::time::Duration;
    /// let idle = event_loop().repeating(Duration::ZERO, Duration::from_secs(60));
    /// idle.again(|_, ()| println!("nothing has happened for a minute"))?;
    /// idle.restart()?; // something has happened
    /// idle.stop();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`resume`](crate::Watcher::resume).
    #[doc(alias = "ev_timer_again")]
    pub fn restart(&self) -> Result<(), WatcherError> {
        let node = self.node();
        node.check_restart()?;
        if self.every().is_zero() {
            node.stop();
            return Ok(());
        }
        self.rearm()?;
        node.resume()
    }

    /// Starts the timer, or puts it off, with its period as the delay.
    fn rearm(&self) -> Result<(), WatcherError> {
        let node = self.node();
        let kind = &node.kind;
        // An expiry whose call has not come is put off, too.
        node.drop_event();
        if node.is_active() {
            kind.schedule(node, node.state.hub().now() + kind.every.get());
            return Ok(());
        }
        let after = kind.after.replace(kind.every.get());
        let started = node.activate();
        kind.after.set(after);
        started
    }
}

impl TimerKind {
    /// Arms the timer of the hub, in place of an armed one.
    fn schedule(&self, node: &Rc<Node<TimerKind>>, due: Time) {
        let expiry = self.expiry.get_or_init(|| Rc::new(Expiry(Rc::downgrade(node))));
        self.due.set(due);
        let armed = schedule_shared(due, Rc::clone(expiry));
        armed.set_counted(node.is_counted());
        if let Some(former) = self.armed.replace(Some(armed)) {
            former.cancel();
        }
    }

    /// Takes an expiry in, and arms the next one.
    fn expire(&self, node: &Rc<Node<TimerKind>>) {
        self.armed.take();
        if !self.every.get().is_zero() {
            self.schedule_next(node);
        }
        node.set_pending(());
    }

    /// Arms the timer of the hub for the next period.
    fn schedule_next(&self, node: &Rc<Node<TimerKind>>) {
        self.schedule(node, next_due(self.due.get(), self.every.get(), node.state.hub().cached_now()));
    }
}

/// Returns the first instant after `now` that is a whole number of periods after `due`.
fn next_due(due: Time, every: Duration, now: Time) -> Time {
    let late = (now - due).as_nanos();
    let missed = late / every.as_nanos() + 1;
    due + Duration::from_nanos(u64::try_from(missed * every.as_nanos()).unwrap_or(u64::MAX))
}

impl fmt::Debug for TimerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(Self::NAME);
        self.describe(&mut shown);
        shown.finish_non_exhaustive()
    }
}

impl Kind for TimerKind {
    type Event = ();

    const NAME: &'static str = "Timer";
    const REASON: WaitReason = WaitReason::Timer;

    fn arm(&self, node: &Rc<Node<TimerKind>>) -> Result<(), WatcherError> {
        self.schedule(node, node.state.hub().now() + self.after.get());
        Ok(())
    }

    fn disarm(&self, _: &Node<TimerKind>) {
        if let Some(armed) = self.armed.take() {
            armed.cancel();
        }
    }

    fn stays_active(&self) -> bool {
        // An event of the program leaves the timer armed.
        self.armed.borrow().is_some()
    }

    fn set_counted(&self, _: &Node<TimerKind>, counted: bool) {
        if let Some(armed) = &*self.armed.borrow() {
            armed.set_counted(counted);
        }
    }

    fn describe(&self, shown: &mut fmt::DebugStruct<'_, '_>) {
        shown.field("after", &self.after.get()).field("every", &self.every.get());
    }
}

/// The expiry of a timer. It runs no callback.
struct Expiry(Weak<Node<TimerKind>>);

impl hub_core::Timer for Expiry {
    fn expired(&self) {
        if let Some(node) = self.0.upgrade() {
            node.kind.expire(&node);
        }
    }

    fn aborted(&self) {
        if let Some(node) = self.0.upgrade() {
            node.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_call_is_a_whole_number_of_periods_later() {
        let at = |millis| Time::default() + Duration::from_millis(millis);
        let next = |due, now| next_due(at(due), Duration::from_millis(10), at(now));
        assert_eq!([next(5, 5), next(5, 14), next(5, 15), next(5, 99)], [at(15), at(15), at(25), at(105)]);
    }
}
