//! Steps of a run: commands and checks with their verdicts, their tests and their times.

use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::process::{End, Pipe, collect, watch};
use crate::tally::{Part, Tally};

/// A command that takes longer counts as hung.
const LIMIT: Duration = Duration::from_secs(20 * 60);

#[derive(PartialEq, Eq, Debug)]
enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

struct Step {
    name: String,
    verdict: Verdict,
    tally: Tally,
    time: Duration,
}

/// The steps so far.
#[derive(Default)]
pub struct Report {
    steps: Vec<Step>,
    /// Steps whose names do not contain this are left out.
    only: Option<String>,
}

impl Report {
    /// Returns a report that leaves out the steps whose names do not contain `only`.
    pub fn of_steps_named(only: Option<String>) -> Report {
        Report { steps: Vec::new(), only }
    }

    /// Returns whether the report takes a step of this name.
    pub fn asks_for(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }

    /// Runs a command that is no test.
    pub fn run(&mut self, name: impl Into<String>, command: Command) {
        self.add(name.into(), vec![command], false);
    }

    /// Runs a command that prints the results of tests.
    pub fn run_tests(&mut self, name: impl Into<String>, command: Command) {
        self.add(name.into(), vec![command], true);
    }

    /// Runs several commands that print the results of tests, all of them even if one fails.
    pub fn run_all_tests(&mut self, name: impl Into<String>, commands: Vec<Command>) {
        self.add(name.into(), commands, true);
    }

    /// Runs a command as one test: `judge` returns what is wrong with its output. Kills it after `limit`.
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
            Ok(output) => judge(&output).map_or(Verdict::Passed, |wrong| {
                print!("{}", String::from_utf8_lossy(&output.stderr));
                Verdict::Failed(wrong)
            }),
            Err(error) => Verdict::Failed(error.to_string()),
        };
        let passed = u64::from(verdict == Verdict::Passed);
        self.push(Step { name, verdict, tally: Tally { passed, ..Tally::default() }, time: start.elapsed() });
    }

    /// Adds a step that cannot run here.
    pub fn skip(&mut self, name: impl Into<String>, why: impl Into<String>) {
        let name = name.into();
        if self.asks_for(&name) {
            let tally = Tally { skipped: 1, ..Tally::default() };
            self.push(Step { name, verdict: Verdict::Skipped(why.into()), tally, time: Duration::ZERO });
        }
    }

    /// Adds a check that began at `since` and found these faults.
    pub fn check(&mut self, name: impl Into<String>, faults: &[String], since: Instant) {
        let name = name.into();
        if !self.asks_for(&name) {
            return;
        }
        for fault in faults {
            println!("{fault}");
        }
        let verdict = match faults.len() {
            0 => Verdict::Passed,
            1 => Verdict::Failed("one fault".to_owned()),
            many => Verdict::Failed(format!("{many} faults")),
        };
        self.push(Step { name, verdict, tally: Tally::default(), time: since.elapsed() });
    }

    /// Returns whether a step ran and none failed.
    pub fn is_well(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| !matches!(step.verdict, Verdict::Failed(_)))
    }

    /// Prints a line for each step, and one for each test that failed.
    pub fn print_summary(&self) {
        println!("\nsummary");
        if let (true, Some(only)) = (self.steps.is_empty(), &self.only) {
            println!("no step has `{only}` in its name");
        }
        for step in &self.steps {
            println!("{}", step.line());
            for test in &step.tally.failures {
                println!("         {test}");
            }
        }
    }

    /// Prints the last line of a test run.
    pub fn print_counts(&self) {
        println!("{}", self.counts());
    }

    fn counts(&self) -> String {
        let sum = |of: fn(&Tally) -> u64| self.steps.iter().map(|step| of(&step.tally)).sum::<u64>();
        format!("{} passed, {} failed, {} skipped", sum(|it| it.passed), sum(|it| it.failed), sum(|it| it.skipped))
    }

    fn add(&mut self, name: String, commands: Vec<Command>, counting: bool) {
        if !self.asks_for(&name) {
            return;
        }
        println!("  ..   {name}");
        let start = Instant::now();
        let mut tally = Tally::default();
        let mut faults = Vec::new();
        for mut command in commands {
            faults.extend(fault_of(&mut command, LIMIT, &mut tally));
        }
        if !counting {
            tally = Tally::default();
        } else if faults.is_empty() && tally.passed == 0 {
            // A run without tests proves nothing.
            faults.push("no test was run".to_owned());
        }
        let verdict = if faults.is_empty() { Verdict::Passed } else { Verdict::Failed(faults.join(", ")) };
        self.push(Step { name, verdict, tally, time: start.elapsed() });
    }

    fn push(&mut self, mut step: Step) {
        // A step that is no test, or that was killed, has no counts.
        if matches!(step.verdict, Verdict::Failed(_)) {
            step.tally.failed = step.tally.failed.max(1);
        }
        println!("{}", step.line());
        self.steps.push(step);
    }
}

impl Step {
    fn line(&self) -> String {
        let (mark, why) = match &self.verdict {
            Verdict::Passed => ("ok", ""),
            Verdict::Failed(why) => ("FAILED", why.as_str()),
            Verdict::Skipped(why) => ("skip", why.as_str()),
        };
        let Tally { passed, failed, skipped, .. } = self.tally;
        let is_test = passed + failed > 1 || passed == 1;
        let counts =
            if is_test { format!("{passed} passed, {failed} failed, {skipped} skipped") } else { String::new() };
        let line = format!("{mark:<6} {:<44} {:>7.1} s  {counts}", self.name, self.time.as_secs_f64());
        format!("{}{}{why}", line.trim_end(), if why.is_empty() { "" } else { "  " })
    }
}

/// Runs `command`, shows the lines that matter and adds its tests to `tally`. Returns what went wrong.
fn fault_of(command: &mut Command, limit: Duration, tally: &mut Tally) -> Option<String> {
    let shared = Mutex::new((&mut *tally, Part::default(), Part::default()));
    let end = watch(command, limit, |pipe, line| {
        let mut shared = shared.lock().unwrap_or_else(|poison| poison.into_inner());
        let (tally, stdout, stderr) = &mut *shared;
        if tally.read(if pipe == Pipe::Stdout { stdout } else { stderr }, line) {
            println!("{line}");
        }
    });
    match end {
        Ok(End::Exited(status)) => (!status.success()).then(|| status.to_string()),
        Ok(End::Killed) => {
            // libtest does not say more of a test that hangs.
            let slow = std::mem::take(&mut tally.slow);
            tally.failed += slow.len() as u64;
            tally.failures.extend(slow);
            Some(format!("no end after {} s", limit.as_secs()))
        }
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn tests_of_several_commands_are_added_up_and_a_failure_is_noticed() {
        let mut report = Report::default();
        let failing = shell("echo 'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured'; exit 4");
        let passing = shell("echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured'");
        report.run_all_tests("dies afterwards", vec![failing, passing]);
        assert_eq!(report.counts(), "5 passed, 1 failed, 1 skipped");
        assert_eq!(report.steps[0].verdict, Verdict::Failed("exit status: 4".to_owned()));
        assert!(!report.is_well());
    }

    #[test]
    fn a_hanging_test_is_a_failure_by_its_name() {
        let mut tally = Tally::default();
        let mut command = shell("echo 'test a::b has been running for over 60 seconds'; exec sleep 600");
        let fault = fault_of(&mut command, Duration::from_millis(500), &mut tally);
        assert_eq!(fault.as_deref(), Some("no end after 0 s"));
        assert_eq!((tally.failed, &*tally.failures), (1, &["a::b".to_owned()][..]));
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
        assert_eq!(report.counts(), "0 passed, 0 failed, 1 skipped");
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
    fn a_judged_command_is_one_test_and_a_hang_fails_it() {
        let mut report = Report::default();
        report.run_judged("well", shell("echo out; echo err >&2; exit 3"), LIMIT, |output| {
            let all = (output.status.code(), &*output.stdout, &*output.stderr);
            (all != (Some(3), b"out\n".as_slice(), b"err\n".as_slice())).then(|| format!("{output:?}"))
        });
        assert_eq!(report.counts(), "1 passed, 0 failed, 0 skipped");
        report.run_judged("hangs", shell("sleep 600 & sleep 600; true"), Duration::from_millis(200), |_| None);
        assert_eq!(report.counts(), "1 passed, 1 failed, 0 skipped");
        assert_eq!(report.steps[1].verdict, Verdict::Failed("no end after 0 s".to_owned()));
    }
}
