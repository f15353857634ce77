//! Heads and bodies of HTTP/1 messages, read and written as if the streams blocked.

use std::io::{self, BufRead, Read, Write};

/// The most bytes of a head.
const LONGEST_HEAD: u64 = 64 * 1024;

/// The most headers of a message.
const MOST_HEADERS: usize = 100;

/// Headers that concern one connection only, so the proxy does not pass them on.
const OF_THE_CONNECTION: &[&str] =
    &["connection", "expect", "keep-alive", "proxy-authorization", "proxy-connection", "te", "upgrade"];

/// How the end of a body is known.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Body {
    Empty,
    Length(u64),
    Chunked,
    /// The sender closes the connection.
    UntilEnd,
}

/// The common part of requests and responses.
#[derive(Debug)]
pub(crate) struct Message {
    headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Body,
    /// Whether the connection is kept for another message.
    pub(crate) is_persistent: bool,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// An absolute URI, a path, or `HOST:PORT` for `CONNECT`.
    pub(crate) target: String,
    /// Whether the client waits for the word to go on before it sends the body.
    pub(crate) expects: bool,
    pub(crate) message: Message,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    reason: String,
    pub(crate) message: Message,
}

impl Request {
    /// Reads the head of a request. Returns `None` at the end of the connection.
    pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
        let Some(head) = read_head(reader)? else { return Ok(None) };
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        parsed.parse(&head).map_err(invalid)?;
        let message = Message::new(parsed.version, parsed.headers)?;
        Ok(Some(Request {
            method: parsed.method.unwrap_or_default().to_owned(),
            target: parsed.path.unwrap_or_default().to_owned(),
            expects: message.value("expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")),
            message,
        }))
    }

    /// Returns the head for the server of the path.
    pub(crate) fn head_for(&self, path: &str) -> Vec<u8> {
        self.message.head(&format!("{} {path} HTTP/1.1\r\n", self.method))
    }
}

impl Response {
    /// Reads the head of the response to a request of this method. Passes over interim responses.
    pub(crate) fn read(reader: &mut impl BufRead, method: &str) -> io::Result<Option<Response>> {
        loop {
            let Some(head) = read_head(reader)? else { return Ok(None) };
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut parsed = httparse::Response::new(&mut headers);
            parsed.parse(&head).map_err(invalid)?;
            let status = parsed.code.unwrap_or_default();
            if status / 100 == 1 {
                continue;
            }
            let mut message = Message::new(parsed.version, parsed.headers)?;
            if method == "HEAD" || matches!(status, 204 | 304) {
                message.body = Body::Empty;
            } else if message.body == Body::Empty {
                message.body = Body::UntilEnd;
                message.is_persistent = false;
            }
            let reason = parsed.reason.unwrap_or_default().to_owned();
            return Ok(Some(Response { status, reason, message }));
        }
    }

    /// Returns the head for a client whose connection is kept or not.
    pub(crate) fn head(&self, is_persistent: bool) -> Vec<u8> {
        let mut head = self.message.head(&format!("HTTP/1.1 {} {}\r\n", self.status, self.reason));
        if !is_persistent {
            head.truncate(head.len() - 2);
            head.extend_from_slice(b"Connection: close\r\n\r\n");
        }
        head
    }
}

impl Message {
    fn new(version: Option<u8>, headers: &[httparse::Header<'_>]) -> io::Result<Message> {
        let headers = headers.iter().map(|header| (header.name.to_owned(), header.value.to_owned())).collect();
        let mut message = Message { headers, body: Body::Empty, is_persistent: false };
        let connection = message.value("connection").unwrap_or_default();
        message.is_persistent = match version {
            Some(1) => !connection.eq_ignore_ascii_case(b"close"),
            _ => connection.eq_ignore_ascii_case(b"keep-alive"),
        };
        let length =
            message.value("content-length").map(|value| std::str::from_utf8(value).unwrap_or_default().parse());
        message.body = match (message.value("transfer-encoding"), length) {
            (Some(encoding), None) if encoding.eq_ignore_ascii_case(b"chunked") => Body::Chunked,
            (None, Some(Ok(0))) if message.is_alone("content-length") => Body::Length(0),
            (None, Some(Ok(length))) if message.is_alone("content-length") => Body::Length(length),
            (None, None) => Body::Empty,
            _ => return Err(invalid("a body whose length is not clear")),
        };
        Ok(message)
    }

    fn value(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|header| header.0.eq_ignore_ascii_case(name)).map(|header| &*header.1)
    }

    fn is_alone(&self, name: &str) -> bool {
        self.headers.iter().filter(|header| header.0.eq_ignore_ascii_case(name)).count() == 1
    }

    /// Returns a head with the headers that are passed on.
    fn head(&self, first_line: &str) -> Vec<u8> {
        let mut head = first_line.as_bytes().to_vec();
        for (name, value) in &self.headers {
            if !OF_THE_CONNECTION.iter().any(|dropped| name.eq_ignore_ascii_case(dropped)) {
                head.extend_from_slice(name.as_bytes());
                head.extend_from_slice(b": ");
                head.extend_from_slice(value);
                head.extend_from_slice(b"\r\n");
            }
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// Reads up to the empty line, after empty lines at the beginning. Returns `None` at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut reader = reader.take(LONGEST_HEAD);
    let mut head = Vec::new();
    loop {
        let begun = head.len();
        match reader.read_until(b'\n', &mut head)? {
            0 if head.is_empty() => return Ok(None),
            0 => return Err(invalid("a head that is too long or breaks off")),
            _ if !matches!(&head[begun..], b"\r\n" | b"\n") => {}
            _ if begun == 0 => head.clear(),
            _ => return Ok(Some(head)),
        }
    }
}

/// Passes a body on.
pub(crate) fn copy_body(reader: &mut impl BufRead, writer: &mut impl Write, body: Body) -> io::Result<()> {
    match body {
        Body::Empty => Ok(()),
        Body::Length(length) => copy(reader, writer, length),
        Body::UntilEnd => copy_to_end(reader, writer),
        Body::Chunked => loop {
            let line = read_line(reader)?;
            let size = std::str::from_utf8(&line).unwrap_or_default();
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(invalid)?;
            writer.write_all(&line)?;
            if size > 0 {
                // With the line end after the chunk.
                copy(reader, writer, size.checked_add(2).ok_or_else(|| invalid("a chunk that is too long"))?)?;
                continue;
            }
            // Trailers, up to an empty line.
            loop {
                let line = read_line(reader)?;
                writer.write_all(&line)?;
                if matches!(&*line, b"\r\n" | b"\n") {
                    return Ok(());
                }
            }
        },
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(LONGEST_HEAD).read_until(b'\n', &mut line)?;
    if line.ends_with(b"\n") { Ok(line) } else { Err(invalid("a line that is too long or breaks off")) }
}

/// Passes on everything until the end.
pub(crate) fn copy_to_end(reader: &mut impl BufRead, writer: &mut impl Write) -> io::Result<()> {
    loop {
        let data = reader.fill_buf()?;
        if data.is_empty() {
            return Ok(());
        }
        writer.write_all(data)?;
        let taken = data.len();
        reader.consume(taken);
    }
}

fn copy(reader: &mut impl BufRead, writer: &mut impl Write, length: u64) -> io::Result<()> {
    let mut reader = reader.take(length);
    copy_to_end(&mut reader, writer)?;
    if reader.limit() == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
