//! An HTTP/1.1 server for one connection: it reads requests one after the other, and sends a response to each.

#![allow(dead_code, reason = "each example uses a part of it")]

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use greenhub::net::TcpStream;

/// The maximum length of the head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// The maximum number of bytes to read and discard after an error response, so that the client can receive it.
const MAX_DISCARDED: u64 = 1 << 20;

/// The rules for the requests of a client.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) methods: &'static [&'static str],
    /// The maximum length of a body, in bytes.
    pub(crate) body: usize,
    /// Whether a connection may carry several requests.
    pub(crate) keep: bool,
    /// The time limit for each read of a request, and for each write of a response.
    pub(crate) timeout: Duration,
}

/// A request of a client.
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    /// Whether the response has no body.
    head_only: bool,
    /// Whether the client may send another request.
    keep: bool,
}

/// A response to a request.
pub(crate) struct Response<'a> {
    pub(crate) status: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) content: Cow<'a, [u8]>,
}

impl Response<'_> {
    pub(crate) fn text(status: &'static str, text: String) -> Response<'static> {
        Response { status, kind: "text/plain; charset=utf-8", content: Cow::Owned(text.into_bytes()) }
    }
}

/// Responds to the requests of a client, and returns the number of responses.
///
/// Returns when the client leaves, sends nothing in time, or sends a request that is rejected. Switches.
pub(crate) fn serve<'a>(stream: TcpStream, rules: Rules, respond: impl FnMut(&Request) -> Response<'a>) -> u64 {
    let mut connection = Connection { stream, rules, input: Vec::new(), sent: 0 };
    // Ignore an error: the client has closed the connection, or was too slow.
    let _ = connection.serve_all(respond);
    connection.sent
}

struct Connection {
    stream: TcpStream,
    rules: Rules,
    /// Bytes that are read but not parsed.
    input: Vec<u8>,
    sent: u64,
}

/// The head of a request.
struct Head {
    request: Request,
    /// The length of the head in bytes.
    length: usize,
    /// The length of the body in bytes.
    body: usize,
    /// Whether the client waits for `100 Continue` before it sends the body.
    expects_continue: bool,
}

/// The response to a request that is not served.
struct Rejection {
    status: &'static str,
    reason: String,
}

impl Connection {
    fn serve_all<'a>(&mut self, mut respond: impl FnMut(&Request) -> Response<'a>) -> io::Result<()> {
        self.stream.set_read_timeout(Some(self.rules.timeout))?;
        self.stream.set_write_timeout(Some(self.rules.timeout))?;
        loop {
            let request = match self.next()? {
                Some(Ok(request)) => request,
                Some(Err(rejection)) => return self.reject(rejection),
                None => return Ok(()),
            };
            let keep = request.keep && self.rules.keep;
            self.send(&respond(&request), "", keep, request.head_only)?;
            if !keep {
                return Ok(());
            }
        }
    }

    /// Reads the next request. Returns `None` if the client has left.
    fn next(&mut self) -> io::Result<Option<Result<Request, Rejection>>> {
        let head = loop {
            match parse(&self.input, &self.rules) {
                Ok(Some(head)) => break head,
                Ok(None) if self.input.len() > MAX_HEAD => {
                    let reason = format!("the head is longer than {MAX_HEAD} bytes");
                    return Ok(Some(Err(rejection("431 Request Header Fields Too Large", reason))));
                }
                Ok(None) => {}
                Err(rejection) => return Ok(Some(Err(rejection))),
            }
            if !self.read()? {
                return Ok(None);
            }
        };
        let length = head.length + head.body;
        if head.expects_continue && self.input.len() < length {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        while self.input.len() < length {
            if !self.read()? {
                return Ok(None);
            }
        }
        let body = self.input[head.length..length].to_vec();
        self.input.drain(..length);
        Ok(Some(Ok(Request { body, ..head.request })))
    }

    /// Reads more input, and returns `false` at the end of the connection.
    fn read(&mut self) -> io::Result<bool> {
        let mut piece = [0; 4096];
        let count = self.stream.read(&mut piece)?;
        self.input.extend_from_slice(&piece[..count]);
        Ok(count > 0)
    }

    fn reject(&mut self, rejection: Rejection) -> io::Result<()> {
        let allow = format!("Allow: {}\r\n", self.rules.methods.join(", "));
        let headers = if rejection.status.starts_with("405") { &allow } else { "" };
        let text = format!("{}\n", rejection.reason);
        self.send(&Response::text(rejection.status, text), headers, false, false)?;
        // Closing a connection with unread data resets it, and the client may lose the response. So read the rest
        // first.
        self.stream.shutdown(Shutdown::Write)?;
        io::copy(&mut (&mut self.stream).take(MAX_DISCARDED), &mut io::sink()).map(drop)
    }

    fn send(&mut self, response: &Response<'_>, headers: &str, keep: bool, head_only: bool) -> io::Result<()> {
        let Response { status, kind, content } = response;
        let (length, connection) = (content.len(), if keep { "keep-alive" } else { "close" });
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\
             {headers}\r\n"
        )
        .into_bytes();
        if !head_only {
            bytes.extend_from_slice(content);
        }
        self.stream.write_all(&bytes)?;
        self.sent += 1;
        Ok(())
    }
}

/// Parses the head of a request. Returns `None` if `input` does not hold all of it.
fn parse(input: &[u8], rules: &Rules) -> Result<Option<Head>, Rejection> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let bad = |reason: String| rejection("400 Bad Request", reason);
    let parsed = request.parse(input).map_err(|error| bad(format!("not an HTTP request: {error}")))?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let method = request.method.unwrap_or_default();
    if !rules.methods.contains(&method) {
        let methods = rules.methods.join(" and ");
        return Err(rejection("405 Method Not Allowed", format!("{method} is not supported, only {methods}")));
    }
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
    };
    if header("transfer-encoding").is_some() {
        return Err(rejection("411 Length Required", "a body needs a Content-Length".to_owned()));
    }
    let body = match header("content-length") {
        // A number that overflows is above any limit for bodies, and so is `usize::MAX`.
        Some(text) if text.bytes().all(|digit| digit.is_ascii_digit()) && !text.is_empty() => {
            text.parse().unwrap_or(usize::MAX)
        }
        Some(text) => return Err(bad(format!("invalid Content-Length {text:?}"))),
        None => 0,
    };
    if body > rules.body {
        return Err(rejection("413 Content Too Large", format!("the body is longer than {} bytes", rules.body)));
    }
    let asked = header("connection").unwrap_or_default();
    let keep = if request.version == Some(1) { asked != "close" } else { asked == "keep-alive" };
    let expects_continue = header("expect").is_some_and(|value| value == "100-continue");
    let path = request.path.unwrap_or("/").to_owned();
    let request = Request { path, body: Vec::new(), head_only: method == "HEAD", keep };
    Ok(Some(Head { request, length, body, expects_continue }))
}

fn rejection(status: &'static str, reason: String) -> Rejection {
    Rejection { status, reason }
}
