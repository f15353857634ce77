use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hub_core::{BiasedMutex, Deadline, GreenError, LeftMark, ReadyMark, WaitReason, Waitable};

use super::wait_queue::{Unserved, Wait, WaitQueue};
use super::waiters::Waiters;

/// A result that is sent once and given to every waiter, now or later. Eventlet's `Event`.
///
/// Waiters are woken in FIFO order and run later. Sending never switches, so timers, listeners and destructors may
/// send. An event that was [`reset`](Event::reset) can be sent again; earlier waiters keep the result that was sent to
/// them.
///
/// Green threads of any hub and plain OS threads may share an event. It is `Send + Sync` if `T` is, because each waiter
/// makes its own clone of the value.
///
/// ```
/// use greenhub::sync::Event;
/// use std::sync::Arc;
/// let event = Arc::new(Event::new());
/// let sender = event.clone();
/// greenhub::thread::spawn(move || sender.send(42));
/// assert_eq!(event.wait()?, 42);
/// assert_eq!(event.wait()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "AsyncResult")]
pub struct Event<T> {
    state: BiasedMutex<State<T>>,
}

struct State<T> {
    round: Arc<Round<T>>,
    waiting: Waiters,
}

/// The time from one reset to the next. A waiter holds its round, so that a reset takes nothing from granted waiters.
type Round<T> = OnceLock<Result<T, GreenError>>;

/// The reason why a call of [`Event`] was refused.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The event was sent, and not reset since.
    #[error("the event was sent before: reset it to send it again")]
    Sent,
    /// The event was not sent since it was created or reset.
    #[error("the event is fresh: it can be reset once it was sent")]
    Fresh,
}

/// The wait for the result. The result is for all waiters: there is nothing to regrant.
struct EventWait<T>(PhantomData<T>);

impl<T> Wait for EventWait<T> {
    type State = State<T>;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Event;

    fn queue(state: &mut State<T>) -> &mut WaitQueue {
        &mut state.waiting.queue
    }

    fn regrant(_: &mut State<T>) {}
}

impl<T> Event<T> {
    /// Creates an event that was not sent.
    #[must_use]
    pub fn new() -> Event<T> {
        Event { state: BiasedMutex::new(State { round: Arc::default(), waiting: Waiters::new() }) }
    }

    /// Sends `value` to all present and future waiters, which run later. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`EventError::Sent`] if the event was sent before; `value` is dropped.
    #[doc(alias = "set")]
    pub fn send(&self, value: T) -> Result<(), EventError> {
        self.finish(Ok(value))
    }

    /// Makes all present and future waits fail with `error`. Does not switch.
    ///
    /// Eventlet's `send_exception`.
    ///
    /// # Errors
    ///
    /// Returns [`EventError::Sent`] if the event was sent before; `error` is dropped.
    #[doc(alias = "send_exception")]
    #[doc(alias = "set_exception")]
    pub fn send_error(&self, error: GreenError) -> Result<(), EventError> {
        self.finish(Err(error))
    }

    fn finish(&self, result: Result<T, GreenError>) -> Result<(), EventError> {
        let mut state = self.state.lock();
        let sent = state.round.set(result);
        if sent.is_ok() {
            state.waiting.grant_all();
        }
        drop(state);
        sent.map_err(|_| EventError::Sent)
    }

    /// Discards the result, so that the next call of `wait` waits. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`EventError::Fresh`] if nothing was sent.
    pub fn reset(&self) -> Result<(), EventError> {
        let mut state = self.state.lock();
        if state.round.get().is_none() {
            return Err(EventError::Fresh);
        }
        let old = std::mem::take(&mut state.round);
        drop(state);
        drop(old);
        Ok(())
    }

    /// Returns true if a wait would return at once. Does not switch.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.round().get().is_some()
    }

    /// Returns true if a value was sent. Does not switch.
    #[must_use]
    pub fn has_result(&self) -> bool {
        matches!(self.round().get(), Some(Ok(_)))
    }

    /// Returns true if an error was sent, Eventlet's `has_exception`. Does not switch.
    #[doc(alias = "has_exception")]
    #[must_use]
    pub fn has_error(&self) -> bool {
        matches!(self.round().get(), Some(Err(_)))
    }

    /// Returns the number of waiters. Does not switch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let state = self.state.lock();
        state.waiting.queue.len() + state.waiting.marks.len()
    }

    fn round(&self) -> Arc<Round<T>> {
        Arc::clone(&self.state.lock().round)
    }
}

impl<T: Clone> Event<T> {
    /// Waits for the result, and returns at once if it was sent. Switches if it waits.
    ///
    /// # Errors
    ///
    /// Returns the error that was sent. Returns [`GreenError::Loop`] where the caller may not wait (in the main loop,
    /// while panicking), and if the main loop ends the wait of the main greenlet by an error.
    #[doc(alias = "get")]
    pub fn wait(&self) -> Result<T, GreenError> {
        self.wait_within(Deadline::none())
    }

    /// Like [`wait`](Event::wait), for at most `timeout`. Switches if it waits.
    ///
    /// A timeout does not change the event. A timeout of zero lets other green threads run once.
    ///
    /// ```
    /// use greenhub::GreenError;
    /// use greenhub::sync::Event;
    /// use std::time::Duration;
    /// let event: Event<()> = Event::new();
    /// assert!(event.poll().is_none(), "not now");
    /// assert!(matches!(event.wait_timeout(Duration::from_millis(1)), Err(GreenError::TimedOut)));
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`GreenError::TimedOut`] if the event was not sent in time, or an error of [`wait`](Event::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<T, GreenError> {
        self.wait_within(Deadline::from(timeout))
    }

    fn wait_within(&self, mut deadline: Deadline) -> Result<T, GreenError> {
        let mut round = None;
        let sent = EventWait::wait(&self.state, &mut deadline, (), |state, ungranted| {
            let round = round.get_or_insert_with(|| Arc::clone(&state.round));
            if ungranted.is_none() || round.get().is_some() { Ok(()) } else { Err(()) }
        });
        match sent {
            // A result that was sent at the deadline counts.
            Ok(()) | Err(Unserved::TimedOut(())) => {
                round.and_then(|round| round.get().cloned()).unwrap_or(Err(GreenError::TimedOut))
            }
            Err(Unserved::Failed(error, _)) => Err(error.into()),
        }
    }

    /// Returns the result, if it was sent. Does not switch.
    #[must_use]
    pub fn poll(&self) -> Option<Result<T, GreenError>> {
        self.round().get().cloned()
    }

    /// Returns the value, if one was sent. Does not switch.
    #[must_use]
    pub fn poll_result(&self) -> Option<T> {
        self.poll()?.ok()
    }

    /// Returns the error, if one was sent. Eventlet's `poll_exception`. Does not switch.
    #[doc(alias = "poll_exception")]
    #[must_use]
    pub fn poll_error(&self) -> Option<GreenError> {
        match self.round().get() {
            Some(Err(error)) => Some(error.clone()),
            _ => None,
        }
    }
}

/// An event is ready when it was sent. A later reset does not undo this for present waiters.
impl<T> Waitable for Event<T> {
    fn is_ready(&self) -> bool {
        self.ready()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        let mut state = self.state.lock();
        let is_ready = state.round.get().is_some();
        state.waiting.leave(mark, is_ready)
    }

    fn take_back(&self, left: LeftMark) {
        self.state.lock().waiting.take_back(&left);
    }
}

impl<T> Default for Event<T> {
    fn default() -> Event<T> {
        Event::new()
    }
}

impl<T> fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter is user code and may switch: each call releases the lock before its value is written.
        f.debug_struct("Event").field("ready", &self.ready()).field("waiting", &self.waiting()).finish()
    }
}
