//! The error of a call that could not wait.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use super::HubError;
use crate::base::dormant::GreenletWait;

/// The reason why a blocking call could not wait.
///
/// The error is a shared pointer to its data, so that the result of a blocking call fits into registers.
/// [`kind`](LoopError::kind) tells the reasons apart. As with [`io::Error`], an error without data is made from its
/// kind.
///
/// ```
/// use greenhub::{Interest, TrampolineError, get_hub, trampoline};
/// use greenhub::hub::LoopErrorKind;
/// let (reader, _writer) = std::io::pipe()?;
/// let hub = get_hub();
/// greenhub::spawn_n(move || hub.interrupt());
/// match trampoline(&reader, Interest::READ, None) {
///     Err(TrampolineError::Loop(error)) => assert_eq!(error.kind(), LoopErrorKind::Interrupted),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LoopError(Arc<Cause>);

/// The kinds of a [`LoopError`].
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum LoopErrorKind {
    /// Code that runs inside the main loop tried to block.
    ///
    /// Such code is the loop itself, its callbacks, a hub, the ordering of a queue's items, and a `tracing` subscriber
    /// during an event of this crate. A main greenlet that [embeds](crate::HubRef::embed) the loop is such code, too.
    #[doc(alias = "BlockingSwitchOut")]
    InMainloop,
    /// A poll of a future tried to block.
    ///
    /// The future is polled by [`block_on`](crate::future::block_on). Code in it awaits instead; a call that cannot be
    /// awaited is run by [`defer_to_green_thread`](crate::future::defer_to_green_thread). If nothing on the way from
    /// the `block_on` depends on a thread-local, [`block_in_place`](crate::future::block_in_place) allows the wait.
    InPoll,
    /// The main greenlet embeds the loop already.
    Embedded,
    /// The loop cannot be embedded within a scope, a shutdown or a call of the hub.
    EmbedRefused,
    /// Nothing is left that could ever wake the main greenlet. This is gevent's `LoopExit`.
    ///
    /// [`LoopError::loop_exit`] tells which green threads are parked.
    LoopExit,
    /// The hub was replaced while the main greenlet was parked on it.
    HubReplaced,
    /// The loop was asked to end.
    Aborted,
    /// The loop was interrupted: by Ctrl-C, by another chosen signal, or by a call such as
    /// [`HubRef::interrupt`](crate::HubRef::interrupt).
    Interrupted,
    /// The program has ended the loop with an error of its own, by [`HubRef::fail`](crate::HubRef::fail).
    ///
    /// [`LoopError::system_error`] returns it. This is gevent's `SYSTEM_ERROR`.
    System,
    /// The hub could not be built. [`LoopError::hub_error`] returns the reason.
    Hub,
    /// The hub has failed for good. [`LoopError::io_error`] returns the error of the system.
    Wait,
    /// The hub panicked.
    Panic,
    /// There is no stack for another greenlet.
    Stack,
    /// The OS thread is ending.
    #[doc(alias = "HubDestroyed")]
    ThreadEnding,
    /// The shutdown was requested in another greenlet than main, or in a scope.
    ShutdownRefused,
    /// A destructor that runs during a panic tried to wait.
    ///
    /// Nothing switches then, so the wake-up cannot come.
    Panicking,
}

/// The data of an error.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{0}")]
    Plain(LoopErrorKind),
    #[error(
        "do not call blocking functions from the main loop: {operation} needs a green thread; spawn one, or await `defer_to_green_thread`"
    )]
    InMainloop { operation: Cow<'static, str> },
    #[error(
        "do not call blocking functions in a poll of a future: {operation} would let other green threads run before the \
         poll returns; await it, run it with `defer_to_green_thread`, or allow it with `block_in_place`"
    )]
    InPoll { operation: &'static str },
    #[error("{0}")]
    LoopExit(LoopExit),
    #[error("the main loop was ended by an error: {0}")]
    System(#[source] Box<dyn Error + Send + Sync>),
    #[error(transparent)]
    Hub(HubError),
    #[error("waiting on the hub {hub:?} failed: {error}")]
    Wait { hub: &'static str, error: io::Error },
    #[error("the hub {hub:?} panicked while {operation}: {message}")]
    Panic { hub: &'static str, operation: &'static str, message: Box<str> },
    #[error("no stack for another greenlet: {0}")]
    Stack(Box<str>),
}

impl LoopError {
    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> LoopErrorKind {
        match &*self.0 {
            Cause::Plain(kind) => *kind,
            Cause::InMainloop { .. } => LoopErrorKind::InMainloop,
            Cause::InPoll { .. } => LoopErrorKind::InPoll,
            Cause::LoopExit(_) => LoopErrorKind::LoopExit,
            Cause::System(_) => LoopErrorKind::System,
            Cause::Hub(_) => LoopErrorKind::Hub,
            Cause::Wait { .. } => LoopErrorKind::Wait,
            Cause::Panic { .. } => LoopErrorKind::Panic,
            Cause::Stack(_) => LoopErrorKind::Stack,
        }
    }

    /// Returns the report of a loop that has nothing left to wait for.
    ///
    /// Returns `None` for other kinds than [`LoopErrorKind::LoopExit`], and for an error that was made from its kind.
    ///
    /// ```
    /// greenhub::spawn_n(|| greenhub::thread::park());
    /// let (reader, _writer) = std::io::pipe()?;
    /// let error = greenhub::get_hub().run_once(None).unwrap_err();
    /// assert_eq!(error.loop_exit().unwrap().parked.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn loop_exit(&self) -> Option<&LoopExit> {
        match &*self.0 {
            Cause::LoopExit(exit) => Some(exit),
            _ => None,
        }
    }

    /// Returns the error with which the program has ended the loop.
    ///
    /// Returns `None` for other kinds than [`LoopErrorKind::System`], and for an error that was made from its kind.
    #[must_use]
    pub fn system_error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match &*self.0 {
            Cause::System(error) => Some(&**error),
            _ => None,
        }
    }

    /// Returns the reason why the hub could not be built.
    ///
    /// Returns `None` for other kinds than [`LoopErrorKind::Hub`], and for an error that was made from its kind.
    #[must_use]
    pub fn hub_error(&self) -> Option<&HubError> {
        match &*self.0 {
            Cause::Hub(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the error of the system with which the hub has failed.
    ///
    /// Returns `None` for other kinds than [`LoopErrorKind::Wait`], and for an error that was made from its kind.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match &*self.0 {
            Cause::Wait { error, .. } => Some(error),
            _ => None,
        }
    }

    /// Returns the main loop's error that an `io::Error` wraps.
    ///
    /// Operations with std's signature return an [`io::Error`], whose kind does not distinguish an interruption.
    /// Returns `None` for an error that does not come from the main loop.
    ///
    /// ```
    /// use greenhub::hub::{LoopError, LoopErrorKind};
    /// use std::io::Read;
    /// let remote = greenhub::get_hub().remote();
    /// let (mut reader, _writer) = greenhub::io::pipe()?;
    /// greenhub::spawn(move || remote.interrupt());
    /// let error = reader.read(&mut [0]).unwrap_err();
    /// assert_eq!(LoopError::from_io_error(&error).map(|error| error.kind()), Some(LoopErrorKind::Interrupted));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn from_io_error(error: &io::Error) -> Option<LoopError> {
        let cause = error.get_ref()?;
        let of_loop = cause.downcast_ref::<LoopError>().cloned();
        of_loop.or_else(|| cause.downcast_ref::<HubError>().map(|error| error.clone().into()))
    }

    #[cold]
    fn new(cause: Cause) -> LoopError {
        LoopError(Arc::new(cause))
    }

    /// Creates the error of an operation that tried to block inside the main loop.
    pub(crate) fn in_mainloop(operation: impl Into<Cow<'static, str>>) -> LoopError {
        LoopError::new(Cause::InMainloop { operation: operation.into() })
    }

    /// Names the operation that tried to block inside the main loop. An error of another kind stays as it is.
    #[doc(hidden)]
    #[must_use]
    pub fn with_operation(self, operation: impl FnOnce() -> String) -> LoopError {
        match *self.0 {
            Cause::InMainloop { .. } => LoopError::in_mainloop(operation()),
            _ => self,
        }
    }

    /// Creates the error of an operation that tried to block inside a poll of a future.
    pub(crate) fn in_poll(operation: &'static str) -> LoopError {
        LoopError::new(Cause::InPoll { operation })
    }

    /// Creates the error of a loop that has nothing left to wait for.
    pub(crate) fn nothing_left(exit: LoopExit) -> LoopError {
        LoopError::new(Cause::LoopExit(exit))
    }

    /// Creates the error with which the program ends the loop.
    pub(crate) fn system(error: Box<dyn Error + Send + Sync>) -> LoopError {
        LoopError::new(Cause::System(error))
    }

    /// Creates the error of a hub that has failed for good.
    pub(crate) fn wait_failed(hub: &'static str, error: io::Error) -> LoopError {
        LoopError::new(Cause::Wait { hub, error })
    }

    /// Creates the error of a hub that panicked during `operation`.
    pub(crate) fn hub_panicked(hub: &'static str, operation: &'static str, message: &str) -> LoopError {
        LoopError::new(Cause::Panic { hub, operation, message: message.into() })
    }

    /// Creates the error of a greenlet without a stack.
    pub(crate) fn no_stack(reason: &dyn fmt::Display) -> LoopError {
        LoopError::new(Cause::Stack(reason.to_string().into()))
    }

    /// Returns whether the caller must go on without a wait, since none is possible here: while panicking, and at the
    /// end of the OS thread.
    pub(crate) fn forbids_waits(&self) -> bool {
        matches!(self.kind(), LoopErrorKind::Panicking | LoopErrorKind::ThreadEnding)
    }

    /// Returns whether the code that tried to wait runs where nothing may: on the main loop, or in a poll of a future.
    pub(crate) fn is_misplaced(&self) -> bool {
        matches!(self.kind(), LoopErrorKind::InMainloop | LoopErrorKind::InPoll)
    }

    /// Returns whether a wait that has no error to return may begin anew: the loop has ended, and the next one goes on.
    pub(crate) fn is_restart(&self) -> bool {
        matches!(self.kind(), LoopErrorKind::Aborted | LoopErrorKind::HubReplaced)
    }
}

impl LoopErrorKind {
    const COUNT: usize = LoopErrorKind::Panicking as usize + 1;
}

/// Does not allocate, except for the first error of each kind in the process.
impl From<LoopErrorKind> for LoopError {
    #[cold]
    fn from(kind: LoopErrorKind) -> LoopError {
        static SHARED: [OnceLock<Arc<Cause>>; LoopErrorKind::COUNT] = [const { OnceLock::new() }; LoopErrorKind::COUNT];
        LoopError(Arc::clone(SHARED[kind as usize].get_or_init(|| Arc::new(Cause::Plain(kind)))))
    }
}

impl From<HubError> for LoopError {
    fn from(error: HubError) -> LoopError {
        LoopError::new(Cause::Hub(error))
    }
}

impl fmt::Display for LoopErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LoopErrorKind::InMainloop => "do not call blocking functions from the main loop",
            LoopErrorKind::Embedded => "the main greenlet embeds the loop already",
            LoopErrorKind::EmbedRefused => {
                "cannot embed the loop from here: call it outside of any scope, shutdown and call of the hub"
            }
            LoopErrorKind::InPoll => "do not call blocking functions in a poll of a future",
            LoopErrorKind::LoopExit => "this call would block forever",
            LoopErrorKind::HubReplaced => "the hub was replaced by use_hub while the main greenlet waited on it",
            LoopErrorKind::Aborted => "the main loop was aborted",
            LoopErrorKind::Interrupted => "the main loop was interrupted",
            LoopErrorKind::System => "the main loop was ended by an error of the program",
            LoopErrorKind::Hub => "the hub could not be built",
            LoopErrorKind::Wait => "waiting on the hub failed",
            LoopErrorKind::Panic => "the hub panicked",
            LoopErrorKind::Stack => "no stack for another greenlet",
            LoopErrorKind::ThreadEnding => "this OS thread is ending: green threads cannot block any more",
            LoopErrorKind::ShutdownRefused => {
                "cannot shut down from here: call it in the main greenlet of the OS thread, outside of any scope"
            }
            LoopErrorKind::Panicking => {
                "cannot wait while panicking: switching away would confuse the panic of this OS thread"
            }
        })
    }
}

/// The message, as of `Display`: a `main` that returns an error prints this form.
impl fmt::Debug for LoopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for LoopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

impl Error for LoopError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl From<LoopError> for io::Error {
    fn from(error: LoopError) -> io::Error {
        let kind = match (&*error.0, error.kind()) {
            (Cause::Hub(error), _) => return error.clone().into(),
            (Cause::Wait { error, .. }, _) => error.kind(),
            (_, LoopErrorKind::LoopExit) => io::ErrorKind::Deadlock,
            (_, LoopErrorKind::Stack) => io::ErrorKind::OutOfMemory,
            (_, LoopErrorKind::Panicking) => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// The report of a loop that has nothing left to wait for.
///
/// With the feature `backtrace` its text has a backtrace of each green thread.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoopExit {
    /// The parked green threads, as text for a report.
    ///
    /// Each has its name, the place where it was spawned, and its reason to wait.
    pub parked: Vec<String>,
    /// The waits with their backtraces, with the feature `backtrace`.
    pub(crate) waits: Vec<GreenletWait>,
}

impl fmt::Display for LoopExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this call would block forever: no timer, descriptor or other OS thread can wake the main greenlet")?;
        match self.parked.len() {
            0 => write!(f, "; no other green thread is parked")?,
            count => write!(f, "; {count} parked: {}", self.parked.join(", "))?,
        }
        self.waits.iter().try_for_each(|wait| write!(f, "\n{wait}"))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Every path that parks returns such a result. One word fits into a register.
    #[test]
    fn a_result_without_a_value_is_one_word() {
        assert_eq!(size_of::<LoopError>(), size_of::<usize>());
        assert_eq!(size_of::<Result<(), LoopError>>(), size_of::<usize>());
    }

    #[test]
    fn an_error_made_of_a_kind_is_shared() {
        let [first, second] = [LoopErrorKind::Aborted; 2].map(LoopError::from);
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert_eq!((first.kind(), first.to_string()), (LoopErrorKind::Aborted, "the main loop was aborted".to_owned()));
        assert_eq!(format!("{first:?}"), first.to_string());
    }

    #[test]
    fn the_kind_alone_decides_the_kind_of_the_io_error() {
        let kinds = [
            (LoopError::nothing_left(LoopExit { parked: vec![], waits: vec![] }), io::ErrorKind::Deadlock),
            (LoopErrorKind::LoopExit.into(), io::ErrorKind::Deadlock),
            (LoopError::no_stack(&"none"), io::ErrorKind::OutOfMemory),
            (LoopErrorKind::Stack.into(), io::ErrorKind::OutOfMemory),
            (LoopErrorKind::Panicking.into(), io::ErrorKind::TimedOut),
            (LoopErrorKind::Aborted.into(), io::ErrorKind::Other),
        ];
        for (error, kind) in kinds {
            assert_eq!(io::Error::from(error.clone()).kind(), kind, "{error:?}");
        }
    }

    #[test]
    fn each_accessor_returns_the_data_of_its_kind_alone() {
        let all = [
            LoopError::nothing_left(LoopExit { parked: vec![], waits: vec![] }),
            HubError::NoneAvailable.into(),
            LoopError::wait_failed("poll", io::Error::from_raw_os_error(libc::ENOMEM)),
            LoopError::system("full".into()),
            LoopErrorKind::Hub.into(),
        ];
        let data = all.each_ref().map(|error| {
            let found = [error.loop_exit().is_some(), error.hub_error().is_some(), error.system_error().is_some()];
            (found, error.io_error().map(io::Error::kind))
        });
        let expected = [
            ([true, false, false], None),
            ([false, true, false], None),
            ([false; 3], Some(io::ErrorKind::OutOfMemory)),
            ([false, false, true], None),
            ([false; 3], None),
        ];
        assert_eq!(data, expected);
    }
}
