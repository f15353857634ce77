use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::{BiasedMutex, Deadline, LoopError, WaitReason};

use crate::sync::WaitError;
use crate::sync::wait_queue::{Unserved, Wait, WaitQueue};

/// A handle that stops servers over green sockets. Eventlet's `StopServe`.
///
/// Any OS thread may use it. Clones stop the same servers. Servers over Tokio's sockets have a `StopServe` of their
/// own, in `hub-tokio`.
///
/// Dropping it stops nothing. A stop is permanent: a server that is started with a stopped handle ends at once.
///
/// ```
/// use greenhub::net::StopServe;
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
    /// The time at which the handlers are killed.
    deadline: Option<Instant>,
    watching: WaitQueue,
}

/// The wait for a change of the state.
struct ChangeWait;

impl Wait for ChangeWait {
    type State = State;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Event;

    fn queue(state: &mut State) -> &mut WaitQueue {
        &mut state.watching
    }

    fn regrant(_: &mut State) {}
}

impl StopServe {
    /// Creates a handle that is not stopped.
    #[must_use]
    pub fn new() -> StopServe {
        StopServe::default()
    }

    /// Makes the servers stop accepting, wait for their handlers, and return. Never switches.
    pub fn stop(&self) {
        self.stop_at(None);
    }

    /// Like [`stop`](StopServe::stop), and kills the handlers that still run after `time`. Never switches.
    ///
    /// The call returns at once: the limit is that of the handlers, and [`Served`](super::Served) counts those that
    /// were killed. A later call may bring the deadline nearer, but never postpones it.
    pub fn stop_within(&self, time: Duration) {
        // A time beyond the range of the clock is no limit.
        self.stop_at(Instant::now().checked_add(time));
    }

    fn stop_at(&self, deadline: Option<Instant>) {
        let mut state = self.shared.lock();
        state.stopped = true;
        state.deadline = state.deadline.into_iter().chain(deadline).min();
        state.watching.grant_all();
    }

    /// Returns true if it was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shared.lock().stopped
    }

    /// Waits until it is stopped. Switches.
    ///
    /// It is for the parts of a server beside the accepting of connections, such as connections that wait for their
    /// next request.
    ///
    /// ```
    /// use greenhub::net::StopServe;
    /// let stop = StopServe::new();
    /// let waiting = greenhub::spawn({
    ///     let stop = stop.clone();
    ///     move || stop.wait()
    /// });
    /// stop.stop();
    /// waiting.join()??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the caller cannot wait, or the main loop has ended its wait.
    pub fn wait(&self) -> Result<(), LoopError> {
        self.wait_for_change(None, |state| state.stopped).map_err(|ended| WaitError::from(ended).without_limit())
    }

    /// Waits until it is stopped, or `over` is set.
    pub(super) fn wait_or_over(&self, over: &Cell<bool>) {
        self.wait_until(None, |state| state.stopped || over.get());
    }

    /// Waits until the deadline, which may change meanwhile, or until `over` is set.
    pub(super) fn wait_for_deadline(&self, over: &Cell<bool>) {
        while !over.get() {
            let deadline = self.shared.lock().deadline;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !self.wait_until(left, |state| state.deadline != deadline || over.get()) {
                return;
            }
        }
    }

    /// Wakes the waiters, which then check `over`. Never switches.
    pub(super) fn wake_watchers(&self) {
        self.shared.lock().watching.grant_all();
    }

    /// Waits for a change, for at most `limit`. Returns false if none came.
    fn wait_until(&self, limit: Option<Duration>, changed: impl Fn(&State) -> bool) -> bool {
        // A green thread that cannot wait any more does not wait for a deadline either.
        self.wait_for_change(limit, changed).is_ok()
    }

    fn wait_for_change(&self, limit: Option<Duration>, changed: impl Fn(&State) -> bool) -> Result<(), Unserved> {
        ChangeWait::wait(
            &self.shared,
            &mut Deadline::from(limit),
            (),
            |state, _| {
                if changed(state) { Ok(()) } else { Err(()) }
            },
        )
    }
}

impl fmt::Debug for StopServe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter is user code and may switch: hold no lock while calling it.
        let (stopped, deadline) = {
            let state = self.shared.lock();
            (state.stopped, state.deadline)
        };
        f.debug_struct("StopServe").field("stopped", &stopped).field("deadline", &deadline).finish()
    }
}
