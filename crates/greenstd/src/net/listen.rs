//! Listening with options.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, SockRef, Type};

use super::addr::each_address;
use super::{TcpListener, ToSocketAddrs};
use crate::socket::{BACKLOG, Socket};

/// Settings for a listener beyond those of [`TcpListener::bind`]. Eventlet's `listen` with its arguments.
///
/// ```
/// use greenhub::net::ListenOptions;
/// let listener = ListenOptions::new().backlog(50).listen("127.0.0.1:0")?;
/// assert_ne!(listener.local_addr()?.port(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "create_server")]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[must_use = "nothing listens before `listen`"]
pub struct ListenOptions {
    backlog: i32,
    reuse_address: bool,
    reuse_port: bool,
    only_v6: Option<bool>,
}

impl ListenOptions {
    /// Creates the settings of [`TcpListener::bind`].
    ///
    /// The backlog is as large as the system allows, up to 4096. An address whose connections have just ended may be
    /// bound again.
    pub const fn new() -> ListenOptions {
        ListenOptions { backlog: BACKLOG, reuse_address: true, reuse_port: false, only_v6: None }
    }

    /// Sets the number of connections that may wait to be accepted. The system may lower or round it.
    pub const fn backlog(self, connections: u32) -> ListenOptions {
        let backlog = if connections > i32::MAX as u32 { i32::MAX } else { connections as i32 };
        ListenOptions { backlog, ..self }
    }

    /// Sets whether a recently used address may be bound (`SO_REUSEADDR`).
    ///
    /// The connections of such an address have just ended. On by default.
    pub const fn reuse_address(self, reuse: bool) -> ListenOptions {
        ListenOptions { reuse_address: reuse, ..self }
    }

    /// Sets whether several listeners may share an address (`SO_REUSEPORT`).
    ///
    /// All of them have to set it.
    ///
    /// Linux spreads the connections over the listeners: one for each OS thread with a hub. Off by default, unlike in
    /// Eventlet: a second server that is started by mistake would take half of the connections.
    ///
    /// With port 0 a listener that shares is [reported](hub_core::hub::warn), because the system may choose the port of
    /// another sharing listener of the same user. [`Cluster`](super::Cluster) shares a port that the system has chosen.
    pub const fn reuse_port(self, reuse: bool) -> ListenOptions {
        ListenOptions { reuse_port: reuse, ..self }
    }

    /// Sets whether an IPv6 address is for IPv6 only, or for IPv4 too (`IPV6_V6ONLY`).
    ///
    /// By default the system decides. The setting has no effect on IPv4 addresses.
    pub const fn only_v6(self, only: bool) -> ListenOptions {
        ListenOptions { only_v6: Some(only), ..self }
    }

    /// Listens at the first address that can be bound. Switches if it looks up a name.
    ///
    /// # Errors
    ///
    /// Returns the error of the last address, or of the name look-up, or an error if the system does not support an
    /// option.
    pub fn listen<A: ToSocketAddrs>(&self, address: A) -> io::Result<TcpListener> {
        each_address(address, |address| {
            if self.reuse_port && address.port() == 0 {
                hub_core::hub::warn(format!(
                    "a listener at {address} shares its port: the system may choose one that another listener has"
                ));
            }
            self.listen_at(&address)
        })
    }

    /// Like [`listen`](ListenOptions::listen), at a known address, and without a warning.
    pub(super) fn listen_at(&self, address: &SocketAddr) -> io::Result<TcpListener> {
        let socket = self.bound_at(address)?;
        socket.configure(|socket| socket.listen(self.backlog))?;
        Ok(TcpListener::new(socket))
    }

    /// Returns the address at which listeners that share it with each other may listen. With port 0 the system chooses
    /// a port.
    ///
    /// # Errors
    ///
    /// Returns an error if other listeners have the address, unless [`reuse_port`](ListenOptions::reuse_port) lets this
    /// one join them.
    pub(super) fn address_to_share(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        if self.reuse_port && address.port() != 0 {
            return Ok(address);
        }
        // Without a call of `listen`, so that no client connects to a listener that is about to go.
        let alone = self.reuse_port(false).bound_at(&address)?;
        alone.configure(|socket| socket.local_addr())?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    fn bound_at(&self, address: &SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM)?;
        socket.configure(|socket| {
            self.apply(&socket, address.is_ipv6())?;
            socket.bind(&(*address).into())
        })?;
        Ok(socket)
    }

    fn apply(&self, socket: &SockRef<'_>, is_v6: bool) -> io::Result<()> {
        socket.set_reuse_address(self.reuse_address)?;
        if self.reuse_port {
            socket.set_reuse_port(true)?;
        }
        match self.only_v6.filter(|_| is_v6) {
            Some(only) => socket.set_only_v6(only),
            None => Ok(()),
        }
    }
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions::new()
    }
}
