//! std's `os::unix::net` for green threads: Unix sockets.
//!
//! A peer's name never makes an accept or a receive fail. A name that std's [`SocketAddr`] cannot hold, which on Linux
//! is a path of 108 bytes, becomes an unnamed address.

mod datagram;
mod listener;
mod stream;

pub use std::os::unix::net::SocketAddr;

pub use datagram::UnixDatagram;
pub use listener::{Incoming, UnixListener};
pub use stream::UnixStream;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix};
use socket2::SockAddr;

use crate::socket::{Socket, foreign_address};

fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    own_name(Some(socket.configure(|socket| Ok(rustix::net::getsockname(&*socket)?))?))
}

fn peer_addr(socket: &Socket) -> io::Result<SocketAddr> {
    own_name(socket.configure(|socket| Ok(rustix::net::getpeername(&*socket)?))?)
}

/// Converts the name of a socket. A name of another family is an error.
fn own_name(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    match address {
        Some(address) if address.address_family() != AddressFamily::UNIX => Err(foreign_address()),
        address => Ok(peer_name(address)),
    }
}

/// Converts the name of a peer, which came with a connection or a datagram. A name that std's type cannot hold becomes
/// an unnamed address: any process may choose its name, and must not make an accept or a receive fail by it.
fn peer_name(address: Option<SocketAddrAny>) -> SocketAddr {
    match address.map(known_name) {
        Some(Ok(name)) => name,
        _ => SocketAddr::from_pathname("").expect("an empty path is short enough"),
    }
}

/// Converts the name of a peer, for [`serve`](crate::net::serve).
#[expect(clippy::unnecessary_wraps, reason = "other sockets have peers whose address is an error")]
fn client(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    Ok(peer_name(address))
}

/// Formats a peer's address. Most clients have no name.
fn address_text(address: &SocketAddr) -> Option<String> {
    address.as_pathname().map(|path| path.display().to_string())
}

fn known_name(address: SocketAddrAny) -> io::Result<SocketAddr> {
    /// The bytes before the path: the family, and on some systems the length.
    const FAMILY: usize = 2;
    /// The length of the longest path that fits together with its final zero. Linux allows binding one more byte, and
    /// then reports a length beyond the buffer.
    const PATH: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 108 } else { 104 };
    if !(FAMILY + 1..=FAMILY + PATH).contains(&(address.addr_len() as usize)) {
        return SocketAddr::from_pathname("");
    }
    let address = SocketAddrUnix::try_from(address)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(bytes) = address.abstract_name() {
        #[cfg(target_os = "android")]
        use std::os::android::net::SocketAddrExt;
        #[cfg(target_os = "linux")]
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(bytes);
    }
    let path = address.path_bytes().unwrap_or_default();
    // rustix includes the zero behind the longest path.
    SocketAddr::from_pathname(OsStr::from_bytes(path.strip_suffix(&[0]).unwrap_or(path)))
}

/// Converts a path. The errors are those of std.
fn at_path(path: &Path) -> io::Result<SockAddr> {
    at(&SocketAddr::from_pathname(path)?)
}

fn at(address: &SocketAddr) -> io::Result<SockAddr> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        #[cfg(target_os = "android")]
        use std::os::android::net::SocketAddrExt;
        #[cfg(target_os = "linux")]
        use std::os::linux::net::SocketAddrExt;
        if let Some(name) = address.as_abstract_name() {
            let mut path = vec![0];
            path.extend_from_slice(name);
            return SockAddr::unix(OsStr::from_bytes(&path));
        }
    }
    SockAddr::unix(address.as_pathname().unwrap_or(Path::new("")))
}
