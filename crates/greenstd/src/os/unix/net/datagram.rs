//! Unix datagram sockets.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Type};

use super::{at, at_path, local_addr, peer_addr, peer_name};
use crate::socket::{Direction, Socket};

/// A Unix datagram socket, std's `UnixDatagram`. No datagram is lost: sending waits for room.
///
/// Sending and receiving park only the calling green thread. It is `Send + Sync`; one green thread may receive while
/// another sends. A second receiver needs a [clone](UnixDatagram::try_clone).
///
/// ```
/// use greenhub::os::unix::net::UnixDatagram;
/// let (one, other) = UnixDatagram::pair()?;
/// greenhub::spawn(move || other.send(b"hello"));
/// let mut buffer = [0; 16];
/// let n = one.recv(&mut buffer)?;
/// assert_eq!(&buffer[..n], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UnixDatagram(Socket);

socket_common!(UnixDatagram, std::os::unix::net::UnixDatagram);
socket_timeouts!(UnixDatagram);

impl UnixDatagram {
    /// Creates a Unix datagram socket bound to the given path. Does not switch.
    ///
    /// The path must not exist, and is not removed with the socket.
    ///
    /// # Errors
    ///
    /// Returns the system's error, for example if the path exists or is too long.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        UnixDatagram::open(&at_path(path.as_ref())?)
    }

    /// Creates a Unix datagram socket bound to an address. Does not switch.
    ///
    /// Apart from the form of the address, this is [`bind`](UnixDatagram::bind).
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn bind_addr(address: &SocketAddr) -> io::Result<UnixDatagram> {
        UnixDatagram::open(&at(address)?)
    }

    fn open(address: &SockAddr) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.0.configure(|socket| socket.bind(address))?;
        Ok(socket)
    }

    /// Creates a Unix datagram socket which is not bound to any address. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptor is free.
    pub fn unbound() -> io::Result<UnixDatagram> {
        Ok(UnixDatagram(Socket::new(Domain::UNIX, Type::DGRAM)?))
    }

    /// Creates an unnamed pair of connected sockets. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptors are free.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (one, other) = Socket::pair(Type::DGRAM)?;
        Ok((UnixDatagram(one), UnixDatagram(other)))
    }

    /// Connects the socket to the specified path. Does not switch.
    ///
    /// From then on it exchanges datagrams with that socket only, by [`send`](UnixDatagram::send) and
    /// [`recv`](UnixDatagram::recv).
    ///
    /// # Errors
    ///
    /// Returns the system's error, for example if there is no such socket.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let address = at_path(path.as_ref())?;
        self.0.configure(|socket| socket.connect(&address))
    }

    /// Connects the socket to an address. Does not switch.
    ///
    /// Apart from the form of the address, this is [`connect`](UnixDatagram::connect).
    ///
    /// # Errors
    ///
    /// Returns the system's error, for example if there is no such socket.
    pub fn connect_addr(&self, address: &SocketAddr) -> io::Result<()> {
        let address = at(address)?;
        self.0.configure(|socket| socket.connect(&address))
    }

    /// Returns the address of this socket.
    ///
    /// # Errors
    ///
    /// Returns an error if the socket was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// Returns the address of this socket's peer.
    ///
    /// # Errors
    ///
    /// Returns an error if it is not connected, or was closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        peer_addr(&self.0)
    }

    /// Receives data from the socket, and returns its origin. Switches.
    ///
    /// Bytes that do not fit into the buffer are lost.
    ///
    /// # Errors
    ///
    /// Returns the system's error, or [`TimedOut`](io::ErrorKind::TimedOut) after the read timeout.
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, address) = self.0.recv_from(buffer, false)?;
        Ok((n, peer_name(address)))
    }

    /// Receives data from the socket. Switches.
    ///
    /// Bytes that do not fit into the buffer are lost.
    ///
    /// # Errors
    ///
    /// Like [`recv_from`](UnixDatagram::recv_from).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_datagram(buffer, false)
    }

    /// Sends data on the socket to the specified path. Switches.
    ///
    /// While the receiver is full the call is repeated with growing pauses: the system does not report room.
    ///
    /// # Errors
    ///
    /// Returns the system's error, or [`TimedOut`](io::ErrorKind::TimedOut) after the write timeout.
    pub fn send_to<P: AsRef<Path>>(&self, data: &[u8], path: P) -> io::Result<usize> {
        self.0.send_to_local(data, &at_path(path.as_ref())?)
    }

    /// Sends data on the socket to an address, like [`send_to`](UnixDatagram::send_to). Switches.
    ///
    /// # Errors
    ///
    /// Like [`send_to`](UnixDatagram::send_to).
    pub fn send_to_addr(&self, data: &[u8], address: &SocketAddr) -> io::Result<usize> {
        self.0.send_to_local(data, &at(address)?)
    }

    /// Sends data on the socket to the socket's peer. Switches.
    ///
    /// # Errors
    ///
    /// Like [`send_to`](UnixDatagram::send_to), and if the socket is not connected.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.send(data)
    }

    /// Shuts down the read, write, or both halves of this connection. Does not switch.
    ///
    /// It acts on every clone: operations that wait for these halves return, on all OS threads. A sender that waits for
    /// room at its receiver also returns, within 64 ms, when the receiver shuts down reading; in std it keeps waiting.
    ///
    /// # Errors
    ///
    /// Returns an error if it is not connected, or was closed.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }
}

impl fmt::Debug for UnixDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("UnixDatagram", self.local_addr(), self.peer_addr(), f)
    }
}
