//! What is told to subscribers of the crate `tracing`, with the feature of that name; without it nothing of this is
//! compiled.
//!
//! A subscriber is foreign code: it is called where nothing is borrowed, and its panics go no further. As a wait may be
//! about to begin there, nothing parks while it is told something, no exit is thrown, and what it does is not told in
//! turn.

#[cfg_attr(not(feature = "tracing"), path = "trace/no_subscriber.rs")]
mod subscriber;

pub(crate) use self::subscriber::*;

use super::spans;
use super::task::TaskRef;
use crate::error::LoopError;
use crate::report::{Observe, Observer, Report};

/// Expands to the event with the feature, to nothing without.
macro_rules! event {
    ($level:ident, $($fields:tt)+) => {{
        #[cfg(feature = "tracing")]
        if is_heard(tracing::Level::$level) {
            tell(|| tracing::event!(target: "greenhub", tracing::Level::$level, $($fields)+));
        }
    }};
}

/// A green thread was spawned, and is about to be queued.
#[inline]
pub(crate) fn spawned(task: TaskRef) {
    event!(DEBUG, number = task.control().map(|control| control.number()), name = task.name().as_deref(), spawned_at = %task.spawned_at(), "green thread spawned");
    spans::open(task);
}

/// A green thread has ended; nobody was told yet.
#[inline]
pub(crate) fn ended(task: TaskRef) {
    event!(DEBUG, number = task.control().map(|control| control.number()), name = task.name().as_deref(), spawned_at = %task.spawned_at(), "green thread ended");
    let _ = task;
}

impl Observe for Observer {
    fn reported(report: &Report) {
        match report {
            Report::Refused { .. }
            | Report::Quiet { .. }
            | Report::Deadlock { .. }
            | Report::Blocked { .. }
            | Report::Warning(_) => {
                event!(WARN, "{report}")
            }
            _ => event!(ERROR, "{report}"),
        }
    }
}

/// A hub was built.
#[inline]
pub(crate) fn hub_built(name: &'static str, id: u64) {
    event!(INFO, hub = name, id, "hub built");
    let _ = (name, id);
}

/// The main loop begins.
#[inline]
pub(crate) fn loop_began(hub: &'static str) {
    event!(DEBUG, hub, "main loop began");
    let _ = hub;
}

/// The main loop has ended.
#[inline]
pub(crate) fn loop_ended(hub: &'static str) {
    event!(DEBUG, hub, "main loop ended");
    let _ = hub;
}

/// The main greenlet's wait ends with this.
#[inline]
pub(crate) fn main_is_told(error: &LoopError) {
    event!(WARN, "the main greenlet's wait ends: {error}");
    let _ = error;
}
