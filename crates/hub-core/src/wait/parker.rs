//! Waits that any OS thread may end: locks, queues and events are built on them.
//!
//! A [`Parker`] is one wait of its caller: of a green thread, which parks, or of a plain OS thread, which blocks
//! itself. Its [`Unparker`] identifies that wait and no other. It consists of a few numbers and may outlive the wait,
//! so a primitive keeps unparkers under a lock of its own and has to remove none of them.

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::unparker::Unparker;
use crate::base::dormant::{Dormant, FIRST_LOOK, LONGEST_LOOK, Sleep, Waits};
use crate::base::fork;
use crate::base::os_thread::start_thread;
use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, LoopErrorKind};
use crate::greenlet::local;
use crate::greenlet::patience;
use crate::greenlet::run::{self, Park};
use crate::main_loop::deadline::Deadline;
use crate::main_loop::parked::Parked;
use crate::main_loop::reach::{self, PLAIN, Plain, WaitId};
use crate::report::{self, Report};

/// One wait of the calling green thread, or of an OS thread without green threads.
///
/// This order loses no wake-up: take a lock, find that the operation cannot proceed, make a parker, store its
/// [`unparker`](Parker::unparker) where the other side finds it, release the lock, [`park`](Parker::park), check again.
/// An unparker that is left over does nothing.
///
/// A caller has one parker at a time: between `new` and `park` it must wait for nothing else, and begin no poll of a
/// future.
///
/// ```
/// use greenhub::park::{Deadline, Parked, Parker, WaitReason};
/// let parker = Parker::new(WaitReason::Event)?;
/// let unparker = parker.unparker();
/// let other = std::thread::spawn(move || unparker.unpark());
/// assert_eq!(parker.park(&mut Deadline::none())?, Parked::Unparked);
/// other.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Waiter")]
#[derive(Debug)]
#[must_use = "nothing is waited for before `park`"]
pub struct Parker {
    /// Numbers only: a parker may outlive the memory of the OS thread's greenlets, and is kept in registers.
    wait: WaitId,
    /// A parker stays on its OS thread.
    not_send: PhantomData<*mut ()>,
}

impl Parker {
    /// Begins a wait for the reason `reason`, which reports show. Switches only before an exit that was swallowed.
    ///
    /// A pending exit is thrown, unless `reason` is [`WaitReason::Lock`]: see
    /// [`set_lock_patience`](crate::set_lock_patience). If the exit was swallowed before, other green threads may run
    /// before it is thrown again. The first wait of an OS thread with green threads builds its hub, which is foreign
    /// code. So use [`if_prepared`](Parker::if_prepared) under a lock.
    ///
    /// # Errors
    ///
    /// Returns an error where the caller cannot wait: in the main loop, in a poll of a future, and while panicking. In
    /// the main greenlet, also returns the error that the main loop has left for it.
    ///
    /// Returns an error if no hub can be built and the OS thread has green threads, timers or listeners, which only a
    /// hub can serve. Without them the wait blocks the OS thread.
    pub fn new(reason: WaitReason) -> Result<Parker, LoopError> {
        match Parker::if_prepared(reason)? {
            Some(parker) => Ok(parker),
            None => {
                Parker::prepare(reason)?;
                Parker::new(reason)
            }
        }
    }

    /// Like [`new`](Parker::new), but builds no hub and throws no exit. Does not switch.
    ///
    /// Returns `None` if a hub has to be built or an exit has to be thrown first. Call [`prepare`](Parker::prepare)
    /// without a lock then.
    ///
    /// # Errors
    ///
    /// The same as [`new`](Parker::new).
    #[inline(always)]
    pub fn if_prepared(reason: WaitReason) -> Result<Option<Parker>, LoopError> {
        let Some(local) = local::try_get() else { return Parker::plain(reason).map(Some) };
        if !local.main_loop.is_reachable() {
            let blocks = local.main_loop.takes_blocking(local);
            return if blocks { Parker::plain(reason).map(Some) } else { Ok(None) };
        }
        let Some(park) = Park::begin(reason)? else { return Ok(None) };
        let greenlet = NonZeroU64::MIN.saturating_add(park.control().number().into());
        Ok(Some(Parker::begun(greenlet, park.ticket())))
    }

    /// Begins a wait of this OS thread as a whole.
    #[cold]
    fn plain(reason: WaitReason) -> Result<Parker, LoopError> {
        reach::note_reason(reason);
        Ok(Parker::begun(PLAIN, plain()?.begin()))
    }

    #[inline]
    fn begun(greenlet: NonZeroU64, ticket: u64) -> Parker {
        Parker { wait: WaitId { thread: fork::this_thread(), greenlet, ticket }, not_send: PhantomData }
    }

    /// Prepares a wait: builds the hub, and throws a pending exit.
    ///
    /// It builds a hub only in an OS thread with green threads. Switches before it throws an exit that was swallowed.
    ///
    /// # Errors
    ///
    /// Returns an error if no hub can be built, like [`new`](Parker::new).
    #[cold]
    pub fn prepare(reason: WaitReason) -> Result<(), LoopError> {
        let Some(local) = local::try_get() else { return Ok(()) };
        if !local.main_loop.is_reachable() {
            local.main_loop.prepare_wait(local)?;
        }
        if !patience::holds_exits(reason) {
            run::check_exit();
        }
        Ok(())
    }

    /// Returns the handle that ends this wait.
    #[inline]
    #[must_use]
    pub fn unparker(&self) -> Unparker {
        Unparker { wait: self.wait }
    }

    /// Waits until the parker is unparked, or `deadline` has passed. Switches.
    ///
    /// Returns at once if the parker was unparked before. An exit that comes first unwinds. An exit that comes after
    /// the unpark is left for the next wait.
    ///
    /// # Errors
    ///
    /// Returns the error that the main loop has for the main greenlet. Returns an error while panicking, and for a
    /// green thread's wait after the end of its OS thread. Returns an error if the caller came to a place without waits
    /// since the parker was made: a poll of a future, or between two turns of a loop that it embeds.
    ///
    /// # Panics
    ///
    /// Panics if another greenlet made the parker. A parker that was made before its OS thread had a greenlet belongs
    /// to the OS thread: it never panics, and blocks the OS thread.
    #[inline]
    #[track_caller]
    pub fn park(self, deadline: &mut Deadline) -> Result<Parked, LoopError> {
        let parked = self.park_deferring_exit(deadline)?;
        if parked == Parked::Exit {
            run::throw_exit();
        }
        Ok(parked)
    }

    /// Returns the park of a green thread, for a wait that ends by a descriptor, too.
    ///
    /// # Errors
    ///
    /// Returns an error where a green thread cannot park, and for the wait of an OS thread as a whole.
    pub(crate) fn begun_park(&self) -> Result<Park, LoopError> {
        if std::thread::panicking() {
            return Err(LoopErrorKind::Panicking.into());
        }
        let Some(number) = self.wait.number() else {
            return Err(LoopError::wait_failed("none", io::ErrorKind::Unsupported.into()));
        };
        Park::begun(number, self.wait.ticket)
    }

    /// Like [`park`](Parker::park), but returns [`Parked::Exit`] for an exit. Switches.
    ///
    /// Use this in a primitive whose other side may be another OS thread. The other side may have granted the operation
    /// before its wake-up has arrived here. So the caller checks for a grant under the lock of the primitive. Without a
    /// grant, the caller gives up and calls
    /// [`throw_exit`](crate::throw_exit).
    ///
    /// # Errors
    ///
    /// The same as [`park`](Parker::park).
    ///
    /// # Panics
    ///
    /// The same as [`park`](Parker::park).
    #[inline(always)]
    #[track_caller]
    pub fn park_deferring_exit(self, deadline: &mut Deadline) -> Result<Parked, LoopError> {
        let wait = self.wait;
        // The end of the park retires the ticket, so `Drop` must not run.
        std::mem::forget(self);
        let Some(number) = wait.number() else { return park_plain(wait.ticket, deadline) };
        let Some(local) = local::try_get() else { return Err(LoopErrorKind::ThreadEnding.into()) };
        if std::thread::panicking() {
            return Err(LoopErrorKind::Panicking.into());
        }
        local.main_loop.park_until(Park::begun(number, wait.ticket)?, deadline)
    }
}

impl Drop for Parker {
    /// Ends a wait that never began, so that a late unpark ends no other wait.
    #[inline]
    fn drop(&mut self) {
        let WaitId { thread, greenlet, ticket } = self.wait;
        take_back(thread, greenlet, ticket);
    }
}

// Cold paths take the fields by value, so that the wait stays in registers on the hot path.

#[cold]
fn take_back(thread: u64, greenlet: NonZeroU64, ticket: u64) {
    Unparker { wait: WaitId { thread, greenlet, ticket } }.unpark();
}

/// Returns the state by which this OS thread waits as a whole.
fn plain() -> Result<Arc<Plain>, LoopError> {
    reach::plain().map_err(|error| LoopError::wait_failed("none", error))
}

/// Waits without a limit, and checks for a deadlock at intervals: there may be no loop that finds one.
fn park_dormant(plain: &Arc<Plain>, ticket: u64) {
    let dormant = Dormant::waiter(Waits::Thread(reach::reason()), Arc::clone(plain) as Arc<dyn Sleep>, ticket);
    let mut pause = FIRST_LOOK;
    while !plain.ends_within(ticket, pause) {
        pause = LONGEST_LOOK.min(2 * pause);
        if let Some(threads) = dormant.deadlock() {
            tell_elsewhere(Report::Deadlock { threads });
        }
    }
}

/// Reports from an OS thread of its own. The report stream is foreign code, and a wait in it must not replace the
/// caller's wait.
fn tell_elsewhere(report: Report) {
    // Without an OS thread there is no report.
    let _ = start_thread("greenhub-report".to_owned(), move || report::tell(report));
}

/// The time after which a waiting OS thread counts as dormant, which takes a lock of the process. Most waits are
/// shorter, and deadlocks are checked for after a second.
const BRIEF: Duration = Duration::from_millis(100);

#[cold]
fn park_plain(ticket: u64, deadline: &mut Deadline) -> Result<Parked, LoopError> {
    let plain = plain()?;
    let ended = reach::ends_soon(&plain, ticket, deadline.begin());
    if !ended && deadline.is_none() && !plain.ends_within(ticket, BRIEF) {
        park_dormant(&plain, ticket);
    }
    let parked = plain.park(ticket, deadline);
    reach::forget_if_ending();
    Ok(parked)
}
