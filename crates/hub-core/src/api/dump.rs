//! All greenlets of an OS thread with their backtraces, as one text.

use std::fmt::Write;

use super::backtrace::{BacktraceError, frames_of};
use super::listing::greenlets_at_most;
use crate::base::unwind::{Names, Tables};
use crate::greenlet::backtrace;
use crate::greenlet::local;

/// Formats all greenlets of this OS thread with their backtraces. Does not switch.
///
/// For each greenlet that has not ended, in the order of their ids, the text has a line as in
/// [`greenlets`](crate::greenlets) (the number, name, spawn location, age, state and wait reason), and then the
/// [backtrace](crate::backtrace_of). Builds no hub.
///
/// Without the feature `backtrace` the lines come alone, and a last line says how to get backtraces.
///
/// The time and the length of the text are proportional to the number of greenlets: with the feature, thousands of
/// greenlets block the OS thread for some hundred milliseconds, and have megabytes of text.
///
/// ```
/// let sleeper = greenhub::spawn(|| greenhub::sleep(std::time::Duration::MAX));
/// greenhub::thread::yield_now();
/// let text = greenhub::debug::dump();
/// assert!(text.contains("sleeping"));
/// # drop(sleeper);
/// ```
#[doc(alias = "print_run_info")]
#[doc(alias = "dump_stacks")]
#[must_use]
pub fn dump() -> String {
    dump_at_most(usize::MAX)
}

/// Formats at most `most` greenlets of this OS thread with their backtraces, and the number of the others.
///
/// For dumps that are requested from outside, which should not hold up the program. Does not switch.
#[must_use]
pub fn dump_at_most(most: usize) -> String {
    let (listed, omitted) = greenlets_at_most(most, |_| true);
    let mut text = String::new();
    let (tables, mut names) = (Tables::of_process(), Names::default());
    for info in &listed {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{info}");
        if !backtrace::AVAILABLE {
            continue;
        }
        let control = local::try_get().and_then(|local| local.controls.get(info.id.number()));
        let _ = match control.map(|control| frames_of(control, tables.as_ref())) {
            Some(Ok(frames)) => writeln!(text, "{}", frames.to_text(&mut names)),
            // The line says so.
            Some(Err(BacktraceError::NotBegun)) | None => writeln!(text),
            Some(Err(error)) => writeln!(text, "   {error}\n"),
        };
    }
    if omitted > 0 {
        let _ = writeln!(text, "and {omitted} more");
    }
    if !backtrace::AVAILABLE {
        let _ = writeln!(text, "{}", BacktraceError::Unsupported);
    }
    text
}
