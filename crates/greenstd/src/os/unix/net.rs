//! std's `os::unix::net`, green: sockets within this system.

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

use rustix::net::{SocketAddrAny, SocketAddrUnix};
use socket2::SockAddr;

use crate::socket::{Socket, foreign_address};

fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    name(Some(socket.configure(|socket| Ok(rustix::net::getsockname(&*socket)?))?))
}

fn peer_addr(socket: &Socket) -> io::Result<SocketAddr> {
    name(socket.configure(|socket| Ok(rustix::net::getpeername(&*socket)?))?)
}

/// What the system calls a socket; nothing if it has no name.
fn name(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    /// What comes before the path: the family, beside its own length on some systems.
    const FAMILY: usize = 2;
    /// The longest path whose final zero fits beside it. Linux lets one more byte be bound; such a name is left
    /// out, since std's type cannot be made from it.
    const PATH: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 108 } else { 104 };
    let address = match address {
        Some(address) if (FAMILY + 1..=FAMILY + PATH).contains(&(address.addr_len() as usize)) => address,
        _ => return SocketAddr::from_pathname(""),
    };
    let address = SocketAddrUnix::try_from(address).map_err(|_| foreign_address())?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(bytes) = address.abstract_name() {
        #[cfg(target_os = "android")]
        use std::os::android::net::SocketAddrExt;
        #[cfg(target_os = "linux")]
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(bytes);
    }
    SocketAddr::from_pathname(OsStr::from_bytes(address.path_bytes().unwrap_or_default()))
}

/// What the system is told of a path. Errors are those of std.
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
