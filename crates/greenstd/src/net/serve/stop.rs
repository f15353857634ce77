use std::cell::Cell;
use std::ffi::c_int;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::internal::SignalCallback;
use hub_core::{BiasedMutex, Deadline, LoopError, WaitReason};

use crate::signal::Signals;
use crate::sync::WaitError;
use crate::sync::wait_queue::{Unserved, Wait, WaitQueue};

/// A handle that stops servers over green sockets. Eventlet's `StopServe`.
///
/// Any OS thread may use it, and signals may, see [`on_signals`](StopServe::on_signals). Clones stop the same servers.
/// Servers over Tokio's sockets have a `StopServe` of their own, in `hub-tokio`.
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
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: BiasedMutex<State>,
    /// The signals that stop, and the time that the first one of them leaves.
    signals: Option<(Signals, Duration)>,
}

#[derive(Default)]
struct State {
    stopped: bool,
    /// Whether a signal has stopped it.
    is_signalled: bool,
    /// The time at which the handlers are killed.
    deadline: Option<Instant>,
    watching: WaitQueue,
}

impl State {
    fn stop_at(&mut self, deadline: Option<Instant>) {
        self.stopped = true;
        self.deadline = self.deadline.into_iter().chain(deadline).min();
        self.watching.grant_all();
    }
}

impl Shared {
    /// Stops for each signal that has come. Does not switch.
    fn take_signals(&self) {
        let Some((signals, grace)) = &self.signals else { return };
        while signals.try_wait().is_some() {
            let mut state = self.state.lock();
            let time = if state.is_signalled { Duration::ZERO } else { *grace };
            state.is_signalled = true;
            // A time beyond the range of the clock is no limit.
            state.stop_at(Instant::now().checked_add(time));
        }
    }
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

    /// Catches `signals`, and creates a handle that they stop. Does not switch.
    ///
    /// The first signal has the effect of [`stop_within`](StopServe::stop_within) with `grace`. A second one, of any
    /// kind among them, kills the handlers at once. So does a second Ctrl-C of an impatient user.
    ///
    /// The signals are noticed while a server serves with the handle, while a green thread is in its
    /// [`wait`](StopServe::wait), and in [`is_stopped`](StopServe::is_stopped). Servers on several OS threads may share
    /// it, as with [`Cluster::stop_with`](crate::net::Cluster::stop_with). A signal that comes before stops the server
    /// when it begins. Without a server and a wait, the handle keeps no loop alive.
    ///
    /// The signals are caught as by [`Signals`]. Their default action does not come back: after the drop of the last
    /// clone, Ctrl-C has no effect.
    ///
    /// ```
    /// use greenhub::net::{ServeEnd, StopServe, TcpListener, serve_until};
    /// use greenhub::signal::{SIGINT, SIGTERM};
    /// use std::io::Write;
    /// use std::time::Duration;
    /// let stop = StopServe::on_signals([SIGINT, SIGTERM], Duration::from_secs(10))?;
    /// let (listener, pool) = (TcpListener::bind("127.0.0.1:0")?, greenhub::GreenPool::new(1000));
    /// # greenhub::spawn(|| signal_hook::low_level::raise(SIGINT));
    /// let served = serve_until(&stop, &listener, &pool, |mut stream, _peer| stream.write_all(b"hello"))?;
    /// assert_eq!(served.end, ServeEnd::Stopped); // Ctrl-C was typed now
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses a signal, and [`InvalidInput`](io::ErrorKind::InvalidInput) as
    /// [`Signals::new`] does.
    pub fn on_signals(signals: impl IntoIterator<Item = c_int>, grace: Duration) -> io::Result<StopServe> {
        let signals = Some((Signals::new(signals)?, grace));
        Ok(StopServe { shared: Arc::new(Shared { state: BiasedMutex::default(), signals }) })
    }

    /// Makes the servers stop accepting, wait for their handlers, and return. Does not switch.
    pub fn stop(&self) {
        self.stop_at(None);
    }

    /// Like [`stop`](StopServe::stop), and kills the handlers that still run after `time`. Does not switch.
    ///
    /// The call returns at once: the limit is that of the handlers, and [`Served`](super::Served) counts those that
    /// were killed. A later call may bring the deadline nearer, but never postpones it.
    pub fn stop_within(&self, time: Duration) {
        // A time beyond the range of the clock is no limit.
        self.stop_at(Instant::now().checked_add(time));
    }

    fn stop_at(&self, deadline: Option<Instant>) {
        self.shared.state.lock().stop_at(deadline);
    }

    /// Returns true if it was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shared.take_signals();
        self.shared.state.lock().stopped
    }

    /// Lets the signals stop it while the returned value exists.
    pub(super) fn obey_signals(&self) -> Result<Option<SignalCallback>, LoopError> {
        let Some((signals, _)) = &self.shared.signals else { return Ok(None) };
        let shared = Arc::clone(&self.shared);
        let obeying = signals.call_after(Rc::new(move || shared.take_signals()))?;
        // The signals that came before.
        self.shared.take_signals();
        Ok(Some(obeying))
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
        let _obeying = self.obey_signals()?;
        self.wait_for_change(None, |state| state.stopped).map_err(|ended| WaitError::from(ended).without_limit())
    }

    /// Waits until it is stopped, or `over` is set.
    pub(super) fn wait_or_over(&self, over: &Cell<bool>) {
        self.wait_until(None, |state| state.stopped || over.get());
    }

    /// Waits until the deadline, which may change meanwhile, or until `over` is set.
    pub(super) fn wait_for_deadline(&self, over: &Cell<bool>) {
        while !over.get() {
            let deadline = self.shared.state.lock().deadline;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !self.wait_until(left, |state| state.deadline != deadline || over.get()) {
                return;
            }
        }
    }

    /// Wakes the waiters, which then check `over`. Does not switch.
    pub(super) fn wake_watchers(&self) {
        self.shared.state.lock().watching.grant_all();
    }

    /// Waits for a change, for at most `limit`. Returns false if none came.
    fn wait_until(&self, limit: Option<Duration>, changed: impl Fn(&State) -> bool) -> bool {
        // A green thread that cannot wait any more does not wait for a deadline either.
        self.wait_for_change(limit, changed).is_ok()
    }

    fn wait_for_change(&self, limit: Option<Duration>, changed: impl Fn(&State) -> bool) -> Result<(), Unserved> {
        ChangeWait::wait(&self.shared.state, &mut Deadline::from(limit), (), |state, _| {
            if changed(state) { Ok(()) } else { Err(()) }
        })
    }
}

impl fmt::Debug for StopServe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter is user code and may switch: hold no lock while calling it.
        let (stopped, deadline) = {
            let state = self.shared.state.lock();
            (state.stopped, state.deadline)
        };
        f.debug_struct("StopServe").field("stopped", &stopped).field("deadline", &deadline).finish()
    }
}
