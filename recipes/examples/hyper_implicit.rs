//! hyper, unchanged, in the implicit mode: server and client over sockets of Tokio, in green threads of the hub
//! `tokio`.
//!
//! `cargo run -p recipes --example hyper_implicit`

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use greenhub::future::block_on;
use greenhub::{GreenThread, sleep, spawn, spawn_n};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use recipes::web::{AnyError, post, respond};
use tokio::net::TcpListener;

fn main() -> Result<(), AnyError> {
    greenhub::use_hub("tokio")?; // or GREENHUB_HUB=tokio in the environment
    let _hub = greenhub::get_hub(); // builds the hub, whose runtime the calls below need
    let (address, _server) = serve(|path, body| {
        sleep(Duration::from_millis(10)); // parks the green thread of this request
        format!("{path} {body}")
    })?;
    let clients: Vec<_> = ["one", "two", "three"]
        .map(|body| spawn(move || block_on(post(address, "/green", body)))) // a future of Tokio, in straight-line code
        .into();
    for client in clients {
        println!("{}", client.join()??);
    }
    Ok(())
}

/// Starts a server. Each connection and each request has a green thread.
pub(crate) fn serve<A>(answer: A) -> io::Result<(SocketAddr, GreenThread<io::Error>)>
where
    A: Fn(&str, &str) -> String + Clone + 'static,
{
    let listener = block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let server = spawn(move || {
        loop {
            let stream = match block_on(listener.accept()) {
                Ok((stream, _)) => TokioIo::new(stream),
                Err(error) => return error,
            };
            let answer = answer.clone();
            spawn_n(move || {
                let service = service_fn(move |request| respond(request, answer.clone()));
                // A client that breaks the connection off is no failure of the server.
                let _ = block_on(http1::Builder::new().timer(TokioTimer::new()).serve_connection(stream, service));
            });
        }
    });
    Ok((address, server))
}
