//! What the hot paths cost, counted and never timed: instructions by valgrind, system calls by strace.
//!
//! Each operation is run with two counts; what the difference costs is free of the start and the end of the program.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::step::Report;
use crate::tables::{COSTS, Cost};
use crate::workspace::Workspace;

/// The two counts; whole batches of a thousand.
const COUNTS: (u64, u64) = (5_000, 25_000);

/// Counts what each of [`COSTS`] takes.
///
/// # Errors
///
/// The program cannot be built, or a tool does not say what it counted.
pub fn check(workspace: &Workspace, report: &mut Report) -> Result<()> {
    const INSTRUCTIONS: &str = "instructions of the hot paths";
    const CALLS: &str = "system calls of the hot paths";
    if !cfg!(target_arch = "x86_64") {
        report.skip(INSTRUCTIONS, "the table is for x86-64");
    } else if !works("valgrind", &["--quiet", "--tool=none", "true"]) {
        report.skip(INSTRUCTIONS, "no valgrind that works here: apt-get install valgrind");
    } else {
        gate(workspace, report, INSTRUCTIONS, instructions, |cost| cost.instructions, 1)?;
    }
    if works("strace", &["-o", "/dev/null", "true"]) {
        gate(workspace, report, CALLS, calls, |cost| cost.calls, 1000)?;
    } else {
        report.skip(CALLS, "no strace that may trace here: apt-get install strace");
    }
    Ok(())
}

/// Whether a tool is there and may do its work.
fn works(tool: &str, arguments: &[&str]) -> bool {
    Command::new(tool).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Compares what `count` counts in `per` operations with what the table allows.
fn gate(
    workspace: &Workspace,
    report: &mut Report,
    name: &str,
    count: fn(&Path, &Cost, u64) -> Result<u64>,
    most: fn(&Cost) -> u64,
    per: u64,
) -> Result<()> {
    if !report.asks_for(name) {
        return Ok(());
    }
    println!("  ..   {name}");
    let start = Instant::now();
    let program = build(workspace)?;
    let mut faults = Vec::new();
    for cost in COSTS {
        let (few, many) = (count(&program, cost, COUNTS.0)?, count(&program, cost, COUNTS.1)?);
        let each = (many.saturating_sub(few) * per).div_ceil(COUNTS.1 - COUNTS.0);
        println!("       {:<12} {each:>6} of {}", cost.operation, most(cost));
        if each > most(cost) {
            faults.push(format!("{name}: {} takes {each}, more than {}", cost.operation, most(cost)));
        }
    }
    report.check(name, &faults, start);
    Ok(())
}

/// Builds `hot_paths` so that it runs under valgrind, and says where it is.
fn build(workspace: &Workspace) -> Result<std::path::PathBuf> {
    let target = workspace.root.join("target/valgrind");
    let status = workspace
        .cargo()
        .args(["build", "--quiet", "--release", "-p", "benches", "--bin", "hot_paths"])
        // valgrind takes the vDSO away, in which rustix's own system calls look for the clock; libc's do without.
        .env("RUSTFLAGS", "--cfg rustix_use_libc")
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .context("cargo build")?;
    ensure!(status.success(), "hot_paths does not build");
    Ok(target.join("release/hot_paths"))
}

fn instructions(program: &Path, cost: &Cost, count: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let says = output(command, cost, count)?;
    collected(&says).with_context(|| format!("valgrind counts nothing: {says}"))
}

fn calls(program: &Path, cost: &Cost, count: u64) -> Result<u64> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-c"]).arg(program);
    let says = output(command, cost, count)?;
    total(&says).with_context(|| format!("strace counts nothing: {says}"))
}

/// What `tool` says on standard error when it runs `hot_paths`.
fn output(mut tool: Command, cost: &Cost, count: u64) -> Result<String> {
    tool.arg(cost.operation).arg(count.to_string()).env_remove("EVENTLET_HUB");
    let output = tool.output().context("hot_paths")?;
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {}\n{says}", cost.operation, output.status);
    Ok(says)
}

/// The number in callgrind's line `==7== Collected : 123456`.
fn collected(says: &str) -> Option<u64> {
    says.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

/// The calls in the last line of strace's table: `100.00    0.001234           1      1234        56 total`.
fn total(says: &str) -> Option<u64> {
    let line = says.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instructions_that_callgrind_collected_are_read() {
        let says = "==7== Events    : Ir\n==7== Collected : 23456789\n==7==\n==7== I   refs:      23,456,789\n";
        assert_eq!(collected(says), Some(23_456_789));
        assert_eq!(collected("==7== Command: ls"), None);
    }

    #[test]
    fn the_calls_that_strace_counted_are_read() {
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
    fn the_counts_are_whole_batches() {
        assert!([COUNTS.0, COUNTS.1].iter().all(|count| count % 1000 == 0));
    }
}
