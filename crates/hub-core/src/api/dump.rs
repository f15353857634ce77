//! All greenlets of an OS thread with their backtraces, as one text.

use super::backtrace::{BacktraceError, frames_of};
use super::capture::Capture;
use super::listing::greenlets_at_most;
use crate::base::unwind::Tables;
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
pub(super) fn dump_at_most(most: usize) -> String {
    capture_dump(most).to_string()
}

/// Captures a dump of at most `most` greenlets of this OS thread, without the look-up of the names. Does not switch.
#[must_use]
pub fn capture_dump(most: usize) -> Capture {
    let (listed, omitted) = greenlets_at_most(most, |_| true);
    let mut capture = Capture::default();
    let tables = Tables::of_process();
    for info in &listed {
        capture.push_line(info);
        if !backtrace::AVAILABLE {
            continue;
        }
        let control = local::try_get().and_then(|local| local.controls.get(info.id.number()));
        match control.map(|control| frames_of(control, tables.as_ref())) {
            Some(Ok(frames)) => capture.push_frames(frames),
            // The line says so.
            Some(Err(BacktraceError::NotBegun)) | None => {}
            Some(Err(error)) => capture.push_line(format_args!("   {error}")),
        }
        capture.push_line("");
    }
    if omitted > 0 {
        capture.push_line(format_args!("and {omitted} more"));
    }
    if !backtrace::AVAILABLE {
        capture.push_line(BacktraceError::Unsupported);
    }
    capture
}
