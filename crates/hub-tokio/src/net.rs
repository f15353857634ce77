//! TCP connections of Tokio as transports of green threads.
//!
//! [`connect`] and [`listen`] make sockets of the runtime whose context is entered: that of the hub `tokio`, or the one
//! that drives the loop. A socket of a runtime on other OS threads is made there and wrapped by
//! [`GreenTransport::new`].
//!
//! ```
//! # #[cfg(target_os = "linux")] {
//! use hub_tokio::net::{self, Handlers};
//! use std::io::{Read, Write};
//!
//! greenhub::use_hub("tokio")?;
//! let listener = net::listen("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! let server = greenhub::spawn(move || {
//!     net::serve(&listener, &Handlers::new(), |mut transport, _peer| {
//!         let mut request = [0; 5];
//!         transport.read_exact(&mut request)?;
//!         transport.write_all(&request)
//!     })
//! });
//! let mut transport = net::connect(address)?;
//! transport.write_all(b"hello")?;
//! let mut response = String::new();
//! transport.read_to_string(&mut response)?;
//! assert_eq!(response, "hello");
//! server.kill();
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod serve;
mod stop;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::runtime::Handle;

pub use serve::{Handlers, Served, serve, serve_established, serve_established_until, serve_until};
pub use stop::StopServe;

use crate::transport::{GreenTransport, Turn, wait};

/// Connects to a TCP server. Switches.
///
/// Tries each address of the name, as Tokio's `TcpStream::connect` does. A kill or a timeout ends the attempt.
///
/// # Errors
///
/// Returns [`Unsupported`](io::ErrorKind::Unsupported) if no runtime's context is entered. Otherwise returns the error
/// of Tokio: that of the last address.
#[doc(alias = "GreenClientCreator")]
pub fn connect(address: impl ToSocketAddrs) -> io::Result<GreenTransport<TcpStream>> {
    check_runtime()?;
    wait(None, TcpStream::connect(address))?.map(GreenTransport::new)
}

/// Binds a TCP listener. Switches if the address is a name that has to be resolved.
///
/// # Errors
///
/// Returns [`Unsupported`](io::ErrorKind::Unsupported) if no runtime's context is entered. Otherwise returns the error
/// of Tokio, such as [`AddrInUse`](io::ErrorKind::AddrInUse).
pub fn listen(address: impl ToSocketAddrs) -> io::Result<Listener> {
    check_runtime()?;
    wait(None, TcpListener::bind(address))?.map(Listener::new)
}

/// Tokio panics if there is no context.
fn check_runtime() -> io::Result<()> {
    if Handle::try_current().is_ok() {
        return Ok(());
    }
    let text = "no Tokio runtime here: choose the hub `tokio`, run the loop inside a runtime, or make the socket in a \
                runtime and wrap it by GreenTransport::new";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

/// A TCP listener of Tokio whose connections are transports, from [`listen`].
///
/// It has nothing to do with the trait of this name in `greenhub::hub`, which is notified of a descriptor.
///
/// A second simultaneous [`accept`](Listener::accept) is an error, as a second reader of a transport is.
#[must_use = "a listener that is dropped accepts no more"]
pub struct Listener {
    inner: TcpListener,
    accepting: Turn<()>,
}

impl Listener {
    /// Creates a listener over one of Tokio. Does not switch.
    pub fn new(inner: TcpListener) -> Listener {
        Listener { inner, accepting: Turn::default() }
    }

    /// Waits for a connection. Switches.
    ///
    /// # Errors
    ///
    /// Returns the error of the system, and [`ResourceBusy`](io::ErrorKind::ResourceBusy) if another green thread
    /// accepts.
    pub fn accept(&self) -> io::Result<(GreenTransport<TcpStream>, SocketAddr)> {
        let (stream, peer) = wait(None, self.accept_stream())??;
        Ok((GreenTransport::new(stream), peer))
    }

    async fn accept_stream(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let _accepting = self.accepting.take("accept").await?;
        self.inner.accept().await
    }

    /// Returns the local address. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns the error of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Returns the listener of Tokio. Does not switch.
    #[must_use]
    pub fn get_ref(&self) -> &TcpListener {
        &self.inner
    }

    /// Returns the listener of Tokio. Does not switch.
    #[must_use = "the listener is dropped otherwise"]
    pub fn into_inner(self) -> TcpListener {
        self.inner
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}
