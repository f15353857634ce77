//! tokio-rustls inside of transports.

use std::io::{Read, Write};

use greenhub::future::{AsyncIo, block_on};
use greenhub::net::TcpStream;
use greenhub::spawn;
use hub_tokio::GreenTransport;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

use crate::support::{Ticker, WITH_TOKIO, every_way, run};
use crate::tls_session::{connect, serve, sides};

#[test]
fn sessions_run_over_green_sockets() {
    run(&every_way(), |ticker| {
        talk(ticker, |connector, address| {
            let stream = AsyncIo::new(TcpStream::connect(address).expect("the server accepts"));
            ask(connect(connector, stream).expect("a handshake"))
        });
    });
}

#[test]
fn sessions_run_over_sockets_of_tokio() {
    run(WITH_TOKIO, |ticker| {
        talk(ticker, |connector, address| {
            let stream = block_on(async { tokio::net::TcpStream::connect(address).await });
            ask(connect(connector, stream.expect("the server accepts")).expect("a handshake"))
        });
    });
}

type Client = fn(&tokio_rustls::TlsConnector, std::net::SocketAddr) -> Vec<String>;

fn talk(ticker: &Ticker, client: Client) {
    let (connector, acceptor) = sides().expect("a certificate");
    let gate = ticker.gate();
    let (address, _server) = serve(acceptor, move |line| {
        gate.pass();
        line.to_uppercase()
    })
    .expect("a port");
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let connector = connector.clone();
            spawn(move || client(&connector, address))
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().expect("no panic"), ["ONE", &"LONG ".repeat(10_000)]);
    }
}

/// Sends two lines and returns the answers.
fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut session: GreenTransport<TlsStream<S>>) -> Vec<String> {
    write!(session, "one\n{}\n", "long ".repeat(10_000)).expect("the server reads");
    session.shutdown().expect("the server reads");
    let mut answered = String::new();
    session.read_to_string(&mut answered).expect("an answer");
    answered.lines().map(str::to_owned).collect()
}
