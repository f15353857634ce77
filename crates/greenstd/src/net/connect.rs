//! Connecting, with options.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use super::addr::each_address;
use super::{TcpStream, ToSocketAddrs};
use crate::socket::Socket;

/// How to connect, if not as [`TcpStream::connect`] does: Eventlet's `connect` with its arguments.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::net::{ConnectOptions, TcpListener};
/// use std::time::Duration;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let options = ConnectOptions::new().source(([127, 0, 0, 1], 0).into()).timeout(Duration::from_secs(10));
/// let client = options.connect(listener.local_addr()?)?;
/// assert!(client.local_addr()?.ip().is_loopback());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct ConnectOptions {
    source: Option<SocketAddr>,
    timeout: Option<Duration>,
}

impl ConnectOptions {
    /// What [`TcpStream::connect`] does.
    #[must_use]
    pub const fn new() -> ConnectOptions {
        ConnectOptions { source: None, timeout: None }
    }

    /// From which address; the port is the system's choice if it is 0. The address is used again at once, as
    /// [`TcpListener::bind`](super::TcpListener::bind) does (`SO_REUSEADDR`).
    #[must_use]
    pub const fn source(self, address: SocketAddr) -> ConnectOptions {
        ConnectOptions { source: Some(address), ..self }
    }

    /// How long it may take, all addresses together. Looking up a name is not counted.
    #[must_use]
    pub const fn timeout(self, timeout: Duration) -> ConnectOptions {
        ConnectOptions { timeout: Some(timeout), ..self }
    }

    /// Connects to an address; to the first that answers, if there are several. Switches.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a timeout of zero; [`TimedOut`](io::ErrorKind::TimedOut); why
    /// the last address could not be reached, be it that the source is of another kind, or the name not be looked up.
    pub fn connect<A: ToSocketAddrs>(&self, address: A) -> io::Result<TcpStream> {
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a 0 duration timeout"));
        }
        let mut begun = None;
        each_address(address, |address| {
            let spent = begun.get_or_insert_with(Instant::now).elapsed();
            let left = self.timeout.map(|timeout| timeout.saturating_sub(spent));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let socket = Socket::new(Domain::for_address(address), Type::STREAM)?;
            if let Some(source) = self.source {
                socket.configure(|socket| {
                    socket.set_reuse_address(true)?;
                    socket.bind(&source.into())
                })?;
            }
            socket.connect(&address.into(), left)?;
            Ok(TcpStream::new(socket))
        })
    }
}
