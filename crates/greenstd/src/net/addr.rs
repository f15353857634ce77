//! Addresses by name.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::{option, slice, vec};

use super::resolver::look_up;

/// A type that converts to socket addresses. std's `ToSocketAddrs`, with the same implementors.
///
/// It is a trait of its own because std's resolves names on the calling OS thread and so blocks all its green threads.
/// Here literal addresses are parsed at once. All other names go to the [resolver](super::set_resolver) of this
/// process, which parks only the calling green thread.
///
/// ```
/// use greenhub::net::ToSocketAddrs;
/// let mut addresses = ("127.0.0.1", 7000).to_socket_addrs()?;
/// assert_eq!(addresses.next(), Some(([127, 0, 0, 1], 7000).into()));
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait ToSocketAddrs {
    /// The iterator over the addresses, the preferred one first.
    type Iter: Iterator<Item = SocketAddr>;

    /// Converts this object to an iterator of addresses. Switches if it looks up a name.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such name, or no port where one is required.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;
}

/// Literal addresses: std's own conversion looks nothing up.
macro_rules! literal {
    ($($kind:ty),*) => {$(
        impl ToSocketAddrs for $kind {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                std::net::ToSocketAddrs::to_socket_addrs(self)
            }
        }
    )*};
}
literal!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl ToSocketAddrs for str {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        if let Ok(address) = self.parse() {
            return Ok(vec![address].into_iter());
        }
        let (host, port) = self.rsplit_once(':').ok_or_else(|| invalid("no port: an address is HOST:PORT"))?;
        let port = port.parse().map_err(|_| invalid("the port is not a number up to 65535"))?;
        Ok(look_up(host, port)?.into_iter())
    }
}

impl ToSocketAddrs for (&str, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(address) => Ok(vec![(address, port).into()].into_iter()),
            Err(_) => Ok(look_up(host, port)?.into_iter()),
        }
    }
}

impl ToSocketAddrs for String {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.as_str().to_socket_addrs()
    }
}

impl ToSocketAddrs for (String, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (self.0.as_str(), self.1).to_socket_addrs()
    }
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = std::iter::Cloned<slice::Iter<'a, SocketAddr>>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().cloned())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;

    fn to_socket_addrs(&self) -> io::Result<T::Iter> {
        (**self).to_socket_addrs()
    }
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Tries `op` with each address until it succeeds, and returns the last error if it never does.
pub(crate) fn each_address<A: ToSocketAddrs, R>(
    address: A,
    mut op: impl FnMut(SocketAddr) -> io::Result<R>,
) -> io::Result<R> {
    let mut last = invalid("could not resolve to any addresses");
    for address in address.to_socket_addrs()? {
        match op(address) {
            Ok(value) => return Ok(value),
            Err(error) => last = error,
        }
    }
    Err(last)
}
