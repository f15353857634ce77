//! Datagrams.

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

/// A datagram socket within this system, std's `UnixDatagram`. No datagram is lost: sending waits for room.
///
/// Sending and receiving park the calling green thread only. It is `Send + Sync`; one green thread may receive
/// while another sends, a second receiver needs a [clone](UnixDatagram::try_clone).
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::os::unix::net::UnixDatagram;
/// let (one, other) = UnixDatagram::pair()?;
/// hub_core::spawn(move || other.send(b"hello"));
/// let mut buffer = [0; 16];
/// let n = one.recv(&mut buffer)?;
/// assert_eq!(&buffer[..n], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct UnixDatagram(Socket);

socket_common!(UnixDatagram, std::os::unix::net::UnixDatagram);
socket_timeouts!(UnixDatagram);

impl UnixDatagram {
    /// A socket at a path, which must not exist yet and stays when the socket is gone. Does not switch.
    ///
    /// # Errors
    ///
    /// What the system says, in particular that the path exists or is too long.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        UnixDatagram::open(&at_path(path.as_ref())?)
    }

    /// A socket at an address, as [`bind`](UnixDatagram::bind).
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn bind_addr(address: &SocketAddr) -> io::Result<UnixDatagram> {
        UnixDatagram::open(&at(address)?)
    }

    fn open(address: &SockAddr) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.0.configure(|socket| socket.bind(address))?;
        Ok(socket)
    }

    /// A socket without a name. Does not switch.
    ///
    /// # Errors
    ///
    /// If no descriptor is free.
    pub fn unbound() -> io::Result<UnixDatagram> {
        Ok(UnixDatagram(Socket::new(Domain::UNIX, Type::DGRAM)?))
    }

    /// Two sockets that are connected to each other. Does not switch.
    ///
    /// # Errors
    ///
    /// If no descriptors are free.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (one, other) = Socket::pair(Type::DGRAM)?;
        Ok((UnixDatagram(one), UnixDatagram(other)))
    }

    /// Exchanges datagrams with the socket at one path only from now on, by [`send`](UnixDatagram::send) and
    /// [`recv`](UnixDatagram::recv). Does not switch.
    ///
    /// # Errors
    ///
    /// If there is no such socket.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let address = at_path(path.as_ref())?;
        self.0.configure(|socket| socket.connect(&address))
    }

    /// [`connect`](UnixDatagram::connect) with an address.
    ///
    /// # Errors
    ///
    /// If there is no such socket.
    pub fn connect_addr(&self, address: &SocketAddr) -> io::Result<()> {
        let address = at(address)?;
        self.0.configure(|socket| socket.connect(&address))
    }

    /// The address of the socket.
    ///
    /// # Errors
    ///
    /// If the socket was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// The address to which it is connected.
    ///
    /// # Errors
    ///
    /// If it is not connected, or was closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        peer_addr(&self.0)
    }

    /// Receives a datagram and the address of its sender. What does not fit into the buffer is lost. Switches.
    ///
    /// # Errors
    ///
    /// What the system says; [`TimedOut`](io::ErrorKind::TimedOut) after the read timeout.
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, address) = self.0.recv_from(buffer, false)?;
        Ok((n, peer_name(address)))
    }

    /// Receives a datagram. What does not fit into the buffer is lost. Switches.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](UnixDatagram::recv_from).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_datagram(buffer, false)
    }

    /// Sends a datagram to the socket at a path. A receiver that has no room is tried again, ever more slowly:
    /// the system does not tell when it has. Switches.
    ///
    /// # Errors
    ///
    /// What the system says; [`TimedOut`](io::ErrorKind::TimedOut) after the write timeout.
    pub fn send_to<P: AsRef<Path>>(&self, data: &[u8], path: P) -> io::Result<usize> {
        self.0.send_to_local(data, &at_path(path.as_ref())?)
    }

    /// [`send_to`](UnixDatagram::send_to) with an address.
    ///
    /// # Errors
    ///
    /// As [`send_to`](UnixDatagram::send_to).
    pub fn send_to_addr(&self, data: &[u8], address: &SocketAddr) -> io::Result<usize> {
        self.0.send_to_local(data, &at(address)?)
    }

    /// Sends a datagram to the connected socket. Switches.
    ///
    /// # Errors
    ///
    /// As [`send_to`](UnixDatagram::send_to), and if the socket is not connected.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.send(data)
    }

    /// Shuts down one direction or both, for every clone: operations that wait for them return, on any OS thread.
    /// Does not switch.
    ///
    /// A sender that waits for room at its receiver also returns when the receiver shuts down reading, within 64 ms; in
    /// std it waits on.
    ///
    /// # Errors
    ///
    /// If it is not connected.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }
}

impl fmt::Debug for UnixDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("UnixDatagram", self.local_addr(), self.peer_addr(), f)
    }
}
