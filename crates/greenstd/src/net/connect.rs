//! Connecting with options.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use super::addr::each_address;
use super::{TcpStream, ToSocketAddrs};
use crate::socket::Socket;

/// Settings for a connection beyond those of [`TcpStream::connect`]. Eventlet's `connect` with its arguments.
///
/// ```
/// use greenhub::net::{ConnectOptions, TcpListener};
/// use std::time::Duration;
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let options = ConnectOptions::new().source(([127, 0, 0, 1], 0).into()).timeout(Duration::from_secs(10));
/// let client = options.connect(listener.local_addr()?)?;
/// assert!(client.local_addr()?.ip().is_loopback());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "create_connection")]
#[doc(alias = "connect_timeout")]
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
#[must_use = "nothing is connected before `connect`"]
pub struct ConnectOptions {
    source: Option<SocketAddr>,
    timeout: Option<Duration>,
}

impl ConnectOptions {
    /// Creates the settings of [`TcpStream::connect`].
    pub const fn new() -> ConnectOptions {
        ConnectOptions { source: None, timeout: None }
    }

    /// Sets the local address. Port 0 lets the system choose the port.
    ///
    /// An address whose connections have just ended may be reused (`SO_REUSEADDR`), as in
    /// [`TcpListener::bind`](super::TcpListener::bind).
    pub const fn source(self, address: SocketAddr) -> ConnectOptions {
        ConnectOptions { source: Some(address), ..self }
    }

    /// Limits the time for all addresses together. The look-up of a name is not counted.
    pub const fn timeout(self, timeout: Duration) -> ConnectOptions {
        ConnectOptions { timeout: Some(timeout), ..self }
    }

    /// Connects to the first address that answers. Switches.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) for a timeout of zero, and
    /// [`TimedOut`](io::ErrorKind::TimedOut) after the timeout. Otherwise returns the error of the last address, for
    /// example if the local address is of another family, or the error of the name look-up.
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
