//! Servers of every runtime in Rust, which all read a request and write its answer until the client leaves.
//!
//! A server is a process of its own: its listener is its standard input. `peers/` has the same servers in C and Go.

mod by_hand;
mod green;
mod http;
mod on_may;
mod on_monoio;
mod on_smol;
mod on_tokio;

use std::hint::black_box;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

/// The size of the buffer of a connection.
const BUFFER: usize = 1024;

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nHello, world!";

/// The steps of [`Service::Work`], about 100 µs. The Go peer takes as many.
const STEPS: u64 = 40_000;

/// The answer to a request.
#[derive(Copy, Clone, Debug)]
pub enum Service {
    /// The bytes of the request.
    Echo,
    /// The same response to each request by HTTP. A request must come in one piece.
    Http,
    /// The bytes of the request, after some work.
    Work,
}

impl Service {
    fn named(name: &str) -> Option<Service> {
        match name {
            "echo" => Some(Service::Echo),
            "http" => Some(Service::Http),
            "work" => Some(Service::Work),
            _ => None,
        }
    }

    fn answer(self, request: &[u8]) -> &[u8] {
        match self {
            Service::Echo => request,
            Service::Http => RESPONSE,
            Service::Work => {
                black_box((0..STEPS).fold(black_box(1), |number, _| scrambled(number)));
                request
            }
        }
    }
}

/// Takes a step of the generator xorshift, which no compiler can shorten.
fn scrambled(mut number: u64) -> u64 {
    number ^= number << 13;
    number ^= number >> 7;
    number ^ number << 17
}

/// A listener of one of the families of sockets.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix stream sockets.
    Unix(UnixListener),
}

impl Listener {
    /// Takes the standard input of this process.
    fn inherited(family: &str) -> io::Result<Listener> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        match family {
            "tcp" => Ok(Listener::Tcp(socket.into())),
            "unix" => Ok(Listener::Unix(socket.into())),
            _ => Err(io::Error::other(format!("no such family of sockets: {family}"))),
        }
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> OwnedFd {
        match listener {
            Listener::Tcp(listener) => listener.into(),
            Listener::Unix(listener) => listener.into(),
        }
    }
}

/// Serves until the process is killed.
///
/// `words` are the name of a runtime, the name of a service, and the family of the listener. The server
/// `greenhub-cluster` listens by itself and takes an address instead of the family. The multi-thread servers take the
/// number of OS threads as a fourth word.
///
/// # Errors
///
/// Returns an error if a word has no meaning, or if the server fails.
pub fn serve(words: &[&str]) -> io::Result<()> {
    let unknown = || io::Error::other(format!("no such server: {}", words.join(" ")));
    let (runtime, service, family, threads) = match *words {
        [runtime, service, family] => (runtime, service, family, 1),
        [runtime, service, family, threads] => (runtime, service, family, threads.parse().map_err(|_| unknown())?),
        _ => return Err(unknown()),
    };
    let by_library = match (runtime, service) {
        ("greenhub", "hyper") => Some(http::greenhub as fn(_) -> _),
        ("greenhub", "adapters") => Some(http::adapters as _),
        ("tokio", "hyper") => Some(http::tokio as _),
        _ => None,
    };
    if let Some(serve) = by_library {
        let Listener::Tcp(listener) = Listener::inherited(family)? else { return Err(unknown()) };
        return serve(listener);
    }
    let service = Service::named(service).ok_or_else(unknown)?;
    if runtime == "greenhub-cluster" {
        return green::cluster(family, service, threads);
    }
    let listener = Listener::inherited(family)?;
    match runtime {
        "epoll" => by_hand::serve(listener, service),
        "greenhub" => green::serve(listener, service),
        "tokio" => on_tokio::serve(listener, service, None),
        "tokio-multi" => on_tokio::serve(listener, service, Some(threads)),
        "may" => on_may::serve(listener, service),
        "smol" => on_smol::serve(listener, service),
        "monoio" => on_monoio::serve(listener),
        _ => Err(unknown()),
    }
}
