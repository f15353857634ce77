//! Switches the blocking detector of an OS thread on and off.

use std::io;
use std::time::Duration;

use crate::error::LoopError;
use crate::greenlet::local;
use crate::main_loop::blocking::Detector;

/// Reports each green thread of this OS thread, and each callback, that runs for longer than `resolution` without
/// giving way, as [`Report::Blocked`](crate::Report::Blocked); `None`: no longer. Eventlet's `hub_blocking_detection`. Does not switch.
///
/// What runs so keeps all others of its OS thread waiting: a computation that never yields, or a call that blocks the
/// OS thread, as those of std do. The report comes while it lasts, once, after one and a half times the resolution at
/// most, on another OS thread. It tells who it is and where it was spawned; with the feature `backtrace` also what it
/// does, on Linux on x86-64 and 64-bit ARM: the signal handler copies the end of the stack, and the backtrace is made of
/// the copy.
///
/// Off, which it is at first, it costs nothing, and on next to nothing: the loop does the same in both cases, and an OS
/// thread looks at it four times in each `resolution`. It uses the signal `SIGURG`, which it sends to this OS
/// thread only while that is suspected; system calls that are under way there go on (`SA_RESTART`), but those that
/// the system never resumes, such as `poll` or `nanosleep`, end with `EINTR`. On Linux it carries a value by which it is
/// known: any other `SIGURG` goes to the program's own handler, if there is one. Elsewhere as many are taken as were sent.
/// When the last detector of the process is switched off the signal is as before. A forked child has none.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{Report, hub_blocking_detection, set_report_stream};
/// use std::time::Duration;
/// let (told, blocked) = std::sync::mpsc::channel();
/// set_report_stream(move |report| {
///     if let Report::Blocked { name, .. } = report {
///         let _ = told.send(name.clone());
///     }
/// });
/// hub_blocking_detection(Duration::from_millis(20))?;
/// let selfish = hub_core::Builder::new().name("selfish").spawn(move || blocked.recv())?; // blocks the OS thread
/// assert!(selfish.join()??.contains("selfish"));
/// hub_blocking_detection(None)?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if `resolution` is zero, [`LoopError::ThreadEnding`] in an OS thread
/// that ends, and what the system says if it has no thread or refuses the signal. A detector that was on stays on
/// then.
pub fn hub_blocking_detection(resolution: impl Into<Option<Duration>>) -> io::Result<()> {
    let resolution = resolution.into();
    if resolution == Some(Duration::ZERO) {
        let text = "the blocking detector needs a resolution above zero; `None` switches it off";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let local = local::get_unless_ended()?;
    if !local::will_end_in_order() {
        return Err(LoopError::ThreadEnding.into());
    }
    let detector = &local.main_loop.detector;
    let new =
        resolution.map(|resolution| Detector::start(&local.main_loop.pulse, resolution).map(Box::new)).transpose()?;
    // It waits for its watchdog.
    drop(detector.replace(new));
    Ok(())
}
