//! hyper, unchanged, without Tokio: server and client over green sockets, on any hub.
//!
//! `cargo run -p recipes --example hyper_without_tokio -- poll` takes the hub poll.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use greenhub::future::{AsyncIo, block_on, spawn_future};
use greenhub::net::TcpStream;
use greenhub::{sleep, spawn};
use recipes::web::{AnyError, send, serve};

fn main() -> ExitCode {
    recipes::way::main(|| {
        let (address, _server) = serve(|path, body| {
            sleep(Duration::from_millis(10)); // parks the green thread of this request
            format!("{path} {body}")
        })?;
        let clients: Vec<_> = ["one", "two", "three"].map(|body| spawn(move || post(address, "/green", body))).into();
        for client in clients {
            println!("{}", client.join()??);
        }
        Ok::<_, AnyError>(())
    })
}

/// Sends a request with hyper's client over a green socket. Switches.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> Result<String, AnyError> {
    let stream = AsyncIo::new(TcpStream::connect(address)?);
    let (mut sender, connection) = block_on(hyper::client::conn::http1::handshake(stream))?;
    spawn_future(connection);
    block_on(send(&mut sender, path, body))
}
