//! A service for feeds: a client sends their URLs and gets their titles.
//!
//! `cargo run --release --example feed_service` listens on port 9010 of this machine, and
//! `curl --data-binary @urls.txt http://127.0.0.1:9010/` asks it.
//!
//! There are two pools: in one each client has a green thread; in the other, which the clients share, each feed. The
//! feeds of a client are fetched side by side, and a `GreenPile` gives their titles in the order of the request.

#[path = "../cli/mod.rs"]
mod cli;
#[path = "../http/mod.rs"]
mod http;
mod title;
#[path = "../web/mod.rs"]
mod web;

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use greenhub::net::{ListenOptions, StopServe, TcpStream, serve_until};
use greenhub::{GreenPile, GreenPool, LoopError};

use crate::cli::Failure;
use crate::cli::signals::Signals;
use crate::http::{Answer, Rules};

/// A service for feeds: tells the titles of those whose URLs are posted to it.
///
/// The body of a request has a URL in each line. The answer has for each, in the same order, a line with the URL, a tab,
/// and the title, or "error: " and what is wrong. Ctrl-C ends the service: what was asked for is answered still.
///
/// Exit status: 0 if it was ended by Ctrl-C, 1 if something went wrong, 2 for wrong use.
#[derive(Parser)]
#[command(name = "feed_service")]
struct Options {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9010", value_parser = cli::address)]
    listen: String,

    /// How many feeds are fetched at the same time, for all clients, up to 10,000
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pool: u16,

    /// How long one feed may take
    #[arg(long, value_name = "S", default_value = "10", value_parser = cli::seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// How long a client has for its request, and to take the answer
    #[arg(long, value_name = "S", default_value = "30", value_parser = cli::seconds, allow_negative_numbers = true)]
    patience: Duration,

    /// Which hub to use [default: that of EVENTLET_HUB, or the best of this system]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// How many clients are served at the same time; others wait.
const CLIENTS: usize = 1000;

/// How many bytes a request may have.
const LONGEST: usize = 64 << 10;

/// How long clients have, when the service ends, beyond what a feed may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the clients share.
struct Service {
    feeds: GreenPool,
    timeout: Duration,
    asked: Cell<u64>,
    found: Cell<u64>,
}

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    cli::use_hub(options.hub.as_deref())?;
    let signals = Signals::new().map_err(Failure::doing("cannot wait for Ctrl-C"))?;
    let address = options.listen.as_str();
    let failed = Failure::doing(format!("cannot listen on {address}"));
    let listener = ListenOptions::new().listen(address).map_err(failed)?;
    let address = listener.local_addr().map_err(Failure::doing("cannot listen"))?;
    eprintln!("listening at http://{address}/; Ctrl-C ends it");

    let stop = StopServe::new();
    let (last, farewell) = (stop.clone(), options.timeout.saturating_add(FAREWELL));
    greenhub::spawn(move || {
        // Whatever ends the wait: nobody could end the service any more.
        let _ = signals.wait(None);
        last.stop_within(farewell);
    });
    let feeds = GreenPool::new(options.pool.into());
    let service = Service { feeds, timeout: options.timeout, asked: Cell::new(0), found: Cell::new(0) };
    let service = Rc::new(service);
    // A connection that is kept and not used would put off the end.
    let rules = Rules { methods: &["POST"], body: LONGEST, keep: false, patience: options.patience };
    let own = Rc::clone(&service);
    let served = serve_until(&stop, &listener, &GreenPool::new(CLIENTS), move |stream: TcpStream, _| {
        http::serve(stream, rules, |request| own.answer(&request.body))
    });
    let (clients, asked, found) = (served.map_err(Failure::doing("serving"))?.accepted, &service.asked, &service.found);
    writeln!(io::stdout(), "{clients} clients, {} feeds, {} titles", asked.get(), found.get())
        .map_err(Failure::doing("cannot write the report"))?;
    Ok(ExitCode::SUCCESS)
}

impl Service {
    fn answer(&self, body: &[u8]) -> Answer<'static> {
        let Ok(text) = str::from_utf8(body) else {
            return Answer::text("400 Bad Request", "the body is not in UTF-8\n".to_owned());
        };
        let urls: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if urls.is_empty() {
            return Answer::text("400 Bad Request", "the body has no URL; one in each line is expected\n".to_owned());
        }
        match self.titles(&urls) {
            Ok(lines) => Answer::text("200 OK", lines),
            Err(error) => Answer::text("500 Internal Server Error", format!("{error}\n")),
        }
    }

    /// A line for each feed.
    fn titles(&self, urls: &[&str]) -> Result<String, LoopError> {
        self.asked.set(self.asked.get() + urls.len() as u64);
        let mut pile = GreenPile::with_pool(&self.feeds);
        for &url in urls {
            let (url, timeout) = (url.to_owned(), self.timeout);
            pile.spawn(move || title(&url, timeout))?;
        }
        let mut lines = String::new();
        for (url, title) in urls.iter().zip(pile) {
            // Writing to a string cannot fail.
            let _ = match title.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(title) => {
                    self.found.set(self.found.get() + 1);
                    writeln!(lines, "{url}\t{title}")
                }
                Err(error) => writeln!(lines, "{url}\terror: {error}"),
            };
        }
        Ok(lines)
    }
}

/// The title of a feed, or why there is none.
fn title(url: &str, timeout: Duration) -> Result<String, String> {
    let url = web::url(url)?;
    let got = web::get(&url, timeout, |head, body| match head.status {
        200..300 => title::of(body),
        _ => Err(io::Error::other(format!("status {}", head.status))),
    });
    got.map_err(|error| error.to_string())
}
