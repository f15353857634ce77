//! HTTP/1.1 as a server: requests without a body, one after the other.

use std::io::{self, Read, Write};
use std::time::Duration;

use greenhub::net::TcpStream;

use crate::site::Site;

/// The longest head of a request.
const LONGEST: usize = 16 << 10;

/// A client that is gone, and how many answers it got.
pub(crate) struct Gone {
    pub(crate) answered: u64,
}

/// Answers what a client asks for until it leaves, asks for nothing in time, or asks in vain: how many answers it got.
pub(crate) fn serve(site: &Site, stream: TcpStream, patience: Duration) -> Result<u64, Gone> {
    let mut connection = Connection { stream, input: Vec::new(), answered: 0 };
    let timeouts = connection.stream.set_read_timeout(Some(patience));
    let timeouts = timeouts.and_then(|()| connection.stream.set_write_timeout(Some(patience)));
    match timeouts.and_then(|()| connection.answer_all(site)) {
        Ok(()) => Ok(connection.answered),
        Err(_) => Err(Gone { answered: connection.answered }),
    }
}

struct Connection {
    stream: TcpStream,
    /// What was read and not looked at.
    input: Vec<u8>,
    answered: u64,
}

/// What is asked for.
struct Request {
    path: String,
    /// Whether only the head of the answer is.
    head_only: bool,
    /// Whether there may be another one.
    keep: bool,
}

/// Why there is no answer but this.
struct Refusal(&'static str);

impl Connection {
    fn answer_all(&mut self, site: &Site) -> io::Result<()> {
        loop {
            let request = match self.next()? {
                Some(Ok(request)) => request,
                Some(Err(Refusal(status))) => {
                    return self.answer(status, "text/plain", status.as_bytes(), false, false);
                }
                None => return Ok(()),
            };
            let (keep, head_only) = (request.keep, request.head_only);
            match site.find(&request.path) {
                Some(file) => self.answer("200 OK", file.kind, &file.content, keep, head_only)?,
                None => self.answer("404 Not Found", "text/plain", b"404 Not Found", keep, head_only)?,
            }
            if !keep {
                return Ok(());
            }
        }
    }

    /// The next request; `None` if the client has left.
    fn next(&mut self) -> io::Result<Option<Result<Request, Refusal>>> {
        let mut piece = [0; 4096];
        loop {
            match parse(&self.input) {
                Ok(Some((request, length))) => {
                    self.input.drain(..length);
                    return Ok(Some(Ok(request)));
                }
                Ok(None) if self.input.len() > LONGEST => {
                    return Ok(Some(Err(Refusal("431 Request Header Fields Too Large"))));
                }
                Ok(None) => {}
                Err(refusal) => return Ok(Some(Err(refusal))),
            }
            match self.stream.read(&mut piece)? {
                0 => return Ok(None),
                count => self.input.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn answer(&mut self, status: &str, kind: &str, body: &[u8], keep: bool, head_only: bool) -> io::Result<()> {
        let (length, connection) = (body.len(), if keep { "keep-alive" } else { "close" });
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n"
        )
        .into_bytes();
        if !head_only {
            answer.extend_from_slice(body);
        }
        self.stream.write_all(&answer)?;
        self.answered += 1;
        Ok(())
    }
}

/// The request and its length, if all of it is there.
fn parse(input: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(input).map_err(|_| Refusal("400 Bad Request"))?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Refusal("405 Method Not Allowed")),
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
    };
    if header("content-length").is_some_and(|length| length != "0") || header("transfer-encoding").is_some() {
        return Err(Refusal("413 Content Too Large"));
    }
    let asked = header("connection").unwrap_or_default();
    let keep = if request.version == Some(1) { asked != "close" } else { asked == "keep-alive" };
    let path = request.path.unwrap_or("/").to_owned();
    Ok(Some((Request { path, head_only, keep }, length)))
}
