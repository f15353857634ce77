//! A connection: requests are read one after the other, and each is answered before the next.

use std::io;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use ::http::header::{ALLOW, CONTENT_TYPE};
use ::http::{HeaderValue, Method, Request, Response, StatusCode};
use greenhub::GreenThread;
use greenhub::greenthread::is_exit;
use greenhub::net::StopServe;

use super::body::{BodyReader, Failure, RequestBody};
use super::head::{Head, parse};
use super::input::Input;
use super::rejection::Rejection;
use super::response::{Exchange, ResponseBody};
use super::server::Server;
use crate::Stream;

/// The most bytes of a body that are discarded to keep a connection.
const MAX_DISCARDED: u64 = 64 << 10;

/// The most bytes that are discarded before a connection is closed, and the time for it.
const LINGER: (u64, Duration) = (1 << 20, Duration::from_secs(2));

/// The stop of a server, and the green thread that ends with it.
pub(super) type Stopping<'a> = (&'a StopServe, &'a GreenThread<()>);

/// A connection of a server.
pub(super) struct Connection<'a> {
    server: &'a Server,
    stream: &'a mut dyn Stream,
    input: Input,
    output: Vec<u8>,
}

/// The next request of a client.
#[expect(clippy::large_enum_variant, reason = "a request is the usual case, and is moved once")]
enum Next {
    Request(Head),
    Rejected(Rejection),
    /// There is none: the client has left or was idle for too long, or the server is stopped.
    End,
}

impl<'a> Connection<'a> {
    pub(super) fn new(server: &'a Server, stream: &'a mut dyn Stream) -> Connection<'a> {
        Connection { server, stream, input: Input::default(), output: Vec::new() }
    }

    /// Answers requests until the client leaves, one is rejected, or the server is stopped. Switches.
    pub(super) fn run(
        mut self,
        stopping: Option<Stopping<'_>>,
        respond: impl Fn(Request<RequestBody<'_>>) -> Response<ResponseBody>,
    ) {
        // An error is the client's: it has closed the connection, or was too slow. Otherwise it learns of the end.
        let _ = self.answer_all(stopping, respond).and_then(|()| self.stream.shutdown(Shutdown::Write));
    }

    fn answer_all(
        &mut self,
        stopping: Option<Stopping<'_>>,
        respond: impl Fn(Request<RequestBody<'_>>) -> Response<ResponseBody>,
    ) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_write_timeout(Some(self.server.write_timeout))?;
        loop {
            let head = match self.next(stopping)? {
                Next::Request(head) => head,
                Next::Rejected(rejection) => return self.reject(rejection),
                Next::End => return Ok(()),
            };
            if !self.answer(head, stopping, &respond)? {
                return Ok(());
            }
        }
    }

    /// Reads the head of the next request. Switches.
    fn next(&mut self, stopping: Option<Stopping<'_>>) -> io::Result<Next> {
        if self.input.unused().is_empty() {
            match self.receive_first(stopping) {
                None | Some(Ok(0)) => return Ok(Next::End),
                Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => return Ok(Next::End),
                Some(received) => drop(received?),
            }
        }
        let begun = Instant::now();
        let mut parsed = 0;
        loop {
            let arrived = self.input.unused();
            // A client that sends its head byte by byte would otherwise make the parser begin again at each.
            let may_be_complete = parsed == 0 || arrived[parsed..].contains(&b'\n');
            if may_be_complete || arrived.len() >= self.server.max_head {
                match parse(arrived, self.server) {
                    Ok(Some((head, length))) => {
                        self.input.consume(length);
                        return Ok(Next::Request(head));
                    }
                    Ok(None) => parsed = arrived.len(),
                    Err(rejection) => return Ok(Next::Rejected(rejection)),
                }
            }
            let left = self.server.head_timeout.saturating_sub(begun.elapsed());
            let received = if left.is_zero() {
                Err(io::ErrorKind::TimedOut.into())
            } else {
                self.stream.set_read_timeout(Some(left))?;
                self.input.receive(self.stream)
            };
            match received {
                Ok(0) => return Ok(Next::End),
                Ok(_) => {}
                Err(error) => return Rejection::of_late(error, "head").map(Next::Rejected),
            }
        }
    }

    /// Waits for the first bytes of a request. Returns `None` if the server is stopped. Switches.
    fn receive_first(&mut self, stopping: Option<Stopping<'_>>) -> Option<io::Result<usize>> {
        if let Err(error) = self.stream.set_read_timeout(Some(self.server.idle_timeout)) {
            return Some(Err(error));
        }
        let mut receive = || self.input.receive(self.stream);
        let Some((_, watch)) = stopping else { return Some(receive()) };
        // The stop ends the wait alone: bytes that have arrived before are a request, which is answered.
        match watch.with_link(&mut receive) {
            Ok(received) => Some(received),
            Err(linked) if linked.is_unsupported() => Some(receive()),
            Err(_) => None,
        }
    }

    /// Answers a request. Returns whether another one may follow. Switches.
    fn answer(
        &mut self,
        head: Head,
        stopping: Option<Stopping<'_>>,
        respond: impl Fn(Request<RequestBody<'_>>) -> Response<ResponseBody>,
    ) -> io::Result<bool> {
        let Head { request, framing, expects_continue, keep } = head;
        let (is_head, version) = (request.method() == Method::HEAD, request.version());
        let mut body = BodyReader {
            stream: &mut *self.stream,
            input: &mut self.input,
            framing,
            expects_continue,
            max: self.server.max_body,
            timeout: self.server.body_timeout,
            received: 0,
            failure: None,
        };
        let responded = catch_unwind(AssertUnwindSafe(|| respond(request.map(|()| RequestBody::new(&mut body)))));
        let response = match responded {
            Ok(response) => response,
            Err(payload) if is_exit(&*payload) => resume_unwind(payload),
            Err(payload) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                // The panic itself matters more than a client that has gone.
                let _ = self.reject(Rejection::new(status, "the handler of this request has failed"));
                resume_unwind(payload)
            }
        };
        match body.failure.take() {
            Some(Failure::Rejected(rejection)) => return self.reject(rejection).map(|()| false),
            Some(Failure::Lost(_)) => return Ok(false),
            None => {}
        }
        let is_read = body.framing.is_complete();
        // A client that was not told to go on may send the body all the same, or the next request.
        let may_discard = !body.expects_continue && body.framing.left().is_none_or(|left| left <= MAX_DISCARDED);
        let is_stopped = stopping.is_some_and(|(stop, _)| stop.is_stopped());
        let keep = keep && self.server.keep_alive && !is_stopped && (is_read || may_discard);
        let exchange = Exchange { is_head, version, keep };
        let keep = exchange.send(body.stream, &mut self.output, response)?;
        if keep && body.discard(MAX_DISCARDED) {
            return Ok(true);
        }
        if !body.framing.is_complete() {
            self.linger()?;
        }
        Ok(false)
    }

    fn reject(&mut self, rejection: Rejection) -> io::Result<()> {
        let mut response = Response::new(ResponseBody::from(format!("{rejection}\n")));
        *response.status_mut() = rejection.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if rejection.status == StatusCode::METHOD_NOT_ALLOWED {
            let methods = self.server.methods.iter().flatten().map(Method::as_str).collect::<Vec<_>>().join(", ");
            let allow = HeaderValue::from_str(&methods).map_err(io::Error::other)?;
            response.headers_mut().insert(ALLOW, allow);
        }
        let exchange = Exchange { is_head: false, version: ::http::Version::HTTP_11, keep: false };
        exchange.send(self.stream, &mut self.output, response)?;
        self.linger()
    }

    /// Ends the output, and discards the input until the client has ended its side. Switches.
    ///
    /// To close a connection with unread input resets it, and the client may lose the response.
    fn linger(&mut self) -> io::Result<()> {
        let (bytes, time) = LINGER;
        let begun = Instant::now();
        self.stream.flush()?;
        self.stream.shutdown(Shutdown::Write)?;
        let (mut discarded, mut piece) = (0, [0; 4096]);
        while discarded < bytes {
            let left = time.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut piece)? {
                0 => break,
                amount => discarded += amount as u64,
            }
        }
        Ok(())
    }
}
