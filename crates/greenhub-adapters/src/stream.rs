//! Connections of any transport.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use greenhub::net::TcpStream;
use greenhub::os::unix::net::UnixStream;

/// A connection whose reads and writes have time limits: a green socket, or a session of TLS over one.
///
/// A program implements it for a session in a few lines, which pass each call on to the socket beneath:
///
/// ```
/// use greenhub::net::TcpStream;
/// use greenhub_adapters::Stream;
/// use std::io::{self, Read, Write};
/// use std::net::Shutdown;
/// use std::time::Duration;
/// struct Session(TcpStream); // in a program: `rustls::StreamOwned<_, TcpStream>`
/// impl Read for Session {
///     fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
///         self.0.read(buffer)
///     }
/// }
/// impl Write for Session {
///     fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
///         self.0.write(buffer)
///     }
///     fn flush(&mut self) -> io::Result<()> {
///         self.0.flush()
///     }
/// }
/// impl Stream for Session {
///     fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
///         self.0.set_read_timeout(timeout)
///     }
///     fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
///         self.0.set_write_timeout(timeout)
///     }
///     fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
///         // A session of TLS says here that it ends.
///         self.0.shutdown(how)
///     }
/// }
/// # fn is_stream(_: impl Stream) {}
/// # let listener = greenhub::net::TcpListener::bind("127.0.0.1:0")?;
/// # is_stream(Session(TcpStream::connect(listener.local_addr()?)?));
/// # Ok::<(), io::Error>(())
/// ```
pub trait Stream: Read + Write + Send {
    /// Sets the time limit of each read, like [`TcpStream::set_read_timeout`]. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error for a timeout of zero, and if the connection was closed.
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;

    /// Sets the time limit of each write, like [`TcpStream::set_write_timeout`]. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns an error for a timeout of zero, and if the connection was closed.
    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;

    /// Shuts down the read, write, or both halves of the connection. A session of TLS may switch.
    ///
    /// It is called with `Write` before the connection is dropped, so that the peer can tell its end from a failure.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection is gone.
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()>;

    /// Makes small pieces leave at once, like [`TcpStream::set_nodelay`]. Does not switch.
    ///
    /// The default does nothing, for connections that are not TCP.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection was closed.
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        let _ = nodelay;
        Ok(())
    }
}

macro_rules! socket {
    ($kind:ty $(, $more:ident)*) => {
        impl Stream for $kind {
            fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                <$kind>::set_read_timeout(self, timeout)
            }

            fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                <$kind>::set_write_timeout(self, timeout)
            }

            fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
                <$kind>::shutdown(self, how)
            }
            $(
                fn $more(&self, nodelay: bool) -> io::Result<()> {
                    <$kind>::$more(self, nodelay)
                }
            )*
        }
    };
}
socket!(TcpStream, set_nodelay);
socket!(UnixStream);
