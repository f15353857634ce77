//! The example `cluster` as a separate process: the responses to its clients, and its exit status.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::example;
use crate::support::example::{ends, refuses, text};
use crate::support::web_server::{Directory, WebServer};

fn cluster(arguments: &[&str]) -> std::process::Output {
    example::run(&mut example::command("cluster", arguments))
}

#[test]
fn files_and_directories_are_served() {
    let directory = Directory::new();
    fs::create_dir(directory.path().join("below")).expect("the directory is new");
    directory.write("a<b.txt", "plain");
    directory.write("below/index.html", "<p>index");
    let server = WebServer::start(directory.path(), &["--threads", "2"]);
    let get = |path: &str| server.request(&format!("GET {path} HTTP/1.0\r\n\r\n"));
    assert!(
        get("/").ends_with("<li><a href=\"a&lt;b.txt\">a&lt;b.txt</a>\n<li><a href=\"below/\">below/</a>\n</ul>\n")
    );
    assert!(get("/a<b.txt").contains("Content-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n"));
    assert!(get("/below/?query").ends_with("\r\n\r\n<p>index"));
    assert!(get("/below/index.html").starts_with("HTTP/1.1 404 Not Found\r\n"));
    let output = server.interrupt();
    assert!(text(&output).starts_with("4 responses; connections by OS thread: "));
    ends(&output, 0);
}

#[test]
fn requests_on_one_connection_are_answered_in_their_order() {
    let directory = Directory::new();
    directory.write("one", "1");
    directory.write("two", "2");
    let server = WebServer::start(directory.path(), &["--threads", "1"]);
    let responses = server
        .request("GET /one HTTP/1.1\r\n\r\nHEAD /two HTTP/1.1\r\n\r\nGET /two HTTP/1.1\r\nConnection: close\r\n\r\n");
    let bodies: Vec<_> = responses.split("\r\n\r\n").skip(1).collect();
    assert_eq!(bodies.len(), 3, "{responses}");
    assert!(bodies[0].starts_with("1HTTP/1.1 200 OK") && bodies[1].starts_with("HTTP/1.1 200 OK"), "{responses}");
    assert_eq!(bodies[2], "2");
    ends(&server.interrupt(), 0);
}

#[test]
fn malformed_and_oversized_requests_are_refused() {
    let directory = Directory::new();
    let server = WebServer::start(directory.path(), &[]);
    assert!(server.request("what?\r\n\r\n").starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert!(server.request("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
    assert!(server.request("GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\n").starts_with("HTTP/1.1 413 "));
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
    assert!(server.request(&long).starts_with("HTTP/1.1 431 "));
    ends(&server.interrupt(), 0);
}

#[test]
fn a_silent_client_is_disconnected_in_time() {
    let directory = Directory::new();
    let server = WebServer::start(directory.path(), &["--client-timeout", "0.05"]);
    let mut silent = server.connect();
    assert_eq!(silent.read(&mut [0]).expect("the end"), 0);
    ends(&server.interrupt(), 0);
}

#[test]
fn a_started_answer_is_completed_when_the_server_ends() {
    let directory = Directory::new();
    directory.write("large", &"x".repeat(8 << 20));
    let server = WebServer::start(directory.path(), &["--farewell", "20"]);
    let mut stream = server.connect();
    stream.write_all(b"GET /large HTTP/1.0\r\n\r\n").expect("the peer reads");
    stream.read_exact(&mut [0; 100]).expect("the green thread has begun");
    let ended = std::thread::spawn(move || server.interrupt());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the rest");
    assert!(rest.len() > (8 << 20) - 100);
    ends(&ended.join().expect("no panic"), 0);
}

#[test]
fn a_directory_over_the_memory_limit_is_refused() {
    let directory = Directory::new();
    directory.write("large", &"x".repeat(3 << 19));
    let path = directory.path().to_str().expect("the path is UTF-8");
    refuses(&cluster(&["--memory", "1", path]), 1, &["cannot read", "--memory"]);
    let server = WebServer::start(directory.path(), &["--memory", "2"]);
    ends(&server.interrupt(), 0);
}

#[test]
fn help_is_no_error() {
    let output = cluster(&["--help"]);
    ends(&output, 0);
    assert!(text(&output).contains("--client-timeout"));
}

#[test]
fn wrong_arguments_are_a_one_line_error() {
    refuses(&cluster(&[]), 2, &["<DIR>", "--help"]);
    refuses(&cluster(&["--threads", "0", "."]), 2, &["--threads", "0"]);
    refuses(&cluster(&["--hub", "carrier pigeon", "."]), 2, &["carrier pigeon"]);
    refuses(&cluster(&["/no such directory"]), 1, &["/no such directory", "No such file"]);
    // The address is checked before the directory is read.
    refuses(&cluster(&["--listen", "nowhere", "/no such directory"]), 2, &["'nowhere'", "HOST:PORT"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("the listener has an address").to_string();
    refuses(&cluster(&["--listen", &address, env!("CARGO_MANIFEST_DIR")]), 1, &["cannot serve at", "in use"]);
}
