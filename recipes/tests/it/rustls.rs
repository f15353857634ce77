//! rustls without glue, with curl and openssl as peers.

use std::io::{Read, Write};
use std::process::Stdio;

use greenhub::process::Command;
use greenhub::spawn;

use crate::rustls_https::{Identity, connect, serve};
use crate::support::{MANY, Ticker, is_installed, run_many};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

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
        let file = std::env::temp_dir().join(format!("recipes-{}-{:?}.pem", std::process::id(), address.port()));
        std::fs::write(&file, &identity.certificate).expect("a file");
        let url = format!("https://localhost:{}/", address.port());
        let mut curl = Command::new("curl");
        let output =
            curl.args(["-sS", "--noproxy", "*", "--cacert"]).arg(&file).arg(&url).output().expect("curl starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout, "secret\n".repeat(1000).as_bytes());
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost", "-CAfile"]).arg(&file);
        openssl.args(["-connect", &format!("127.0.0.1:{}", address.port())]);
        let piped = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = piped.spawn().expect("openssl starts");
        child.stdin.as_mut().expect("a pipe").write_all(REQUEST.as_bytes()).expect("openssl reads");
        let output = child.wait_with_output().expect("openssl ends");
        assert!(String::from_utf8_lossy(&output.stdout).ends_with(&"secret\n".repeat(1000)));
        let _ = std::fs::remove_file(file);
    });
}
