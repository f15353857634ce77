//! The HTTP server of the adapters with curl and wrk, and beside hyper.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use greenhub::future::{AsyncIo, GreenTimer, block_on};
use greenhub::net::{ServeEnd, StopServe, TcpListener, TcpStream};
use greenhub::process::Command;
use greenhub::{GreenThread, spawn, spawn_n};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

use crate::http_server_example::run;
use crate::support::{is_installed, run_many};

/// Starts the server of the example.
fn start() -> (SocketAddr, StopServe, GreenThread<greenhub::net::Served>) {
    let (listener, stop) = (TcpListener::bind("127.0.0.1:0").expect("a port"), StopServe::new());
    let (address, stopping) = (listener.local_addr().expect("bound"), stop.clone());
    (address, stop, spawn(move || run(&listener, &stopping).expect("a server")))
}

#[test]
fn curl_gets_and_posts() {
    if !is_installed("curl") {
        return;
    }
    run_many(|ticker| {
        let (address, stop, server) = start();
        let curl = |arguments: &[&str], path: &str| {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--noproxy", "*", "--max-time", "60"])
                .args(arguments)
                .arg(format!("http://{address}{path}"));
            let output = curl.output().expect("curl starts");
            assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("text")
        };
        assert_eq!(curl(&[], "/"), "hello\n");
        assert!(curl(&["--head"], "/").contains("content-length: 6"));
        assert_eq!(curl(&[], "/numbers").lines().count(), 1000);
        assert_eq!(curl(&["--http1.0"], "/numbers").lines().count(), 1000);
        assert_eq!(curl(&["-o", "/dev/null", "-w", "%{size_download}"], "/zeros"), (1 << 20).to_string());
        // curl waits for `100 Continue` before it sends a body of more than a megabyte.
        let long = "x".repeat(3 << 20);
        let file = std::env::temp_dir().join(format!("recipes-{}-{}", std::process::id(), address.port()));
        std::fs::write(&file, &long).expect("a file");
        let data = format!("@{}", file.display());
        assert_eq!(curl(&["--data-binary", &data], "/length"), long.len().to_string());
        let chunked = ["--data-binary", &data, "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"];
        assert_eq!(curl(&chunked, "/length"), long.len().to_string());
        assert_eq!(curl(&["-X", "PUT", "-o", "/dev/null", "-w", "%{http_code}"], "/"), "405");
        std::fs::remove_file(file).expect("a file");
        ticker.gate().pass();
        stop.stop();
        assert_eq!(server.join().expect("no panic").end, ServeEnd::Stopped);
    });
}

#[test]
fn wrk_finds_no_fault_with_many_connections() {
    if !is_installed("wrk") {
        return;
    }
    run_many(|ticker| {
        let (address, stop, server) = start();
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c500", "-d1s", "--timeout", "60s"]).arg(format!("http://{address}/"));
        let begun = ticker.ticks();
        let output = wrk.output().expect("wrk starts");
        let printed = String::from_utf8(output.stdout).expect("text");
        assert!(ticker.ticks() > begun, "the OS thread was not blocked");
        assert!(output.status.success() && printed.contains("Requests/sec"), "{printed}");
        assert!(!printed.contains("Socket errors") && !printed.contains("Non-2xx"), "{printed}");
        stop.stop();
        let served = server.join().expect("no panic");
        assert!(served.accepted >= 500 && served.killed == 0, "{served:?}");
    });
}

/// hyper as a server of the same answers.
fn start_hyper() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    spawn_n(move || {
        while let Ok((stream, _)) = listener.accept() {
            spawn_n(move || {
                let service = service_fn(|request: Request<Incoming>| async move {
                    let body = if request.uri().path() == "/echo" {
                        request.into_body().collect().await.map(|body| body.to_bytes())
                    } else {
                        Ok(Bytes::from_static(b"hello\n"))
                    };
                    Ok::<_, Infallible>(Response::new(Full::new(body.unwrap_or_default())))
                });
                let connection = http1::Builder::new()
                    .timer(GreenTimer)
                    .half_close(true)
                    .serve_connection(AsyncIo::new(stream), service);
                let _ = block_on(connection);
            });
        }
    });
    address
}

/// Sends a request and a second one, and returns the statuses of the responses.
fn statuses(address: SocketAddr, request: &str) -> Vec<u16> {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    let next = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all((request.to_owned() + next).as_bytes()).expect("the server reads");
    stream.shutdown(Shutdown::Write).expect("an open connection");
    let mut answered = Vec::new();
    // A reset after the response is the end, too.
    let _ = stream.read_to_end(&mut answered);
    let text = String::from_utf8_lossy(&answered).into_owned();
    text.split("HTTP/1.").skip(1).map(|rest| rest[2..5].parse().expect("a status")).collect()
}

/// Requests, with the statuses of the server and of hyper. Where they differ, the last column says why.
const COMPARED: &[(&str, &[u16], &[u16], &str)] = &[
    ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[200, 200], &[200, 200], ""),
    ("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", &[200, 200], &[200, 200], ""),
    ("GET / HTTP/1.0\r\n\r\n", &[200], &[200], ""),
    ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &[200, 200], &[200, 200], ""),
    ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &[200], &[200], ""),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", &[200, 200], &[200, 200], ""),
    ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok", &[200, 200], &[200, 200], ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok", &[200, 200], &[200, 200], ""),
    (
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        &[200, 200],
        &[200, 200],
        "",
    ),
    ("GET /\r\n\r\n", &[400], &[400], ""),
    ("G@T / HTTP/1.1\r\nHost: x\r\n\r\n", &[400], &[400], ""),
    ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", &[400], &[400], ""),
    ("GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", &[400], &[400], ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: a\r\n\r\n", &[400], &[400], ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", &[400], &[400], ""),
    ("GET / HTTP/1.1\r\n\r\n", &[400], &[200, 200], "hyper leaves the Host to the handler"),
    ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", &[400], &[200, 200], "hyper leaves the Host to the handler"),
    ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", &[505], &[400], "hyper has one status for all that it cannot parse"),
    ("PUT / HTTP/1.1\r\nHost: x\r\n\r\n", &[405], &[200, 200], "hyper leaves the methods to the handler"),
    ("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", &[501], &[200], "hyper can hand a tunnel to the handler"),
    ("GET / HTTP/1.1\r\nHost: x\r\nExpect: magic\r\n\r\n", &[417], &[200, 200], "hyper ignores what it does not know"),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", &[400], &[400], ""),
    (
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        &[501],
        &[200, 200],
        "hyper leaves the other codings to the handler",
    ),
    (
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
        &[200],
        "hyper takes the chunks and closes the connection, as the standard allows",
    ),
    (
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        &[400],
        &[200],
        "this handler of hyper answers despite the body's error",
    ),
];

#[test]
fn the_server_and_hyper_answer_alike_where_the_table_says_so() {
    run_many(|_| {
        let ((address, stop, _server), hyper) = (start(), start_hyper());
        for (request, ours, theirs, why) in COMPARED {
            assert_eq!(statuses(address, request), *ours, "{request:?}");
            assert_eq!(statuses(hyper, request), *theirs, "hyper: {request:?}");
            assert_eq!(ours == theirs, why.is_empty(), "{request:?}");
        }
        stop.stop();
    });
}
