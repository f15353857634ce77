//! Addresses by name.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::{option, slice, vec};

use super::resolver::look_up;

/// What can be turned into addresses: std's trait of the same name, with the same implementors.
///
/// It is a trait of its own because std's resolves names on the calling thread, for which all its green
/// threads would wait. Here literal addresses are read at once, and everything else is asked of the
/// [resolver](super::set_resolver) of this process, for which the calling green thread alone is parked.
///
/// ```
/// use greenstd::net::ToSocketAddrs;
/// let mut addresses = ("127.0.0.1", 7000).to_socket_addrs()?;
/// assert_eq!(addresses.next(), Some(([127, 0, 0, 1], 7000).into()));
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait ToSocketAddrs {
    /// Gives the addresses, the preferred one first.
    type Iter: Iterator<Item = SocketAddr>;

    /// The addresses. Switches if a name has to be looked up.
    ///
    /// # Errors
    ///
    /// If there is no such name, or no port where one is needed.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;
}

/// Addresses that are there already: std's own conversion looks nothing up.
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
        let port = port.parse().map_err(|_| invalid("the port is no number up to 65535"))?;
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

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
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
