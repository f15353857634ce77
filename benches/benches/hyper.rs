//! hyper's HTTP/1 server, unchanged, on greenhub and on tokio: the time of one request over a kept connection, client
//! included, with both ends on one OS thread.
//!
//! The client is the same function on both sides: it writes the bytes of a request and reads until the response is
//! complete.

use std::convert::Infallible;
use std::net::TcpStream as StdStream;
use std::time::Duration;

use benches::{Pair, Stopwatch, scaled, tcp_pairs};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use greenhub::future::{AsyncIo, block_on};
use greenhub::net::TcpStream;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n";

const BODY: &[u8] = b"Hello, world!";

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(BODY))))
}

async fn serve<S: Read + Write + Unpin>(stream: S) {
    let served = http1::Builder::new().serve_connection(stream, service_fn(answer)).await;
    served.expect("the client closes the connection");
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, requests: u64) {
    let mut buffer = [0; 1024];
    for _ in 0..requests {
        stream.write_all(REQUEST).await.expect("the server reads");
        let mut read = 0;
        while !buffer[..read].ends_with(BODY) {
            read += stream.read(&mut buffer[read..]).await.expect("a response");
        }
    }
}

fn greenhub(pairs: Vec<Pair>, requests: u64) -> Duration {
    let watch = Stopwatch::start();
    let clients: Vec<_> = pairs
        .into_iter()
        .map(|(near, far)| {
            greenhub::spawn_n(move || block_on(serve(AsyncIo::new(TcpStream::from(far)))));
            greenhub::spawn(move || block_on(ask(AsyncIo::new(TcpStream::from(near)), requests)))
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("no panic"));
    watch.elapsed()
}

fn tokio(pairs: Vec<Pair>, requests: u64) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async move {
        let watch = Stopwatch::start();
        let stream = |socket| {
            let socket = StdStream::from(socket);
            socket.set_nonblocking(true).expect("a socket");
            tokio::net::TcpStream::from_std(socket).expect("the runtime takes the socket")
        };
        let clients: Vec<_> = pairs
            .into_iter()
            .map(|(near, far)| {
                tokio::spawn(serve(TokioIo::new(stream(far))));
                tokio::spawn(ask(stream(near), requests))
            })
            .collect();
        for client in clients {
            client.await.expect("no panic");
        }
        watch.elapsed()
    })
}

fn requests(criterion: &mut Criterion) {
    for connections in [1, 100] {
        let mut group = criterion.benchmark_group(format!("hyper, {connections} connections"));
        group.sampling_mode(SamplingMode::Flat).sample_size(20).measurement_time(Duration::from_secs(3));
        let mut bench = |name: &str, run: fn(Vec<Pair>, u64) -> Duration| {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    // Enough requests that registering and closing the sockets cost little.
                    let requests = (iterations / connections).max(100);
                    let elapsed = run(tcp_pairs(connections as usize).expect("enough descriptors"), requests);
                    scaled(elapsed, connections * requests, iterations)
                });
            });
        };
        bench("greenhub", greenhub);
        bench("tokio", tokio);
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
