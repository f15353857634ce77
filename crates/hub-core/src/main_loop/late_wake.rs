//! Wake-ups of other OS threads that are put off until a lock is released.
//!
//! An OS thread that is woken takes the lock of the primitive that it waits for. If it is woken under that lock, it
//! finds the lock taken: on one processor the two OS threads switch three times for each message instead of once.
//!
//! Ground rules:
//! - A wake-up is put off only while this OS thread holds a lock that it shares with others. It is carried out when
//!   this OS thread holds fewer of these locks than at that time, so a lock whose guard is forgotten holds none back.
//! - The wait has ended by then, and only the OS thread may still sleep. No other poster rings for a loop meanwhile, so
//!   all its mail waits as long as the lock is held.

use std::cell::{Cell, RefCell};
use std::mem;
use std::num::NonZeroU64;

use super::reach::{self, Sleeper};
use crate::base::fork;
use crate::greenlet::exit::contained;
use crate::report;

thread_local! {
    /// The number of locks that this OS thread holds and shares with others.
    static LOCKS: Cell<usize> = const { Cell::new(0) };
    /// Whether `PENDING` is not empty.
    static IS_PENDING: Cell<bool> = const { Cell::new(false) };
    /// The wake-ups that were put off, by ascending numbers of locks.
    static PENDING: RefCell<Vec<LateWake>> = const { RefCell::new(Vec::new()) };
}

/// A wake-up that is carried out by its drop.
struct LateWake {
    sleeper: Sleeper,
    /// The number of locks that this OS thread held.
    locks: usize,
    /// The generation of forks in which the wait has ended. The child of a fork has none of its sleepers.
    generation: u32,
}

impl Drop for LateWake {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            return;
        }
        let sleeper = mem::replace(&mut self.sleeper, Sleeper::Awake);
        // The notifier of a hub is foreign code, and the release of a lock must not panic.
        if let Err(error) = contained(|| sleeper.wake()) {
            report::callback_failed("a wake-up of another OS thread", None, error);
        }
    }
}

/// Notes that this OS thread has taken a lock that it shares with others.
#[inline]
pub(crate) fn lock_taken() {
    if !cfg!(loom) {
        LOCKS.set(LOCKS.get() + 1);
    }
}

/// Notes that this OS thread has released such a lock, and carries out the wake-ups that were put off for it.
#[inline]
pub(crate) fn lock_released() {
    if !cfg!(loom) {
        LOCKS.set(LOCKS.get() - 1);
        if IS_PENDING.get() {
            wake_pending();
        }
    }
}

#[cold]
fn wake_pending() {
    // One at a time, and outside of the list: a notifier may come here again.
    let take = |pending: &RefCell<Vec<LateWake>>| {
        let mut pending = pending.borrow_mut();
        let first = pending.partition_point(|late| late.locks <= LOCKS.get());
        let late = (first < pending.len()).then(|| pending.remove(first));
        IS_PENDING.set(!pending.is_empty());
        late
    };
    while let Ok(Some(late)) = PENDING.try_with(take) {
        drop(late);
    }
}

/// Ends the wait of a greenlet on another OS thread, or of an OS thread as a whole. The OS thread is woken when this
/// one releases its lock, or at once if it holds none.
///
/// Returns false if the waiter does not exist any more.
#[cold]
pub(crate) fn unpark_elsewhere(thread: u64, greenlet: NonZeroU64, ticket: u64) -> bool {
    let Ok(sleeper) = reach::end_elsewhere(thread, greenlet, ticket) else { return false };
    let late = LateWake { sleeper, locks: LOCKS.get(), generation: fork::generation() };
    if late.locks == 0 || matches!(late.sleeper, Sleeper::Awake) {
        return true;
    }
    // Without the thread-local, at the end of the OS thread, the drop of the closure carries it out.
    let _ = PENDING.try_with(|pending| {
        pending.borrow_mut().push(late);
        IS_PENDING.set(true);
    });
    true
}
