//! Requests that are served.

use std::io::{Read, Write};

use greenhub_adapters::http::Server;

use crate::support::{LONG, Running, get, head, response, rest, statuses};

/// A request with a body of a given length.
fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}")
}

#[test]
fn a_connection_carries_several_requests() {
    let server = Running::start(Server::new());
    let mut stream = server.connect();
    for _ in 0..3 {
        stream.write_all(get("/hello").as_bytes()).unwrap();
        let (head, body) = response(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\ndate: ") && !head.contains("connection"));
        assert_eq!(body, "hello");
    }
    assert_eq!((server.begun.get(), server.end().accepted), (3, 1));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Running::start(Server::new());
    let body = "Content-Length: 3\r\n";
    let requests = [get("/sleep"), post("/echo", body, "one"), post("/left", body, "two"), get("/hello")].concat();
    let answered = server.exchange(&requests);
    let bodies: Vec<&str> = answered.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
    for (answer, end) in bodies.iter().zip(["slept", "one", "Some(3) bytes are left", "hello"]) {
        assert!(answer.ends_with(&format!("\r\n\r\n{end}")), "{answer}");
    }
    assert_eq!(bodies.len(), 4);
}

#[test]
fn requests_are_the_same_however_they_arrive() {
    let server = Running::start(Server::new());
    let chunks = "3\r\none\r\n4;x=y\r\n two\r\n0\r\nTrailer: x\r\n\r\n";
    let requests = [post("/echo", "Transfer-Encoding: chunked\r\n", chunks), get("/hello")].concat();
    let whole = server.exchange(&requests);
    assert!(whole.contains("\r\n\r\none two") && whole.ends_with("\r\n\r\nhello"), "{whole}");
    let undated = |text: &str| text.lines().filter(|line| !line.starts_with("date")).collect::<String>();
    for size in [1, 2, 7, 50] {
        let mut stream = server.connect();
        for piece in requests.as_bytes().chunks(size) {
            stream.write_all(piece).unwrap();
            greenhub::thread::yield_now();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(undated(&rest(&mut stream)), undated(&whole), "pieces of {size}");
    }
}

#[test]
fn version_1_0_keeps_the_connection_if_the_client_asks() {
    let server = Running::start(Server::new());
    let request = |fields| format!("GET /hello HTTP/1.0\r\n{fields}\r\n");
    let answered = server.exchange(request("") + &get("/hello"));
    assert!(answered.contains("connection: close\r\n") && statuses(&answered) == [200], "{answered}");
    let answered = server.exchange(request("Connection: Keep-Alive\r\n") + &request(""));
    assert!(answered.contains("connection: keep-alive\r\n") && statuses(&answered) == [200, 200], "{answered}");
}

#[test]
fn either_side_can_end_the_connection() {
    let server = Running::start(Server::new());
    let closing = "GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: x, close\r\n\r\n";
    for requests in [closing.to_owned() + &get("/hello"), get("/closes") + &get("/hello")] {
        let mut stream = server.connect();
        stream.write_all(requests.as_bytes()).unwrap();
        let answered = rest(&mut stream);
        assert!(answered.contains("connection: close\r\n") && statuses(&answered) == [200], "{answered}");
    }
    let server = Running::start(Server::new().keep_alive(false));
    assert_eq!(statuses(&server.exchange(get("/hello") + &get("/hello"))), [200]);
}

#[test]
fn bodies_without_a_length_are_chunked() {
    let server = Running::start(Server::new());
    let answered = server.exchange(get("/writer") + &get("/hello"));
    assert!(answered.contains("transfer-encoding: chunked\r\n"), "{answered}");
    assert!(answered.contains("\r\n\r\n5\r\none, \r\n3\r\ntwo\r\n0\r\n\r\nHTTP/1.1 200"), "{answered}");
    let answered = server.exchange("GET /writer HTTP/1.0\r\n\r\n");
    assert!(answered.contains("connection: close") && answered.ends_with("\r\n\r\none, two"), "{answered}");
    assert!(!answered.contains("transfer-encoding"), "{answered}");
}

#[test]
fn a_long_body_arrives_whole() {
    let server = Running::start(Server::new());
    let body = server.exchange(get("/long"));
    assert_eq!(body.split_once("\r\n\r\n").unwrap().1.len(), LONG);
    let chunks = server.exchange(get("/long-writer"));
    let (_, mut chunks) = chunks.split_once("\r\n\r\n").unwrap();
    let mut sum = 0;
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        assert_eq!(&rest[size..size + 2], "\r\n");
        (sum, chunks) = (sum + size, &rest[size + 2..]);
    }
    assert_eq!(sum, LONG);
}

#[test]
fn a_body_that_fails_ends_the_connection_early() {
    let server = Running::start(Server::new());
    let answered = server.exchange(get("/failing-writer") + &get("/hello"));
    assert!(answered.ends_with("\r\n\r\n3\r\none\r\n"), "{answered}");
    let answered = server.exchange(get("/short-reader") + &get("/hello"));
    assert!(!answered.contains("short") || answered.ends_with("\r\n\r\nshort"), "{answered}");
    let answered = server.exchange(get("/reader"));
    assert!(answered.contains("content-length: 13\r\n") && answered.ends_with("\r\n\r\nfrom a reader"), "{answered}");
}

#[test]
fn head_and_bodiless_statuses_have_no_body() {
    let server = Running::start(Server::new());
    let of_head = |path| {
        let answered = server.exchange(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n") + &get("/hello"));
        assert_eq!(statuses(&answered), [200, 200], "{path}");
        answered.split_once("\r\n\r\n").unwrap().0.to_owned()
    };
    assert!(of_head("/hello").contains("\r\ncontent-length: 5"));
    assert!(of_head("/writer").contains("\r\ntransfer-encoding: chunked"));
    assert!(of_head("/own-length").contains("\r\ncontent-length: 12345"));
    for (path, code) in [("/no-content", 204), ("/not-modified", 304)] {
        let answered = server.exchange(get(path) + &get("/hello"));
        let first = answered.split("HTTP/1.1 200").next().unwrap();
        assert!(first.ends_with("\r\n\r\n") && !first.contains("content-length"), "{first}");
        assert_eq!(statuses(&answered), [code, 200]);
    }
}

#[test]
fn the_framing_is_that_of_the_server() {
    let server = Running::start(Server::new());
    let answered = server.exchange(get("/framing"));
    assert!(answered.contains("content-length: 6\r\n") && !answered.contains("content-length: 1\r\n"), "{answered}");
    assert_eq!(statuses(&server.exchange(get("/early-hints") + &get("/hello"))), [500, 200]);
}

#[test]
fn the_server_says_continue_when_the_handler_reads() {
    let server = Running::start(Server::new());
    let request = |path| post(path, "Content-Length: 4\r\nExpect: 100-continue\r\n", "");
    let mut stream = server.connect();
    stream.write_all(request("/echo").as_bytes()).unwrap();
    assert_eq!(head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").unwrap();
    assert_eq!(response(&mut stream).1, "body");
    // Without a read the client need not send the body, so the connection ends.
    stream.write_all(request("/hello").as_bytes()).unwrap();
    let answered = rest(&mut stream);
    assert!(answered.contains("connection: close\r\n") && statuses(&answered) == [200], "{answered}");
    // The body that is there already needs no invitation.
    assert_eq!(statuses(&server.exchange(request("/echo") + "body")), [200]);
}

#[test]
fn a_short_body_that_is_not_read_is_discarded() {
    let server = Running::start(Server::new().max_body(10 << 20));
    let request =
        |length: usize| post("/hello", &format!("Content-Length: {length}\r\n"), &"x".repeat(length)) + &get("/hello");
    assert_eq!(statuses(&server.exchange(request(50_000))), [200, 200]);
    let answered = server.exchange(request(500_000));
    assert!(answered.contains("connection: close\r\n") && statuses(&answered) == [200], "{answered}");
    let chunks = "5\r\nhello\r\n0\r\n\r\n".to_owned() + &get("/hello");
    assert_eq!(statuses(&server.exchange(post("/hello", "Transfer-Encoding: chunked\r\n", &chunks))), [200, 200]);
}

#[test]
fn targets_of_all_forms_reach_the_handler() {
    let server = Running::start(Server::new());
    let request = |target| format!("OPTIONS {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for target in ["*", "/path?query", "http://localhost:80/path"] {
        assert!(server.exchange(request(target)).ends_with(&format!("\r\n\r\n{target}")), "{target}");
    }
    assert!(server.exchange("PURGE /method HTTP/1.1\r\nHost: x\r\n\r\n").ends_with("\r\n\r\nPURGE"));
}

#[test]
fn a_single_connection_is_served_without_a_listener() {
    let (mut client, mut served) = greenhub::os::unix::net::UnixStream::pair().unwrap();
    let server = greenhub::spawn(move || {
        Server::new().serve_connection(&mut served, |request| http::Response::new(request.uri().to_string()));
    });
    client.write_all(get("/path").as_bytes()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answered = String::new();
    client.read_to_string(&mut answered).unwrap();
    assert!(answered.ends_with("\r\n\r\n/path"), "{answered}");
    server.join().unwrap();
}
