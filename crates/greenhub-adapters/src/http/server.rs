//! The settings of a server, and its run.

use std::fmt;
use std::time::Duration;

use ::http::{Method, Request, Response};
use greenhub::net::{Accept, ServeError, Served, StopServe, serve_until};
use greenhub::{GreenPool, GreenThread, kill, spawn};

use super::body::RequestBody;
use super::connection::Connection;
use super::head::MOST_HEADERS;
use super::response::ResponseBody;
use crate::Stream;

/// The limits of an HTTP server.
///
/// ```
/// use greenhub_adapters::http::Server;
/// use std::time::Duration;
/// let server = Server::new().max_body(10 << 20).idle_timeout(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is served before `serve`"]
pub struct Server {
    pub(super) max_head: usize,
    pub(super) max_headers: usize,
    pub(super) max_body: u64,
    pub(super) methods: Option<Vec<Method>>,
    pub(super) keep_alive: bool,
    pub(super) idle_timeout: Duration,
    pub(super) head_timeout: Duration,
    pub(super) body_timeout: Duration,
    pub(super) write_timeout: Duration,
}

impl Default for Server {
    fn default() -> Server {
        Server::new()
    }
}

impl Server {
    /// Creates a server with the default limits, which each method below names.
    pub const fn new() -> Server {
        Server {
            max_head: 16 << 10,
            max_headers: 100,
            max_body: 1 << 20,
            methods: None,
            keep_alive: true,
            idle_timeout: Duration::from_secs(60),
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
        }
    }

    /// Sets the greatest length of a head, in bytes. The default is 16 KiB.
    pub fn max_head(self, bytes: usize) -> Server {
        Server { max_head: bytes, ..self }
    }

    /// Sets the greatest number of fields of a head, 256 at most. The default is 100.
    pub fn max_headers(self, count: usize) -> Server {
        Server { max_headers: count.min(MOST_HEADERS), ..self }
    }

    /// Sets the greatest length of the body of a request, in bytes. The default is 1 MiB.
    pub fn max_body(self, bytes: u64) -> Server {
        Server { max_body: bytes, ..self }
    }

    /// Sets the methods that the handler knows; other requests are rejected. The default is all but `CONNECT`.
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Server {
        Server { methods: Some(methods.into_iter().collect()), ..self }
    }

    /// Sets whether a connection may carry several requests. The default is true.
    pub fn keep_alive(self, keep_alive: bool) -> Server {
        Server { keep_alive, ..self }
    }

    /// Sets the time for which a connection may wait for a request. The default is a minute.
    ///
    /// Then it is closed without a response.
    pub fn idle_timeout(self, timeout: Duration) -> Server {
        Server { idle_timeout: timeout, ..self }
    }

    /// Sets the time from the first byte of a head to its last. The default is 30 seconds.
    pub fn head_timeout(self, timeout: Duration) -> Server {
        Server { head_timeout: timeout, ..self }
    }

    /// Sets the time limit of each wait for a piece of a body. The default is 30 seconds.
    pub fn body_timeout(self, timeout: Duration) -> Server {
        Server { body_timeout: timeout, ..self }
    }

    /// Sets the time limit of each write. The default is 30 seconds.
    ///
    /// A client that takes nothing for that long loses the connection.
    pub fn write_timeout(self, timeout: Duration) -> Server {
        Server { write_timeout: timeout, ..self }
    }

    /// Serves the connections of `listener` until `stop` is stopped or the listener is closed. Switches.
    ///
    /// This is [`serve_until`] with a handler of requests in place of one of connections. Each connection is a green
    /// thread of `pool`, whose size limits the number of connections. `handler` gets a request and the peer's address.
    ///
    /// A listener that is closed without a stop leaves the connections that wait for a request to their
    /// [`idle_timeout`](Server::idle_timeout), for which this waits. With `panic = "abort"` a stop cannot close them,
    /// either.
    ///
    /// # Errors
    ///
    /// Like [`serve_until`].
    #[track_caller]
    pub fn serve<L, H, B>(
        &self,
        stop: &StopServe,
        listener: &L,
        pool: &GreenPool,
        handler: H,
    ) -> Result<Served, ServeError>
    where
        L: Accept,
        L::Stream: Stream,
        H: Fn(Request<RequestBody<'_>>, &L::Address) -> Response<B> + 'static,
        B: Into<ResponseBody>,
    {
        let (server, stopped) = (self.clone(), stop.clone());
        let watch = StopWatch::new(stop);
        serve_until(stop, listener, pool, move |mut stream, address| {
            let connection = Connection::new(&server, &mut stream);
            connection.run(Some((&stopped, &watch.0)), |request| handler(request, &address).map(Into::into));
        })
    }

    /// Serves one connection until its client leaves or a request is rejected. Switches.
    ///
    /// It is for connections that do not come from a listener of greenhub, such as sessions of TLS. A stop of a server
    /// does not close such a connection while it waits for a request.
    pub fn serve_connection<H, B>(&self, stream: &mut (impl Stream + 'static), handler: H)
    where
        H: Fn(Request<RequestBody<'_>>) -> Response<B>,
        B: Into<ResponseBody>,
    {
        Connection::new(self, stream).run(None, |request| handler(request).map(Into::into));
    }
}

/// A green thread that ends when the server is stopped. Connections that wait for a request are linked to it.
struct StopWatch(GreenThread<()>);

impl StopWatch {
    fn new(stop: &StopServe) -> StopWatch {
        let stop = stop.clone();
        // A failed wait has the effect of a stop: no connection is kept.
        StopWatch(spawn(move || drop(stop.wait())))
    }
}

impl Drop for StopWatch {
    fn drop(&mut self) {
        kill(&self.0);
    }
}

impl fmt::Debug for StopWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StopWatch").field(&self.0).finish()
    }
}
