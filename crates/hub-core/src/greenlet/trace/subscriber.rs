//! The calls of a subscriber.

use std::cell::Cell;

use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::greenlet::exit::{contained, drop_contained};
use crate::greenlet::local;
use crate::greenlet::run::mask::Mask;

thread_local! {
    static IN_SUBSCRIBER: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether a subscriber is being called on this OS thread.
#[inline]
pub(crate) fn in_subscriber() -> bool {
    IN_SUBSCRIBER.get()
}

/// Returns whether an event of that level is to be emitted: never within a subscriber.
#[inline]
pub(crate) fn is_enabled(level: Level) -> bool {
    level <= LevelFilter::current() && !in_subscriber()
}

/// Calls a subscriber. Never unwinds. Returns `None` if the subscriber panicked.
pub(crate) fn call_subscriber<R>(subscriber: impl FnOnce() -> R) -> Option<R> {
    // A subscriber may end a green thread, whose span is then closed by a nested call.
    let outer = IN_SUBSCRIBER.replace(true);
    let mask = local::try_get().map(|_| Mask::new());
    let result = contained(subscriber).map_err(drop_contained);
    drop(mask);
    IN_SUBSCRIBER.set(outer);
    result.ok()
}
