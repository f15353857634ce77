//! How OS threads are reached by others that end their waits: a table of the process, from the number of an OS thread to
//! its mailbox, or to itself if it has no green threads.

#[cfg(all(test, loom))]
mod model;

use std::cell::{Cell, OnceCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::deadline::Deadline;
use super::remote::{Mailbox, Message};
use crate::base::dormant::Sleep;
use crate::base::fork::{self, PerProcess};
use crate::base::sync::{Condvar, Mutex, MutexGuard};
use crate::base::wait_reason::WaitReason;
use crate::greenlet::control::State;
use crate::greenlet::local;
use crate::greenlet::run::Waiter;

/// How a wait has ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Parked {
    /// By its [`Unparker`].
    Unparked,
    /// By its limit.
    Late,
    /// By a kill or a timeout, which a mask holds back or the caller is to throw.
    Early,
}

/// Ends the wait of one [`Parker`](crate::Parker), once.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Unparker {
    // Whole words, one of which is never zero: an `Option` of it is as large, and copied without stalls.
    pub(crate) thread: u64,
    /// One more than the number of the greenlet, or [`PLAIN`].
    pub(crate) greenlet: NonZeroU64,
    pub(crate) ticket: u64,
}

/// Instead of a greenlet: the OS thread itself.
pub(crate) const PLAIN: NonZeroU64 = NonZeroU64::MAX;

#[cfg(test)]
const _: () = assert!(size_of::<Option<Unparker>>() == 24);

impl Unparker {
    /// Ends the wait, if it lasts still. Never switches, and does not wait for anybody.
    #[inline]
    pub fn unpark(self) {
        self.try_unpark();
    }

    /// Like [`unpark`](Unparker::unpark), and tells whether the waiter still exists. False if its OS thread has ended or
    /// was left behind by a fork, or if a [shutdown](crate::HubRef::shutdown) has abandoned it: then it never takes what
    /// it was woken for, which another waiter should get.
    #[inline]
    pub fn try_unpark(self) -> bool {
        if let Some(number) = self.number()
            && self.thread == fork::this_thread()
        {
            let Some(control) = local::try_get().and_then(|local| local.controls.get(number)) else { return false };
            Waiter::new(control, self.ticket).wake() || control.state() != State::Abandoned
        } else {
            !self.is_left_behind() && unpark_elsewhere(self.thread, self.greenlet, self.ticket)
        }
    }

    /// Whether the process was forked, and the OS thread of that wait belongs to an ancestor: then there is nobody to
    /// wake.
    #[inline]
    #[must_use]
    pub fn is_left_behind(self) -> bool {
        fork::is_left_behind(self.thread)
    }

    /// The number of the greenlet, if it is one.
    #[inline]
    pub(crate) fn number(self) -> Option<u32> {
        (self.greenlet != PLAIN).then_some((self.greenlet.get() - 1) as u32)
    }
}

#[cold]
fn unpark_elsewhere(thread: u64, greenlet: NonZeroU64, ticket: u64) -> bool {
    threads().is_ok_and(|threads| threads.unpark(Unparker { thread, greenlet, ticket }))
}

static THREADS: PerProcess<Threads> = PerProcess::new();

fn threads() -> io::Result<&'static Threads> {
    THREADS.get_or_make(Threads::default)
}

/// What this thread has entered in the table, and takes out when it ends.
struct Registered {
    /// The generation of forks in which its mailbox was entered, plus one; 0: not at all.
    mailbox: Cell<u32>,
    /// The same of itself.
    plain: Cell<u32>,
    /// The reason of its present wait as a whole.
    doing: Cell<WaitReason>,
    itself: OnceCell<Arc<Plain>>,
}

thread_local! {
    static REGISTERED: Registered =
        const {
            Registered {
                mailbox: Cell::new(0),
                plain: Cell::new(0),
                doing: Cell::new(WaitReason::Park),
                itself: OnceCell::new(),
            }
        };
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Waiters of this thread could not be found any more.
        local::end_with_thread_locals();
        if let Some(threads) = THREADS.get() {
            threads.forget(fork::this_thread());
        }
    }
}

/// The calling thread has ended: its green threads cannot be unparked any more.
pub(crate) fn forget_thread() {
    let _ = REGISTERED.try_with(|registered| {
        registered.mailbox.set(0);
        registered.plain.set(0);
    });
    if let Some(threads) = THREADS.get() {
        threads.forget(fork::this_thread());
    }
}

/// The calling thread has given up those greenlets.
pub(crate) fn abandon(greenlets: impl Iterator<Item = u32>) {
    if let Some(threads) = THREADS.get() {
        threads.register(fork::this_thread(), |reach| reach.abandoned.extend(greenlets));
    }
}

/// Makes this thread reachable by `mailbox`. Cheap when done before.
pub(crate) fn register(mailbox: impl FnOnce() -> Option<Arc<Mailbox>>) -> io::Result<()> {
    let now = fork::generation() + 1;
    let known = REGISTERED.try_with(|registered| registered.mailbox.get() == now).unwrap_or(false);
    if !known && let Some(mailbox) = mailbox() {
        threads()?.register(fork::this_thread(), |reach| reach.mailbox = Some(mailbox));
        let _ = REGISTERED.try_with(|registered| registered.mailbox.set(now));
    }
    Ok(())
}

/// After a fork, in the child's first thread: those who were left early are told.
pub(crate) fn register_again(mailbox: impl FnOnce() -> Option<Arc<Mailbox>>) -> io::Result<()> {
    let before = REGISTERED.try_with(|registered| registered.mailbox.get()).unwrap_or(0);
    if before == 0 { Ok(()) } else { register(mailbox) }
}

/// How this OS thread waits as a whole, entered in the table.
pub(crate) fn plain() -> io::Result<Arc<Plain>> {
    let now = fork::generation() + 1;
    let entered = REGISTERED.try_with(|registered| {
        let plain = registered.itself.get_or_init(Arc::default);
        if registered.plain.get() != now {
            threads()?.register(fork::this_thread(), |reach| reach.plain = Some(Arc::clone(plain)));
            registered.plain.set(now);
        }
        Ok(Arc::clone(plain))
    });
    // For a thread that is ending the table alone keeps it.
    entered.unwrap_or_else(|_| Ok(threads()?.plain(fork::this_thread())))
}

/// Notes the reason of this OS thread's next wait as a whole.
pub(crate) fn note_reason(doing: WaitReason) {
    let _ = REGISTERED.try_with(|registered| registered.doing.set(doing));
}

/// The reason of this OS thread's wait as a whole.
pub(crate) fn reason() -> WaitReason {
    REGISTERED.try_with(|registered| registered.doing.get()).unwrap_or(WaitReason::Park)
}

/// Takes a thread out of the table whose destructors have run, which nothing else does after its wait.
pub(crate) fn forget_if_ending() {
    if REGISTERED.try_with(|_| ()).is_err()
        && let Some(threads) = THREADS.get()
    {
        threads.forget(fork::this_thread());
    }
}

/// How an OS thread waits that has no green threads. Not by `park`: that token is the program's.
#[derive(Default)]
pub(crate) struct Plain {
    /// Of the present wait.
    ticket: Mutex<u64>,
    ended: Condvar,
}

impl Plain {
    /// The ticket of a new wait, which no other had.
    pub(crate) fn begin(&self) -> u64 {
        let mut ticket = self.lock();
        *ticket += 1;
        *ticket
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn park(&self, ticket: u64, limit: &mut Deadline) -> Parked {
        let mut present = self.lock();
        while *present == ticket {
            present = match limit.begin() {
                None => self.ended.wait(present).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => {
                    *present += 1;
                    return Parked::Late;
                }
                Some(left) => self.ended.wait_timeout(present, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        Parked::Unparked
    }

    /// Whether the wait with that ticket ends within `time`. It goes on if not.
    pub(crate) fn ends_within(&self, ticket: u64, time: Duration) -> bool {
        let begun = Instant::now();
        let mut present = self.lock();
        while *present == ticket {
            let left = time.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return false;
            }
            present = self.ended.wait_timeout(present, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Ends the wait with that ticket, if it lasts still.
    pub(crate) fn unpark(&self, ticket: u64) {
        let mut present = self.lock();
        if *present == ticket {
            *present += 1;
            self.ended.notify_one();
        }
    }
}

impl Sleep for Plain {
    fn lasts(&self, ticket: u64) -> bool {
        *self.lock() == ticket
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").finish_non_exhaustive()
    }
}

/// How an OS thread is reached.
#[derive(Default)]
pub(crate) struct Reach {
    pub(crate) mailbox: Option<Arc<Mailbox>>,
    pub(crate) plain: Option<Arc<Plain>>,
    /// Greenlets that a shutdown has given up.
    pub(crate) abandoned: HashSet<u32>,
}

/// The OS threads of a process that somebody may want to unpark, by their numbers.
#[derive(Default)]
pub(crate) struct Threads {
    state: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    reach: HashMap<u64, Reach>,
    /// In a forked child: for its first thread, which has not told yet how it is reached now.
    early: Vec<Unparker>,
}

impl Threads {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if the waiter does not exist any more.
    pub(crate) fn unpark(&self, whom: Unparker) -> bool {
        let mut state = self.lock();
        match state.reach.get(&whom.thread) {
            Some(reach) => reach.unpark(whom),
            None if whom.thread == fork::survivor() && whom.number().is_some() => {
                state.early.push(whom);
                true
            }
            // Its thread has ended.
            None => false,
        }
    }

    pub(crate) fn register(&self, thread: u64, change: impl FnOnce(&mut Reach)) {
        let mut state = self.lock();
        let Entries { reach, early } = &mut *state;
        let reach = reach.entry(thread).or_default();
        change(reach);
        // They are all for the first thread of a child, whoever registers before it.
        if thread == fork::survivor() && reach.mailbox.is_some() {
            early.drain(..).for_each(|whom| _ = reach.unpark(whom));
        }
    }

    /// How that thread waits as a whole.
    pub(crate) fn plain(&self, thread: u64) -> Arc<Plain> {
        Arc::clone(self.lock().reach.entry(thread).or_default().plain.get_or_insert_default())
    }

    /// The thread has ended.
    pub(crate) fn forget(&self, thread: u64) {
        let left = self.lock().reach.remove(&thread);
        drop(left);
    }
}

impl Reach {
    fn unpark(&self, whom: Unparker) -> bool {
        match (whom.number(), &self.mailbox, &self.plain) {
            (Some(greenlet), ..) if self.abandoned.contains(&greenlet) => false,
            // A mailbox that refuses is that of a thread that is ending.
            (Some(greenlet), Some(mailbox), _) => mailbox.post(Message::Wake { greenlet, ticket: whom.ticket }).is_ok(),
            (None, _, Some(plain)) => {
                plain.unpark(whom.ticket);
                true
            }
            _ => false,
        }
    }
}
