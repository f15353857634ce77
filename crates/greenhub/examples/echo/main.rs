//! An echo server and its clients: every connection has a green thread on each side.
//!
//! `cargo run --release --example echo` runs both in one process over loopback TCP, shows the progress, and ends with a
//! table. The clients compare every byte that comes back. `--server ADDR` and `--connect ADDR` split the run over two
//! processes.

#[path = "../cli/mod.rs"]
mod cli;
mod client;
mod options;
mod progress;
mod report;
mod server;
mod system;

use greenhub::signal::{SIGINT, SIGTERM, Signals};
use greenhub::sync::WaitError;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cli::Failure;
use crate::options::{Mode, Options};
use crate::progress::Progress;
use crate::report::Report;
use crate::server::Server;
use crate::system::Calls;

/// Waits for Ctrl-C or the end of the run. Switches.
fn wait_for_end(signals: &Signals, time: Option<Duration>) -> Result<(), WaitError> {
    let Some(time) = time else { return Ok(signals.wait().map(drop)?) };
    match signals.wait_timeout(time) {
        Ok(_) | Err(WaitError::TimedOut) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The state that all green threads of a run share.
struct Run {
    /// Whether the run is over. Clients then send no further message.
    stopping: Cell<bool>,
    /// The number of connections that clients have opened.
    connected: Cell<usize>,
    /// The number of connections that the server has accepted.
    accepted: Cell<usize>,
    /// The number of messages that clients have compared.
    compared: Cell<u64>,
    /// The number of bytes that the server has sent back.
    served: Cell<u64>,
    failures: Arc<Mutex<Failures>>,
    /// The round-trip times in nanoseconds, up to [`LONGEST`].
    latencies: RefCell<Histogram<u64>>,
}

impl Run {
    fn new() -> Rc<Run> {
        let failures = Arc::<Mutex<Failures>>::default();
        // Count reported failures, too, such as a server that cannot accept.
        let reported = Arc::clone(&failures);
        greenhub::debug::set_report_stream(move |report| Failures::add(&reported, report.to_string()));
        Rc::new(Run {
            stopping: Cell::new(false),
            connected: Cell::new(0),
            accepted: Cell::new(0),
            compared: Cell::new(0),
            served: Cell::new(0),
            failures,
            latencies: RefCell::new(Histogram::new_with_max(LONGEST, 3).expect("a minute in three digits")),
        })
    }

    /// Returns the number of round trips of messages of `bytes` bytes.
    ///
    /// A process without clients derives the number from the bytes that it has sent back.
    fn round_trips(&self, bytes: u64) -> u64 {
        if self.compared.get() > 0 { self.compared.get() } else { self.served.get() / bytes }
    }

    /// Counts a failure.
    fn failed(&self, doing: &str, error: &dyn Display) {
        Failures::add(&self.failures, format!("{doing}: {error}"));
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The failures of a run.
#[derive(Default)]
struct Failures {
    count: u64,
    first: Option<String>,
}

impl Failures {
    fn add(failures: &Mutex<Failures>, text: String) {
        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        failures.first.get_or_insert(text);
    }
}

/// The longest round-trip time in the histogram, in nanoseconds. Longer times count as this one.
const LONGEST: u64 = 60_000_000_000;

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

fn main() -> ExitCode {
    cli::main(|mut options: Options| {
        let report = run(&mut options)?;
        report.print(options.json).map_err(Failure::doing("cannot write the report"))?;
        Ok(report.exit_code())
    })
}

fn run(options: &mut Options) -> Result<Report, Failure> {
    let hub = cli::use_hub(options.hub.as_deref())?;
    system::fit_to_hub(options, hub.name()).map_err(Failure::Run)?;
    system::raise_descriptor_limit(options).map_err(Failure::Run)?;
    system::require_memory(options).map_err(Failure::Run)?;
    let signals = Signals::new([SIGINT, SIGTERM]).map_err(Failure::doing("cannot wait for Ctrl-C"))?;
    let run = Run::new();

    let (server, addresses) = match options.mode() {
        Mode::Both => {
            let server = Server::start(&run, LOOPBACK, listeners(options.connections()))?;
            let addresses = server.addresses().to_vec();
            (Some(server), addresses)
        }
        Mode::Server(address) => {
            let server = Server::start(&run, resolve(address)?, 1)?;
            eprintln!("serving on {}; Ctrl-C ends it", server.addresses()[0]);
            (Some(server), Vec::new())
        }
        Mode::Clients(address) => (None, vec![resolve(address)?]),
    };
    let progress = Progress::start(&run, options);

    let bytes_before = system::resident_bytes();
    let connected = client::connect(&run, options, &addresses);
    let connections = connected.len();
    let calls_before = Calls::of(&hub);
    let started = Instant::now();
    let clients = client::start(&run, connected, options.bytes);
    if connections > 0 || addresses.is_empty() {
        wait_for_end(&signals, options.duration()).map_err(Failure::doing("waiting for the end"))?;
    }

    // Measure memory now: every connection is open, and its green threads are parked.
    let bytes_after = system::resident_bytes();
    let green_threads = (connections + server.as_ref().map_or(0, Server::connections)) as u64;
    run.stopping.set(true);
    client::join(&run, clients);
    let seconds = started.elapsed();
    let calls = Calls::of(&hub) - calls_before;
    if let Some(server) = server {
        server.stop(&run);
    }
    progress.stop();

    let round_trips = run.round_trips(options.bytes as u64);
    let latencies = run.latencies.borrow();
    let mut failures = run.failures();
    Ok(Report {
        hub: hub.name(),
        connections: if addresses.is_empty() { run.accepted.get() } else { connections },
        bytes: options.bytes,
        seconds,
        round_trips,
        latencies: (!latencies.is_empty()).then(|| [50.0, 99.0, 99.9].map(|p| latencies.value_at_percentile(p))),
        resident_bytes: bytes_before
            .zip(bytes_after)
            .and_then(|(before, after)| after.saturating_sub(before).checked_div(green_threads)),
        calls: (round_trips > 0).then(|| calls.count() as f64 / round_trips as f64),
        errors: failures.count,
        first_error: failures.first.take(),
        idle_is_success: addresses.is_empty(),
    })
}

/// Any free port of the loopback interface.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Returns the number of listening sockets for a number of connections.
///
/// The system has about 28,000 ephemeral ports for connections from one address to one listening socket.
fn listeners(connections: usize) -> usize {
    const PER_LISTENER: usize = 20_000;
    connections.div_ceil(PER_LISTENER)
}

fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let failed = |error: io::Error| Failure::Run(format!("cannot find {address}: {error}"));
    let mut found = std::net::ToSocketAddrs::to_socket_addrs(address).map_err(failed)?;
    found.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

/// The time limit for connecting and for each read and write of a client.
const TIMEOUT: Duration = Duration::from_secs(30);
