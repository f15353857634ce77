//! TCP sockets.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll};
use std::time::Duration;

use super::{ConnectOptions, ListenOptions, ToSocketAddrs, address_text, client, local_addr, peer_addr};
use crate::socket::{Direction, Socket};

/// A TCP stream between a local and a remote socket, std's `TcpStream`.
///
/// Reading and writing park only the calling green thread. It is `Send + Sync`; two green threads may use it at the
/// same time, one reading and one writing. A second reader or writer is refused with
/// [`ResourceBusy`](io::ErrorKind::ResourceBusy): give it a [clone](TcpStream::try_clone).
///
/// After the peer has ended its side, each read returns 0. After the peer has reset the connection, the next read or
/// write fails with [`ConnectionReset`](io::ErrorKind::ConnectionReset), once; from then on reads return 0 and writes
/// fail with [`BrokenPipe`](io::ErrorKind::BrokenPipe). Eventlet returns an empty string for either.
///
/// ```
/// use greenhub::net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let server = greenhub::spawn(move || listener.accept()?.0.write_all(b"hello"));
/// let mut text = String::new();
/// TcpStream::connect(address)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// server.join()??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "GreenSocket")]
pub struct TcpStream(Socket);

socket_common!(TcpStream, std::net::TcpStream);
socket_timeouts!(TcpStream);
socket_stream!(TcpStream);
socket_poll!(TcpStream);

impl TcpStream {
    /// Opens a TCP connection to a remote host. Switches.
    ///
    /// It tries the addresses in order and returns the first connection. [`ConnectOptions`] has more settings.
    ///
    /// # Errors
    ///
    /// Returns the error of the last address, or of the name look-up.
    pub fn connect<A: ToSocketAddrs>(address: A) -> io::Result<TcpStream> {
        ConnectOptions::new().connect(address)
    }

    /// Opens a TCP connection to a remote host with a timeout. Switches.
    ///
    /// # Errors
    ///
    /// Returns [`TimedOut`](io::ErrorKind::TimedOut) after `timeout`, [`InvalidInput`](io::ErrorKind::InvalidInput) for
    /// a timeout of zero, or the error of the connection.
    pub fn connect_timeout(address: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        ConnectOptions::new().timeout(timeout).connect(address)
    }

    pub(super) fn new(socket: Socket) -> TcpStream {
        TcpStream(socket)
    }

    /// Returns the socket address of the remote peer of this TCP connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection is gone, or was closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        peer_addr(&self.0)
    }

    /// Returns the socket address of the local half of this TCP connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// Shuts down the read, write, or both halves of this connection. Does not switch.
    ///
    /// It acts on every clone: operations that wait for these halves return, on all OS threads.
    ///
    /// # Errors
    ///
    /// Returns an error if it is not connected.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    /// Receives data without removing it: the next read returns the same bytes. Switches.
    ///
    /// # Errors
    ///
    /// Like a read.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.peek(buffer)
    }

    /// Sets the value of the `TCP_NODELAY` option: small segments are sent at once.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream was closed.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.configure(|socket| socket.set_tcp_nodelay(nodelay))
    }

    /// Gets the value of the `TCP_NODELAY` option on this socket.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream was closed.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.0.configure(|socket| socket.tcp_nodelay())
    }

    /// Sets the value of the `SO_LINGER` option on this socket.
    ///
    /// It is the time, in whole seconds, that the system tries to deliver unsent data after the close. Zero resets the
    /// connection instead. With any other value the close itself blocks the OS thread. The method is unstable in std.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream was closed.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.0.configure(|socket| socket.set_linger(linger))
    }

    /// Gets the value of the `SO_LINGER` option on this socket.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream was closed.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.0.configure(|socket| socket.linger())
    }

    /// Sets the value for the `IP_TTL` option on this socket.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses the value, or the stream was closed.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.configure(|socket| socket.set_ttl_v4(ttl))
    }

    /// Gets the value of the `IP_TTL` option for this socket.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream was closed.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.configure(|socket| socket.ttl_v4())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("TcpStream", self.local_addr(), self.peer_addr(), f)
    }
}

/// A TCP socket server, listening for connections, std's `TcpListener`.
///
/// Accepting parks only the calling green thread. It is `Send + Sync`. Green threads that accept at the same time, on
/// one OS thread or on several, need a [clone](TcpListener::try_clone) each.
///
/// ```
/// use greenhub::net::{TcpListener, TcpStream};
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// greenhub::spawn(move || TcpStream::connect(address));
/// let (stream, peer) = listener.accept()?;
/// assert_eq!(stream.peer_addr()?, peer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TcpListener(Socket);

socket_common!(TcpListener, std::net::TcpListener);
socket_incoming!(TcpListener, TcpStream, client, address_text);

impl TcpListener {
    /// Creates a listener which will be bound to the specified address. Switches if it looks up a name.
    ///
    /// It tries the addresses in order. An address whose connections have just ended may be bound again
    /// (`SO_REUSEADDR`). [`ListenOptions`] has more settings.
    ///
    /// # Errors
    ///
    /// Returns the error of the last address, or of the name look-up.
    pub fn bind<A: ToSocketAddrs>(address: A) -> io::Result<TcpListener> {
        ListenOptions::new().listen(address)
    }

    pub(super) fn new(socket: Socket) -> TcpListener {
        TcpListener(socket)
    }

    /// Returns the local socket address of this listener.
    ///
    /// It has the port that the system chose.
    ///
    /// # Errors
    ///
    /// Returns an error if the listener was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// Accepts a new incoming connection from this listener. Switches.
    ///
    /// # Errors
    ///
    /// Returns the system's error, for example that no descriptor is free, or that the peer has aborted the connection.
    /// Returns [`NotConnected`](io::ErrorKind::NotConnected) if the listener is closed.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, address) = self.0.accept()?;
        Ok((TcpStream(socket), client(address)?))
    }

    /// Returns an iterator over the connections being received on this listener.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Sets the value for the `IP_TTL` option on this socket and its connections.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses the value, or the listener was closed.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.configure(|socket| socket.set_ttl_v4(ttl))
    }

    /// Gets the value of the `IP_TTL` option for this socket.
    ///
    /// # Errors
    ///
    /// Returns an error if the listener was closed.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.configure(|socket| socket.ttl_v4())
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("TcpListener", self.local_addr(), Err(io::ErrorKind::NotConnected.into()), f)
    }
}
