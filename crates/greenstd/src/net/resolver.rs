//! Who looks names up.

mod cache;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use hub_core::ThreadPool;

pub use cache::CachedResolver;

/// Finds the addresses of hosts by their names. [`set_resolver`] has this process ask one of your own.
///
/// It is asked by green threads of any OS thread, and never for what is an address in digits. A resolver may switch: one
/// that asks servers by [green sockets](super::UdpSocket) does. One that blocks better does that by
/// [`tpool::execute`](crate::tpool::execute), for all green threads of an OS thread would wait.
///
/// ```
/// use greenstd::net::{Resolver, SystemResolver};
/// use std::io;
/// use std::net::{Ipv4Addr, SocketAddr};
/// /// Knows the machines of a test.
/// struct Hosts;
/// impl Resolver for Hosts {
///     fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
///         match host {
///             "database.test" => Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()]),
///             _ => SystemResolver.resolve(host),
///         }
///     }
/// }
/// greenstd::net::set_resolver(Hosts);
/// # use greenstd::net::ToSocketAddrs;
/// assert_eq!("database.test:80".to_socket_addrs()?.next(), Some(([127, 0, 0, 1], 80).into()));
/// # Ok::<(), io::Error>(())
/// ```
pub trait Resolver: Send + Sync {
    /// The addresses of `host`, the preferred one first. Their ports do not matter: whoever asks puts in its own.
    ///
    /// # Errors
    ///
    /// If there is no such host, or it cannot be found out.
    fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>>;
}

impl<R: Resolver + ?Sized> Resolver for Arc<R> {
    fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        (**self).resolve(host)
    }
}

/// Of its own, since a look-up may take half a minute where a server is silent.
static NAMES: ThreadPool = ThreadPool::named("greenhub-names", 64);

/// The resolver of the system, asked on another OS thread each time. Switches.
#[derive(Copy, Clone, Default, Debug)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let host = host.to_owned();
        Ok(NAMES.execute_io(move || (host, 0).to_socket_addrs())?.collect())
    }
}

static RESOLVER: RwLock<Option<Arc<dyn Resolver>>> = RwLock::new(None);

/// Has this process ask `resolver` for names from now on: whatever takes a name, as
/// [`TcpStream::connect`](super::TcpStream::connect) does. Does not switch.
///
/// Until then it is a [`CachedResolver`] over the [`SystemResolver`]. To keep names longer, or not at all:
///
/// ```
/// use greenstd::net::{CachedResolver, SystemResolver, set_resolver};
/// use std::time::Duration;
/// set_resolver(CachedResolver::new(SystemResolver).ttl(Duration::from_secs(60)).capacity(10_000));
/// set_resolver(SystemResolver);
/// ```
pub fn set_resolver(resolver: impl Resolver + 'static) {
    let former = RESOLVER.write().unwrap_or_else(PoisonError::into_inner).replace(Arc::new(resolver));
    // Its destructor may look something up.
    drop(former);
}

/// Asks the resolver of this process. Switches.
pub(super) fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    static SYSTEM: LazyLock<CachedResolver<SystemResolver>> = LazyLock::new(|| CachedResolver::new(SystemResolver));
    let chosen = RESOLVER.read().unwrap_or_else(PoisonError::into_inner).clone();
    let mut addresses = match chosen {
        Some(resolver) => resolver.resolve(host)?,
        None => SYSTEM.resolve(host)?,
    };
    for address in &mut addresses {
        address.set_port(port);
    }
    Ok(addresses)
}
