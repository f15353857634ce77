//! Unix listeners.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll};

use socket2::{Domain, SockAddr, Type};

use super::{UnixStream, address_text, at, at_path, client, local_addr, peer_name};
use crate::socket::{BACKLOG, Socket};

/// A structure representing a Unix domain socket server, std's `UnixListener`.
///
/// Accepting parks only the calling green thread. It is `Send + Sync`. Green threads that accept at the same time, on
/// one OS thread or on several, need a [clone](UnixListener::try_clone) each.
///
/// ```
/// use greenhub::os::unix::net::{UnixListener, UnixStream};
/// let path = std::env::temp_dir().join(format!("greenstd-example-{}", std::process::id()));
/// let listener = UnixListener::bind(&path)?;
/// let client = path.clone();
/// greenhub::spawn(move || UnixStream::connect(client));
/// let (stream, _peer) = listener.accept()?;
/// assert_eq!(stream.local_addr()?.as_pathname(), Some(&*path));
/// std::fs::remove_file(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UnixListener(Socket);

socket_common!(UnixListener, std::os::unix::net::UnixListener);
socket_incoming!(UnixListener, UnixStream, client, address_text);

impl UnixListener {
    /// Creates a new `UnixListener` bound to the specified path. Does not switch.
    ///
    /// The path must not exist, and is not removed with the listener.
    ///
    /// # Errors
    ///
    /// Returns the system's error, for example if the path exists or is too long.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixListener> {
        UnixListener::open(&at_path(path.as_ref())?)
    }

    /// Creates a new `UnixListener` bound to an address. Does not switch.
    ///
    /// Apart from the form of the address, this is [`bind`](UnixListener::bind).
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn bind_addr(address: &SocketAddr) -> io::Result<UnixListener> {
        UnixListener::open(&at(address)?)
    }

    fn open(address: &SockAddr) -> io::Result<UnixListener> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM)?;
        socket.configure(|socket| {
            socket.bind(address)?;
            socket.listen(BACKLOG)
        })?;
        Ok(UnixListener(socket))
    }

    /// Accepts a new incoming connection to this listener. Switches.
    ///
    /// # Errors
    ///
    /// Returns the system's error, for example that no descriptor is free. Returns
    /// [`NotConnected`](io::ErrorKind::NotConnected) if the listener is closed.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (socket, address) = self.0.accept()?;
        Ok((UnixStream(socket), peer_name(address)))
    }

    /// Like [`accept`](UnixListener::accept), and calls `admit` before each attempt. Returns `None` once it is false.
    #[cfg(feature = "console")]
    pub(crate) fn accept_if(&self, admit: impl Fn() -> bool) -> io::Result<Option<UnixStream>> {
        let accepted = self.0.accept_if(|| admit().then_some(()))?;
        Ok(accepted.map(|(socket, ..)| UnixStream(socket)))
    }

    /// Returns the local socket address of this listener.
    ///
    /// # Errors
    ///
    /// Returns an error if the listener was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// Returns an iterator over incoming connections.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }
}

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

impl fmt::Debug for UnixListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("UnixListener", self.local_addr(), Err(io::ErrorKind::NotConnected.into()), f)
    }
}
