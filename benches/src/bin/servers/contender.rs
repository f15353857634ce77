//! The servers that are compared, as child processes.

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benches::children::Child;
use benches::figures::{Figures, Unit, skip};
use benches::load::Address;
use benches::peers::Peer;
use benches::unix_listener;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

/// A server that can be started.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    program: PathBuf,
    words: Vec<&'static str>,
    /// Whether the family of the sockets follows the words.
    takes_family: bool,
}

impl Contender {
    /// A server of this program.
    pub(crate) fn this(name: &'static str, runtime: &'static str, service: &'static str) -> io::Result<Contender> {
        let words = vec!["serve", runtime, service];
        Ok(Contender { name, program: env::current_exe()?, words, takes_family: true })
    }

    /// A server in C or Go, or `None` if its package is missing, which is printed.
    pub(crate) fn peer(peer: Peer, words: &[&'static str]) -> io::Result<Option<Contender>> {
        match peer.build()? {
            Ok(program) => Ok(Some(Contender { name: peer.name, program, words: words.into(), takes_family: false })),
            Err(missing) => {
                skip(peer.name, missing);
                Ok(None)
            }
        }
    }

    pub(crate) fn command(&self, family: Family) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.words).args(self.takes_family.then_some(family.word()));
        command
    }
}

/// The family of the sockets of a server.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    Tcp,
    Unix,
}

impl Family {
    fn word(self) -> &'static str {
        match self {
            Family::Tcp => "tcp",
            Family::Unix => "unix",
        }
    }
}

/// A server that runs. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: Address,
}

/// The nanoseconds of a request.
pub(crate) struct Cost {
    processor: f64,
    real: f64,
}

impl Server {
    /// Starts a server on some processors, with a new listener as its standard input.
    pub(crate) fn start(contender: &Contender, family: Family, processors: &[usize]) -> io::Result<Server> {
        Server::start_command(&mut contender.command(family), family, processors)
    }

    /// Starts the command of a contender.
    pub(crate) fn start_command(command: &mut Command, family: Family, processors: &[usize]) -> io::Result<Server> {
        let (listener, address) = listener(family)?;
        Server::start_at(command.stdin(Stdio::from(listener)), address, processors)
    }

    /// Starts a server that listens at an address.
    pub(crate) fn start_at(command: &mut Command, address: Address, processors: &[usize]) -> io::Result<Server> {
        Ok(Server { child: Child::start(command.stdout(Stdio::null()), processors)?, address })
    }

    /// Calls a client. If the server has ended, its error says so.
    pub(crate) fn explained<T>(&mut self, client: impl FnOnce(&Address) -> io::Result<T>) -> io::Result<T> {
        client(&self.address).map_err(|error| self.child.explain(error))
    }

    /// Returns the cost of a request. `ask` returns the number of requests.
    pub(crate) fn cost(&mut self, ask: impl FnOnce(&Address) -> io::Result<u64>) -> io::Result<Cost> {
        let (begun, before) = (Instant::now(), self.child.processor_time()?);
        let requests = self.explained(ask)?.max(1) as f64;
        let (real, processor) = (begun.elapsed(), self.child.processor_time()? - before);
        let each = |time: Duration| time.as_secs_f64() * 1e9 / requests;
        Ok(Cost { real: each(real), processor: each(processor) })
    }
}

/// Prints the figures of a contender: the server's processor time of a request, and the real time as another group.
///
/// A peer that fails is skipped.
///
/// # Errors
///
/// Returns the error of greenhub's own server.
pub(crate) fn print(figures: &Figures, group: &str, name: &str, cost: io::Result<Cost>) -> io::Result<()> {
    match cost {
        Ok(cost) => {
            figures.print(group, name, Unit::Processor, cost.processor);
            figures.print(&format!("{group}, real time"), name, Unit::Real, cost.real);
        }
        Err(error) if name.starts_with("greenhub") => {
            return Err(io::Error::other(format!("{group}, {name}: {error}")));
        }
        Err(error) => skip(&format!("{group}, {name}"), error),
    }
    Ok(())
}

fn listener(family: Family) -> io::Result<(OwnedFd, Address)> {
    match family {
        Family::Tcp => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = Address::Tcp(listener.local_addr()?);
            Ok((listener.into(), address))
        }
        Family::Unix => {
            let (listener, address) = unix_listener()?;
            Ok((listener.into(), Address::Unix(address)))
        }
    }
}

/// Reserves a port for a server that listens by itself and shares the port.
///
/// The socket does not listen, and so gets no connections. The server inherits it and so keeps the reservation.
pub(crate) fn reserved() -> io::Result<(OwnedFd, SocketAddr)> {
    let reserved = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseport(&reserved, true)?;
    bind(&reserved, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let address = SocketAddrV4::try_from(getsockname(&reserved)?)?;
    Ok((reserved, address.into()))
}
