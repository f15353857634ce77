//! The look for a wake-up that an OS thread takes before it sleeps.
//!
//! Two OS threads that answer each other's messages would sleep and wake each other for each message, and a wake-up
//! takes many times as long as the answer. So a loop that has just got mail looks for more before it sleeps, and so
//! does an OS thread that waits as a whole. The answer of an OS thread that sleeps comes only after its wake-up, so a
//! look must last longer than one to be of use. It may cost [`busy_poll_time`] on average, so a look in vain is
//! followed by sleeps without one.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};

/// The time in nanoseconds.
static TIME: AtomicU64 = AtomicU64::new(20_000);

/// The length of a look, in times of [`busy_poll_time`].
const LENGTH: u32 = 3;

/// The shortest sleep that begins with a look. While a look gives the processor away, other OS threads may hold up a
/// timer for so long; the system ends a sleep in time.
const SHORTEST: Duration = Duration::from_millis(10);

/// The sleeps without a look after one in vain, at least: with the sleep of the look they pay for it.
const FEWEST_SKIPS: u32 = LENGTH - 1;

/// The sleeps without a look after many in vain.
const MOST_SKIPS: u32 = 64;

/// Sets how long an OS thread looks for wake-ups by others before it sleeps. Does not switch.
///
/// A loop that another OS thread has just reached, and that watches no descriptor, looks for further messages before it
/// sleeps. An OS thread that waits for a lock, queue or event of this library without a loop does the same. OS threads
/// that answer each other at once then need no system call. `time` is the most that looks in vain cost for each sleep,
/// on average: a look lasts up to three times as long, and the sleeps after a look in vain begin without one, two at
/// first and up to 64. No sleep that a timer ends within 10 ms begins with a look, and on a system with one processor
/// none does. The default is 20 µs. `None` and zero switch the looks off. The setting applies to the whole process.
///
/// ```
/// use greenhub::hub::{busy_poll_time, set_busy_poll_time};
/// set_busy_poll_time(None); // a program that saves power
/// assert_eq!(busy_poll_time(), None);
/// ```
pub fn set_busy_poll_time(time: impl Into<Option<Duration>>) {
    let nanos = time.into().map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    TIME.store(nanos, Ordering::Relaxed);
}

/// Returns how long an OS thread looks for wake-ups before it sleeps, or `None` if it does not. Does not switch.
///
/// See [`set_busy_poll_time`].
#[must_use]
pub fn busy_poll_time() -> Option<Duration> {
    match TIME.load(Ordering::Relaxed) {
        0 => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}

/// Returns whether another OS thread can answer while this one looks.
///
/// A restriction of this OS thread to one processor does not matter: the other OS thread may have another one.
fn has_processors() -> bool {
    /// The answer; 0 before the first question. No lock, which a fork could leave locked.
    static ANSWER: AtomicU8 = AtomicU8::new(0);
    const ONE: u8 = 1;
    const SEVERAL: u8 = 2;
    if ANSWER.load(Ordering::Relaxed) == 0 {
        ANSWER.store(if counts_several() { SEVERAL } else { ONE }, Ordering::Relaxed);
    }
    ANSWER.load(Ordering::Relaxed) == SEVERAL
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn counts_several() -> bool {
    use nix::unistd::{SysconfVar, sysconf};
    matches!(sysconf(SysconfVar::_NPROCESSORS_ONLN), Ok(Some(count)) if count > 1)
}

/// nix has no name for the number of processors on these systems. std's number may be lower: that of the processors on
/// which the process may run.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn counts_several() -> bool {
    std::thread::available_parallelism().is_ok_and(|count| count.get() > 1)
}

/// The success of the last looks of an OS thread.
pub(super) struct BusyPoll {
    /// The sleeps until the next look.
    skips: Cell<u32>,
    /// The sleeps without a look after the next one in vain.
    penalty: Cell<u32>,
    /// The waits of the hub that were spared one after the other.
    spared: Cell<u32>,
}

impl BusyPoll {
    pub(super) const fn new() -> BusyPoll {
        BusyPoll { skips: Cell::new(FEWEST_SKIPS), penalty: Cell::new(FEWEST_SKIPS), spared: Cell::new(0) }
    }

    /// Returns whether a loop that has found mail may leave out the wait of its hub. Once in a while it may not: a hub
    /// may have work of its own.
    pub(super) fn spares_wait(&self) -> bool {
        const MOST: u32 = 63;

        let spared = self.spared.get();
        self.spared.set(if spared < MOST { spared + 1 } else { 0 });
        spared < MOST
    }

    /// Looks until `has_come` returns true, unless the next sleep begins without a look. Returns whether it did.
    /// `limit`: how long the sleep would last.
    pub(super) fn finds(&self, limit: Option<Duration>, has_come: impl Fn() -> bool) -> bool {
        let Some(time) = busy_poll_time() else { return false };
        if let Some(skips) = self.skips.get().checked_sub(1) {
            self.skips.set(skips);
            return false;
        }
        let longest = time.saturating_mul(LENGTH);
        if !has_processors() || limit.is_some_and(|limit| limit < longest.max(SHORTEST)) {
            return false;
        }
        let found = look(longest, has_come);
        self.note(found);
        found
    }

    /// Decides when the next look is taken.
    fn note(&self, found: bool) {
        if found {
            self.penalty.set(FEWEST_SKIPS);
        } else {
            let penalty = self.penalty.get();
            self.skips.set(penalty);
            self.penalty.set((2 * penalty).min(MOST_SKIPS));
        }
    }
}

/// Looks for `longest`.
fn look(longest: Duration, has_come: impl Fn() -> bool) -> bool {
    /// The reads between two reads of the clock.
    const READS: u32 = 32;

    let begin = Instant::now();
    loop {
        for _ in 0..READS {
            if has_come() {
                return true;
            }
            spin_loop();
        }
        if begin.elapsed() >= longest {
            return false;
        }
        // The OS thread that answers may wait for this processor.
        yield_now();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Returns the skips after each of `looks`, which find something or not.
    fn skips(poll: &BusyPoll, looks: &[bool]) -> Vec<u32> {
        looks
            .iter()
            .map(|&found| {
                poll.note(found);
                poll.skips.take()
            })
            .collect()
    }

    #[test]
    fn looks_in_vain_become_rarer_until_one_finds_something() {
        let poll = BusyPoll::new();
        assert_eq!(poll.skips.take(), 2);
        assert_eq!(skips(&poll, &[false; 7]), [2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(skips(&poll, &[true, true, false, false]), [0, 0, 2, 4]);
    }

    #[test]
    fn one_wait_of_the_hub_in_64_is_not_spared() {
        let poll = BusyPoll::new();
        let spared = (0..128).filter(|_| poll.spares_wait()).count();
        assert_eq!(spared, 126);
    }

    #[test]
    fn a_skipped_look_reads_nothing() {
        let poll = BusyPoll::new();
        for _ in 0..FEWEST_SKIPS {
            assert!(!poll.finds(None, || unreachable!("the look is skipped")));
        }
        assert_eq!(poll.finds(None, || true), has_processors());
    }

    #[test]
    fn a_look_ends_with_what_has_come_and_at_its_limit() {
        let reads = Cell::new(0);
        let third = || {
            reads.set(reads.get() + 1);
            reads.get() == 3
        };
        assert!(look(Duration::from_secs(3600), third));
        let begin = Instant::now();
        assert!(!look(Duration::from_millis(1), || false));
        assert!(begin.elapsed() >= Duration::from_millis(1));
    }

    #[test]
    fn a_short_sleep_begins_at_once() {
        let poll = BusyPoll::new();
        poll.skips.set(0);
        assert!(!poll.finds(Some(Duration::from_millis(9)), || unreachable!("the look could delay a timer")));
        assert_eq!(poll.finds(Some(Duration::from_millis(10)), || true), has_processors());
    }
}
