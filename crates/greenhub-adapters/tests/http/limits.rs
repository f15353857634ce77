//! Requests that are rejected.

use std::io::Write;
use std::time::Instant;

use greenhub_adapters::http::Server;
use http::Method;

use crate::support::{Running, get, ms, rest, statuses};

/// Checks that a request is rejected with `status`, after which the connection is closed.
fn rejects(server: &Running, request: impl AsRef<[u8]>, status: u16) {
    let begun = server.begun.get();
    let request = request.as_ref();
    let answered = server.exchange([request, get("/hello").as_bytes()].concat());
    let text = String::from_utf8_lossy(&request[..request.len().min(200)]);
    assert_eq!(statuses(&answered), [status], "{text:?}");
    assert!(answered.contains("connection: close\r\n") && !answered.ends_with("\r\n\r\n"), "{answered}");
    assert_eq!(server.begun.get(), begun, "the handler is not called for {text:?}");
}

#[test]
fn malformed_heads_are_rejected() {
    let server = Running::start(Server::new());
    for request in [
        "\x16\x03\x01\x02\x00\x01",
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / FTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nName\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nName: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@x\r\n\r\n",
        "GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        rejects(&server, request, 400);
    }
}

#[test]
fn ambiguous_framing_is_rejected() {
    let server = Running::start(Server::new());
    let request = |fields: &str| format!("POST /echo HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n");
    for (fields, status) in [
        ("Content-Length: -1", 400),
        ("Content-Length: +1", 400),
        ("Content-Length: 0x1", 400),
        ("Content-Length: ", 400),
        ("Content-Length: 1\r\nContent-Length: 2", 400),
        ("Content-Length: 1, 2", 400),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: ", 400),
        ("Transfer-Encoding: identity", 400),
        ("Transfer-Encoding: chunked, gzip", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: chunked, chunked", 501),
    ] {
        rejects(&server, request(fields), status);
    }
    rejects(&server, "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    let twice = request("Content-Length: 2\r\nContent-Length: 2") + "ok";
    assert_eq!(statuses(&server.exchange(twice)), [200]);
}

#[test]
fn unknown_versions_methods_and_expectations_are_rejected() {
    let server = Running::start(Server::new().methods([Method::GET, Method::POST]));
    rejects(&server, "GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505);
    rejects(&server, "GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505);
    rejects(&server, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    rejects(&server, "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501);
    rejects(&server, "PURGE / HTTP/1.1\r\nHost: x\r\n\r\n", 501);
    rejects(&server, "PUT / HTTP/1.1\r\nHost: x\r\n\r\n", 405);
    assert!(server.exchange("PUT / HTTP/1.1\r\nHost: x\r\n\r\n").contains("\r\nallow: GET, POST\r\n"));
    rejects(&server, "GET / HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\n\r\n", 417);
}

#[test]
fn heads_above_the_limits_are_rejected() {
    let server = Running::start(Server::new().max_head(1000).max_headers(10));
    let fields = |count: usize| (1..count).map(|number| format!("x{number}: y\r\n")).collect::<String>();
    let request = |fields: &str| format!("GET /hello HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    assert_eq!(statuses(&server.exchange(request(&fields(10)))), [200]);
    rejects(&server, request(&fields(11)), 431);
    let long = |length: usize| format!("x: {}\r\n", "y".repeat(length - request("x: \r\n").len()));
    assert_eq!(statuses(&server.exchange(request(&long(1000)))), [200]);
    rejects(&server, request(&long(1001)), 431);
    rejects(&server, format!("\r\nGET /{}", "x".repeat(1000)), 414);
}

#[test]
fn bodies_above_the_limit_are_rejected() {
    let server = Running::start(Server::new().max_body(10));
    let length = |length: &str| format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n0123456789");
    assert!(server.exchange(length("10")).ends_with("\r\n\r\n0123456789"));
    rejects(&server, length("11"), 413);
    rejects(&server, length("99999999999999999999999999"), 413);
    let chunks = |body: &str| format!("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    assert_eq!(statuses(&server.exchange(chunks("5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"))), [200]);
    // The handler has begun to read.
    for (body, status) in [
        ("5\r\n01234\r\n6\r\n567890\r\n0\r\n\r\n", 413),
        ("fffffff\r\n", 413),
        ("5\r\n012345\r\n", 400),
        ("x\r\n", 400),
    ] {
        let sent = chunks(body) + &"0".repeat(20);
        assert_eq!(statuses(&server.exchange(sent)), [status], "{body:?}");
    }
}

#[test]
fn late_requests_are_rejected() {
    let limits = Server::new().head_timeout(ms(60)).body_timeout(ms(60)).idle_timeout(ms(60));
    let server = Running::start(limits);
    let sent = |bytes: &str| {
        let mut stream = server.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        let begun = Instant::now();
        let answered = rest(&mut stream);
        assert!(begun.elapsed() >= ms(60), "{answered}");
        statuses(&answered)
    };
    assert_eq!(sent("GET /hello HTTP/1.1\r\nHo"), [408]);
    assert_eq!(sent("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell"), [408]);
    assert_eq!(sent(""), [0; 0], "an idle connection ends without a response");
    assert_eq!(sent(&get("/hello")), [200]);
}

#[test]
fn a_head_that_trickles_in_is_late_all_the_same() {
    let server = Running::start(Server::new().head_timeout(ms(60)));
    let mut stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    let trickle = greenhub::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            greenhub::sleep(ms(5));
        }
    });
    stream.write_all(b"GET /hello HTTP/1.1\r\nName: ").unwrap();
    assert_eq!(statuses(&rest(&mut stream)), [408]);
    drop(stream);
    trickle.kill();
}
