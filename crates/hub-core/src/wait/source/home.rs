//! The home of a source: the hub that has its number registered, and the greenlets that wait there.
//!
//! Ground rules:
//! - `hub` and the era of `counts` change under the lock only, and then `mailbox` is that of the hub's OS thread.
//! - `left_behind` is the number of the waiters that were counted in an era before the present one and that have
//!   neither left nor moved the source since.
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
use crate::main_loop::waker_table::Era;

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

/// The error of a move while greenlets of another OS thread wait for the source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// The number of waiters, the number of wakers among them, and the era in which they were read.
///
/// An era ends when those waiters are counted that will never leave. A waiter that is counted in one era and leaves in
/// a later one was taken for one of these, and corrects that.
#[derive(Copy, Clone)]
struct Counts(u64);

impl Counts {
    const WAITER: u64 = 1;
    const WAKER: u64 = Counts::WAITER | 1 << 32;
    const ERA: u64 = 1 << 48;

    fn waiters(self) -> u32 {
        self.0 as u32
    }

    fn wakers(self) -> u32 {
        (self.0 >> 32) as u16 as u32
    }

    fn era(self) -> Era {
        Era((self.0 >> 48) as u16)
    }
}

/// Returns whether `era` came before another one. There are never half of all eras between two that count.
fn is_before(era: Era, other: Era) -> bool {
    (other.0.wrapping_sub(era.0) as i16) > 0
}

/// The waiters that will never leave: a fork or the end of their OS thread has left them behind.
#[derive(Copy, Clone)]
struct LeftBehind {
    /// Greenlets and wakers.
    waiters: u32,
    wakers: u32,
    /// The wakers that a fork has left behind, and that are never dropped. The end of an OS thread drops its wakers.
    lost_wakers: u32,
    /// The era that the last fork has begun.
    forked: Era,
}

/// The state of a home that changes under its lock.
struct Inside<M> {
    mailbox: Option<Arc<M>>,
    left_behind: LeftBehind,
}

impl<M: Resident> Inside<M> {
    fn is_ended(&self) -> bool {
        self.mailbox.as_ref().is_some_and(|mailbox| mailbox.is_ended())
    }
}

pub(super) struct Home<M> {
    /// The id of the hub that has the number registered; 0 if none has.
    hub: AtomicU64,
    /// The greenlets that are parked on the source, or about to park, and the armed wakers: [`Counts`].
    counts: AtomicU64,
    /// The number of calls of [`note_wake`](Home::note_wake).
    wakes: AtomicU32,
    /// The generation of forks in which the waiters were last counted. It changes under the lock only.
    generation: AtomicU32,
    inside: Mutex<Inside<M>>,
}

impl<M: Resident> Home<M> {
    pub(super) fn new() -> Home<M> {
        Home {
            hub: AtomicU64::new(0),
            counts: AtomicU64::new(0),
            wakes: AtomicU32::new(0),
            generation: AtomicU32::new(fork::generation()),
            inside: Mutex::new(Inside { mailbox: None, left_behind: LeftBehind::NONE }),
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
    pub(super) fn count(&self) -> CountedWaiter<'_, M> {
        self.notice_fork();
        let era = Counts(self.counts.fetch_add(Counts::WAITER, SeqCst)).era();
        CountedWaiter { home: self, era }
    }

    /// Counts a waker that is about to be armed. Returns the era for [`end_poll`](Home::end_poll).
    pub(super) fn begin_poll(&self) -> Era {
        self.notice_fork();
        Counts(self.counts.fetch_add(Counts::WAKER, SeqCst)).era()
    }

    /// Ends the count of a waker that was counted in `era`.
    pub(super) fn end_poll(&self, era: Era) {
        let now = Counts(self.counts.fetch_sub(Counts::WAKER, SeqCst)).era();
        if now != era {
            self.leave_late(era, now, Mover::Poll);
        }
    }

    fn counts(&self) -> Counts {
        Counts(self.counts.load(SeqCst))
    }

    /// Returns the number of wakers that are armed, or about to be.
    pub(super) fn polls(&self) -> u32 {
        self.counts().wakers()
    }

    /// Returns the number of greenlets that are parked, or about to park, and of armed wakers.
    pub(super) fn waiters(&self) -> u32 {
        order_for_model();
        self.counts().waiters()
    }

    /// Notes that all waiters are to be woken, before the caller asks which OS thread they are on.
    pub(super) fn note_wake(&self) {
        self.wakes.fetch_add(1, SeqCst);
    }

    /// Returns the number of wake-ups so far. A waiter that moves the source compares it: a wake-up in between may have
    /// gone to the OS thread of before.
    pub(super) fn wakes(&self) -> u32 {
        self.wakes.load(SeqCst)
    }

    /// Makes `hub` of the OS thread `here` the home, for a caller that is counted in `era`, which becomes the present
    /// one.
    ///
    /// Returns the OS thread that has to release the number, if there is one. A poll, unlike a greenlet, also takes the
    /// source from the wakers of another OS thread: a future may have moved here.
    ///
    /// # Errors
    ///
    /// Returns [`Busy`] and changes nothing but the era if greenlets of another OS thread wait.
    pub(super) fn move_to(&self, hub: u64, here: Arc<M>, by: Mover, era: &mut Era) -> Result<Option<Arc<M>>, Busy> {
        let mut inside = self.lock();
        self.recount_after_fork(&mut inside);
        let before = self.hub.swap(hub, SeqCst);
        // The caller is counted too. A caller on a third OS thread that is about to come here, too, is taken for one
        // that never leaves, until it comes here.
        order_for_model();
        if inside.is_ended() {
            let counts = self.begin_era();
            inside.left_behind.waiters = counts.waiters();
            inside.left_behind.wakers = counts.wakers();
        }
        let counts = self.counts();
        if *era != counts.era() {
            inside.left_behind.remove(*era, by);
            *era = counts.era();
        }
        // An earlier hub of this OS thread is gone, with all its registrations.
        let is_elsewhere = |mailbox: &Arc<M>| !Arc::ptr_eq(mailbox, &here) && !mailbox.is_gone();
        let elsewhere = inside.mailbox.as_ref().is_some_and(is_elsewhere);
        let others = counts.waiters() - 1;
        // The wakers that another poll may leave: those that are left behind are counted as such already.
        let wakers = match by {
            Mover::Greenlet => 0,
            Mover::Poll => counts.wakers().saturating_sub(1 + inside.left_behind.wakers),
        };
        if elsewhere && others > inside.left_behind.waiters + wakers {
            self.hub.store(before, SeqCst);
            return Err(Busy);
        }
        Ok(inside.mailbox.replace(here).filter(|_| elsewhere))
    }

    /// Returns the number of greenlets and wakers that never leave, because their OS thread does not exist in this
    /// process. Wakers of an OS thread that has ended are not among them: they are dropped.
    pub(super) fn left_behind(&self) -> u32 {
        let mut inside = self.lock();
        self.recount_after_fork(&mut inside);
        let left = inside.left_behind;
        let counts = self.counts();
        let (waiters, wakers) =
            if inside.is_ended() { (counts.waiters(), counts.wakers()) } else { (left.waiters, left.wakers) };
        waiters.saturating_sub(wakers) + left.lost_wakers
    }

    /// Counts the waiters that a fork has left behind, before the first waiter of the child.
    #[inline]
    fn notice_fork(&self) {
        if self.generation.load(Relaxed) != fork::generation() {
            self.recount_after_fork(&mut self.lock());
        }
    }

    /// Counts the waiters that the last fork has left behind: those of an OS thread that the child does not have.
    #[cold]
    fn recount_after_fork(&self, inside: &mut Inside<M>) {
        if self.generation.swap(fork::generation(), Relaxed) != fork::generation()
            && inside.mailbox.as_ref().is_some_and(|mailbox| mailbox.is_left_behind())
        {
            let counts = self.begin_era();
            let (waiters, wakers) = (counts.waiters(), counts.wakers());
            let forked = self.counts().era();
            inside.left_behind = LeftBehind { waiters, wakers, lost_wakers: wakers, forked };
        }
    }

    /// Begins an era, in which all waiters are taken for such that never leave. Returns their number. The caller holds
    /// the lock.
    fn begin_era(&self) -> Counts {
        Counts(self.counts.fetch_add(Counts::ERA, SeqCst))
    }

    /// Corrects the number of waiters that never leave, after one has left that was counted in `era`. `now` is the era
    /// in which it has left.
    #[cold]
    fn leave_late(&self, era: Era, now: Era, by: Mover) {
        let mut inside = self.lock();
        // A later era has counted without it.
        if self.counts().era() == now {
            inside.left_behind.remove(era, by);
        }
    }

    /// Returns the OS thread of the hub that has, or had, the number registered.
    pub(super) fn resident(&self) -> Option<Arc<M>> {
        self.lock().mailbox.clone()
    }

    /// Returns the id of the hub, when no OS thread is moving the source.
    pub(super) fn settled_hub(&self) -> u64 {
        let _settled = self.lock();
        self.hub()
    }

    fn lock(&self) -> MutexGuard<'_, Inside<M>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeftBehind {
    const NONE: LeftBehind = LeftBehind { waiters: 0, wakers: 0, lost_wakers: 0, forked: Era(0) };

    /// Removes a waiter that was counted in `era`, and that has left or turned out to live.
    fn remove(&mut self, era: Era, by: Mover) {
        self.waiters = self.waiters.saturating_sub(1);
        if by == Mover::Poll {
            self.wakers = self.wakers.saturating_sub(1);
            self.lost_wakers = self.lost_wakers.saturating_sub(is_before(era, self.forked).into());
        }
    }
}

/// A greenlet that is parked on a source, or about to park.
pub(super) struct CountedWaiter<'a, M: Resident> {
    home: &'a Home<M>,
    /// The era in which it is counted.
    era: Era,
}

impl<M: Resident> CountedWaiter<'_, M> {
    /// Returns the era in which the waiter is counted, for [`Home::move_to`].
    #[inline]
    pub(super) fn era(&mut self) -> &mut Era {
        &mut self.era
    }
}

impl<M: Resident> Drop for CountedWaiter<'_, M> {
    #[inline]
    fn drop(&mut self) {
        let now = Counts(self.home.counts.fetch_sub(Counts::WAITER, SeqCst)).era();
        if now != self.era {
            self.home.leave_late(self.era, now, Mover::Greenlet);
        }
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

    type Waiter<'a> = CountedWaiter<'a, Thread>;

    /// Makes an OS thread the home for a waiter.
    fn comes(home: &Home<Thread>, hub: u64, thread: &Arc<Thread>, waiter: &mut Waiter<'_>) -> bool {
        home.move_to(hub, Arc::clone(thread), Mover::Greenlet, waiter.era()).is_ok()
    }

    /// Returns the home of a source for which a greenlet of the returned OS thread waits.
    fn home_with_waiter() -> (Home<Thread>, Arc<Thread>) {
        let (home, thread) = (Home::new(), Arc::new(Thread::default()));
        let mut waiter = home.count();
        assert!(comes(&home, 1, &thread, &mut waiter));
        std::mem::forget(waiter);
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
                let (mut first, mut second) = (home.count(), home.count());
                let came = comes(home, 2, &Arc::default(), &mut first);
                came && home.left_behind() == 1 && !comes(home, 3, &Arc::default(), &mut second)
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
                let home = &HOME.get().unwrap().0;
                CALLERS.set(Some([home.count(), home.count()]));
                assert!(holds_in_child(|| {
                    let (home, before) = HOME.get().unwrap();
                    before.is_left_behind.store(true, Relaxed);
                    let [mut moves, leaves] = CALLERS.take().unwrap();
                    // The first one to use the source in the child is a third one.
                    drop(home.count());
                    drop(leaves);
                    let came = comes(home, 2, &Arc::default(), &mut moves);
                    came && home.left_behind() == 1
                }));
            },
        );
    }

    thread_local! {
        static CALLERS: std::cell::Cell<Option<[Waiter<'static>; 2]>> = const { std::cell::Cell::new(None) };
    }

    #[test]
    fn the_waiters_of_an_ended_thread_keep_no_thread_away() {
        let (home, ended) = home_with_waiter();
        ended.has_ended.store(true, Relaxed);
        assert_eq!(home.left_behind(), 1);
        for hub in [2, 3] {
            let mut waiter = home.count();
            assert!(comes(&home, hub, &Arc::default(), &mut waiter));
            drop(waiter);
            assert_eq!(home.left_behind(), 1);
        }
    }

    #[test]
    fn a_waiter_in_transit_is_left_behind_only_until_it_comes_or_leaves() {
        let (home, ended) = home_with_waiter();
        let [mut comes_late, leaves] = [home.count(), home.count()];
        ended.has_ended.store(true, Relaxed);
        let mut first = home.count();
        assert!(comes(&home, 2, &Arc::default(), &mut first));
        drop(first);
        drop(leaves);
        let here = Arc::default();
        assert!(comes(&home, 3, &here, &mut comes_late));
        assert_eq!(home.left_behind(), 1, "that of the OS thread that has ended");
        let mut thief = home.count();
        assert!(!comes(&home, 4, &Arc::default(), &mut thief), "a live greenlet waits");
    }

    #[test]
    fn a_waker_that_outlives_its_thread_in_the_count_is_taken_off_once() {
        let (home, ended) = (Home::<Thread>::new(), Arc::new(Thread::default()));
        let mut era = home.begin_poll();
        assert!(home.move_to(1, Arc::clone(&ended), Mover::Poll, &mut era).is_ok());
        ended.has_ended.store(true, Relaxed);
        let mut waiter = home.count();
        assert!(comes(&home, 2, &Arc::default(), &mut waiter));
        assert_eq!((home.waiters(), home.polls()), (2, 1));
        home.end_poll(era);
        assert_eq!((home.waiters(), home.polls(), home.left_behind()), (1, 0, 0));
        let mut other = home.count();
        assert!(!comes(&home, 3, &Arc::default(), &mut other), "the waiter of the second one lives");
    }
}
