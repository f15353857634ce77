//! The operations of a source in futures: one-shot wakers in place of parked greenlets.
//!
//! Ground rule: an armed waker stands for an operation in progress. Its [`PollGuard`] is counted like a parked
//! greenlet, and keeps the number open.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Source;
use super::home::Mover;
use super::state::Inner;
use crate::error::{HubError, LoopError, TrampolineError};
use crate::greenlet::driver::Driver;
use crate::greenlet::exit::drop_contained;
use crate::greenlet::{local, run};
use crate::hub::Interest;
use crate::main_loop::MainLoop;
use crate::main_loop::doubt::Pauses;
use crate::main_loop::read_hint::ReadHint;
use crate::main_loop::remote::Message;
use crate::main_loop::waker_table::{self, PollGuard, WakeAt};

impl Source {
    /// Performs `op` for a future. Does not switch.
    ///
    /// `direction` is reading or writing. `op` returns its value and a [`ReadHint`] about the next operation; a write
    /// returns [`ReadHint::Likely`]. While `op` would block, the waker of `cx` is armed for the direction, in the place
    /// of a parked green thread, and the result is [`Poll::Pending`].
    ///
    /// The waker is woken once: by a report of the hub, by [`wake`](Source::wake), by the close of the source on any OS
    /// thread, when the hub is replaced, when the loop is aborted, and in a forked child. Each direction has one waker:
    /// a later poll replaces it. A green thread that waits for the same direction makes the poll fail, and an armed
    /// waker makes the wait of a green thread fail, unless
    /// [`hub_prevent_multiple_readers`](crate::hub_prevent_multiple_readers) is off: then the later one waits behind
    /// the earlier one. An armed waker that is no longer wanted is [cancelled](Source::cancel_poll).
    ///
    /// After 16 operations without a switch one poll is [`Pending`](Poll::Pending) and wakes its own waker, so that
    /// others run. The waker is woken on the OS thread of the poll, by the main loop: something has to run it, such as
    /// a wait of the main greenlet. A future may move to another OS thread between two polls. Polls of one source on
    /// two OS threads take it from each other; a [wait](Source::wait) on another OS thread is not disturbed, and the
    /// poll fails. The non-blocking mode of the source changes nothing, since a poll never waits.
    ///
    /// ```
    /// use greenhub::Interest;
    /// use greenhub::park::{ReadHint, Source};
    /// use std::task::{Context, Poll, Waker};
    /// use std::io::{Read, Write};
    /// let (mut reader, mut writer) = std::io::pipe()?;
    /// let source = Source::new(reader.try_clone()?.into())?; // now non-blocking, and so is `reader`
    /// let mut cx = Context::from_waker(Waker::noop());
    /// let mut buffer = [0; 16];
    /// let mut poll = || {
    ///     source.poll(Interest::READ, &mut cx, |_| Ok((reader.read(&mut buffer)?, ReadHint::Nothing)))
    /// };
    /// assert!(poll().is_pending());
    /// writer.write_all(b"hello")?;
    /// greenhub::sleep(std::time::Duration::from_millis(1)); // the main loop finds the data, and wakes the waker
    /// assert!(matches!(poll(), Poll::Ready(Ok(5))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error of `op`. Returns [`NotConnected`](io::ErrorKind::NotConnected) if the source is closed, and
    /// [`ResourceBusy`](io::ErrorKind::ResourceBusy) if a green thread waits: for the same direction, or on another OS
    /// thread. Returns an error if the hub refuses the descriptor or cannot be built. Nothing is armed then. A poll
    /// inside a call of the hub is pending at first: the waker is armed after the call, or woken for a poll that
    /// returns the error.
    pub fn poll<R>(
        &self,
        direction: Interest,
        cx: &mut Context<'_>,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>,
    ) -> Poll<io::Result<R>> {
        let inner = &self.inner;
        if direction != Interest::READ && direction != Interest::WRITE {
            return Poll::Ready(Err(TrampolineError::Interest { interest: direction, fd: inner.fd() }.into()));
        }
        let entered = match inner.enter() {
            Ok(entered) => entered,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let Some(local) = local::get_if_any() else { return Poll::Ready(perform_at_end(entered.fd(), op)) };
        if !run::charge() && run::is_yield_due() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let main_loop = &local.main_loop;
        let (fd, id) = (inner.fd(), inner.id);
        let refusal = main_loop.wakers.take_refusal(id, direction);
        let state =
            main_loop.with_table(|table| (table.may_succeed(fd, id, direction), table.was_reported(fd, id, direction)));
        let (mut attempt, reported) = state.unwrap_or((true, false));
        while attempt {
            main_loop.counters.count_operation();
            match op(entered.fd()) {
                Ok((value, left)) => {
                    inner.operated(main_loop, direction, Some(left));
                    if reported {
                        main_loop.with_table(|table| table.doubts(fd, id).map(|doubts| doubts.clear()));
                    }
                    return Poll::Ready(Ok(value));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    inner.operated(main_loop, direction, None);
                    attempt = false;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let armed = match refusal {
            // Outside of a hub it is stale: the waker is armed at once, or refused again.
            Some(error) if main_loop.in_hub() => Err(error),
            stale => {
                drop_contained(stale);
                self.arm(main_loop, direction, cx.waker(), reported)
            }
        };
        match armed {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Arms a waker after an operation that would block. `reported`: the hub had reported the direction.
    fn arm(&self, main_loop: &MainLoop, direction: Interest, waker: &Waker, reported: bool) -> io::Result<()> {
        let inner = &self.inner;
        if main_loop.in_hub() {
            return self.arm_after_hub(main_loop, direction, waker);
        }
        if main_loop.renew_waker(inner.fd(), inner.id, direction, waker) {
            return Ok(());
        }
        let begun = inner.begin_arming()?;
        inner.arm(main_loop, direction, waker.clone(), reported, begun)
    }

    /// Sends the waker to the loop: the hub, which is running, cannot be called, and may read the table of descriptors.
    #[cold]
    fn arm_after_hub(&self, main_loop: &MainLoop, direction: Interest, waker: &Waker) -> io::Result<()> {
        let Some(mailbox) = main_loop.mailbox() else { return Err(self.inner.closed_error()) };
        let (inner, waker) = (Arc::clone(&self.inner), waker.clone());
        // Counted from now on, so that a cancellation, which is sent as well, is not skipped.
        let begun = inner.begin_arming()?;
        let request = move || inner.arm_now(waker, direction, begun);
        mailbox.post(Message::Run(Box::new(request))).map_err(|_| LoopError::from(HubError::ThreadEnding).into())
    }

    /// Cancels the armed wakers of [`poll`](Source::poll) in `directions`. Does not switch.
    ///
    /// The main loop wakes them: another future may have armed them since, and it polls again then. If they are armed
    /// on another OS thread, or if this call is made inside the hub's `wait`, green threads that wait in `directions`
    /// are woken too, and try again. An adapter calls it when it is dropped: otherwise a green thread could not wait
    /// for the direction.
    ///
    /// ```
    /// use greenhub::Interest;
    /// use greenhub::park::{ReadHint, Source};
    /// use std::io::Read;
    /// use std::task::{Context, Waker};
    /// use std::time::Duration;
    /// let (mut reader, _writer) = std::io::pipe()?;
    /// let source = Source::new(reader.try_clone()?.into())?; // now non-blocking, and so is `reader`
    /// let mut cx = Context::from_waker(Waker::noop());
    /// let polled = source.poll(Interest::READ, &mut cx, |_| Ok((reader.read(&mut [0])?, ReadHint::Perhaps)));
    /// assert!(polled.is_pending());
    /// let wait = || source.wait(Interest::READ, Duration::from_millis(1)).unwrap_err().kind();
    /// assert_eq!(wait(), std::io::ErrorKind::ResourceBusy);
    /// source.cancel_poll(Interest::READ);
    /// assert_eq!(wait(), std::io::ErrorKind::TimedOut);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn cancel_poll(&self, directions: Interest) {
        let inner = &self.inner;
        let local = local::try_get();
        if let Some(local) = local {
            for direction in [Interest::READ, Interest::WRITE] {
                if directions.contains(direction) {
                    drop_contained(local.main_loop.wakers.take_refusal(inner.id, direction));
                }
            }
        }
        if inner.home.polls() == 0 {
            return;
        }
        let is_here = local.is_some_and(|local| {
            inner.home.hub() == local.main_loop.id().number()
                && local.main_loop.cancel_wakers(inner.fd(), inner.id, directions)
        });
        if !is_here {
            inner.wake(directions);
        }
    }
}

/// The operation that a waker stands for, before the waker is armed.
struct Begun {
    guard: PollGuard,
    /// The number of wake-ups of the source before.
    wakes: u32,
}

impl Inner {
    /// Begins the operation that an armed waker stands for.
    fn begin_arming(self: &Arc<Self>) -> io::Result<Begun> {
        let wakes = self.home.wakes();
        let guard = PollGuard::new(Arc::clone(self) as _).ok_or_else(|| self.closed_error())?;
        Ok(Begun { guard, wakes })
    }

    /// Arms a waker in the table of descriptors of this OS thread.
    fn arm(
        self: &Arc<Self>,
        main_loop: &MainLoop,
        direction: Interest,
        waker: Waker,
        reported: bool,
        begun: Begun,
    ) -> io::Result<()> {
        let Begun { mut guard, wakes } = begun;
        if !self.settle(main_loop, Mover::Poll, guard.era(), wakes)? {
            drop(guard);
            waker_table::wake(waker);
            return Ok(());
        }
        let pause = if reported { self.doubt(main_loop) } else { None };
        let at = match pause {
            Some(pause) => WakeAt::Pause(pause),
            None if direction == Interest::WRITE && self.flags().is_retrying() => WakeAt::ReportOr(Pauses::LONGEST),
            None => WakeAt::Report,
        };
        // SAFETY: `guard` keeps the number open. It is open for the life of the registration: see `park_on_hub`.
        Ok(unsafe { main_loop.arm_waker(self.fd(), self.id, direction, waker, at, guard) }?)
    }

    /// Records a report that the operation did not confirm. Returns for how long the hub must not be asked.
    fn doubt(&self, main_loop: &MainLoop) -> Option<std::time::Duration> {
        let now = main_loop.now();
        main_loop.with_table(|table| table.doubts(self.fd(), self.id).and_then(|doubts| doubts.add(now)))?
    }

    /// Arms a waker that was sent from inside the hub's `wait`, or wakes it.
    fn arm_now(self: Arc<Self>, waker: Waker, direction: Interest, begun: Begun) {
        let main_loop = &local::get().main_loop;
        let (fd, id) = (self.fd(), self.id);
        // A report of that wait has found no waiter.
        let is_ready = main_loop.with_table(|table| table.may_succeed(fd, id, direction) && table.knows(fd, id));
        let armed = is_ready == Some(false) && {
            main_loop.renew_waker(fd, id, direction, &waker)
                || match self.arm(main_loop, direction, waker.clone(), false, begun) {
                    Ok(()) => true,
                    Err(error) => {
                        // The next poll, which may be inside the hub again, returns it.
                        let source = Arc::downgrade(&self);
                        main_loop.wakers.keep_refusal(source, id, direction, error);
                        false
                    }
                }
        };
        if armed {
            drop_contained(waker);
        } else {
            waker_table::wake(waker);
        }
    }
}

/// Performs `op` in a destructor at the end of an OS thread, where there is no loop any more.
#[cold]
fn perform_at_end<R>(
    fd: BorrowedFd<'_>,
    mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, ReadHint)>,
) -> io::Result<R> {
    loop {
        match op(fd) {
            Ok((value, _)) => return Ok(value),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(LoopError::from(HubError::ThreadEnding).into());
            }
            Err(error) => return Err(error),
        }
    }
}
