//! The events for subscribers of the crate `tracing`, with the feature of that name. Without it they compile to
//! nothing.
//!
//! A subscriber is foreign code. It is called where nothing is borrowed, and its panics are contained. A wait may be
//! about to begin at such a place, so during the call nothing parks, no exit is thrown, and no further event is made.

#[cfg_attr(not(feature = "tracing"), path = "trace/no_subscriber.rs")]
mod subscriber;

pub(crate) use self::subscriber::*;

use super::spans;
use super::task::cell::TaskRef;
use crate::base::id::HubId;
use crate::error::LoopError;
use crate::report::{Observe, Observer, Report};

/// Expands to the event with the feature, to nothing without it.
macro_rules! event {
    ($level:ident, $($fields:tt)+) => {{
        #[cfg(feature = "tracing")]
        if is_enabled(tracing::Level::$level) {
            call_subscriber(|| tracing::event!(target: "greenhub", tracing::Level::$level, $($fields)+));
        }
    }};
}

/// Records that a green thread was spawned, and is about to be queued.
#[inline]
pub(crate) fn spawned(task: &TaskRef) {
    event!(DEBUG, number = task.control().map(|control| control.number()), name = task.name().as_deref(), spawned_at = %task.spawned_at(), "green thread spawned");
    spans::open(task);
}

/// Records that a green thread has ended. Its waiters are not woken yet.
#[inline]
pub(crate) fn ended(task: &TaskRef) {
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
            Report::Dump { .. } => event!(INFO, "{report}"),
            _ => event!(ERROR, "{report}"),
        }
    }
}

/// Records that a hub was built.
#[inline]
pub(crate) fn hub_built(name: &'static str, id: HubId) {
    event!(INFO, hub = name, id = id.number(), "hub built");
    let _ = (name, id);
}

/// Records that the main loop begins.
#[inline]
pub(crate) fn loop_began(hub: &'static str) {
    event!(DEBUG, hub, "main loop began");
    let _ = hub;
}

/// Records that the main loop has ended.
#[inline]
pub(crate) fn loop_ended(hub: &'static str) {
    event!(DEBUG, hub, "main loop ended");
    let _ = hub;
}

/// Records the error that ends the main greenlet's wait.
#[inline]
pub(crate) fn main_failed(error: &LoopError) {
    event!(WARN, "the main greenlet's wait ends: {error}");
    let _ = error;
}
