//! The loop of an OS thread, and its methods that make watchers.

use std::cell::Cell;
use std::ffi::c_int;
use std::fmt;
use std::os::fd::{AsFd, RawFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use hub_core::hub::{Interest, Time};
use hub_core::{HubGone, LoopError, LoopErrorKind, Remote, TimerHandle};

use crate::async_::Async;
use crate::child::Child;
use crate::error::WatcherError;
use crate::io::Io;
use crate::phase::{Check, Fork, Idle, Prepare};
use crate::signal::Signal;
use crate::stat::Stat;
use crate::state::State;
use crate::timer::Timer;
use crate::watcher::Watch;

/// Returns the loop of this OS thread. gevent's `get_hub().loop`. Does not switch.
///
/// It is the main loop of the OS thread's hub, which runs green threads, too. A program gets a second loop by a second
/// OS thread.
///
/// ```
/// println!("this OS thread waits by {}", greenhub::gevent::event_loop().backend());
/// ```
///
/// # Panics
///
/// Panics if the hub cannot be built, as [`get_hub`](hub_core::get_hub) does.
#[must_use]
#[track_caller]
pub fn event_loop() -> Loop {
    Loop { state: State::here() }
}

/// The loop of an OS thread.
///
/// It is a handle: clones are the same loop.
#[derive(Clone)]
pub struct Loop {
    state: Rc<State>,
}

/// The way in which [`Loop::run`] runs.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Run {
    /// Until nothing is left that keeps the loop alive.
    #[default]
    UntilIdle,
    /// One turn, which waits for an event. libev's `EVRUN_ONCE`.
    Once,
    /// One turn without a wait. libev's `EVRUN_NOWAIT`.
    NoWait,
}

/// The counters of a loop.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Counts {
    /// The turns of the loop. gevent's `loop.iteration`.
    pub iteration: u64,
    /// The callbacks of watchers that are in progress: 1 in a callback, else 0. gevent's `loop.depth`.
    pub depth: usize,
    /// The watchers with an event that was not delivered. gevent's `loop.pendingcnt`.
    #[doc(alias = "pendingcnt")]
    pub pending: usize,
    /// The active watchers that keep the loop alive. gevent's `loop.activecnt`, which has queued callbacks as well.
    #[doc(alias = "activecnt")]
    pub active: usize,
}

impl Loop {
    /// Makes a watcher of a descriptor, for reading, writing or both. Does not switch.
    ///
    /// The watcher owns `fd`; an `Rc` shares it.
    ///
    /// # Errors
    ///
    /// Returns an error if `events` is empty, or if the descriptor is not open.
    pub fn io(&self, fd: impl AsFd + 'static, events: Interest) -> Result<Io, WatcherError> {
        Io::of(Rc::clone(&self.state), Rc::new(fd), events)
    }

    /// Makes a timer that fires once, `after` its start. Does not switch.
    pub fn timer(&self, after: Duration) -> Timer {
        Timer::of(Rc::clone(&self.state), after, Duration::ZERO)
    }

    /// Makes a timer that fires `after` its start, and then in every period. Does not switch.
    ///
    /// If the period `every` is zero, the timer fires once.
    pub fn repeating(&self, after: Duration, every: Duration) -> Timer {
        Timer::of(Rc::clone(&self.state), after, every)
    }

    /// Makes a watcher whose callback is called in each turn without other events. Does not switch.
    pub fn idle(&self) -> Idle {
        Watch::of_phase(Rc::clone(&self.state))
    }

    /// Makes a watcher whose callback is called before each wait of the hub. Does not switch.
    pub fn prepare(&self) -> Prepare {
        Watch::of_phase(Rc::clone(&self.state))
    }

    /// Makes a watcher whose callback is called after each wait of the hub. Does not switch.
    pub fn check(&self) -> Check {
        Watch::of_phase(Rc::clone(&self.state))
    }

    /// Makes a watcher whose callback is called once in a forked child. Does not switch.
    pub fn fork(&self) -> Fork {
        Watch::of_phase(Rc::clone(&self.state))
    }

    /// Makes a watcher of a signal. Does not switch.
    ///
    /// [`on_signal`](crate::on_signal) runs a handler in a green thread.
    ///
    /// # Errors
    ///
    /// Returns [`WatcherError::Signal`] if there is no signal with this number, or if it cannot or must not be caught
    /// (`SIGKILL`, `SIGSTOP`, `SIGILL`, `SIGFPE`, `SIGSEGV`).
    pub fn signal(&self, signal: c_int) -> Result<Signal, WatcherError> {
        Signal::of(Rc::clone(&self.state), signal)
    }

    /// Makes a watcher of a child process, on any OS thread. Does not switch.
    ///
    /// `pid` is the number that [`std::process::Child::id`] returns.
    ///
    /// # Errors
    ///
    /// Returns [`WatcherError::Child`] if the process is no child of this one, or was reaped already.
    pub fn child(&self, pid: u32) -> Result<Child, WatcherError> {
        Child::of(Rc::clone(&self.state), pid)
    }

    /// Makes a watcher of the file at `path`. Switches.
    ///
    /// It looks at the file once in each period `every`. Zero stands for 5 s, and the shortest period is 100 ms. The
    /// watcher compares with the file as it is now: a change before the start is reported at the start. In a callback,
    /// which cannot wait, it compares with the first look.
    pub fn stat(&self, path: impl AsRef<Path>, every: Duration) -> Stat {
        Stat::of(Rc::clone(&self.state), path.as_ref(), every)
    }

    /// Makes a watcher that other OS threads and signal handlers wake. Does not switch.
    pub fn async_(&self) -> Async {
        Async::of(Rc::clone(&self.state))
    }

    /// Calls `f` from the loop, once, in the order of such calls. Does not switch. gevent's `loop.run_callback`.
    ///
    /// It is [`HubRef::schedule_once`](hub_core::HubRef::schedule_once) without a delay: the call keeps its place among
    /// ready green threads. A call that is made by a callback is carried out in the next turn.
    /// If the hub of this loop was replaced or shut down, `f` is dropped.
    #[track_caller]
    pub fn run_callback(&self, f: impl FnOnce() + 'static) -> Callback {
        if !self.state.is_current() {
            return Callback { timer: None, is_pending: Rc::default() };
        }
        let is_pending = Rc::new(Cell::new(true));
        let pending = PendingCall(Rc::clone(&is_pending));
        let timer = self.state.hub().schedule_once(Duration::ZERO, move || {
            drop(pending);
            f();
        });
        Callback { timer: Some(timer), is_pending }
    }

    /// Calls `f` from the loop of `remote`, on any OS thread. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error, and drops `f`, if that loop has ended.
    pub fn run_callback_threadsafe(remote: &Remote, f: impl FnOnce() + Send + 'static) -> Result<(), HubGone> {
        remote.spawn(f)
    }

    /// Runs the loop. Switches. Only the main greenlet may call it. gevent's `loop.run`.
    ///
    /// Returns whether something is left that keeps the loop alive: active watchers, green threads, timers.
    ///
    /// # Errors
    ///
    /// Returns the error that the main loop has for the main greenlet, [`LoopErrorKind::InMainloop`] from a callback
    /// and for any other greenlet, and [`LoopErrorKind::HubReplaced`] if the hub of this loop was replaced or shut
    /// down.
    pub fn run(&self, how: Run) -> Result<bool, LoopError> {
        let hub = self.state.hub();
        if !self.state.is_current() {
            return Err(LoopErrorKind::HubReplaced.into());
        }
        match how {
            Run::UntilIdle => hub.join(None).map(|is_done| !is_done),
            Run::NoWait => hub.join(Duration::ZERO).map(|is_done| !is_done),
            Run::Once => {
                let calls = self.calls();
                if hub.join(Duration::ZERO)? {
                    return Ok(false);
                }
                if self.calls() == calls {
                    let _single = self.state.begin_single_turn();
                    match hub.run_once(None) {
                        Err(error) if error.kind() == LoopErrorKind::LoopExit => return Ok(false),
                        turned => turned?,
                    }
                }
                Ok(true)
            }
        }
    }

    /// Returns the number of delivered events so far.
    fn calls(&self) -> u64 {
        self.state.delivered()
    }

    /// Returns the time of the present turn. gevent's `loop.now`. Does not switch.
    ///
    /// It is zero if the hub of this loop was replaced or shut down.
    #[must_use]
    pub fn now(&self) -> Time {
        if self.state.is_current() { self.state.hub().cached_now() } else { Time::default() }
    }

    /// Takes a new sample of the clock and returns it. gevent's `loop.update_now`. Does not switch.
    ///
    /// It is zero if the hub of this loop was replaced or shut down.
    pub fn update_now(&self) -> Time {
        if self.state.is_current() { self.state.hub().now() } else { Time::default() }
    }

    /// Returns the counters of the loop. Does not switch.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            iteration: self.state.hub().stats().turns,
            depth: self.state.depth(),
            pending: self.state.undelivered(),
            active: self.state.counted(),
        }
    }

    /// Returns the name of the hub: `"epoll"`, `"poll"`… gevent's `loop.backend`.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.state.hub().name()
    }

    /// Delivers an event to each active watcher of a descriptor. Does not switch.
    ///
    /// Call it before a descriptor is closed. Returns whether there is such a watcher. The caller then closes the
    /// descriptor in a later turn. gevent's `loop.closing_fd`.
    pub fn closing_fd(&self, fd: RawFd) -> bool {
        self.state.is_current() && self.state.feed_descriptor(fd)
    }
}

impl fmt::Debug for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Loop");
        shown.field("backend", &self.backend());
        if self.state.is_current() {
            let Counts { pending, active, .. } = self.counts();
            shown.field("pending", &pending).field("active", &active).finish()
        } else {
            shown.field("destroyed", &true).finish()
        }
    }
}

/// The part of a queued call that is dropped when it is made, and when the loop discards it.
struct PendingCall(Rc<Cell<bool>>);

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A call that [`Loop::run_callback`] has queued.
///
/// Dropping it changes nothing: the call is made all the same.
#[derive(Debug)]
pub struct Callback {
    timer: Option<TimerHandle>,
    is_pending: Rc<Cell<bool>>,
}

impl Callback {
    /// Cancels the call. Does not switch. Returns false if it was made or cancelled before.
    pub fn stop(&self) -> bool {
        self.timer.as_ref().is_some_and(TimerHandle::cancel)
    }

    /// Returns whether the call was neither made nor cancelled, and its loop not aborted.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.is_pending.get()
    }
}
