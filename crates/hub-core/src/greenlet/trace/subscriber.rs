//! How a subscriber is called.

use std::cell::Cell;

use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::greenlet::local;
use crate::greenlet::run::Mask;
use crate::greenlet::unwind::{contained, drop_contained};

thread_local! {
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a subscriber is told something on this OS thread now.
#[inline]
pub(crate) fn is_telling() -> bool {
    TELLING.get()
}

/// Whether somebody may want to be told what has that level.
#[inline]
pub(crate) fn is_heard(level: Level) -> bool {
    level <= LevelFilter::current() && !is_telling()
}

/// Calls a subscriber. Never unwinds; `None` if it panicked.
pub(crate) fn tell<R>(subscriber: impl FnOnce() -> R) -> Option<R> {
    // One that is told something may end a green thread, whose span is closed then.
    let outer = TELLING.replace(true);
    let mask = local::try_get().map(|_| Mask::new());
    let told = contained(subscriber).map_err(drop_contained);
    drop(mask);
    TELLING.set(outer);
    told.ok()
}
