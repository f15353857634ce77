//! A value that is handed to one green thread.

use std::cell::{Cell, RefCell};
use std::fmt;

use hub_core::internal::drop_contained;
use hub_core::{Deadline, GreenError, Parker, Unparker, WaitReason};

use crate::error::WaitError;

/// A place where one green thread waits for a value or an error. gevent's `Waiter`.
///
/// It is the lowest form of a wait: [`switch`](Waiter::switch) and [`throw`](Waiter::throw) leave a value or an error,
/// and [`get`](Waiter::get) takes it, whichever comes first. Both may be called from a callback of the loop and from
/// any green thread of the OS thread, and neither switches: the green thread that gets runs later. For other OS threads
/// there is [`Event`].
///
/// [`Event`]: https://docs.rs/greenstd/latest/greenstd/sync/struct.Event.html
///
/// ```
/// use greenhub::gevent::{Waiter, Watcher, event_loop};
/// use std::rc::Rc;
/// use std::time::Duration;
/// let waiter = Rc::new(Waiter::new());
/// let timer = event_loop().timer(Duration::from_millis(1));
/// let sender = Rc::clone(&waiter);
/// timer.start(move |_, ()| sender.switch("hello"))?;
/// assert_eq!(waiter.get()?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Waiter<T> {
    outcome: RefCell<Option<Result<T, GreenError>>>,
    /// Whether a green thread is in `get`.
    is_waiting: Cell<bool>,
    /// The park of that green thread.
    park: Cell<Option<Unparker>>,
}

impl<T> Waiter<T> {
    /// Creates a waiter without a value.
    #[must_use]
    pub fn new() -> Waiter<T> {
        Waiter { outcome: RefCell::default(), is_waiting: Cell::default(), park: Cell::default() }
    }

    /// Waits for the value, and takes it. Switches, unless it is there.
    ///
    /// The waiter can be used again then. gevent's `get` leaves the value, and a second one returns it again.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::Cancelled`] with the error that was thrown, and [`WaitError::ConcurrentUse`] at once if
    /// another green thread waits. Returns an error where the caller cannot wait, such as on the main loop.
    pub fn get(&self) -> Result<T, WaitError> {
        if self.is_waiting.replace(true) {
            return Err(WaitError::ConcurrentUse);
        }
        let _wait = Getting(self);
        loop {
            if let Some(outcome) = self.outcome.take() {
                return outcome.map_err(WaitError::Cancelled);
            }
            let parker = Parker::new(WaitReason::Event)?;
            if !self.is_ready() {
                self.park.set(Some(parker.unparker()));
                parker.park(&mut Deadline::none())?;
            }
        }
    }

    /// Leaves `value` for the green thread that waits, or for the next [`get`](Waiter::get). Does not switch.
    ///
    /// It takes the place of a value or an error that was not taken.
    pub fn switch(&self, value: T) {
        self.finish(Ok(value));
    }

    /// Leaves `error` for the green thread that waits, or for the next [`get`](Waiter::get). Does not switch.
    ///
    /// It takes the place of a value or an error that was not taken.
    pub fn throw(&self, error: GreenError) {
        self.finish(Err(error));
    }

    fn finish(&self, outcome: Result<T, GreenError>) {
        let former = self.outcome.replace(Some(outcome));
        if let Some(park) = self.park.take() {
            park.unpark();
        }
        drop_contained(former);
    }

    /// Drops the value or the error that was not taken. Does not switch.
    pub fn clear(&self) {
        let former = self.outcome.take();
        drop_contained(former);
    }

    /// Returns whether there is a value or an error. gevent's `ready`.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// Returns whether there is a value. gevent's `successful`.
    #[doc(alias = "successful")]
    #[must_use]
    pub fn is_successful(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Ok(_)))
    }
}

/// A wait for the value. `Drop` ends it, however it ends.
struct Getting<'a, T>(&'a Waiter<T>);

impl<T> Drop for Getting<'_, T> {
    fn drop(&mut self) {
        self.0.park.set(None);
        self.0.is_waiting.set(false);
    }
}

impl<T> Default for Waiter<T> {
    fn default() -> Waiter<T> {
        Waiter::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Waiter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Waiter");
        shown.field("waiting", &self.is_waiting.get());
        // The formatter is user code and may switch: nothing is borrowed while it is called.
        let lent = Lent { outcome: self.outcome.take(), waiter: self };
        match &lent.outcome {
            Some(Ok(value)) => shown.field("value", value),
            Some(Err(error)) => shown.field("error", error),
            None => &mut shown,
        };
        shown.finish()
    }
}

/// A value that is lent to a formatter. `Drop` gives it back, unless there is another one by then.
struct Lent<'a, T> {
    outcome: Option<Result<T, GreenError>>,
    waiter: &'a Waiter<T>,
}

impl<T> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take()
            && !self.waiter.is_ready()
        {
            self.waiter.finish(outcome);
        }
    }
}
