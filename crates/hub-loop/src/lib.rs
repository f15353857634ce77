//! gevent's event loop over any hub of greenhub: watchers with callbacks, beside green threads on the same OS thread.
//!
//! A green thread waits for an event by a call that blocks it. A [`Watcher`] calls a closure for each event instead.
//! gevent has both, and so does this crate: [`event_loop`] returns the loop of the calling OS thread, whose methods
//! make watchers for descriptors, timers and the phases of a turn.
//!
//! ```
//! use greenhub::gevent::{Run, Watcher, event_loop};
//! use std::cell::Cell;
//! use std::rc::Rc;
//! use std::time::Duration;
//! let ticks = Rc::new(Cell::new(0));
//! let count = Rc::clone(&ticks);
//! let ticker = event_loop().repeating(Duration::from_millis(1), Duration::from_millis(1));
//! ticker.start(move |ticker, ()| {
//!     count.set(count.get() + 1);
//!     if count.get() == 3 {
//!         ticker.stop();
//!     }
//! })?;
//! event_loop().run(Run::UntilIdle)?; // returns when no watcher is active
//! assert_eq!(ticks.get(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `docs/gevent.md` in the repository maps gevent's names to those here.
//!
//! # Events and callbacks
//!
//! An event only marks its watcher as pending. The loop calls the callbacks of pending watchers once in each turn,
//! before it waits: those of a higher [`Priority`] first, those of one priority in the order of their events. So a
//! callback that stops another watcher keeps that one from running, even if its event has come. Callbacks run on the
//! main loop and must not block; [`Watcher::wait`] is the form for green threads.
//!
//! # Liveness
//!
//! An active watcher keeps the loop alive, as a sleeping green thread does, unless it is
//! [not counted](Watcher::set_counted).

#![forbid(unsafe_code)]

mod async_;
mod cancel;
mod child;
mod directories;
mod error;
mod event_loop;
mod hooks;
mod inotify;
mod io;
mod iwait;
mod node;
mod pending;
mod phase;
mod signal;
mod stat;
mod state;
mod timer;
mod waiter;
mod wake;
mod watcher;

pub use hub_core::{Waitable, spawn_after as spawn_later};

pub use self::async_::{Async, AsyncHandle};
pub use self::cancel::cancel_waits_close_and_then;
pub use self::child::{Child, ChildStatus};
pub use self::error::{WaitError, WatcherError};
pub use self::event_loop::{Callback, Counts, Loop, Run, event_loop};
pub use self::io::Io;
pub use self::iwait::{IWait, iwait, joinall, killall, killall_with, wait};
pub use self::phase::{Check, Fork, Idle, Prepare};
pub use self::signal::{Signal, SignalHandler, on_signal};
pub use self::stat::{Stat, StatEvent};
pub use self::state::Priority;
pub use self::timer::Timer;
pub use self::waiter::Waiter;
pub use self::watcher::{AnyWatcher, Watch, Watcher};

/// Compiles the program of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the programs of the page that maps gevent's names.
#[cfg(doctest)]
#[doc = include_str!("../gevent.md")]
struct Guide;

/// Types that appear in the signatures of watchers and that no program names.
#[doc(hidden)]
pub mod kind {
    pub use crate::async_::AsyncKind;
    pub use crate::child::ChildKind;
    pub use crate::io::IoKind;
    pub use crate::node::Kind;
    pub use crate::phase::PhaseKind;
    pub use crate::signal::SignalKind;
    pub use crate::stat::StatKind;
    pub use crate::timer::TimerKind;
}
