//! TLS inside of transports.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use hub_tokio::GreenTransport;
use hub_tokio::net::{self, Handlers};
use tokio::io::duplex;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{ENDINGS, end_while_parked, on_each_hub, on_tokio, pattern, some_turns, until};

/// Returns both sides of a certificate that signs itself.
fn sides() -> (TlsConnector, TlsAcceptor) {
    let signed = rcgen::generate_simple_self_signed([String::from("localhost")]).unwrap();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let certificate = signed.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    (TlsConnector::from(Arc::new(client)), TlsAcceptor::from(Arc::new(server)))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

#[test]
fn client_and_server_speak_through_a_small_pipe() {
    on_each_hub(|| {
        let (client, server) = duplex(512);
        let (connector, acceptor) = sides();
        let sent = pattern(50_000);
        let data = sent.clone();
        let server = greenhub::spawn(move || {
            let mut transport = GreenTransport::new(greenhub::future::block_on(acceptor.accept(server))?);
            let mut received = Vec::new();
            transport.read_to_end(&mut received)?;
            transport.write_all(b"thanks")?;
            transport.shutdown()?;
            io::Result::Ok(received)
        });
        let client = greenhub::future::block_on(connector.connect(localhost(), client)).unwrap();
        let mut transport = GreenTransport::new(client);
        transport.write_all(&data).unwrap();
        transport.shutdown().unwrap();
        assert_eq!(io::read_to_string(&transport).unwrap(), "thanks");
        assert!(server.join().unwrap().unwrap() == sent);
    });
}

#[test]
fn an_exit_in_the_middle_of_a_session_loses_nothing() {
    on_each_hub(|| {
        for ending in ENDINGS {
            // Room for what the server sends after the handshake, which nothing reads yet.
            let (client, server) = duplex(1024);
            let (connector, acceptor) = sides();
            let accepting = greenhub::spawn(move || greenhub::future::block_on(acceptor.accept(server)));
            let client = greenhub::future::block_on(connector.connect(localhost(), client)).unwrap();
            let server = Rc::new(GreenTransport::new(accepting.join().unwrap().unwrap()));
            let client = Rc::new(GreenTransport::new(client));
            let reading = Rc::clone(&server);
            end_while_parked(ending, move || drop((&*reading).read(&mut [0; 64])));
            // The record is larger than the pipe, so the session waits with the rest of it.
            let writing = Rc::clone(&client);
            end_while_parked(ending, move || drop((&*writing).write(&[b'1'; 5000])));
            let finishing = Rc::clone(&client);
            let finisher = greenhub::spawn(move || {
                (&*finishing).write_all(&[b'2'; 5000])?;
                finishing.shutdown()
            });
            let received = io::read_to_string(&*server).unwrap();
            assert_eq!(received, "1".repeat(5000) + &"2".repeat(5000), "{ending:?}");
            finisher.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_cut_session_gives_its_data_then_an_error_once_then_the_end() {
    on_each_hub(|| {
        let (client, server) = duplex(4096);
        let (connector, acceptor) = sides();
        let accepting = greenhub::spawn(move || greenhub::future::block_on(acceptor.accept(server)));
        let client = greenhub::future::block_on(connector.connect(localhost(), client)).unwrap();
        let mut server = GreenTransport::new(accepting.join().unwrap().unwrap());
        let mut client = GreenTransport::new(client);
        client.write_all(b"all there is").unwrap();
        // Without the message that ends a session.
        drop(client);
        let mut buffer = [0; 64];
        assert_eq!(server.read(&mut buffer).unwrap(), 12);
        assert_eq!(server.read(&mut buffer).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(server.read(&mut buffer).unwrap(), 0);
        assert_eq!(server.write(b"x").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_server_handles_only_clients_that_complete_the_handshake() {
    on_tokio(|| {
        let (connector, acceptor) = sides();
        let listener = net::listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (handled, failed, handlers) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Handlers::new());
        let (running, handles, failures) = (handlers.clone(), Rc::clone(&handled), Rc::clone(&failed));
        let server = greenhub::spawn(move || {
            let handler = move |mut transport: GreenTransport<_>, _| {
                handles.set(handles.get() + 1);
                let mut request = [0; 5];
                transport.read_exact(&mut request)?;
                transport.write_all(&request.map(|byte: u8| byte.to_ascii_uppercase()))?;
                transport.shutdown()
            };
            let fail = move |_, _| failures.set(failures.get() + 1);
            net::serve_established(&listener, &running, move |stream| acceptor.accept(stream), handler, fail)
        });
        let mut garbage = net::connect(address).unwrap();
        garbage.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        until(|| failed.get() == 1);
        drop(net::connect(address).unwrap());
        until(|| failed.get() == 2);
        assert_eq!(handled.get(), 0);
        let client = net::connect(address).unwrap().into_inner();
        let mut client =
            GreenTransport::new(greenhub::future::block_on(connector.connect(localhost(), client)).unwrap());
        client.write_all(b"hello").unwrap();
        assert_eq!(io::read_to_string(&client).unwrap(), "HELLO");
        assert_eq!((handled.get(), failed.get()), (1, 2));
        server.kill();
        some_turns();
        handlers.wait_all().unwrap();
    });
}
