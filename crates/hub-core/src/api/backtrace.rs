//! The backtrace of one greenlet.

use std::fmt;
use std::io;

use super::capture::Capture;
use crate::base::id::GreenletId;
use crate::base::unwind::{Frames, Tables};
use crate::greenlet::backtrace;
use crate::greenlet::control::{ControlRef, State};
use crate::greenlet::local;

/// Returns the calls in progress of a greenlet of this OS thread. Does not switch.
///
/// The text is in std's format: names with file and line, the innermost call first. The last call is the entry of the
/// greenlet's stack, or the entry of the OS thread for the main greenlet. The calls that switch away from a suspended
/// greenlet are left out, so that the first one is near to the call that waits. The backtrace of the caller itself
/// begins with calls of this library.
///
/// It takes the feature `backtrace`, on Linux on x86-64 and 64-bit ARM. The first call reads the unwind tables and the
/// debug information of the program, which blocks the OS thread for up to some hundred milliseconds. Every call reads
/// the list of the mappings of the process; [`dump`](crate::dump) reads it once for all greenlets.
///
/// In a child that was forked while another OS thread looked up names, the calls have addresses instead of names.
///
/// ```
/// use greenhub::debug::{BacktraceError, backtrace_of};
/// use std::time::Duration;
/// let sleeper = greenhub::spawn(|| greenhub::sleep(Duration::from_secs(60)));
/// greenhub::thread::yield_now();
/// match backtrace_of(sleeper.id().unwrap()) {
///     Ok(backtrace) => assert!(backtrace.contains("sleep")),
///     Err(error) => assert_eq!(error, BacktraceError::Unsupported), // the feature is off
/// }
/// ```
///
/// # Errors
///
/// Returns [`Unsupported`](BacktraceError::Unsupported) without the feature or on another system,
/// [`NotFound`](BacktraceError::NotFound) if no greenlet of this OS thread has the id,
/// [`NotBegun`](BacktraceError::NotBegun) if its body has not begun, and
/// [`UnknownStack`](BacktraceError::UnknownStack) if it is on a stack that the library does not know.
pub fn backtrace_of(id: GreenletId) -> Result<String, BacktraceError> {
    capture_backtrace(id).map(|capture| capture.to_string())
}

/// Captures the text of [`backtrace_of`], without the look-up of the names. Does not switch.
///
/// # Errors
///
/// The same as [`backtrace_of`].
pub fn capture_backtrace(id: GreenletId) -> Result<Capture, BacktraceError> {
    let control = local::try_get().and_then(|local| local.controls.get(id.number()));
    let state = control.map(|control| control.state());
    match control {
        Some(control)
            if !matches!(state, Some(State::Free | State::Cancelled | State::Callback | State::Abandoned)) =>
        {
            let mut capture = Capture::default();
            capture.push_frames(frames_of(control, Tables::of_process().as_ref())?);
            Ok(capture)
        }
        _ if !backtrace::AVAILABLE => Err(BacktraceError::Unsupported),
        _ => Err(BacktraceError::NotFound),
    }
}

/// Returns the backtrace of a greenlet that has not ended, by the tables of the process.
pub(super) fn frames_of(control: ControlRef, tables: Option<&Tables>) -> Result<Frames, BacktraceError> {
    if !backtrace::AVAILABLE {
        return Err(BacktraceError::Unsupported);
    }
    let find = match control.state() {
        State::Unstarted | State::Delayed => return Err(BacktraceError::NotBegun),
        State::Running => backtrace::running,
        _ => backtrace::suspended,
    };
    tables.and_then(|tables| find(control, tables)).ok_or(BacktraceError::UnknownStack)
}

/// The reason why there is no backtrace of a greenlet, from [`backtrace_of`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BacktraceError {
    /// The program was built without the feature `backtrace`, or for a system without it.
    Unsupported,
    /// No greenlet of this OS thread has the id. It may have ended.
    NotFound,
    /// The body of the greenlet has not begun.
    NotBegun,
    /// The greenlet is on a stack of the program's own, or the system does not tell what is mapped.
    UnknownStack,
}

impl fmt::Display for BacktraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BacktraceError::Unsupported => {
                "backtraces need the feature `backtrace` of greenhub, on Linux on x86-64 or 64-bit ARM"
            }
            BacktraceError::NotFound => "no greenlet of this OS thread has this id",
            BacktraceError::NotBegun => "the body has not begun",
            BacktraceError::UnknownStack => "it is on a stack that is not known",
        })
    }
}

impl std::error::Error for BacktraceError {}

impl From<BacktraceError> for io::Error {
    fn from(error: BacktraceError) -> io::Error {
        let kind = match error {
            BacktraceError::Unsupported => io::ErrorKind::Unsupported,
            BacktraceError::NotFound => io::ErrorKind::NotFound,
            BacktraceError::NotBegun | BacktraceError::UnknownStack => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
