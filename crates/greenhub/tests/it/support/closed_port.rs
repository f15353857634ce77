//! Addresses without a listener.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};

/// A local address without a listener. The bound socket keeps the port reserved until it is dropped.
pub(crate) struct ClosedPort {
    pub(crate) address: SocketAddr,
    _socket: OwnedFd,
}

impl ClosedPort {
    pub(crate) fn new() -> ClosedPort {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.expect("a socket");
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = getsockname(&socket).ok().and_then(|address| address.try_into().ok());
        ClosedPort { address: address.expect("the listener has an address"), _socket: socket }
    }
}
