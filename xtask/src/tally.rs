//! The results of tests, read from what `cargo test` and `cargo nextest` print.

use std::path::Path;

/// The numbers of tests, and the names of those that failed.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
    pub failures: Vec<String>,
    /// The tests that took longer than libtest expects and have not ended.
    pub slow: Vec<String>,
}

/// The part of a report in which a pipe is.
#[derive(Copy, Clone, Default, PartialEq, Eq)]
pub enum Part {
    #[default]
    Tests,
    /// libtest lists the tests that failed.
    Failures,
    /// nextest lists the tests that failed.
    Summary,
}

impl Tally {
    /// Adds what `line` says. `part` belongs to the pipe of the line. Returns whether a reader wants to see the line.
    pub fn read(&mut self, part: &mut Part, line: &str) -> bool {
        if let Some(name) = failed_in_list(*part, line) {
            self.failures.push(name.to_owned());
            return false;
        }
        if *part == Part::Failures {
            *part = Part::Tests;
        }
        if line == "failures:" {
            *part = Part::Failures;
        } else if let Some(numbers) = line.strip_prefix("test result: ") {
            self.add(numbers.split(['.', ';']));
        } else if let Some((_, numbers)) = line.strip_prefix("     Summary [").and_then(|rest| rest.split_once(": ")) {
            self.add(numbers.split([',', '(', ')']));
            *part = Part::Summary;
        } else if let Some(program) = dead_program(line) {
            self.failed += 1;
            self.failures.push(program);
        } else if let Some(name) = overdue(line) {
            self.slow.push(name.to_owned());
        } else if let Some((name, _)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            self.slow.retain(|slow| slow != name);
        }
        is_informative(line)
    }

    /// Adds phrases such as `5 passed`.
    fn add<'a>(&mut self, phrases: impl Iterator<Item = &'a str>) {
        for (number, outcome) in phrases.filter_map(|phrase| phrase.trim().split_once(' ')) {
            let Ok(number) = number.parse::<u64>() else { continue };
            match outcome {
                "passed" => self.passed += number,
                "failed" | "timed out" | "exec failed" => self.failed += number,
                "ignored" | "skipped" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Returns the test in a line of a list of failures.
fn failed_in_list(part: Part, line: &str) -> Option<&str> {
    let entry = line.strip_prefix("    ")?.trim_start();
    match part {
        Part::Tests => None,
        Part::Failures => Some(entry),
        // `FAIL [   0.247s] nxt tests::fails`, with the number of the test before its name on some terminals.
        Part::Summary => {
            let (_, name) = entry.split_once("s] ")?;
            Some(name.strip_prefix('(').and_then(|rest| rest.split_once(") ")).map_or(name, |(_, name)| name))
        }
    }
}

/// Returns the program of a line in which cargo says that it did not end as libtest ends.
fn dead_program(line: &str) -> Option<String> {
    let (command, end) = line.strip_prefix("  process didn't exit successfully: `")?.rsplit_once("` (")?;
    let file = Path::new(command.split(' ').next()?).file_stem()?.to_str()?;
    let program = file.rsplit_once('-').map_or(file, |(program, _)| program);
    let end = end.trim_end_matches(')');
    (end != "exit status: 101").then(|| format!("{program} ({end})"))
}

/// Returns the test of `test a::b has been running for over 60 seconds`, which may stand behind the dots of a short
/// report.
fn overdue(line: &str) -> Option<&str> {
    let (before, _) = line.split_once(" has been running for over ")?;
    Some(before.rsplit_once("test ")?.1)
}

/// Returns whether a line is more than progress or success.
fn is_informative(line: &str) -> bool {
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
        "Nextest run",
        "Running",
        "Starting",
        "Summary [",
        "Updating",
    ];
    let text = line.trim_start();
    if text.is_empty() || PROGRESS.iter().any(|word| line.starts_with(' ') && text.starts_with(word)) {
        return false;
    }
    let of_one_test =
        text.starts_with("test ") && (text.ends_with("... ok") || text.ends_with("- compile fail ... ok"));
    let of_a_good_run = text.starts_with("test result: ok.")
        || (text.starts_with("running ") && text.contains(" test"))
        || text.starts_with("all doctests ran in ")
        || text.starts_with("────");
    !of_one_test && !of_a_good_run
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the tally of a report on one pipe, and the lines that it shows.
    fn read(report: &str) -> (Tally, Vec<&str>) {
        let (mut tally, mut part) = (Tally::default(), Part::default());
        let shown = report.lines().filter(|line| tally.read(&mut part, line)).collect();
        (tally, shown)
    }

    #[test]
    fn results_of_libtest_are_counted_and_named() {
        let (tally, shown) = read(
            "\
running 3 tests
test tests::ignored ... ignored, wants root
test tests::passes ... ok
test tests::fails ... FAILED

failures:

---- tests::fails stdout ----
    indented
thread 'tests::fails' panicked at src/lib.rs:5:70:

failures:
    tests::fails
    src/lib.rs - a (line 3)

test result: FAILED. 12 passed; 2 failed; 3 ignored; 0 measured; 4 filtered out; finished in 0.10s

test result_is_kept ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!((tally.passed, tally.failed, tally.skipped), (13, 2, 3));
        assert_eq!(tally.failures, ["tests::fails", "src/lib.rs - a (line 3)"]);
        assert_eq!(shown[0], "test tests::ignored ... ignored, wants root");
        assert!(!shown.contains(&"test tests::passes ... ok"));
    }

    #[test]
    fn results_of_nextest_are_counted_and_named() {
        let (tally, shown) = read(
            "\
────────────
 Nextest run ID e6c72238-bc1c-499c-a303-d7bd5d477e37 with nextest profile: default
    Starting 7 tests across 3 binaries (1 test skipped)
        FAIL [   0.247s] nxt tests::fails
  stdout ───

    running 1 test
    failures:
        tests::fails

    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.23s

────────────
     Summary [   4.018s] 7 tests run: 3 passed (1 slow, 1 leaky), 2 failed, 1 timed out, 1 exec failed, 5 skipped
        FAIL [   0.247s] nxt tests::fails
     TIMEOUT [   4.006s] (7/7) nxt::hang hangs
     SIGABRT [   0.015s] nxt::it aborts
error: test run failed
",
        );
        assert_eq!((tally.passed, tally.failed, tally.skipped), (3, 4, 5));
        assert_eq!(tally.failures, ["nxt tests::fails", "nxt::hang hangs", "nxt::it aborts"]);
        assert_eq!(shown.first(), Some(&"        FAIL [   0.247s] nxt tests::fails"));
        assert_eq!(shown.last(), Some(&"error: test run failed"));
    }

    #[test]
    fn a_program_that_dies_is_one_failure_by_its_name() {
        let (tally, _) = read("\
error: test failed, to rerun pass `--test it`

Caused by:
  process didn't exit successfully: `/a/target/debug/deps/it-5b1d7e2c --quiet` (signal: 6, SIGABRT: process abort signal)
  process didn't exit successfully: `/a/target/debug/deps/more-5b1d7e2c` (exit status: 101)
");
        assert_eq!(
            (tally.failed, &*tally.failures),
            (1, &["it (signal: 6, SIGABRT: process abort signal)".to_owned()][..])
        );
    }

    #[test]
    fn tests_that_have_not_ended_are_known() {
        let report = "\
test a::ends has been running for over 60 seconds
..test a::hangs has been running for over 60 seconds
test a::ends ... ok
";
        assert_eq!(read(report).0.slow, ["a::hangs"]);
    }

    #[test]
    fn progress_and_success_are_not_shown() {
        let hidden =
            "\n   Compiling libc v0.2.180\ntest a::b ... ok\nrunning 12 tests\ntest result: ok. 1 passed; 0 failed";
        assert_eq!(read(hidden).1, [""; 0]);
        let shown = "error[E0308]: mismatched types\ntest a ... FAILED\nrunning out of room\n  a line of a test";
        assert_eq!(read(shown).1.len(), 4);
    }
}
