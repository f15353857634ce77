//! Owned descriptors: sockets and whatever else is registered once for its life.
//!
//! The operations are here; [`state`] decides when the number is closed and which hub knows it.
//!
//! Ground rules: those of [`state`], and
//! - A number is borrowed only by an operation that is [`Entered`], or for as long as the source itself is borrowed.

mod state;

use std::fmt;
use std::io;
use std::mem::{self};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::state::{CLOSED, ENTERED, Entered, GONE, Inner, LENT, NONBLOCKING, RETRYING, Request, Waiting};
use super::doubt::{Doubts, Pauses};
use super::trampoline::block_on;
use crate::base::fork;
use crate::error::{LoopError, TrampolineError};
use crate::greenlet::{local, run};
use crate::hub::Interest;
use crate::hub::Time;
use crate::main_loop::MainLoop;
use crate::main_loop::deadline::Deadline;
use crate::main_loop::descriptors::Owner;

pub use self::state::SourceWaker;
pub use crate::main_loop::descriptors::ReadHint;

/// An owned descriptor whose operations park the green thread instead of blocking the OS thread.
///
/// It is `Send + Sync`. Used on another thread, it is watched by that thread's hub and let go by the one
/// before; two hubs cannot wait for one source at a time.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{ReadHint, Source};
/// let (reader, mut writer) = std::io::pipe()?;
/// let reader = Source::new(reader.into())?;
/// hub_core::spawn_n(move || std::io::Write::write_all(&mut writer, b"hello").unwrap());
/// let mut buffer = [0; 16];
/// let n = reader.read(None, |fd| Ok((rustix::io::read(fd, &mut buffer)?, ReadHint::Nothing)))?;
/// assert_eq!(&buffer[..n], b"hello");
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
pub struct Source {
    inner: Arc<Inner>,
}

/// How an operation waits, over several parks.
struct Wait {
    limit: Deadline,
    doubts: Doubts,
    looks: Pauses,
    /// Not all that ends the wait is reported.
    retrying: bool,
    /// A report has ended the last park.
    reported: bool,
}

impl Wait {
    #[inline(always)]
    fn new(timeout: Option<Duration>, retrying: bool) -> Wait {
        Wait { limit: Deadline::from(timeout), doubts: Doubts::NONE, looks: Pauses::NONE, retrying, reported: false }
    }
}

impl Source {
    /// Takes over a descriptor and makes it non-blocking. Does not switch.
    ///
    /// # Errors
    ///
    /// If the system refuses; the descriptor is closed then.
    pub fn new(fd: OwnedFd) -> io::Result<Source> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Source::from_nonblocking(fd))
    }

    /// Takes over a descriptor that is non-blocking already, which saves a system call. One that is not blocks
    /// the OS thread. Does not switch.
    #[must_use]
    pub fn from_nonblocking(fd: OwnedFd) -> Source {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let inner = Inner {
            id: NEXT.fetch_add(1, Relaxed),
            fd: fd.into_raw_fd(),
            state: AtomicU32::new(0),
            home: AtomicU64::new(0),
            generation: fork::generation(),
            waiting: AtomicU32::new(0),
            left_behind: AtomicU32::new(0),
            mailbox: Mutex::new(None),
        };
        Source { inner: Arc::new(inner) }
    }

    /// Reads by `op`, and parks and tries again as long as it would block. Switches.
    ///
    /// `op` returns its value, and what it leaves behind.
    ///
    /// # Errors
    ///
    /// What `op` returns; [`TimedOut`](io::ErrorKind::TimedOut) when `timeout` passes first; what
    /// [`trampoline`](crate::trampoline()) returns. On a non-blocking source
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), instead of a wait.
    #[inline]
    pub fn read<R>(
        &self,
        timeout: Option<Duration>,
        op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>,
    ) -> io::Result<R> {
        self.charge::<_, false>(timeout, op)
    }

    /// Like [`read`](Source::read), with an end that the system keeps from calls that do not block. Switches.
    ///
    /// `end` is asked when `op` would block although the hub has reported an end. It returns what a blocking call that
    /// found nothing would return, or `None` if that would block, too.
    ///
    /// # Errors
    ///
    /// As [`read`](Source::read); what `end` returns.
    #[inline]
    pub fn read_or_end<R>(
        &self,
        timeout: Option<Duration>,
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
            // Something may have come between the look for it and the look for the end.
            let result = op(fd);
            // No further report may come of this end, so the next operation tries at once.
            if would_block(&result) { end.map(|value| (value, ReadHint::Likely)) } else { result }
        };
        self.charge::<_, false>(timeout, op)
    }

    /// Whether the hub has reported an end; true where there is no hub to do so.
    #[inline(never)]
    fn may_have_ended(&self) -> bool {
        local::get_if_any().is_none_or(|local| local.main_loop.has_ended(self.inner.fd, self.inner.id))
    }

    /// Forgets a reported end that was an error, which is over.
    #[cold]
    fn has_not_ended(&self) {
        if let Some(local) = local::get_if_any() {
            local.main_loop.has_not_ended(self.inner.fd, self.inner.id);
        }
    }

    /// Writes by `op`, and parks and tries again as long as it would block. Switches.
    ///
    /// # Errors
    ///
    /// As [`read`](Source::read).
    #[inline]
    pub fn write<R>(
        &self,
        timeout: Option<Duration>,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        let op = |fd: BorrowedFd<'_>| op(fd).map(|value| (value, ReadHint::Likely));
        self.charge::<_, true>(timeout, op)
    }

    /// Performs `op` at once, or lets others run before it: an exit that strikes then loses nothing.
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
            run::operations_used_up().map_err(|refused| *refused)?;
        }
        self.perform::<_, WRITES>(timeout, op)
    }

    /// However often the hub reports what `op` does not confirm, that costs a bounded number of turns: see [`Doubts`].
    #[inline(never)]
    fn perform<R, const WRITES: bool>(
        &self,
        timeout: Option<Duration>,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>,
    ) -> io::Result<R> {
        let inner = &*self.inner;
        let entered = inner.enter()?;
        // SAFETY: open as long as `entered` lives.
        let fd = unsafe { BorrowedFd::borrow_raw(inner.fd) };
        let state = inner.state.load(Relaxed);
        let nonblocking = state & NONBLOCKING != 0;
        let direction = if WRITES { Interest::WRITE } else { Interest::READ };
        let mut wait = Wait::new(timeout, WRITES && state & RETRYING != 0);
        let Some(local) = local::get_if_any() else {
            return perform_alone(fd, direction, nonblocking, wait, op);
        };
        let main_loop = &local.main_loop;
        // Where it is known to block, a caller that polls still wants to see for itself, and one that panics cannot park.
        let mut attempt =
            main_loop.may_succeed(inner.fd, inner.id, direction) || nonblocking || std::thread::panicking();
        loop {
            if attempt {
                main_loop.count_operation();
                match op(fd) {
                    Ok((value, left)) => {
                        main_loop.operated(inner.fd, inner.id, direction, Some(left));
                        return Ok(value);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && !nonblocking => {
                        main_loop.operated(inner.fd, inner.id, direction, None);
                    }
                    Err(error) if nonblocking => return Err(error),
                    Err(error) => return Err(give_way_if_exhausted(error)),
                }
            }
            self.park(&entered, main_loop, direction, &mut wait)?;
            // A waiter that was woken looks, whatever others that wait for the same have made of the readiness.
            attempt = true;
        }
    }

    /// Waits until the source is ready in one direction. Switches.
    ///
    /// Readiness is a hint, as that of [`trampoline`](crate::trampoline()): a caller that tries an operation after each
    /// such wait has to bound how often it does so. [`read`](Source::read) and [`write`](Source::write) do.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{Interest, Source};
    /// use std::time::Duration;
    /// let (reader, _writer) = std::io::pipe()?;
    /// let reader = Source::new(reader.into())?;
    /// let waited = reader.wait(Interest::READ, Some(Duration::from_millis(1)));
    /// assert_eq!(waited.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`read`](Source::read).
    pub fn wait(&self, direction: Interest, timeout: Option<Duration>) -> io::Result<()> {
        let entered = self.inner.enter()?;
        let Some(local) = local::get_if_any() else {
            // SAFETY: open as long as `entered` lives.
            let fd = unsafe { BorrowedFd::borrow_raw(self.inner.fd) };
            return Ok(block_on(fd, direction, timeout).map(drop)?);
        };
        self.park(&entered, &local.main_loop, direction, &mut Wait::new(timeout, false))
    }

    /// Parks until the operation is to be tried. A call after the first one means that it did not confirm the report.
    fn park(
        &self,
        entered: &Entered<'_>,
        main_loop: &MainLoop,
        direction: Interest,
        wait: &mut Wait,
    ) -> io::Result<()> {
        if wait.reported | wait.retrying {
            return self.park_in_doubt(entered, main_loop, direction, wait);
        }
        wait.reported = true;
        self.park_on_hub(entered, main_loop, direction, &mut wait.limit)
    }

    /// Parks until the hub reports the source.
    #[inline(always)]
    fn park_on_hub(
        &self,
        entered: &Entered<'_>,
        main_loop: &MainLoop,
        direction: Interest,
        limit: &mut Deadline,
    ) -> io::Result<()> {
        let inner = entered.0;
        let waiting = self.prepare(entered, main_loop, direction)?;
        // SAFETY: open as long as `entered` lives, which is longer than the wait; for the registration's
        // life because it is forgotten before the number is closed.
        let waited = unsafe { main_loop.wait_for(inner.fd, Owner::Socket(inner.id), direction, limit) };
        drop(waiting);
        match waited {
            Ok(_) => Ok(()),
            Err(TrampolineError::Loop(LoopError::Panicking | LoopError::ThreadEnding)) => {
                // SAFETY: open as long as `entered` lives.
                let fd = unsafe { BorrowedFd::borrow_raw(inner.fd) };
                block_on(fd, direction, limit.duration())?;
                main_loop.make_ready(inner.fd, inner.id, direction);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Parks after a report that the operation did not confirm, or where a report may be missing.
    #[cold]
    fn park_in_doubt(
        &self,
        entered: &Entered<'_>,
        main_loop: &MainLoop,
        direction: Interest,
        wait: &mut Wait,
    ) -> io::Result<()> {
        let inner = entered.0;
        let now = main_loop.now();
        if mem::take(&mut wait.reported)
            && let Some(pause) = wait.doubts.add(now)
        {
            // A report comes before a deadline, whose timer would never end the wait.
            let left = wait.limit.left_at(now).unwrap_or(Duration::MAX);
            if left.is_zero() {
                return Err(TrampolineError::TimedOut(inner.fd).into());
            }
            return self.pause(entered, main_loop, direction, pause.min(left));
        }
        // A destructor that unwinds waits once.
        let looks_again = wait.retrying && !std::thread::panicking();
        let pause = if looks_again { wait.looks.next() } else { Duration::MAX };
        if wait.limit.left_at(now).unwrap_or(Duration::MAX) <= pause {
            wait.reported = true;
            return self.park_on_hub(entered, main_loop, direction, &mut wait.limit);
        }
        match self.park_on_hub(entered, main_loop, direction, &mut Deadline::from(Some(pause))) {
            Ok(()) => wait.reported = true,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Parks for `pause` without asking the hub.
    fn pause(
        &self,
        entered: &Entered<'_>,
        main_loop: &MainLoop,
        direction: Interest,
        pause: Duration,
    ) -> io::Result<()> {
        let inner = entered.0;
        let waiting = self.prepare(entered, main_loop, direction)?;
        // SAFETY: as in `park_on_hub`.
        let waited = unsafe { main_loop.pause(inner.fd, Owner::Socket(inner.id), direction, pause) };
        drop(waiting);
        waited.map_err(|error| match error {
            // A destructor that unwinds cannot park, and is not to spin.
            TrampolineError::Loop(LoopError::Panicking) => TrampolineError::TimedOut(inner.fd).into(),
            error => error.into(),
        })
    }

    /// Prepares a wait of the running greenlet.
    #[inline(always)]
    fn prepare<'a>(&self, entered: &Entered<'a>, main_loop: &MainLoop, direction: Interest) -> io::Result<Waiting<'a>> {
        let inner = entered.0;
        if direction != Interest::READ && direction != Interest::WRITE {
            return Err(TrampolineError::Interest(direction, inner.fd).into());
        }
        let waiting = Waiting::count(inner);
        self.settle(main_loop)?;
        let state = inner.state.load(SeqCst);
        if state & CLOSED != 0 {
            return Err(TrampolineError::Closed(inner.fd).into());
        }
        if state & LENT != 0 {
            // A waiter under the number has borrowed it, and stays.
            main_loop.adopt(inner.fd, inner.id);
        }
        Ok(waiting)
    }

    /// Makes this thread's hub the one that knows the source.
    #[inline]
    fn settle(&self, main_loop: &MainLoop) -> io::Result<()> {
        if self.inner.home.load(SeqCst) == main_loop.id() { Ok(()) } else { self.move_here(main_loop) }
    }

    #[cold]
    fn move_here(&self, main_loop: &MainLoop) -> io::Result<()> {
        let inner = &self.inner;
        main_loop.ensure_hub().map_err(io::Error::from)?;
        let Some(here) = main_loop.mailbox() else { return Err(TrampolineError::Closed(inner.fd).into()) };
        let mut mailbox = inner.lock();
        let before = inner.home.swap(main_loop.id(), SeqCst);
        // An earlier hub of this thread is gone, with everything that it knew.
        let elsewhere = mailbox.as_ref().is_some_and(|mailbox| !Arc::ptr_eq(mailbox, &here) && !mailbox.is_gone());
        // This greenlet is counted too.
        let others = inner.waiting.load(SeqCst) - 1;
        if mailbox.as_ref().is_some_and(|mailbox| mailbox.is_left_behind()) {
            inner.left_behind.store(others, Relaxed);
        }
        if elsewhere && others > inner.left_behind.load(Relaxed) {
            inner.home.store(before, SeqCst);
            let text = format!("descriptor {} is waited for on another thread; use try_clone for one each", inner.fd);
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        let before = mailbox.replace(here);
        drop(mailbox);
        if elsewhere && let Some(before) = before {
            inner.post(&before, Request::Forget);
        }
        Ok(())
    }

    /// Returns a handle that wakes the waiters of the source. Does not switch.
    #[must_use]
    pub fn waker(&self) -> SourceWaker {
        SourceWaker(Arc::downgrade(&self.inner))
    }

    /// Wakes the green threads that wait in `directions`, on any OS thread. Their operations are tried again: for what the
    /// system does not report, such as a `shutdown(Write)` of this side of a Unix socket. Does not switch.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{Interest, Source};
    /// use std::rc::Rc;
    /// let (reader, _writer) = std::io::pipe()?;
    /// let source = Rc::new(Source::new(reader.into())?);
    /// let waiting = source.clone();
    /// let waiter = hub_core::spawn(move || waiting.wait(Interest::READ, None));
    /// hub_core::yield_now();
    /// source.wake(Interest::READ);
    /// waiter.join()??;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn wake(&self, directions: Interest) {
        self.inner.wake(directions);
    }

    /// Runs `op`, which does not wait, with the descriptor. Does not switch.
    ///
    /// # Errors
    ///
    /// What `op` returns, and [`NotConnected`](io::ErrorKind::NotConnected) when the source is closed.
    pub fn with<R>(&self, op: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        let _entered = self.inner.enter()?;
        // SAFETY: open as long as it is entered.
        op(unsafe { BorrowedFd::borrow_raw(self.inner.fd) })
    }

    /// Closes the source: whoever waits for it is woken with an error, and every later operation fails with
    /// [`NotConnected`](io::ErrorKind::NotConnected). The number is closed when the last operation under way
    /// has ended, or with the source if it was lent by `as_fd`. Twice is the same as once. Does not switch.
    ///
    /// In a forked child, green threads of OS threads that are not there keep the number: the open file behind it is let
    /// go of at once, and the number stays taken.
    ///
    /// A [`trampoline`](crate::trampoline) on the bare descriptor, which knows nothing of this, is woken too if
    /// it runs on the OS thread that waits for the source; on another one it is not.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{Interest, Source};
    /// let (reader, _writer) = std::io::pipe()?;
    /// let reader = Source::new(reader.into())?;
    /// reader.close();
    /// assert_eq!(reader.wait(Interest::READ, None).unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn close(&self) {
        self.inner.state.fetch_add(ENTERED, Acquire);
        let entered = Entered(&self.inner);
        if self.inner.state.fetch_or(CLOSED, SeqCst) & CLOSED == 0 {
            self.inner.forget();
        }
        self.inner.close_if_left_behind();
        drop(entered);
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.state.load(Acquire) & CLOSED != 0
    }

    /// Has operations return [`WouldBlock`](io::ErrorKind::WouldBlock) instead of waiting, or wait again. Off at
    /// first; the descriptor itself is non-blocking either way.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        if nonblocking {
            self.inner.state.fetch_or(NONBLOCKING, Relaxed);
        } else {
            self.inner.state.fetch_and(!NONBLOCKING, Relaxed);
        }
    }

    /// Has writes that wait tried again after pauses that grow from 1 ms to 64 ms as well, whatever the hub reports: for
    /// sockets of which the system does not report every end of such a wait. Off at first. Does not switch.
    pub fn set_retrying(&self, retrying: bool) {
        if retrying {
            self.inner.state.fetch_or(RETRYING, Relaxed);
        } else {
            self.inner.state.fetch_and(!RETRYING, Relaxed);
        }
    }

    /// Whether writes that wait are tried again as well.
    #[must_use]
    pub fn is_retrying(&self) -> bool {
        self.inner.state.load(Relaxed) & RETRYING != 0
    }

    /// Whether operations return [`WouldBlock`](io::ErrorKind::WouldBlock) instead of waiting.
    #[inline]
    #[must_use]
    pub fn is_nonblocking(&self) -> bool {
        self.inner.state.load(Relaxed) & NONBLOCKING != 0
    }

    /// The descriptor, which no hub knows any more. It is non-blocking still.
    ///
    /// # Errors
    ///
    /// If the source was closed, or the number is still known to the hub of another thread and cannot be
    /// duplicated.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        let inner = &self.inner;
        let _entered = inner.enter()?;
        inner.forget();
        // Alone but for this call: no notice that another hub has to read is under way.
        let alone = |state| (state < 2 * ENTERED).then_some(state | CLOSED | GONE);
        if inner.state.fetch_update(AcqRel, Acquire, alone).is_ok() {
            // SAFETY: open until now, and GONE says that nobody else closes it.
            return Ok(unsafe { OwnedFd::from_raw_fd(inner.fd) });
        }
        // The number itself stays open until that hub has let go of it.
        // SAFETY: open as long as it is entered.
        Ok(rustix::io::fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(inner.fd) }, 0)?)
    }
}

/// Where descriptors have run out, those who hold some have to run: the caller is likely to try again at once,
/// and again. What the main loop has to tell the main greenlet is the error then.
#[cold]
fn give_way_if_exhausted(error: io::Error) -> io::Error {
    if !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        return error;
    }
    match run::yield_now().map_err(|refused| *refused) {
        Ok(()) | Err(LoopError::InMainloop { .. } | LoopError::Panicking | LoopError::ThreadEnding) => error,
        Err(refused) => refused.into(),
    }
}

/// Performs `op` in a destructor at the end of a thread that has no loop any more: it blocks for the time of
/// grace at most.
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
                    return Err(TrampolineError::TimedOut(fd.as_raw_fd()).into());
                }
                block_on(fd, direction, wait.limit.duration())?;
            }
            Err(error) => return Err(error),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.inner.state.fetch_and(!LENT, AcqRel);
        self.close();
    }
}

impl AsFd for Source {
    /// Lends the descriptor: from now on its number is open until the source is dropped. A source that was
    /// closed before must not be lent.
    ///
    /// # Panics
    ///
    /// If the source was closed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.state.fetch_add(ENTERED, Acquire);
        let entered = Entered(&self.inner);
        let state = self.inner.state.fetch_or(LENT, AcqRel);
        assert!(state & GONE == 0, "descriptor {} was closed before it was lent", self.inner.fd);
        drop(entered);
        // SAFETY: not GONE while it was entered, and with LENT nobody closes it before the drop.
        unsafe { BorrowedFd::borrow_raw(self.inner.fd) }
    }
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.fd
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("fd", &self.inner.fd).field("closed", &self.is_closed()).finish()
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
    fn closing_closes_the_number_at_once_when_nobody_uses_it() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let source = Source::new(reader.into()).expect("non-blocking");
        source.close();
        let error = std::io::Write::write(&mut &writer, b"x").expect_err("no reader is left");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(source.with(|_| Ok(())).expect_err("closed").kind(), io::ErrorKind::NotConnected);
    }

    #[test]
    fn a_number_that_was_lent_stays_open_until_the_drop() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let source = Source::new(reader.into()).expect("non-blocking");
        let lent = source.as_fd();
        source.close();
        assert!(rustix::io::fcntl_getfd(lent).is_ok());
        drop(source);
        let error = std::io::Write::write(&mut &writer, b"x").expect_err("no reader is left");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
