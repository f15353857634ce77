//! The oracle: each operation of std runs on an OS thread of a child process, whose exit ends blocked threads.

use std::collections::HashMap;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use super::case::{Case, Kind, Mode};
use super::sockets::{Results, os};
use crate::support;

const CASES: &str = "GREENHUB_CASES";
const BLOCKED_AFTER: &str = "GREENHUB_BLOCKED_AFTER";
/// The first word of each answer.
const ANSWER: &str = "answer ";

/// The number of scenes that exist at once. Limited because each needs a few descriptors.
const AT_ONCE: usize = 100;

/// The time for operations to finish or to block.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An OS thread that performs one operation.
struct Performer {
    case: Case,
    results: Results,
    thread: Arc<AtomicI32>,
    finished: Arc<AtomicBool>,
}

impl Performer {
    fn start(case: Case, results: Results, operation: impl FnOnce() + Send + 'static) -> Performer {
        let performer = Performer { case, results, thread: Arc::default(), finished: Arc::default() };
        let (thread, finished) = (Arc::clone(&performer.thread), Arc::clone(&performer.finished));
        let builder = std::thread::Builder::new().stack_size(256 << 10);
        builder
            .spawn(move || {
                thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
                operation();
                finished.store(true, Ordering::Release);
            })
            .unwrap();
        performer
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Returns whether the system reports the thread as sleeping, in an operation without a timeout.
    fn is_blocked(&self) -> bool {
        let thread = self.thread.load(Ordering::Acquire);
        if thread == 0 || self.case.mode != Mode::Blocking {
            return false;
        }
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
    }
}

/// Calls std, and maps a panic to `InvalidInput`.
///
/// After a shutdown, `recvfrom(2)` returns without an address. std then reads an unwritten address family: for two
/// values it panics, for all others it returns `InvalidInput`.
fn call_std(call: &dyn Fn() -> io::Result<usize>) -> io::Result<usize> {
    panic::catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(io::ErrorKind::InvalidInput.into()))
}

/// Waits until every operation has finished or blocks. Waits for at least `at_least` if an operation blocks.
fn settle(performers: &[Performer], at_least: Duration) {
    let begun = Instant::now();
    let mut quiet = 0;
    while quiet < 2 {
        let unfinished: Vec<_> = performers.iter().filter(|performer| !performer.is_finished()).collect();
        if unfinished.is_empty() {
            return;
        }
        let is_quiet = begun.elapsed() >= at_least && unfinished.iter().all(|performer| performer.is_blocked());
        quiet = if is_quiet { quiet + 1 } else { 0 };
        let names = || unfinished.iter().map(|performer| performer.case.name()).collect::<Vec<_>>().join(", ");
        assert!(begun.elapsed() < TIMEOUT, "std neither ends nor blocks in {}", names());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Performs the requested cases in the child, prints their results, and ends the process.
pub(crate) fn answer(kind: Kind) {
    let asked = std::env::var(CASES).unwrap();
    let at_least = Duration::from_millis(std::env::var(BLOCKED_AFTER).unwrap().parse().unwrap());
    let cases: Vec<Case> =
        Case::all(kind).into_iter().filter(|case| asked.lines().any(|name| name == case.name())).collect();
    for cases in cases.chunks(AT_ONCE) {
        let mut scenes: Vec<_> = cases.iter().map(|&case| os::scene(case)).collect();
        let start = |scene: &super::sockets::Scene| {
            let results = Results::default();
            Performer::start(scene.case, results.clone(), scene.operation(results, call_std))
        };
        let mut performers: Vec<_> = scenes.iter().filter(|scene| scene.case.begun).map(start).collect();
        settle(&performers, Duration::ZERO);
        scenes.iter_mut().for_each(|scene| scene.end());
        performers.extend(scenes.iter().filter(|scene| !scene.case.begun).map(start));
        settle(&performers, at_least);
        for performer in &performers {
            println!("{ANSWER}{}={}", performer.case.name(), performer.results.words(!performer.is_finished()));
        }
    }
    std::process::exit(0);
}

/// Performs the cases in a child process. `test` is the test that calls [`answer`] there.
pub(crate) fn ask(test: &str, cases: &[Case], blocked_after: Duration) -> HashMap<String, String> {
    let names: Vec<String> = cases.iter().map(Case::name).collect();
    let output = support::rerun(test, |command| {
        command.env(CASES, names.join("\n")).env(BLOCKED_AFTER, blocked_after.as_millis().to_string());
    });
    let text = String::from_utf8_lossy(&output.stdout);
    let answers = text.lines().filter_map(|line| line.split_once(ANSWER)?.1.split_once('='));
    let answers: HashMap<_, _> = answers.map(|(name, words)| (name.to_owned(), words.to_owned())).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(answers.len(), cases.len(), "the oracle is incomplete: {}\n{text}\n{errors}", output.status);
    answers
}
