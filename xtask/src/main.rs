//! One command for everything: `cargo xtask <command>`.

#![expect(unreachable_pub, reason = "a program is nobody's dependency")]

mod bsd;
mod checks;
mod costs;
mod faults;
mod step;
mod tables;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use step::Report;
use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <command>

  test [--full] [--only TEXT]
                 run the tests on every hub; ends with `N passed, N failed, N skipped`
                 --full: release mode for everything, forced fallback paths, long seeds, faults,
                 leaks, mutants, counted costs, loom, other targets
                 --only: the steps that have TEXT in their names
  features       build the facade with no backend, with each alone, with several, with the default
  abort          run the example that is meant for panic = \"abort\"
  costs          count instructions and system calls of the hot paths, and hold them to a table
  check-bsd      type-check what runs on FreeBSD, OpenBSD and macOS, with clippy
  tidy           hold what no compiler holds: direction of crates, order of a backend, conformance map
  tidy --arrows  print the cycles between the files of a crate, and the paths that point up
  ci             test, fmt, clippy, doc, features, abort, costs, tidy: what .ci/run runs
";

#[derive(Clone, PartialEq, Eq, Debug)]
enum Task {
    Test { full: bool, only: Option<String> },
    Features,
    Abort,
    Costs,
    CheckBsd,
    Tidy,
    Arrows,
    Ci,
}

fn parse(arguments: &[String]) -> Result<Task, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test"] => Ok(Task::Test { full: false, only: None }),
        ["test", "--full"] => Ok(Task::Test { full: true, only: None }),
        ["test", "--only", text] => Ok(Task::Test { full: false, only: Some((*text).to_owned()) }),
        ["test", "--full", "--only", text] => Ok(Task::Test { full: true, only: Some((*text).to_owned()) }),
        ["features"] => Ok(Task::Features),
        ["abort"] => Ok(Task::Abort),
        ["costs"] => Ok(Task::Costs),
        ["check-bsd"] => Ok(Task::CheckBsd),
        ["tidy"] => Ok(Task::Tidy),
        ["tidy", "--arrows"] => Ok(Task::Arrows),
        ["ci"] => Ok(Task::Ci),
        [] => Err("a command is missing".to_owned()),
        [command @ ("test" | "features" | "abort" | "costs" | "check-bsd" | "tidy" | "ci"), rest @ ..] => {
            Err(format!("`{command}` does not take `{}`", rest.join(" ")))
        }
        [other, ..] => Err(format!("there is no command `{other}`")),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if matches!(arguments.first().map(String::as_str), Some("help" | "--help" | "-h")) {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let task = match parse(&arguments) {
        Ok(task) => task,
        Err(wrong) => {
            eprint!("error: {wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `task`; whether all went well.
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
        Task::Features => checks::features(&workspace, &mut report),
        Task::Abort => checks::abort(&workspace, &mut report),
        Task::Costs => costs::check(&workspace, &mut report)?,
        Task::CheckBsd => bsd::check(&workspace, &mut report),
        Task::Tidy => tidy::run(&workspace, &mut report),
        Task::Arrows => return tidy::print_arrows(&workspace).map(|()| true),
        Task::Ci => {
            test::run(&workspace, false, &mut report)?;
            checks::fmt(&workspace, &mut report);
            checks::clippy(&workspace, &mut report);
            checks::doc(&workspace, &mut report);
            checks::features(&workspace, &mut report);
            checks::abort(&workspace, &mut report);
            costs::check(&workspace, &mut report)?;
            tidy::run(&workspace, &mut report);
            report.print_summary();
            report.print_counts();
        }
    }
    Ok(report.is_well())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn commands_are_parsed() {
        assert_eq!(parsed("test"), Ok(Task::Test { full: false, only: None }));
        assert_eq!(parsed("test --full"), Ok(Task::Test { full: true, only: None }));
        assert_eq!(parsed("test --full --only loom"), Ok(Task::Test { full: true, only: Some("loom".to_owned()) }));
        assert_eq!(parsed("check-bsd"), Ok(Task::CheckBsd));
        assert_eq!(parsed("ci"), Ok(Task::Ci));
    }

    #[test]
    fn a_wrong_command_is_named() {
        assert!(parsed("tset").unwrap_err().contains("tset"));
        assert!(parsed("test --fast").unwrap_err().contains("--fast"));
        assert!(parsed("").unwrap_err().contains("missing"));
    }
}
