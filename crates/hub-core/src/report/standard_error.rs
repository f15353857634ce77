//! The default report stream: standard error.
//!
//! Each report is written by one call, so reports of up to 4096 bytes of several OS threads and processes do not mix in
//! a pipe. Repeated reports of one kind are counted. The count is written after a second, with a later report, or when
//! the process exits.
//!
//! Rust's own lock of standard error is not taken: the code around a call of `exit` may hold it, and so may an OS
//! thread that a fork has left behind.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio::stderr;

use super::Report;
use crate::base::at_exit::at_exit;
use crate::base::dormant::while_idle;
use crate::base::fork::PerProcess;
use crate::base::os_thread::start_thread;

/// The length of a counting window.
const WINDOW: Duration = Duration::from_secs(1);

/// The number of kinds whose repetitions are counted at the same time.
const MAX_KINDS: usize = 64;

/// One table per process: in a forked child, an OS thread of the parent may still hold the parent's lock.
static REPETITIONS: PerProcess<Mutex<Repetitions>> = PerProcess::new();

/// Writes a report, or counts it.
pub(super) fn write(report: &Report) {
    // Format the report without the lock: the formatter is user code and may report as well.
    let text = report.to_string();
    let kind = report.kind(&text);
    let (Some(kind), Some(mut repetitions)) = (kind, lock()) else { return write_line(&text) };
    let lines = repetitions.record(hash(&kind), text, Instant::now());
    let starts_writer = repetitions.has_counts() && !std::mem::replace(&mut repetitions.has_writer, true);
    let registers_exit = starts_writer && !std::mem::replace(&mut repetitions.writes_at_exit, true);
    drop(repetitions);
    write_lines(&lines);
    if registers_exit {
        // Without memory for it, a count may be lost at the exit.
        let _ = at_exit(write_counts_at_exit);
    }
    if starts_writer && start_thread("greenhub-report".to_owned(), write_counts_later).is_err() {
        // A later report writes the counts instead.
        if let Some(mut repetitions) = lock() {
            repetitions.has_writer = false;
        }
    }
}

/// Writes the counts so far: from now on another stream gets the reports.
pub(super) fn end() {
    if let Some(repetitions) = REPETITIONS.get() {
        let lines = lock_ignoring_poison(repetitions).take_counts(|_| true);
        write_lines(&lines);
    }
}

extern "C" fn write_counts_at_exit() {
    // The lock is held for moments only, and never by this OS thread. A full pipe would block.
    if let Some(Ok(mut repetitions)) = REPETITIONS.get().map(Mutex::try_lock)
        && super::is_enabled()
    {
        for line in repetitions.take_counts(|_| true) {
            let no_wait = Timespec::default();
            if poll(&mut [PollFd::new(&stderr(), PollFlags::OUT)], Some(&no_wait)) == Ok(1) {
                write_line(&line);
            }
        }
    }
}

/// The body of the OS thread that writes the remaining counts. It ends when none are left.
fn write_counts_later() {
    loop {
        #[expect(clippy::disallowed_methods, reason = "this OS thread has no green threads")]
        while_idle(|| thread::sleep(WINDOW));
        let Some(mut repetitions) = lock() else { return };
        let lines = repetitions.take_counts(|_| true);
        repetitions.has_writer = !lines.is_empty();
        drop(repetitions);
        if lines.is_empty() {
            return;
        }
        if super::is_enabled() {
            write_lines(&lines);
        }
    }
}

fn lock() -> Option<MutexGuard<'static, Repetitions>> {
    REPETITIONS.get_or_make(Mutex::default).ok().map(lock_ignoring_poison)
}

fn lock_ignoring_poison(repetitions: &Mutex<Repetitions>) -> MutexGuard<'_, Repetitions> {
    repetitions.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_lines(lines: &[String]) {
    lines.iter().for_each(|line| write_line(line));
}

/// Writes a line by one call, unless the system takes only a part of it. Ignores errors, so that a closed standard
/// error does not end the program.
fn write_line(text: &str) {
    let line = format!("greenhub: {text}\n");
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(stderr(), rest) {
            Ok(written) if written > 0 => rest = &rest[written.min(rest.len())..],
            Err(Errno::INTR) => {}
            _ => return,
        }
    }
}

fn hash(kind: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    hasher.finish()
}

/// The most recent kinds of reports.
#[derive(Default)]
struct Repetitions {
    kinds: Vec<Repetition>,
    /// Whether an OS thread that writes the counts runs.
    has_writer: bool,
    writes_at_exit: bool,
}

/// The reports of one kind since the last one that was written.
struct Repetition {
    /// The hash of the kind: an error's text may be long.
    kind: u64,
    written: Instant,
    count: u64,
    /// The text of the last report that was counted.
    text: String,
}

impl Repetitions {
    /// Records a report, and returns the texts to write now.
    fn record(&mut self, kind: u64, text: String, now: Instant) -> Vec<String> {
        let is_over = |repetition: &Repetition| now.saturating_duration_since(repetition.written) >= WINDOW;
        let mut lines = self.take_counts(is_over);
        self.kinds.retain(|repetition| !is_over(repetition));
        if let Some(repetition) = self.kinds.iter_mut().find(|repetition| repetition.kind == kind) {
            repetition.count += 1;
            repetition.text = text;
            return lines;
        }
        if self.kinds.len() == MAX_KINDS {
            lines.extend(self.remove_oldest().and_then(|mut oldest| oldest.take_count()));
        }
        self.kinds.push(Repetition { kind, written: now, count: 0, text: String::new() });
        lines.push(text);
        lines
    }

    fn remove_oldest(&mut self) -> Option<Repetition> {
        let (index, _) = self.kinds.iter().enumerate().min_by_key(|(_, repetition)| repetition.written)?;
        Some(self.kinds.swap_remove(index))
    }

    fn has_counts(&self) -> bool {
        self.kinds.iter().any(|repetition| repetition.count != 0)
    }

    /// Returns the texts of the counts of the kinds for which `is_due` returns true.
    fn take_counts(&mut self, is_due: impl Fn(&Repetition) -> bool) -> Vec<String> {
        self.kinds.iter_mut().filter(|kind| is_due(kind)).filter_map(Repetition::take_count).collect()
    }
}

impl Repetition {
    /// Returns the text of the reports that were counted, if there are any.
    fn take_count(&mut self) -> Option<String> {
        let text = std::mem::take(&mut self.text);
        match std::mem::take(&mut self.count) {
            0 => None,
            1 => Some(text),
            count => Some(format!("{count} more like this: {text}")),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn record(repetitions: &mut Repetitions, kind: u64, text: &str, now: Instant) -> Vec<String> {
        repetitions.record(kind, text.to_owned(), now)
    }

    #[test]
    fn repeated_reports_are_counted_and_the_count_has_the_last_text() {
        let (mut repetitions, now) = (Repetitions::default(), Instant::now());
        assert_eq!(record(&mut repetitions, 1, "first", now), ["first"]);
        assert!(record(&mut repetitions, 1, "second", now).is_empty());
        assert!(record(&mut repetitions, 1, "third", now).is_empty());
        assert_eq!(repetitions.take_counts(|_| true), ["2 more like this: third"]);
        assert!(repetitions.take_counts(|_| true).is_empty());
    }

    #[test]
    fn a_single_repetition_is_written_as_it_is() {
        let (mut repetitions, now) = (Repetitions::default(), Instant::now());
        record(&mut repetitions, 1, "first", now);
        record(&mut repetitions, 1, "second", now);
        assert_eq!(repetitions.take_counts(|_| true), ["second"]);
    }

    #[test]
    fn a_report_after_the_window_is_written_behind_the_count() {
        let (mut repetitions, now) = (Repetitions::default(), Instant::now());
        for text in ["first", "second", "third"] {
            record(&mut repetitions, 1, text, now);
        }
        assert_eq!(record(&mut repetitions, 1, "late", now + WINDOW), ["2 more like this: third", "late"]);
    }

    #[test]
    fn reports_of_another_kind_are_written_at_once() {
        let (mut repetitions, now) = (Repetitions::default(), Instant::now());
        assert_eq!(record(&mut repetitions, 1, "first", now), ["first"]);
        assert_eq!(record(&mut repetitions, 2, "second", now), ["second"]);
        assert!(!repetitions.has_counts());
    }

    #[test]
    fn a_kind_is_forgotten_after_the_window() {
        let (mut repetitions, now) = (Repetitions::default(), Instant::now());
        record(&mut repetitions, 1, "first", now);
        record(&mut repetitions, 2, "second", now + WINDOW);
        assert_eq!(repetitions.kinds.len(), 1);
    }

    #[test]
    fn a_kind_that_makes_room_for_another_one_loses_no_count() {
        let (mut repetitions, now) = (Repetitions::default(), Instant::now());
        for _ in 0..3 {
            record(&mut repetitions, 0, "text", now);
        }
        for number in 1..MAX_KINDS as u64 {
            record(&mut repetitions, number, "text", now + Duration::from_millis(1));
        }
        let written = record(&mut repetitions, 1000, "new", now + Duration::from_millis(2));
        assert_eq!(written, ["2 more like this: text", "new"]);
        assert_eq!(repetitions.kinds.len(), MAX_KINDS);
    }
}
