//! An HTTP server whose numbers Prometheus can scrape: those of its hub, and one of its own.
//!
//! `cargo run --release --features metrics --example metrics` listens on port 9011 of this machine. `/metrics` has the
//! numbers. `/` greets, and `/work` runs a job on the pool of OS threads.

#[path = "../cli/mod.rs"]
mod cli;
#[path = "../http/mod.rs"]
mod http;
mod prometheus;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use greenhub::debug::{describe_metrics, publish_metrics};
use greenhub::net::{ListenOptions, StopServe, TcpStream, serve_until};
use greenhub::signal::{SIGINT, SIGTERM};
use greenhub::{GreenPool, tpool};

use crate::cli::Failure;
use crate::http::{Request, Response, Rules};
use crate::prometheus::Prometheus;

/// An HTTP server with metrics for Prometheus at /metrics.
///
/// Ctrl-C stops it after it has answered the requests in progress.
///
/// Exit status: 0 after Ctrl-C, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "metrics")]
struct Options {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9011", value_parser = cli::address)]
    listen: String,

    /// Time between two publications of the hub's numbers, in seconds
    #[arg(long, value_name = "S", default_value = "1", value_parser = cli::seconds, allow_negative_numbers = true)]
    interval: Duration,

    /// Hub to use [default: the one in EVENTLET_HUB, or the best available]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// The number of clients served at the same time. Others wait.
const CLIENTS: usize = 1000;

/// The time limit for a client to send its request and to accept the response.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The time limit for the last responses after Ctrl-C.
const FAREWELL: Duration = Duration::from_secs(1);

/// The Content-Type of Prometheus's text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    let numbers = Prometheus::default();
    metrics::set_global_recorder(numbers.clone()).map_err(Failure::doing("cannot install the recorder"))?;
    describe_metrics();
    metrics::describe_counter!("requests_total", "Requests that were answered");
    publish_metrics(options.interval);

    cli::use_hub(options.hub.as_deref())?;
    let stop = StopServe::on_signals([SIGINT, SIGTERM], FAREWELL);
    let stop = stop.map_err(Failure::doing("cannot wait for Ctrl-C"))?;
    let address = options.listen.as_str();
    let failed = Failure::doing(format!("cannot listen on {address}"));
    let listener = ListenOptions::new().listen(address).map_err(failed)?;
    let address = listener.local_addr().map_err(Failure::doing("cannot listen"))?;
    eprintln!("listening at http://{address}/; Ctrl-C ends it");

    let rules = Rules { methods: &["GET", "HEAD"], body: 0, keep: true, timeout: TIMEOUT };
    let served = serve_until(&stop, &listener, &GreenPool::new(CLIENTS), move |stream: TcpStream, _| {
        http::serve(stream, rules, |request| respond(request, &numbers));
    });
    let served = served.map_err(Failure::doing("cannot accept connections"))?;
    writeln!(io::stdout(), "{} clients", served.accepted).map_err(Failure::doing("cannot write the report"))?;
    Ok(ExitCode::SUCCESS)
}

fn respond(request: &Request, numbers: &Prometheus) -> Response<'static> {
    metrics::counter!("requests_total").increment(1);
    match request.path.as_str() {
        "/" => Response::text("200 OK", "hello\n".to_owned()),
        "/metrics" => Response { kind: TEXT_FORMAT, ..Response::text("200 OK", numbers.render()) },
        // Some work that would block all other clients here.
        "/work" => match tpool::execute(|| (1..=1000_u64).sum::<u64>()) {
            Ok(sum) => Response::text("200 OK", format!("{sum}\n")),
            Err(error) => Response::text("503 Service Unavailable", format!("{error}\n")),
        },
        _ => Response::text("404 Not Found", "only /, /work and /metrics\n".to_owned()),
    }
}
