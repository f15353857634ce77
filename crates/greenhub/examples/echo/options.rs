//! The command line.

use std::time::Duration;

use clap::Parser;

use crate::cli::{address, seconds};

/// An echo server and its clients: every connection has a green thread on each side.
///
/// Exit status: 0 if every byte came back as it was sent, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "echo")]
pub(crate) struct Options {
    /// Number of connections [default: 1000, or as many as the hub can hold]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) connections: Option<usize>,

    /// Size of a message, in bytes
    #[arg(long, value_name = "M", default_value_t = 64, value_parser = size)]
    pub(crate) bytes: usize,

    /// Duration of the run, in seconds [default: 5; with --server until Ctrl-C]
    #[arg(long, value_name = "S", value_parser = seconds, allow_negative_numbers = true)]
    seconds: Option<Duration>,

    /// Run only the server, on this address
    #[arg(long, value_name = "ADDR", value_parser = address, conflicts_with = "connect")]
    server: Option<String>,

    /// Run only the clients, against a server at this address
    #[arg(long, value_name = "ADDR", value_parser = address)]
    connect: Option<String>,

    /// Hub to use [default: the one in GREENHUB_HUB, or the best available]
    #[arg(long, value_name = "NAME")]
    pub(crate) hub: Option<String>,

    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

/// The part of the example that this process runs.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) enum Mode<'a> {
    Both,
    Server(&'a str),
    Clients(&'a str),
}

impl Options {
    /// Returns the number of connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.unwrap_or(1000)
    }

    pub(crate) fn mode(&self) -> Mode<'_> {
        match (&self.server, &self.connect) {
            (Some(address), _) => Mode::Server(address),
            (None, Some(address)) => Mode::Clients(address),
            (None, None) => Mode::Both,
        }
    }

    /// Returns the duration of the run, or `None` for an unlimited run.
    pub(crate) fn duration(&self) -> Option<Duration> {
        match self.mode() {
            Mode::Server(_) => self.seconds,
            _ => Some(self.seconds.unwrap_or(Duration::from_secs(5))),
        }
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a number of connections; the smallest is 1".to_owned()),
        Ok(count) => Ok(count),
    }
}

fn size(text: &str) -> Result<usize, String> {
    const MAX: usize = 1 << 30;
    match text.parse() {
        Ok(size @ 1..=MAX) => Ok(size),
        _ => Err(format!("not a size from 1 to {MAX} bytes")),
    }
}
