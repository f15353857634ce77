//! The body of a request.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use ::http::StatusCode;

use super::framing::{Framing, Step};
use super::input::Input;
use super::rejection::Rejection;
use crate::Stream;

/// The body of a request, which a handler reads from the connection. Reading switches.
///
/// A handler need not read it. The end of the body is that of the reader. A body that is malformed, too long or late is
/// an error, and the client then gets the server's rejection in place of the handler's response.
pub struct RequestBody<'a> {
    source: &'a mut (dyn Source + 'a),
}

/// The source of a body, without the lifetimes of its connection.
trait Source: Read {
    fn left(&self) -> Option<u64>;
}

impl<'a> RequestBody<'a> {
    pub(super) fn new(source: &'a mut BodyReader<'_>) -> RequestBody<'a> {
        RequestBody { source }
    }
}

impl RequestBody<'_> {
    /// Returns the number of bytes that have yet to be read, `None` for a chunked body. Does not switch.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        self.source.left()
    }

    /// Reads the rest of the body. Switches.
    ///
    /// # Errors
    ///
    /// Like a read.
    pub fn to_vec(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for RequestBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer)
    }
}

impl fmt::Debug for RequestBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("left", &self.left()).finish_non_exhaustive()
    }
}

/// Reads the body of a request for its handler.
pub(super) struct BodyReader<'a> {
    pub(super) stream: &'a mut dyn Stream,
    pub(super) input: &'a mut Input,
    pub(super) framing: Framing,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    pub(super) max: u64,
    pub(super) timeout: Duration,
    pub(super) received: u64,
    /// The reason why the rest of the body cannot be read.
    pub(super) failure: Option<Failure>,
}

/// The reason why a body cannot be read.
pub(super) enum Failure {
    Rejected(Rejection),
    /// The connection has failed or has ended.
    Lost(io::ErrorKind),
}

impl Failure {
    fn to_error(&self) -> io::Error {
        match self {
            Failure::Rejected(rejection) => io::Error::new(rejection.kind(), rejection.clone()),
            Failure::Lost(kind) => (*kind).into(),
        }
    }
}

impl Source for BodyReader<'_> {
    fn left(&self) -> Option<u64> {
        self.framing.left()
    }
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Some(failure) = &self.failure {
            return Err(failure.to_error());
        }
        self.read_on(buffer).map_err(|failure| self.failure.insert(failure).to_error())
    }
}

impl BodyReader<'_> {
    /// Reads and discards the rest of the body, if it has at most `most` bytes. Switches.
    ///
    /// Returns whether the next request can be read.
    pub(super) fn discard(&mut self, most: u64) -> bool {
        let (mut piece, mut discarded) = ([0; 1024], 0);
        while !self.framing.is_complete() {
            match self.read(&mut piece) {
                Ok(amount) => discarded += amount as u64,
                Err(_) => return false,
            }
            if discarded > most {
                return false;
            }
        }
        true
    }

    fn read_on(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.framing.step(self.input.unused(), buffer.len()).map_err(Failure::Rejected)? {
                Step::Data(amount) => {
                    buffer[..amount].copy_from_slice(&self.input.unused()[..amount]);
                    self.input.consume(amount);
                    self.received += amount as u64;
                    if self.received > self.max {
                        return Err(Failure::Rejected(too_large(self.max)));
                    }
                    return Ok(amount);
                }
                Step::Skip(amount) => self.input.consume(amount),
                Step::End => return Ok(0),
                Step::NeedsMore => self.receive()?,
            }
        }
    }

    fn receive(&mut self) -> Result<(), Failure> {
        let lost = |error: io::Error| Failure::Lost(error.kind());
        if std::mem::take(&mut self.expects_continue) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(lost)?;
        }
        self.stream.set_read_timeout(Some(self.timeout)).map_err(lost)?;
        match self.input.receive(self.stream) {
            Ok(0) => Err(Failure::Lost(io::ErrorKind::UnexpectedEof)),
            Ok(_) => Ok(()),
            Err(error) => Err(Rejection::of_late(error, "body").map_or_else(lost, Failure::Rejected)),
        }
    }
}

/// Returns the rejection of a body that is longer than `max` bytes.
pub(super) fn too_large(max: u64) -> Rejection {
    Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {max} bytes"))
}
