//! Waits for a descriptor: an operation that would block becomes a switch to another greenlet.
//!
//! Ground rule: a descriptor with a waiter is borrowed. A safe caller borrows it for as long as the wait. A caller with
//! a bare number promises that it stays open until the wait ends, or until [`notify_close`](crate::notify_close) or
//! [`notify_opened`](crate::notify_opened) is called for it. A destructor ends the wait and removes it from the loop's
//! table, so this also happens when the wait is unwound.

use std::error::Error;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::grace::Grace;
use super::parker::Parker;
use crate::base::wait_reason::WaitReason;
use crate::error::TrampolineError;
use crate::greenlet::ask_owner::ask_owner;
use crate::greenlet::control::Wake;
use crate::greenlet::local;
use crate::greenlet::run;
use crate::hub::Time;
use crate::hub::round;
use crate::hub::{Interest, Readiness};
use crate::main_loop::deadline::Deadline;
use crate::main_loop::descriptors::Owner;
use crate::main_loop::parked::Parked;

/// Parks the running green thread until `fd` is ready. Eventlet's `trampoline`. Switches.
///
/// `interest` is reading or writing. `timeout` limits the wait: a `Duration`, or `None` for no limit. A timeout of zero
/// lets other green threads run once. The wait is level-triggered: a descriptor that is ready already ends it in the
/// next turn. Readiness is a hint, as with poll(2):
///
/// - The operation may still return that it would block. Some files are reported as ready for as long as their state
///   does not change, such as a socket with an entry in its error queue. So a loop of `trampoline` and an operation has
///   to bound its attempts. [`Source::read`](crate::Source::read) and [`Source::write`](crate::Source::write) do.
/// - An event that the system does not report ends no wait. A writer to a Unix socket is not notified of its own
///   `shutdown(Write)`, nor of a `shutdown(Read)` of its peer. The sockets of greenstd notify it.
///
/// While panicking, and after the end of the OS thread's green threads, the wait blocks the OS thread, for at most the
/// time of [`set_panicking_grace`](crate::set_panicking_grace).
///
/// ```
/// use greenhub::{Interest, trampoline};
/// let (reader, writer) = std::io::pipe()?;
/// std::io::Write::write_all(&mut &writer, b"x")?;
/// trampoline(&reader, Interest::READ, None)?;
/// trampoline(&reader, Interest::READ, std::time::Duration::from_secs(1))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Returns [`TrampolineError::TimedOut`] if the limit or the grace is reached. Returns an error if `interest` is both
/// directions or none, if the direction has a waiter and
/// [`hub_prevent_multiple_readers`](crate::hub_prevent_multiple_readers) is on, if
/// [`notify_close`](crate::notify_close) or the close of a [`Source`](crate::Source) gives up the number, even before
/// the call, if the hub refuses the descriptor, or if the loop cannot wait. Nothing stays registered.
#[doc(alias = "wait_read")]
#[doc(alias = "wait_write")]
#[doc(alias = "hubs.trampoline")]
pub fn trampoline(
    fd: impl AsFd,
    interest: Interest,
    timeout: impl Into<Option<Duration>>,
) -> Result<Readiness, TrampolineError> {
    let fd = ask_owner(&fd)?;
    // SAFETY: the borrow keeps the descriptor open until this returns or unwinds.
    unsafe { wait(fd.as_raw_fd(), interest, timeout.into()) }
}

/// Parks the running green thread until one of several descriptors is ready. Switches.
///
/// Each descriptor has a direction of its own. The caller finds the ready descriptors by checking them, as
/// `greenhub::select` does. Duplicates count once. Without descriptors, only the limit ends the wait.
///
/// ```
/// use greenhub::Interest;
/// use greenhub::park::{Deadline, trampoline_any};
/// use std::os::fd::AsFd;
/// let (silent, _kept) = std::io::pipe()?;
/// let (reader, mut writer) = std::io::pipe()?;
/// greenhub::spawn_n(move || std::io::Write::write_all(&mut writer, b"x").unwrap());
/// let both = [(silent.as_fd(), Interest::READ), (reader.as_fd(), Interest::READ)];
/// trampoline_any(&both, &mut Deadline::none())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The same as [`trampoline`]; a timeout names one of the descriptors. Nothing stays registered. While panicking it
/// returns [`LoopErrorKind::Panicking`](crate::LoopErrorKind::Panicking) without waiting.
#[doc(alias = "wait_readwrite")]
pub fn trampoline_any(fds: &[(BorrowedFd<'_>, Interest)], deadline: &mut Deadline) -> Result<(), TrampolineError> {
    if fds.is_empty() {
        // There is no number for the error.
        let parked = Parker::new(WaitReason::Descriptor)?.park(deadline)?;
        return if parked == Parked::TimedOut { Err(TrampolineError::TimedOut { fd: -1 }) } else { Ok(()) };
    }
    check_interests(fds)?;
    let local = local::get_unless_ended()?;
    // SAFETY: the borrows keep each descriptor open until this returns or unwinds.
    unsafe { local.main_loop.wait_for_any(directions(fds), deadline) }
}

/// Returns an error for an interest that is not reading or writing.
pub(crate) fn check_interests(fds: &[(BorrowedFd<'_>, Interest)]) -> Result<(), TrampolineError> {
    let single = |interest: Interest| interest == Interest::READ || interest == Interest::WRITE;
    match fds.iter().find(|(_, interest)| !single(*interest)) {
        Some(&(fd, interest)) => Err(TrampolineError::Interest { interest, fd: fd.as_raw_fd() }),
        None => Ok(()),
    }
}

/// Returns the numbers with their directions, without duplicates. The interests are reading or writing.
fn directions(fds: &[(BorrowedFd<'_>, Interest)]) -> impl Iterator<Item = (RawFd, Interest)> {
    let mut each: Vec<_> = fds.iter().map(|(fd, interest)| (fd.as_raw_fd(), *interest == Interest::WRITE)).collect();
    each.sort_unstable();
    each.dedup();
    each.into_iter().map(|(fd, write)| (fd, if write { Interest::WRITE } else { Interest::READ }))
}

/// Parks until the parker is unparked, one of `fds` is ready, or `deadline` has passed. Switches.
///
/// `fds` is not empty, and each interest is reading or writing.
pub(crate) fn park_for_any(
    parker: Parker,
    fds: &[(BorrowedFd<'_>, Interest)],
    deadline: &mut Deadline,
) -> Result<(), TrampolineError> {
    let local = local::get_unless_ended()?;
    let park = parker.begun_park()?;
    // The end of the park retires the ticket. Until the park has begun, the drop of the parker does.
    let begun = || std::mem::forget(parker);
    // SAFETY: the borrows keep each descriptor open until this returns or unwinds.
    unsafe { local.main_loop.park_for_any(park, directions(fds), deadline, begun) }
}

/// Like [`trampoline`], for a bare number, as in Eventlet. Switches.
///
/// ```
/// use greenhub::Interest;
/// use greenhub::park::trampoline_raw;
/// use std::io::Write;
/// use std::os::fd::AsRawFd;
/// let (reader, mut writer) = std::io::pipe()?;
/// writer.write_all(b"x")?;
/// // SAFETY: `reader` keeps the number open until after the wait.
/// unsafe { trampoline_raw(reader.as_raw_fd(), Interest::READ, None)? };
/// drop(reader);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The same as [`trampoline`], and [`TrampolineError::InvalidFd`] for a number that is negative or not open.
///
/// # Safety
///
/// The number must stay open until this returns or unwinds, or until [`notify_close`](crate::notify_close) or
/// [`notify_opened`](crate::notify_opened) was called for it.
pub unsafe fn trampoline_raw(
    fd: RawFd,
    interest: Interest,
    timeout: impl Into<Option<Duration>>,
) -> Result<Readiness, TrampolineError> {
    // The conversion is code of the caller, which may close the number, so it comes before the check.
    let timeout = timeout.into();
    // SAFETY: the call only asks whether the number is open.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(TrampolineError::InvalidFd { fd });
    }
    // SAFETY: the number is open now, and by the contract until the wait ends.
    unsafe { wait(fd, interest, timeout) }
}

/// # Safety
///
/// `fd` must be open, and stay so until this returns or unwinds or the number is given up.
unsafe fn wait(fd: RawFd, interest: Interest, timeout: Option<Duration>) -> Result<Readiness, TrampolineError> {
    if interest != Interest::READ && interest != Interest::WRITE {
        return Err(TrampolineError::Interest { interest, fd });
    }
    let Some(local) = local::get_if_any() else {
        // SAFETY: the number is open by the contract.
        return block_on(unsafe { BorrowedFd::borrow_raw(fd) }, interest, timeout);
    };
    // SAFETY: the number is open by the contract.
    let waited = unsafe { local.main_loop.wait_for(fd, Owner::RAW, interest, &mut Deadline::from(timeout)) };
    match waited {
        Ok(Wake::Ready(reported)) => Ok(reported.readiness()),
        Ok(_) => Ok(interest.into()),
        Err(TrampolineError::Loop(error)) if error.forbids_waits() => {
            // SAFETY: the number is open by the contract.
            block_on(unsafe { BorrowedFd::borrow_raw(fd) }, interest, timeout)
        }
        Err(error) => Err(error),
    }
}

/// A builder for a wait with all options of Eventlet's `trampoline`.
///
/// ```
/// use greenhub::Trampoline;
/// use std::time::Duration;
/// let (reader, _writer) = std::io::pipe()?;
/// let waited = Trampoline::new(&reader).read().timeout(Duration::from_millis(1)).timeout_error(|| "too late").wait();
/// assert_eq!(waited.unwrap_err().to_string(), "too late");
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "nothing is waited for before `wait`"]
pub struct Trampoline<'a, F> {
    fd: F,
    interest: Interest,
    timeout: Option<Duration>,
    timeout_error: Option<Box<dyn FnOnce() -> Box<dyn Error + Send + Sync> + 'a>>,
    mark_as_closed: Option<Box<dyn FnOnce()>>,
}

impl<'a, F: AsFd> Trampoline<'a, F> {
    /// Creates a wait for `fd`, without a direction yet.
    pub fn new(fd: F) -> Self {
        Trampoline { fd, interest: Interest::NONE, timeout: None, timeout_error: None, mark_as_closed: None }
    }

    /// Makes the wait end when the descriptor is readable.
    pub fn read(mut self) -> Self {
        self.interest |= Interest::READ;
        self
    }

    /// Makes the wait end when the descriptor is writable.
    pub fn write(mut self) -> Self {
        self.interest |= Interest::WRITE;
        self
    }

    /// Limits the wait to `timeout`. `None` stands for no limit.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Sets the constructor of the error for a timeout.
    #[doc(alias = "timeout_exc")]
    pub fn timeout_error<E: Into<Box<dyn Error + Send + Sync>>>(mut self, make: impl FnOnce() -> E + 'a) -> Self {
        self.timeout_error = Some(Box::new(move || make().into()));
        self
    }

    /// Sets a callback for the case that the descriptor is closed during the wait.
    ///
    /// It runs before [`notify_close`](crate::notify_close) or [`notify_opened`](crate::notify_opened) returns, so that
    /// the owner does not close the number again. It must not block.
    pub fn mark_as_closed(mut self, mark: impl FnOnce() + 'static) -> Self {
        self.mark_as_closed = Some(Box::new(mark));
        self
    }

    /// Waits. Switches.
    ///
    /// # Errors
    ///
    /// The same as [`trampoline`]. After a timeout, returns [`TrampolineError::Custom`] with the error of
    /// [`timeout_error`](Trampoline::timeout_error), if one was set.
    pub fn wait(self) -> Result<Readiness, TrampolineError> {
        let mark = self.mark_as_closed.map(Mark::put);
        let waited = ask_owner(&self.fd).map_err(TrampolineError::from);
        let waited = waited.and_then(|fd| trampoline(fd, self.interest, self.timeout));
        drop(mark);
        match (waited, self.timeout_error) {
            (Err(TrampolineError::TimedOut { .. }), Some(make)) => Err(TrampolineError::Custom(Arc::from(make()))),
            (waited, _) => waited,
        }
    }
}

/// The close callback of the running greenlet. `Drop` removes it, however the wait ends.
struct Mark;

impl Mark {
    fn put(mark: Box<dyn FnOnce()>) -> Mark {
        local::get().main_loop.marks.put(mark);
        Mark
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        drop(local::get().main_loop.marks.take(run::current().number()));
    }
}

impl<F: std::fmt::Debug> std::fmt::Debug for Trampoline<'_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trampoline")
            .field("fd", &self.fd)
            .field("interest", &self.interest)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Blocks the OS thread until `fd` is ready, for at most the grace.
pub(crate) fn block_on(
    fd: BorrowedFd<'_>,
    interest: Interest,
    timeout: Option<Duration>,
) -> Result<Readiness, TrampolineError> {
    let number = fd.as_raw_fd();
    let grace = Grace::begin();
    let deadline = Time::monotonic() + timeout.unwrap_or(Duration::MAX).min(grace.left());
    let flags = if interest == Interest::READ { PollFlags::IN } else { PollFlags::OUT };
    loop {
        let (seconds, nanos) = round::nanos(deadline - Time::monotonic());
        let timeout = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
        match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&timeout)) {
            Ok(0) => return Err(TrampolineError::TimedOut { fd: number }),
            Ok(_) => return Ok(interest.into()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(TrampolineError::Register { fd: number, error: Arc::new(error.into()) }),
        }
    }
}
