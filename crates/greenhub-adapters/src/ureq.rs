//! ureq 3 over green sockets.
//!
//! ureq's own transport blocks the OS thread, and its resolver starts an OS thread for each look-up with a time limit.
//! [`agent`] makes an [`Agent`] that does neither: a request parks the green thread that makes it.
//! Everything else is ureq's own: the pool of connections, redirects, proxies of the kind `CONNECT`, cookies, and time
//! limits.
//!
//! ```
//! use greenhub::net::TcpListener;
//! use std::io::{Read, Write};
//! use std::time::Duration;
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let url = format!("http://{}/", listener.local_addr()?);
//! greenhub::spawn(move || {
//!     let (mut stream, _) = listener.accept()?;
//!     let _head = stream.read(&mut [0; 1024])?;
//!     stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
//! });
//! let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build();
//! let agent = greenhub_adapters::ureq::agent(config);
//! assert_eq!(agent.get(&url).call()?.body_mut().read_to_string()?, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The traits of ureq's transports may change in a minor version of ureq. This feature requires the minor version that
//! it is written for, so a program that depends on ureq as well has to accept that one, for example by
//! `ureq = { version = "3", default-features = false }`.

mod connector;
mod resolver;
mod transport;

pub use connector::GreenConnector;
pub use resolver::GreenResolver;
pub use transport::GreenTransport;

use ::ureq::Agent;
use ::ureq::config::Config;
use ::ureq::unversioned::transport::{ConnectProxyConnector, Connector};

/// Creates an agent whose requests park the calling green thread. Does not switch.
///
/// The agent may be shared by green threads of all OS threads. It has proxies of the kind `CONNECT`. TLS needs the
/// feature `ureq-3-rustls`; without it, a request for `https` fails with [`TlsRequired`](::ureq::Error::TlsRequired).
/// Other transports are a chain of [`GreenConnector`] and the program's connectors, for
/// [`Agent::with_parts`].
#[must_use]
pub fn agent(config: Config) -> Agent {
    let connector = ().chain(ConnectProxyConnector::default()).chain(GreenConnector);
    #[cfg(feature = "ureq-3-rustls")]
    let connector = connector.chain(::ureq::unversioned::transport::RustlsConnector::default());
    Agent::with_parts(config, connector, GreenResolver)
}
