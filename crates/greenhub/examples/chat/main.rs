//! A chat server: what one says, all others hear.
//!
//! `cargo run --release --example chat` listens on port 7001 of this machine; `nc localhost 7001` is a client. Each client
//! is served by two green threads, one that reads and one that writes, with a bounded queue of lines between the
//! room and the writer. Whoever does not read its lines is put out before it costs memory, and nobody waits for it.

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

use crate::cli::Failure;
use crate::cli::signals::Signals;
use crate::room::Room;

/// A chat server: what one says, all others hear.
///
/// Clients are programs that send and show lines, such as nc or telnet. The first line is a name. /who tells who is here,
/// /quit ends. Ctrl-C ends the server.
///
/// Exit status: 0 if it was ended by Ctrl-C, 1 if something went wrong, 2 for wrong use.
#[derive(Parser)]
#[command(name = "chat")]
struct Options {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7001", value_parser = cli::address)]
    listen: String,

    /// How many clients are served at the same time; others wait
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    most: u32,

    /// How many lines may wait for a client; one that is further behind is put out
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    behind: u32,

    /// How long a client has to tell its name, and to take a line
    #[arg(long, value_name = "S", default_value = "60", value_parser = cli::seconds, allow_negative_numbers = true)]
    patience: Duration,

    /// Which hub to use [default: that of EVENTLET_HUB, or the best of this system]
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
}

/// How long clients have to take the last lines.
const FAREWELL: Duration = Duration::from_secs(1);

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
    eprintln!("listening on {address}; Ctrl-C ends it");

    let room = Rc::new(Room::new(options.behind as usize));
    let stop = StopServe::new();
    let (closing, last) = (Rc::clone(&room), stop.clone());
    greenhub::spawn(move || {
        // Whatever ends the wait: nobody could end the server any more.
        let _ = signals.wait(None);
        last.stop_within(FAREWELL);
        closing.close();
    });
    let (pool, patience) = (GreenPool::new(options.most as usize), options.patience);
    let own = Rc::clone(&room);
    let served = serve_until(&stop, &listener, &pool, move |stream: TcpStream, _| {
        // An error here is a client that has left without a word.
        let _ = client::serve(&own, stream, patience);
    });
    report(&room, served.map_err(Failure::doing("serving"))?).map_err(Failure::doing("cannot write the report"))?;
    Ok(ExitCode::SUCCESS)
}

fn report(room: &Room, served: Served) -> io::Result<()> {
    let (clients, lines, slow) = (served.accepted, room.lines(), room.slow());
    writeln!(io::stdout(), "{clients} clients, {lines} lines, {slow} clients were too slow")
}
