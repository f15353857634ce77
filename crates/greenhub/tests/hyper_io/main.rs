//! hyper's servers and clients, unchanged, over green sockets, by the feature `hyper-io`. Each connection is a green
//! thread, and no runtime of Tokio takes part.

mod example;
#[path = "../it/support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::descriptors::{ms, stats, until};
use crate::support::run;
use greenhub::future::{AsyncIo, GreenExecutor, GreenTimer, block_on, sleep, spawn_future};
use greenhub::net::{TcpListener, TcpStream};
use greenhub::process::Command;
use greenhub::{GreenThread, get_hub, kill, spawn};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};

/// Answers with the method, the path and the body.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/slow" {
        sleep(ms(20)).await;
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut text = format!("{} {} ", head.method, head.uri.path()).into_bytes();
    text.extend_from_slice(&body);
    Ok(Response::new(Full::from(text)))
}

/// Serves with HTTP/1, each connection in a green thread. Killing the returned one ends the server.
fn serve() -> (SocketAddr, GreenThread<()>) {
    serve_by(|stream| {
        let served = http1::Builder::new().timer(GreenTimer).serve_connection(AsyncIo::new(stream), service_fn(answer));
        // A peer that has gone is no failure of the server.
        let _ = block_on(served);
    })
}

fn serve_by(serve: impl Fn(TcpStream) + Copy + 'static) -> (SocketAddr, GreenThread<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("the listener has an address");
    let server = spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            greenhub::spawn_n(move || serve(stream));
        }
    });
    (address, server)
}

/// A client with a connection of HTTP/1.
struct Client {
    sender: client1::SendRequest<Full<Bytes>>,
    connection: GreenThread<()>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = AsyncIo::new(TcpStream::connect(address).expect("a server"));
        let (sender, connection) = block_on(client1::handshake(stream)).expect("a connection");
        let connection = spawn_future(async move { drop(connection.await) });
        Client { sender, connection }
    }

    fn post(&mut self, path: &str, body: impl Into<Bytes>) -> hyper::Result<Bytes> {
        let request = Request::post(path).header("host", "test").body(Full::new(body.into())).expect("a request");
        block_on(async {
            self.sender.ready().await?;
            Ok(self.sender.send_request(request).await?.into_body().collect().await?.to_bytes())
        })
    }
}

#[test]
fn a_server_answers_a_client() {
    run("a_server_answers_a_client", || {
        let (address, _server) = serve();
        let mut client = Client::connect(address);
        for number in 0..100 {
            let answered = client.post("/path", format!("{number}")).expect("an answer");
            assert_eq!(answered, format!("POST /path {number}"));
        }
        drop(client.sender);
        client.connection.join().expect("no panic");
    });
}

#[test]
fn a_kept_connection_costs_no_registration_for_each_request() {
    run("a_kept_connection_costs_no_registration_for_each_request", || {
        let (address, _server) = serve();
        let mut client = Client::connect(address);
        let mut requests = |count| {
            for _ in 0..count {
                client.post("/", "x").expect("an answer");
            }
        };
        requests(20);
        let before = stats().watches;
        requests(200);
        let watches = stats().watches - before;
        // poll(2) and select(2) have no registrations in the system, so each wait is a call of the hub, without cost.
        if get_hub().name() == "epoll" || get_hub().name() == "kqueue" {
            assert_eq!(watches, 0);
        }
    });
}

#[test]
fn large_bodies_pass_both_ways() {
    run("large_bodies_pass_both_ways", || {
        let (address, _server) = serve();
        let mut client = Client::connect(address);
        let body: Vec<u8> = (0..4 << 20).map(|i| (i / 3) as u8).collect();
        let answered = client.post("/", body.clone()).expect("an answer");
        assert!(answered.strip_prefix(b"POST / ").is_some_and(|echo| echo == body));
    });
}

#[test]
fn slow_requests_of_many_connections_overlap() {
    run("slow_requests_of_many_connections_overlap", || {
        const CLIENTS: u32 = 100;
        let (address, _server) = serve();
        let begun = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                spawn(move || {
                    let answered = Client::connect(address).post("/slow", format!("{number}")).expect("an answer");
                    assert_eq!(answered, format!("POST /slow {number}"));
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("no panic"));
        let longest = ms(20) * CLIENTS;
        assert!(begun.elapsed() < longest || std::env::var_os("CI").is_some(), "the requests ran one by one");
    });
}

#[test]
fn a_client_that_sends_no_header_is_dropped_by_the_timer() {
    run("a_client_that_sends_no_header_is_dropped_by_the_timer", || {
        let (address, _server) = serve_by(|stream| {
            let mut server = http1::Builder::new();
            server.timer(GreenTimer).header_read_timeout(ms(30));
            let _ = block_on(server.serve_connection(AsyncIo::new(stream), service_fn(answer)));
        });
        let mut idle = TcpStream::connect(address).expect("a server");
        idle.write_all(b"GET / HTTP/1.1\r\n").expect("the buffer has room");
        let mut text = Vec::new();
        // The server closes the connection, with or without a word.
        let _ = idle.read_to_end(&mut text);
        until(|| stats().timers == 0);
    });
}

#[test]
fn requests_leave_no_timers_behind() {
    run("requests_leave_no_timers_behind", || {
        let (address, _server) = serve_by(|stream| {
            let mut server = http1::Builder::new();
            server.timer(GreenTimer).header_read_timeout(Duration::from_secs(3600));
            let _ = block_on(server.serve_connection(AsyncIo::new(stream), service_fn(answer)));
        });
        let mut client = Client::connect(address);
        for _ in 0..100 {
            client.post("/", "x").expect("an answer");
        }
        assert!(stats().timers <= 1, "{} timers", stats().timers);
    });
}

#[test]
fn http2_runs_by_the_green_executor() {
    run("http2_runs_by_the_green_executor", || {
        let (address, _server) = serve_by(|stream| {
            let mut server = http2::Builder::new(GreenExecutor);
            server.timer(GreenTimer);
            let _ = block_on(server.serve_connection(AsyncIo::new(stream), service_fn(answer)));
        });
        let stream = AsyncIo::new(TcpStream::connect(address).expect("a server"));
        let (sender, connection) = block_on(client2::handshake(GreenExecutor, stream)).expect("a connection");
        let connection = spawn_future(async move { drop(connection.await) });
        let requests: Vec<_> = (0..50)
            .map(|number| {
                let mut sender = sender.clone();
                spawn_future(async move {
                    let body = Full::<Bytes>::from(format!("{number}"));
                    let request = Request::post("http://test/slow").body(body).expect("a request");
                    let answered = sender.send_request(request).await.expect("an answer").into_body().collect().await;
                    assert_eq!(answered.expect("a body").to_bytes(), format!("POST /slow {number}"));
                })
            })
            .collect();
        requests.into_iter().for_each(|request| request.join().expect("no panic"));
        drop(sender);
        connection.join().expect("no panic");
    });
}

#[test]
fn a_killed_connection_is_closed() {
    run("a_killed_connection_is_closed", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("the listener has an address");
        let mut client = TcpStream::connect(address).expect("a listener");
        let (stream, _) = listener.accept().expect("a client");
        let served = http1::Builder::new().serve_connection(AsyncIo::new(stream), service_fn(answer));
        let connection = spawn(move || block_on(served));
        client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").expect("the buffer has room");
        assert!(client.read(&mut [0; 1024]).expect("an answer") > 0);
        kill(&connection);
        assert_eq!(client.read(&mut [0]).expect("the end"), 0);
        assert_eq!((stats().readers, stats().writers), (0, 0));
    });
}

#[test]
fn a_graceful_shutdown_answers_the_last_request() {
    run("a_graceful_shutdown_answers_the_last_request", || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("the listener has an address");
        let server = spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            block_on(async {
                let mut served =
                    std::pin::pin!(http1::Builder::new().serve_connection(AsyncIo::new(stream), service_fn(answer)));
                let mut asked = std::pin::pin!(sleep(ms(10)));
                std::future::poll_fn(|cx| {
                    // The request takes 20 ms.
                    if asked.as_mut().poll(cx).is_ready() {
                        served.as_mut().graceful_shutdown();
                        return std::task::Poll::Ready(());
                    }
                    assert!(served.as_mut().poll(cx).is_pending());
                    std::task::Poll::Pending
                })
                .await;
                served.await.expect("no error");
            });
        });
        let mut client = Client::connect(address);
        assert_eq!(client.post("/slow", "x").expect("an answer"), "POST /slow x");
        server.join().expect("no panic");
        client.connection.join().expect("no panic");
    });
}

#[test]
fn each_of_two_os_threads_has_a_server() {
    run("each_of_two_os_threads_has_a_server", || {
        let serve_and_ask = || {
            let (address, _server) = serve();
            let mut client = Client::connect(address);
            for _ in 0..200 {
                assert_eq!(client.post("/", "x").expect("an answer"), "POST / x");
            }
        };
        let other = std::thread::spawn(serve_and_ask);
        serve_and_ask();
        other.join().expect("no panic");
    });
}

#[test]
fn curl_gets_answers_from_a_server() {
    run("curl_gets_answers_from_a_server", || {
        let (address, _server) = serve();
        let url = format!("http://{address}/path");
        let curl = Command::new("curl").args(["--silent", "--max-time", "60", "--data", "hello", &url, &url]).output();
        let Ok(output) = curl else {
            eprintln!("curl is not installed: this test is skipped");
            return;
        };
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"POST /path helloPOST /path hello");
    });
}
