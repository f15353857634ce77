//! A web crawler: many pages at once, told in the order in which they were asked for.
//!
//! `cargo run --release --example crawler -- http://127.0.0.1:8000/ http://127.0.0.1:8001/` fetches both at the same
//! time; `crawler - < urls.txt` fetches as many as there are lines.
//!
//! `GreenPool::imap` is all that runs side by side: it calls a plain function with each URL in green threads of the
//! pool, gives the results in order, and reads only as far ahead as the pool is large.

mod cli;
mod web;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use greenhub::GreenPool;

use crate::cli::Failure;

/// Fetches pages side by side; prints the status, size in bytes, time and URL of each, in the order given, or its error.
///
/// Nothing is followed: where a page has moved to is another page.
///
/// Exit status: 0 if every status was 2xx or 3xx; 1 if one was not, or something went wrong; 2 for wrong use.
#[derive(Parser)]
#[command(name = "crawler")]
struct Options {
    /// What to fetch; - stands for the lines of standard input
    #[arg(value_name = "URL", required = true, value_parser = source)]
    sources: Vec<String>,

    /// How many pages are fetched at the same time, up to 10,000
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pool: u16,

    /// How long one page may take
    #[arg(long, value_name = "S", default_value = "10", value_parser = cli::seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Which hub to use [default: that of EVENTLET_HUB, or the best of this system]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// What a server had under a URL.
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

/// All that is to be fetched. Standard input is read to its end before anything begins: nothing has to wait for it.
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

fn fetch(url: &str, timeout: Duration) -> Result<Fetched, String> {
    let url = web::url(url)?;
    let began = Instant::now();
    let got = web::get(&url, timeout, |head, body| Ok((head.status, io::copy(body, &mut io::sink())?)));
    let (status, size) = got.map_err(|error| error.to_string())?;
    Ok(Fetched { status, size, took: began.elapsed() })
}

/// The value of an argument.
fn source(text: &str) -> Result<String, String> {
    if text != "-" {
        web::url(text)?;
    }
    Ok(text.to_owned())
}
