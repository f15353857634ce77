//! tokio-rustls, unchanged, inside of transports of green threads: TLS in straight-line code, on any hub.
//!
//! `cargo run -p recipes --example tls -- epoll`

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use greenhub::future::{AsyncIo, block_on};
use greenhub::net::{TcpListener, TcpStream};
use greenhub::{GreenThread, spawn, spawn_n};
use hub_tokio::GreenTransport;
use recipes::web::AnyError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// The name in the certificate.
const NAME: &str = "localhost";

fn main() -> ExitCode {
    recipes::way::main(|| {
        let (connector, acceptor) = sides()?;
        let (address, _server) = serve(acceptor, |line| line.to_uppercase())?;
        // The stream beneath may be any of Tokio's kind. This one is a green socket.
        let stream = AsyncIo::new(TcpStream::connect(address)?);
        let mut session = connect(&connector, stream)?;
        session.write_all(b"a line through TLS\n")?;
        session.shutdown()?;
        let mut answered = String::new();
        session.read_to_string(&mut answered)?;
        print!("{answered}");
        Ok::<_, AnyError>(())
    })
}

/// Returns both sides of a new certificate that signs itself.
pub(crate) fn sides() -> Result<(TlsConnector, TlsAcceptor), AnyError> {
    let signed = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der())?;
    let certificate = signed.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let provider = Arc::new(default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let server = server.with_no_client_auth().with_single_cert(vec![certificate], key)?;
    Ok((TlsConnector::from(Arc::new(client)), TlsAcceptor::from(Arc::new(server))))
}

/// Starts a server that responds to each line with `answer`, which may block.
pub(crate) fn serve<A>(acceptor: TlsAcceptor, answer: A) -> io::Result<(SocketAddr, GreenThread<()>)>
where
    A: Fn(&str) -> String + Clone + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            // A client that breaks the connection off is no failure of the server.
            spawn_n(move || drop(accept(&acceptor, stream).and_then(|session| talk(&session, answer))));
        }
    });
    Ok((address, server))
}

/// Does the handshake of a server. Switches.
fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<GreenTransport<server::TlsStream<AsyncIo<TcpStream>>>> {
    block_on(acceptor.accept(AsyncIo::new(stream))).map(GreenTransport::new)
}

/// Does the handshake of a client. Switches.
pub(crate) fn connect<S>(connector: &TlsConnector, stream: S) -> io::Result<GreenTransport<client::TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    block_on(connector.connect(name, stream)).map(GreenTransport::new)
}

fn talk<S>(session: &GreenTransport<S>, answer: impl Fn(&str) -> String) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut writer = session;
    for line in BufReader::new(session).lines() {
        writer.write_all(format!("{}\n", answer(&line?)).as_bytes())?;
    }
    session.shutdown()
}
