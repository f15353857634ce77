//! The default report stream: standard error.
//!
//! Each report is written by one call, so reports of several OS threads or processes do not mix. Reports of one kind
//! that follow each other within a second are counted, and the count is written later: when a second has passed, with a
//! later report, or at the end of an OS thread with green threads.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Report;
use crate::base::dormant::while_idle;
use crate::base::fork::PerProcess;
use crate::base::os_thread::start_thread;

/// The time in which reports of one kind are counted.
const PAUSE: Duration = Duration::from_secs(1);

/// The number of kinds whose repetitions are counted at the same time.
const MOST_KINDS: usize = 64;

/// The kinds of this process. In a forked child, another OS thread of the parent may have held the lock.
static KINDS: PerProcess<Mutex<Kinds>> = PerProcess::new();

/// Writes a report, or counts it.
pub(super) fn write(report: &Report) {
    // The values in a report are formatted without the lock: their code is the program's, and may report, too.
    let text = report.to_string();
    let kind = report.kind_of_failure();
    let (Some(kind), Some(mut kinds)) = (kind, lock()) else { return put(&text) };
    let lines = kinds.note(kind, text, Instant::now());
    let starts = kinds.has_counted() && !std::mem::replace(&mut kinds.is_watched, true);
    drop(kinds);
    put_all(&lines);
    if starts && start_thread("greenhub-report".to_owned(), write_counts_later).is_err() {
        // A later report writes the counts instead.
        if let Some(mut kinds) = lock() {
            kinds.is_watched = false;
        }
    }
}

/// Writes the counts so far. Called at the end of an OS thread with green threads.
pub(crate) fn write_counts() {
    if let Some(kinds) = KINDS.get() {
        let lines = unpoisoned(kinds).take_counts(|_| true);
        put_all(&lines);
    }
}

/// The body of the OS thread that writes the counts of reports that nothing follows. It ends when there are none.
fn write_counts_later() {
    loop {
        #[expect(clippy::disallowed_methods, reason = "this OS thread has no green threads")]
        while_idle(|| thread::sleep(PAUSE));
        let Some(mut kinds) = lock() else { return };
        let lines = kinds.take_counts(|_| true);
        kinds.is_watched = !lines.is_empty();
        drop(kinds);
        if lines.is_empty() {
            return;
        }
        put_all(&lines);
    }
}

fn lock() -> Option<MutexGuard<'static, Kinds>> {
    KINDS.get_or_make(Mutex::default).ok().map(unpoisoned)
}

fn unpoisoned(kinds: &Mutex<Kinds>) -> MutexGuard<'_, Kinds> {
    kinds.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put_all(lines: &[String]) {
    lines.iter().for_each(|line| put(line));
}

/// Writes a text by one call. Ignores errors, so that a closed standard error does not end the program.
fn put(text: &str) {
    let _ = std::io::stderr().write_all(format!("greenhub: {text}\n").as_bytes());
}

/// The kinds of reports that came last.
#[derive(Default)]
struct Kinds {
    kinds: Vec<Kind>,
    /// Whether an OS thread will write the counts.
    is_watched: bool,
}

/// The reports of one kind since the last one that was written.
struct Kind {
    kind: String,
    written: Instant,
    count: u64,
    /// The text of the last report.
    text: String,
}

impl Kinds {
    /// Notes a report, and returns the texts to write now.
    fn note(&mut self, kind: String, text: String, now: Instant) -> Vec<String> {
        let mut lines = self.take_counts(|counted| now.saturating_duration_since(counted.written) >= PAUSE);
        match self.kinds.iter_mut().find(|other| other.kind == kind) {
            Some(other) if now.saturating_duration_since(other.written) < PAUSE => {
                other.count += 1;
                other.text = text;
                return lines;
            }
            Some(other) => other.written = now,
            None => {
                if self.kinds.len() == MOST_KINDS {
                    lines.extend(self.remove_oldest().and_then(|mut oldest| oldest.take_count()));
                }
                self.kinds.push(Kind { kind, written: now, count: 0, text: String::new() });
            }
        }
        lines.push(text);
        lines
    }

    fn remove_oldest(&mut self) -> Option<Kind> {
        let (index, _) = self.kinds.iter().enumerate().min_by_key(|(_, kind)| kind.written)?;
        Some(self.kinds.swap_remove(index))
    }

    fn has_counted(&self) -> bool {
        self.kinds.iter().any(|kind| kind.count != 0)
    }

    /// Returns the texts of the counts of the kinds for which `is_due` returns true.
    fn take_counts(&mut self, is_due: impl Fn(&Kind) -> bool) -> Vec<String> {
        self.kinds.iter_mut().filter(|kind| is_due(kind)).filter_map(Kind::take_count).collect()
    }
}

impl Kind {
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

    fn note(kinds: &mut Kinds, kind: &str, text: &str, now: Instant) -> Vec<String> {
        kinds.note(kind.to_owned(), text.to_owned(), now)
    }

    #[test]
    fn repeated_reports_are_counted_and_the_count_has_the_last_text() {
        let (mut kinds, now) = (Kinds::default(), Instant::now());
        assert_eq!(note(&mut kinds, "kind", "first", now), ["first"]);
        assert!(note(&mut kinds, "kind", "second", now).is_empty());
        assert!(note(&mut kinds, "kind", "third", now).is_empty());
        assert_eq!(kinds.take_counts(|_| true), ["2 more like this: third"]);
        assert!(kinds.take_counts(|_| true).is_empty());
    }

    #[test]
    fn a_single_repetition_is_written_as_it_is() {
        let (mut kinds, now) = (Kinds::default(), Instant::now());
        note(&mut kinds, "kind", "first", now);
        note(&mut kinds, "kind", "second", now);
        assert_eq!(kinds.take_counts(|_| true), ["second"]);
    }

    #[test]
    fn a_report_after_the_pause_is_written_behind_the_count() {
        let (mut kinds, now) = (Kinds::default(), Instant::now());
        for text in ["first", "second", "third"] {
            note(&mut kinds, "kind", text, now);
        }
        assert_eq!(note(&mut kinds, "kind", "late", now + PAUSE), ["2 more like this: third", "late"]);
    }

    #[test]
    fn reports_of_another_kind_are_written_at_once() {
        let (mut kinds, now) = (Kinds::default(), Instant::now());
        assert_eq!(note(&mut kinds, "one", "first", now), ["first"]);
        assert_eq!(note(&mut kinds, "other", "second", now), ["second"]);
        assert!(!kinds.has_counted());
    }

    #[test]
    fn a_kind_that_makes_room_for_another_one_loses_no_count() {
        let (mut kinds, now) = (Kinds::default(), Instant::now());
        for _ in 0..3 {
            note(&mut kinds, "oldest", "text", now);
        }
        for number in 1..MOST_KINDS {
            note(&mut kinds, &number.to_string(), "text", now + Duration::from_millis(1));
        }
        let written = note(&mut kinds, "one too many", "new", now + Duration::from_millis(2));
        assert_eq!(written, ["2 more like this: text", "new"]);
        assert_eq!(kinds.kinds.len(), MOST_KINDS);
    }
}
