use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::{BiasedMutex, Deadline, WaitReason};

use crate::sync::wait_queue::{Wait, WaitError, WaitQueue};

/// Stops servers, from any thread: Eventlet's `StopServe`. Clones stop the same ones.
///
/// A stop stays: a server that is started with one that was used ends at once.
///
/// ```
/// use greenstd::net::StopServe;
/// let stop = StopServe::new();
/// let elsewhere = stop.clone();
/// std::thread::spawn(move || elsewhere.stop()).join().unwrap();
/// assert!(stop.is_stopped());
/// ```
#[derive(Clone, Default)]
pub struct StopServe {
    shared: Arc<BiasedMutex<State>>,
}

#[derive(Default)]
struct State {
    stopped: bool,
    /// At which handlers are killed.
    deadline: Option<Instant>,
    watching: WaitQueue,
}

/// For a change.
struct ForChange;

impl Wait for ForChange {
    type State = State;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Event;

    fn queue(state: &mut State) -> &mut WaitQueue {
        &mut state.watching
    }

    fn regrant(_: &mut State) {}
}

impl StopServe {
    /// One that has stopped nobody.
    #[must_use]
    pub fn new() -> StopServe {
        StopServe::default()
    }

    /// Has the servers accept no more, wait for their handlers, and return. Never switches.
    pub fn stop(&self) {
        self.stop_at(None);
    }

    /// As [`stop`](StopServe::stop), and has those handlers killed that run still after `time`. Called again it may bring the
    /// deadline nearer, and never puts it off. Never switches.
    pub fn stop_within(&self, time: Duration) {
        // A time that no clock reaches is no limit.
        self.stop_at(Instant::now().checked_add(time));
    }

    fn stop_at(&self, deadline: Option<Instant>) {
        let mut state = self.shared.lock();
        state.stopped = true;
        state.deadline = state.deadline.into_iter().chain(deadline).min();
        state.watching.grant_all();
    }

    /// Whether it was used.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shared.lock().stopped
    }

    /// Waits until it is used, or `over`.
    pub(super) fn wait(&self, over: &Cell<bool>) {
        self.wait_until(None, |state| state.stopped || over.get());
    }

    /// Waits until the deadline, wherever it is moved, or `over`.
    pub(super) fn wait_for_deadline(&self, over: &Cell<bool>) {
        while !over.get() {
            let deadline = self.shared.lock().deadline;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !self.wait_until(left, |state| state.deadline != deadline || over.get()) {
                return;
            }
        }
    }

    /// Has those who wait see what is over. Never switches.
    pub(super) fn look_again(&self) {
        self.shared.lock().watching.grant_all();
    }

    /// Waits for a change, for `limit` at most: whether it has come.
    fn wait_until(&self, limit: Option<Duration>, changed: impl Fn(&State) -> bool) -> bool {
        let change = ForChange::wait(&self.shared, &mut Deadline::from(limit), (), |state, _| {
            if changed(state) { Ok(()) } else { Err(()) }
        });
        match change {
            Ok(()) => true,
            // A loop that cannot wait any more waits for no deadline either.
            Err(WaitError::TimedOut(()) | WaitError::Failed(..)) => false,
        }
    }
}

impl fmt::Debug for StopServe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing is locked while somebody's formatter runs.
        let (stopped, deadline) = {
            let state = self.shared.lock();
            (state.stopped, state.deadline)
        };
        f.debug_struct("StopServe").field("stopped", &stopped).field("deadline", &deadline).finish()
    }
}
