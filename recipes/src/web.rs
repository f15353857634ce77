//! hyper's server for green handlers, and a client like that of any Tokio program.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;

use greenhub::future::{AsyncIo, GreenTimer, block_on, defer_to_green_thread};
use greenhub::net::{TcpListener, TcpStream};
use greenhub::{GreenError, GreenThread, spawn, spawn_n};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

/// An error of any kind, from any OS thread.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// Starts a server of hyper on any hub: each connection has a green thread, and each request another one.
///
/// `answer` gets the path and the body, and blocks as straight-line code does. Killing the returned green thread ends
/// the server.
///
/// # Errors
///
/// Returns the error of the system if there is no free port.
pub fn serve<A>(answer: A) -> io::Result<(SocketAddr, GreenThread<()>)>
where
    A: Fn(&str, &str) -> String + Clone + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let answer = answer.clone();
            spawn_n(move || serve_connection(stream, answer));
        }
    });
    Ok((address, server))
}

fn serve_connection<A>(stream: TcpStream, answer: A)
where
    A: Fn(&str, &str) -> String + Clone + 'static,
{
    let service = service_fn(move |request| respond(request, answer.clone()));
    let connection = http1::Builder::new().timer(GreenTimer).serve_connection(AsyncIo::new(stream), service);
    // A client that breaks the connection off is no failure of the server.
    let _ = block_on(connection);
}

/// Responds to a request of hyper with the result of `answer`, which runs in a green thread of its own.
///
/// # Errors
///
/// Never returns an error: that of a green thread is a response of the status 500.
pub async fn respond<A>(request: Request<Incoming>, answer: A) -> Result<Response<Full<Bytes>>, Infallible>
where
    A: FnOnce(&str, &str) -> String + 'static,
{
    let (path, body) = read(request).await;
    Ok(response(defer_to_green_thread(move || answer(&path, &body)).await))
}

/// Returns the path and the body of a request. A body that breaks off is empty.
pub async fn read(request: Request<Incoming>) -> (String, String) {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    (path, String::from_utf8_lossy(&body).into_owned())
}

/// Returns the response for the result of a green thread.
#[must_use]
pub fn response(answered: Result<String, GreenError>) -> Response<Full<Bytes>> {
    let (status, text) = match answered {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

/// Sends a request with hyper's client over a socket of Tokio, as any Tokio program does.
///
/// # Errors
///
/// Returns the errors of the connection.
pub async fn post(address: SocketAddr, path: &str, body: &str) -> Result<String, AnyError> {
    let stream = TokioIo::new(tokio::net::TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    send(&mut sender, path, body).await
}

/// Sends a request over an established connection of hyper, and returns the body of the response.
///
/// # Errors
///
/// Returns the errors of the connection, and the body as an error if the status is not that of success.
pub async fn send(sender: &mut SendRequest<Full<Bytes>>, path: &str, body: &str) -> Result<String, AnyError> {
    sender.ready().await?;
    let body = Full::from(body.to_owned());
    let response = sender.send_request(Request::post(path).header("host", "localhost").body(body)?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() { Ok(text) } else { Err(text.into()) }
}
