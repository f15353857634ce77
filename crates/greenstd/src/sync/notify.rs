mod state;

use std::fmt;
use std::time::Duration;

use hub_core::{BiasedMutex, Deadline, LeftMark, LoopError, ReadyMark, Waitable};

use self::state::State;
use super::wait_error::WaitError;

/// A notification without a value, for one waiter or for all. Tokio's `Notify`.
///
/// It holds at most one permit. [`notify_one`](Notify::notify_one) wakes the first waiter, or stores the permit for the
/// next wait. So a waiter that checks some state and then waits misses no notification of it, however many came
/// meanwhile. [`notify_waiters`](Notify::notify_waiters) wakes the present waiters and stores nothing: a caller on
/// another OS thread may miss it between its check and its wait. For a state that all see, use a
/// [`watch`](super::watch) channel or an [`Event`](super::Event).
///
/// Waiters are woken in FIFO order. A notification of one waiter whose wait fails goes to the next waiter, or becomes
/// the permit. An exit that comes after the notification strikes at the next wait of its receiver.
///
/// Green threads of any hub and plain OS threads may share it: it is `Send + Sync`.
///
/// ```
/// use greenhub::sync::{Mutex, Notify};
/// use std::collections::VecDeque;
/// use std::sync::Arc;
/// let shared = Arc::new((Mutex::new(VecDeque::new()), Notify::new()));
/// let other = shared.clone();
/// greenhub::thread::spawn(move || {
///     other.0.lock().unwrap().push_back("item");
///     other.1.notify_one();
/// });
/// let item = loop {
///     if let Some(item) = shared.0.lock().unwrap().pop_front() {
///         break item;
///     }
///     shared.1.wait()?;
/// };
/// assert_eq!(item, "item");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Notify {
    state: BiasedMutex<State>,
}

impl Notify {
    /// Creates a notification without a permit.
    #[must_use]
    pub const fn new() -> Notify {
        Notify { state: BiasedMutex::new(State::new()) }
    }

    /// Wakes the first waiter, or stores a permit for the next wait. Does not switch.
    ///
    /// A second permit is not stored.
    pub fn notify_one(&self) {
        self.state.lock().notify_one();
    }

    /// Wakes all present waiters. Does not switch.
    ///
    /// It stores no permit, and leaves a stored one.
    pub fn notify_waiters(&self) {
        self.state.lock().notify_waiters();
    }

    /// Waits for a notification, and returns at once with a stored permit. Switches.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error.
    #[doc(alias = "notified")]
    pub fn wait(&self) -> Result<(), LoopError> {
        self.wait_within(Deadline::none()).map_err(WaitError::without_limit)
    }

    /// Like [`wait`](Notify::wait), for at most `timeout`. Switches.
    ///
    /// A timeout of zero lets other green threads run once.
    ///
    /// ```
    /// use greenhub::sync::{Notify, WaitError};
    /// use std::time::Duration;
    /// let notify = Notify::new();
    /// assert!(matches!(notify.wait_timeout(Duration::from_millis(1)), Err(WaitError::TimedOut)));
    /// notify.notify_one();
    /// notify.wait_timeout(Duration::from_millis(1))?;
    /// # Ok::<(), WaitError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::TimedOut`] if no notification came in time, or an error of [`wait`](Notify::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), WaitError> {
        self.wait_within(Deadline::from(timeout))
    }

    fn wait_within(&self, mut deadline: Deadline) -> Result<(), WaitError> {
        Ok(state::wait(&self.state, &mut deadline)?)
    }

    /// Takes the permit if one is stored. Does not switch.
    #[must_use]
    pub fn try_wait(&self) -> bool {
        self.state.lock().take_permit()
    }
}

/// A notification is ready when a permit is stored. The waiter gets none, and takes it by
/// [`try_wait`](Notify::try_wait).
///
/// Callers that wait for a notification alone come first. [`notify_waiters`](Notify::notify_waiters) does not make it
/// ready, since it leaves nothing to take.
impl Waitable for Notify {
    fn is_ready(&self) -> bool {
        self.state.lock().has_permit()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.state.lock();
        let is_ready = state.has_permit();
        state.waiting.leave(mark, is_ready)
    }

    fn take_back(&self, left: LeftMark) {
        self.state.lock().waiting.take_back(&left);
    }
}

impl Default for Notify {
    fn default() -> Notify {
        Notify::new()
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let (permit, waiting) = (state.has_permit(), state.waiting());
        // The formatter is user code and may switch: hold no lock while calling it.
        drop(state);
        f.debug_struct("Notify").field("permit", &permit).field("waiting", &waiting).finish()
    }
}
