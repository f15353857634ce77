//! Runs the program of a chapter: its name is the argument.

use std::process::{ExitCode, Termination};

include!(concat!(env!("OUT_DIR"), "/programs.rs"));

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    run(&name).unwrap_or_else(|| {
        eprintln!("the guide has no program `{name}`");
        ExitCode::FAILURE
    })
}

/// Runs a `main`, with any result that it may have.
fn exit_code<T: Termination>(main: fn() -> T) -> ExitCode {
    main().report()
}
