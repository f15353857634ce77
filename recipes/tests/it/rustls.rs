//! rustls without glue, with curl and openssl as peers.

use std::io::{Read, Write};

use greenhub::spawn;

use crate::rustls_https::{Identity, connect, serve};
use crate::support::{self, MANY, REQUEST, Ticker, is_installed, run_many};

/// Starts a server whose answers wait for the ticker.
fn start(ticker: &Ticker) -> (Identity, std::net::SocketAddr) {
    let (identity, gate) = (Identity::new().expect("a certificate"), ticker.gate());
    let answer = move || {
        gate.pass();
        "secret\n".repeat(1000)
    };
    let (address, _server) = serve(&identity, answer).expect("a port");
    (identity, address)
}

#[test]
fn sessions_of_many_green_threads_overlap() {
    run_many(|ticker| {
        let (identity, address) = start(ticker);
        let identity = std::rc::Rc::new(identity);
        let sessions: Vec<_> = (0..MANY)
            .map(|_| {
                let identity = std::rc::Rc::clone(&identity);
                spawn(move || {
                    let mut session = connect(&identity, address).expect("the server accepts");
                    session.write_all(REQUEST.as_bytes()).expect("the server reads");
                    let mut answered = String::new();
                    // A session that is cut is an error here.
                    session.read_to_string(&mut answered).expect("an end in order");
                    answered
                })
            })
            .collect();
        for session in sessions {
            assert!(session.join().expect("no panic").ends_with(&"secret\n".repeat(1000)));
        }
    });
}

#[test]
fn curl_and_openssl_understand_the_server() {
    if !(is_installed("curl") && is_installed("openssl")) {
        return;
    }
    run_many(|ticker| {
        let (identity, address) = start(ticker);
        support::ask_by_curl_and_openssl(&identity.certificate, address);
    });
}
