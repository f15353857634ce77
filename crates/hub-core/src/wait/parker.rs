//! Waits that any thread may end: what locks, queues and events are built on.
//!
//! A [`Parker`] is one wait of its caller: of a green thread, which parks, or of a plain OS thread, which blocks
//! itself. Its [`Unparker`] names that wait and no other, is a few numbers, and may be left anywhere; so a
//! primitive keeps unparkers under a lock of its own, and nothing has to be taken back before it goes away.
//!
//! Whoever unparks a green thread of the same OS thread only queues it. For all others there is a table of the
//! process: see [`reach`].

use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::base::dormant::{Dormant, FIRST_LOOK, LONGEST_LOOK, Sleep, Waits};
use crate::base::fork;
use crate::base::os_thread::start_thread;
use crate::base::wait_reason::WaitReason;
use crate::error::LoopError;
use crate::greenlet::local;
use crate::greenlet::patience;
use crate::greenlet::run::{self, Waiter};
use crate::main_loop::deadline::Deadline;
use crate::main_loop::reach::{self, PLAIN, Plain};
pub use crate::main_loop::reach::{Parked, Unparker};
use crate::report::{self, Report};

/// One wait of the calling green thread, or of the OS thread if it has no green threads.
///
/// The order that loses no wake-up: take a lock, find that there is nothing to be had, make a parker, leave its
/// [`unparker`](Parker::unparker) where others find it, let go of the lock, [`park`](Parker::park), look again.
/// An unparker that was left behind does nothing.
///
/// It is for one wait at a time: between `new` and `park` the caller waits for nothing else.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{WaitReason, Deadline, Parked, Parker};
/// let parker = Parker::new(WaitReason::Event)?;
/// let unparker = parker.unparker();
/// let other = std::thread::spawn(move || unparker.unpark());
/// assert_eq!(parker.park(&mut Deadline::none())?, Parked::Unparked);
/// other.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Parker {
    /// By numbers: a parker may outlive the memory of the thread's greenlets, and is kept in registers.
    unparker: Unparker,
    /// It stays on its thread.
    not_send: PhantomData<*mut ()>,
}

impl Parker {
    /// Begins a wait, in which the caller does what `doing` says; reports tell of it. Does not switch.
    ///
    /// A pending kill or timeout is thrown, unless `doing` is [`WaitReason::Lock`]: see
    /// [`set_lock_patience`](crate::set_lock_patience). Others may run before it is thrown again, and the first wait of
    /// an OS thread that has green threads builds its hub, which is foreign code. So under a lock
    /// [`if_prepared`](Parker::if_prepared) is to be used.
    ///
    /// # Errors
    ///
    /// Where nobody may wait: in the main loop, while panicking. What the main loop has to
    /// tell the main greenlet. If no hub can be built and the OS thread has green threads, timers or listeners, which only a
    /// hub could serve; without them the wait blocks the OS thread.
    pub fn new(doing: WaitReason) -> Result<Parker, Box<LoopError>> {
        match Parker::if_prepared(doing)? {
            Some(parker) => Ok(parker),
            None => {
                Parker::prepare(doing)?;
                Parker::new(doing)
            }
        }
    }

    /// As [`new`](Parker::new), but `None` if a hub is to be built or an exit to be thrown first, for which
    /// [`prepare`](Parker::prepare) is to be called without a lock.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline(always)]
    pub fn if_prepared(doing: WaitReason) -> Result<Option<Parker>, Box<LoopError>> {
        let Some(local) = local::try_get() else { return Parker::plain(doing).map(Some) };
        if !local.main_loop.is_reachable() {
            let blocks = local.main_loop.takes_blocking(local);
            return if blocks { Parker::plain(doing).map(Some) } else { Ok(None) };
        }
        let Some(waiter) = Waiter::begin(doing)? else { return Ok(None) };
        let greenlet = NonZeroU64::MIN.saturating_add(waiter.control().number().into());
        Ok(Some(Parker::begun(greenlet, waiter.ticket())))
    }

    /// A wait of this OS thread as a whole.
    #[cold]
    fn plain(doing: WaitReason) -> Result<Parker, Box<LoopError>> {
        reach::note_reason(doing);
        Ok(Parker::begun(PLAIN, plain()?.begin()))
    }

    #[inline]
    fn begun(greenlet: NonZeroU64, ticket: u64) -> Parker {
        Parker { unparker: Unparker { thread: fork::this_thread(), greenlet, ticket }, not_send: PhantomData }
    }

    /// Does what is to be done before such a wait: builds the hub of the OS thread, if it has green threads, and throws
    /// a pending exit. Switches before it throws one that was swallowed.
    ///
    /// # Errors
    ///
    /// If no hub can be built, as [`new`](Parker::new).
    #[cold]
    pub fn prepare(doing: WaitReason) -> Result<(), Box<LoopError>> {
        let Some(local) = local::try_get() else { return Ok(()) };
        if !local.main_loop.is_reachable() {
            local.main_loop.prepare_wait(local)?;
        }
        if !patience::holds_exits(doing) {
            run::check_exit();
        }
        Ok(())
    }

    /// What ends this wait.
    #[inline]
    #[must_use]
    pub fn unparker(&self) -> Unparker {
        self.unparker
    }

    /// Waits until it is unparked, which may have happened before, or `limit` is reached. Switches.
    ///
    /// A kill or a timeout that comes first unwinds. One that comes after the wait was unparked is left for the next
    /// wait.
    ///
    /// # Errors
    ///
    /// The error that the main loop left for the main greenlet. While panicking, and for a green thread's wait after the
    /// end of its thread.
    ///
    /// # Panics
    ///
    /// If another green thread or a callback of the main loop has made it.
    #[inline]
    pub fn park(self, limit: &mut Deadline) -> Result<Parked, Box<LoopError>> {
        let parked = self.park_deferring_exit(limit)?;
        if parked == Parked::Early {
            throw_exit();
        }
        Ok(parked)
    }

    /// Like [`park`](Parker::park), but a kill or a timeout does not unwind: it ends the wait as [`Parked::Early`].
    /// Switches.
    ///
    /// For primitives whose other side may be another OS thread. It may have granted what is waited for before its
    /// wake-up has arrived here, so the caller looks under its lock whether it was granted. If not it leaves, and calls
    /// [`throw_exit`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    #[inline(always)]
    pub fn park_deferring_exit(self, limit: &mut Deadline) -> Result<Parked, Box<LoopError>> {
        let unparker = self.unparker;
        // Its own end takes it back.
        std::mem::forget(self);
        let Some(number) = unparker.number() else { return park_plain(unparker.ticket, limit) };
        let Some(local) = local::try_get() else { return Err(LoopError::ThreadEnding.into()) };
        if std::thread::panicking() {
            return Err(LoopError::Panicking.into());
        }
        let me = run::current();
        assert_eq!(me.number(), number, "a green thread parks in a wait that another one has made");
        local.main_loop.park_until(Waiter::new(me, unparker.ticket), limit)
    }
}

impl Drop for Parker {
    /// A wait that never began is over: what was left of it ends no other.
    #[inline]
    fn drop(&mut self) {
        let Unparker { thread, greenlet, ticket } = self.unparker;
        take_back(thread, greenlet, ticket);
    }
}

/// Throws the kill or timeout that is pending for the running green thread, unless a mask holds it back. Does nothing
/// if none is, and while panicking.
#[cold]
pub fn throw_exit() {
    if local::try_get().is_some() {
        run::check_exit();
    }
}

// ColdState paths take the fields by value, so that `Unparker` stays in registers on the hot path.

#[cold]
fn take_back(thread: u64, greenlet: NonZeroU64, ticket: u64) {
    Unparker { thread, greenlet, ticket }.unpark();
}

/// How this OS thread waits as a whole.
fn plain() -> Result<Arc<Plain>, Box<LoopError>> {
    reach::plain().map_err(|error| Box::new(LoopError::Wait { hub: "none", error: Arc::new(error) }))
}

/// Waits without a limit, and looks between for a deadlock, which no loop may be there to find.
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

/// Tells it from an OS thread of its own. The stream is foreign code, and a wait in it must not take the place of the
/// caller's.
fn tell_elsewhere(report: Report) {
    // Without a thread there is no report.
    let _ = start_thread("greenhub-report".to_owned(), move || report::tell(report));
}

/// How long an OS thread waits before it counts as dormant, for which it takes a lock of the process. Most waits are
/// shorter, and a deadlock is looked for after a second.
const BRIEF: Duration = Duration::from_millis(100);

#[cold]
fn park_plain(ticket: u64, limit: &mut Deadline) -> Result<Parked, Box<LoopError>> {
    let plain = plain()?;
    if limit.is_none() && !plain.ends_within(ticket, BRIEF) {
        park_dormant(&plain, ticket);
    }
    let parked = plain.park(ticket, limit);
    reach::forget_if_ending();
    Ok(parked)
}
