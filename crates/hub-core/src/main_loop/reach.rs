//! The process-wide table through which an OS thread ends waits on another OS thread.
//!
//! It maps the number of an OS thread to the mailbox of its main loop, and to the state of the waits that it makes as a
//! whole, without greenlets.

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::busy_poll::BusyPoll;
use super::deadline::Deadline;
use super::parked::Parked;
use super::remote::{Bell, Mailbox, Message};
use crate::base::dormant::Sleep;
use crate::base::fork::{self, PerProcess};
use crate::base::sync::{AtomicU64, Condvar, Mutex, MutexGuard};
use crate::base::wait_reason::WaitReason;
use crate::greenlet::local;

/// Identifies one wait of a greenlet, or of an OS thread as a whole.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct WaitId {
    // Whole words, one of which is never zero: an `Option` of it has the same size, and is copied without stalls.
    pub(crate) thread: u64,
    /// The number of the greenlet plus one, or [`PLAIN`].
    pub(crate) greenlet: NonZeroU64,
    pub(crate) ticket: u64,
}

/// The value for a wait of the OS thread itself, instead of a greenlet.
pub(crate) const PLAIN: NonZeroU64 = NonZeroU64::MAX;

impl WaitId {
    /// Returns the number of the greenlet, or `None` for an OS thread.
    #[inline]
    pub(crate) fn number(self) -> Option<u32> {
        (self.greenlet != PLAIN).then_some((self.greenlet.get() - 1) as u32)
    }
}

/// Ends the wait of a greenlet on another OS thread, or of an OS thread as a whole.
///
/// Returns false if the waiter does not exist any more.
// It takes the fields by value, so that the caller keeps them in registers.
#[cold]
pub(crate) fn unpark_elsewhere(thread: u64, greenlet: NonZeroU64, ticket: u64) -> bool {
    !fork::is_left_behind(thread) && threads().is_ok_and(|threads| threads.unpark(WaitId { thread, greenlet, ticket }))
}

/// Like [`unpark_elsewhere`], but leaves it to the caller to wake the OS thread.
///
/// # Errors
///
/// Returns an error if the waiter does not exist any more.
#[cold]
pub(crate) fn end_elsewhere(thread: u64, greenlet: NonZeroU64, ticket: u64) -> Result<Sleeper, NoWaiter> {
    if fork::is_left_behind(thread) {
        return Err(NoWaiter);
    }
    threads().map_err(|_| NoWaiter)?.end(WaitId { thread, greenlet, ticket })
}

/// The error of a wake-up whose waiter does not exist any more.
pub(crate) struct NoWaiter;

/// The OS thread of a wait that has ended. It may still sleep, and has to be woken.
#[must_use]
pub(crate) enum Sleeper {
    Loop(Bell),
    Plain(Arc<Plain>),
    /// It is awake, or the wake-up of another waiter wakes it.
    Awake,
}

impl Sleeper {
    /// Wakes the OS thread. It may call the notifier of a hub, which is foreign code.
    pub(crate) fn wake(self) {
        match self {
            Sleeper::Loop(bell) => bell.ring(),
            Sleeper::Plain(plain) => plain.wake(),
            Sleeper::Awake => {}
        }
    }
}

static THREADS: PerProcess<Threads> = PerProcess::new();

fn threads() -> io::Result<&'static Threads> {
    THREADS.get_or_make(Threads::default)
}

/// The entries of this OS thread in the table. They are removed when it ends.
struct Registered {
    /// The fork generation in which the mailbox was entered, plus one; 0 if it was not.
    mailbox: Cell<u32>,
    /// The same for the entry of the OS thread itself.
    plain: Cell<u32>,
    /// The reason of the OS thread's present wait as a whole.
    reason: Cell<WaitReason>,
    itself: RefCell<Option<Arc<Plain>>>,
    busy_poll: BusyPoll,
}

thread_local! {
    static REGISTERED: Registered =
        const {
            Registered {
                mailbox: Cell::new(0),
                plain: Cell::new(0),
                reason: Cell::new(WaitReason::Park),
                itself: RefCell::new(None),
                busy_poll: BusyPoll::new(),
            }
        };
}

impl Drop for Registered {
    fn drop(&mut self) {
        // After the removal below, no waiter of this OS thread can be found.
        local::end_with_thread_locals();
        if let Some(threads) = THREADS.get() {
            threads.forget(fork::this_thread());
        }
    }
}

/// Removes the calling OS thread, which has ended: its green threads cannot be unparked any more.
pub(crate) fn forget_thread() {
    let _ = REGISTERED.try_with(|registered| {
        registered.mailbox.set(0);
        registered.plain.set(0);
    });
    if let Some(threads) = THREADS.get() {
        threads.forget(fork::this_thread());
    }
}

/// Records that the calling OS thread has abandoned `greenlets`.
pub(crate) fn abandon(greenlets: impl Iterator<Item = u32>) {
    if let Some(threads) = THREADS.get() {
        threads.register(fork::this_thread(), |reach| reach.abandoned.extend(greenlets));
    }
}

/// Makes this OS thread reachable by `mailbox`. A repeated call is cheap.
pub(crate) fn register(mailbox: impl FnOnce() -> Option<Arc<Mailbox>>) -> io::Result<()> {
    let now = fork::generation() + 1;
    let known = REGISTERED.try_with(|registered| registered.mailbox.get() == now).unwrap_or(false);
    if !known && let Some(mailbox) = mailbox() {
        threads()?.register(fork::this_thread(), |reach| reach.mailbox = Some(mailbox));
        let _ = REGISTERED.try_with(|registered| registered.mailbox.set(now));
    }
    Ok(())
}

/// After a fork, registers the child's first OS thread again and delivers the early wake-ups.
pub(crate) fn register_again(mailbox: impl FnOnce() -> Option<Arc<Mailbox>>) -> io::Result<()> {
    let before = REGISTERED.try_with(|registered| registered.mailbox.get()).unwrap_or(0);
    if before == 0 { Ok(()) } else { register(mailbox) }
}

/// Returns the state of the waits that this OS thread makes as a whole, and enters it in the table.
pub(crate) fn plain() -> io::Result<Arc<Plain>> {
    let now = fork::generation() + 1;
    let entered = REGISTERED.try_with(|registered| {
        let former = registered.itself.borrow().clone();
        let is_entered = registered.plain.get() == now;
        if let Some(plain) = former.as_ref().filter(|_| is_entered) {
            return Ok(Arc::clone(plain));
        }
        // In a child, another OS thread of the parent may have locked the former state.
        let plain = Arc::new(Plain::after(former.as_deref()));
        let threads = threads()?;
        // In this order: the entry may deliver early wake-ups, by foreign code that comes here again.
        registered.plain.set(now);
        registered.itself.replace(Some(Arc::clone(&plain)));
        threads.register(fork::this_thread(), |reach| reach.plain = Some(Arc::clone(&plain)));
        Ok(plain)
    });
    // When the thread-local is destroyed, only the table holds the state.
    entered.unwrap_or_else(|_| Ok(threads()?.plain(fork::this_thread())))
}

/// Looks for the end of a wait of this OS thread as a whole, before it sleeps. Returns whether the wait has ended.
/// `limit`: how long it would sleep.
pub(crate) fn ends_soon(plain: &Plain, ticket: u64, limit: Option<Duration>) -> bool {
    let finds = |registered: &Registered| registered.busy_poll.finds(limit, || !plain.lasts(ticket));
    REGISTERED.try_with(finds).unwrap_or(false)
}

/// Sets the reason of this OS thread's next wait as a whole.
pub(crate) fn note_reason(reason: WaitReason) {
    let _ = REGISTERED.try_with(|registered| registered.reason.set(reason));
}

/// Returns the reason of this OS thread's wait as a whole.
pub(crate) fn reason() -> WaitReason {
    REGISTERED.try_with(|registered| registered.reason.get()).unwrap_or(WaitReason::Park)
}

/// Removes the calling OS thread from the table if its thread-local is destroyed.
///
/// A wait in a later destructor enters the OS thread again, and no destructor is left that would remove it.
pub(crate) fn forget_if_ending() {
    if REGISTERED.try_with(|_| ()).is_err()
        && let Some(threads) = THREADS.get()
    {
        threads.forget(fork::this_thread());
    }
}

/// The state of the waits that an OS thread makes as a whole, without a hub.
///
/// It does not use std's `park`, whose token belongs to the program.
#[derive(Default)]
pub(crate) struct Plain {
    /// The ticket of the present wait.
    ticket: AtomicU64,
    /// Whether the OS thread sleeps. It checks the ticket under this lock before it sleeps, and an unparker checks this
    /// value after it has changed the ticket. So one of them sees the other.
    sleeps: Mutex<bool>,
    ended: Condvar,
}

impl Plain {
    /// Returns the state that takes the place of `former`. A wait that was begun there goes on.
    fn after(former: Option<&Plain>) -> Plain {
        let ticket = former.map_or(0, |former| former.ticket.load(Ordering::Acquire));
        Plain { ticket: AtomicU64::new(ticket), ..Plain::default() }
    }

    /// Begins a wait. Returns its ticket, which no other wait has.
    pub(crate) fn begin(&self) -> u64 {
        self.ticket.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(crate) fn park(&self, ticket: u64, deadline: &mut Deadline) -> Parked {
        // A wait that ends in between counts as unparked.
        let timed_out = !self.sleep(ticket, || deadline.begin()) && self.end(ticket);
        if timed_out { Parked::TimedOut } else { Parked::Unparked }
    }

    /// Returns whether the wait with this ticket ends within `time`. If not, it goes on.
    pub(crate) fn ends_within(&self, ticket: u64, time: Duration) -> bool {
        let begun = Instant::now();
        self.sleep(ticket, || Some(time.saturating_sub(begun.elapsed())))
    }

    /// Sleeps until the wait with this ticket ends, or `limit` is zero. Returns whether it has ended.
    fn sleep(&self, ticket: u64, mut limit: impl FnMut() -> Option<Duration>) -> bool {
        let mut sleeps = self.lock();
        while self.lasts(ticket) {
            *sleeps = true;
            sleeps = match limit() {
                None => self.ended.wait(sleeps).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => break,
                Some(left) => self.ended.wait_timeout(sleeps, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        *sleeps = false;
        !self.lasts(ticket)
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.sleeps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the wait with this ticket, if it still lasts. Returns whether it did.
    fn end(&self, ticket: u64) -> bool {
        self.ticket.compare_exchange(ticket, ticket + 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Wakes the OS thread, whose wait has ended.
    fn wake(&self) {
        // The lock is free again when the OS thread wakes up.
        let sleeps = *self.lock();
        if sleeps {
            self.ended.notify_one();
        }
    }
}

impl Sleep for Plain {
    fn lasts(&self, ticket: u64) -> bool {
        self.ticket.load(Ordering::Acquire) == ticket
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").finish_non_exhaustive()
    }
}

/// The entry of an OS thread in the table.
#[derive(Default)]
pub(crate) struct Reach {
    pub(crate) mailbox: Option<Arc<Mailbox>>,
    pub(crate) plain: Option<Arc<Plain>>,
    /// The greenlets that a shutdown has abandoned.
    pub(crate) abandoned: HashSet<u32>,
}

/// The OS threads of a process that may be unparked, by number.
#[derive(Default)]
pub(crate) struct Threads {
    state: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    reach: HashMap<u64, Reach>,
    /// In a forked child, wake-ups for its first OS thread until that registers again.
    early: Vec<WaitId>,
}

impl Threads {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a wait.
    ///
    /// # Errors
    ///
    /// Returns an error if the waiter does not exist any more.
    pub(crate) fn end(&self, wait: WaitId) -> Result<Sleeper, NoWaiter> {
        let mut state = self.lock();
        let route = match state.reach.get(&wait.thread) {
            Some(reach) => reach.route(wait),
            None if wait.thread == fork::survivor() && wait.number().is_some() => {
                state.early.push(wait);
                return Ok(Sleeper::Awake);
            }
            // The OS thread of the waiter has ended.
            None => Route::None,
        };
        drop(state);
        route.end(wait)
    }

    /// Ends a wait, and wakes the OS thread. Returns false if the waiter does not exist any more.
    fn unpark(&self, wait: WaitId) -> bool {
        self.end(wait).map(Sleeper::wake).is_ok()
    }

    pub(crate) fn register(&self, thread: u64, change: impl FnOnce(&mut Reach)) {
        let mut state = self.lock();
        let Entries { reach, early } = &mut *state;
        let reach = reach.entry(thread).or_default();
        change(reach);
        // All early wake-ups are for the child's first OS thread, even if another one registers before it.
        if thread == fork::survivor() && reach.mailbox.is_some() {
            let early: Vec<_> = early.drain(..).map(|wait| (reach.route(wait), wait)).collect();
            drop(state);
            early.into_iter().for_each(|(route, wait)| _ = route.end(wait).map(Sleeper::wake));
        }
    }

    /// Returns the state of the waits that an OS thread makes as a whole.
    pub(crate) fn plain(&self, thread: u64) -> Arc<Plain> {
        Arc::clone(self.lock().reach.entry(thread).or_default().plain.get_or_insert_default())
    }

    /// Removes an OS thread, which has ended.
    pub(crate) fn forget(&self, thread: u64) {
        let left = self.lock().reach.remove(&thread);
        drop(left);
    }
}

/// The target of one wake-up. The wake-up is delivered without the lock of the table: a hub's notifier is foreign code,
/// which may unpark other waiters.
enum Route {
    Mailbox(Arc<Mailbox>),
    Plain(Arc<Plain>),
    None,
}

impl Reach {
    fn route(&self, wait: WaitId) -> Route {
        match (wait.number(), &self.mailbox, &self.plain) {
            (Some(greenlet), ..) if self.abandoned.contains(&greenlet) => Route::None,
            (Some(_), Some(mailbox), _) => Route::Mailbox(Arc::clone(mailbox)),
            (None, _, Some(plain)) => Route::Plain(Arc::clone(plain)),
            _ => Route::None,
        }
    }
}

impl Route {
    fn end(self, wait: WaitId) -> Result<Sleeper, NoWaiter> {
        match (self, wait.number()) {
            // A mailbox that refuses the message belongs to an ending OS thread.
            (Route::Mailbox(mailbox), Some(greenlet)) => {
                let bell = mailbox.post_silently(Message::Wake { greenlet, ticket: wait.ticket });
                bell.map(|bell| bell.map_or(Sleeper::Awake, Sleeper::Loop)).map_err(|_| NoWaiter)
            }
            (Route::Plain(plain), _) if plain.end(wait.ticket) => Ok(Sleeper::Plain(plain)),
            (Route::Plain(_), _) => Ok(Sleeper::Awake),
            _ => Err(NoWaiter),
        }
    }
}
