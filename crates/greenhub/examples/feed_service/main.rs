//! A feed service: a client posts the URLs of feeds and gets their titles.
//!
//! `cargo run --release --example feed_service` listens on port 9010 of this machine, and
//! `curl --data-binary @urls.txt http://127.0.0.1:9010/` posts URLs to it.
//!
//! There are two pools: one has a green thread for each client, the other one for each feed. All clients share the pool
//! of feeds. The feeds of a request are fetched concurrently, and a `GreenPile` yields their titles in the order of the
//! request.

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
use greenhub::GreenPool;
use greenhub::greenpool::GreenPile;
use greenhub::hub::LoopError;
use greenhub::net::{ListenOptions, StopServe, TcpStream, serve_until};
use greenhub::signal::{SIGINT, SIGTERM};

use crate::cli::Failure;
use crate::http::{Response, Rules};

/// A feed service: returns the titles of the feeds whose URLs are posted to it.
///
/// The body of a request has one URL per line. The response has one line per URL, in the same order: the URL, a tab,
/// and the title, or "error: " and the reason. Ctrl-C stops the service after it has answered the requests in progress.
///
/// Exit status: 0 after Ctrl-C, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "feed_service")]
struct Options {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9010", value_parser = cli::address)]
    listen: String,

    /// Number of feeds fetched at the same time, for all clients, up to 10,000
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pool: u16,

    /// Time limit for one feed, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = cli::seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Time limit for a client to send its request and to accept the response, in seconds
    #[arg(long, value_name = "S", default_value = "30", value_parser = cli::seconds, allow_negative_numbers = true)]
    client_timeout: Duration,

    /// Hub to use [default: the one in GREENHUB_HUB, or the best available]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// The number of clients served at the same time. Others wait.
const CLIENTS: usize = 1000;

/// The maximum length of a request body, in bytes.
const LONGEST: usize = 64 << 10;

/// The time limit for the last responses after Ctrl-C, in addition to the limit for a feed.
const FAREWELL: Duration = Duration::from_secs(1);

/// The state that the handlers of all clients share.
struct Service {
    feeds: GreenPool,
    timeout: Duration,
    /// The number of requested feeds.
    asked: Cell<u64>,
    /// The number of titles found.
    found: Cell<u64>,
}

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    cli::use_hub(options.hub.as_deref())?;
    let stop = StopServe::on_signals([SIGINT, SIGTERM], options.timeout.saturating_add(FAREWELL));
    let stop = stop.map_err(Failure::doing("cannot wait for Ctrl-C"))?;
    let address = options.listen.as_str();
    let failed = Failure::doing(format!("cannot listen on {address}"));
    let listener = ListenOptions::new().listen(address).map_err(failed)?;
    let address = listener.local_addr().map_err(Failure::doing("cannot listen"))?;
    eprintln!("listening at http://{address}/; Ctrl-C ends it");

    let feeds = GreenPool::new(options.pool.into());
    let service = Service { feeds, timeout: options.timeout, asked: Cell::new(0), found: Cell::new(0) };
    let service = Rc::new(service);
    // An idle kept-alive connection would delay the end of the service.
    let rules = Rules { methods: &["POST"], body: LONGEST, keep: false, timeout: options.client_timeout };
    let own = Rc::clone(&service);
    let served = serve_until(&stop, &listener, &GreenPool::new(CLIENTS), move |stream: TcpStream, _| {
        http::serve(stream, rules, |request| own.answer(&request.body))
    });
    let (clients, asked, found) =
        (served.map_err(Failure::doing("cannot accept connections"))?.accepted, &service.asked, &service.found);
    writeln!(io::stdout(), "{clients} clients, {} feeds, {} titles", asked.get(), found.get())
        .map_err(Failure::doing("cannot write the report"))?;
    Ok(ExitCode::SUCCESS)
}

impl Service {
    fn answer(&self, body: &[u8]) -> Response<'static> {
        let Ok(text) = str::from_utf8(body) else {
            return Response::text("400 Bad Request", "the body is not in UTF-8\n".to_owned());
        };
        let urls: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if urls.is_empty() {
            return Response::text("400 Bad Request", "the body has no URL; one in each line is expected\n".to_owned());
        }
        match self.titles(&urls) {
            Ok(lines) => Response::text("200 OK", lines),
            Err(error) => Response::text("500 Internal Server Error", format!("{error}\n")),
        }
    }

    /// Fetches feeds concurrently, and returns a line for each. Switches.
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

/// Returns the title of a feed, or the reason why there is none. Switches.
fn title(url: &str, timeout: Duration) -> Result<String, String> {
    let url = web::url(url)?;
    let got = web::get(&url, timeout, |head, body| match head.status {
        200..300 => title::of(body),
        _ => Err(io::Error::other(format!("status {}", head.status))),
    });
    got.map_err(|error| error.to_string())
}
