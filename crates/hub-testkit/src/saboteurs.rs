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
    LoseRead,
    /// Drops WRITE from every report.
    LoseWrite,
    /// Ignores a second `watch` of the same key.
    OnlyNew,
    /// Ignores the directions that a second `watch` adds.
    IgnoreWiden,
    /// Keeps the directions that a second `watch` removes.
    NeverNarrow,
    /// Keeps a copy of the open file.
    HoldFile,
    /// Ignores `forget`.
    ForgetNothing,
    /// Reports under the first key of a number.
    KeyForEver,
    /// Returns at once forever after it has reported a key that is no longer current.
    SpinOnStale,
    /// Uses the first lease of a number for every later one.
    FirstLease,
    /// Ignores `watch` for a number that the system has refused before, and returns `Ok`.
    TraceAfterError,
    /// Returns `Ok` from `watch` if the call failed.
    SwallowErrors,
    /// Accepts numbers from 1024 on and never reports them.
    HighSilent,
    /// Drops every fiftieth report.
    LoseSome,
    /// Adds READ to every report.
    PhantomRead,
    /// Drops the second and later reports of a key until `watch`.
    OneReport,
    /// Reports each key again at the next wait.
    ReportAgain,
    /// Reports a direction again only after it was watched again.
    EdgeOnly,
    /// After a report about one direction drops reports about the other one.
    SilenceOther,
    /// Reports a hang-up as READ and END only.
    HangupReads,
    /// Drops a hang-up if only WRITE was asked for.
    DeafWriter,
    /// Drops a hang-up if only WRITE was asked for and there is unread data.
    DeafBesideData,
    /// Reports every end as a hang-up.
    EndWrites,
    /// Never reports END.
    LoseEnd,
    /// Returns at once forever after it has reported a hang-up.
    SpinOnHangup,
    /// Reports the lowest number only.
    LowestOnly,
    /// Reports a dead number forever.
    SpinOnDead,
    /// Drops all other reports after it has reported a dead number.
    LoseNeighbours,
    /// Waits for half of the timeout.
    Early,
    /// Rounds the timeout down to milliseconds.
    Truncate,
    /// Sleeps three seconds more after a wait without a report.
    Late,
    /// Sleeps for two milliseconds if the timeout is zero.
    SleepOnZero,
    /// Adds the timeout to an `Instant`, which overflows.
    Overflow,
    /// Returns at once if there is no timeout.
    NoneIsZero,
    /// Reports three seconds late.
    LateReport,
    /// Returns a notifier that ends no wait.
    DeafNotifier,
    /// Returns a notifier that only ends waits that begin after the notice.
    NoticeBeforeOnly,
    /// Returns once for each notice.
    NoticeEach,
    /// Allocates in each wait.
    Allocate,
    /// Returns an error if a wait ends early without a report.
    ErrorOnSignal,
    /// Keeps the parent's system objects in a forked child.
    ForkKeep,
    /// Closes the numbers of the parent's system objects in a forked child, even if they belong to other files.
    ForkClose,
    /// Returns a pollable descriptor that is never readable.
    DeadPollable,
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

/// The faults, the kind of hub over which each shows, and the case that catches it.
pub const TABLE: &[(Fault, Over, &str)] = &[
    (Fault::LoseRead, Over::Level, "data_is_reported"),
    (Fault::LoseWrite, Over::Explicit, "room_is_reported"),
    (Fault::OnlyNew, Over::Level, "watching_again_looks_again"),
    (Fault::IgnoreWiden, Over::Level, "a_later_watch_widens"),
    (Fault::NeverNarrow, Over::Automatic, "a_later_watch_narrows"),
    (Fault::FirstLease, Over::Level, "a_later_watch_replaces_the_lease"),
    (Fault::HoldFile, Over::Explicit, "forget_lets_go_of_the_open_file"),
    (Fault::ForgetNothing, Over::Level, "a_forgotten_descriptor_is_silent"),
    (Fault::KeyForEver, Over::Level, "a_reused_number_is_reported_under_its_new_key"),
    (Fault::SpinOnStale, Over::Level, "an_old_file_that_lives_on_neither_spins_nor_deafens"),
    (Fault::TraceAfterError, Over::Level, "an_error_of_watch_leaves_no_trace"),
    (Fault::SwallowErrors, Over::Level, "an_error_of_watch_leaves_no_trace"),
    (Fault::SwallowErrors, Over::Level, "a_dead_number_is_refused_or_invalid"),
    (Fault::HighSilent, Over::Level, "a_high_number_is_watched_or_refused"),
    (Fault::PhantomRead, Over::Explicit, "nothing_is_reported_unasked"),
    (Fault::OneReport, Over::Automatic, "every_arrival_is_reported_for_life"),
    (Fault::OneReport, Over::Level, "every_arrival_is_reported_for_life"),
    (Fault::ReportAgain, Over::Automatic, "what_was_reported_is_silent_without_level"),
    (Fault::ReportAgain, Over::Explicit, "what_was_reported_is_silent_without_level"),
    (Fault::EdgeOnly, Over::Level, "what_is_left_unread_is_reported_again_at_level"),
    (Fault::ReportAgain, Over::Level, "an_unarmed_report_falls_silent_at_level"),
    (Fault::OnlyNew, Over::Level, "an_unarmed_report_falls_silent_at_level"),
    (Fault::SilenceOther, Over::Automatic, "a_report_of_one_direction_leaves_the_other"),
    (Fault::SilenceOther, Over::Level, "a_report_of_one_direction_leaves_the_other"),
    (Fault::HangupReads, Over::Explicit, "a_hang_up_concerns_both_directions"),
    (Fault::HangupReads, Over::Level, "an_error_concerns_both_directions"),
    (Fault::DeafWriter, Over::Explicit, "a_writer_alone_hears_of_a_hang_up"),
    (Fault::DeafWriter, Over::Level, "a_writer_alone_hears_of_a_hang_up"),
    (Fault::DeafBesideData, Over::Explicit, "unread_data_does_not_hide_a_hang_up_from_a_writer"),
    (Fault::DeafBesideData, Over::Automatic, "unread_data_does_not_hide_a_hang_up_from_a_writer"),
    (Fault::EndWrites, Over::Explicit, "a_half_close_ends_reading_alone"),
    (Fault::LoseEnd, Over::Level, "the_end_comes_with_the_last_data"),
    (Fault::LoseEnd, Over::Automatic, "the_end_comes_with_the_last_data"),
    (Fault::SpinOnHangup, Over::Level, "a_hang_up_nobody_waits_for_does_not_spin"),
    (Fault::LowestOnly, Over::Explicit, "everything_ready_is_reported_in_few_waits"),
    (Fault::SpinOnDead, Over::Explicit, "a_dead_descriptor_does_not_spin"),
    (Fault::LoseNeighbours, Over::Explicit, "a_dead_descriptor_costs_no_other_its_report"),
    (Fault::LoseSome, Over::Automatic, "whoever_waits_is_told_in_random_traffic"),
    (Fault::OneReport, Over::Level, "whoever_waits_is_told_in_random_traffic"),
    (Fault::SilenceOther, Over::Explicit, "whoever_waits_is_told_in_random_traffic"),
    (Fault::Early, Over::Level, "a_timeout_is_not_early"),
    (Fault::Truncate, Over::Level, "a_short_timeout_rounds_up"),
    (Fault::Late, Over::Explicit, "a_timeout_is_not_late"),
    (Fault::SleepOnZero, Over::Explicit, "zero_never_sleeps"),
    (Fault::Overflow, Over::Level, "the_longest_timeout_does_not_overflow"),
    (Fault::NoneIsZero, Over::Level, "no_timeout_sleeps_until_a_report"),
    (Fault::LateReport, Over::Level, "a_report_ends_a_wait_at_once"),
    (Fault::DeafNotifier, Over::Explicit, "a_notice_before_the_wait_ends_it"),
    (Fault::NoticeBeforeOnly, Over::Level, "a_notice_during_the_wait_ends_it"),
    (Fault::NoticeEach, Over::Level, "many_notices_end_few_waits"),
    (Fault::Allocate, Over::Explicit, "a_wait_allocates_nothing"),
    (Fault::ErrorOnSignal, Over::Level, "a_signal_is_no_error"),
    (Fault::ForkKeep, Over::Level, "a_forked_child_has_a_working_hub"),
    (Fault::ForkKeep, Over::Level, "a_forked_child_leaves_the_parent_alone"),
    (Fault::ForkClose, Over::Level, "a_forked_child_keeps_the_files_that_it_has_opened"),
    (Fault::ForkClose, Over::Explicit, "a_forked_child_keeps_the_files_that_it_has_opened"),
    (Fault::SpinOnStale, Over::Level, "a_number_that_is_given_up_falls_silent"),
    (Fault::DeadPollable, Over::Level, "pollable_is_readable_with_a_report"),
];

/// A sound hub with one [`Fault`].
///
/// ```
/// use hub_core::hub::{Interest, Lease, Readiness};
/// use hub_testkit::fixture::{Driver, WHILE, pair, send};
/// use hub_testkit::saboteurs::{Fault, Saboteur};
///
/// let make = || Saboteur::new(Box::new(hub_epoll::EpollHub::new()?), Fault::LoseRead);
/// let mut driver = Driver::new(&make);
/// let (one, other) = pair();
/// let key = driver.add(&one, Interest::READ, Lease::Life);
/// send(&other, b"x");
/// assert_eq!(driver.hear(key, WHILE), Readiness::NONE);
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
        let reports = self.reported.iter().filter(|(whose, _)| *whose == key);
        reports.fold(Readiness::NONE, |all, &(_, found)| all | found)
    }

    /// Applies the fault to one report. `None` drops the report.
    fn spoil(&self, watched: &Watched, key: Key, found: Readiness) -> Option<(Key, Readiness)> {
        let before = self.before(key);
        let hangup = found.contains(Readiness::HANGUP);
        let to_writer = hangup && self.asked(key) == Some(Interest::WRITE);
        let found = match self.fault {
            Fault::LoseRead => found & !Readiness::READ,
            Fault::LoseWrite => found & !Readiness::WRITE,
            Fault::HighSilent if key.fd() >= 1024 => Readiness::NONE,
            Fault::LoseSome if self.count.is_multiple_of(50) => Readiness::NONE,
            Fault::PhantomRead => found | Readiness::READ,
            Fault::OneReport if !before.is_empty() => Readiness::NONE,
            Fault::EdgeOnly if before.contains(found) => Readiness::NONE,
            Fault::SilenceOther if !before.is_empty() => found & before,
            Fault::HangupReads if hangup => Readiness::READ | Readiness::END,
            Fault::DeafWriter if to_writer => Readiness::NONE,
            Fault::DeafBesideData if to_writer && has_unread(watched, key) => Readiness::NONE,
            Fault::EndWrites if found.contains(Readiness::END) => found | Readiness::HANGUP,
            Fault::LoseEnd => found & !Readiness::END,
            _ => found,
        };
        let key = match self.fault {
            Fault::KeyForEver => self.first(key).map_or(key, |call| call.0),
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
            (Fault::OnlyNew, Some(_)) => return Ok(()),
            (Fault::IgnoreWiden, Some(known)) => known & interest,
            (Fault::NeverNarrow, Some(known)) => known | interest,
            _ => interest,
        };
        if self.fault == Fault::TraceAfterError && self.refused.contains(&key.fd()) {
            return Ok(());
        }
        if self.fault == Fault::HoldFile {
            self.copies.push(fd.try_clone_to_owned()?);
        }
        let lease = match self.first(key) {
            Some(call) if self.fault == Fault::FirstLease => call.2,
            _ => lease,
        };
        self.calls.push((key, interest, lease));
        self.reported.retain(|(whose, _)| *whose != key);
        match self.inner.watch(key, fd, asked, lease) {
            Err(error) => {
                self.refused.push(key.fd());
                if self.fault == Fault::SwallowErrors { Ok(()) } else { Err(error) }
            }
            other => other,
        }
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        if self.fault != Fault::ForgetNothing {
            self.inner.forget(key, fd);
        }
    }

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let start = Instant::now();
        let mut limit = match (self.fault, timeout) {
            (Fault::Early, Some(timeout)) => Some(timeout / 2),
            (Fault::Truncate, Some(timeout)) => Some(Duration::from_millis(timeout.as_millis() as u64)),
            (Fault::NoneIsZero, None) => Some(Duration::ZERO),
            (_, timeout) => timeout,
        };
        match self.fault {
            Fault::SleepOnZero if timeout == Some(Duration::ZERO) => thread::sleep(Duration::from_millis(2)),
            Fault::Overflow => limit = timeout.map(|timeout| (start + timeout).saturating_duration_since(start)),
            Fault::Allocate => drop(std::hint::black_box(Box::new(0_u64))),
            Fault::NoticeBeforeOnly | Fault::NoticeEach if self.notices.take(self.fault) => return Ok(()),
            Fault::SpinOnHangup if self.reported.iter().any(|(_, found)| found.contains(Readiness::HANGUP)) => {
                limit = Some(Duration::ZERO);
            }
            Fault::SpinOnStale if self.reported.iter().any(|&(key, _)| !watched.is_current(key)) => {
                limit = Some(Duration::ZERO);
            }
            _ => {}
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
            Fault::Late if nothing => thread::sleep(Duration::from_secs(3)),
            Fault::LateReport if !nothing => thread::sleep(Duration::from_secs(3)),
            _ => {}
        }
        let again = std::mem::take(&mut self.reported);
        let mut reports: Vec<_> = found.reports().to_vec();
        let dead = |what: Readiness| what.contains(Readiness::INVALID);
        match self.fault {
            Fault::ReportAgain if nothing => reports.extend(again.iter().copied()),
            Fault::SpinOnHangup => {
                reports.extend(again.iter().copied().filter(|(_, what)| what.contains(Readiness::HANGUP)));
            }
            Fault::SpinOnDead => reports.extend(again.iter().copied().filter(|&(_, what)| dead(what))),
            Fault::LoseNeighbours if reports.iter().chain(&again).any(|&(_, what)| dead(what)) => {
                reports.retain(|&(_, what)| dead(what));
            }
            Fault::LowestOnly => {
                reports.sort_by_key(|(key, _)| key.fd());
                reports.truncate(1);
            }
            _ => {}
        }
        self.reported = again;
        for (key, what) in reports {
            self.count += 1;
            if let Some((key, what)) = self.spoil(watched, key, what) {
                self.reported.push((key, what));
                ready.push(key, what);
            }
        }
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        match self.fault {
            Fault::ForkKeep => return Ok(()),
            Fault::ForkClose => self.copies.clear(),
            _ => {}
        }
        self.inner.after_fork()
    }

    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        match self.fault {
            Fault::DeafNotifier | Fault::NoticeBeforeOnly | Fault::NoticeEach => Some(self.notices.clone()),
            _ => self.inner.notifier(),
        }
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        if self.fault == Fault::DeadPollable { Some(self.spare.as_fd()) } else { self.inner.pollable() }
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
        let left = if fault == Fault::NoticeEach { count.saturating_sub(1) } else { 0 };
        self.0.store(left, Ordering::Release);
        count > 0
    }
}

impl Notify for Notices {
    fn notify(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}
