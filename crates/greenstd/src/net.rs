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

use std::io;

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

/// The address that came with a connection or a datagram.
fn sender(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    address.and_then(|address| address.try_into().ok()).ok_or_else(foreign_address)
}
