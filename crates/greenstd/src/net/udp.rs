//! UDP.

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
/// Sending and receiving park the calling green thread only. It is `Send + Sync`; one green thread may receive
/// while another sends, a second receiver needs a [clone](UdpSocket::try_clone).
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::net::UdpSocket;
/// let receiver = UdpSocket::bind("127.0.0.1:0")?;
/// let address = receiver.local_addr()?;
/// hub_core::spawn(move || UdpSocket::bind("127.0.0.1:0")?.send_to(b"hello", address));
/// let mut buffer = [0; 16];
/// let (n, _sender) = receiver.recv_from(&mut buffer)?;
/// assert_eq!(&buffer[..n], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct UdpSocket(Socket);

socket_common!(UdpSocket, std::net::UdpSocket);
socket_timeouts!(UdpSocket);

/// Options that are no more than a name and a type.
macro_rules! options {
    ($($(#[$about:meta])* $get:ident, $set:ident: $kind:ty = $ask:ident, $tell:ident;)*) => {
        impl UdpSocket {$(
            #[doc = concat!("What [`", stringify!($set), "`](UdpSocket::", stringify!($set), ") has set.")]
            ///
            /// # Errors
            ///
            /// If the socket was closed, or has no such option.
            pub fn $get(&self) -> io::Result<$kind> {
                self.0.configure(|socket| socket.$ask())
            }

            $(#[$about])*
            ///
            /// # Errors
            ///
            /// If the socket was closed, or has no such option.
            pub fn $set(&self, value: $kind) -> io::Result<()> {
                self.0.configure(|socket| socket.$tell(value))
            }
        )*}
    };
}

options! {
    /// Allows sending to a broadcast address (`SO_BROADCAST`).
    broadcast, set_broadcast: bool = broadcast, set_broadcast;
    /// Delivers what is sent to a group to this machine too (`IP_MULTICAST_LOOP`).
    multicast_loop_v4, set_multicast_loop_v4: bool = multicast_loop_v4, set_multicast_loop_v4;
    /// Sets how many routers a packet to a group may pass (`IP_MULTICAST_TTL`).
    multicast_ttl_v4, set_multicast_ttl_v4: u32 = multicast_ttl_v4, set_multicast_ttl_v4;
    /// Delivers what is sent to an IPv6 group to this machine too (`IPV6_MULTICAST_LOOP`).
    multicast_loop_v6, set_multicast_loop_v6: bool = multicast_loop_v6, set_multicast_loop_v6;
    /// Sets how many routers a packet may pass (`IP_TTL`).
    ttl, set_ttl: u32 = ttl_v4, set_ttl_v4;
}

impl UdpSocket {
    /// A socket at an address; at the first that can be had, if there are several. Switches if a name has to be
    /// looked up.
    ///
    /// # Errors
    ///
    /// Why the last address could not be had, or the name not be looked up.
    pub fn bind<A: ToSocketAddrs>(address: A) -> io::Result<UdpSocket> {
        each_address(address, |address| {
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM)?;
            socket.configure(|socket| socket.bind(&address.into()))?;
            Ok(UdpSocket(socket))
        })
    }

    /// Exchanges datagrams with one address only from now on, by [`send`](UdpSocket::send) and
    /// [`recv`](UdpSocket::recv). Switches if a name has to be looked up.
    ///
    /// # Errors
    ///
    /// If the name cannot be looked up, or no address is of the socket's family.
    pub fn connect<A: ToSocketAddrs>(&self, address: A) -> io::Result<()> {
        each_address(address, |address| self.0.configure(|socket| socket.connect(&address.into())))
    }

    /// The address to which it is connected.
    ///
    /// # Errors
    ///
    /// If it is not connected, or was closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        peer_addr(&self.0)
    }

    /// The address of the socket.
    ///
    /// # Errors
    ///
    /// If the socket was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// Receives a datagram and the address of its sender. What does not fit into the buffer is lost. Switches.
    ///
    /// # Errors
    ///
    /// What the system says; [`TimedOut`](io::ErrorKind::TimedOut) after the read timeout.
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, address) = self.0.recv_from(buffer, false)?;
        Ok((n, sender(address)?))
    }

    /// [`recv_from`](UdpSocket::recv_from) without taking the datagram. Switches.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](UdpSocket::recv_from).
    pub fn peek_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, address) = self.0.recv_from(buffer, true)?;
        Ok((n, sender(address)?))
    }

    /// Sends a datagram to the first address. Switches.
    ///
    /// # Errors
    ///
    /// What the system says; [`TimedOut`](io::ErrorKind::TimedOut) after the write timeout.
    pub fn send_to<A: ToSocketAddrs>(&self, data: &[u8], address: A) -> io::Result<usize> {
        match address.to_socket_addrs()?.next() {
            Some(address) => self.0.send_to(data, &address),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "no addresses to send data to")),
        }
    }

    /// Receives a datagram of the connected address. Switches.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](UdpSocket::recv_from).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_datagram(buffer, false)
    }

    /// [`recv`](UdpSocket::recv) without taking the datagram. Switches.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](UdpSocket::recv_from).
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_datagram(buffer, true)
    }

    /// Sends a datagram to the connected address. Switches.
    ///
    /// # Errors
    ///
    /// As [`send_to`](UdpSocket::send_to), and if the socket is not connected.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.send(data)
    }

    /// Receives what is sent to a group, on the interface that has the given address.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn join_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.0.configure(|socket| socket.join_multicast_v4(group, interface))
    }

    /// Leaves a group.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn leave_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.0.configure(|socket| socket.leave_multicast_v4(group, interface))
    }

    /// Receives what is sent to an IPv6 group, on the interface of that index; 0 for any.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.0.configure(|socket: SockRef<'_>| socket.join_multicast_v6(group, interface))
    }

    /// Leaves an IPv6 group.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.0.configure(|socket: SockRef<'_>| socket.leave_multicast_v6(group, interface))
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("UdpSocket", self.local_addr(), self.peer_addr(), f)
    }
}
