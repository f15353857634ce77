//! Watchers of signals.
//!
//! No code of the program runs in a signal handler. The handler sets the latch of each loop that watches the signal. A
//! [`SignalFan`] is that latch, for all watchers of the signal on one loop.

use std::cell::RefCell;
use std::ffi::c_int;
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use hub_core::internal::{Latch, SignalLatch, latch_on, why_not_caught};
use hub_core::{WaitReason, spawn_n};

use crate::error::WatcherError;
use crate::event_loop::event_loop;
use crate::node::{Kind, Node};
use crate::phase::SetPending;
use crate::state::{State, for_each, remove};
use crate::wake::Look;
use crate::watcher::{Watch, Watcher};

/// A watcher of a signal. gevent's `loop.signal`.
///
/// Made by [`Loop::signal`](crate::Loop::signal). The callback is called after the process has got the signal. It runs
/// on the main loop, not in the signal handler. Signals that come before it is called are one event. A signal that
/// comes while no watcher of it is active is not delivered. All watchers of a signal are called, on each loop that has
/// one, beside other users of the crate `signal-hook`.
///
/// It is not [counted](Watcher::set_counted) by default, but a signal that has come is delivered before the loop ends.
/// The first start replaces the default action of the signal for good: without active watchers the signal then does
/// nothing.
///
/// ```
/// use greenhub::gevent::{Watcher, event_loop};
/// use signal_hook::consts::SIGUSR1;
/// let watcher = event_loop().signal(SIGUSR1)?;
/// watcher.set_counted(true); // the program waits for nothing else
/// greenhub::spawn(move || signal_hook::low_level::raise(SIGUSR1));
/// watcher.wait(None)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Signal = Watch<SignalKind>;

/// The part of a [`Signal`] that other watchers do not have.
pub struct SignalKind {
    fan: Rc<SignalFan>,
}

impl Signal {
    /// Creates a watcher of `signal`.
    pub(crate) fn of(state: Rc<State>, signal: c_int) -> Result<Signal, WatcherError> {
        if let Some(reason) = why_not_caught(signal) {
            return Err(WatcherError::Signal { signal, reason });
        }
        let fan = SignalFan::of(&state, signal);
        let node = Node::new(state, SignalKind { fan });
        node.set_counted(false);
        Ok(Watch::new(node))
    }

    /// Returns the number of the signal.
    #[must_use]
    pub fn signal(&self) -> c_int {
        self.node().kind.fan.signal
    }
}

impl fmt::Debug for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(Self::NAME);
        self.describe(&mut shown);
        shown.finish_non_exhaustive()
    }
}

impl Kind for SignalKind {
    type Event = ();

    const NAME: &'static str = "Signal";
    const REASON: WaitReason = WaitReason::Signal;
    const IS_COUNTED_HERE: bool = true;
    const KEEPS_EVENTS: bool = true;

    fn arm(&self, node: &Rc<Node<SignalKind>>) -> Result<(), WatcherError> {
        self.fan.add(&node.state, Rc::clone(node) as Rc<dyn SetPending>)
    }

    fn disarm(&self, node: &Node<SignalKind>) {
        self.fan.remove(&node.state, node);
    }

    fn look(&self) {
        Rc::clone(&self.fan).look();
    }

    fn describe(&self, shown: &mut fmt::DebugStruct<'_, '_>) {
        shown.field("signal", &self.fan.signal);
    }
}

impl SetPending for Node<SignalKind> {
    fn set_pending(self: Rc<Self>) {
        Node::set_pending(&self, ());
    }
}

/// The latch of one signal, for all its watchers on one loop.
pub(crate) struct SignalFan {
    signal: c_int,
    latch: Arc<Latch>,
    /// Kept from the first start to the drop of the last watcher, so that stops and starts do not touch the handler.
    registered: RefCell<Option<SignalLatch>>,
    watchers: RefCell<Vec<Rc<dyn SetPending>>>,
}

impl SignalFan {
    /// Returns the latch of a signal.
    pub(crate) fn of(state: &State, signal: c_int) -> Rc<SignalFan> {
        let mut fans = state.signals.borrow_mut();
        if let Some(fan) = fans.get(&signal).and_then(Weak::upgrade) {
            return fan;
        }
        let fan = Rc::new(SignalFan {
            signal,
            latch: state.wake.latch(),
            registered: RefCell::default(),
            watchers: RefCell::default(),
        });
        fans.retain(|_, fan| fan.strong_count() != 0);
        fans.insert(signal, Rc::downgrade(&fan));
        fan
    }

    pub(crate) fn add(self: &Rc<Self>, state: &State, watcher: Rc<dyn SetPending>) -> Result<(), WatcherError> {
        if self.watchers.borrow().is_empty() {
            self.register()?;
            state.wake.add(Rc::clone(self) as Rc<dyn Look>)?;
            // A signal that came while no watcher was active is not delivered.
            self.latch.take();
        } else {
            // After a fork there may be none, though watchers are active.
            state.wake.listen()?;
        }
        self.watchers.borrow_mut().push(watcher);
        Ok(())
    }

    pub(crate) fn remove(&self, state: &State, watcher: &dyn SetPending) {
        remove(&self.watchers, watcher);
        if self.watchers.borrow().is_empty() {
            state.wake.remove(self);
        }
    }

    fn register(&self) -> Result<(), WatcherError> {
        if self.registered.borrow().is_none() {
            let registered = latch_on(self.signal, Arc::clone(&self.latch));
            let registered = registered.map_err(|error| WatcherError::system("catch its signal", error))?;
            self.registered.replace(Some(registered));
        }
        Ok(())
    }
}

impl Look for SignalFan {
    fn look(self: Rc<Self>) {
        if self.latch.take() {
            for_each(&self.watchers, |watcher| watcher.set_pending());
        }
    }
}

/// Calls `f` in a green thread of its own after each `signal`. gevent's `signal_handler`. Does not switch.
///
/// `f` may block, and is called again meanwhile if the signal comes again. If it panics, that is reported, and the
/// handler stays. Signals that come before the green thread is spawned are one call.
///
/// ```
/// use greenhub::gevent::on_signal;
/// use signal_hook::consts::SIGUSR2;
/// let (sender, receiver) = greenhub::sync::mpsc::channel();
/// let handler = on_signal(SIGUSR2, move || {
///     greenhub::sleep(std::time::Duration::from_millis(1)); // it may block
///     sender.send("reloaded").unwrap();
/// })?;
/// # signal_hook::low_level::raise(SIGUSR2)?;
/// assert_eq!(receiver.recv()?, "reloaded"); // `kill -USR2` was typed now
/// handler.cancel();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The same as [`Loop::signal`](crate::Loop::signal) and [`start`](Watcher::start).
///
/// # Panics
///
/// Panics if the hub cannot be built, as [`event_loop`] does.
#[doc(alias = "signal_handler")]
#[track_caller]
pub fn on_signal(signal: c_int, f: impl Fn() + 'static) -> Result<SignalHandler, WatcherError> {
    let watcher = event_loop().signal(signal)?;
    let f = Rc::new(f);
    watcher.start(move |_, ()| {
        let f = Rc::clone(&f);
        spawn_n(move || f());
    })?;
    Ok(SignalHandler { watcher })
}

/// A handler that [`on_signal`] has set.
///
/// Dropping it cancels it.
#[derive(Debug)]
#[must_use = "the handler is cancelled when this is dropped"]
pub struct SignalHandler {
    watcher: Signal,
}

impl SignalHandler {
    /// Removes the handler. Does not switch. Does nothing if it was cancelled before.
    ///
    /// Calls of the handler that are in progress go on.
    pub fn cancel(&self) {
        self.watcher.close();
    }

    /// Sets whether the handler keeps the loop alive. Does not switch. gevent's `ref`.
    ///
    /// It is off by default.
    pub fn set_counted(&self, counted: bool) {
        self.watcher.set_counted(counted);
    }
}
