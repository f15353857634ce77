//! The reporting stream: what went wrong where nobody asked for a result.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, mpsc};
use std::time::Duration;

use crate::error::{ExitKind, GreenError, MOST_THROWS};

/// Something that went wrong and that no caller will be told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Report {
    /// A green thread failed and nobody took its result.
    Unhandled {
        /// Its name and where it was spawned.
        name: String,
        /// The message of the panic or the error.
        error: String,
        /// The type of its result, if it returned an `Err`.
        result: Option<&'static str>,
    },
    /// A job of a thread pool failed, and its caller had left: it was killed, or it timed out.
    JobFailed {
        /// The pool, where the job was called, and where the calling green thread was spawned.
        job: String,
        /// The message of the panic or the error.
        error: String,
        /// The type of its result, if it returned an `Err`.
        result: Option<&'static str>,
    },
    /// A plain greenlet failed, and no parent waited for what came of it.
    GreenletFailed {
        /// Where it was made.
        made_at: String,
        /// What came of it.
        error: GreenError,
    },
    /// A callback that was linked to a green thread panicked.
    LinkFailed {
        /// The green thread.
        name: String,
        /// What happened.
        error: GreenError,
    },
    /// A callback of the main loop panicked.
    CallbackFailed {
        /// What it was called for.
        doing: &'static str,
        /// What happened.
        error: GreenError,
    },
    /// A greenlet has caught the same exit a hundred times and lives on: it calls
    /// [`catch_unwind`](std::panic::catch_unwind) in a loop and does not ask [`is_exit`](crate::is_exit). Reported once for
    /// each greenlet.
    Refused {
        /// Its name and where it was spawned.
        greenlet: String,
        /// The exit that it has caught.
        exit: ExitKind,
    },
    /// A loop has had nothing to do for the [quiet time](crate::set_quiet_time): all that its green threads wait for
    /// would have to come from another OS thread.
    Quiet {
        /// Each green thread: its name, where it was spawned, and what it waits for.
        parked: Vec<String>,
    },
    /// Every OS thread of the process, with a hub or without, waits for locks, queues, events or pool jobs that only another
    /// one could serve. Threads of this library that wait for work do not count. Only a signal handler could end such a wait.
    /// An OS thread without a hub has it told by a thread of its own.
    Deadlock {
        /// Each greenlet, and each OS thread without greenlets: its OS thread, where it was spawned, and what it waits for.
        threads: Vec<String>,
    },
    /// A green thread has run for too long without giving way, or a callback has: see
    /// [`hub_blocking_detection`](crate::hub_blocking_detection). It may run still.
    Blocked {
        /// Its name and where it was spawned.
        name: String,
        /// For how long, at least.
        held: Duration,
        /// What it was doing, call by call, with the feature `backtrace`.
        backtrace: Option<String>,
    },
    /// An OS thread has ended, or a [shutdown](crate::HubRef::shutdown) has reached its deadline, and left green threads
    /// that were not unwound: their destructors never run, and their memory stays as it is.
    Abandoned {
        /// The name of the OS thread, if it has one.
        thread: Option<String>,
        /// Each green thread: its name, where it was spawned, and what it was doing.
        left: Vec<String>,
    },
    /// Something works less well than it could.
    Warning(String),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Unhandled { name, error, result: None } => write!(f, "green thread {name} failed: {error}"),
            Report::Unhandled { name, error, result: Some(result) } => {
                write!(f, "green thread {name} returned an error: {error} ({})", without_path(result))
            }
            Report::JobFailed { job, error, result: None } => {
                write!(f, "a job of {job} failed after its caller had left: {error}")
            }
            Report::JobFailed { job, error, result: Some(result) } => {
                write!(
                    f,
                    "a job of {job} returned an error after its caller had left: {error} ({})",
                    without_path(result)
                )
            }
            Report::GreenletFailed { made_at, error } => {
                write!(f, "a greenlet made at {made_at} {}; no parent waited for it", how(error))
            }
            Report::LinkFailed { name, error } => write!(f, "a link of green thread {name} {}", how(error)),
            Report::CallbackFailed { doing, error } => write!(f, "a callback for {doing} {}", how(error)),
            Report::Refused { greenlet, exit } => {
                write!(f, "{greenlet} has caught the same {exit} {MOST_THROWS} times and lives on")?;
                f.write_str("; a caught payload of which `is_exit` is true belongs to `resume_unwind`")
            }
            Report::Quiet { parked } => {
                f.write_str("nothing has happened for a while, and only another OS thread could change that")?;
                parked.iter().try_for_each(|one| write!(f, "\n  {one}"))
            }
            Report::Deadlock { threads } => {
                f.write_str("deadlock: each OS thread waits for another one")?;
                threads.iter().try_for_each(|one| write!(f, "\n  {one}"))
            }
            Report::Blocked { name, held, backtrace } => {
                write!(f, "{name} has run for {held:?} without giving way, so that all others wait")?;
                backtrace.as_ref().map_or(Ok(()), |backtrace| write!(f, "\n{}", backtrace.trim_end()))
            }
            Report::Abandoned { thread, left } => {
                let thread = thread.as_deref().unwrap_or("<unnamed>");
                let (number, plural) = (left.len(), if left.len() == 1 { "" } else { "s" });
                write!(f, "OS thread {thread:?} abandoned {number} green thread{plural}, whose destructors never run")?;
                f.write_str(" (greenhub::thread::os::spawn ends green threads in order)")?;
                by_text(left).into_iter().try_for_each(|(one, count)| match count {
                    1 => write!(f, "\n  {one}"),
                    count => write!(f, "\n  {count} × {one}"),
                })
            }
            Report::Warning(text) => f.write_str(text),
        }
    }
}

/// The name of a `Result` as it is written.
fn without_path(result: &str) -> &str {
    result.strip_prefix("core::result::").unwrap_or(result)
}

/// Each text once, with how often it is there, in the order of its first place.
fn by_text(texts: &[String]) -> Vec<(&str, usize)> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    let mut places = HashMap::new();
    for text in texts {
        let place = *places.entry(text.as_str()).or_insert(counts.len());
        match counts.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => counts.push((text, 1)),
        }
    }
    counts
}

/// How a failure came about. The text of an error speaks of a green thread, which a callback is not.
fn how(error: &GreenError) -> String {
    match error {
        GreenError::Panic(message) => format!("panicked: {message}"),
        error => format!("failed: {error}"),
    }
}

/// Hears of each report before the stream does. The floor above implements it, for [`Observer`].
pub(crate) trait Observe {
    fn reported(report: &Report);
}

/// The type for which [`Observe`] is implemented.
pub(crate) enum Observer {}

type Stream = Arc<dyn Fn(&Report) + Send + Sync>;

static STREAM: RwLock<Option<Stream>> = RwLock::new(None);
static ENABLED: AtomicBool = AtomicBool::new(true);

/// Sends reports to `stream` instead of standard error, for the whole process. Does not switch.
///
/// The stream must not block: it is called in the middle of the main loop and at the end of OS threads. A write to
/// standard error blocks the OS thread if that is a pipe that nobody empties. A stream that panics is ignored for
/// that report.
///
/// ```
/// hub_core::set_report_stream(|report| eprintln!("greenhub: {report}"));
/// ```
pub fn set_report_stream(stream: impl Fn(&Report) + Send + Sync + 'static) {
    let former = STREAM.write().unwrap_or_else(|poisoned| poisoned.into_inner()).replace(Arc::new(stream));
    // Its destructor may report something.
    drop(former);
}

/// Switches reports of failed callbacks and green threads on or off, for the whole process.
/// Eventlet's `hub_exceptions`. What `wait` and `join` return does not change. A single result is passed over by
/// [`ignore_result`](crate::GreenThread::ignore_result).
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// hub_core::hub_exceptions(false);
/// drop(hub_core::spawn(|| Err::<(), _>("nobody hears of this")));
/// hub_core::yield_now();
/// # });
/// ```
pub fn hub_exceptions(enabled: bool) {
    ENABLED.store(enabled, Ordering::Relaxed);
}

/// Reports that something works less well than it could, where no caller would be told: for hubs, of what a
/// library under them says. Does not unwind, and does not switch.
///
/// ```
/// hub_core::set_report_stream(|report| assert_eq!(report.to_string(), "only 2 descriptors are left"));
/// hub_core::warn("only 2 descriptors are left");
/// ```
pub fn warn(text: impl Into<String>) {
    tell(Report::Warning(text.into()));
}

/// Reports green threads that the calling OS thread abandons, from another OS thread, and waits for that for a second.
///
/// The thread-locals that a stream needs may be gone here, and after a call of `std::process::exit` its locks may be held
/// by the caller.
pub(crate) fn abandoned(left: Vec<String>) {
    const PATIENCE: Duration = Duration::from_secs(1);
    if !ENABLED.load(Ordering::Relaxed) {
        return;
    }
    let thread = std::panic::catch_unwind(|| std::thread::current().name().map(str::to_owned)).unwrap_or_default();
    let (told, done) = mpsc::channel::<()>();
    let report = move || {
        tell(Report::Abandoned { thread, left });
        drop(told);
    };
    // Without a thread to be had there is no way to report.
    if std::thread::Builder::new().name("greenhub-report".into()).spawn(report).is_ok() {
        let _ = done.recv_timeout(PATIENCE);
    }
}

/// Tells it to the stream. What is in a report is the program's: it is put into words and dropped in here, where
/// it may panic.
pub(crate) fn tell(report: Report) {
    let told = catch_unwind(AssertUnwindSafe(move || {
        let report = report;
        if !ENABLED.load(Ordering::Relaxed) {
            return;
        }
        <Observer as Observe>::reported(&report);
        let stream = STREAM.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        match stream {
            Some(stream) => stream(&report),
            // Standard error that is gone must not end a program.
            None => drop(writeln!(std::io::stderr(), "greenhub: {report}")),
        }
    }));
    if let Err(payload) = told {
        std::mem::forget(payload);
    }
}
