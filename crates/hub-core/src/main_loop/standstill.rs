//! Standstills: the loop waits, and only other OS threads may still end its waits.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::remote::Mailbox;
use crate::base::dormant::{Dormant, FIRST_LOOK, GreenletWait, LONGEST_LOOK, Others, Sleep, Waits};
use crate::base::fork;
use crate::base::unwind::Tables;
use crate::greenlet::backtrace;
use crate::greenlet::describe;
use crate::greenlet::local::Local;
use crate::greenlet::run;
use crate::hub::Time;
use crate::report::{self, Report};

/// The time in nanoseconds; the largest value means never.
static QUIET_TIME: AtomicU64 = AtomicU64::new(u64::MAX);

/// Sets the time without work after which a loop reports its green threads.
///
/// The report comes if all green threads wait for locks, queues or events that only another OS thread could still
/// serve. It comes once until a green thread has run again. `None`, the default, switches it off. The setting applies
/// to the whole process.
///
/// A loop with a green thread that waits for a descriptor, a timer or a signal does not stand still, and is not
/// reported.
///
/// Two other cases do not depend on this setting. If there is no other OS thread, except idle OS threads of this
/// library, the main greenlet gets [`LoopErrorKind::LoopExit`](crate::LoopErrorKind::LoopExit) instead. If all other OS
/// threads wait for each other in this way, or in a pool job, that is reported once as a [`Report::Deadlock`]; the
/// library does not choose which of the waits should fail. Both are found where the system lists its OS threads
/// (Linux): after a second or, if an OS thread has ended in the meantime, at the loop's next check, at most 16 seconds
/// later.
pub fn set_quiet_time(quiet: impl Into<Option<Duration>>) {
    let nanos = quiet.into().map_or(u64::MAX, |quiet| u64::try_from(quiet.as_nanos()).unwrap_or(u64::MAX));
    QUIET_TIME.store(nanos, Ordering::Relaxed);
}

/// Returns the time without work after which a loop reports its green threads. Does not switch.
///
/// See [`set_quiet_time`].
#[must_use]
pub fn quiet_time() -> Option<Duration> {
    match QUIET_TIME.load(Ordering::Relaxed) {
        u64::MAX => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}

/// The source of a possible wake-up for a main greenlet without a timer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum WakeSource {
    /// A descriptor or a message of this OS thread, or a handle that the program holds.
    Here,
    /// A pending job, which keeps the loop alive.
    Job,
    /// Another OS thread that serves a lock, a queue or an event.
    Elsewhere,
    /// Nothing.
    Lost,
}

/// The number of waits that only other OS threads can end, and the time for which the loop has stood still.
#[derive(Default)]
pub(super) struct Standstill {
    /// The generation of forks in which this OS thread was made reachable, plus one; 0: not yet.
    reachable: Cell<u32>,
    /// Whether the next wait blocks the OS thread. No hub could be built, and the wait needs none.
    blocks: Cell<bool>,
    /// The number of greenlets that wait for a lock, a queue or an event.
    waiting: Cell<usize>,
    /// The time for which no greenlet has run.
    silent: Cell<Duration>,
    /// The number of switches before that time.
    ran: Cell<u64>,
    /// Whether the last wait was counted as a standstill.
    counts: Cell<bool>,
    /// The time up to which a loop that does not sleep has counted its silence, and the same of the wait before.
    spun_until: Cell<Option<Time>>,
    spun_before: Cell<Option<Time>>,
    /// The silence after which the loop next looks for other OS threads; zero for the first time.
    next_look: Cell<Duration>,
    /// Set while only another OS thread can wake the loop, and a first look has found that.
    dormant: RefCell<Option<Dormant>>,
}

impl Standstill {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.get() == 0
    }

    /// Counts a wait that only another OS thread can end, as long as the returned value exists.
    #[inline]
    pub(super) fn count_park(&self) -> CountedPark<'_> {
        self.waiting.set(self.waiting.get() + 1);
        CountedPark(&self.waiting)
    }

    /// Returns whether this OS thread was made reachable, in this process.
    #[inline]
    pub(super) fn is_reachable(&self) -> bool {
        self.reachable.get() == fork::generation() + 1
    }

    /// Records that this OS thread was made reachable.
    pub(super) fn set_reachable(&self) {
        self.reachable.set(fork::generation() + 1);
    }

    /// Lets the next wait block the OS thread.
    pub(super) fn block_next_wait(&self) {
        self.blocks.set(true);
    }

    /// Returns whether the next wait blocks the OS thread. The one after it does not.
    pub(super) fn take_block(&self) -> bool {
        self.blocks.take()
    }

    /// Returns how long the loop may stand still before it checks the reason. A wait for a job is never reported as
    /// quiet.
    pub(super) fn idle_timeout(&self, hope: WakeSource) -> Duration {
        let ran = run::switches();
        if self.ran.replace(ran) != ran {
            self.silent.set(Duration::ZERO);
            self.next_look.set(Duration::ZERO);
            self.end_count();
        }
        self.counts.set(true);
        self.spun_before.set(self.spun_until.take());
        let silent = self.silent.get();
        let look = self.next_look.get().max(FIRST_LOOK) - silent;
        let quiet = quiet_time().filter(|quiet| hope == WakeSource::Elsewhere && *quiet > silent);
        quiet.map_or(look, |quiet| look.min(quiet - silent))
    }

    /// Returns the time since the wait before, for a loop that stands still but does not sleep; zero if that wait was
    /// another one.
    #[cold]
    pub(super) fn count_spin(&self) -> Duration {
        // The hub's clock may stand still as long as the loop does not sleep.
        let now = Time::monotonic();
        self.spun_until.set(Some(now));
        self.spun_before.take().map_or(Duration::ZERO, |before| now - before)
    }

    /// Returns whether the last wait was counted as a standstill.
    #[inline(always)]
    pub(super) fn counts(&self) -> bool {
        self.counts.get()
    }

    /// Notes that the loop does not stand still.
    #[cold]
    pub(super) fn end_count(&self) {
        self.counts.set(false);
        self.spun_until.set(None);
        self.stir();
    }

    /// Checks why the loop has stood still. Returns true if no job and no OS thread could wake it.
    pub(super) fn is_hopeless(
        &self,
        local: &Local,
        mailbox: &Arc<Mailbox>,
        stood_still: Duration,
        hope: WakeSource,
    ) -> bool {
        let (before, now) = (self.silent.get(), self.silent.get() + stood_still);
        self.silent.set(now);
        if now >= self.next_look.get().max(FIRST_LOOK) {
            self.next_look.set(now + now.min(LONGEST_LOOK));
            match self.fall_dormant(local, mailbox) {
                Others::Idle if hope == WakeSource::Job => {}
                Others::Idle => return true,
                Others::Deadlocked(threads) => self.tell(Report::Deadlock { threads }),
                Others::Awake => {}
            }
        }
        if hope == WakeSource::Elsewhere && quiet_time().is_some_and(|quiet| before < quiet && quiet <= now) {
            let parked = waits(local).into_iter().map(|wait| wait.text).collect();
            self.tell(Report::Quiet { parked });
        }
        false
    }

    /// Reports from this OS thread. The stream is foreign code, which may wake greenlets of this OS thread and of
    /// others.
    fn tell(&self, report: Report) {
        let dormant = self.dormant.take();
        if let Some(dormant) = &dormant {
            dormant.set_awake(true);
        }
        report::tell(report);
        if let Some(dormant) = dormant
            && run::ready() == 0
        {
            dormant.set_awake(false);
            self.dormant.replace(Some(dormant));
        }
    }

    /// Counts the calling OS thread as dormant, and looks for other OS threads.
    fn fall_dormant(&self, local: &Local, mailbox: &Arc<Mailbox>) -> Others {
        let enter = || Dormant::waiter(Waits::Greenlets(waits(local)), Arc::clone(mailbox) as Arc<dyn Sleep>, 0);
        let mut dormant = self.dormant.borrow_mut();
        let dormant = dormant.get_or_insert_with(enter);
        dormant.set_awake(false);
        dormant.others()
    }

    /// Does not count the calling OS thread as dormant until its next look. What was reported stays reported.
    pub(super) fn stay_awake(&self) {
        if let Some(dormant) = &*self.dormant.borrow() {
            dormant.set_awake(true);
        }
    }

    /// Ends the dormancy. Called before the loop accepts any message.
    #[inline]
    pub(super) fn stir(&self) {
        drop(self.dormant.take());
    }
}

/// Returns each wait on this OS thread. The first ones have a backtrace, with the feature `backtrace`.
pub(super) fn waits(local: &Local) -> Vec<GreenletWait> {
    /// The most backtraces. Thousands would make the report unreadable.
    const BACKTRACES: usize = 64;

    let main = format!("the main greenlet, {}", local.main.reason().as_str());
    let all = std::iter::once((local.main, main)).chain(describe::parked(local));
    let tables = Tables::of_process();
    let with_backtrace = |(number, (control, text)): (usize, _)| GreenletWait {
        text,
        backtrace: tables.as_ref().filter(|_| number < BACKTRACES).and_then(|it| backtrace::suspended(control, it)),
    };
    all.enumerate().map(with_backtrace).collect()
}

/// Counts a wait. `Drop` ends it, however the park ends.
pub(super) struct CountedPark<'a>(&'a Cell<usize>);

impl Drop for CountedPark<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::fork::tests::in_own_process;
    use crate::base::id::HubId;
    use crate::greenlet::local;
    use crate::main_loop::remote::Inbox;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the state of a loop that has stood still for `silent`, and looks for other OS threads after `next_look`.
    fn standstill(silent: Duration, next_look: Duration) -> Standstill {
        let standstill = Standstill::default();
        standstill.ran.set(run::switches());
        standstill.silent.set(silent);
        standstill.next_look.set(next_look);
        standstill
    }

    #[test]
    fn a_loop_sleeps_until_its_next_look_or_its_quiet_report() {
        in_own_process("main_loop::standstill::tests::a_loop_sleeps_until_its_next_look_or_its_quiet_report", || {
            let standstill = standstill(SECOND, 4 * SECOND);
            assert_eq!(standstill.idle_timeout(WakeSource::Elsewhere), 3 * SECOND);
            set_quiet_time(Some(2 * SECOND));
            assert_eq!(standstill.idle_timeout(WakeSource::Elsewhere), SECOND);
            assert_eq!(standstill.idle_timeout(WakeSource::Job), 3 * SECOND);
        });
    }

    #[test]
    fn a_loop_that_spins_counts_the_time_between_its_waits() {
        let standstill = standstill(Duration::ZERO, Duration::ZERO);
        let begin = Time::monotonic();
        let spin = || {
            standstill.idle_timeout(WakeSource::Elsewhere);
            standstill.count_spin()
        };
        assert_eq!(spin(), Duration::ZERO);
        let spun = spin();
        std::thread::sleep(Duration::from_millis(1));
        let spun = spun + spin();
        assert!(spun >= Duration::from_millis(1) && begin + spun <= Time::monotonic());
        standstill.ran.set(run::switches() + 1);
        assert_eq!(spin(), Duration::ZERO, "a green thread has run");
        standstill.idle_timeout(WakeSource::Elsewhere);
        assert_eq!(spin(), Duration::ZERO, "the loop has slept");
        standstill.end_count();
        assert_eq!(spin(), Duration::ZERO, "the loop has worked");
    }

    #[test]
    fn a_loop_that_works_is_not_among_the_dormant() {
        let (standstill, inbox) = (standstill(Duration::ZERO, Duration::ZERO), Inbox::new(HubId::new(1)));
        let idle = standstill.idle_timeout(WakeSource::Elsewhere);
        standstill.is_hopeless(local::get(), inbox.mailbox(), idle, WakeSource::Elsewhere);
        assert!(standstill.counts() && standstill.dormant.borrow().is_some());
        standstill.end_count();
        assert!(!standstill.counts() && standstill.dormant.borrow().is_none());
    }

    #[test]
    fn the_time_between_two_looks_doubles() {
        // The harness has another OS thread, which is awake.
        let (standstill, inbox) = (standstill(Duration::ZERO, Duration::ZERO), Inbox::new(HubId::new(1)));
        for next in [1, 2, 4, 8, 16, 16] {
            let idle = standstill.idle_timeout(WakeSource::Job);
            assert!(!standstill.is_hopeless(local::get(), inbox.mailbox(), idle, WakeSource::Job));
            assert_eq!(standstill.idle_timeout(WakeSource::Job), next * SECOND);
        }
    }

    #[test]
    fn the_quiet_report_comes_once() {
        static REPORTS: AtomicU64 = AtomicU64::new(0);
        in_own_process("main_loop::standstill::tests::the_quiet_report_comes_once", || {
            report::set_report_stream(|report| {
                assert!(matches!(report, Report::Quiet { .. }), "{report}");
                REPORTS.fetch_add(1, Ordering::Relaxed);
            });
            set_quiet_time(Some(2 * SECOND));
            let (standstill, inbox) = (standstill(Duration::ZERO, Duration::ZERO), Inbox::new(HubId::new(1)));
            // The report is due at the end of the second of these waits.
            for reports in [0, 1, 1, 1] {
                assert!(!standstill.is_hopeless(local::get(), inbox.mailbox(), SECOND, WakeSource::Elsewhere));
                assert_eq!(REPORTS.load(Ordering::Relaxed), reports);
            }
        });
    }
}
