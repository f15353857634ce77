//! The switch of an OS thread's blocking detector.

use std::io;
use std::time::Duration;

use crate::greenlet::local;

/// Reports greenlets that run for longer than `resolution` without a switch. Does not switch.
///
/// Each green thread of this OS thread, and each callback of its main loop, is watched and reported as
/// [`Report::Blocked`](crate::Report::Blocked). `None` switches the detector off. Eventlet's `hub_blocking_detection`.
///
/// Such a greenlet starves all others of its OS thread. It is a computation that never yields, or a call that blocks
/// the OS thread, as those of std do. The report comes once, while the greenlet still runs, on another OS thread, and
/// at most one and a half times the resolution after the greenlet began to run. It names the greenlet and the location
/// of its spawn. With the feature `backtrace` it has a backtrace too, on Linux on x86-64 and 64-bit ARM: the signal
/// handler copies the end of the stack, and the backtrace is made from the copy.
///
/// The environment variable `GREENHUB_BLOCKING` switches the detector on without a change of the program. It has the
/// resolution in seconds, as in `GREENHUB_BLOCKING=0.5`. It applies to each OS thread from its first hub on, except for
/// the pool threads of this library, whose jobs may block. A call of this function goes before the variable: an earlier
/// one makes the OS thread ignore it, and a later one replaces what it has set. An empty value and zero leave the
/// detector off. A value that is no time does so, too, and is [reported](crate::set_report_stream) once.
///
/// The detector is off by default, and costs nothing then. Switched on it costs next to nothing: the loop does the same
/// in both cases, and an OS thread samples it four times in each `resolution`.
///
/// The detector uses the signal `SIGURG`. It sends the signal to this OS thread only while it suspects a greenlet.
/// System calls in progress there resume (`SA_RESTART`), except those that the system never resumes, such as `poll` or
/// `nanosleep`, which fail with `EINTR`. On Linux the signal carries a value that identifies it, and any other `SIGURG`
/// goes to the program's own handler, if there is one. Elsewhere the handler consumes as many signals as were sent.
/// When the last detector of the process is switched off, the former handling of the signal is restored. A forked child
/// has no detector.
///
/// ```
/// use greenhub::debug::{Report, hub_blocking_detection, set_report_stream};
/// use std::time::Duration;
/// let (sender, blocked) = std::sync::mpsc::channel();
/// set_report_stream(move |report| {
///     if let Report::Blocked { name, .. } = report {
///         let _ = sender.send(name.clone());
///     }
/// });
/// hub_blocking_detection(Duration::from_millis(20))?;
/// // `recv` of std blocks the OS thread.
/// let selfish = greenhub::Builder::new().name("selfish".into()).spawn(move || blocked.recv())?;
/// assert!(selfish.join()??.contains("selfish"));
/// hub_blocking_detection(None)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) if `resolution` is zero,
/// [`ThreadEnding`](crate::LoopErrorKind::ThreadEnding) in an OS thread that ends, and the system's error if it refuses
/// the OS thread or the signal. In these cases a detector that was on stays on.
#[doc(alias = "monitor_thread")]
#[doc(alias = "max_blocking_time")]
pub fn hub_blocking_detection(resolution: impl Into<Option<Duration>>) -> io::Result<()> {
    let resolution = resolution.into();
    if resolution == Some(Duration::ZERO) {
        let text = "the blocking detector needs a resolution above zero; `None` switches it off";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    local::get_unless_ended()?.main_loop.detect_blocking(resolution)
}
