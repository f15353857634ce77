//! Forwards connections to another address.
//!
//! `cargo run --release --example port_forwarder -- 127.0.0.1:8080 example.org:80` listens on port 8080. Each connection has two
//! green threads, one for each direction; when one side ends what it says, the other is told, and may go on.

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

use crate::cli::Failure;
use crate::cli::signals::Signals;

/// Forwards connections to another address.
///
/// Ctrl-C ends it: connections that are open may end until the farewell is over.
///
/// Exit status: 0 if it was ended by Ctrl-C, 1 if something went wrong, 2 for wrong use.
#[derive(Parser)]
#[command(name = "port_forwarder")]
struct Options {
    /// Where to listen
    #[arg(value_name = "FROM", value_parser = cli::address)]
    from: String,

    /// Where to forward to; a name is looked up for each connection
    #[arg(value_name = "TO", value_parser = cli::address)]
    to: String,

    /// How many connections are forwarded at the same time; others wait
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    most: u32,

    /// How long a connection may be silent in both directions before it is closed [default: for ever]
    #[arg(long, value_name = "S", value_parser = cli::seconds, allow_negative_numbers = true)]
    idle: Option<Duration>,

    /// How long connections that are open may go on when it ends
    #[arg(long, value_name = "S", default_value = "1", value_parser = cli::seconds, allow_negative_numbers = true)]
    farewell: Duration,

    /// Tell of each connection
    #[arg(long)]
    verbose: bool,

    /// Which hub to use [default: that of EVENTLET_HUB, or the best of this system]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    cli::use_hub(options.hub.as_deref())?;
    let signals = Signals::new().map_err(Failure::doing("cannot wait for Ctrl-C"))?;
    let from = options.from.as_str();
    let listener = ListenOptions::new().listen(from).map_err(Failure::doing(format!("cannot listen on {from}")))?;
    let address = listener.local_addr().map_err(Failure::doing("cannot listen"))?;
    eprintln!("forwarding {address} to {}; Ctrl-C ends it", options.to);

    let stop = StopServe::new();
    let (last, farewell) = (stop.clone(), options.farewell);
    greenhub::spawn(move || {
        // Whatever ends the wait: nobody could end it any more.
        let _ = signals.wait(None);
        last.stop_within(farewell);
    });
    let (pool, totals) = (GreenPool::new(options.most as usize), Rc::new(Totals::default()));
    let count = Rc::clone(&totals);
    let served = serve_until(&stop, &listener, &pool, move |client, peer| forward(&options, client, peer, &count));
    let served = served.map_err(Failure::doing("forwarding"))?;
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

/// How much went there, and back.
fn both_ways(
    client: TcpStream,
    server: TcpStream,
    idle: Option<Duration>,
    totals: &Rc<Totals>,
) -> io::Result<(u64, u64)> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (asking, asked) = (client.try_clone()?, server.try_clone()?);
    // What the one direction carries keeps the other open.
    let watch = Rc::new(Watch { idle, moved: Cell::new(0) });
    let (own, sum) = (Rc::clone(&watch), Rc::clone(totals));
    let there = greenhub::spawn(move || one_way(&asking, &asked, &own, &sum.there));
    let back = one_way(&server, &client, &watch, &totals.back);
    if back.is_err() {
        // The other direction is of no use any more.
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
    let there = there.join().map_err(io::Error::from)?;
    Ok((there?, back?))
}

struct Watch {
    idle: Option<Duration>,
    /// How often anything was moved, in either direction.
    moved: Cell<u64>,
}

/// Copies until the source ends what it says, which the target is told. How much it was.
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
                // Both directions end.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return Err(error);
            }
        };
        watch.moved.set(watch.moved.get() + 1);
        copied += count as u64;
        total.set(total.get() + count as u64);
    }
    // It may be gone.
    let _ = to.shutdown(Shutdown::Write);
    Ok(copied)
}
