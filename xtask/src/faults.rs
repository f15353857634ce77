//! Fault injection: runs under strace, which makes system calls fail or come late.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::step::Report;
use crate::tables::{FAULTS, Fault, Hub, Must, STACKS};
use crate::test::{green, is_there, runnable, runner};
use crate::workspace::Workspace;

/// The number of connections that the example makes.
const CONNECTIONS: u64 = 50;

/// The time limit of the example. A connection that loses a wake-up gives up after half of it, which the example
/// reports.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs each of [`FAULTS`] on each hub that it concerns.
///
/// # Errors
///
/// Returns an error if rustc does not name its host, or strace leaves no log.
pub fn check(workspace: &Workspace, report: &mut Report) -> Result<()> {
    let injector = is_there("strace").then(|| Injector::new(workspace)).transpose()?;
    for hub in runnable() {
        if injector.is_some() {
            // The time of the build must not count for the limit of the example.
            report.run(format!("faults: echo is built, {}", hub.name), echo(workspace, hub, "build"));
        }
        for fault in FAULTS.iter().filter(|fault| fault.hub.is_none_or(|only| only == hub.name)) {
            let name = format!("faults: {}, {}", fault.name, hub.name);
            match &injector {
                _ if !report.asks_for(&name) => {}
                Some(injector) => run(workspace, report, injector, hub, fault, name)?,
                None => report.skip(name, "no strace: apt-get install strace"),
            }
        }
    }
    Ok(())
}

fn run(
    workspace: &Workspace,
    report: &mut Report,
    injector: &Injector,
    hub: &Hub,
    fault: &Fault,
    name: String,
) -> Result<()> {
    let start = Instant::now();
    let mut how = fault.how.to_owned();
    if how.contains(STACKS) {
        how = how.replace(STACKS, &injector.first_for_stacks(echo(workspace, hub, "run"))?.to_string());
    }
    let inject = format!("-e inject={}:{how}", fault.calls);
    match fault.must {
        Must::Pass => {
            let mut command = workspace.cargo();
            command.args(["test", "-p", hub.package, "--lib", "--tests"]);
            report.run_tests(&name, injector.over(command, fault.calls, &inject)?);
        }
        Must::LiveOn => {
            let mut command = workspace.cargo();
            command.args(["test", "--no-fail-fast"]);
            green(&mut command, hub);
            command.args(["--test", "it", "faults::"]).env("GREENHUB_FAULTS", "1");
            report.run_tests(&name, injector.over(command, fault.calls, &inject)?);
        }
        Must::GoUnnoticed | Must::BeOutlived(_) | Must::EndIt(_) => {
            let command = injector.over(echo(workspace, hub, "run"), fault.calls, &inject)?;
            report.run_judged(&name, command, LIMIT, |output| judge(&fault.must, output));
        }
    }
    if !injector.log()?.any(|line| line.contains("(INJECTED") || line.contains("(DELAYED")) {
        report.check(&name, &[format!("{name}: no call was hit, so nothing is proven")], start);
    }
    Ok(())
}

/// Returns the command by which cargo builds or runs the example.
fn echo(workspace: &Workspace, hub: &Hub, verb: &str) -> Command {
    let mut command = workspace.cargo();
    command.args([verb, "--quiet", "--release", "-p", "greenhub", "--example", "echo"]);
    if !hub.default {
        command.args(["--features", hub.name]);
    }
    if verb == "run" {
        command.args(["--", "--json", "--seconds", "0.5", "--hub", hub.name]);
        command.args(["--connections", &CONNECTIONS.to_string()]);
    }
    command
}

/// Compares the end of the example with `must`. Returns what is wrong.
fn judge(must: &Must, output: &Output) -> Option<String> {
    let says = String::from_utf8_lossy(&output.stderr);
    let printed: Vec<&str> = says.lines().filter_map(|line| line.strip_prefix("echo: ")).collect();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let served = report["connections"] == CONNECTIONS && report["round_trips"].as_u64() > Some(0);
    let (status, words, serves) = match *must {
        Must::BeOutlived(words) => (1, Some(words), true),
        Must::EndIt(words) => (1, Some(words), false),
        _ => (0, None, true),
    };
    let as_told = match words {
        Some(words) => printed.len() == 1 && printed[0].contains(words),
        None => printed.is_empty(),
    };
    if output.status.code() != Some(status) {
        Some(format!("{} instead of status {status}", output.status))
    } else if says.contains("panicked at") {
        Some("the example panicked".to_owned())
    } else if !as_told {
        Some(format!("the example should print {words:?} and printed {printed:?}"))
    } else if serves && !served {
        Some(format!("not every connection was served: {report}"))
    } else {
        None
    }
}

/// A way to run programs under strace, which injects faults.
struct Injector {
    /// The variable that makes cargo run programs under strace.
    variable: String,
    /// The log of the calls of one run.
    log: PathBuf,
}

impl Injector {
    fn new(workspace: &Workspace) -> Result<Injector> {
        Ok(Injector { variable: runner()?, log: workspace.root.join("target/faults.log") })
    }

    /// Makes `command`, by which cargo runs a program, run it under strace with an empty log.
    fn over(&self, mut command: Command, calls: &str, inject: &str) -> Result<Command> {
        create_empty(&self.log).with_context(|| self.log.display().to_string())?;
        let strace = format!("strace -f -qq -A -o {} -e trace={calls} {inject}", self.log.display());
        command.env(&self.variable, strace);
        Ok(command)
    }

    fn log(&self) -> Result<impl Iterator<Item = String> + use<>> {
        let file = File::open(&self.log).with_context(|| self.log.display().to_string())?;
        Ok(BufReader::new(file).lines().map_while(Result::ok))
    }

    /// Returns the number of the first mmap that maps stacks. The calls before it are made by the loader and std.
    fn first_for_stacks(&self, command: Command) -> Result<usize> {
        self.over(command, "mmap", "")?.output().context("echo under strace")?;
        let first = self.log()?.position(|line| line.contains("MAP_NORESERVE|MAP_STACK"));
        Ok(first.context("no stacks in the log of strace")? + 1)
    }
}

/// Creates or empties the file at `path`.
fn create_empty(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    File::create(path).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(code: i32, stdout: &str, stderr: &str) -> Output {
        Output { status: ExitStatus::from_raw(code << 8), stdout: stdout.into(), stderr: stderr.into() }
    }

    const SERVED: &str = r#"{"connections":50,"round_trips":7}"#;

    #[test]
    fn an_unnoticed_fault_leaves_every_connection_served_and_nothing_reported() {
        assert_eq!(judge(&Must::GoUnnoticed, &ended(0, SERVED, "2 of 50 connections\n")), None);
        for wrong in [
            ended(0, r#"{"connections":49,"round_trips":7}"#, ""),
            ended(0, r#"{"connections":50,"round_trips":0}"#, ""),
            ended(0, "", ""),
            ended(1, SERVED, ""),
            ended(0, SERVED, "echo: 1 errors, the first: …"),
            ended(0, SERVED, "thread 'main' panicked at …"),
        ] {
            assert!(judge(&Must::GoUnnoticed, &wrong).is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn an_outlived_fault_leaves_every_connection_served_and_one_line_reported() {
        let must = Must::BeOutlived("Too many");
        assert_eq!(judge(&must, &ended(1, SERVED, "echo: 3 errors, the first: Too many open files\n")), None);
        for wrong in [
            ended(0, SERVED, "echo: Too many"),
            ended(1, "", "echo: Too many"),
            ended(1, SERVED, "echo: Too many\necho: Too many"),
            ended(1, SERVED, "echo: something else"),
        ] {
            assert!(judge(&must, &wrong).is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn a_fatal_fault_is_one_line_and_status_1() {
        let must = Must::EndIt("Cannot allocate");
        assert_eq!(judge(&must, &ended(1, "", "echo: Cannot allocate memory\n")), None);
        for wrong in [ended(2, "", "echo: Cannot allocate"), ended(1, "", ""), ended(1, "", "Cannot allocate")] {
            assert!(judge(&must, &wrong).is_some(), "{wrong:?}");
        }
        let killed = Output { status: ExitStatus::from_raw(9), ..ended(1, "", "echo: Cannot allocate") };
        assert!(judge(&must, &killed).is_some());
    }
}
