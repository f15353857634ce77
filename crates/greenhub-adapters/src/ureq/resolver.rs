//! Names for an agent.

use ::ureq::Error;
use ::ureq::config::Config;
use ::ureq::http::Uri;
use ::ureq::unversioned::resolver::{ArrayVec, DefaultResolver, ResolvedSocketAddrs, Resolver};
use ::ureq::unversioned::transport::NextTimeout;
use greenhub::net::ToSocketAddrs;
use greenhub::with_timeout;

use super::transport::Limit;

/// A resolver that asks greenhub's [resolver](greenhub::net::set_resolver), in place of ureq's `DefaultResolver`.
///
/// A look-up parks the calling green thread. The time limit unwinds it. With `panic = "abort"` a look-up has no limit
/// but that of the resolver, because nothing can be unwound.
#[derive(Copy, Clone, Default, Debug)]
pub struct GreenResolver;

impl Resolver for GreenResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let bad = |what| Error::BadUri(format!("{uri} {what}"));
        let scheme = uri.scheme().ok_or_else(|| bad("is missing scheme"))?;
        let authority = uri.authority().ok_or_else(|| bad("is missing host"))?;
        let name = DefaultResolver::host_and_port(scheme, authority).ok_or_else(|| bad("has an unknown scheme"))?;
        let limit = Limit::new(timeout)?.left()?.filter(|_| !cfg!(panic = "abort"));
        let found = with_timeout(limit, || name.to_socket_addrs()).map_err(|_| Error::Timeout(timeout.reason))??;
        let mut addresses = self.empty();
        let most = capacity(&addresses);
        config.ip_family().keep_wanted(found).take(most).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// Returns the fixed capacity of an array.
fn capacity<T, const CAPACITY: usize>(_: &ArrayVec<T, CAPACITY>) -> usize {
    CAPACITY
}
