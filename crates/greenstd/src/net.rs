//! std's `net` for green threads: waiting for a socket parks only the calling green thread.

mod addr;
mod cluster;
mod connect;
mod listen;
mod resolver;
mod serve;
mod tcp;
mod udp;

pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use addr::ToSocketAddrs;
pub use cluster::{Cluster, ClusterServer};
pub use connect::ConnectOptions;
pub use listen::ListenOptions;
pub use resolver::{CachedResolver, Resolver, SystemResolver, set_resolver};
pub use serve::{Accept, Accepted, ServeEnd, ServeError, Served, StopServe, serve, serve_until};
pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;

#[cfg(feature = "console")]
pub(crate) use serve::{Failure, Pauses};

use std::io;

use rustix::io::Errno;
use rustix::net::SocketAddrAny;
use socket2::SockAddr;

use crate::socket::{Socket, foreign_address};

fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    internet(socket.configure(|socket| socket.local_addr())?)
}

fn peer_addr(socket: &Socket) -> io::Result<SocketAddr> {
    internet(socket.configure(|socket| socket.peer_addr())?)
}

fn internet(address: SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(foreign_address)
}

/// Converts the address of an accepted connection. Some systems return none for a connection that the peer has aborted.
fn client(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    if address.is_none() { Err(Errno::CONNABORTED.into()) } else { sender(address) }
}

/// Formats a peer's address.
#[expect(clippy::unnecessary_wraps, reason = "the peers of other sockets have no name")]
fn address_text(address: &SocketAddr) -> Option<String> {
    Some(address.to_string())
}

/// Converts the sender's address of a datagram.
fn sender(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    address.and_then(|address| address.try_into().ok()).ok_or_else(foreign_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_without_an_address_is_connection_aborted() {
        assert_eq!(client(None).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
