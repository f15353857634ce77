//! The tool of this workspace: `cargo xtask <command>`.

#![expect(unreachable_pub, reason = "nothing depends on a program")]

mod bench;
mod bsd;
mod checks;
mod costs;
mod faults;
mod process;
mod returns;
mod step;
mod tables;
mod tally;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use step::Report;
use workspace::Workspace;

/// Tests and checks of greenhub.
#[derive(Parser, PartialEq, Eq, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Run the tests on every hub; the last line is `N passed, N failed, N skipped`.
    Test {
        /// Also run everything that takes long: release mode for all crates, forced fallback paths, long seeds,
        /// injected faults, leaks, mutants, counted costs, loom, other libraries, other targets.
        #[arg(long)]
        full: bool,
        /// Run only the steps that have TEXT in their names.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Run what CI checks beside the tests: fmt, clippy, doc, features, panic = "abort", costs, tidy.
    Check {
        /// Run only the steps that have TEXT in their names.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Compare instructions, cache misses and system calls of the hot paths with their table, and check the returns.
    Costs,
    /// Run the benches in the profiles default, thin and fat LTO, and write benches/RESULTS.md.
    Bench {
        /// Run only the benches that have TEXT in their names.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Run each program so often in each profile.
        #[arg(long, default_value_t = 3, value_name = "COUNT")]
        rounds: usize,
    },
    /// Run clippy for FreeBSD, OpenBSD and macOS.
    CheckBsd,
    /// Check what no compiler checks: dependencies of crates and modules, the shape of a backend, the conformance map.
    Tidy {
        /// Print the cycles between the files of a crate and the paths that point up.
        #[arg(long)]
        arrows: bool,
    },
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `task` and returns whether nothing failed.
fn run(task: Task) -> anyhow::Result<bool> {
    let workspace = Workspace::load()?;
    let mut report = Report::default();
    match task {
        Task::Test { full, only } => {
            report = Report::of_steps_named(only);
            test::run(&workspace, full, &mut report)?;
            report.print_summary();
            report.print_counts();
        }
        Task::Check { only } => {
            report = Report::of_steps_named(only);
            checks::run(&workspace, &mut report)?;
            report.print_summary();
        }
        Task::Costs => {
            costs::check(&workspace, &mut report)?;
            returns::check(&workspace, &mut report)?;
        }
        Task::Bench { only, rounds } => bench::run(&workspace, only.as_deref(), rounds)?,
        Task::CheckBsd => bsd::check(&workspace, &mut report),
        Task::Tidy { arrows: false } => tidy::run(&workspace, &mut report),
        Task::Tidy { arrows: true } => return tidy::print_arrows(&workspace).map(|()| true),
    }
    Ok(report.is_well())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        Task::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn the_options_are_consistent() {
        Task::command().debug_assert();
    }

    #[test]
    fn options_reach_their_command() {
        assert_eq!(parsed("xtask test"), Ok(Task::Test { full: false, only: None }));
        let only = Some("loom".to_owned());
        assert_eq!(parsed("xtask test --full --only loom"), Ok(Task::Test { full: true, only }));
        let only = Some("yield".to_owned());
        assert_eq!(parsed("xtask bench --only yield --rounds 5"), Ok(Task::Bench { only, rounds: 5 }));
        assert_eq!(parsed("xtask check-bsd"), Ok(Task::CheckBsd));
        assert_eq!(parsed("xtask tidy --arrows"), Ok(Task::Tidy { arrows: true }));
    }

    #[test]
    fn an_unknown_command_or_option_is_named() {
        assert!(parsed("xtask tset").unwrap_err().contains("tset"));
        assert!(parsed("xtask test --fast").unwrap_err().contains("--fast"));
    }
}
