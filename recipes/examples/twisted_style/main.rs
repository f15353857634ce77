//! An HTTP proxy whose handlers are green threads inside of a Tokio program, as Eventlet's were inside of Twisted.
//!
//! `cargo run --release -p recipes --example twisted_style -- 127.0.0.1:8080` is a proxy for clients that know of it:
//! `curl --proxy 127.0.0.1:8080 http://example.org/`. With `--origin HOST:PORT` it answers as if it were that server.
//!
//! Tokio accepts connections, waits for Ctrl-C and drives everything. Each connection is handled in straight-line code.

#[path = "../../../crates/greenhub/examples/cli/mod.rs"]
mod cli;
mod http;
mod proxy;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use hub_tokio::GreenTransport;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::{runtime, select, time};

use crate::cli::Failure;
use crate::proxy::Proxy;

/// Passes HTTP/1 requests on, each connection in a green thread inside of a Tokio program.
///
/// Ctrl-C stops it. Open connections may continue for the time of --farewell.
///
/// Exit status: 0 after Ctrl-C, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "twisted_style")]
struct Options {
    /// Address to listen on
    #[arg(value_name = "ADDRESS", value_parser = cli::address)]
    address: String,

    /// Server that gets the requests without a host of their own
    #[arg(long, value_name = "HOST:PORT", value_parser = cli::address)]
    origin: Option<String>,

    /// Seconds without data after which a connection is closed
    #[arg(long, value_name = "S", default_value = "30", value_parser = cli::seconds, allow_negative_numbers = true)]
    timeout: Duration,

    /// Seconds that open connections may continue after Ctrl-C
    #[arg(long, value_name = "S", default_value = "1", value_parser = cli::seconds, allow_negative_numbers = true)]
    farewell: Duration,

    /// Print no line for each request
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::doing("cannot start a runtime"))?;
    // Green threads run until the future is ready.
    let served = runtime.block_on(hub_tokio::run_until(serve(options)));
    let served = served.map_err(Failure::doing("cannot run green threads"))??;
    writeln!(io::stdout(), "{served}").map_err(Failure::doing("cannot write the report"))?;
    // Unwinds the green threads of connections that are still open.
    greenhub::get_hub().shutdown(Duration::from_secs(1)).map_err(Failure::doing("cannot close the connections"))?;
    Ok(ExitCode::SUCCESS)
}

/// The part of the program that is Tokio's. It must not block, so it leaves the connections to green threads.
async fn serve(options: Options) -> Result<String, Failure> {
    let address = options.address.as_str();
    let listener = TcpListener::bind(address).await.map_err(Failure::doing(format!("cannot listen on {address}")))?;
    let address = listener.local_addr().map_err(Failure::doing("cannot listen"))?;
    let interrupt = || signal(SignalKind::interrupt()).map_err(Failure::doing("cannot wait for Ctrl-C"));
    let (mut interrupt, mut terminate) = (interrupt()?, signal(SignalKind::terminate()).ok());
    eprintln!("proxy on http://{address}/; Ctrl-C ends it");

    let proxy = Rc::new(Proxy::new(options.origin, options.timeout, !options.quiet));
    loop {
        let terminated = async { if let Some(signal) = &mut terminate { signal.recv().await } else { None } };
        select! {
            accepted = listener.accept() => handle(&proxy, accepted).await,
            _ = interrupt.recv() => break,
            _ = terminated => break,
        }
    }
    drop(listener);
    let _ = time::timeout(options.farewell, proxy.wait_for_the_last()).await;
    Ok(proxy.to_string())
}

/// Handles a connection in a green thread of its own.
async fn handle(proxy: &Rc<Proxy>, accepted: io::Result<(TcpStream, SocketAddr)>) {
    match accepted {
        Ok((client, peer)) => {
            let proxy = Rc::clone(proxy);
            let connection = proxy.count_connection();
            greenhub::spawn_n(move || {
                let _connection = connection;
                // An error of the system comes back with the first write.
                let _ = client.set_nodelay(true);
                if let Err(error) = proxy.handle(&GreenTransport::new(client), peer) {
                    eprintln!("twisted_style: {peer}: {error}");
                }
            });
        }
        Err(error) => {
            eprintln!("twisted_style: cannot accept: {error}");
            // Descriptors become free when other connections end.
            time::sleep(Duration::from_millis(100)).await;
        }
    }
}
