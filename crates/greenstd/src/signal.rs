//! Signals as values that green threads wait for.
//!
//! A server that catches `SIGINT` and `SIGTERM` shuts down gracefully by
//! [`StopServe::on_signals`](crate::net::StopServe::on_signals). Another program waits for a signal in a green thread:
//!
//! ```
//! use greenhub::signal::{SIGINT, SIGTERM, Signals};
//! use greenhub::sync::CancellationToken;
//! let (signals, shutdown) = (Signals::new([SIGINT, SIGTERM])?, CancellationToken::new());
//! let stop = shutdown.clone();
//! greenhub::spawn(move || {
//!     let _ = signals.wait(); // without the signals nothing else could end the program
//!     stop.cancel();
//! });
//! # signal_hook::low_level::raise(SIGTERM)?;
//! let mut rounds = 0;
//! while shutdown.wait_timeout(std::time::Duration::from_secs(1)).is_err() {
//!     rounds += 1; // something to do each second
//! }
//! assert_eq!(rounds, 0); // Ctrl-C was typed now
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The signal handlers run no code of the program. They set a flag and wake the hubs of the waiters. The crate
//! `signal-hook` calls them beside the handlers of its other users.
//!
//! | to | see |
//! |---|---|
//! | wait for Ctrl-C, or for a supervisor's request to stop | [`ctrl_c`], [`terminate`] |
//! | wait for several signals, again and again | [`Signals`] |
//! | stop a server | [`StopServe::on_signals`](crate::net::StopServe::on_signals) |
//! | wait for a signal beside other objects | the [join handle](hub_core::GreenThread) of a green thread that waits for it |
//! | end the wait of the main greenlet with an error | `hub::interrupt_on` |
//! | call a closure after each signal | `gevent::on_signal` (feature `loop`) |
//!
//! `signal-hook` changes its list of handlers under a lock of the process. If an OS thread makes or drops a [`Signals`]
//! during a fork by another one, such a call in the child may wait forever.

use std::ffi::c_int;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hub_core::internal::{Moment, SignalCallback, SignalWait, why_not_caught};
use hub_core::{Deadline, LoopError};
use signal_hook::SigId;
use signal_hook::low_level::unregister;

pub use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
    SIGWINCH,
};

use crate::sync::WaitError;

/// Signals that the program catches and waits for.
///
/// Catching begins with the creation, so no signal is lost between two waits. Like the system, it counts several
/// signals of one kind as one until a wait has returned it. Each value receives each signal. If several waiters share a
/// value, one of them gets the signal. They may be on different OS threads.
///
/// A wait for a signal keeps the loop alive: it is neither a [deadlock](hub_core::LoopErrorKind::LoopExit) nor reported
/// as one. A hub that cannot watch descriptors notices the signal within 50 ms, any other hub at once.
///
/// The first `Signals` that names a signal replaces its default action for the rest of the process. After the drop the
/// signal has no effect: Ctrl-C no longer ends the program.
///
/// ```
/// use greenhub::signal::{SIGHUP, SIGTERM, Signals};
/// let signals = Signals::new([SIGHUP, SIGTERM])?;
/// # signal_hook::low_level::raise(SIGHUP)?;
/// # greenhub::spawn_after(std::time::Duration::from_millis(1), || signal_hook::low_level::raise(SIGTERM));
/// let mut reloaded = 0;
/// for signal in &signals {
///     match signal {
///         SIGHUP => reloaded += 1,
///         _ => break,
///     }
/// }
/// assert_eq!(reloaded, 1); // `kill -HUP`, then `kill`
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "the signals do nothing once this is dropped"]
pub struct Signals {
    caught: Box<[Caught]>,
    /// A moment after the registration of all flags.
    flagged: Moment,
}

/// A signal whose arrival sets a flag.
#[derive(Debug)]
struct Caught {
    signal: c_int,
    has_arrived: Arc<AtomicBool>,
    id: SigId,
}

impl Caught {
    fn new(signal: c_int) -> io::Result<Caught> {
        let has_arrived = Arc::default();
        let id = signal_hook::flag::register(signal, Arc::clone(&has_arrived))?;
        Ok(Caught { signal, has_arrived, id })
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        unregister(self.id);
    }
}

/// Catches `SIGINT`, which Ctrl-C sends. Does not switch.
///
/// The same as [`Signals::new`] with this signal.
///
/// ```
/// # greenhub::spawn(|| signal_hook::low_level::raise(greenhub::signal::SIGINT));
/// greenhub::signal::ctrl_c()?.wait()?; // Ctrl-C was typed now
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Returns an error if the system refuses the signal.
pub fn ctrl_c() -> io::Result<Signals> {
    Signals::new([SIGINT])
}

/// Catches `SIGTERM`, by which `kill`, systemd and container runtimes ask a process to end. Does not switch.
///
/// The same as [`Signals::new`] with this signal.
///
/// ```
/// # greenhub::spawn(|| signal_hook::low_level::raise(greenhub::signal::SIGTERM));
/// greenhub::signal::terminate()?.wait()?; // `kill` was called now
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Returns an error if the system refuses the signal.
pub fn terminate() -> io::Result<Signals> {
    Signals::new([SIGTERM])
}

impl Signals {
    /// Catches `signals`. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses a signal. Returns [`InvalidInput`](io::ErrorKind::InvalidInput) for a
    /// signal that cannot or must not be caught (`SIGKILL`, `SIGSTOP`, `SIGILL`, `SIGFPE`, `SIGSEGV`), for a number
    /// without a signal, and if there are no `signals`.
    pub fn new(signals: impl IntoIterator<Item = c_int>) -> io::Result<Signals> {
        let mut signals: Vec<c_int> = signals.into_iter().collect();
        signals.sort_unstable();
        signals.dedup();
        if signals.is_empty() {
            let text = "a wait for no signals would never end: name at least one, such as SIGTERM";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        // Before the first one is caught: its default action would not come back.
        if let Some((signal, reason)) = signals.iter().find_map(|&signal| Some((signal, why_not_caught(signal)?))) {
            let text = format!("cannot wait for signal {signal}: {reason}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let caught = signals.into_iter().map(Caught::new).collect::<io::Result<_>>()?;
        Ok(Signals { caught, flagged: Moment::now() })
    }

    /// Returns the numbers of the signals, in ascending order.
    pub fn signals(&self) -> impl ExactSizeIterator<Item = c_int> + '_ {
        self.caught.iter().map(|caught| caught.signal)
    }

    /// Waits for one of the signals, and returns its number. Switches if it waits.
    ///
    /// It returns at once if a signal has come before. Of several, it returns the one with the lowest number first.
    ///
    /// # Errors
    ///
    /// Returns an error where the caller may not wait (in the main loop, while panicking), if its hub cannot be built,
    /// and if the main loop ends the wait of the main greenlet by an error.
    pub fn wait(&self) -> Result<c_int, LoopError> {
        self.wait_within(Deadline::none()).map_err(WaitError::without_limit)
    }

    /// Like [`wait`](Signals::wait), for at most `timeout`. Switches if it waits.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::TimedOut`] if no signal has come in time, or an error of [`wait`](Signals::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<c_int, WaitError> {
        self.wait_within(Deadline::from(timeout))
    }

    /// Returns the number of a signal that has come. Does not switch.
    ///
    /// `None` means that no signal has come since the last one was returned.
    pub fn try_wait(&self) -> Option<c_int> {
        self.caught.iter().find(|caught| caught.has_arrived.swap(false, Ordering::AcqRel)).map(|caught| caught.signal)
    }

    /// Returns an iterator that waits for the next signal. Its `next` switches if it waits.
    ///
    /// It also ends when a [`wait`](Signals::wait) returns an error, as in a main greenlet whose loop was interrupted.
    /// Use `wait` where the difference matters.
    pub fn iter(&self) -> Iter<'_> {
        Iter { signals: self }
    }

    /// Calls `callback` on the main loop of this OS thread after a signal, as long as the returned value exists. It
    /// takes the signals by [`try_wait`](Signals::try_wait), and must not switch or panic.
    pub(crate) fn call_after(&self, callback: Rc<dyn Fn()>) -> Result<SignalCallback, LoopError> {
        SignalCallback::begin(self.signals(), self.flagged, callback)
    }

    fn wait_within(&self, mut deadline: Deadline) -> Result<c_int, WaitError> {
        if let Some(signal) = self.try_wait() {
            return Ok(signal);
        }
        // A signal before this has set its flag. A later one also wakes the loop.
        let wait = SignalWait::begin(self.signals(), self.flagged)?;
        loop {
            if let Some(signal) = self.try_wait() {
                return Ok(signal);
            }
            if !wait.park(&mut deadline)? {
                return self.try_wait().ok_or(WaitError::TimedOut);
            }
        }
    }
}

/// An iterator over the signals that come. Made by [`Signals::iter`].
#[derive(Clone, Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Iter<'a> {
    signals: &'a Signals,
}

/// An iterator over the signals that come, which owns them. Made by [`Signals::into_iter`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct IntoIter {
    signals: Signals,
}

impl Iterator for Iter<'_> {
    type Item = c_int;

    fn next(&mut self) -> Option<c_int> {
        self.signals.wait().ok()
    }
}

impl Iterator for IntoIter {
    type Item = c_int;

    fn next(&mut self) -> Option<c_int> {
        self.signals.wait().ok()
    }
}

impl<'a> IntoIterator for &'a Signals {
    type Item = c_int;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl IntoIterator for Signals {
    type Item = c_int;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { signals: self }
    }
}
