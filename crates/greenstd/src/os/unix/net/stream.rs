//! Unix streams.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, SockAddr, Type};

use super::{at, at_path, local_addr, peer_addr};
use crate::socket::{Direction, Socket};

/// A Unix stream socket, std's `UnixStream`.
///
/// Reading and writing park only the calling green thread. It is `Send + Sync`; one green thread may read while another
/// writes. A second reader or writer needs a [clone](UnixStream::try_clone).
///
/// ```
/// use greenhub::os::unix::net::UnixStream;
/// use std::io::{Read, Write};
/// let (mut one, mut other) = UnixStream::pair()?;
/// let green = greenhub::spawn(move || other.write_all(b"hello"));
/// let mut text = String::new();
/// one.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// green.join()??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UnixStream(pub(super) Socket);

socket_common!(UnixStream, std::os::unix::net::UnixStream);
socket_timeouts!(UnixStream);
socket_stream!(UnixStream);
socket_poll!(UnixStream);

impl UnixStream {
    /// Connects to the socket named by `path`. Switches.
    ///
    /// While the queue of the listener is full the call is repeated with growing pauses.
    ///
    /// # Errors
    ///
    /// Returns the error of the connection.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        UnixStream::open(&at_path(path.as_ref())?)
    }

    /// Connects to the socket named by an address, like [`connect`](UnixStream::connect). Switches.
    ///
    /// # Errors
    ///
    /// Returns the error of the connection.
    pub fn connect_addr(address: &SocketAddr) -> io::Result<UnixStream> {
        UnixStream::open(&at(address)?)
    }

    /// Like `read`, and calls `admit` before each attempt. Its error ends the call.
    #[cfg(feature = "console")]
    pub(crate) fn read_if(&self, buffer: &mut [u8], admit: impl Fn() -> io::Result<()>) -> io::Result<usize> {
        self.0.recv_if(buffer, admit)
    }

    /// Like `write`, and calls `admit` before each attempt. Its error ends the call.
    #[cfg(feature = "console")]
    pub(crate) fn write_if(&self, data: &[u8], admit: impl Fn() -> io::Result<()>) -> io::Result<usize> {
        self.0.send_if(data, admit)
    }

    fn open(address: &SockAddr) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM)?;
        socket.connect_local(address)?;
        Ok(UnixStream(socket))
    }

    /// Creates an unnamed pair of connected sockets. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptors are free.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (one, other) = Socket::pair(Type::STREAM)?;
        Ok((UnixStream(one), UnixStream(other)))
    }

    /// Returns the socket address of the local half of this connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream was closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// Returns the socket address of the remote half of this connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream is not connected, or was closed.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        peer_addr(&self.0)
    }

    /// Shuts down the read, write, or both halves of this connection. Does not switch.
    ///
    /// It acts on every clone: operations that wait for these halves return, on all OS threads. The system does not
    /// report to a writer that its peer has shut down reading; the writer notices it within 64 ms.
    ///
    /// # Errors
    ///
    /// Returns an error if it is not connected, or was closed.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }
}

impl fmt::Debug for UnixStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("UnixStream", self.local_addr(), self.peer_addr(), f)
    }
}
