//! hyper's HTTP/1 server, unchanged, over green sockets: one green thread for each connection, and no runtime of Tokio.
//!
//! `cargo run --release --features hyper-io --example hyper_server -- 127.0.0.1:8080` listens on port 8080. `/` answers
//! with the number of requests so far, `/sleep` after a second in which all other connections go on, and `/echo` with
//! the body of the request.

mod cli;

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use greenhub::GreenPool;
use greenhub::future::{AsyncIo, GreenTimer, block_on, sleep};
use greenhub::net::{ListenOptions, StopServe, TcpStream, serve_until};
use greenhub::signal::{SIGINT, SIGTERM};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};

use crate::cli::Failure;

/// The largest body that `/echo` answers with.
const LARGEST: usize = 1 << 20;

/// Serves HTTP/1 with hyper, one green thread for each connection.
///
/// Ctrl-C stops it. Open connections may continue for the time of --farewell.
///
/// Exit status: 0 after Ctrl-C, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "hyper_server")]
struct Options {
    /// Address to listen on
    #[arg(value_name = "ADDRESS", value_parser = cli::address)]
    address: String,

    /// Number of connections served at the same time; others wait
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    most: u32,

    /// Seconds in which a client must send the head of a request
    #[arg(long, value_name = "S", default_value = "30", value_parser = cli::seconds, allow_negative_numbers = true)]
    client_timeout: Duration,

    /// Seconds that open connections may continue after Ctrl-C
    #[arg(long, value_name = "S", default_value = "1", value_parser = cli::seconds, allow_negative_numbers = true)]
    farewell: Duration,

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
    let address = options.address.as_str();
    let listener =
        ListenOptions::new().listen(address).map_err(Failure::doing(format!("cannot listen on {address}")))?;
    let address = listener.local_addr().map_err(Failure::doing("cannot listen"))?;
    eprintln!("serving http://{address}/; Ctrl-C ends it");

    let (pool, requests) = (GreenPool::new(options.most as usize), Rc::new(Cell::new(0)));
    let (count, timeout) = (Rc::clone(&requests), options.client_timeout);
    let served = serve_until(&stop, &listener, &pool, move |client, peer| {
        // A client that breaks the connection off is no failure of the server.
        if let Err(error) = serve(client, timeout, &count)
            && !error.is_incomplete_message()
        {
            eprintln!("hyper_server: {peer}: {error}");
        }
    });
    let served = served.map_err(Failure::doing("cannot accept connections"))?;
    writeln!(io::stdout(), "{} connections, {} requests", served.accepted, requests.get())
        .map_err(Failure::doing("cannot write the report"))?;
    Ok(ExitCode::SUCCESS)
}

/// Serves the requests of one connection.
fn serve(client: TcpStream, timeout: Duration, requests: &Cell<u64>) -> hyper::Result<()> {
    // An error of the system comes back with the first write.
    let _ = client.set_nodelay(true);
    let mut server = http1::Builder::new();
    server.timer(GreenTimer).header_read_timeout(timeout);
    let service = service_fn(|request| answer(request, requests));
    block_on(server.serve_connection(AsyncIo::new(client), service))
}

async fn answer(request: Request<Incoming>, requests: &Cell<u64>) -> Result<Response<Full<Bytes>>, Infallible> {
    requests.set(requests.get() + 1);
    let (status, body) = match request.uri().path() {
        "/" => (StatusCode::OK, Bytes::from(format!("{} requests\n", requests.get()))),
        "/sleep" => {
            sleep(Duration::from_secs(1)).await;
            (StatusCode::OK, Bytes::from_static(b"slept for a second\n"))
        }
        "/echo" => match http_body_util::Limited::new(request, LARGEST).collect().await {
            Ok(body) => (StatusCode::OK, body.to_bytes()),
            Err(_) => (StatusCode::PAYLOAD_TOO_LARGE, Bytes::from_static(b"a body has at most 1 MiB\n")),
        },
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"only /, /sleep and /echo\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    Ok(response)
}
