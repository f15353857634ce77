//! Echoes over kept connections, and connections that are closed after one byte.

use std::io;
use std::time::Duration;

use benches::figures::{Figures, skip};
use benches::load::Clients;
use benches::peers::Peer;
use benches::processors::{load_and_server, restrict_to};
use rustix::process::{Resource, getrlimit};

use crate::contender::{Contender, Cost, Family, Server, print};

const WARM_UP: Duration = Duration::from_millis(80);
const RUN: Duration = Duration::from_millis(300);

/// The open connections of a storm.
const AT_ONCE: usize = 50;

/// The most connections of a storm, fewer than the ports of a client.
const MOST: u64 = 20_000;

pub(crate) fn measure_all(figures: &Figures) -> io::Result<()> {
    let Some((load, server)) = load_and_server() else {
        skip("servers under load", "they need two processors");
        return Ok(());
    };
    restrict_to(&[load])?;
    let contenders = contenders()?;
    for (family, sockets) in [(Family::Tcp, "TCP connections"), (Family::Unix, "Unix sockets")] {
        for (connections, shown) in [(1, "1"), (50, "50"), (1_000, "1,000"), (10_000, "10,000")] {
            let group = format!("echo under load, {shown} {sockets}");
            if getrlimit(Resource::Nofile).current.is_some_and(|limit| limit < connections as u64 + 100) {
                skip(&group, "the limit of open files is too low");
                continue;
            }
            for contender in contenders.iter().filter(|contender| figures.wants(&group, contender.name)) {
                print(figures, &group, contender.name, echo(contender, family, connections, server))?;
            }
        }
    }
    let group = "a connection for one byte, 50 at once";
    for contender in contenders.iter().filter(|contender| figures.wants(group, contender.name)) {
        print(figures, group, contender.name, storm(contender, server))?;
    }
    Ok(())
}

fn contenders() -> io::Result<Vec<Contender>> {
    let runtimes = [
        ("greenhub", "greenhub"),
        ("raw epoll", "epoll"),
        ("tokio", "tokio"),
        ("tokio, multi-thread", "tokio-multi"),
        ("may", "may"),
        ("smol", "smol"),
        ("monoio", "monoio"),
    ];
    let mut contenders = runtimes
        .iter()
        .map(|(name, runtime)| Contender::this(name, runtime, "echo"))
        .collect::<io::Result<Vec<_>>>()?;
    for peer in Peer::SERVERS {
        contenders.extend(Contender::peer(peer, &[])?);
    }
    contenders.extend(Contender::peer(Peer::GO, &["serve", "echo"])?);
    Ok(contenders)
}

fn echo(contender: &Contender, family: Family, connections: usize, processor: usize) -> io::Result<Cost> {
    let mut server = Server::start(contender, family, &[processor])?;
    let mut clients = server.explained(|address| Clients::open(address, connections))?;
    server.explained(|_| clients.ask(WARM_UP))?;
    server.cost(|_| clients.ask(RUN))
}

fn storm(contender: &Contender, processor: usize) -> io::Result<Cost> {
    let mut server = Server::start(contender, Family::Tcp, &[processor])?;
    server.explained(|address| Clients::storm(address, AT_ONCE, MOST / 10, WARM_UP))?;
    server.cost(|address| Clients::storm(address, AT_ONCE, MOST, RUN))
}
