//! hyper's HTTP/1 server on greenhub and on tokio, and the server of greenhub-adapters.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;

use greenhub::GreenPool;
use greenhub::future::{AsyncIo, block_on};
use greenhub::net::StopServe;
use greenhub_adapters::http::Server;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

const BODY: &[u8] = b"Hello, world!";

/// More than the load opens at a time.
const CONNECTIONS: usize = 1000;

/// Serves each connection in a green thread.
pub(super) fn greenhub(listener: TcpListener) -> io::Result<()> {
    let listener = greenhub::net::TcpListener::from(listener);
    loop {
        let (stream, _) = listener.accept()?;
        greenhub::spawn_n(move || block_on(serve(AsyncIo::new(stream))));
    }
}

/// Serves each connection in a green thread, without hyper.
pub(super) fn adapters(listener: TcpListener) -> io::Result<()> {
    let listener = greenhub::net::TcpListener::from(listener);
    let served =
        Server::new().serve(&StopServe::new(), &listener, &GreenPool::new(CONNECTIONS), |_, _| Response::new(BODY));
    served.map(drop).map_err(io::Error::other)
}

/// Serves each connection in a task of the current-thread runtime.
pub(super) fn tokio(listener: TcpListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            tokio::spawn(serve(TokioIo::new(listener.accept().await?.0)));
        }
    })
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(BODY))))
}

async fn serve<S: Read + Write + Unpin>(stream: S) {
    // An error means that the client has left.
    let _ = http1::Builder::new().serve_connection(stream, service_fn(answer)).await;
}
