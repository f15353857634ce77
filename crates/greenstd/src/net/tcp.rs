//! TCP.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{ConnectOptions, ListenOptions, ToSocketAddrs, client, local_addr, peer_addr};
use crate::socket::{Direction, Socket};

/// A TCP connection, std's `TcpStream`.
///
/// Reading and writing park the calling green thread only. It is `Send + Sync`; two green threads may use it
/// at the same time, one reading and one writing. A second reader, or writer, is refused with
/// [`ResourceBusy`](io::ErrorKind::ResourceBusy): give it a [clone](TcpStream::try_clone).
///
/// Where the peer has ended its side a read returns 0, each time. Where it has reset the connection the next read or
/// write is [`ConnectionReset`](io::ErrorKind::ConnectionReset), once; from then on reads return 0 and writes are
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe). Eventlet returns an empty string for either.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let server = hub_core::spawn(move || listener.accept()?.0.write_all(b"hello"));
/// let mut text = String::new();
/// TcpStream::connect(address)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// server.join()??;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct TcpStream(Socket);

socket_common!(TcpStream, std::net::TcpStream);
socket_timeouts!(TcpStream);
socket_stream!(TcpStream);

impl TcpStream {
    /// Connects to an address; to the first that answers, if there are several. [`ConnectOptions`] has other ways.
    /// Switches.
    ///
    /// # Errors
    ///
    /// Why the last address could not be reached, or the name not be looked up.
    pub fn connect<A: ToSocketAddrs>(address: A) -> io::Result<TcpStream> {
        ConnectOptions::new().connect(address)
    }

    /// Connects to an address, and gives up with [`TimedOut`](io::ErrorKind::TimedOut) after `timeout`.
    /// Switches.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a timeout of zero; why the address could not be
    /// reached.
    pub fn connect_timeout(address: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        ConnectOptions::new().timeout(timeout).connect(address)
    }

    pub(super) fn new(socket: Socket) -> TcpStream {
        TcpStream(socket)
    }

    /// The address of the other side.
    ///
    /// # Errors
    ///
    /// If the connection is gone, or was closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        peer_addr(&self.0)
    }

    /// The address of this side.
    ///
    /// # Errors
    ///
    /// If the stream was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// Shuts down one direction or both, for every clone: operations that wait for them return, on any OS thread.
    /// Does not switch.
    ///
    /// # Errors
    ///
    /// If it is not connected.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    /// Reads without taking: the next read returns the same bytes. Switches.
    ///
    /// # Errors
    ///
    /// As a read.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.peek(buffer)
    }

    /// Sends small segments at once (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// If the stream was closed.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.configure(|socket| socket.set_tcp_nodelay(nodelay))
    }

    /// Whether small segments are sent at once.
    ///
    /// # Errors
    ///
    /// If the stream was closed.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.0.configure(|socket| socket.tcp_nodelay())
    }

    /// How long the system tries to deliver what is unsent at the close (`SO_LINGER`, whole seconds). Zero
    /// resets the connection instead. With any other limit the close itself blocks the OS thread. std has this
    /// as an unstable method.
    ///
    /// # Errors
    ///
    /// If the stream was closed.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.0.configure(|socket| socket.set_linger(linger))
    }

    /// What [`set_linger`](TcpStream::set_linger) has set.
    ///
    /// # Errors
    ///
    /// If the stream was closed.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        self.0.configure(|socket| socket.linger())
    }

    /// Sets how many routers a packet may pass (`IP_TTL`).
    ///
    /// # Errors
    ///
    /// If the number is none that the system takes, or the stream was closed.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.configure(|socket| socket.set_ttl_v4(ttl))
    }

    /// How many routers a packet may pass.
    ///
    /// # Errors
    ///
    /// If the stream was closed.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.configure(|socket| socket.ttl_v4())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("TcpStream", self.local_addr(), self.peer_addr(), f)
    }
}

/// A TCP socket that accepts connections, std's `TcpListener`.
///
/// Accepting parks the calling green thread only. It is `Send + Sync`; several green threads of one thread that
/// accept at the same time need a [clone](TcpListener::try_clone) each.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::net::{TcpListener, TcpStream};
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// hub_core::spawn(move || TcpStream::connect(address));
/// let (stream, peer) = listener.accept()?;
/// assert_eq!(stream.peer_addr()?, peer);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct TcpListener(Socket);

socket_common!(TcpListener, std::net::TcpListener);
socket_incoming!(TcpListener, TcpStream, client);

impl TcpListener {
    /// Listens at an address; at the first that can be had, if there are several. An address whose connections
    /// have ended only just may be taken again (`SO_REUSEADDR`); [`ListenOptions`] has other ways. Switches if a name has
    /// to be looked up.
    ///
    /// # Errors
    ///
    /// Why the last address could not be had, or the name not be looked up.
    pub fn bind<A: ToSocketAddrs>(address: A) -> io::Result<TcpListener> {
        ListenOptions::new().listen(address)
    }

    pub(super) fn new(socket: Socket) -> TcpListener {
        TcpListener(socket)
    }

    /// The address at which it listens: how to learn of a port that the system chose.
    ///
    /// # Errors
    ///
    /// If the listener was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// Waits for the next connection. Switches.
    ///
    /// # Errors
    ///
    /// What the system says: among others, that no descriptor is free, or that the peer has gone again.
    /// [`NotConnected`](io::ErrorKind::NotConnected) if the listener is closed.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, address) = self.0.accept()?;
        Ok((TcpStream(socket), client(address)?))
    }

    /// The connections, one after the other.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Sets how many routers a packet may pass, for the connections too (`IP_TTL`).
    ///
    /// # Errors
    ///
    /// If the number is none that the system takes, or the listener was closed.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.configure(|socket| socket.set_ttl_v4(ttl))
    }

    /// How many routers a packet may pass.
    ///
    /// # Errors
    ///
    /// If the listener was closed.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.configure(|socket| socket.ttl_v4())
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("TcpListener", self.local_addr(), Err(io::ErrorKind::NotConnected.into()), f)
    }
}
