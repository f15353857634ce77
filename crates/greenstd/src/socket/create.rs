//! Creation of sockets that are non-blocking, closed on exec, and without `SIGPIPE`, atomically where the system can.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{SendFlags, SocketAddrAny};
use socket2::{Domain, Type};

#[cfg(not(target_vendor = "apple"))]
mod system {
    use super::*;

    pub(crate) const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

    pub(crate) fn open(domain: Domain, kind: Type) -> io::Result<OwnedFd> {
        Ok(socket2::Socket::new(domain, kind.nonblocking(), None)?.into())
    }

    pub(crate) fn pair(kind: Type) -> io::Result<(OwnedFd, OwnedFd)> {
        let (one, other) = socket2::Socket::pair(Domain::UNIX, kind.nonblocking(), None)?;
        Ok((one.into(), other.into()))
    }

    pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
        use rustix::net::SocketFlags;
        Ok(rustix::net::acceptfrom_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
    }

    /// Returns true if the socket may be a listener.
    pub(crate) fn may_listen(fd: BorrowedFd<'_>) -> bool {
        rustix::net::sockopt::socket_acceptconn(fd).unwrap_or(false)
    }
}

#[cfg(target_vendor = "apple")]
mod system {
    use super::*;

    /// `SO_NOSIGPIPE` is set once for each socket instead.
    pub(crate) const SEND: SendFlags = SendFlags::DONTWAIT;

    pub(crate) fn open(domain: Domain, kind: Type) -> io::Result<OwnedFd> {
        let socket = socket2::Socket::new(domain, kind, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }

    pub(crate) fn pair(kind: Type) -> io::Result<(OwnedFd, OwnedFd)> {
        let (one, other) = socket2::Socket::pair(Domain::UNIX, kind, None)?;
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        Ok((one.into(), other.into()))
    }

    pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
        let (fd, address) = rustix::net::acceptfrom(fd)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        rustix::net::sockopt::set_socket_nosigpipe(&fd, true)?;
        Ok((fd, address))
    }

    /// Returns true: the system does not report whether a socket listens.
    pub(crate) fn may_listen(_fd: BorrowedFd<'_>) -> bool {
        true
    }
}

pub(crate) use system::SEND;
pub(super) use system::{accept, may_listen, open, pair};
