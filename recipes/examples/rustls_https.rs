//! rustls without glue: its `StreamOwned` takes a green socket, as a client and as a server.
//!
//! `cargo run -p recipes --example rustls_https -- epoll` serves HTTPS and asks it. The server is the adapter
//! `http-server` over sessions of TLS, for which a few lines pass the calls on.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use greenhub::net::{TcpListener, TcpStream};
use greenhub::{GreenThread, spawn, spawn_n};
use greenhub_adapters::Stream;
use greenhub_adapters::http::Server;
use http::Response;
use recipes::web::AnyError;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// The name in the certificate.
pub(crate) const NAME: &str = "localhost";

fn main() -> ExitCode {
    recipes::way::main(|| {
        let identity = Identity::new()?;
        println!("{}", identity.certificate);
        let (address, _server) = serve(&identity, || "hello\n".to_owned())?;
        let mut session = connect(&identity, address)?;
        session.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        io::copy(&mut session, &mut greenhub::io::stdout())?;
        Ok::<_, AnyError>(())
    })
}

/// A certificate that signs itself, and the settings of both sides.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Identity {
    pub(crate) fn new() -> Result<Identity, AnyError> {
        let signed = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let certificate = signed.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let provider = Arc::new(default_provider());
        let client =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der())?;
        Ok(Identity {
            certificate: signed.cert.pem(),
            client: Arc::new(client.with_root_certificates(roots).with_no_client_auth()),
            server: Arc::new(server.with_no_client_auth().with_single_cert(vec![certificate], key)?),
        })
    }
}

/// Opens a session as a client. The handshake is done by the first read or write.
pub(crate) fn connect(
    identity: &Identity,
    address: SocketAddr,
) -> Result<StreamOwned<ClientConnection, TcpStream>, AnyError> {
    let connection = ClientConnection::new(Arc::clone(&identity.client), ServerName::try_from(NAME)?)?;
    Ok(StreamOwned::new(connection, TcpStream::connect(address)?))
}

/// Starts a server of HTTPS that answers each request with the text of `answer`, which may block.
pub(crate) fn serve(
    identity: &Identity,
    answer: impl Fn() -> String + Clone + 'static,
) -> Result<(SocketAddr, GreenThread<()>), AnyError> {
    let (listener, config) = (TcpListener::bind("127.0.0.1:0")?, Arc::clone(&identity.server));
    let address = listener.local_addr()?;
    let server = spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let (config, answer) = (Arc::clone(&config), answer.clone());
            spawn_n(move || {
                let connection = ServerConnection::new(config)?;
                let mut session = Session(StreamOwned::new(connection, stream));
                Server::new().serve_connection(&mut session, |_| Response::new(answer()));
                Ok::<_, rustls::Error>(())
            });
        }
    });
    Ok((address, server))
}

/// A session of TLS for the HTTP server.
struct Session(StreamOwned<ServerConnection, TcpStream>);

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
        self.0.sock.set_read_timeout(timeout)
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.sock.set_write_timeout(timeout)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            // Without this message the peer cannot tell the end from a connection that was cut.
            self.0.conn.send_close_notify();
            self.0.flush()?;
        }
        self.0.sock.shutdown(how)
    }
}
