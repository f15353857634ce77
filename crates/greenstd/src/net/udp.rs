//! UDP sockets.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Domain, SockRef, Type};

use super::addr::each_address;
use super::{ToSocketAddrs, local_addr, peer_addr, sender};
use crate::socket::{Direction, Socket};

/// A UDP socket, std's `UdpSocket`.
///
/// Sending and receiving park only the calling green thread. It is `Send + Sync`; one green thread may receive while
/// another sends. A second receiver needs a [clone](UdpSocket::try_clone).
///
/// ```
/// use greenhub::net::UdpSocket;
/// let receiver = UdpSocket::bind("127.0.0.1:0")?;
/// let address = receiver.local_addr()?;
/// greenhub::spawn(move || UdpSocket::bind("127.0.0.1:0")?.send_to(b"hello", address));
/// let mut buffer = [0; 16];
/// let (n, _sender) = receiver.recv_from(&mut buffer)?;
/// assert_eq!(&buffer[..n], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "GreenSocket")]
pub struct UdpSocket(Socket);

socket_common!(UdpSocket, std::net::UdpSocket);
socket_timeouts!(UdpSocket);

/// Options that consist of a name and a type.
macro_rules! options {
    ($($(#[$about:meta])* $get:ident, $set:ident: $kind:ty = $ask:ident, $tell:ident;)*) => {
        impl UdpSocket {$(
            #[doc = concat!("Gets the value set by [`", stringify!($set), "`](UdpSocket::", stringify!($set), ").")]
            ///
            /// # Errors
            ///
            /// Returns an error if the socket was closed, or does not have the option.
            pub fn $get(&self) -> io::Result<$kind> {
                self.0.configure(|socket| socket.$ask())
            }

            $(#[$about])*
            ///
            /// # Errors
            ///
            /// Returns an error if the socket was closed, or does not have the option.
            pub fn $set(&self, value: $kind) -> io::Result<()> {
                self.0.configure(|socket| socket.$tell(value))
            }
        )*}
    };
}

options! {
    /// Sets the value of the `SO_BROADCAST` option: whether the socket may send to a broadcast address.
    broadcast, set_broadcast: bool = broadcast, set_broadcast;
    /// Sets the value of the `IP_MULTICAST_LOOP` option: whether this host receives its own multicast packets.
    multicast_loop_v4, set_multicast_loop_v4: bool = multicast_loop_v4, set_multicast_loop_v4;
    /// Sets the value of the `IP_MULTICAST_TTL` option: the number of hops of a multicast packet.
    multicast_ttl_v4, set_multicast_ttl_v4: u32 = multicast_ttl_v4, set_multicast_ttl_v4;
    /// Sets the value of the `IPV6_MULTICAST_LOOP` option: whether this host receives its own multicast packets.
    multicast_loop_v6, set_multicast_loop_v6: bool = multicast_loop_v6, set_multicast_loop_v6;
    /// Sets the value for the `IP_TTL` option: the number of hops of a packet.
    ttl, set_ttl: u32 = ttl_v4, set_ttl_v4;
}

impl UdpSocket {
    /// Creates a UDP socket from the given address. Switches if it looks up a name.
    ///
    /// The addresses are tried in order.
    ///
    /// # Errors
    ///
    /// Returns the error of the last address, or of the name look-up.
    pub fn bind<A: ToSocketAddrs>(address: A) -> io::Result<UdpSocket> {
        each_address(address, |address| {
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM)?;
            socket.configure(|socket| socket.bind(&address.into()))?;
            Ok(UdpSocket(socket))
        })
    }

    /// Connects this UDP socket to a remote address. Switches if it looks up a name.
    ///
    /// From then on it exchanges datagrams with that address only, by [`send`](UdpSocket::send) and
    /// [`recv`](UdpSocket::recv).
    ///
    /// # Errors
    ///
    /// Returns the error of the name look-up, or the system's error for the last address.
    pub fn connect<A: ToSocketAddrs>(&self, address: A) -> io::Result<()> {
        each_address(address, |address| self.0.configure(|socket| socket.connect(&address.into())))
    }

    /// Returns the socket address of the remote peer this socket was connected to.
    ///
    /// # Errors
    ///
    /// Returns an error if it is not connected, or was closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        peer_addr(&self.0)
    }

    /// Returns the socket address that this socket was created from.
    ///
    /// # Errors
    ///
    /// Returns an error if the socket was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// Receives a single datagram message, and returns its origin. Switches.
    ///
    /// Bytes that do not fit into the buffer are lost.
    ///
    /// # Errors
    ///
    /// Returns the system's error, or [`TimedOut`](io::ErrorKind::TimedOut) after the read timeout.
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, address) = self.0.recv_from(buffer, false)?;
        Ok((n, sender(address)?))
    }

    /// Like [`recv_from`](UdpSocket::recv_from), without removing the datagram. Switches.
    ///
    /// # Errors
    ///
    /// Like [`recv_from`](UdpSocket::recv_from).
    pub fn peek_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, address) = self.0.recv_from(buffer, true)?;
        Ok((n, sender(address)?))
    }

    /// Sends data to the given address. Switches.
    ///
    /// If there are several addresses, the first one is used.
    ///
    /// # Errors
    ///
    /// Returns the system's error, or [`TimedOut`](io::ErrorKind::TimedOut) after the write timeout.
    pub fn send_to<A: ToSocketAddrs>(&self, data: &[u8], address: A) -> io::Result<usize> {
        match address.to_socket_addrs()?.next() {
            Some(address) => self.0.send_to(data, &address),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "no addresses to send data to")),
        }
    }

    /// Receives a single datagram message from the connected address. Switches.
    ///
    /// # Errors
    ///
    /// Like [`recv_from`](UdpSocket::recv_from).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_datagram(buffer, false)
    }

    /// Like [`recv`](UdpSocket::recv), without removing the datagram. Switches.
    ///
    /// # Errors
    ///
    /// Like [`recv_from`](UdpSocket::recv_from).
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_datagram(buffer, true)
    }

    /// Sends data to the connected address. Switches.
    ///
    /// # Errors
    ///
    /// Like [`send_to`](UdpSocket::send_to), and if the socket is not connected.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.send(data)
    }

    /// Joins an IPv4 multicast group, on the interface that has the given address.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn join_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.0.configure(|socket| socket.join_multicast_v4(group, interface))
    }

    /// Leaves an IPv4 multicast group.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn leave_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.0.configure(|socket| socket.leave_multicast_v4(group, interface))
    }

    /// Joins an IPv6 multicast group, on the interface of that index; 0 for any.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.0.configure(|socket: SockRef<'_>| socket.join_multicast_v6(group, interface))
    }

    /// Leaves an IPv6 multicast group.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.0.configure(|socket: SockRef<'_>| socket.leave_multicast_v6(group, interface))
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("UdpSocket", self.local_addr(), self.peer_addr(), f)
    }
}
