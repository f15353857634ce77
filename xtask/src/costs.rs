//! The costs of the hot paths, counted and never timed: instructions by valgrind, system calls by strace.
//!
//! Each operation runs with two counts. The difference of their costs does not include the start and the end of the
//! program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::step::Report;
use crate::tables::{COSTS, Cost};
use crate::workspace::Workspace;

/// A kind of cost.
struct Measure {
    name: &'static str,
    /// The numbers of operations of the two runs, in whole batches of a thousand.
    counts: (u64, u64),
    count: fn(&Path, &Cost, u64) -> Result<u64>,
    /// The limit in the table.
    max: fn(&Cost) -> u64,
    /// The number of operations for which the limit is.
    per: u64,
}

const INSTRUCTIONS: Measure = Measure {
    name: "instructions of the hot paths",
    counts: (5_000, 25_000),
    count: instructions,
    max: |cost| cost.instructions,
    per: 1,
};

/// Few operations are enough: the count of calls is exact, and strace stops the program twice at each of them.
const CALLS: Measure = Measure {
    name: "system calls of the hot paths",
    counts: (2_000, 6_000),
    count: calls,
    max: |cost| cost.calls,
    per: 1000,
};

/// Compares the costs of each operation with [`COSTS`].
///
/// # Errors
///
/// Returns an error if the program cannot be built, or a tool prints no count.
pub fn check(workspace: &Workspace, report: &mut Report) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        report.skip(INSTRUCTIONS.name, "the table is for x86-64");
    } else if !works("valgrind", &["--quiet", "--tool=none", "true"]) {
        report.skip(INSTRUCTIONS.name, "no valgrind that works here: apt-get install valgrind");
    } else {
        compare(workspace, report, &INSTRUCTIONS)?;
    }
    if works("strace", &["-o", "/dev/null", "true"]) {
        compare(workspace, report, &CALLS)?;
    } else {
        report.skip(CALLS.name, "no strace that may trace here: apt-get install strace");
    }
    Ok(())
}

/// Returns whether a tool is installed and may do its work.
fn works(tool: &str, arguments: &[&str]) -> bool {
    Command::new(tool).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Runs `measure` for each operation and compares the results with the table.
fn compare(workspace: &Workspace, report: &mut Report, measure: &Measure) -> Result<()> {
    let Measure { name, counts: (few, many), .. } = *measure;
    if !report.asks_for(name) {
        return Ok(());
    }
    println!("  ..   {name}");
    let start = Instant::now();
    let program = build(workspace, "hot_paths")?;
    let mut faults = Vec::new();
    for cost in COSTS {
        let count = |operations| (measure.count)(&program, cost, operations);
        let difference = count(many)?.saturating_sub(count(few)?);
        let each = (difference * measure.per).div_ceil(many - few);
        let max = (measure.max)(cost);
        println!("       {:<12} {each:>6} of {max}", cost.operation);
        if each > max {
            faults.push(format!("{name}: {} takes {each}, more than {max}", cost.operation));
        }
    }
    report.check(name, &faults, start);
    Ok(())
}

/// Builds a program of the benches so that it runs under valgrind. Returns its path.
///
/// # Errors
///
/// Returns an error if the program cannot be built.
pub fn build(workspace: &Workspace, program: &str) -> Result<PathBuf> {
    let target = workspace.root.join("target/valgrind");
    let status = workspace
        .cargo()
        .args(["build", "--quiet", "--release", "-p", "benches", "--bin", program])
        // valgrind hides the vDSO, in which rustix looks for the clock unless it calls libc.
        .env("RUSTFLAGS", "--cfg rustix_use_libc")
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .context("cargo build")?;
    ensure!(status.success(), "{program} does not build");
    Ok(target.join("release").join(program))
}

fn instructions(program: &Path, cost: &Cost, count: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let text = output(command, cost, count)?;
    collected(&text).with_context(|| format!("valgrind counts nothing: {text}"))
}

fn calls(program: &Path, cost: &Cost, count: u64) -> Result<u64> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-c"]).arg(program);
    let text = output(command, cost, count)?;
    total(&text).with_context(|| format!("strace counts nothing: {text}"))
}

/// Returns what `tool` prints on standard error when it runs `hot_paths`.
fn output(mut tool: Command, cost: &Cost, count: u64) -> Result<String> {
    tool.arg(cost.operation).arg(count.to_string()).env_remove("EVENTLET_HUB");
    let output = tool.output().context("hot_paths")?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {}\n{text}", cost.operation, output.status);
    Ok(text)
}

/// Reads the number in callgrind's line `==7== Collected : 123456`.
fn collected(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

/// Reads the calls in the last line of strace's table: `100.00    0.001234           1      1234        56 total`.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_of_callgrind_are_read() {
        let text = "==7== Events    : Ir\n==7== Collected : 23456789\n==7==\n==7== I   refs:      23,456,789\n";
        assert_eq!(collected(text), Some(23_456_789));
        assert_eq!(collected("==7== Command: ls"), None);
    }

    #[test]
    fn calls_of_strace_are_read() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 97.10    0.040000           1     40000           read
  2.90    0.001200           1      1200        12 total_of_none
------ ----------- ----------- --------- --------- ----------------
100.00    0.041200           1     41200        12 total
";
        assert_eq!(total(table), Some(41_200));
        assert_eq!(total(""), None);
    }

    #[test]
    fn counts_are_whole_batches() {
        for (few, many) in [INSTRUCTIONS.counts, CALLS.counts] {
            assert!(few % 1000 == 0 && many % 1000 == 0 && few < many);
        }
    }
}
