//! Name resolution.

mod cache;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use hub_core::ThreadPool;

pub use cache::CachedResolver;

/// Resolves host names, once it is installed by [`set_resolver`].
///
/// Green threads of any OS thread call it, and never for a literal address. It may switch, as a resolver that asks
/// servers through [green sockets](super::UdpSocket) does. A resolver that blocks has to do so in
/// [`tpool::execute`](crate::tpool::execute). Elsewhere it blocks all green threads of the OS thread.
///
/// ```
/// use greenhub::net::{Resolver, SystemResolver};
/// use std::io;
/// use std::net::{Ipv4Addr, SocketAddr};
/// /// Resolves the host names of a test.
/// struct Hosts;
/// impl Resolver for Hosts {
///     fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
///         match host {
///             "database.test" => Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()]),
///             _ => SystemResolver.resolve(host),
///         }
///     }
/// }
/// greenhub::net::set_resolver(Hosts);
/// # use greenhub::net::ToSocketAddrs;
/// assert_eq!("database.test:80".to_socket_addrs()?.next(), Some(([127, 0, 0, 1], 80).into()));
/// # Ok::<(), io::Error>(())
/// ```
#[doc(alias = "greendns")]
#[doc(alias = "getaddrinfo")]
pub trait Resolver: Send + Sync {
    /// Returns the addresses of `host`, the preferred one first. The caller replaces their ports.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such host, or the look-up fails.
    fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>>;
}

impl<R: Resolver + ?Sized> Resolver for Arc<R> {
    fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        (**self).resolve(host)
    }
}

/// A pool of its own, since a look-up may take half a minute if a server does not answer.
static NAMES: ThreadPool = ThreadPool::named("greenhub-names", 64);

/// The resolver of the system, called on a pool thread. Switches.
#[derive(Copy, Clone, Default, Debug)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let host = host.to_owned();
        Ok(NAMES.execute_io(move || (host, 0).to_socket_addrs())?.collect())
    }
}

static RESOLVER: RwLock<Option<Arc<dyn Resolver>>> = RwLock::new(None);

/// Sets the resolver of this process. Does not switch.
///
/// All calls that take a name use it from now on, such as [`TcpStream::connect`](super::TcpStream::connect). The
/// default is a [`CachedResolver`] over the [`SystemResolver`]. The present resolver cannot be read back, because
/// another OS thread may replace it. To keep names longer, or not at all:
///
/// ```
/// use greenhub::net::{CachedResolver, SystemResolver, set_resolver};
/// use std::time::Duration;
/// set_resolver(CachedResolver::new(SystemResolver).ttl(Duration::from_secs(60)).capacity(10_000));
/// set_resolver(SystemResolver);
/// ```
pub fn set_resolver(resolver: impl Resolver + 'static) {
    let former = RESOLVER.write().unwrap_or_else(PoisonError::into_inner).replace(Arc::new(resolver));
    // Its destructor may look up a name, and must not run under the lock.
    drop(former);
}

/// Calls the resolver of this process. Switches.
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
