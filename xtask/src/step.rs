//! One command as a step: its output cut down to what tells something, its tests counted, its time taken.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// After this a step counts as hung, and is ended.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Results of tests.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

#[derive(PartialEq, Eq, Debug)]
enum Verdict {
    Well,
    Failed(String),
    Skipped(String),
}

struct Step {
    name: String,
    verdict: Verdict,
    counts: Counts,
    time: Duration,
}

/// What the steps so far came to.
#[derive(Default)]
pub struct Report {
    steps: Vec<Step>,
    /// Steps whose names do not contain this are left out.
    only: Option<String>,
}

impl Report {
    /// Leaves out the steps whose names do not contain `only`.
    pub fn of_steps_named(only: Option<String>) -> Report {
        Report { steps: Vec::new(), only }
    }

    /// Whether a step of this name is run.
    pub fn asks_for(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }

    /// Runs a command that does not count.
    pub fn run(&mut self, name: impl Into<String>, command: Command) {
        self.add(name.into(), command, false);
    }

    /// Runs a command of which cargo counts the tests.
    pub fn run_tests(&mut self, name: impl Into<String>, command: Command) {
        self.add(name.into(), command, true);
    }

    /// Runs a command as one test: `judge` says what is wrong with what it put out, if anything is. Kills it after `limit`.
    pub fn run_judged(
        &mut self,
        name: impl Into<String>,
        mut command: Command,
        limit: Duration,
        judge: impl FnOnce(&Output) -> Option<String>,
    ) {
        let name = name.into();
        if !self.asks_for(&name) {
            return;
        }
        println!("  ..   {name}");
        let start = Instant::now();
        let verdict = match collect(&mut command, limit) {
            Ok(output) => judge(&output).map_or(Verdict::Well, |wrong| {
                print!("{}", String::from_utf8_lossy(&output.stderr));
                Verdict::Failed(wrong)
            }),
            Err(error) => Verdict::Failed(error.to_string()),
        };
        let passed = u64::from(verdict == Verdict::Well);
        self.push(Step { name, verdict, counts: Counts { passed, ..Counts::default() }, time: start.elapsed() });
    }

    /// Names what cannot be run here, and why.
    pub fn skip(&mut self, name: impl Into<String>, why: impl Into<String>) {
        let name = name.into();
        if !self.asks_for(&name) {
            return;
        }
        let counts = Counts { skipped: 1, ..Counts::default() };
        self.push(Step { name, verdict: Verdict::Skipped(why.into()), counts, time: Duration::ZERO });
    }

    /// Records a check that was made here: each line is a fault.
    pub fn check(&mut self, name: impl Into<String>, faults: &[String], since: Instant) {
        let name = name.into();
        if !self.asks_for(&name) {
            return;
        }
        for fault in faults {
            println!("{fault}");
        }
        let verdict = match faults.len() {
            0 => Verdict::Well,
            1 => Verdict::Failed("one fault".to_owned()),
            many => Verdict::Failed(format!("{many} faults")),
        };
        self.push(Step { name, verdict, counts: Counts::default(), time: since.elapsed() });
    }

    /// Whether something was run and nothing failed.
    pub fn is_well(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| !matches!(step.verdict, Verdict::Failed(_)))
    }

    /// One line for each step.
    pub fn print_summary(&self) {
        println!("\nsummary");
        if let (true, Some(only)) = (self.steps.is_empty(), &self.only) {
            println!("no step has `{only}` in its name");
        }
        for step in &self.steps {
            println!("{}", step.line());
        }
    }

    /// The last line of a test run.
    pub fn print_counts(&self) {
        println!("{}", self.counts_line());
    }

    fn counts_line(&self) -> String {
        let sum = |of: fn(&Counts) -> u64| self.steps.iter().map(|step| of(&step.counts)).sum::<u64>();
        format!("{} passed, {} failed, {} skipped", sum(|it| it.passed), sum(|it| it.failed), sum(|it| it.skipped))
    }

    fn add(&mut self, name: String, mut command: Command, counting: bool) {
        if !self.asks_for(&name) {
            return;
        }
        println!("  ..   {name}");
        let start = Instant::now();
        let (mut verdict, mut counts) = match watch(&mut command, LIMIT) {
            Ok((status, counts)) => (verdict_of(status), counts),
            Err(error) => (Verdict::Failed(error.to_string()), Counts::default()),
        };
        if !counting {
            counts = Counts::default();
        } else if verdict == Verdict::Well && counts.passed == 0 {
            // A run that found no test has proven nothing.
            verdict = Verdict::Failed("no test was run".to_owned());
        }
        self.push(Step { name, verdict, counts, time: start.elapsed() });
    }

    fn push(&mut self, mut step: Step) {
        // A test binary that dies takes its counts with it, and what is no test has none.
        if matches!(step.verdict, Verdict::Failed(_)) {
            step.counts.failed = step.counts.failed.max(1);
        }
        println!("{}", step.line());
        self.steps.push(step);
    }
}

impl Step {
    fn line(&self) -> String {
        let (mark, why) = match &self.verdict {
            Verdict::Well => ("ok", ""),
            Verdict::Failed(why) => ("FAILED", why.as_str()),
            Verdict::Skipped(why) => ("skip", why.as_str()),
        };
        let Counts { passed, failed, skipped } = self.counts;
        let is_test = passed + failed > 1 || passed == 1;
        let counts =
            if is_test { format!("{passed} passed, {failed} failed, {skipped} skipped") } else { String::new() };
        let line = format!("{mark:<6} {:<44} {:>7.1} s  {counts}", self.name, self.time.as_secs_f64());
        format!("{}{}{why}", line.trim_end(), if why.is_empty() { "" } else { "  " })
    }
}

fn verdict_of(status: ExitStatus) -> Verdict {
    if status.success() { Verdict::Well } else { Verdict::Failed(status.to_string()) }
}

/// Runs `command`, shows what its output tells and counts its tests; kills it after `limit`.
fn watch(command: &mut Command, limit: Duration) -> io::Result<(ExitStatus, Counts)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let counts = Mutex::new(Counts::default());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let over = AtomicBool::new(false);
    let pid = child.id();
    let status = thread::scope(|scope| {
        scope.spawn(|| end_when_hung(pid, limit, &over));
        let errors = scope.spawn(|| stderr.map(|pipe| show(pipe, &counts)));
        if let Some(pipe) = stdout {
            show(pipe, &counts);
        }
        // Whoever still holds a pipe may hang: only then is the thread that kills told to stop.
        let _ = errors.join();
        let status = child.wait();
        over.store(true, Ordering::Relaxed);
        status
    })?;
    let counts = *counts.lock().unwrap_or_else(|poison| poison.into_inner());
    Ok((status, counts))
}

/// Runs `command` and keeps what it puts out. Killing it after `limit` is an error.
fn collect(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let over = AtomicBool::new(false);
    let pid = child.id();
    let (output, killed) = thread::scope(|scope| {
        let killing = scope.spawn(|| end_when_hung(pid, limit, &over));
        let output = child.wait_with_output();
        over.store(true, Ordering::Relaxed);
        (output, killing.join().unwrap_or_default())
    });
    if killed {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end after {} s", limit.as_secs())));
    }
    output
}

fn show(pipe: impl Read, counts: &Mutex<Counts>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    // Tests may print any bytes, so lines are bytes first.
    while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if let Some(found) = test_result(text) {
            let mut counts = counts.lock().unwrap_or_else(|poison| poison.into_inner());
            counts.passed += found.passed;
            counts.failed += found.failed;
            counts.skipped += found.skipped;
        }
        if tells_something(text) {
            println!("{text}");
        }
        line.clear();
    }
}

/// Reads a line such as `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
fn test_result(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split("; ") {
        match part.split_once(' ') {
            Some((number, "passed")) => counts.passed = number.parse().ok()?,
            Some((number, "failed")) => counts.failed = number.parse().ok()?,
            Some((number, "ignored")) => counts.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

/// Whether somebody who waits for the end wants to see this line of cargo's or of a test's.
fn tells_something(line: &str) -> bool {
    const PROGRESS: &[&str] = &[
        "Adding",
        "Blocking",
        "Building",
        "Checking",
        "Compiling",
        "Doc-tests",
        "Documenting",
        "Downloaded",
        "Downloading",
        "Finished",
        "Fresh",
        "Generated",
        "Locking",
        "Running",
        "Updating",
    ];
    let text = line.trim_start();
    if text.is_empty() || PROGRESS.iter().any(|word| line.starts_with(' ') && text.starts_with(word)) {
        return false;
    }
    let of_one_test =
        text.starts_with("test ") && (text.ends_with("... ok") || text.ends_with("- compile fail ... ok"));
    let of_a_good_run =
        text.starts_with("test result: ok.") || (text.starts_with("running ") && text.contains(" test"));
    !of_one_test && !of_a_good_run
}

/// Kills `pid` and all that it started when `limit` is over before `over` is set; whether it came to that.
fn end_when_hung(pid: u32, limit: Duration, over: &AtomicBool) -> bool {
    let start = Instant::now();
    while !over.load(Ordering::Relaxed) {
        if start.elapsed() > limit {
            println!("no end after {} s: killed", limit.as_secs());
            let mut victims = vec![pid];
            let mut next = 0;
            while next < victims.len() {
                victims.extend(children(victims[next]));
                next += 1;
            }
            let _ = Command::new("kill").arg("-KILL").args(victims.iter().map(u32::to_string)).status();
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        parent_in_stat(&stat) == Some(parent)
    })
    .collect()
}

/// The parent in a line of `/proc/<pid>/stat`; the name before it may hold anything, so it is cut at its last bracket.
fn parent_in_stat(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_cargo_are_counted() {
        let line = "test result: FAILED. 12 passed; 2 failed; 3 ignored; 0 measured; 4 filtered out; finished in 0.10s";
        assert_eq!(test_result(line), Some(Counts { passed: 12, failed: 2, skipped: 3 }));
        assert_eq!(test_result("test result_is_kept ... ok"), None);
    }

    #[test]
    fn good_news_and_progress_are_not_shown() {
        for line in [
            "",
            "   Compiling libc v0.2.180",
            "test a::b ... ok",
            "running 12 tests",
            "test result: ok. 1 passed; 0 failed",
        ] {
            assert!(!tells_something(line), "{line}");
        }
        for line in [
            "error[E0308]: mismatched types",
            "test a ... FAILED",
            "test a ... ignored, wants root",
            "running out of room",
        ] {
            assert!(tells_something(line), "{line}");
        }
    }

    #[test]
    fn a_command_is_counted_and_its_failure_noticed() {
        let mut report = Report::default();
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured'; exit 4"]);
        report.run_tests("dies afterwards", command);
        assert_eq!(report.counts_line(), "3 passed, 1 failed, 1 skipped");
        assert!(!report.is_well());
    }

    #[test]
    fn a_test_run_without_tests_is_a_failure() {
        let mut report = Report::default();
        report.run_tests("nothing", Command::new("true"));
        assert!(!report.is_well());
    }

    #[test]
    fn a_skipped_step_counts_as_skipped_and_is_well() {
        let mut report = Report::default();
        report.skip("other targets", "no toolchain");
        assert_eq!(report.counts_line(), "0 passed, 0 failed, 1 skipped");
        assert!(report.is_well());
    }

    #[test]
    fn steps_of_other_names_are_left_out() {
        let mut report = Report::of_steps_named(Some("loom".to_owned()));
        report.run("clippy", Command::new("false"));
        report.run_judged("costs", Command::new("false"), LIMIT, |_| Some("too many".to_owned()));
        report.check("tidy", &["a fault".to_owned()], Instant::now());
        report.skip("leaks", "no valgrind");
        assert!(report.steps.is_empty());
        assert!(!report.is_well());
        report.run("loom, the parker", Command::new("true"));
        assert!(report.is_well());
    }

    #[test]
    fn what_hangs_is_killed_with_all_that_it_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & sleep 600; true"]);
        let start = Instant::now();
        let (status, _) = watch(&mut command, Duration::from_millis(200)).unwrap();
        assert!(!status.success());
        assert!(start.elapsed() < Duration::from_secs(300));
    }

    #[test]
    fn what_is_judged_is_one_test_and_a_hang_fails_it() {
        let mut report = Report::default();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        report.run_judged("well", command, LIMIT, |output| {
            let all = (output.status.code(), &*output.stdout, &*output.stderr);
            (all != (Some(3), b"out\n".as_slice(), b"err\n".as_slice())).then(|| format!("{output:?}"))
        });
        assert_eq!(report.counts_line(), "1 passed, 0 failed, 0 skipped");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & sleep 600; true"]);
        report.run_judged("hangs", command, Duration::from_millis(200), |_| None);
        assert_eq!(report.counts_line(), "1 passed, 1 failed, 0 skipped");
        assert_eq!(report.steps[1].verdict, Verdict::Failed("no end after 0 s".to_owned()));
    }

    #[test]
    fn the_parent_is_found_behind_a_strange_name() {
        assert_eq!(parent_in_stat("12 (a) b) S 7 12 12 0"), Some(7));
    }
}
