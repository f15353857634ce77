//! native-tls over green sockets, as a client and as a server.
//!
//! `cargo run -p recipes --features native-tls --example native_tls -- epoll` serves HTTPS and asks it. The build needs
//! the headers of OpenSSL: `apt-get install libssl-dev pkg-config`.
//!
//! A session takes a green socket as it is, and each call parks within OpenSSL. OpenSSL keeps a queue of errors for
//! each OS thread, which all green threads there share. [`Isolated`] keeps the errors of one session from the others.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use greenhub::net::{TcpListener, TcpStream};
use greenhub::{GreenThread, spawn, spawn_n};
use greenhub_adapters::Stream;
use greenhub_adapters::http::Server;
use http::Response;
use native_tls::{Certificate, TlsAcceptor, TlsConnector, TlsStream};
use openssl::error::ErrorStack;
use rcgen::{CertifiedKey, KeyPair};
use recipes::web::AnyError;

/// The name in the certificate.
const NAME: &str = "localhost";

fn main() -> ExitCode {
    recipes::way::main(|| {
        let identity = Identity::new()?;
        println!("{}", identity.signed.cert.pem());
        let (address, _server) = serve(&identity, || "hello\n".to_owned())?;
        let mut session = connect(&identity, address)?;
        session.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        io::copy(&mut session, &mut greenhub::io::stdout())?;
        Ok::<_, AnyError>(())
    })
}

/// A certificate that signs itself, and the settings of both sides.
pub(crate) struct Identity {
    pub(crate) signed: CertifiedKey<KeyPair>,
    pub(crate) client: TlsConnector,
    pub(crate) server: TlsAcceptor,
}

impl Identity {
    pub(crate) fn new() -> Result<Identity, AnyError> {
        let signed = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
        let root = Certificate::from_pem(certificate.as_bytes())?;
        let identity = native_tls::Identity::from_pkcs8(certificate.as_bytes(), key.as_bytes())?;
        Ok(Identity {
            client: TlsConnector::builder().disable_built_in_roots(true).add_root_certificate(root).build()?,
            server: TlsAcceptor::new(identity)?,
            signed,
        })
    }
}

/// A stream for a session of OpenSSL, whose errors it keeps.
///
/// After a failure OpenSSL sends an alert before the caller takes the errors from the queue. If that write lets other
/// green threads run, the next call of another session drops these errors, or reports them as its own.
#[derive(Debug)]
pub(crate) struct Isolated<S>(pub(crate) S);

impl<S: Read> Read for Isolated<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        isolate(|| self.0.read(buffer))
    }
}

impl<S: Write> Write for Isolated<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        isolate(|| self.0.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        isolate(|| self.0.flush())
    }
}

/// Takes the errors from the queue during `call`, which may switch.
fn isolate<T>(call: impl FnOnce() -> T) -> T {
    let errors = ErrorStack::get();
    let result = call();
    // An error that another green thread has left would count as one of this session.
    drop(ErrorStack::get());
    errors.put();
    result
}

/// Opens a session as a client, and does the handshake. Switches.
pub(crate) fn connect(identity: &Identity, address: SocketAddr) -> Result<TlsStream<Isolated<TcpStream>>, AnyError> {
    Ok(identity.client.connect(NAME, Isolated(TcpStream::connect(address)?))?)
}

/// Starts a server of HTTPS that answers each request with the text of `answer`, which may block.
pub(crate) fn serve(
    identity: &Identity,
    answer: impl Fn() -> String + Clone + 'static,
) -> Result<(SocketAddr, GreenThread<()>), AnyError> {
    let (listener, acceptor) = (TcpListener::bind("127.0.0.1:0")?, identity.server.clone());
    let address = listener.local_addr()?;
    let server = spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            spawn_n(move || {
                // A client that breaks the handshake off is no failure of the server.
                let Ok(session) = acceptor.accept(Isolated(stream)) else { return };
                Server::new().serve_connection(&mut Session(session), |_| Response::new(answer()));
            });
        }
    });
    Ok((address, server))
}

/// A session of TLS for the HTTP server.
struct Session(TlsStream<Isolated<TcpStream>>);

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Session {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for Session {
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.get_ref().0.set_read_timeout(timeout)
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.get_ref().0.set_write_timeout(timeout)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            // Without this message the peer cannot tell the end from a connection that was cut.
            self.0.shutdown()?;
        }
        self.0.get_ref().0.shutdown(how)
    }
}
