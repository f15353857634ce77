//! An HTTP/1.0 client: one request and one response per connection.

use std::io::{self, ErrorKind, Read, Write};

use greenhub::net::TcpStream;
use url::{Position, Url};

/// The status line and the headers of a response.
pub(crate) struct Head {
    pub(crate) status: u16,
    /// The target of a redirect.
    pub(super) location: Option<String>,
    pub(super) is_html: bool,
    /// The length of the body. `None` if the end of the connection ends the body.
    length: Option<u64>,
}

/// Requests a page, and returns the head of the response and a reader of its body. Switches, as the reader does.
pub(super) fn get(url: &Url) -> io::Result<(Head, impl Read)> {
    // A URL has an IPv6 address in brackets.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(80);
    let mut stream = TcpStream::connect((host, port)).map_err(|error| doing("cannot connect", &error))?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: greenhub\r\nAccept: */*\r\n\r\n",
        &url[Position::BeforePath..Position::AfterQuery],
        &url[Position::BeforeHost..Position::AfterPort]
    );
    stream.write_all(request.as_bytes()).map_err(|error| doing("cannot send the request", &error))?;
    let (head, start) = read_head(&mut stream)?;
    let left = head.length;
    Ok((head, Body { reader: io::Cursor::new(start).chain(stream), left }))
}

/// Reads the head, and returns it with the beginning of the body that arrived with it.
fn read_head(stream: &mut TcpStream) -> io::Result<(Head, Vec<u8>)> {
    const MAX_HEAD: usize = 64 << 10;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece).map_err(|error| doing("cannot read the answer", &error))?;
        bytes.extend_from_slice(&piece[..count]);
        if let Some((head, length)) = parse(&bytes)? {
            return Ok((head, bytes.split_off(length)));
        }
        if count == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the answer ended within its head"));
        }
        if bytes.len() > MAX_HEAD {
            return Err(io::Error::other(format!("the head of the answer has more than {MAX_HEAD} bytes")));
        }
    }
}

/// Parses a head, and returns it with its length. Returns `None` if `bytes` does not hold all of it.
fn parse(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut headers);
    let invalid = |message: String| io::Error::new(ErrorKind::InvalidData, message);
    let parsed = response.parse(bytes).map_err(|error| invalid(format!("invalid HTTP response: {error}")))?;
    let httparse::Status::Complete(end) = parsed else { return Ok(None) };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(found.value).trim().to_owned())
    };
    if let Some(coding) = header("Transfer-Encoding") {
        return Err(invalid(format!("unsupported transfer coding {coding} in a response to HTTP/1.0")));
    }
    let length = match header("Content-Length") {
        Some(text) => Some(text.parse().map_err(|_| invalid(format!("invalid Content-Length {text:?}")))?),
        None => None,
    };
    let status = response.code.unwrap_or_default();
    let location = header("Location").filter(|_| (300..400).contains(&status));
    let is_html = header("Content-Type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"));
    Ok(Some((Head { status, location, is_html, length }, end)))
}

/// A reader of a body, which returns an error if the body is shorter than its `Content-Length`.
struct Body<R> {
    reader: R,
    left: Option<u64>,
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.left.map_or(buffer.len(), |left| left.min(buffer.len() as u64) as usize);
        let count = self.reader.read(&mut buffer[..most]).map_err(|error| doing("cannot read the page", &error))?;
        if let Some(left) = &mut self.left {
            if count == 0 && most > 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("the page ended {left} bytes early")));
            }
            *left -= count as u64;
        }
        Ok(count)
    }
}

fn doing(operation: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{operation}: {error}"))
}
