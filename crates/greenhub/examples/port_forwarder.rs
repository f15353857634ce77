//! Forwards connections to another address.
//!
//! `cargo run --release --example port_forwarder -- 127.0.0.1:8080 example.org:80` listens on port 8080. Each
//! connection has two green threads, one for each direction. When one side shuts down its sending half, the forwarder
//! does the same to the other side, which may continue to send.

mod cli;

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use greenhub::GreenPool;
use greenhub::net::{ListenOptions, StopServe, TcpStream, serve_until};
use greenhub::signal::{SIGINT, SIGTERM};

use crate::cli::Failure;

/// Forwards connections to another address.
///
/// Ctrl-C stops it. Open connections may continue for up to --farewell seconds.
///
/// Exit status: 0 after Ctrl-C, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "port_forwarder")]
struct Options {
    /// Address to listen on
    #[arg(value_name = "FROM", value_parser = cli::address)]
    from: String,

    /// Address to forward to; a host name is looked up for each connection
    #[arg(value_name = "TO", value_parser = cli::address)]
    to: String,

    /// Number of connections forwarded at the same time; others wait
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    most: u32,

    /// Seconds without data in either direction after which a connection is closed [default: no limit]
    #[arg(long, value_name = "S", value_parser = cli::seconds, allow_negative_numbers = true)]
    idle: Option<Duration>,

    /// Seconds that open connections may continue after Ctrl-C
    #[arg(long, value_name = "S", default_value = "1", value_parser = cli::seconds, allow_negative_numbers = true)]
    farewell: Duration,

    /// Print a line for each connection
    #[arg(long)]
    verbose: bool,

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
    let from = options.from.as_str();
    let listener = ListenOptions::new().listen(from).map_err(Failure::doing(format!("cannot listen on {from}")))?;
    let address = listener.local_addr().map_err(Failure::doing("cannot listen"))?;
    eprintln!("forwarding {address} to {}; Ctrl-C ends it", options.to);

    let (pool, totals) = (GreenPool::new(options.most as usize), Rc::new(Totals::default()));
    let count = Rc::clone(&totals);
    let served = serve_until(&stop, &listener, &pool, move |client, peer| forward(&options, client, peer, &count));
    let served = served.map_err(Failure::doing("cannot accept connections"))?;
    let (there, back, failed) = (totals.there.get(), totals.back.get(), totals.failed.get());
    let connections = served.accepted;
    writeln!(io::stdout(), "{connections} connections, {failed} failed; {there} bytes there, {back} bytes back")
        .map_err(Failure::doing("cannot write the report"))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Default)]
struct Totals {
    there: Cell<u64>,
    back: Cell<u64>,
    failed: Cell<u64>,
}

fn forward(options: &Options, client: TcpStream, peer: SocketAddr, totals: &Rc<Totals>) {
    let forwarded = TcpStream::connect(options.to.as_str())
        .map_err(|error| io::Error::new(error.kind(), format!("cannot connect to {}: {error}", options.to)))
        .and_then(|server| both_ways(client, server, options.idle, totals));
    if forwarded.is_err() {
        totals.failed.set(totals.failed.get() + 1);
    }
    match forwarded {
        Err(error) => eprintln!("port_forwarder: {peer}: {error}"),
        Ok((there, back)) if options.verbose => eprintln!("{peer}: {there} bytes there, {back} bytes back"),
        Ok(_) => {}
    }
}

/// Copies both directions, and returns the number of bytes to the server and back.
fn both_ways(
    client: TcpStream,
    server: TcpStream,
    idle: Option<Duration>,
    totals: &Rc<Totals>,
) -> io::Result<(u64, u64)> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    // Data in one direction restarts the idle time of both.
    let watch = Rc::new(Watch { idle, moved: Cell::new(0) });
    let (shared_watch, shared_totals) = (Rc::clone(&watch), Rc::clone(totals));
    let there = greenhub::spawn(move || one_way(&from, &to, &shared_watch, &shared_totals.there));
    let back = one_way(&server, &client, &watch, &totals.back);
    if back.is_err() {
        // One direction is useless without the other.
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
    let there = there.join().map_err(io::Error::from)?;
    Ok((there?, back?))
}

struct Watch {
    idle: Option<Duration>,
    /// The number of copied pieces, in both directions.
    moved: Cell<u64>,
}

/// Copies from `from` to `to` until the end, shuts down the sending half of `to`, and returns the number of bytes.
fn one_way(mut from: &TcpStream, mut to: &TcpStream, watch: &Watch, total: &Cell<u64>) -> io::Result<u64> {
    let mut piece = vec![0; 16 << 10];
    let mut copied = 0;
    from.set_read_timeout(watch.idle)?;
    loop {
        let before = watch.moved.get();
        let moved = from.read(&mut piece).and_then(|count| to.write_all(&piece[..count]).map(|()| count));
        let count = match moved {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::TimedOut && watch.moved.get() != before => continue,
            Err(error) => {
                // Shutting down both sockets ends the other direction as well.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return Err(error);
            }
        };
        watch.moved.set(watch.moved.get() + 1);
        copied += count as u64;
        total.set(total.get() + count as u64);
    }
    // Ignore an error: the peer of `to` may have closed already.
    let _ = to.shutdown(Shutdown::Write);
    Ok(copied)
}
