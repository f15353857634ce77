//! native-tls over green sockets, with curl and openssl as peers.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use greenhub::net::{TcpListener, TcpStream};
use greenhub::process::Command;
use greenhub::thread::yield_now;
use greenhub::{spawn, with_timeout};
use native_tls::{TlsConnector, TlsStream};

use crate::native_tls_session::{Identity, Isolated, connect, serve};
use crate::support::{self, MANY, REQUEST, Ticker, is_installed, run_many};

/// Starts a server whose answers wait for the ticker.
fn start(ticker: &Ticker) -> (Rc<Identity>, SocketAddr) {
    let (identity, gate) = (Identity::new().expect("a certificate"), ticker.gate());
    let answer = move || {
        gate.pass();
        "secret\n".repeat(1000)
    };
    let (address, _server) = serve(&identity, answer).expect("a port");
    (Rc::new(identity), address)
}

#[test]
fn sessions_of_many_green_threads_overlap() {
    run_many(|ticker| {
        let (identity, address) = start(ticker);
        let sessions: Vec<_> = (0..MANY)
            .map(|_| {
                let identity = Rc::clone(&identity);
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
        support::ask_by_curl_and_openssl(&identity.signed.cert.pem(), address);
    });
}

#[test]
fn the_client_understands_openssl() {
    if !is_installed("openssl") {
        return;
    }
    run_many(|ticker| {
        let identity = Rc::new(Identity::new().expect("a certificate"));
        let pem = identity.signed.cert.pem() + &identity.signed.signing_key.serialize_pem();
        let file = support::temporary_file("native-tls-server.pem", &pem);
        let mut openssl = Command::new("openssl");
        // `-rev` returns each line in reverse, and serves one connection after the other.
        openssl.args(["s_server", "-accept", "127.0.0.1:0", "-rev", "-cert"]).arg(&file).arg("-key").arg(&file);
        let piped = openssl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = piped.spawn().expect("openssl starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let address: SocketAddr = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ACCEPT ")?.parse().ok())
            .expect("openssl prints its address");
        let sessions: Vec<_> = (0..20)
            .map(|number| {
                let identity = Rc::clone(&identity);
                spawn(move || {
                    let mut session = connect(&identity, address).expect("openssl accepts");
                    session.write_all(format!("{number:03}\n").as_bytes()).expect("openssl reads");
                    let mut line = [0; 4];
                    session.read_exact(&mut line).expect("openssl writes");
                    session.shutdown().expect("openssl reads");
                    assert_eq!(
                        line,
                        *format!("{}\n", format!("{number:03}").chars().rev().collect::<String>()).as_bytes()
                    );
                })
            })
            .collect();
        ticker.gate().pass();
        sessions.into_iter().for_each(|session| session.join().expect("no panic"));
        child.kill().expect("openssl runs");
        child.wait().expect("openssl ends");
        std::fs::remove_file(file).expect("a file");
    });
}

/// A socket that lets others run before each write, as one with a full buffer does.
#[derive(Debug)]
struct Slow(TcpStream);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Slow {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        yield_now();
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn an_error_stays_in_its_session() {
    run_many(|ticker| {
        let (identity, address) = start(ticker);
        let distrusting = TlsConnector::builder().disable_built_in_roots(true).build().expect("settings");
        let refused = Rc::new(RefCell::new(Vec::new()));
        let sessions: Vec<_> = (0..MANY)
            .map(|number| {
                let (identity, distrusting, refused) = (Rc::clone(&identity), distrusting.clone(), Rc::clone(&refused));
                spawn(move || {
                    let socket = Isolated(Slow(TcpStream::connect(address).expect("the server accepts")));
                    if number % 2 == 0 {
                        let error = distrusting.connect("localhost", socket).expect_err("an unknown certificate");
                        refused.borrow_mut().push(error.to_string());
                        return;
                    }
                    let mut session = identity.client.connect("localhost", socket).expect("a known certificate");
                    session.write_all(REQUEST.as_bytes()).expect("the server reads");
                    let mut answered = String::new();
                    session.read_to_string(&mut answered).expect("an end in order");
                    assert!(answered.ends_with("secret\n"));
                })
            })
            .collect();
        sessions.into_iter().for_each(|session| session.join().expect("no panic"));
        let refused = refused.borrow();
        assert_eq!(refused.len(), MANY / 2);
        for error in &*refused {
            // One error, and that of this session.
            assert_eq!(error.matches("error:").count(), 1, "{error}");
            assert!(error.contains("certificate verify failed"), "{error}");
        }
    });
}

#[test]
fn a_read_that_is_left_early_leaves_the_session_usable() {
    run_many(|_ticker| {
        let identity = Rc::new(Identity::new().expect("a certificate"));
        let (mut client, mut server) = pair(&identity);
        let left = with_timeout(Duration::from_millis(5), || client.read(&mut [0; 8]));
        assert!(left.is_err(), "the server is silent");
        client.get_ref().0.set_read_timeout(Some(Duration::from_millis(5))).expect("an open socket");
        let left = client.read(&mut [0; 8]).expect_err("the server is silent");
        assert_eq!(left.kind(), io::ErrorKind::TimedOut);
        client.get_ref().0.set_read_timeout(None).expect("an open socket");
        let reader = spawn(move || {
            let mut text = String::new();
            client.read_to_string(&mut text).map(|_| text)
        });
        server.write_all(b"late").expect("the client reads");
        server.shutdown().expect("the client reads");
        assert_eq!(reader.join().expect("no panic").expect("an end in order"), "late");
    });
}

/// Returns both ends of a session.
fn pair(identity: &Rc<Identity>) -> (TlsStream<Isolated<TcpStream>>, TlsStream<Isolated<TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = spawn({
        let identity = Rc::clone(identity);
        move || identity.server.accept(Isolated(listener.accept().expect("a client").0)).expect("a handshake")
    });
    (connect(identity, address).expect("a handshake"), server.join().expect("no panic"))
}
