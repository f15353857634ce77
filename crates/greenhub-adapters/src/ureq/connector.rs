//! Connections for an agent.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ::ureq::unversioned::transport::{ConnectionDetails, Connector, Either, Transport};
use ::ureq::{Error, ProxyProtocol, Timeout};
use greenhub::net::TcpStream;

use super::transport::{GreenTransport, Limit};

/// A connector that opens green sockets, in place of ureq's `TcpConnector`.
///
/// It tries the addresses in order, and each gets an equal share of the time that is left. A connection that an earlier
/// connector of the chain has opened is passed on.
#[derive(Copy, Clone, Default, Debug)]
pub struct GreenConnector;

impl<In: Transport> Connector<In> for GreenConnector {
    type Out = Either<In, GreenTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if chained.is_some() {
            return Ok(chained.map(Either::A));
        }
        // A connection past the proxy would reveal what the proxy is to hide.
        if details.config.proxy().is_some_and(|proxy| is_socks(proxy.protocol()) && !proxy.is_no_proxy(details.uri)) {
            let error = "a proxy of the kind SOCKS needs a connector of its own before `GreenConnector`";
            return Err(io::Error::new(io::ErrorKind::Unsupported, error).into());
        }
        let stream = connect_to_any(&details.addrs, &Limit::new(details.timeout)?)?;
        if details.config.no_delay() {
            stream.set_nodelay(true)?;
        }
        let transport = GreenTransport::new(stream, details.config);
        (details.register_shutdown)(transport.shutdown_handle())?;
        Ok(Some(Either::B(transport)))
    }
}

fn is_socks(protocol: ProxyProtocol) -> bool {
    // A later version of ureq may have further kinds, which this connector does not speak either.
    !matches!(protocol, ProxyProtocol::Http | ProxyProtocol::Https)
}

/// Connects to the first address that answers. Switches.
fn connect_to_any(addresses: &[SocketAddr], limit: &Limit) -> Result<TcpStream, Error> {
    let mut last = Error::HostNotFound;
    for (index, address) in addresses.iter().enumerate() {
        // A `Vec` of addresses is far shorter than a `u32`.
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let connected = match limit.left()? {
            // Below a millisecond no address would have a chance.
            Some(time) => TcpStream::connect_timeout(address, (time / left).max(Duration::from_millis(1))),
            None => TcpStream::connect(address),
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => last = Error::Timeout(Timeout::Connect),
            Err(error) => last = error.into(),
        }
    }
    // Names the limit that has passed, which may be that of the whole request.
    limit.left()?;
    Err(last)
}
