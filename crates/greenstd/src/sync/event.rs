use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hub_core::{BiasedMutex, Deadline, GreenError, WaitReason};

use super::line::{Ended, Line, Wait};

/// A result that is sent once and given to everybody who waits for it, now or later. Eventlet's `Event`.
///
/// Whoever waits is woken in the order in which they came, and runs later: sending never switches, so timers,
/// listeners and destructors may send. One that was [`reset`](Event::reset) can be sent again; those who waited
/// before keep what was sent to them.
///
/// Green threads of any hub and plain OS threads may share one: it is `Send + Sync` if `T` is, for its clones are
/// made by whoever waits.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::sync::Event;
/// use std::sync::Arc;
/// let event = Arc::new(Event::new());
/// let sender = event.clone();
/// greenstd::thread::spawn(move || sender.send(42));
/// assert_eq!(event.wait()?, 42);
/// assert_eq!(event.wait()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Event<T> {
    state: BiasedMutex<State<T>>,
}

struct State<T> {
    round: Arc<Round<T>>,
    waiting: Line,
}

/// From one reset to the next. Whoever waits holds it, so that a reset takes nothing from those who were woken.
type Round<T> = OnceLock<Result<T, GreenError>>;

/// Why an [`Event`] refused something.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// It was sent, and not reset since.
    #[error("the event was sent before: reset it to send it again")]
    Sent,
    /// It was not sent since it was made or reset.
    #[error("the event is fresh: it can be reset once it was sent")]
    Fresh,
}

/// For what is sent, which is for everybody: there is nothing to pass on.
struct ToBeSent<T>(PhantomData<T>);

impl<T> Wait for ToBeSent<T> {
    type State = State<T>;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Event;

    fn line(state: &mut State<T>) -> &mut Line {
        &mut state.waiting
    }

    fn pass_on(_: &mut State<T>) {}
}

impl<T> Event<T> {
    /// One that was not sent.
    #[must_use]
    pub fn new() -> Event<T> {
        Event { state: BiasedMutex::new(State { round: Arc::default(), waiting: Line::default() }) }
    }

    /// Gives `value` to all who wait and will wait. Does not switch: they run later.
    ///
    /// # Errors
    ///
    /// [`EventError::Sent`] if something was sent before; `value` is dropped.
    pub fn send(&self, value: T) -> Result<(), EventError> {
        self.finish(Ok(value))
    }

    /// Has all waits fail with `error`, those that begin later too. Eventlet's `send_exception`. Does not switch.
    ///
    /// # Errors
    ///
    /// [`EventError::Sent`] if something was sent before.
    pub fn send_error(&self, error: GreenError) -> Result<(), EventError> {
        self.finish(Err(error))
    }

    fn finish(&self, result: Result<T, GreenError>) -> Result<(), EventError> {
        let mut state = self.state.lock();
        let sent = state.round.set(result);
        if sent.is_ok() {
            while state.waiting.choose() {}
        }
        drop(state);
        sent.map_err(|_| EventError::Sent)
    }

    /// Forgets what was sent, so that the next wait waits. Does not switch.
    ///
    /// # Errors
    ///
    /// [`EventError::Fresh`] if nothing was sent.
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

    /// Whether a wait would return at once. Does not switch.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.round().get().is_some()
    }

    /// Whether a value was sent. Does not switch.
    #[must_use]
    pub fn has_result(&self) -> bool {
        matches!(self.round().get(), Some(Ok(_)))
    }

    /// Whether an error was sent. Eventlet's `has_exception`. Does not switch.
    #[must_use]
    pub fn has_error(&self) -> bool {
        matches!(self.round().get(), Some(Err(_)))
    }

    /// How many wait. Does not switch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    fn round(&self) -> Arc<Round<T>> {
        Arc::clone(&self.state.lock().round)
    }
}

impl<T: Clone> Event<T> {
    /// Waits for what is sent; returns at once if that has happened. Switches if not.
    ///
    /// # Errors
    ///
    /// The error that was sent. [`GreenError::Loop`] where nobody may wait: in the main loop, while panicking.
    pub fn wait(&self) -> Result<T, GreenError> {
        loop {
            if let Some(value) = self.wait_within(Deadline::none())? {
                return Ok(value);
            }
        }
    }

    /// As [`wait`](Event::wait), for `timeout` at most: then `None`, and the event is as before. One of zero lets
    /// others run once. Switches if nothing was sent.
    ///
    /// # Errors
    ///
    /// As [`wait`](Event::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<T>, GreenError> {
        self.wait_within(Deadline::from(Some(timeout)))
    }

    fn wait_within(&self, mut limit: Deadline) -> Result<Option<T>, GreenError> {
        let mut round = None;
        let sent = ToBeSent::wait(&self.state, &mut limit, (), |state, unchosen| {
            let round = round.get_or_insert_with(|| Arc::clone(&state.round));
            if unchosen.is_none() || round.get().is_some() { Ok(()) } else { Err(()) }
        });
        match sent {
            Ok(()) | Err(Ended::Late(())) => round.and_then(|round| round.get().cloned()).transpose(),
            Err(Ended::Failed(error, _)) => Err((*error).into()),
        }
    }

    /// What was sent, if anything. Does not switch.
    #[must_use]
    pub fn poll(&self) -> Option<Result<T, GreenError>> {
        self.round().get().cloned()
    }

    /// The value that was sent, if one was. Does not switch.
    #[must_use]
    pub fn poll_result(&self) -> Option<T> {
        self.poll()?.ok()
    }

    /// The error that was sent, if one was. Eventlet's `poll_exception`. Does not switch.
    #[must_use]
    pub fn poll_error(&self) -> Option<GreenError> {
        match self.round().get() {
            Some(Err(error)) => Some(error.clone()),
            _ => None,
        }
    }
}

impl<T> Default for Event<T> {
    fn default() -> Event<T> {
        Event::new()
    }
}

impl<T> fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each without the lock: what is written to may be anybody's, and switch.
        f.debug_struct("Event").field("ready", &self.ready()).field("waiting", &self.waiting()).finish()
    }
}
