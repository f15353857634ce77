//! The command-line conventions of the examples: error messages, exit status, choice of the hub.

#![allow(dead_code, reason = "each example uses a part of it")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use greenhub::HubRef;
use greenhub::hub::HubError;

/// The reason why a program fails.
pub(crate) enum Failure {
    /// Wrong usage: exit status 2.
    Usage(String),
    /// An error while the program runs: exit status 1.
    Run(String),
}

impl Failure {
    /// Returns a function for `map_err` that prefixes an error with the failed action.
    pub(crate) fn doing<E: std::fmt::Display>(operation: impl Into<String>) -> impl FnOnce(E) -> Failure {
        let operation = operation.into();
        move |error| Failure::Run(format!("{operation}: {error}"))
    }
}

/// Parses the command line, calls `run`, and prints a failure in one line.
pub(crate) fn main<O: Parser>(run: impl FnOnce(O) -> Result<ExitCode, Failure>) -> ExitCode {
    let name = O::command().get_name().to_owned();
    let options = match O::try_parse() {
        Ok(options) => options,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Ignore an error: standard output may be closed.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{name}: {} (--help lists the options)", first_line(&error.to_string()));
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(code) => code,
        Err(Failure::Usage(message)) => {
            eprintln!("{name}: {message}");
            ExitCode::from(2)
        }
        Err(Failure::Run(message)) => {
            eprintln!("{name}: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the first line of an error of clap, with the second line if that names a missing argument.
fn first_line(message: &str) -> String {
    let mut lines = message.lines().map(str::trim);
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ");
    match lines.next().filter(|_| first.ends_with(':')) {
        Some(second) => format!("{first} {second}"),
        None => first.to_owned(),
    }
}

/// Chooses and builds the hub of the calling OS thread.
///
/// `None` chooses the hub that `GREENHUB_HUB` names, or the best available one.
pub(crate) fn use_hub(name: Option<&str>) -> Result<HubRef, Failure> {
    greenhub::use_hub(name).and_then(|()| greenhub::try_get_hub()).map_err(|error| match error {
        HubError::Build { .. } => Failure::Run(error.to_string()),
        _ => Failure::Usage(error.to_string()),
    })
}

/// Parses an option of the form `HOST:PORT`. The host may be a name, which is looked up later.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let is_one = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if is_one { Ok(text.to_owned()) } else { Err("not of the form HOST:PORT, with a number as port".to_owned()) }
}

/// Parses an option with a positive number of seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or_else(|| "not a time in seconds, more than 0".to_owned())
}
