//! Responses on their way to the client.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::time::SystemTime;

use ::http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use ::http::{HeaderMap, Response, StatusCode, Version};

use crate::Stream;

/// The number of bytes that are sent at once, at least, unless the handler flushes.
const PIECE: usize = 16 << 10;

/// The body of a response.
///
/// Strings and vectors of bytes convert to it, and `()` is the empty one.
///
/// ```
/// use greenhub_adapters::http::ResponseBody;
/// use http::Response;
/// use std::io::Write;
/// let short = Response::new("hello");
/// let long: Response<ResponseBody> = Response::new(ResponseBody::from_writer(|body| {
///     for number in 0..1_000_000 {
///         writeln!(body, "{number}")?;
///     }
///     Ok(())
/// }));
/// ```
pub struct ResponseBody(Kind);

enum Kind {
    Bytes(Cow<'static, [u8]>),
    Reader { reader: Box<dyn Read>, length: u64 },
    Writer(Box<Writer>),
}

/// A closure that writes the body.
type Writer = dyn FnOnce(&mut dyn Write) -> io::Result<()>;

impl ResponseBody {
    /// Creates a body of `length` bytes, which the server reads from `reader` while it sends them.
    ///
    /// If the reader ends early or fails, the connection is closed, so the client notices.
    pub fn from_reader(reader: impl Read + 'static, length: u64) -> ResponseBody {
        ResponseBody(Kind::Reader { reader: Box::new(reader), length })
    }

    /// Creates a body that a closure writes while the server sends it, in chunks.
    ///
    /// The writer collects some kilobytes. A flush sends them at once. If the closure fails, the connection is closed,
    /// so the client notices. A client of HTTP/1.0 gets no chunks: there the connection ends with the body.
    pub fn from_writer(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'static) -> ResponseBody {
        ResponseBody(Kind::Writer(Box::new(write)))
    }

    /// Returns the length in bytes, if it is known.
    fn length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Bytes(bytes) => Some(bytes.len() as u64),
            Kind::Reader { length, .. } => Some(*length),
            Kind::Writer(_) => None,
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("length", &self.length()).finish_non_exhaustive()
    }
}

impl From<()> for ResponseBody {
    fn from((): ()) -> ResponseBody {
        ResponseBody::from(&b""[..])
    }
}

impl From<&'static [u8]> for ResponseBody {
    fn from(bytes: &'static [u8]) -> ResponseBody {
        ResponseBody(Kind::Bytes(bytes.into()))
    }
}

impl From<Vec<u8>> for ResponseBody {
    fn from(bytes: Vec<u8>) -> ResponseBody {
        ResponseBody(Kind::Bytes(bytes.into()))
    }
}

impl From<&'static str> for ResponseBody {
    fn from(text: &'static str) -> ResponseBody {
        text.as_bytes().into()
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> ResponseBody {
        text.into_bytes().into()
    }
}

/// The facts about a request that its response depends on.
#[derive(Copy, Clone, Debug)]
pub(super) struct Exchange {
    pub(super) is_head: bool,
    pub(super) version: Version,
    /// Whether the client may send another request.
    pub(super) keep: bool,
}

/// The form of a body on the connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Form {
    /// No body and no length.
    None,
    Length(u64),
    Chunked,
    /// The body ends with the connection.
    Rest,
}

impl Exchange {
    /// Sends a response. Returns whether another request may follow. Switches.
    pub(super) fn send(
        mut self,
        stream: &mut dyn Stream,
        output: &mut Vec<u8>,
        mut response: Response<ResponseBody>,
    ) -> io::Result<bool> {
        if response.status().is_informational() {
            // A response that is not the last one would leave the client waiting.
            response = Response::new("the handler of this request has failed\n".into());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        let (head, body) = response.into_parts();
        let form = self.form(head.status, &head.headers, &body);
        let asks_to_close =
            head.headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        self.keep &= !asks_to_close && form != Form::Rest;
        output.clear();
        self.write_head(output, head.status, &head.headers, form);
        let has_body = !self.is_head && form != Form::None && head.status != StatusCode::NOT_MODIFIED;
        if !has_body {
            stream.write_all(output)?;
        } else {
            send_body(stream, output, body, form)?;
        }
        stream.flush()?;
        Ok(self.keep)
    }

    fn form(&self, status: StatusCode, headers: &HeaderMap, body: &ResponseBody) -> Form {
        if status == StatusCode::NO_CONTENT {
            return Form::None;
        }
        let is_not_modified = status == StatusCode::NOT_MODIFIED;
        if is_not_modified || (self.is_head && body.length() == Some(0)) {
            // The handler may know the length of a body that it need not make.
            let given = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            let otherwise = if is_not_modified { Form::None } else { Form::Length(0) };
            return given.map_or(otherwise, Form::Length);
        }
        match body.length() {
            Some(length) => Form::Length(length),
            None if self.version == Version::HTTP_10 => Form::Rest,
            None => Form::Chunked,
        }
    }

    fn write_head(&self, output: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap, form: Form) {
        let mut line = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| output.extend_from_slice(part));
            output.extend_from_slice(b"\r\n");
        };
        let reason = status.canonical_reason().unwrap_or_default();
        line(&[b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes()]);
        // These fields are the server's.
        let is_own = |name| name == CONTENT_LENGTH || name == TRANSFER_ENCODING || name == CONNECTION;
        for (name, value) in headers.iter().filter(|(name, _)| !is_own(*name)) {
            line(&[name.as_str().as_bytes(), b": ", value.as_bytes()]);
        }
        match form {
            Form::Length(length) => line(&[b"content-length: ", length.to_string().as_bytes()]),
            Form::Chunked => line(&[b"transfer-encoding: chunked"]),
            Form::None | Form::Rest => {}
        }
        if !self.keep {
            line(&[b"connection: close"]);
        } else if self.version == Version::HTTP_10 {
            line(&[b"connection: keep-alive"]);
        }
        if !headers.contains_key(DATE) {
            line(&[b"date: ", httpdate::fmt_http_date(SystemTime::now()).as_bytes()]);
        }
        line(&[]);
    }
}

/// Sends a body behind its head, which is in `output`. Switches.
fn send_body(stream: &mut dyn Stream, output: &mut Vec<u8>, body: ResponseBody, form: Form) -> io::Result<()> {
    match body.0 {
        Kind::Bytes(bytes) if bytes.len() <= PIECE => {
            output.extend_from_slice(&bytes);
            stream.write_all(output)
        }
        Kind::Bytes(bytes) => write_both(stream, output, &bytes),
        Kind::Reader { reader, length } => {
            let mut pieces = Pieces { stream, pending: output, piece: Vec::new(), is_chunked: false };
            if io::copy(&mut reader.take(length), &mut pieces)? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            pieces.flush()
        }
        Kind::Writer(write) => {
            let mut pieces = Pieces { stream, pending: output, piece: Vec::new(), is_chunked: form == Form::Chunked };
            write(&mut pieces)?;
            pieces.end()
        }
    }
}

/// Writes two buffers as one.
fn write_both(stream: &mut dyn Stream, first: &[u8], second: &[u8]) -> io::Result<()> {
    let mut both = [IoSlice::new(first), IoSlice::new(second)];
    let mut left = &mut both[..];
    while !left.is_empty() {
        match stream.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends a body in pieces, which are chunks if the body has no length.
struct Pieces<'a> {
    stream: &'a mut dyn Stream,
    /// Bytes as they are sent: at first the head.
    pending: &'a mut Vec<u8>,
    /// Bytes of the body.
    piece: Vec<u8>,
    is_chunked: bool,
}

impl Pieces<'_> {
    /// Moves the collected bytes of the body to those that are sent.
    fn frame(&mut self) {
        if self.piece.is_empty() {
            // An empty chunk would be the last one.
            return;
        }
        if self.is_chunked {
            self.pending.extend_from_slice(format!("{:x}\r\n", self.piece.len()).as_bytes());
        }
        self.pending.append(&mut self.piece);
        if self.is_chunked {
            self.pending.extend_from_slice(b"\r\n");
        }
    }

    fn end(mut self) -> io::Result<()> {
        self.frame();
        if self.is_chunked {
            self.pending.extend_from_slice(b"0\r\n\r\n");
        }
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.frame();
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.frame();
        self.send()?;
        self.stream.flush()
    }
}
