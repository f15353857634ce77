//! Inspection of a running hub, Eventlet's `debug`: waiters and their reasons, and callbacks that block the loop.
//!
//! | Eventlet | here |
//! |---|---|
//! | `format_hub_listeners`, `format_hub_timers` | [`format_hub_listeners`], [`format_hub_timers`]; as data: [`listeners`], [`timers`] |
//! | – | [`format_green_threads`]; as data: [`greenlets`]; with backtraces: [`dump`], [`dump_on`] a signal, [`backtrace_of`] |
//! | – | [`format_snapshot`]: the hub and its greenlets as JSON, for programs |
//! | `hub_listener_stacks`, `hub_timer_stacks` | [`hub_listener_stacks`], [`hub_timer_stacks`]: for callbacks; the location alone is always recorded |
//! | `hub_blocking_detection` | [`hub_blocking_detection`] |
//! | `hub_exceptions` | [`hub_exceptions`] |
//! | `hub_prevent_multiple_readers` | [`hub_prevent_multiple_readers`] |
//! | – | [`install_panic_hook`]: a line before the message of a panic names its green thread |
//! | `backdoor` | `console`, with the feature of that name: a few commands instead of Python |
//! | `tpool_exceptions` | – : the caller of a job gets its panic as an error |
//! | `spew`, `unspew` | – : compiled code cannot be traced line by line; a debugger can |
//!
//! In gdb, the script `debug/greenhub-gdb.py` of the crate `greenhub` lists the green threads of a process or a core
//! file, and runs commands in them: `info greenthreads`, `greenthread 7 bt`, `greenthread apply all bt`.
//!
//! With the feature `console`, `console` serves the lists and backtraces on a socket. It is off by default, because its
//! clients can kill green threads.
//!
//! With the feature `tracing`, `in_span` runs a function in a span of that crate across calls that switch. With the
//! feature `metrics`, `publish_metrics` publishes the numbers of each hub to the recorder of that crate.
//!
//! The switches `hub_…` have no getters, as in Eventlet: only a developer reads their effect. They set a value of the
//! process, except [`hub_blocking_detection`].
//!
//! All else concerns the calling OS thread. To inspect the hub of another OS thread, run the call there with
//! [`Remote::spawn`](hub_core::Remote::spawn).

#[cfg(feature = "console")]
mod console;
mod panic_hook;
mod snapshot;

use std::fmt::{Display, Write};

#[cfg(feature = "console")]
pub use self::console::{Console, console};
pub use self::panic_hook::install_panic_hook;
pub use self::snapshot::format_snapshot;

pub use hub_core::{
    BacktraceError, DumpOn, GreenletInfo, GreenletKind, GreenletState, ListenerInfo, Report, TargetInfo, TimerInfo,
    TimerPurpose, backtrace_of, dump, dump_on, greenlets, hub_blocking_detection, hub_exceptions, hub_listener_stacks,
    hub_prevent_multiple_readers, hub_timer_stacks, listeners, quiet_time, set_error_message, set_quiet_time,
    set_report_stream, timers,
};

#[cfg(feature = "tracing")]
pub use hub_core::in_span;
#[cfg(feature = "metrics")]
pub use hub_core::{describe_metrics, flush_metrics, publish_metrics};

use hub_core::hub::Interest;
use hub_core::internal::{listeners_at_most, timers_at_most};

/// Formats the waiters for descriptors, Eventlet's `format_hub_listeners`. Does not switch.
///
/// Readers are listed under `READERS:`, then writers under `WRITERS:`.
///
/// ```
/// use greenhub::Interest;
/// let (reader, _writer) = std::io::pipe()?;
/// let _waiting = greenhub::spawn(move || greenhub::trampoline(&reader, Interest::READ, None));
/// greenhub::thread::yield_now();
/// let text = greenhub::debug::format_hub_listeners();
/// assert!(text.starts_with("READERS:\n  reading from "), "{text}");
/// assert!(text.ends_with("WRITERS:\n"), "{text}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn format_hub_listeners() -> String {
    format_listeners_at_most(usize::MAX)
}

/// Like [`format_hub_listeners`], with at most `most` waiters for each direction.
fn format_listeners_at_most(most: usize) -> String {
    let mut text = String::from("READERS:\n");
    push_lines(&mut text, listeners_at_most(Interest::READ, most));
    text.push_str("WRITERS:\n");
    push_lines(&mut text, listeners_at_most(Interest::WRITE, most));
    text
}

/// Formats the armed timers in the order of their due times. Does not switch.
///
/// Eventlet's `format_hub_timers`.
///
/// ```
/// use std::time::Duration;
/// greenhub::spawn_after(Duration::from_secs(5), || ());
/// let text = greenhub::debug::format_hub_timers();
/// assert!(text.starts_with("TIMERS:\n") && text.contains(file!()), "{text}");
/// ```
#[must_use]
pub fn format_hub_timers() -> String {
    format_timers_at_most(usize::MAX)
}

/// Like [`format_hub_timers`], with at most `most` timers.
fn format_timers_at_most(most: usize) -> String {
    let mut text = String::from("TIMERS:\n");
    push_lines(&mut text, timers_at_most(most));
    text
}

/// Formats the greenlets that have not ended. Does not switch.
///
/// Each line has the number, name, spawn location and wait reason.
///
/// ```
/// let sleeper = greenhub::Builder::new().name("sleeper".into()).spawn(|| greenhub::sleep(std::time::Duration::MAX))?;
/// greenhub::thread::yield_now();
/// println!("{}", greenhub::debug::format_green_threads());
/// assert!(greenhub::debug::format_green_threads().contains("green thread \"sleeper\" (spawned at "));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn format_green_threads() -> String {
    let mut text = String::from("GREEN THREADS:\n");
    push_lines(&mut text, (greenlets(), 0));
    text
}

/// Writes a line for each entry, and the number of the entries that are left out.
fn push_lines(text: &mut String, (lines, omitted): (Vec<impl Display>, usize)) {
    for line in lines {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {line}");
    }
    if omitted > 0 {
        let _ = writeln!(text, "  and {omitted} more");
    }
}
