//! Listening, with options.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, SockRef, Type};

use super::addr::each_address;
use super::{TcpListener, ToSocketAddrs};
use crate::socket::{BACKLOG, Socket};

/// How to listen, if not as [`TcpListener::bind`] does: Eventlet's `listen` with its arguments.
///
/// ```
/// use greenstd::net::ListenOptions;
/// let listener = ListenOptions::new().backlog(50).listen("127.0.0.1:0")?;
/// assert_ne!(listener.local_addr()?.port(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ListenOptions {
    backlog: i32,
    reuse_address: bool,
    reuse_port: bool,
    only_v6: Option<bool>,
}

impl ListenOptions {
    /// What [`TcpListener::bind`] does: as many connections wait as the system allows, up to 4096, and an address whose
    /// connections have ended only just may be taken again.
    #[must_use]
    pub const fn new() -> ListenOptions {
        ListenOptions { backlog: BACKLOG, reuse_address: true, reuse_port: false, only_v6: None }
    }

    /// How many connections wait to be accepted. The system may allow fewer, and rounds as it likes.
    #[must_use]
    pub const fn backlog(self, connections: u32) -> ListenOptions {
        let backlog = if connections > i32::MAX as u32 { i32::MAX } else { connections as i32 };
        ListenOptions { backlog, ..self }
    }

    /// Whether an address may be taken whose connections have ended only just (`SO_REUSEADDR`). On by default.
    #[must_use]
    pub const fn reuse_address(self, reuse: bool) -> ListenOptions {
        ListenOptions { reuse_address: reuse, ..self }
    }

    /// Whether several listeners may share an address, if all of them say so (`SO_REUSEPORT`). Connections are spread over
    /// them on Linux: one for each OS thread with a hub. Off by default, where Eventlet has it on: a second server by
    /// mistake would take half of the connections.
    ///
    /// With port 0, where the system chooses, it is [reported](hub_core::warn): it may choose the port of another
    /// listener of the same user that shares. [`Cluster`](super::Cluster) shares a port that the system has chosen.
    #[must_use]
    pub const fn reuse_port(self, reuse: bool) -> ListenOptions {
        ListenOptions { reuse_port: reuse, ..self }
    }

    /// Whether an address of IPv6 is for IPv6 only, or for IPv4 too (`IPV6_V6ONLY`). By default it is as the system
    /// likes. It does not matter for addresses of IPv4.
    #[must_use]
    pub const fn only_v6(self, only: bool) -> ListenOptions {
        ListenOptions { only_v6: Some(only), ..self }
    }

    /// Listens at an address; at the first that can be had, if there are several. Switches if a name has to be looked
    /// up.
    ///
    /// # Errors
    ///
    /// Why the last address could not be had, or the name not be looked up. If the system has no such option.
    pub fn listen<A: ToSocketAddrs>(&self, address: A) -> io::Result<TcpListener> {
        each_address(address, |address| {
            if self.reuse_port && address.port() == 0 {
                hub_core::warn(format!(
                    "a listener at {address} shares its port: the system may choose one that another listener has"
                ));
            }
            self.listen_at(&address)
        })
    }

    /// As [`listen`](ListenOptions::listen), at an address that is known, and without a warning.
    pub(super) fn listen_at(&self, address: &SocketAddr) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM)?;
        socket.configure(|socket| {
            self.apply(&socket, address.is_ipv6())?;
            socket.bind(&(*address).into())?;
            socket.listen(self.backlog)
        })?;
        Ok(TcpListener::new(socket))
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
