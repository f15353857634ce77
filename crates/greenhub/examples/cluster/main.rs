//! A web server that uses every processor, and serves the files of a directory from memory.
//!
//! `cargo run --release --example cluster -- docs` listens on port 8001 of this machine. Each OS thread has a hub, a
//! listener and green threads of its own. All OS threads share the handler and the site.

#[path = "../cli/mod.rs"]
mod cli;
#[path = "../http/mod.rs"]
mod http;
mod site;

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use greenhub::net::{Cluster, ServeError, Served, StopServe};
use greenhub::signal::{SIGINT, SIGTERM};

use crate::cli::Failure;
use crate::http::{Response, Rules};
use crate::site::Site;

/// A web server that uses every processor: serves the files of a directory by HTTP/1.1. It reads the files once.
///
/// Ctrl-C stops it after it has answered the requests in progress.
///
/// Exit status: 0 after Ctrl-C, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "cluster")]
struct Options {
    /// Directory to serve, with its subdirectories
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8001", value_parser = cli::address)]
    listen: String,

    /// Number of OS threads [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    threads: Option<u8>,

    /// Number of connections per OS thread at the same time; others wait
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,

    /// Time limit for a client to send its next request and to accept a response, in seconds
    #[arg(long, value_name = "S", default_value = "30", value_parser = cli::seconds, allow_negative_numbers = true)]
    client_timeout: Duration,

    /// Seconds that requests in progress may take after Ctrl-C
    #[arg(long, value_name = "S", default_value = "1", value_parser = cli::seconds, allow_negative_numbers = true)]
    farewell: Duration,

    /// Maximum total size of the files, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,

    /// Hub to use [default: the one in GREENHUB_HUB, or the best available]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    cli::use_hub(options.hub.as_deref())?;
    let stop = StopServe::on_signals([SIGINT, SIGTERM], options.farewell);
    let stop = stop.map_err(Failure::doing("cannot wait for Ctrl-C"))?;
    let site = Site::read(&options.directory, u64::from(options.memory) << 20)
        .map_err(|error| Failure::Run(format!("cannot read {}: {error}", options.directory.display())))?;
    let (site, responses) = (Arc::new(site), Arc::new(AtomicU64::new(0)));
    let rules = Rules { methods: &["GET", "HEAD"], body: 0, keep: true, timeout: options.client_timeout };
    let cluster = Cluster::new(options.threads.map_or(0, usize::from)).stop_with(stop);
    let cluster = cluster.connections(options.connections as usize);
    let cluster = match options.hub {
        Some(hub) => cluster.setup(move |_| greenhub::use_hub(hub.as_str()).map_err(io::Error::other)),
        None => cluster,
    };
    let (shared, count) = (Arc::clone(&site), Arc::clone(&responses));
    let server = cluster.serve(options.listen.as_str(), move |stream, _| {
        let sent = http::serve(stream, rules, |request| respond(&shared, &request.path));
        count.fetch_add(sent, Ordering::Relaxed);
    });
    let server = server.map_err(Failure::doing(format!("cannot serve at {}", options.listen)))?;
    let (threads, files) = (server.threads(), site.files());
    eprintln!("{files} files at http://{}/ by {threads} OS threads; Ctrl-C ends it", server.local_addr());

    let ends = server.join().map_err(Failure::doing("cannot join the OS threads"))?;
    report(&ends, responses.load(Ordering::Relaxed)).map_err(Failure::doing("cannot write the report"))?;
    Ok(if ends.iter().all(Result::is_ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn respond<'a>(site: &'a Site, path: &str) -> Response<'a> {
    match site.find(path) {
        Some(file) => Response { status: "200 OK", kind: file.kind, content: Cow::Borrowed(&file.content) },
        None => Response::text("404 Not Found", "404 Not Found".to_owned()),
    }
}

fn report(ends: &[Result<Served, ServeError>], responses: u64) -> io::Result<()> {
    let each: Vec<String> = ends
        .iter()
        .map(|end| match end {
            Ok(served) => served.accepted.to_string(),
            Err(error) => error.to_string(),
        })
        .collect();
    writeln!(io::stdout(), "{responses} responses; connections by OS thread: {}", each.join(", "))
}
