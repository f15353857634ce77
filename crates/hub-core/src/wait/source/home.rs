//! The home of a source: the hub that has its number registered, and the greenlets that wait there.
//!
//! Ground rules:
//! - `hub` changes under the lock only, and then `mailbox` is that of the hub's OS thread.
//! - A waiter counts itself before it reads `hub`. An OS thread that moves the source reads the count afterwards. Both
//!   are sequentially consistent, so at least one of the two sees the other. An OS thread that finds a waiter puts
//!   `hub` back; a reader without the lock may see the value in between.
//! - A waiter checks whether the source is closed after it has settled `hub`. A closer reads `hub` after it has marked
//!   the source. Both are sequentially consistent: either the waiter leaves, or its hub is notified of the close after
//!   the waiter has parked.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, PoisonError};

use crate::base::fork;
use crate::base::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, order_for_model};

/// The OS thread of a hub.
pub(super) trait Resident {
    /// Returns whether the OS thread has ended, or a fork has left it behind.
    fn is_gone(&self) -> bool;

    /// Returns whether a fork has left the OS thread behind.
    fn is_left_behind(&self) -> bool;

    /// Returns whether the OS thread has ended in this process.
    fn is_ended(&self) -> bool {
        self.is_gone() && !self.is_left_behind()
    }
}

/// The waiter that makes its hub the home of a source.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum Mover {
    Greenlet,
    Poll,
}

impl Mover {
    /// The number of wakers that the mover has counted.
    fn polls(self) -> u32 {
        u32::from(self == Mover::Poll)
    }
}

/// The counts of the caller itself.
#[derive(Copy, Clone, Default)]
struct Own {
    waiters: u32,
    polls: u32,
}

/// The error of a move while greenlets of another OS thread wait for the source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

pub(super) struct Home<M> {
    /// The id of the hub that has the number registered; 0 if none has.
    hub: AtomicU64,
    /// The number of greenlets that are parked on the source, or about to park, and of armed wakers.
    waiting: AtomicU32,
    /// The number of the wakers in `waiting`. It changes before `waiting` grows, and after `waiting` has shrunk.
    polling: AtomicU32,
    /// The number of the waiters in `waiting` that will never leave: a fork or the end of their OS thread has left them
    /// behind. It changes under the lock only.
    left_behind: AtomicU32,
    /// The number of the wakers in `left_behind`.
    polls_left_behind: AtomicU32,
    /// The number of the wakers that a fork has left behind, and that are never dropped. The end of an OS thread drops
    /// its wakers. It changes under the lock only.
    polls_lost: AtomicU32,
    /// The generation of forks in which `left_behind` was last counted. It changes under the lock only.
    generation: AtomicU32,
    mailbox: Mutex<Option<Arc<M>>>,
}

impl<M: Resident> Home<M> {
    pub(super) fn new() -> Home<M> {
        Home {
            hub: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            polling: AtomicU32::new(0),
            left_behind: AtomicU32::new(0),
            polls_left_behind: AtomicU32::new(0),
            polls_lost: AtomicU32::new(0),
            generation: AtomicU32::new(fork::generation()),
            mailbox: Mutex::new(None),
        }
    }

    /// Returns the id of the hub that has the number registered; 0 if none has.
    #[inline]
    pub(super) fn hub(&self) -> u64 {
        order_for_model();
        self.hub.load(SeqCst)
    }

    /// Counts a greenlet that is about to park.
    #[inline]
    pub(super) fn count(&self) -> CountedWaiter<'_> {
        self.notice_fork();
        self.waiting.fetch_add(1, SeqCst);
        CountedWaiter(&self.waiting)
    }

    /// Counts a waker that is about to be armed.
    pub(super) fn begin_poll(&self) {
        self.notice_fork();
        self.polling.fetch_add(1, SeqCst);
        self.waiting.fetch_add(1, SeqCst);
    }

    /// Ends the count of a waker.
    pub(super) fn end_poll(&self) {
        self.waiting.fetch_sub(1, SeqCst);
        self.polling.fetch_sub(1, SeqCst);
    }

    /// Returns the number of wakers that are armed, or about to be.
    pub(super) fn polls(&self) -> u32 {
        self.polling.load(SeqCst)
    }

    /// Returns the number of greenlets that are parked, or about to park, and of armed wakers.
    pub(super) fn waiters(&self) -> u32 {
        order_for_model();
        self.waiting.load(SeqCst)
    }

    /// Makes `hub` of the OS thread `here` the home, for a caller that is counted.
    ///
    /// Returns the OS thread that has to release the number, if there is one. A poll, unlike a greenlet, also takes the
    /// source from the wakers of another OS thread: a future may have moved here.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] and changes nothing if greenlets of another OS thread wait.
    pub(super) fn move_to(&self, hub: u64, here: Arc<M>, by: Mover) -> Result<Option<Arc<M>>, Busy> {
        let mut mailbox = self.lock();
        // The caller may have forked since it was counted: it builds its hub in between.
        self.count_left_behind(&mailbox, Own { waiters: 1, polls: by.polls() });
        let before = self.hub.swap(hub, SeqCst);
        // An earlier hub of this OS thread is gone, with all its registrations.
        let elsewhere = mailbox.as_ref().is_some_and(|mailbox| !Arc::ptr_eq(mailbox, &here) && !mailbox.is_gone());
        // The caller is counted too.
        order_for_model();
        let others = self.waiting.load(SeqCst) - 1;
        if mailbox.as_ref().is_some_and(|mailbox| mailbox.is_ended()) {
            // A caller on a third OS thread that is about to come here, too, is counted among them. It is woken like
            // them when the source moves on.
            self.left_behind.store(others, Relaxed);
            self.polls_left_behind.store(self.polling.load(SeqCst).saturating_sub(by.polls()), Relaxed);
        }
        // The wakers that another poll may leave: those that a fork has left behind are in `left_behind` already.
        let wakers = match by {
            Mover::Greenlet => 0,
            Mover::Poll => self.polling.load(SeqCst).saturating_sub(1 + self.polls_left_behind.load(Relaxed)),
        };
        if elsewhere && others > self.left_behind.load(Relaxed) + wakers {
            self.hub.store(before, SeqCst);
            return Err(Busy);
        }
        Ok(mailbox.replace(here).filter(|_| elsewhere))
    }

    /// Returns the number of greenlets and wakers that never leave, because their OS thread does not exist in this
    /// process. Wakers of an OS thread that has ended are not among them: they are dropped.
    pub(super) fn left_behind(&self) -> u32 {
        let mailbox = self.lock();
        self.count_left_behind(&mailbox, Own::default());
        let (waiters, polls) = match &*mailbox {
            Some(mailbox) if mailbox.is_ended() => (self.waiters(), self.polls()),
            _ => (self.left_behind.load(Relaxed), self.polls_left_behind.load(Relaxed)),
        };
        waiters.saturating_sub(polls) + self.polls_lost.load(Relaxed)
    }

    /// Counts the waiters that a fork has left behind, before the first waiter of the child.
    #[inline]
    fn notice_fork(&self) {
        if self.generation.load(Relaxed) != fork::generation() {
            self.count_left_behind(&self.lock(), Own::default());
        }
    }

    /// Counts the waiters that the last fork has left behind: those of an OS thread that the child does not have.
    ///
    /// A waiter of the child comes here before it counts itself, or passes that it is counted. So all others that are
    /// counted now were counted before the fork.
    #[cold]
    fn count_left_behind(&self, mailbox: &Option<Arc<M>>, own: Own) {
        if self.generation.swap(fork::generation(), Relaxed) != fork::generation()
            && mailbox.as_ref().is_some_and(|mailbox| mailbox.is_left_behind())
        {
            let polls = self.polls() - own.polls;
            self.left_behind.store(self.waiting.load(SeqCst) - own.waiters, Relaxed);
            self.polls_left_behind.store(polls, Relaxed);
            self.polls_lost.store(polls, Relaxed);
        }
    }

    /// Returns the OS thread of the hub that has, or had, the number registered.
    pub(super) fn resident(&self) -> Option<Arc<M>> {
        self.lock().clone()
    }

    /// Returns the id of the hub, when no OS thread is moving the source.
    pub(super) fn settled_hub(&self) -> u64 {
        let _settled = self.lock();
        self.hub()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<M>>> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A greenlet that is parked on a source, or about to park.
pub(super) struct CountedWaiter<'a>(&'a AtomicU32);

impl Drop for CountedWaiter<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::base::fork::tests::{holds_in_child, in_own_process};

    /// An OS thread that ends, or is left behind, when a test says so.
    #[derive(Default)]
    struct Thread {
        has_ended: AtomicBool,
        is_left_behind: AtomicBool,
    }

    impl Resident for Thread {
        fn is_gone(&self) -> bool {
            self.has_ended.load(Relaxed) || self.is_left_behind()
        }

        fn is_left_behind(&self) -> bool {
            self.is_left_behind.load(Relaxed)
        }
    }

    /// Returns the home of a source for which a greenlet of the returned OS thread waits.
    fn home_with_waiter() -> (Home<Thread>, Arc<Thread>) {
        let (home, thread) = (Home::new(), Arc::new(Thread::default()));
        std::mem::forget(home.count());
        assert!(home.move_to(1, Arc::clone(&thread), Mover::Greenlet).is_ok());
        (home, thread)
    }

    #[test]
    fn a_live_waiter_is_not_counted_as_left_behind_by_a_fork() {
        static HOME: OnceLock<(Home<Thread>, Arc<Thread>)> = OnceLock::new();
        in_own_process("wait::source::home::tests::a_live_waiter_is_not_counted_as_left_behind_by_a_fork", || {
            fork::install().unwrap();
            assert!(HOME.set(home_with_waiter()).is_ok());
            assert!(holds_in_child(|| {
                let (home, before) = HOME.get().unwrap();
                before.is_left_behind.store(true, Relaxed);
                // Two OS threads of the child are about to wait. The second one to come finds the first one waiting.
                let (_first, _second) = (home.count(), home.count());
                let came = home.move_to(2, Arc::default(), Mover::Greenlet).is_ok();
                came && home.left_behind() == 1 && matches!(home.move_to(3, Arc::default(), Mover::Greenlet), Err(Busy))
            }));
        });
    }

    #[test]
    fn a_waiter_that_forks_before_it_moves_is_not_counted_as_left_behind() {
        static HOME: OnceLock<(Home<Thread>, Arc<Thread>)> = OnceLock::new();
        in_own_process(
            "wait::source::home::tests::a_waiter_that_forks_before_it_moves_is_not_counted_as_left_behind",
            || {
                fork::install().unwrap();
                assert!(HOME.set(home_with_waiter()).is_ok());
                let _waiter = HOME.get().unwrap().0.count();
                assert!(holds_in_child(|| {
                    let (home, before) = HOME.get().unwrap();
                    before.is_left_behind.store(true, Relaxed);
                    let came = home.move_to(2, Arc::default(), Mover::Greenlet).is_ok();
                    came && home.left_behind() == 1
                }));
            },
        );
    }

    #[test]
    fn the_waiters_of_an_ended_thread_keep_no_thread_away() {
        let (home, ended) = home_with_waiter();
        ended.has_ended.store(true, Relaxed);
        assert_eq!(home.left_behind(), 1);
        for hub in [2, 3] {
            let waiter = home.count();
            assert!(home.move_to(hub, Arc::default(), Mover::Greenlet).is_ok());
            drop(waiter);
            assert_eq!(home.left_behind(), 1);
        }
    }
}
