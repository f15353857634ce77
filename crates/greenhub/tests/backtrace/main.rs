//! Backtraces of green threads (feature `backtrace`).

#[path = "../it/support/mod.rs"]
mod support;

mod blocked;
#[cfg(feature = "console")]
mod console;
mod deadlocked;
mod images;
mod many;
mod parked;

/// Asserts that the backtrace shows these calls in order, the innermost first.
#[track_caller]
fn shows(backtrace: &str, calls: &[&str]) {
    let mut rest = backtrace;
    for call in calls {
        let at = rest.find(call);
        assert!(at.is_some(), "{call} is missing or out of order:\n{backtrace}");
        rest = &rest[at.unwrap_or_default()..];
    }
}
