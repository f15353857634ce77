//! Requests that take processor time, on one OS thread and on two.

use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use benches::figures::Figures;
use benches::load::{Address, Clients};
use benches::peers::Peer;
use benches::processors::{processors, restrict_to};

use crate::contender::{Contender, Cost, Family, Server, print, reserved};

const WARM_UP: Duration = Duration::from_millis(50);
const RUN: Duration = Duration::from_millis(500);
const CONNECTIONS: usize = 64;

pub(crate) fn measure_all(figures: &Figures) -> io::Result<()> {
    if processors().len() < 2 {
        return Ok(());
    }
    restrict_to(processors())?;
    let tokio = Contender::this("tokio, multi-thread", "tokio-multi", "work")?;
    let go = Contender::peer(Peer::GO, &["serve", "work"])?;
    for (threads, group) in [("1", "a request of 100 µs on 1 OS thread"), ("2", "a request of 100 µs on 2 OS threads")]
    {
        if figures.wants(group, "greenhub") {
            print(figures, group, "greenhub", cluster(threads).and_then(cost))?;
        }
        for contender in [Some(&tokio), go.as_ref()].into_iter().flatten() {
            if figures.wants(group, contender.name) {
                let mut command = contender.command(Family::Tcp);
                // Only this program takes the number as a word.
                if contender.name != Peer::GO.name {
                    command.arg(threads);
                }
                command.env("GOMAXPROCS", threads);
                let started = Server::start_command(&mut command, Family::Tcp, processors());
                print(figures, group, contender.name, started.and_then(cost))?;
            }
        }
    }
    Ok(())
}

fn cost(mut server: Server) -> io::Result<Cost> {
    let mut clients = server.explained(|address| Clients::open(address, CONNECTIONS))?;
    server.explained(|_| clients.ask(WARM_UP))?;
    server.cost(|_| clients.ask(RUN))
}

/// Starts greenhub's `Cluster`, each of whose OS threads listens by itself.
fn cluster(threads: &str) -> io::Result<Server> {
    let (reserved, address) = reserved()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "greenhub-cluster", "work", &address.to_string(), threads]);
    Server::start_at(command.stdin(Stdio::from(reserved)), Address::Tcp(address), processors())
}
