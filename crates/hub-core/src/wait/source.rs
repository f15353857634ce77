//! Owned descriptors: sockets and other files that are registered once for their life.
//!
//! The operations are here. [`word`] decides when the number is closed, [`home`] which hub has it registered; [`state`]
//! carries that out.
//!
//! Ground rules: those of [`state`], and
//! - A number is borrowed only from an operation that is [`Entered`], or for as long as the source itself is borrowed.

mod home;
#[cfg(all(test, loom))]
mod model;
mod poll;
mod state;
mod word;

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use self::home::{CountedWaiter, Mover};
use self::state::Inner;
use self::word::Entered;
use super::trampoline::block_on;
use crate::error::{LoopErrorKind, TrampolineError};
use crate::greenlet::ask_owner::{ClosedOwner, refuse};
use crate::greenlet::{local, run};
use crate::hub::Interest;
use crate::hub::Rearm;
use crate::hub::Time;
use crate::main_loop::MainLoop;
use crate::main_loop::deadline::Deadline;
use crate::main_loop::descriptors::Owner;
use crate::main_loop::doubt::{Doubts, Pauses};
use crate::main_loop::remote::Mailbox;

pub use self::state::SourceWaker;
use crate::main_loop::read_hint::ReadHint;

/// An owned descriptor whose operations park only the green thread.
///
/// The OS thread is not blocked.
///
/// It is `Send + Sync`. A wait registers it at the hub of the waiting OS thread, and deregisters it from the hub of the
/// OS thread that waited before. Two hubs cannot wait for one source at the same time.
///
/// ```
/// use greenhub::park::{ReadHint, Source};
/// use std::io::{Read, Write};
/// let (mut reader, mut writer) = std::io::pipe()?;
/// let source = Source::new(reader.try_clone()?.into())?; // now non-blocking, and so is `reader`
/// greenhub::spawn_n(move || writer.write_all(b"hello").unwrap());
/// let mut buffer = [0; 16];
/// let n = source.read(None, |_| Ok((reader.read(&mut buffer)?, ReadHint::Nothing)))?;
/// assert_eq!(&buffer[..n], b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "AsyncFd")]
#[doc(alias = "watcher")]
pub struct Source {
    inner: Arc<Inner>,
}

/// The state of an operation's wait, over several parks.
struct Wait {
    deadline: Deadline,
    doubts: Doubts,
    looks: Pauses,
    /// The system may not report every event that ends the wait.
    retrying: bool,
    /// A report has ended the last park.
    reported: bool,
}

impl Wait {
    #[inline(always)]
    fn new(timeout: Option<Duration>, retrying: bool) -> Wait {
        Wait { deadline: Deadline::from(timeout), doubts: Doubts::NONE, looks: Pauses::NONE, retrying, reported: false }
    }
}

impl Source {
    /// Takes ownership of a descriptor and makes it non-blocking. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns the error of the system if it refuses; the descriptor is closed then.
    pub fn new(fd: OwnedFd) -> io::Result<Source> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Source::from_nonblocking(fd))
    }

    /// Takes ownership of a descriptor that is non-blocking already. Does not switch.
    ///
    /// That saves a system call. A descriptor that is not non-blocking blocks the OS thread.
    #[must_use]
    pub fn from_nonblocking(fd: OwnedFd) -> Source {
        Source { inner: Arc::new(Inner::new(fd)) }
    }

    /// Reads by `op`; while it would block, parks and tries again. Switches.
    ///
    /// `op` returns its value and a [`ReadHint`] about the next read.
    ///
    /// # Errors
    ///
    /// Returns the error of `op`, and the errors of [`trampoline`](crate::trampoline()). Returns
    /// [`TimedOut`](io::ErrorKind::TimedOut) if `timeout` passes first, [`NotConnected`](io::ErrorKind::NotConnected)
    /// if the source is closed, and [`ResourceBusy`](io::ErrorKind::ResourceBusy) if it has a waiter on another OS
    /// thread. On a non-blocking source it returns [`WouldBlock`](io::ErrorKind::WouldBlock) instead of waiting.
    #[inline]
    pub fn read<R>(
        &self,
        timeout: impl Into<Option<Duration>>,
        op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>,
    ) -> io::Result<R> {
        self.charge::<_, false>(timeout.into(), op)
    }

    /// Like [`read`](Source::read), for an end of file that non-blocking calls do not report. Switches.
    ///
    /// `end` is called when `op` would block although the hub has reported an end. It returns the result of a blocking
    /// call that finds no data, or `None` if that would block too.
    ///
    /// # Errors
    ///
    /// The same as [`read`](Source::read), and the error of `end`.
    #[inline]
    pub fn read_or_end<R>(
        &self,
        timeout: impl Into<Option<Duration>>,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>,
        mut end: impl FnMut(BorrowedFd<'_>) -> Option<io::Result<R>>,
    ) -> io::Result<R> {
        let would_block = |result: &io::Result<(R, ReadHint)>| {
            result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        let op = |fd: BorrowedFd<'_>| {
            let result = op(fd);
            if !would_block(&result) || !self.may_have_ended() {
                return result;
            }
            let Some(end) = end(fd) else {
                self.has_not_ended();
                return result;
            };
            // Data may have arrived between the calls of `op` and `end`.
            let result = op(fd);
            // No further report may come for this end, so the next operation tries at once.
            if would_block(&result) { end.map(|value| (value, ReadHint::Likely)) } else { result }
        };
        self.charge::<_, false>(timeout.into(), op)
    }

    /// Returns whether the hub has reported an end; true without a hub.
    #[inline(never)]
    fn may_have_ended(&self) -> bool {
        local::get_if_any().is_none_or(|local| {
            let has_ended = local.main_loop.with_table(|table| table.has_ended(self.inner.fd(), self.inner.id));
            has_ended.unwrap_or(true)
        })
    }

    /// Clears a reported end that was an error, which is over.
    #[cold]
    fn has_not_ended(&self) {
        if let Some(local) = local::get_if_any() {
            local.main_loop.with_table(|table| table.has_not_ended(self.inner.fd(), self.inner.id));
        }
    }

    /// Writes by `op`; while it would block, parks and tries again. Switches.
    ///
    /// # Errors
    ///
    /// The same as [`read`](Source::read).
    #[inline]
    pub fn write<R>(
        &self,
        timeout: impl Into<Option<Duration>>,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        let op = |fd: BorrowedFd<'_>| op(fd).map(|value| (value, ReadHint::Likely));
        self.charge::<_, true>(timeout.into(), op)
    }

    /// Performs `op` at once, or yields first: an exit that strikes there loses nothing.
    #[inline]
    fn charge<R, const WRITES: bool>(
        &self,
        timeout: Option<Duration>,
        op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>,
    ) -> io::Result<R> {
        if run::charge() {
            self.perform::<_, WRITES>(timeout, op)
        } else {
            self.perform_later::<_, WRITES>(timeout, op)
        }
    }

    #[cold]
    #[inline(never)]
    fn perform_later<R, const WRITES: bool>(
        &self,
        timeout: Option<Duration>,
        op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>,
    ) -> io::Result<R> {
        if !self.is_nonblocking() {
            run::operations_used_up()?;
        }
        self.perform::<_, WRITES>(timeout, op)
    }

    /// Performs `op`. Reports that `op` does not confirm cost a bounded number of turns, however many come: see
    /// [`Doubts`].
    #[inline(never)]
    fn perform<R, const WRITES: bool>(
        &self,
        timeout: Option<Duration>,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>,
    ) -> io::Result<R> {
        let inner = &*self.inner;
        let entered = inner.enter()?;
        let fd = entered.fd();
        let flags = inner.flags();
        let nonblocking = flags.is_nonblocking();
        let direction = if WRITES { Interest::WRITE } else { Interest::READ };
        let mut wait = Wait::new(timeout, WRITES && flags.is_retrying());
        let Some(local) = local::get_if_any() else {
            return perform_alone(fd, direction, nonblocking, wait, op);
        };
        let main_loop = &local.main_loop;
        // Even where the operation is known to block, a non-blocking caller tries it, and a panicking caller cannot
        // park.
        let may_succeed = main_loop.with_table(|table| table.may_succeed(inner.fd(), inner.id, direction));
        let mut attempt = may_succeed.unwrap_or(true) || nonblocking || std::thread::panicking();
        loop {
            if attempt {
                main_loop.counters.count_operation();
                match op(fd) {
                    Ok((value, left)) => {
                        inner.operated(main_loop, direction, Some(left));
                        return Ok(value);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && !nonblocking => {
                        inner.operated(main_loop, direction, None);
                    }
                    Err(error) if nonblocking => return Err(error),
                    Err(error) => return Err(yield_if_exhausted(error)),
                }
            }
            self.park(&entered, main_loop, direction, &mut wait)?;
            // A woken waiter tries, whatever other waiters in the same direction have left of the readiness.
            attempt = true;
        }
    }

    /// Waits until the source is ready in one direction. Switches.
    ///
    /// Readiness is a hint, as with [`trampoline`](crate::trampoline()): a caller that tries an operation after each
    /// such wait has to bound its attempts. [`read`](Source::read) and [`write`](Source::write) do.
    ///
    /// ```
    /// use greenhub::Interest;
    /// use greenhub::park::Source;
    /// use std::time::Duration;
    /// let (reader, _writer) = std::io::pipe()?;
    /// let reader = Source::new(reader.into())?;
    /// let waited = reader.wait(Interest::READ, Duration::from_millis(1));
    /// assert_eq!(waited.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`read`](Source::read).
    pub fn wait(&self, direction: Interest, timeout: impl Into<Option<Duration>>) -> io::Result<()> {
        let timeout = timeout.into();
        let entered = self.inner.enter()?;
        let Some(local) = local::get_if_any() else {
            return Ok(block_on(entered.fd(), direction, timeout).map(drop)?);
        };
        let main_loop = &local.main_loop;
        if main_loop.rearm() == Rearm::Automatic {
            // No operation need have followed the last wait.
            main_loop.with_table(|table| table.ask_anew(self.inner.fd(), self.inner.id, direction));
        }
        self.park(&entered, main_loop, direction, &mut Wait::new(timeout, false))
    }

    /// Parks until the operation should be tried. A second call means that the operation did not confirm the report.
    fn park(
        &self,
        entered: &Entered<&Inner>,
        main_loop: &MainLoop,
        direction: Interest,
        wait: &mut Wait,
    ) -> io::Result<()> {
        if wait.reported | wait.retrying {
            return self.park_in_doubt(entered, main_loop, direction, wait);
        }
        wait.reported = true;
        self.park_on_hub(entered, main_loop, direction, &mut wait.deadline)
    }

    /// Parks until the hub reports the source.
    #[inline(always)]
    fn park_on_hub(
        &self,
        entered: &Entered<&Inner>,
        main_loop: &MainLoop,
        direction: Interest,
        deadline: &mut Deadline,
    ) -> io::Result<()> {
        let inner = entered.source();
        let Some(waiting) = self.prepare(entered, main_loop, direction)? else { return Ok(()) };
        // SAFETY: the number is open as long as `entered` lives, which is longer than the wait. It is open for the life
        // of the registration: `close`, `into_fd` and a move make the hub end it, by a call of an operation that is
        // entered or by a request that is.
        let waited = unsafe { main_loop.wait_for(inner.fd(), Owner::socket(inner.id), direction, deadline) };
        drop(waiting);
        match waited {
            Ok(_) => Ok(()),
            Err(TrampolineError::Loop(error)) if error.forbids_waits() => {
                block_on(entered.fd(), direction, deadline.duration())?;
                main_loop.with_table(|table| table.make_ready(inner.fd(), inner.id, direction));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Parks after a report that the operation did not confirm, or where a report may be missing.
    #[cold]
    fn park_in_doubt(
        &self,
        entered: &Entered<&Inner>,
        main_loop: &MainLoop,
        direction: Interest,
        wait: &mut Wait,
    ) -> io::Result<()> {
        let inner = entered.source();
        let now = main_loop.now();
        if mem::take(&mut wait.reported)
            && let Some(pause) = wait.doubts.add(now)
        {
            // Reports that keep coming win over the timer of the deadline, so the deadline is checked here.
            let left = wait.deadline.left_at(now).unwrap_or(Duration::MAX);
            if left.is_zero() {
                return Err(TrampolineError::TimedOut { fd: inner.fd() }.into());
            }
            return self.pause(entered, main_loop, direction, pause.min(left));
        }
        // While the greenlet unwinds, a destructor waits once.
        let looks_again = wait.retrying && !std::thread::panicking();
        let pause = if looks_again { wait.looks.next() } else { Duration::MAX };
        if wait.deadline.left_at(now).unwrap_or(Duration::MAX) <= pause {
            wait.reported = true;
            return self.park_on_hub(entered, main_loop, direction, &mut wait.deadline);
        }
        match self.park_on_hub(entered, main_loop, direction, &mut Deadline::from(Some(pause))) {
            Ok(()) => wait.reported = true,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Parks for `pause` without a registration at the hub.
    fn pause(
        &self,
        entered: &Entered<&Inner>,
        main_loop: &MainLoop,
        direction: Interest,
        pause: Duration,
    ) -> io::Result<()> {
        let inner = entered.source();
        let Some(waiting) = self.prepare(entered, main_loop, direction)? else { return Ok(()) };
        // SAFETY: as in `park_on_hub`.
        let waited = unsafe { main_loop.pause(inner.fd(), Owner::socket(inner.id), direction, pause) };
        drop(waiting);
        waited.map_err(|error| match error {
            // While the greenlet unwinds, a destructor cannot park, and must not spin.
            TrampolineError::Loop(error) if error.kind() == LoopErrorKind::Panicking => {
                TrampolineError::TimedOut { fd: inner.fd() }.into()
            }
            error => error.into(),
        })
    }

    /// Prepares a wait of the running greenlet. Returns `None` if the source was woken meanwhile.
    #[inline(always)]
    fn prepare<'a>(
        &self,
        entered: &Entered<&'a Inner>,
        main_loop: &MainLoop,
        direction: Interest,
    ) -> io::Result<Option<CountedWaiter<'a, Mailbox>>> {
        let inner = entered.source();
        if direction != Interest::READ && direction != Interest::WRITE {
            return Err(TrampolineError::Interest { interest: direction, fd: inner.fd() }.into());
        }
        let wakes = inner.home.wakes();
        let mut waiting = inner.home.count();
        let settled = self.inner.settle(main_loop, Mover::Greenlet, waiting.era(), wakes)?;
        Ok(settled.then_some(waiting))
    }

    /// Returns a handle that wakes the waiters of the source. Does not switch.
    #[must_use]
    pub fn waker(&self) -> SourceWaker {
        SourceWaker(Arc::downgrade(&self.inner))
    }

    /// Wakes the green threads and futures that wait in `directions`. Does not switch.
    ///
    /// It wakes them on any OS thread. Their operations are tried again. It is for events that the system does not
    /// report, such as a `shutdown(Write)` of this side of a Unix socket.
    ///
    /// ```
    /// use greenhub::Interest;
    /// use greenhub::park::Source;
    /// use std::rc::Rc;
    /// let (reader, _writer) = std::io::pipe()?;
    /// let source = Rc::new(Source::new(reader.into())?);
    /// let waiting = source.clone();
    /// let waiter = greenhub::spawn(move || waiting.wait(Interest::READ, None));
    /// greenhub::thread::yield_now();
    /// source.wake(Interest::READ);
    /// waiter.join()??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wake(&self, directions: Interest) {
        self.inner.wake(directions);
    }

    /// Calls `op`, which must not wait, with the descriptor. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns the error of `op`, and [`NotConnected`](io::ErrorKind::NotConnected) if the source is closed.
    pub fn with<R>(&self, op: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        op(self.inner.enter()?.fd())
    }

    /// Closes the source, and wakes its waiters with an error. Does not switch.
    ///
    /// Every later operation returns [`NotConnected`](io::ErrorKind::NotConnected). The number is closed when the last
    /// operation in progress ends, or with the source if `as_fd` has lent it. A second call does nothing.
    ///
    /// An operation of an OS thread that has ended, or that a fork has left behind, never ends: the number stays taken.
    /// The open file behind it is released when all other operations have ended.
    ///
    /// A [`trampoline`](crate::trampoline) on the bare descriptor, which does not know the source, is woken too if it
    /// runs on the OS thread that waits for the source. On another OS thread it is not woken.
    ///
    /// ```
    /// use greenhub::Interest;
    /// use greenhub::park::Source;
    /// let (reader, _writer) = std::io::pipe()?;
    /// let reader = Source::new(reader.into())?;
    /// reader.close();
    /// assert_eq!(reader.wait(Interest::READ, None).unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        if let Some(entered) = Entered::unless_gone(&self.inner) {
            entered.close();
        }
    }

    /// Returns whether the source was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Sets whether operations return [`WouldBlock`](io::ErrorKind::WouldBlock) instead of waiting. Does not switch.
    ///
    /// It is off by default. The descriptor itself is non-blocking in either case.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        self.inner.set_nonblocking(nonblocking);
    }

    /// Sets whether waiting writes also try again after pauses. Does not switch.
    ///
    /// The pauses grow from 1 ms to 64 ms, whatever the hub reports. A [poll](Source::poll) for writing is woken after
    /// 64 ms. It is for sockets for which the system does not report every end of a wait. It is off by default.
    pub fn set_retrying(&self, retrying: bool) {
        self.inner.set_retrying(retrying);
    }

    /// Returns whether waiting writes also try again after pauses.
    #[must_use]
    pub fn is_retrying(&self) -> bool {
        self.inner.flags().is_retrying()
    }

    /// Returns whether operations return [`WouldBlock`](io::ErrorKind::WouldBlock) instead of waiting.
    #[inline]
    #[must_use]
    pub fn is_nonblocking(&self) -> bool {
        self.inner.flags().is_nonblocking()
    }

    /// Returns the descriptor, deregistered from every hub. It is still non-blocking.
    ///
    /// # Errors
    ///
    /// Returns an error if the source was closed, or if the number is still registered at the hub of another OS thread
    /// and cannot be duplicated.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        let Some(entered) = Entered::unless_gone(&self.inner).filter(|_| !self.is_closed()) else {
            return Err(self.inner.closed_error());
        };
        entered.close();
        // SAFETY: the source was open, and only this call has closed it: a close needs a reference to the source.
        // Borrows of the number end before the source is moved.
        match unsafe { entered.into_fd() } {
            Ok(fd) => Ok(fd),
            // The number itself stays open until that hub has deregistered it.
            Err(entered) => Ok(rustix::io::fcntl_dupfd_cloexec(entered.fd(), 0)?),
        }
    }
}

/// Yields if descriptors have run out, so that green threads that hold some can run: the caller is likely to try again
/// at once. Returns the error, or that of the main loop for the main greenlet.
#[cold]
fn yield_if_exhausted(error: io::Error) -> io::Error {
    if !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        return error;
    }
    match run::yield_now() {
        Err(refused) if !refused.forbids_waits() && !refused.is_misplaced() => refused.into(),
        _ => error,
    }
}

/// Performs `op` in a destructor at the end of an OS thread, where there is no loop any more. It blocks for at most the
/// grace.
#[cold]
fn perform_alone<R>(
    fd: BorrowedFd<'_>,
    direction: Interest,
    nonblocking: bool,
    mut wait: Wait,
    mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>,
) -> io::Result<R> {
    loop {
        match op(fd) {
            Ok((value, _)) => return Ok(value),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !nonblocking => {
                if mem::replace(&mut wait.reported, true) && wait.doubts.add(Time::monotonic()).is_some() {
                    return Err(TrampolineError::TimedOut { fd: fd.as_raw_fd() }.into());
                }
                block_on(fd, direction, wait.deadline.duration())?;
            }
            Err(error) => return Err(error),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: a borrow of the number borrows the source, which is dropped.
        unsafe { self.inner.take_back() };
        self.close();
    }
}

impl AsFd for Source {
    /// Borrows the descriptor. From now on its number stays open until the source is dropped.
    ///
    /// # Panics
    ///
    /// Panics if the source was closed.
    #[track_caller]
    fn as_fd(&self) -> BorrowedFd<'_> {
        let lent = Entered::open(&*self.inner).and_then(|entered| entered.lend());
        if lent.is_err() {
            refuse(ClosedOwner { fd: self.inner.fd() });
        }
        // SAFETY: the number was open while it was entered, and was lent before any close. So nothing closes it, or
        // leads it to another file, before the drop.
        unsafe { BorrowedFd::borrow_raw(self.inner.fd()) }
    }
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.fd()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("fd", &self.inner.fd()).field("closed", &self.is_closed()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_cross_threads() {
        fn check<T: Send + Sync>() {}
        check::<Source>();
    }

    #[test]
    fn close_closes_an_unused_number_at_once() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let source = Source::new(reader.into()).expect("the descriptor becomes non-blocking");
        source.close();
        let error = std::io::Write::write(&mut &writer, b"x").expect_err("no reader is left");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(source.with(|_| Ok(())).expect_err("the descriptor is closed").kind(), io::ErrorKind::NotConnected);
    }

    #[test]
    fn a_closed_source_cannot_be_borrowed() {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let source = Source::new(reader.into()).expect("the descriptor becomes non-blocking");
        // An operation keeps the number open.
        let borrowed = source.with(|_| {
            source.close();
            Ok(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| source.as_fd().as_raw_fd())))
        });
        assert!(borrowed.expect("the source was open").is_err());
    }

    #[test]
    fn a_lent_number_stays_open_until_the_drop() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let source = Source::new(reader.into()).expect("the descriptor becomes non-blocking");
        let lent = source.as_fd();
        source.close();
        assert!(rustix::io::fcntl_getfd(lent).is_ok());
        drop(source);
        let error = std::io::Write::write(&mut &writer, b"x").expect_err("no reader is left");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
