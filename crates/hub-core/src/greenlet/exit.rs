//! Exits, which end a greenlet from outside, and caught panics: plain data and their conversions.
//!
//! An exit is a flag on the control block and a reason in the [cold state](super::cold). The target reads the flag when
//! it next arrives from a park, and starts to unwind its own frames. No panic hook runs. If a `catch_unwind` on the way
//! swallows the exit, it is thrown again at the next park: a kill as long as the greenlet lives, the exit of a scope as
//! long as the scope is open. Between two throws the main loop takes a turn. After
//! [`MAX_THROWS`](crate::error::MAX_THROWS) throws the exit is given up.
//!
//! Payloads of panics are foreign: dropping one may panic again, and is contained.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

pub(crate) use crate::base::contain::drop_contained;
use crate::error::{ExitKind, GreenError, Linked, Panic, Timeout};

/// The reason why a greenlet has to end.
#[derive(Clone, Debug)]
pub(crate) enum Exit {
    /// Ends the whole greenlet. The error is its result.
    Kill(GreenError),
    /// Ends the scope of the timeout with this number. `shields` is the number of shields under which it was opened.
    Timeout { scope: u64, shields: u8 },
    /// Ends the scope with this number, because its linked green thread has ended. `shields` is the number of shields
    /// under which it was opened.
    Linked { scope: u64, shields: u8, linked: Linked },
}

impl Exit {
    /// Returns the scope that the exit ends.
    pub(crate) fn scope(&self) -> Option<u64> {
        match self {
            Exit::Kill(_) => None,
            Exit::Timeout { scope, .. } | Exit::Linked { scope, .. } => Some(*scope),
        }
    }

    pub(super) fn kind(&self) -> ExitKind {
        match self {
            Exit::Kill(_) => ExitKind::Kill,
            Exit::Timeout { .. } => ExitKind::Timeout,
            Exit::Linked { .. } => ExitKind::Link,
        }
    }

    /// Returns the number of shields that the exit passes: those inside which its scope was opened.
    pub(super) fn shields(&self) -> u8 {
        match self {
            Exit::Kill(_) => 0,
            Exit::Timeout { shields, .. } | Exit::Linked { shields, .. } => *shields,
        }
    }
}

/// The panic payload of an exit.
pub(crate) struct Payload(pub(crate) Exit);

impl From<Exit> for GreenError {
    fn from(exit: Exit) -> GreenError {
        match exit {
            Exit::Kill(error) => error,
            Exit::Timeout { scope, .. } => GreenError::Timeout(Timeout::orphan(scope)),
            Exit::Linked { linked, .. } => GreenError::Linked(linked),
        }
    }
}

/// The progress of the kill of a green thread that has not ended.
///
/// It is for code that waits for the ends of many green threads.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KillProgress {
    /// The green thread was not killed.
    None,
    /// A mask, a shield or a wait for a lock holds the kill back.
    HeldBack,
    /// The kill is thrown in the next turn, for the first time or again.
    Striking,
    /// The green thread has swallowed the kill too often and lives on.
    Refused,
}

/// Returns whether a caught payload is an exit: a kill, a timeout or a link. Does not switch.
///
/// A payload from [`catch_unwind`] is that of a panic, or an exit on its way out of the green thread or up to its
/// scope. Pass an exit to [`resume_unwind`], so that it continues. A swallowed exit is thrown again at the next wait,
/// after the main loop has taken a turn. After a hundred times it is given up and [reported](crate::Report::Refused).
/// The green thread then lives on, and [`kill`](crate::GreenThread::kill) returns
/// [`KillOutcome::Refused`](crate::KillOutcome::Refused).
///
/// # Examples
///
/// A worker that survives the panics of its jobs, and can be killed:
///
/// ```
/// use greenhub::greenthread::{KillOutcome, is_exit};
/// use greenhub::{sleep, spawn};
/// use greenhub::thread::yield_now;
/// use std::panic::{catch_unwind, resume_unwind};
/// use std::time::Duration;
/// let worker = spawn(|| {
///     loop {
///         let job = catch_unwind(|| sleep(Duration::from_secs(60)));
///         if let Err(payload) = job {
///             if is_exit(&payload) {
///                 resume_unwind(payload); // this green thread has to end
///             }
///             // The job panicked: log it, and go on with the next one.
///         }
///     }
/// });
/// yield_now();
/// assert_eq!(worker.kill(), KillOutcome::Ended);
/// ```
#[doc(alias = "GreenletExit")]
#[must_use]
pub fn is_exit(payload: &(dyn Any + Send)) -> bool {
    exit_kind(payload).is_some()
}

/// Returns the kind of exit of a caught payload, or `None` for a panic. Does not switch.
///
/// See [`is_exit`].
///
/// ```
/// use greenhub::{sleep, with_timeout};
/// use greenhub::greenthread::{ExitKind, exit_kind};
/// use std::panic::{catch_unwind, resume_unwind};
/// use std::time::Duration;
/// let late = with_timeout(Duration::from_millis(1), || {
///     let payload = catch_unwind(|| sleep(Duration::from_secs(60))).unwrap_err();
///     assert_eq!(exit_kind(&payload), Some(ExitKind::Timeout));
///     resume_unwind(payload)
/// });
/// assert!(late.is_err());
/// ```
#[doc(alias = "GreenletExit")]
#[must_use]
pub fn exit_kind(payload: &(dyn Any + Send)) -> Option<ExitKind> {
    if let Some(Payload(exit)) = payload.downcast_ref() {
        return Some(exit.kind());
    }
    // A reference to the box of `catch_unwind` coerces to a reference to the box itself, instead of to its content.
    payload.downcast_ref::<Box<dyn Any + Send>>().and_then(|payload| exit_kind(payload.as_ref()))
}

/// Runs `f` within the scope `number`, which `open` keeps open.
///
/// Returns an exit of that scope as the error. All other unwinding goes through.
#[inline]
pub(crate) fn in_scope<S, R>(number: u64, open: S, f: impl FnOnce() -> R) -> Result<R, Exit> {
    let result = catch_unwind(AssertUnwindSafe(f));
    drop(open);
    match result {
        Ok(value) => Ok(value),
        Err(payload) => match payload.downcast::<Payload>() {
            Ok(payload) if payload.0.scope() == Some(number) => Err(payload.0),
            Ok(payload) => resume_unwind(payload),
            Err(payload) => resume_unwind(payload),
        },
    }
}

/// Converts a caught payload to the result for the waiters of the greenlet.
#[cold]
pub(crate) fn error_of(payload: Box<dyn Any + Send>) -> GreenError {
    match payload.downcast::<Payload>() {
        Ok(exit) => exit.0.into(),
        Err(payload) => GreenError::Panic(Panic::new(payload)),
    }
}

/// Runs foreign code in a place where nothing may unwind. Returns a panic as an error.
pub(crate) fn contained<R>(foreign: impl FnOnce() -> R) -> Result<R, GreenError> {
    catch_unwind(AssertUnwindSafe(foreign)).map_err(error_of)
}
