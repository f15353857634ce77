//! The costs of the hot paths, counted and never timed: allocations by the program itself, instructions and cache
//! misses by valgrind, system calls by strace.
//!
//! Each operation runs with two counts. The difference of their costs does not include the start and the end of the
//! program. Where two OS threads overlap more or less, the system calls of the longer run count as a whole.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::step::Report;
use crate::tables::{COSTS, Cost, OVERLAPPING};
use crate::workspace::Workspace;

/// A tool that counts.
struct Tool {
    name: &'static str,
    /// The numbers of operations of the two runs, in whole batches of a thousand.
    operations: (u64, u64),
    /// Runs the program once, and returns one count for each measure.
    count: fn(&Path, &Cost, u64) -> Result<Vec<u64>>,
    measures: &'static [Measure],
    /// Operations of which the longer run counts alone, with the start of the program.
    alone: &'static [&'static str],
}

/// A kind of cost.
struct Measure {
    name: &'static str,
    /// The limit in the table.
    max: fn(&Cost) -> u64,
    /// The number of operations for which the limit is.
    per: u64,
}

const VALGRIND: Tool = Tool {
    name: "instructions and cache misses of the hot paths",
    operations: (5_000, 25_000),
    count: events,
    measures: &[
        Measure { name: "instructions", max: |cost| cost.instructions, per: 1 },
        Measure { name: "misses", max: |cost| cost.misses, per: 1000 },
    ],
    alone: &[],
};

/// Few operations are enough: the count of calls is exact, and strace stops the program twice at each of them.
const STRACE: Tool = Tool {
    name: "system calls of the hot paths",
    operations: (2_000, 6_000),
    count: calls,
    measures: &[Measure { name: "calls", max: |cost| cost.calls, per: 1000 }],
    // If the threads overlapped in the shorter run only, the difference would be larger than the costs of either run.
    alone: OVERLAPPING,
};

const PROGRAM: Tool = Tool {
    name: "allocations of the hot paths",
    operations: (5_000, 25_000),
    count: allocations,
    measures: &[Measure { name: "allocations", max: |cost| cost.allocations, per: 1000 }],
    alone: &[],
};

/// The simulated caches: 32 KiB of data in lines of 64 bytes, whatever the processor has.
const CACHES: [&str; 4] = ["--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=8388608,16,64"];

/// Compares the costs of each operation with [`COSTS`].
///
/// # Errors
///
/// Returns an error if the program cannot be built, or a tool prints no count.
pub fn check(workspace: &Workspace, report: &mut Report) -> Result<()> {
    compare(workspace, report, &PROGRAM)?;
    if !cfg!(target_arch = "x86_64") {
        report.skip(VALGRIND.name, "the table is for x86-64");
    } else if !works("valgrind", &["--quiet", "--tool=none", "true"]) {
        report.skip(VALGRIND.name, "no valgrind that works here: apt-get install valgrind");
    } else {
        compare(workspace, report, &VALGRIND)?;
    }
    if works("strace", &["-o", "/dev/null", "true"]) {
        compare(workspace, report, &STRACE)?;
    } else {
        report.skip(STRACE.name, "no strace that may trace here: apt-get install strace");
    }
    Ok(())
}

/// Returns whether a tool is installed and may do its work.
fn works(tool: &str, arguments: &[&str]) -> bool {
    Command::new(tool).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Runs each operation under `tool` and compares the counts with the table.
fn compare(workspace: &Workspace, report: &mut Report, tool: &Tool) -> Result<()> {
    let Tool { name, operations: (few, many), .. } = *tool;
    if !report.asks_for(name) {
        return Ok(());
    }
    println!("  ..   {name}");
    let start = Instant::now();
    let program = build(workspace, "hot_paths")?;
    let mut faults = Vec::new();
    for cost in COSTS {
        let most = (tool.count)(&program, cost, many)?;
        let (least, more) = if tool.alone.contains(&cost.operation) {
            (vec![0; most.len()], many)
        } else {
            ((tool.count)(&program, cost, few)?, many - few)
        };
        print!("       {:<12}", cost.operation);
        for (measure, (least, most)) in tool.measures.iter().zip(least.into_iter().zip(most)) {
            let each = (most.saturating_sub(least) * measure.per).div_ceil(more);
            let max = (measure.max)(cost);
            print!(" {each:>6} {} of {max}", measure.name);
            if each > max {
                faults
                    .push(format!("{}: {each} {} for {}, more than {max}", cost.operation, measure.name, measure.per));
            }
        }
        println!();
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

/// Counts instructions, and the reads and writes that miss the first cache of data.
fn events(program: &Path, cost: &Cost, count: u64) -> Result<Vec<u64>> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).args(CACHES).arg(program);
    let text = output(command, cost, count)?;
    let of = |event| collected(&text, event).with_context(|| format!("valgrind counts no {event}: {text}"));
    Ok(vec![of("Ir")?, of("D1mr")? + of("D1mw")?])
}

fn allocations(program: &Path, cost: &Cost, count: u64) -> Result<Vec<u64>> {
    let output = ran(Command::new(program), cost, count)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = text.trim().strip_prefix("allocations: ").and_then(|count| count.parse().ok());
    Ok(vec![count.with_context(|| format!("hot_paths counts no allocations: {text}"))?])
}

fn calls(program: &Path, cost: &Cost, count: u64) -> Result<Vec<u64>> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-c"]).arg(program);
    let text = output(command, cost, count)?;
    Ok(vec![total(&text).with_context(|| format!("strace counts nothing: {text}"))?])
}

/// Returns what `tool` prints on standard error when it runs `hot_paths`.
fn output(tool: Command, cost: &Cost, count: u64) -> Result<String> {
    Ok(String::from_utf8_lossy(&ran(tool, cost, count)?.stderr).into_owned())
}

/// Runs an operation of `hot_paths` by `command`.
fn ran(mut command: Command, cost: &Cost, count: u64) -> Result<Output> {
    command.arg(cost.operation).arg(count.to_string()).env_remove("GREENHUB_HUB").env_remove("EVENTLET_HUB");
    let output = command.output().context("hot_paths")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}\n{errors}", cost.operation, output.status);
    Ok(output)
}

/// Reads the count of `event` in two of callgrind's lines: `==7== Events    : Ir Dr Dw` has the names in the order of
/// the counts in `==7== Collected : 123456 2345 345`.
fn collected(text: &str, event: &str) -> Option<u64> {
    let words = |title| text.lines().find_map(|line| Some(line.split_once(title)?.1.split_whitespace()));
    let index = words("Events    : ")?.position(|name| name == event)?;
    words("Collected : ")?.nth(index)?.parse().ok()
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
    fn events_of_callgrind_are_read() {
        let text = "==7== Events    : Ir Dr D1mr\n==7== Collected : 23456789 345 6\n==7==\n==7== I   refs:      23\n";
        assert_eq!(collected(text, "Ir"), Some(23_456_789));
        assert_eq!(collected(text, "D1mr"), Some(6));
        assert_eq!(collected(text, "D1mw"), None);
        assert_eq!(collected("==7== Command: ls", "Ir"), None);
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
    fn overlapping_operations_have_limits() {
        for name in OVERLAPPING {
            assert!(COSTS.iter().any(|cost| cost.operation == *name), "{name}");
        }
    }

    #[test]
    fn counts_are_whole_batches() {
        for (few, many) in [VALGRIND.operations, STRACE.operations] {
            assert!(few % 1000 == 0 && many % 1000 == 0 && few < many);
        }
    }
}
