//! An HTTP/1.1 server whose handlers are straight-line code in green threads.
//!
//! [`Server`] holds the limits, and [`Server::serve`] runs it: each connection has a green thread, in which the handler
//! is called for one request after the other. Requests and responses are those of the crate `http`, and
//! `httparse` parses. A handler reads the body of a request by [`Read`](std::io::Read), and responds with bytes, a
//! reader, or a closure that writes: [`ResponseBody`].
//!
//! ```
//! use greenhub::GreenPool;
//! use greenhub::net::{StopServe, TcpListener, TcpStream};
//! use greenhub_adapters::http::Server;
//! use http::Response;
//! use std::io::{Read, Write};
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let (address, stop) = (listener.local_addr()?, StopServe::new());
//! let client = greenhub::spawn({
//!     let stop = stop.clone();
//!     move || {
//!         let mut stream = TcpStream::connect(address)?;
//!         stream.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
//!         let mut answer = String::new();
//!         stream.read_to_string(&mut answer)?;
//!         stop.stop();
//!         Ok::<_, std::io::Error>(answer)
//!     }
//! });
//! Server::new().serve(&stop, &listener, &GreenPool::new(10_000), |request, _peer| {
//!     Response::new(format!("you asked for {}", request.uri().path()))
//! })?;
//! let answer = client.join()??;
//! assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nyou asked for /hello"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What the server does by itself
//!
//! - Connections are kept for further requests, and pipelined requests are answered in order.
//! - Bodies of requests have a length or are chunked. `100 Continue` is sent when the handler begins to read.
//! - A response gets `Content-Length` or `Transfer-Encoding`, `Date`, and `Connection` where the client cannot know.
//!   For `HEAD`, `204` and `304` the body is not sent.
//! - The rest of a body that the handler did not read is discarded if it is short. Otherwise the connection is closed.
//! - A handler that panics becomes `500`, and the panic is [reported](greenhub::debug::set_report_stream).
//! - A stop lets each request in progress end, with `Connection: close` in its response, and closes the connections
//!   that wait for a request.
//!
//! Requests that the server rejects get one of these responses, after which the connection is closed:
//!
//! | status | cause |
//! |---|---|
//! | 400 | a head that is no HTTP, a wrong or missing `Host`, a `Content-Length` that is no number or contradicts itself, both kinds of framing, a malformed chunk |
//! | 405 | a method that is not among the [`methods`](Server::methods) of the server |
//! | 408 | a head or a body that does not arrive in time |
//! | 413 | a body above [`max_body`](Server::max_body) |
//! | 414, 431 | a request line, or a head, above [`max_head`](Server::max_head); more fields than [`max_headers`](Server::max_headers) |
//! | 417 | an expectation other than `100-continue` |
//! | 501 | `CONNECT`, a method that no standard has if the server lists its methods, a transfer coding other than `chunked` |
//! | 505 | a version of HTTP other than 1.0 and 1.1 |
//!
//! # Why a server of its own?
//!
//! hyper has more: HTTP/2, upgrades, trailers. It runs on green sockets as well, by
//! [`AsyncIo`](greenhub::future::AsyncIo), with futures for its bodies. The blocking servers, such as tiny_http and
//! rouille, open std's sockets and start OS threads of their own, and none of them takes a connection of another kind.

mod body;
mod connection;
mod framing;
mod head;
mod input;
mod rejection;
mod response;
mod server;

pub use body::RequestBody;
pub use response::ResponseBody;
pub use server::Server;
