//! A chat server: it sends each line of a client to all other clients.
//!
//! `cargo run --release --example chat` listens on port 7001 of this machine; `nc localhost 7001` is a client. Two
//! green threads serve each client: a reader and a writer. A bounded queue of lines connects the room and the writer.
//! If the queue of a client is full, the room removes the client. So a slow client costs little memory and delays no
//! other.

#[path = "../cli/mod.rs"]
mod cli;
mod client;
mod room;

use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use greenhub::GreenPool;
use greenhub::net::{ListenOptions, Served, StopServe, TcpStream, serve_until};
use greenhub::signal::{SIGINT, SIGTERM};

use crate::cli::Failure;
use crate::room::Room;

/// A chat server: sends each line of a client to all other clients.
///
/// Clients are programs that send and print lines, such as nc or telnet. The first line is a name. /who lists the
/// clients, and /quit leaves. Ctrl-C stops the server.
///
/// Exit status: 0 after Ctrl-C, 1 after an error, 2 for wrong usage.
#[derive(Parser)]
#[command(name = "chat")]
struct Options {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7001", value_parser = cli::address)]
    listen: String,

    /// Number of clients served at the same time; others wait
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    max_clients: u32,

    /// Capacity of the queue of lines for each client; a client whose queue is full is disconnected
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    queue: u32,

    /// Time limit for a client to send its name and to accept a line, in seconds
    #[arg(long, value_name = "S", default_value = "60", value_parser = cli::seconds, allow_negative_numbers = true)]
    client_timeout: Duration,

    /// Hub to use [default: the one in GREENHUB_HUB, or the best available]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// The time limit for sending the last lines after Ctrl-C.
const FAREWELL: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    cli::main(run)
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    cli::use_hub(options.hub.as_deref())?;
    let stop = StopServe::on_signals([SIGINT, SIGTERM], FAREWELL);
    let stop = stop.map_err(Failure::doing("cannot wait for Ctrl-C"))?;
    let address = options.listen.as_str();
    let failed = Failure::doing(format!("cannot listen on {address}"));
    let listener = ListenOptions::new().listen(address).map_err(failed)?;
    let address = listener.local_addr().map_err(Failure::doing("cannot listen"))?;
    eprintln!("listening on {address}; Ctrl-C ends it");

    let room = Rc::new(Room::new(options.queue as usize));
    let (closing, stopped) = (Rc::clone(&room), stop.clone());
    greenhub::spawn(move || {
        // Close after an error, too: nothing else would end the clients.
        let _ = stopped.wait();
        closing.close();
    });
    let (pool, timeout) = (GreenPool::new(options.max_clients as usize), options.client_timeout);
    let own = Rc::clone(&room);
    let served = serve_until(&stop, &listener, &pool, move |stream: TcpStream, _| {
        // Ignore an error: the client has closed the connection, or was too slow.
        let _ = client::serve(&own, stream, timeout);
    });
    report(&room, served.map_err(Failure::doing("cannot accept connections"))?)
        .map_err(Failure::doing("cannot write the report"))?;
    Ok(ExitCode::SUCCESS)
}

fn report(room: &Room, served: Served) -> io::Result<()> {
    let (clients, lines, slow) = (served.accepted, room.lines(), room.slow());
    writeln!(io::stdout(), "{clients} clients, {lines} lines, {slow} removed as too slow")
}
