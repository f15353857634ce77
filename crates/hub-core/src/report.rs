//! The report stream, for failures that no caller receives as a result.

mod standard_error;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, mpsc};
use std::time::Duration;

use crate::error::{ExitKind, GreenError, MAX_THROWS};

/// A failure or a warning that no caller receives as a result.
#[derive(Debug)]
#[non_exhaustive]
pub enum Report {
    /// A green thread failed, and its result was never taken.
    Unhandled {
        /// The name of the green thread, and the place where it was spawned.
        name: String,
        /// The message of the panic or the error.
        error: String,
        /// The type of its result, if it returned an `Err`.
        result: Option<&'static str>,
    },
    /// A job of a thread pool failed after its caller had left the wait.
    ///
    /// An exit may have unwound the caller.
    JobFailed {
        /// The pool, the place of the call, and the place where the calling green thread was spawned.
        job: String,
        /// The message of the panic or the error.
        error: String,
        /// The type of its result, if it returned an `Err`.
        result: Option<&'static str>,
    },
    /// A plain greenlet failed, and no parent waited for its result.
    GreenletFailed {
        /// The place where it was made.
        made_at: String,
        /// The failure.
        error: GreenError,
    },
    /// A callback that was linked to a green thread panicked.
    LinkFailed {
        /// The green thread.
        name: String,
        /// The failure.
        error: GreenError,
    },
    /// A callback of the main loop panicked.
    CallbackFailed {
        /// The purpose of the callback.
        operation: Cow<'static, str>,
        /// The place where the callback was made, unless it is the waker of a future.
        made_at: Option<&'static Location<'static>>,
        /// The failure.
        error: GreenError,
    },
    /// A greenlet has caught the same exit a hundred times and lives on.
    ///
    /// It calls [`catch_unwind`](std::panic::catch_unwind) in a loop and does not check [`is_exit`](crate::is_exit).
    /// Reported once for each greenlet.
    Refused {
        /// The name of the greenlet, and the place where it was spawned.
        greenlet: String,
        /// The exit that it caught.
        exit: ExitKind,
    },
    /// A loop had nothing to do for the [quiet time](crate::set_quiet_time).
    ///
    /// Its green threads wait only for wake-ups from other OS threads.
    Quiet {
        /// Each green thread: its name, the place where it was spawned, and its reason to wait.
        parked: Vec<String>,
    },
    /// Every OS thread of the process waits for another one.
    ///
    /// They wait for locks, queues, events or pool jobs.
    ///
    /// This includes OS threads without a hub. OS threads of this library that wait for work do not count. Only a
    /// signal handler could end such a wait. For an OS thread without a hub, another OS thread of this library makes
    /// the report.
    Deadlock {
        /// Each wait of a greenlet or of an OS thread without greenlets: the OS thread, the place of the spawn, and the
        /// reason. With the feature `backtrace`, backtraces of the greenlets follow in more lines.
        threads: Vec<String>,
    },
    /// A green thread or a callback has run for too long without switching. It may still be running.
    ///
    /// See [`hub_blocking_detection`](crate::hub_blocking_detection).
    Blocked {
        /// The name of the green thread or callback, and the place where it was spawned or made.
        name: String,
        /// The least time for which it has run.
        held: Duration,
        /// The stack of calls, with the feature `backtrace`.
        backtrace: Option<String>,
    },
    /// Green threads were abandoned without being unwound.
    ///
    /// Their OS thread has ended, or a [shutdown](crate::HubRef::shutdown) has reached its deadline. Their destructors
    /// never run, and their memory is leaked.
    Abandoned {
        /// The name of the OS thread, if it has one.
        thread: Option<String>,
        /// Each green thread: its name, the place where it was spawned, and its last state.
        left: Vec<String>,
    },
    /// The greenlets of an OS thread, in answer to a signal.
    ///
    /// See [`dump_on`](crate::dump_on).
    Dump {
        /// The name of the OS thread, if it has one.
        thread: Option<String>,
        /// The text of [`dump`](crate::dump) there.
        greenlets: String,
    },
    /// A warning: a part of the library works less well than it could.
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
                write!(f, "a greenlet made at {made_at} {}; no parent waited for it", outcome(error))
            }
            Report::LinkFailed { name, error } => write!(f, "a link of green thread {name} {}", outcome(error)),
            Report::CallbackFailed { operation, made_at: Some(made_at), error } => {
                write!(f, "a callback for {operation} made at {made_at} {}", outcome(error))
            }
            Report::CallbackFailed { operation, made_at: None, error } => {
                write!(f, "a callback for {operation} {}", outcome(error))
            }
            Report::Refused { greenlet, exit } => {
                write!(f, "{greenlet} has caught the same {exit} {MAX_THROWS} times and lives on")?;
                f.write_str("; pass a caught payload to `resume_unwind` if `is_exit` returns true for it")
            }
            Report::Quiet { parked } => {
                f.write_str("nothing has happened for a while, and only another OS thread could change that")?;
                parked.iter().try_for_each(|one| write!(f, "\n  {one}"))
            }
            Report::Deadlock { threads } => {
                f.write_str(match threads.len() {
                    1 => "deadlock: this wait needs another OS thread, and there is none",
                    _ => "deadlock: each OS thread waits for another one",
                })?;
                threads.iter().try_for_each(|one| write!(f, "\n  {one}"))
            }
            Report::Blocked { name, held, backtrace } => {
                let held = rounded(*held);
                write!(f, "{name} has run for {held:?} without yielding, so that all others wait")?;
                match backtrace {
                    Some(backtrace) => write!(f, "\n{}", backtrace.trim_end()),
                    None if cfg!(feature = "backtrace") => Ok(()),
                    None => f.write_str("; the feature `backtrace` shows where"),
                }
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
            Report::Dump { thread, greenlets } => {
                let thread = thread.as_deref().unwrap_or("<unnamed>");
                write!(f, "OS thread {thread:?}\n{}", greenlets.trim_end())
            }
            Report::Warning(text) => f.write_str(text),
        }
    }
}

impl Report {
    /// Returns a key that is equal for failures with the same kind, place and error. `text` is the formatted report.
    ///
    /// `None` for a report that is never counted.
    fn kind(&self, text: &str) -> Option<String> {
        match self {
            Report::Unhandled { name, .. }
            | Report::LinkFailed { name, .. }
            | Report::Refused { greenlet: name, .. } => Some(text.replacen(name, spawn_place(name), 1)),
            Report::JobFailed { .. }
            | Report::GreenletFailed { .. }
            | Report::CallbackFailed { .. }
            | Report::Warning(_) => Some(text.to_owned()),
            // The time differs.
            Report::Blocked { name, backtrace, .. } => Some(format!("{} {backtrace:?}", spawn_place(name))),
            Report::Quiet { .. } | Report::Deadlock { .. } | Report::Abandoned { .. } | Report::Dump { .. } => None,
        }
    }
}

/// Returns a time without digits that mean nothing to a reader.
fn rounded(time: Duration) -> Duration {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if millis < 10 { time } else { Duration::from_millis(millis) }
}

/// Returns the description of a green thread without its name.
fn spawn_place(description: &str) -> &str {
    description.rfind("spawned at ").map_or(description, |index| &description[index..])
}

/// Removes the path from the type name of a `Result`.
fn without_path(result: &str) -> &str {
    result.strip_prefix("core::result::").unwrap_or(result)
}

/// Counts equal texts, in the order of their first appearance.
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

/// Describes a failure. The text of an error names a green thread, which is wrong for a callback.
fn outcome(error: &GreenError) -> String {
    match error {
        GreenError::Panic(panic) => format!("panicked: {panic}"),
        error => format!("failed: {error}"),
    }
}

/// Receives each report before the stream does. A higher layer implements it for [`Observer`].
pub(crate) trait Observe {
    fn reported(report: &Report);
}

/// The type for which [`Observe`] is implemented.
pub(crate) enum Observer {}

type Stream = Arc<dyn Fn(&Report) + Send + Sync>;

/// Decides about the reports of one OS thread. Returns whether the stream gets the report.
pub(crate) type Filter = Rc<dyn Fn(&Report) -> bool>;

thread_local! {
    static FILTER: RefCell<Option<Filter>> = const { RefCell::new(None) };
}

/// Sets the filter of the calling OS thread. Returns the former one, for the caller to drop.
pub(crate) fn set_filter(filter: Option<Filter>) -> Option<Filter> {
    FILTER.try_with(|cell| cell.replace(filter)).ok().flatten()
}

/// Asks the filter of the calling OS thread. Without a filter, and if it panics, the stream gets the report.
fn passes_filter(report: &Report) -> bool {
    let filter = FILTER.try_with(|cell| cell.borrow().clone()).ok().flatten();
    filter.is_none_or(|filter| {
        catch_unwind(AssertUnwindSafe(|| filter(report))).unwrap_or_else(|payload| {
            std::mem::forget(payload);
            true
        })
    })
}

static STREAM: RwLock<Option<Stream>> = RwLock::new(None);
static ENABLED: AtomicBool = AtomicBool::new(true);

/// Sends reports to `stream` instead of standard error, for the whole process. Does not switch.
///
/// The default writes each report to standard error by one call. It writes the first of several equal failures at once,
/// and the number of the others after a second. Failures are equal if the place of the spawn and the text of the error
/// are. A number that was not written yet is lost if the process is killed or aborts.
///
/// The stream must not block: it is called in the middle of the main loop and at the end of OS threads. The default
/// blocks the OS thread if standard error is a full pipe. If the stream panics, the panic is ignored and that report is
/// lost. The present stream cannot be read back, because another OS thread may replace it.
///
/// ```
/// greenhub::debug::set_report_stream(|report| eprintln!("greenhub: {report}"));
/// ```
#[doc(alias = "exception_stream")]
#[doc(alias = "handle_error")]
#[doc(alias = "print_exception")]
pub fn set_report_stream(stream: impl Fn(&Report) + Send + Sync + 'static) {
    let former = STREAM.write().unwrap_or_else(|poisoned| poisoned.into_inner()).replace(Arc::new(stream));
    standard_error::end();
    // The destructor of the former stream may make a report, so no lock is held here.
    drop(former);
}

/// Enables or disables reports of every kind, warnings included. Does not switch.
///
/// Applies to the whole process, also to the events for subscribers of `tracing`. Eventlet's `hub_exceptions`. The
/// results of `wait` and `join` do not change. [`ignore_result`](crate::GreenThread::ignore_result) skips the report of
/// a single result.
///
/// ```
/// greenhub::debug::hub_exceptions(false);
/// drop(greenhub::spawn(|| Err::<(), _>("this error is not reported")));
/// greenhub::thread::yield_now();
/// ```
pub fn hub_exceptions(enabled: bool) {
    ENABLED.store(enabled, Ordering::Relaxed);
}

fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Reports a warning that no caller would receive. Does not unwind, and does not switch.
///
/// Hubs use it for messages of an underlying library.
///
/// ```
/// greenhub::debug::set_report_stream(|report| assert_eq!(report.to_string(), "only 2 descriptors are left"));
/// greenhub::hub::warn("only 2 descriptors are left");
/// ```
pub fn warn(text: impl Into<String>) {
    tell(Report::Warning(text.into()));
}

/// Reports a callback that panicked. The loop continues.
pub(crate) fn callback_failed(
    operation: impl Into<Cow<'static, str>>,
    made_at: Option<&'static Location<'static>>,
    error: GreenError,
) {
    tell(Report::CallbackFailed { operation: operation.into(), made_at, error });
}

/// Reports that the part of the loop for `purpose` has failed. The loop continues.
pub fn report_failure(purpose: &'static str, error: impl std::error::Error + Send + Sync + 'static) {
    callback_failed(purpose, None, GreenError::custom(error));
}

/// Reports the abandoned green threads of the calling OS thread, and waits up to a second for the report.
///
/// Another OS thread makes the report. The thread-locals that a stream needs may be gone here, and after a call of
/// `std::process::exit` the caller may hold the locks of the stream.
pub(crate) fn abandoned(left: Vec<String>) {
    const TIMEOUT: Duration = Duration::from_secs(1);
    if !is_enabled() {
        return;
    }
    let thread = std::panic::catch_unwind(|| std::thread::current().name().map(str::to_owned)).unwrap_or_default();
    let (sender, done) = mpsc::channel::<()>();
    let report = move || {
        tell(Report::Abandoned { thread, left });
        drop(sender);
    };
    // If no OS thread can be started, the report is lost.
    if std::thread::Builder::new().name("greenhub-report".into()).spawn(report).is_ok() {
        let _ = done.recv_timeout(TIMEOUT);
    }
}

/// Passes the report to the stream.
///
/// The values in a report belong to the program. Formatting and dropping them may panic, so both happen in here.
pub(crate) fn tell(report: Report) {
    let outcome = catch_unwind(AssertUnwindSafe(move || {
        let report = report;
        let passes = passes_filter(&report);
        if !passes || !is_enabled() {
            return;
        }
        <Observer as Observe>::reported(&report);
        let stream = STREAM.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        match stream {
            Some(stream) => stream(&report),
            None => standard_error::write(&report),
        }
    }));
    if let Err(payload) = outcome {
        std::mem::forget(payload);
    }
}
