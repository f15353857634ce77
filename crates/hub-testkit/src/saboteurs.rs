//! Hubs with one fault each, which prove that every case can fail.
//!
//! [`TABLE`] lists the faults with the cases that catch them, and the kind of sound hub over which a fault shows. A hub
//! over poll(2) keeps no registrations, so faults in `watch` do not affect it. A hub over epoll never reports a dead
//! number, so faults in such reports do not affect it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hub_core::hub::{Hub, Interest, Key, Lease, Notify, Readiness, Ready, Rearm, Watched};

/// The fault of a [`Saboteur`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No fault: the control.
    None,
    /// Drops READ from every report.
    DropRead,
    /// Drops WRITE from every report.
    DropWrite,
    /// Ignores a second `watch` of the same key.
    IgnoreSecondWatch,
    /// Ignores the directions that a second `watch` adds.
    IgnoreAddedDirections,
    /// Keeps the directions that a second `watch` removes.
    KeepRemovedDirections,
    /// Keeps a copy of the open file.
    KeepFileOpen,
    /// Ignores `forget`.
    IgnoreForget,
    /// Reports under the first key of a number.
    KeepFirstKey,
    /// Returns at once from every wait after a report under a stale key.
    SpinOnStale,
    /// Uses the first lease of a number for every later one.
    KeepFirstLease,
    /// Returns `Ok`, without a `watch`, for a number that the system has refused.
    IgnoreWatchAfterError,
    /// Returns `Ok` from `watch` even if the call failed.
    SwallowErrors,
    /// Accepts numbers from 1024 on and never reports them.
    IgnoreHighNumbers,
    /// Drops every fiftieth report.
    DropSome,
    /// Adds READ to every report.
    AddRead,
    /// Drops the second and later reports of a key until `watch`.
    ReportOnce,
    /// Reports each key again at the next wait.
    ReportAgain,
    /// Reports a direction again only after it was watched again.
    EdgeOnly,
    /// Drops reports about one direction after a report about the other.
    DropOtherDirection,
    /// Reports a hang-up as READ and END only.
    HangupAsEnd,
    /// Drops a hang-up if only WRITE was asked for.
    DropHangupForWriter,
    /// Drops a hang-up if only WRITE was asked for and there is unread data.
    DropHangupBesideData,
    /// Reports every end as a hang-up.
    EndAsHangup,
    /// Never reports END.
    DropEnd,
    /// Returns at once from every wait after a report of a hang-up.
    SpinOnHangup,
    /// Reports the lowest number only.
    ReportLowestOnly,
    /// Reports a dead number forever.
    SpinOnDead,
    /// Drops all other reports after it has reported a dead number.
    DropOthers,
    /// Waits for half of the timeout.
    WaitHalf,
    /// Rounds the timeout down to milliseconds.
    RoundDown,
    /// Sleeps three seconds more after a wait without a report.
    OversleepTimeout,
    /// Sleeps for two milliseconds if the timeout is zero.
    SleepOnZero,
    /// Adds the timeout to an `Instant`, which overflows.
    OverflowTimeout,
    /// Returns at once if there is no timeout.
    ReturnWithoutTimeout,
    /// Reports three seconds late.
    DelayReport,
    /// Returns a notifier that ends no wait.
    IdleNotifier,
    /// Returns a notifier that only ends waits that begin after the notice.
    NotifyLaterWaitsOnly,
    /// Returns once for each notice.
    ReturnPerNotice,
    /// Allocates in each wait.
    Allocate,
    /// Returns an error if a wait ends early without a report.
    ErrorOnSignal,
    /// Keeps the parent's system objects in a forked child.
    KeepObjectsAfterFork,
    /// Closes the numbers of the parent's system objects in a forked child.
    ///
    /// The numbers may belong to other files by then.
    CloseNumbersAfterFork,
    /// Reports in the next wait what a wait has found.
    HoldBack,
    /// Returns a pollable descriptor that is never readable.
    UnreadablePollable,
    /// Does not see the wake-ups by code that its `wait` runs.
    ///
    /// It shows over a hub that runs such code, in the case [`foreign`](crate::cases::foreign).
    IgnoreOwnThread,
}

/// The kind of the sound hub under a saboteur.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Over {
    /// A level-triggered hub that keeps registrations, such as epoll.
    Level,
    /// An edge-triggered hub that keeps registrations.
    Automatic,
    /// A hub that passes every descriptor to each wait, such as poll.
    Explicit,
}

/// Each fault, the kind of hub over which it shows, and the case that catches it.
pub const TABLE: &[(Fault, Over, &str)] = &[
    (Fault::DropRead, Over::Level, "readable_descriptors_are_reported"),
    (Fault::DropWrite, Over::Explicit, "writable_descriptors_are_reported"),
    (Fault::IgnoreSecondWatch, Over::Level, "watching_again_reports_ready_directions"),
    (Fault::IgnoreAddedDirections, Over::Level, "a_later_watch_adds_directions"),
    (Fault::KeepRemovedDirections, Over::Automatic, "a_later_watch_removes_directions"),
    (Fault::KeepFirstLease, Over::Level, "a_later_watch_replaces_the_lease"),
    (Fault::KeepFileOpen, Over::Explicit, "forget_releases_the_open_file"),
    (Fault::IgnoreForget, Over::Level, "a_forgotten_descriptor_is_not_reported"),
    (Fault::KeepFirstKey, Over::Level, "a_reused_number_is_reported_under_its_new_key"),
    (Fault::SpinOnStale, Over::Level, "a_leaked_file_of_a_reused_number_does_not_disturb"),
    (Fault::IgnoreWatchAfterError, Over::Level, "an_error_of_watch_leaves_no_trace"),
    (Fault::SwallowErrors, Over::Level, "an_error_of_watch_leaves_no_trace"),
    (Fault::SwallowErrors, Over::Level, "a_dead_number_is_refused_or_invalid"),
    (Fault::IgnoreHighNumbers, Over::Level, "a_high_number_is_watched_or_refused"),
    (Fault::AddRead, Over::Explicit, "only_requested_directions_are_reported"),
    (Fault::ReportOnce, Over::Automatic, "a_life_lease_reports_every_arrival"),
    (Fault::ReportOnce, Over::Level, "a_life_lease_reports_every_arrival"),
    (Fault::ReportAgain, Over::Automatic, "ready_descriptors_are_reported_once_without_level"),
    (Fault::ReportAgain, Over::Explicit, "ready_descriptors_are_reported_once_without_level"),
    (Fault::EdgeOnly, Over::Level, "unread_data_is_reported_again_at_level"),
    (Fault::ReportAgain, Over::Level, "an_unarmed_direction_is_reported_once_at_level"),
    (Fault::IgnoreSecondWatch, Over::Level, "an_unarmed_direction_is_reported_once_at_level"),
    (Fault::DropOtherDirection, Over::Automatic, "a_report_of_one_direction_keeps_the_other_armed"),
    (Fault::DropOtherDirection, Over::Level, "a_report_of_one_direction_keeps_the_other_armed"),
    (Fault::HangupAsEnd, Over::Explicit, "a_hang_up_concerns_both_directions"),
    (Fault::HangupAsEnd, Over::Level, "an_error_concerns_both_directions"),
    (Fault::DropHangupForWriter, Over::Explicit, "a_hang_up_is_reported_to_a_lone_writer"),
    (Fault::DropHangupForWriter, Over::Level, "a_hang_up_is_reported_to_a_lone_writer"),
    (Fault::DropHangupBesideData, Over::Explicit, "a_hang_up_is_reported_to_a_writer_despite_unread_data"),
    (Fault::DropHangupBesideData, Over::Automatic, "a_hang_up_is_reported_to_a_writer_despite_unread_data"),
    (Fault::EndAsHangup, Over::Explicit, "a_half_close_ends_only_reading"),
    (Fault::DropEnd, Over::Level, "the_end_is_reported_with_the_last_data"),
    (Fault::DropEnd, Over::Automatic, "the_end_is_reported_with_the_last_data"),
    (Fault::SpinOnHangup, Over::Level, "a_hang_up_without_a_waiter_does_not_spin"),
    (Fault::ReportLowestOnly, Over::Explicit, "everything_ready_is_reported_in_few_waits"),
    (Fault::SpinOnDead, Over::Explicit, "a_dead_descriptor_does_not_spin"),
    (Fault::DropOthers, Over::Explicit, "a_dead_descriptor_hides_no_other_report"),
    (Fault::DropSome, Over::Automatic, "every_waiter_is_served_in_random_traffic"),
    (Fault::ReportOnce, Over::Level, "every_waiter_is_served_in_random_traffic"),
    (Fault::DropOtherDirection, Over::Explicit, "every_waiter_is_served_in_random_traffic"),
    (Fault::WaitHalf, Over::Level, "a_timeout_is_not_early"),
    (Fault::RoundDown, Over::Level, "a_short_timeout_rounds_up"),
    (Fault::OversleepTimeout, Over::Explicit, "a_timeout_is_not_late"),
    (Fault::SleepOnZero, Over::Explicit, "a_zero_timeout_never_sleeps"),
    (Fault::OverflowTimeout, Over::Level, "the_longest_timeout_does_not_overflow"),
    (Fault::ReturnWithoutTimeout, Over::Level, "no_timeout_sleeps_until_a_report"),
    (Fault::DelayReport, Over::Level, "a_report_ends_the_wait_at_once"),
    (Fault::IdleNotifier, Over::Explicit, "a_notice_before_the_wait_ends_it"),
    (Fault::NotifyLaterWaitsOnly, Over::Level, "a_notice_during_the_wait_ends_it"),
    (Fault::ReturnPerNotice, Over::Level, "many_notices_end_few_waits"),
    (Fault::Allocate, Over::Explicit, "a_wait_allocates_nothing"),
    (Fault::ErrorOnSignal, Over::Level, "a_signal_is_no_error"),
    (Fault::KeepObjectsAfterFork, Over::Level, "a_forked_child_has_a_working_hub"),
    (Fault::KeepObjectsAfterFork, Over::Level, "a_forked_child_leaves_the_parent_alone"),
    (Fault::CloseNumbersAfterFork, Over::Level, "a_forked_child_keeps_the_files_that_it_has_opened"),
    (Fault::CloseNumbersAfterFork, Over::Explicit, "a_forked_child_keeps_the_files_that_it_has_opened"),
    (Fault::SpinOnStale, Over::Level, "a_released_number_is_no_longer_reported"),
    (Fault::UnreadablePollable, Over::Level, "pollable_is_readable_with_a_report"),
    (Fault::HoldBack, Over::Automatic, "a_wait_without_a_report_leaves_nothing_to_report"),
];

/// A sound hub with one [`Fault`].
///
/// ```
/// use hub_core::hub::{Interest, Lease, Readiness};
/// use hub_testkit::fixture::{Driver, NO_REPORT_TIME, pair, send};
/// use hub_testkit::saboteurs::{Fault, Saboteur};
///
/// let make = || Saboteur::new(Box::new(hub_epoll::EpollHub::new()?), Fault::DropRead);
/// let mut driver = Driver::new(&make);
/// let (one, other) = pair();
/// let key = driver.add(&one, Interest::READ, Lease::Life);
/// send(&other, b"x");
/// assert_eq!(driver.wait_for(key, NO_REPORT_TIME), Readiness::NONE);
/// ```
pub struct Saboteur {
    inner: Box<dyn Hub>,
    fault: Fault,
    /// The arguments of `watch`, in the order of the calls.
    calls: Vec<(Key, Interest, Lease)>,
    /// The numbers that the inner hub has refused.
    refused: Vec<i32>,
    /// The reports about each key since its last `watch`.
    reported: Vec<(Key, Readiness)>,
    /// The reports for the next wait.
    held_back: Vec<(Key, Readiness)>,
    /// The number of reports so far.
    count: usize,
    copies: Vec<OwnedFd>,
    spare: OwnedFd,
    notices: Arc<Notices>,
}

impl Saboteur {
    /// Creates a hub that has a fault and otherwise works like `inner`.
    ///
    /// # Errors
    ///
    /// Returns an error if too many files are open.
    pub fn new(inner: Box<dyn Hub>, fault: Fault) -> io::Result<Saboteur> {
        let (spare, writer) = io::pipe()?;
        Ok(Saboteur {
            inner,
            fault,
            calls: Vec::new(),
            refused: Vec::new(),
            reported: Vec::new(),
            held_back: Vec::new(),
            count: 0,
            // The writer stays open, so that the reader has no hang-up.
            copies: vec![writer.into()],
            spare: spare.into(),
            notices: Arc::default(),
        })
    }

    /// Returns the interest of the last `watch` of `key`.
    fn asked(&self, key: Key) -> Option<Interest> {
        self.calls.iter().rev().find(|call| call.0 == key).map(|call| call.1)
    }

    /// Returns the arguments of the first `watch` of the number of `key`.
    fn first(&self, key: Key) -> Option<&(Key, Interest, Lease)> {
        self.calls.iter().find(|call| call.0.fd() == key.fd())
    }

    /// Returns the reported readiness of `key` since its last `watch`.
    fn before(&self, key: Key) -> Readiness {
        let reports = self.reported.iter().filter(|(reported, _)| *reported == key);
        reports.fold(Readiness::NONE, |all, &(_, found)| all | found)
    }

    /// Applies the fault to one report. Returns `None` to drop the report.
    fn spoil(&self, watched: &Watched, key: Key, found: Readiness) -> Option<(Key, Readiness)> {
        let before = self.before(key);
        let hangup = found.contains(Readiness::HANGUP);
        let to_writer = hangup && self.asked(key) == Some(Interest::WRITE);
        let found = match self.fault {
            Fault::DropRead => found & !Readiness::READ,
            Fault::DropWrite => found & !Readiness::WRITE,
            Fault::IgnoreHighNumbers if key.fd() >= 1024 => Readiness::NONE,
            Fault::DropSome if self.count.is_multiple_of(50) => Readiness::NONE,
            Fault::AddRead => found | Readiness::READ,
            Fault::ReportOnce if !before.is_empty() => Readiness::NONE,
            Fault::EdgeOnly if before.contains(found) => Readiness::NONE,
            Fault::DropOtherDirection if !before.is_empty() => found & before,
            Fault::HangupAsEnd if hangup => Readiness::READ | Readiness::END,
            Fault::DropHangupForWriter if to_writer => Readiness::NONE,
            Fault::DropHangupBesideData if to_writer && has_unread(watched, key) => Readiness::NONE,
            Fault::EndAsHangup if found.contains(Readiness::END) => found | Readiness::HANGUP,
            Fault::DropEnd => found & !Readiness::END,
            _ => found,
        };
        let key = match self.fault {
            Fault::KeepFirstKey => self.first(key).map_or(key, |call| call.0),
            _ => key,
        };
        (!found.is_empty()).then_some((key, found))
    }
}

impl Hub for Saboteur {
    fn name(&self) -> &'static str {
        "saboteur"
    }

    fn rearm(&self) -> Rearm {
        self.inner.rearm()
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        let known = self.asked(key);
        let asked = match (self.fault, known) {
            (Fault::IgnoreSecondWatch, Some(_)) => return Ok(()),
            (Fault::IgnoreAddedDirections, Some(known)) => known & interest,
            (Fault::KeepRemovedDirections, Some(known)) => known | interest,
            _ => interest,
        };
        if self.fault == Fault::IgnoreWatchAfterError && self.refused.contains(&key.fd()) {
            return Ok(());
        }
        if self.fault == Fault::KeepFileOpen {
            self.copies.push(fd.try_clone_to_owned()?);
        }
        let lease = match self.first(key) {
            Some(call) if self.fault == Fault::KeepFirstLease => call.2,
            _ => lease,
        };
        self.calls.push((key, interest, lease));
        self.reported.retain(|(reported, _)| *reported != key);
        match self.inner.watch(key, fd, asked, lease) {
            Err(error) => {
                self.refused.push(key.fd());
                if self.fault == Fault::SwallowErrors { Ok(()) } else { Err(error) }
            }
            other => other,
        }
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        if self.fault != Fault::IgnoreForget {
            self.inner.forget(key, fd);
        }
    }

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let start = Instant::now();
        let mut limit = match (self.fault, timeout) {
            (Fault::WaitHalf, Some(timeout)) => Some(timeout / 2),
            (Fault::RoundDown, Some(timeout)) => Some(Duration::from_millis(timeout.as_millis() as u64)),
            (Fault::ReturnWithoutTimeout, None) => Some(Duration::ZERO),
            (_, timeout) => timeout,
        };
        match self.fault {
            Fault::SleepOnZero if timeout == Some(Duration::ZERO) => thread::sleep(Duration::from_millis(2)),
            Fault::OverflowTimeout => limit = timeout.map(|timeout| (start + timeout).saturating_duration_since(start)),
            Fault::Allocate => drop(std::hint::black_box(Box::new(0_u64))),
            Fault::NotifyLaterWaitsOnly | Fault::ReturnPerNotice if self.notices.take(self.fault) => return Ok(()),
            Fault::SpinOnHangup if self.reported.iter().any(|(_, found)| found.contains(Readiness::HANGUP)) => {
                limit = Some(Duration::ZERO);
            }
            Fault::SpinOnStale if self.reported.iter().any(|&(key, _)| !watched.is_current(key)) => {
                limit = Some(Duration::ZERO);
            }
            _ => {}
        }
        if self.fault == Fault::IgnoreOwnThread {
            // The waker that is set in this table is never woken. It has no registrations, nor has the case.
            return self.inner.wait(&Watched::new(), limit, ready);
        }
        if matches!(self.fault, Fault::None | Fault::Allocate) {
            return self.inner.wait(watched, limit, ready);
        }
        let mut found = Ready::new();
        self.inner.wait(watched, limit, &mut found)?;
        let early = timeout.is_none_or(|timeout| start.elapsed() < timeout);
        let nothing = found.reports().is_empty();
        match self.fault {
            Fault::ErrorOnSignal if nothing && early => return Err(io::ErrorKind::Interrupted.into()),
            Fault::OversleepTimeout if nothing => thread::sleep(Duration::from_secs(3)),
            Fault::DelayReport if !nothing => thread::sleep(Duration::from_secs(3)),
            _ => {}
        }
        let again = std::mem::take(&mut self.reported);
        let mut reports: Vec<_> = found.reports().to_vec();
        let dead = |found: Readiness| found.contains(Readiness::INVALID);
        match self.fault {
            Fault::HoldBack => reports = std::mem::replace(&mut self.held_back, reports),
            Fault::ReportAgain if nothing => reports.extend(again.iter().copied()),
            Fault::SpinOnHangup => {
                reports.extend(again.iter().copied().filter(|(_, found)| found.contains(Readiness::HANGUP)));
            }
            Fault::SpinOnDead => reports.extend(again.iter().copied().filter(|&(_, found)| dead(found))),
            Fault::DropOthers if reports.iter().chain(&again).any(|&(_, found)| dead(found)) => {
                reports.retain(|&(_, found)| dead(found));
            }
            Fault::ReportLowestOnly => {
                reports.sort_by_key(|(key, _)| key.fd());
                reports.truncate(1);
            }
            _ => {}
        }
        self.reported = again;
        for (key, found) in reports {
            self.count += 1;
            if let Some((key, found)) = self.spoil(watched, key, found) {
                self.reported.push((key, found));
                ready.push(key, found);
            }
        }
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        match self.fault {
            Fault::KeepObjectsAfterFork => return Ok(()),
            Fault::CloseNumbersAfterFork => self.copies.clear(),
            _ => {}
        }
        self.inner.after_fork()
    }

    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        match self.fault {
            Fault::IdleNotifier | Fault::NotifyLaterWaitsOnly | Fault::ReturnPerNotice => Some(self.notices.clone()),
            _ => self.inner.notifier(),
        }
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        if self.fault == Fault::UnreadablePollable { Some(self.spare.as_fd()) } else { self.inner.pollable() }
    }
}

impl std::fmt::Debug for Saboteur {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saboteur").field("fault", &self.fault).finish_non_exhaustive()
    }
}

fn has_unread(watched: &Watched, key: Key) -> bool {
    watched.fd(key).is_some_and(|fd| rustix::io::ioctl_fionread(fd).is_ok_and(|count| count > 0))
}

/// A counter of notices. A notice does not end a wait; a fault may check the counter before a wait.
#[derive(Debug, Default)]
struct Notices(AtomicUsize);

impl Notices {
    /// Takes one notice or all of them, as `fault` demands, and returns whether there was one.
    fn take(&self, fault: Fault) -> bool {
        let count = self.0.load(Ordering::Acquire);
        let left = if fault == Fault::ReturnPerNotice { count.saturating_sub(1) } else { 0 };
        self.0.store(left, Ordering::Release);
        count > 0
    }
}

impl Notify for Notices {
    fn notify(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}
