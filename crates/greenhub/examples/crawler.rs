//! A web crawler: fetches many pages at once, and prints the results in the order of the arguments.
//!
//! `cargo run --release --example crawler -- http://127.0.0.1:8000/ http://127.0.0.1:8001/` fetches both pages at the
//! same time. `crawler - < urls.txt` fetches the URL of each line.
//!
//! All concurrency comes from `GreenPool::imap`. It calls a plain function with each URL in green threads of the pool,
//! yields the results in order, and takes URLs only as far ahead as the pool is large.

mod cli;
mod web;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use greenhub::GreenPool;

use crate::cli::Failure;

/// Fetches pages concurrently. Prints the status, size, time and URL of each, or its error, in the given order.
///
/// Redirects and links are not followed.
///
/// Exit status: 0 if every status was 2xx or 3xx; 1 for another status or after an error; 2 for wrong usage.
#[derive(Parser)]
#[command(name = "crawler")]
struct Options {
    /// Pages to fetch; - stands for the lines of standard input
    #[arg(value_name = "URL", required = true, value_parser = source)]
    sources: Vec<String>,

    /// Number of pages fetched at the same time, up to 10,000
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pool: u16,

    /// Time limit for one page, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = cli::seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Hub to use [default: the one in GREENHUB_HUB, or the best available]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// The result of fetching a page.
struct Fetched {
    status: u16,
    size: u64,
    took: Duration,
}

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    cli::use_hub(options.hub.as_deref())?;
    let urls = urls(options.sources).map_err(Failure::doing("cannot read standard input"))?;
    let (pool, timeout) = (GreenPool::new(options.pool.into()), options.timeout);
    let pages = pool.imap(urls.clone(), move |url| fetch(&url, timeout));
    let mut out = io::stdout();
    let mut all_well = true;
    for (url, page) in urls.iter().zip(pages) {
        let page = page.unwrap_or_else(|error| Err(error.to_string()));
        all_well &= page.as_ref().is_ok_and(|page| (200..400).contains(&page.status));
        match page {
            Ok(Fetched { status, size, took }) => {
                writeln!(out, "{status:>5} {size:>9} {:>7.3} s {url}", took.as_secs_f64())
            }
            Err(error) => writeln!(out, "error {url}: {error}"),
        }
        .map_err(Failure::doing("cannot write"))?;
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the URLs to fetch.
///
/// Reads standard input to its end, and blocks the OS thread meanwhile. No green thread runs yet that would have to
/// wait.
fn urls(sources: Vec<String>) -> io::Result<Vec<String>> {
    let mut urls = Vec::new();
    for source in sources {
        if source == "-" {
            let text = io::read_to_string(io::stdin())?;
            urls.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        } else {
            urls.push(source);
        }
    }
    Ok(urls)
}

/// Fetches a page and discards its body. Switches.
fn fetch(url: &str, timeout: Duration) -> Result<Fetched, String> {
    let url = web::url(url)?;
    let began = Instant::now();
    let got = web::get(&url, timeout, |head, body| Ok((head.status, io::copy(body, &mut io::sink())?)));
    let (status, size) = got.map_err(|error| error.to_string())?;
    Ok(Fetched { status, size, took: began.elapsed() })
}

/// Parses an argument: a URL or `-`.
fn source(text: &str) -> Result<String, String> {
    if text != "-" {
        web::url(text)?;
    }
    Ok(text.to_owned())
}
