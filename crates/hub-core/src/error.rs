//! The errors of the crate.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::base::id::HubId;
use crate::hub::Interest;

mod exit_kind;
mod linked;
mod loop_error;
mod panic;
mod timeout;

pub use self::exit_kind::ExitKind;
pub(crate) use self::exit_kind::MAX_THROWS;
pub use self::linked::Linked;
pub use self::loop_error::{LoopError, LoopErrorKind, LoopExit};
pub use self::panic::Panic;
pub(crate) use self::panic::payload_text;
pub use self::timeout::Timeout;

/// The error of choosing or building a hub.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name was empty or blank.
    #[error("need to specify a hub: the name is empty{}; give one such as \"epoll\", or none for the default", origin(*.variable))]
    EmptyName {
        /// The environment variable that the name was read from.
        variable: Option<&'static str>,
    },
    /// No hub has that name.
    #[error(
        "there is no hub named {name:?}{}: known here are {usable}{}; register_hub makes one of your own known",
        origin(*.variable),
        need_features(optional)
    )]
    Unknown {
        /// The requested name.
        name: String,
        /// The names of the hubs that this program can use on this system.
        usable: String,
        /// The names of the hubs for this system that are not compiled in. Each needs a Cargo feature of its name.
        optional: Vec<&'static str>,
        /// The environment variable that the name was read from.
        variable: Option<&'static str>,
    },
    /// The hub exists, but this build is without it.
    #[error(
        "the hub {name:?}{} is not compiled in: build greenhub with the feature `{feature}`, or choose another by use_hub or GREENHUB_HUB",
        origin(*.variable)
    )]
    NotCompiled {
        /// The name of the hub.
        name: String,
        /// The Cargo feature that contains the hub.
        feature: &'static str,
        /// The environment variable that the name was read from.
        variable: Option<&'static str>,
    },
    /// The hub exists, but not on this system.
    #[error(
        "the selected hub {name:?}{} is not available on this system: choose another by use_hub or GREENHUB_HUB, or leave the choice open",
        origin(*.variable)
    )]
    Unavailable {
        /// The name of the hub.
        name: String,
        /// The environment variable that the name was read from.
        variable: Option<&'static str>,
    },
    /// No hub is compiled in and available.
    #[error(
        "no hub is available: build greenhub with at least one of the features epoll, kqueue, poll, select, or call use_hub_with"
    )]
    NoneAvailable,
    /// The hub was to be changed from inside the main loop, such as from a callback or a hub.
    #[error("cannot change the hub from inside the main loop: call use_hub from a green thread")]
    InMainloop,
    /// The hub asked for itself while it is built.
    #[error("cannot get the hub from inside its own constructor: the hub does not exist yet")]
    InHub,
    /// The main greenlet embeds the loop, whose hub stays as long.
    #[error("cannot change the hub of a loop that is embedded: drop the Embedded first")]
    Embedded,
    /// Another hub has that name already.
    #[error("cannot register the hub: the name {name:?} is taken; give it another")]
    Duplicate {
        /// The name or alias that is taken.
        name: String,
    },
    /// The system refused to make the hub.
    #[error("the hub {name:?} could not be built: {error}")]
    Build {
        /// The name of the hub.
        name: String,
        /// The error of the system.
        error: Arc<io::Error>,
    },
    /// The OS thread is ending and accepts no new hub.
    #[error("this OS thread is ending: it has no hub any more")]
    ThreadEnding,
}

/// The message, as of `Display`: a `main` that returns an error prints this form.
impl fmt::Debug for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn origin(variable: Option<&'static str>) -> String {
    variable.map(|variable| format!(" (from {variable})")).unwrap_or_default()
}

/// Says which features would add hubs.
fn need_features(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [name] => format!("; {name} needs the feature of this name"),
        [names @ .., last] => format!("; {} and {last} need the features of these names", names.join(", ")),
    }
}

/// The reason why a plain greenlet could not be switched to, or be given a parent.
#[doc(alias = "InvalidSwitchError")]
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GreenletError {
    /// The greenlet would be its own ancestor.
    #[error("cyclic parent chain: a greenlet cannot be its own ancestor")]
    Cycle,
    /// The main greenlet has no parent.
    #[error("the main greenlet cannot have a parent")]
    Main,
    /// The parent of a green thread is the main loop.
    #[error("the parent of a green thread is the main loop and cannot be changed")]
    GreenThread,
    /// The main loop keeps its parent.
    #[error("the main loop cannot be given another parent")]
    MainLoopParent,
    /// The greenlet waits for a wake-up of the main loop, or is in the run queue.
    #[error("cannot switch to a greenlet that waits for the main loop: the main loop wakes it")]
    Parked,
    /// The switch would lead to the main loop.
    ///
    /// The greenlet is the main loop, or has ended and its next living ancestor is the main loop.
    #[error("cannot switch to the main loop: call a blocking function instead")]
    MainLoop,
    /// An exit ended the switch, and this greenlet has caught it too often: it is not thrown again.
    #[error("the switch was ended by an exit that this greenlet has refused")]
    ExitRefused,
    /// The greenlet cannot be unwound, because of `panic = "abort"`.
    #[error(
        "a greenlet cannot be made to exit: this needs unwinding, and this program was built with panic = \"abort\""
    )]
    Unsupported,
}

/// The reason why a green thread, or a wait for one, has no result.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GreenError {
    /// The green thread was killed, without an error of the caller's choice. Eventlet's `GreenletExit`.
    #[doc(alias = "GreenletExit")]
    #[error("the green thread was killed")]
    Kill,
    /// The green thread panicked.
    #[error("the green thread panicked: {0}")]
    Panic(Panic),
    /// A timeout unwound the green thread beyond its scope.
    #[error("the green thread timed out: {0}")]
    Timeout(Timeout),
    /// Another green thread ended, and a scope of this one was [linked](crate::GreenThread::with_link) to it.
    #[error(transparent)]
    Linked(#[from] Linked),
    /// The green thread was killed with an error of the caller's choice.
    #[error("{0}")]
    Custom(Arc<dyn Error + Send + Sync>),
    /// The main loop could not continue, or the hub was replaced.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// A plain greenlet could not be switched to.
    #[error(transparent)]
    Switch(#[from] GreenletError),
    /// The wait has reached its limit. Nothing else has changed.
    #[error("timed out")]
    TimedOut,
    /// A green thread waited for itself, or for all of a pool or group to which it belongs.
    #[error(
        "a green thread cannot wait for its own end, or for that of its pool or group: the wait will never terminate"
    )]
    Deadlock,
    /// The result was taken before.
    #[error("the result of the green thread was taken before")]
    Taken,
}

impl GreenError {
    /// Creates an error of your own, for [`kill_with`](crate::GreenThread::kill_with).
    ///
    /// ```
    /// let error = greenhub::GreenError::custom("shutting down");
    /// assert_eq!(error.to_string(), "shutting down");
    /// assert!(!error.is_kill());
    /// ```
    pub fn custom(error: impl Into<Box<dyn Error + Send + Sync>>) -> GreenError {
        GreenError::Custom(Arc::from(error.into()))
    }

    /// Returns whether this is a kill without an error of the caller's choice.
    ///
    /// Such a kill is never reported. A kill by [`kill_with`](crate::GreenThread::kill_with) returns its own error.
    #[must_use]
    pub fn is_kill(&self) -> bool {
        matches!(self, GreenError::Kill)
    }

    /// Returns whether the green thread panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self, GreenError::Panic(_))
    }

    /// Returns the payload of the panic, for [`resume_unwind`](std::panic::resume_unwind).
    ///
    /// If a clone of this error has returned the payload already, this is the message as a `String`. Tokio's
    /// `JoinError::into_panic`.
    ///
    /// ```should_panic
    /// let green = greenhub::spawn(|| panic!("inner"));
    /// match green.join() {
    ///     Ok(()) => {}
    ///     Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if the green thread did not panic: if [`is_panic`](GreenError::is_panic) is false.
    #[must_use]
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("into_panic for a green thread that did not panic: {error}"),
        }
    }

    /// Like [`into_panic`](GreenError::into_panic), but returns any other error as it is.
    ///
    /// ```
    /// let error = greenhub::spawn(|| panic!("inner")).join().unwrap_err();
    /// let payload = error.try_into_panic()?;
    /// assert_eq!(payload.downcast_ref(), Some(&"inner"));
    /// # Ok::<(), greenhub::GreenError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error if the green thread did not panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, GreenError> {
        match self {
            GreenError::Panic(panic) => Ok(panic.into_payload()),
            error => Err(error),
        }
    }

    /// Returns whether this is the timeout of a scope or of the wait itself.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, GreenError::Timeout(_) | GreenError::TimedOut)
    }
}

/// The reason why a wait for a descriptor failed.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TrampolineError {
    /// Neither or both directions were asked for.
    #[error(
        "not allowed to wait for {interest:?} on descriptor {fd}: a trampoline waits for reading or for writing, use two green threads for both"
    )]
    Interest {
        /// The requested directions.
        interest: Interest,
        /// The number of the descriptor.
        fd: RawFd,
    },
    /// The number is negative or not an open descriptor.
    #[error("cannot wait on descriptor {fd}: the number is negative or not open")]
    InvalidFd {
        /// The number of the descriptor.
        fd: RawFd,
    },
    /// Another green thread waits for the same direction.
    #[doc(alias = "ConcurrentObjectUse")]
    #[error("second simultaneous {action}: another green thread waits on descriptor {fd}; give each its own connection, or allow it with hub_prevent_multiple_readers(false)", action = direction_text(.direction))]
    SecondSimultaneous {
        /// The direction in which both wait.
        direction: Interest,
        /// The number of the descriptor.
        fd: RawFd,
    },
    /// The descriptor was not ready in time.
    #[error("timed out waiting on descriptor {fd}")]
    TimedOut {
        /// The number of the descriptor.
        fd: RawFd,
    },
    /// The error that the caller chose for the timeout.
    #[error("{0}")]
    Custom(Arc<dyn Error + Send + Sync>),
    /// The descriptor was closed during the wait, or its owner before it.
    #[doc(alias = "IOClosed")]
    #[error("operation on closed file: descriptor {fd} was closed, or its number given to another file")]
    Closed {
        /// The number of the descriptor.
        fd: RawFd,
    },
    /// The hub refused the descriptor.
    #[error("the hub cannot wait on descriptor {fd}: {error}{hint}", hint = if_file(.error))]
    Register {
        /// The number of the descriptor.
        fd: RawFd,
        /// The error of the system.
        error: Arc<io::Error>,
    },
    /// The loop cannot wait.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

/// The message, as of `Display`: a `main` that returns an error prints this form.
impl fmt::Debug for TrampolineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn if_file(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::EPERM) { "; a file is read and written without waiting" } else { "" }
}

fn direction_text(interest: &Interest) -> &'static str {
    if *interest == Interest::READ { "read" } else { "write" }
}

impl From<HubError> for io::Error {
    fn from(error: HubError) -> io::Error {
        match error {
            HubError::Build { error: ref cause, .. } => io::Error::new(cause.kind(), error),
            _ => io::Error::other(error),
        }
    }
}

impl From<TrampolineError> for io::Error {
    fn from(error: TrampolineError) -> io::Error {
        let kind = match &error {
            TrampolineError::Interest { .. } => io::ErrorKind::InvalidInput,
            // std has no stable kind for EBADF, and callers check the number itself.
            TrampolineError::InvalidFd { .. } => return io::Error::from_raw_os_error(libc::EBADF),
            TrampolineError::SecondSimultaneous { .. } => io::ErrorKind::ResourceBusy,
            TrampolineError::TimedOut { .. } => io::ErrorKind::TimedOut,
            TrampolineError::Custom(_) => io::ErrorKind::TimedOut,
            TrampolineError::Closed { .. } => io::ErrorKind::NotConnected,
            TrampolineError::Register { error: cause, .. } => match cause.raw_os_error() {
                Some(code) => return io::Error::from_raw_os_error(code),
                None => cause.kind(),
            },
            TrampolineError::Loop(error) => return error.clone().into(),
        };
        io::Error::new(kind, error)
    }
}

impl From<GreenError> for io::Error {
    fn from(error: GreenError) -> io::Error {
        match error {
            GreenError::Loop(error) => error.into(),
            GreenError::Timeout(_) | GreenError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, error),
            GreenError::Linked(linked) => linked.into(),
            GreenError::Deadlock => io::Error::new(io::ErrorKind::Deadlock, error),
            _ => io::Error::other(error),
        }
    }
}

/// The error of a handle whose hub is gone.
///
/// The OS thread of the hub has ended, or was left behind by a fork.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot {operation} hub {hub}: its OS thread has ended, or was left behind by a fork")]
pub struct HubGone {
    pub(crate) operation: &'static str,
    pub(crate) hub: HubId,
}

impl HubGone {
    /// Returns the id of the hub, as [`Remote::hub_id`](crate::Remote::hub_id) does.
    #[must_use]
    pub fn hub_id(&self) -> HubId {
        self.hub
    }
}

/// The reason why a job has no result.
///
/// ```
/// use greenhub::tpool::{JobError, execute};
/// use std::error::Error;
/// fn answer() -> Result<i32, Box<dyn Error + Send + Sync>> {
///     Ok(execute(|| -> i32 { panic!("no answer") })?)
/// }
/// let error = answer().unwrap_err();
/// assert_eq!(error.to_string(), "the job panicked: no answer");
/// let Ok(JobError::Panic(panic)) = error.downcast().map(|error| *error) else { unreachable!() };
/// assert_eq!(panic.into_payload().downcast_ref(), Some(&"no answer"));
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The job panicked.
    #[error("the job panicked: {0}")]
    Panic(Panic),
    /// No OS thread could be started, or the loop cannot wait.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The message, as of `Display`: a `main` that returns an error prints this form.
impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<JobError> for io::Error {
    fn from(error: JobError) -> io::Error {
        match error {
            JobError::Panic(_) => io::Error::other(error),
            JobError::Io(error) => error,
        }
    }
}

impl From<LoopError> for JobError {
    fn from(error: LoopError) -> JobError {
        JobError::Io(error.into())
    }
}
