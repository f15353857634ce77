//! std's `net`, green: waiting for a socket parks the calling green thread only.

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
pub use cluster::{Cluster, ClusterServer, ThreadError};
pub use connect::ConnectOptions;
pub use listen::ListenOptions;
pub use resolver::{CachedResolver, Resolver, SystemResolver, set_resolver};
pub use serve::{Accept, Accepted, ServeEnd, ServeError, Served, StopServe, serve, serve_until};
pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;

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

/// The address of an accepted connection. Some systems tell none of a connection that the peer has given up before.
fn client(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    if address.is_none() { Err(Errno::CONNABORTED.into()) } else { sender(address) }
}

/// The address that came with a datagram.
fn sender(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    address.and_then(|address| address.try_into().ok()).ok_or_else(foreign_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_an_address_is_an_aborted_one() {
        assert_eq!(client(None).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
