//! Lines over a transport.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::mem;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::transport::GreenTransport;

/// The default limit, which is that of Twisted's `LineReceiver`.
const MAX_LENGTH: usize = 16 << 10;

/// The room for a read beside a line that is not complete.
const CHUNK: usize = 4 << 10;

/// The end of a line that is sent.
const LINE_END: &[u8] = b"\r\n";

/// A transport of lines, with a limit for their length.
///
/// Lines are read by [`BufRead`]: `\n` and `\r\n` end them. [`send_line`](LineTransport::send_line) ends them by
/// `\r\n`. Eventlet's `LineOnlyReceiverTransport`, from its years on Twisted.
///
/// Unlike a `BufReader`, it loses nothing when a kill, a timeout or an error ends a read in the middle of a line: the
/// bytes stay in its buffer, and the next read goes on there. In the same way, a line that was sent in part is
/// completed before the next one. At the end of the stream the rest is the last line, also if the connection was lost:
/// then the error follows once, and the end.
///
/// ```
/// use hub_tokio::{GreenTransport, LineTransport};
/// use std::io::BufRead;
/// let (client, server) = tokio::io::duplex(64);
/// let server = greenhub::spawn(move || {
///     let mut transport = LineTransport::new(GreenTransport::new(server));
///     transport.send_line("220 ready")?;
///     let mut request = String::new();
///     transport.read_line(&mut request)?;
///     transport.send_line("221 bye")?;
///     std::io::Result::Ok(request)
/// });
/// let mut transport = LineTransport::new(GreenTransport::new(client));
/// transport.send_line("QUIT")?;
/// let lines: Vec<String> = transport.lines().collect::<Result<_, _>>()?;
/// assert_eq!(lines, ["220 ready", "221 bye"]);
/// assert_eq!(server.join()??, "QUIT\r\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "LineReceiver")]
#[doc(alias = "LineOnlyReceiverTransport")]
#[doc(alias = "LineReceiverTransport")]
#[must_use = "a transport that is dropped drops its stream"]
pub struct LineTransport<T> {
    transport: GreenTransport<T>,
    max_length: usize,
    incoming: Incoming,
    /// The rest of what is to be sent.
    outgoing: Vec<u8>,
}

/// The bytes that were read and not taken.
struct Incoming {
    /// Initialized to its full length. The bytes are those of `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The number of bytes from `start` that are known not to contain the delimiter of the last search.
    searched: usize,
    delimiter: u8,
    state: IncomingState,
}

enum IncomingState {
    Open,
    /// An error after the last byte, which was not returned yet.
    Failed(io::Error),
    Ended,
}

impl<T> LineTransport<T> {
    /// Creates a transport of lines of at most 16 KiB. Does not switch.
    pub fn new(transport: GreenTransport<T>) -> LineTransport<T> {
        LineTransport::with_max_length(MAX_LENGTH, transport)
    }

    /// Creates a transport of lines of at most `max_length` bytes, without their ends. Does not switch.
    ///
    /// A longer line is an error of the kind [`InvalidData`](io::ErrorKind::InvalidData), after which reads find the
    /// end.
    ///
    /// ```
    /// # use hub_tokio::{GreenTransport, LineTransport};
    /// use std::io::{BufRead, ErrorKind, Write};
    /// let (ours, theirs) = tokio::io::duplex(64);
    /// GreenTransport::new(theirs).write_all(b"hello\ngoodbye\n")?;
    /// let mut lines = LineTransport::with_max_length(5, GreenTransport::new(ours)).lines();
    /// assert_eq!(lines.next().unwrap()?, "hello");
    /// assert_eq!(lines.next().unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
    /// assert!(lines.next().is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_max_length(max_length: usize, transport: GreenTransport<T>) -> LineTransport<T> {
        let incoming = Incoming {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            searched: 0,
            delimiter: b'\n',
            state: IncomingState::Open,
        };
        LineTransport { transport, max_length, incoming, outgoing: Vec::new() }
    }

    /// Returns the transport, such as for its timeouts. Does not switch.
    ///
    /// Bytes that are read from it directly are missing in the lines.
    pub fn get_ref(&self) -> &GreenTransport<T> {
        &self.transport
    }

    /// Returns the bytes that were read and not taken. Does not switch.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.incoming.unread()
    }

    /// Returns the transport. Does not switch.
    ///
    /// The bytes of [`buffer`](LineTransport::buffer) are lost, and the rest of a line that was sent in part.
    pub fn into_inner(self) -> GreenTransport<T> {
        self.transport
    }
}

impl<T: AsyncWrite + Unpin> LineTransport<T> {
    /// Sends a line and `\r\n`. Switches while it has to wait.
    ///
    /// Returns when the stream has flushed the line. If an error, a timeout or a kill ends it, the rest of the line is
    /// not lost: the next call, or [`flush`](Write::flush), sends it first.
    ///
    /// # Errors
    ///
    /// Returns the errors of a write to the transport.
    pub fn send_line(&mut self, line: impl AsRef<[u8]>) -> io::Result<()> {
        self.outgoing.extend_from_slice(line.as_ref());
        self.outgoing.extend_from_slice(LINE_END);
        self.flush()
    }

    fn send_rest(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            let n = self.transport.accept(&self.outgoing)?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.outgoing.drain(..n);
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> LineTransport<T> {
    /// Reads more bytes, behind those that were not taken. Switches while it has to wait.
    fn read_more(&mut self) -> io::Result<()> {
        let incoming = &mut self.incoming;
        match mem::replace(&mut incoming.state, IncomingState::Ended) {
            IncomingState::Open => incoming.state = IncomingState::Open,
            IncomingState::Failed(error) if incoming.unread().is_empty() => return Err(error),
            state => {
                incoming.state = state;
                return Ok(());
            }
        }
        let read = self.transport.read(incoming.room());
        let has_ended = self.transport.has_read_all();
        match read {
            Ok(n) => {
                incoming.end += n;
                if has_ended {
                    incoming.state = IncomingState::Ended;
                }
            }
            Err(error) if has_ended && !incoming.unread().is_empty() => {
                incoming.state = IncomingState::Failed(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn fail_if_too_long(&mut self, length: usize) -> io::Result<()> {
        if length <= self.max_length {
            return Ok(());
        }
        let text = format!("a line is longer than {} bytes", self.max_length);
        self.incoming.consume(usize::MAX);
        self.incoming.state = IncomingState::Ended;
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    /// Reads up to the next delimiter. The bytes stay in the buffer. Returns their number, which is 0 at the end.
    fn find(&mut self, delimiter: u8) -> io::Result<usize> {
        loop {
            if let Some(length) = self.incoming.find(delimiter) {
                let line = &self.incoming.unread()[..length - 1];
                self.fail_if_too_long(without_return(line, delimiter).len())?;
                return Ok(length);
            }
            let unread = self.incoming.unread();
            let known = unread.len();
            // The last byte may belong to the end of the line.
            self.fail_if_too_long(without_return(unread, delimiter).len())?;
            self.read_more()?;
            if self.incoming.unread().len() == known {
                return Ok(known);
            }
        }
    }
}

/// Removes the `\r` before a `\n`.
fn without_return(line: &[u8], delimiter: u8) -> &[u8] {
    let stripped = if delimiter == b'\n' { line.strip_suffix(b"\r") } else { None };
    stripped.unwrap_or(line)
}

impl Incoming {
    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Makes room behind the bytes that were not taken.
    fn room(&mut self) -> &mut [u8] {
        if self.start != 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < CHUNK {
            self.buffer.resize(self.end + 2 * CHUNK, 0);
        }
        &mut self.buffer[self.end..]
    }

    fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
        self.searched = self.searched.saturating_sub(n);
    }

    /// Returns the length of the bytes up to the first delimiter, with it.
    fn find(&mut self, delimiter: u8) -> Option<usize> {
        if mem::replace(&mut self.delimiter, delimiter) != delimiter {
            self.searched = 0;
        }
        let unread = &self.buffer[self.start..self.end];
        let found = unread[self.searched..].iter().position(|&byte| byte == delimiter);
        let length = found.map(|position| self.searched + position + 1);
        if length.is_none() {
            self.searched = unread.len();
        }
        length
    }
}

impl<T: AsyncRead + Unpin> BufRead for LineTransport<T> {
    /// Returns the bytes that were not taken. Reads if there are none, and switches while it has to wait.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.incoming.unread().is_empty() {
            self.read_more()?;
        }
        Ok(self.incoming.unread())
    }

    fn consume(&mut self, n: usize) {
        self.incoming.consume(n);
    }

    /// Like std's, but an error leaves the bytes in the buffer. Switches while it has to wait.
    ///
    /// The limit applies to each delimiter.
    fn read_until(&mut self, delimiter: u8, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let length = self.find(delimiter)?;
        bytes.extend_from_slice(&self.incoming.unread()[..length]);
        self.incoming.consume(length);
        Ok(length)
    }

    /// Like std's, but an error leaves the bytes in the buffer. Switches while it has to wait.
    ///
    /// Only a line that is not UTF-8 is taken.
    fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        let length = self.find(b'\n')?;
        let text = str::from_utf8(&self.incoming.unread()[..length]).map(|text| line.push_str(text));
        self.incoming.consume(length);
        match text {
            Ok(()) => Ok(length),
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8")),
        }
    }
}

impl<T: AsyncRead + Unpin> Read for LineTransport<T> {
    /// Takes bytes of the buffer. Reads if there are none, and switches while it has to wait.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl<T: AsyncWrite + Unpin> Write for LineTransport<T> {
    /// Writes some bytes, after the rest of a line that was sent in part. Switches while it has to wait.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send_rest()?;
        self.transport.write(data)
    }

    /// Sends the rest of a line that was sent in part, and waits until it is flushed. Switches then.
    fn flush(&mut self) -> io::Result<()> {
        self.send_rest()?;
        self.transport.flush()
    }
}

impl<T> fmt::Debug for LineTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineTransport")
            .field("transport", &self.transport)
            .field("max_length", &self.max_length)
            .field("unread", &self.incoming.unread().len())
            .field("unsent", &self.outgoing.len())
            .finish()
    }
}
