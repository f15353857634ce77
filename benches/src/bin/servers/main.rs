//! The costs of servers under load from another process: `servers --figures [TEXT]`.
//!
//! Prints the lines of [`benches::figures`] for echoes, for short connections, for HTTP by `wrk`, and for work on one
//! and on two OS threads. A server is a process of its own, in Rust this program as `servers serve RUNTIME SERVICE
//! FAMILY`. Its processor time is measured from outside. Except for the work on two OS threads, the server has one
//! processor and the load has another one.

mod contender;
mod cores;
mod echo;
mod http;

use std::io;
use std::process::ExitCode;

use benches::figures::Figures;
use benches::processors::processors;
use benches::raise_descriptor_limit;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match (&words[..], Figures::requested(&words)) {
        (["serve", words @ ..], _) => benches::servers::serve(words),
        (_, Some(figures)) => measure_all(&figures),
        _ => {
            eprintln!("usage: servers --figures [TEXT], or servers serve RUNTIME SERVICE FAMILY [THREADS]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all(figures: &Figures) -> io::Result<()> {
    processors();
    raise_descriptor_limit()?;
    echo::measure_all(figures)?;
    http::measure_all(figures)?;
    cores::measure_all(figures)
}
