//! How OS threads are reached by others that end their waits: a table of the process, from the number of an OS thread to
//! its mailbox, or to itself if it has no green threads.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Parked, Unparker};
use crate::dormant::Sleep;
use crate::fork;
use crate::limit::Limit;
use crate::remote::{Letter, Mailbox};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How an OS thread waits that has no green threads. Not by `park`: that token is the program's.
#[derive(Default)]
pub(super) struct Plain {
    /// Of the present wait.
    ticket: Mutex<u64>,
    ended: Condvar,
}

impl Plain {
    /// The ticket of a new wait, which no other had.
    pub(super) fn begin(&self) -> u64 {
        let mut ticket = self.lock();
        *ticket += 1;
        *ticket
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn park(&self, ticket: u64, limit: &mut Limit) -> Parked {
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
    pub(super) fn ends_within(&self, ticket: u64, time: Duration) -> bool {
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
    pub(super) fn unpark(&self, ticket: u64) {
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
pub(super) struct Reach {
    pub(super) mailbox: Option<Arc<Mailbox>>,
    pub(super) plain: Option<Arc<Plain>>,
    /// Greenlets that a shutdown has given up.
    pub(super) abandoned: HashSet<u32>,
}

/// The OS threads of a process that somebody may want to unpark, by their numbers.
#[derive(Default)]
pub(super) struct Threads {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reach: HashMap<u64, Reach>,
    /// In a forked child: for its first thread, which has not told yet how it is reached now.
    early: Vec<Unparker>,
}

impl Threads {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if the waiter does not exist any more.
    pub(super) fn unpark(&self, whom: Unparker) -> bool {
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

    pub(super) fn register(&self, thread: u64, change: impl FnOnce(&mut Reach)) {
        let mut state = self.lock();
        let State { reach, early } = &mut *state;
        let reach = reach.entry(thread).or_default();
        change(reach);
        // They are all for the first thread of a child, whoever registers before it.
        if thread == fork::survivor() && reach.mailbox.is_some() {
            early.drain(..).for_each(|whom| _ = reach.unpark(whom));
        }
    }

    /// How that thread waits as a whole.
    pub(super) fn plain(&self, thread: u64) -> Arc<Plain> {
        Arc::clone(self.lock().reach.entry(thread).or_default().plain.get_or_insert_default())
    }

    /// The thread has ended.
    pub(super) fn forget(&self, thread: u64) {
        let left = self.lock().reach.remove(&thread);
        drop(left);
    }
}

impl Reach {
    fn unpark(&self, whom: Unparker) -> bool {
        match (whom.number(), &self.mailbox, &self.plain) {
            (Some(greenlet), ..) if self.abandoned.contains(&greenlet) => false,
            // A mailbox that refuses is that of a thread that is ending.
            (Some(greenlet), Some(mailbox), _) => mailbox.post(Letter::Wake { greenlet, ticket: whom.ticket }).is_ok(),
            (None, _, Some(plain)) => {
                plain.unpark(whom.ticket);
                true
            }
            _ => false,
        }
    }
}
