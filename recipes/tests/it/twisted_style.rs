//! The example `twisted_style` as a program, with curl and wrk as its clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use greenhub::sync::Event;
use greenhub::thread::os;
use recipes::web::serve;

use crate::support::example::{Server, command, run, text};
use crate::support::is_installed;

/// Bytes of a body that is larger than every buffer.
const LARGE: usize = 3_000_000;

/// A server on an OS thread of its own, until this is dropped.
struct Origin {
    address: SocketAddr,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<os::JoinHandle<()>>,
}

impl Origin {
    fn start() -> Origin {
        let (stop, stopped) = mpsc::channel();
        let (send, address) = mpsc::channel();
        let thread = os::spawn(move || {
            let released = std::rc::Rc::new(Event::new());
            let answer = move |path: &str, body: &str| match path {
                // The answer comes when another request has been answered meanwhile.
                "/slow" => released.wait().map_or_else(|error| error.to_string(), |()| "released".to_owned()),
                "/release" => released.send(()).map_or_else(|error| error.to_string(), |()| "releases".to_owned()),
                "/large" => "x".repeat(LARGE),
                "/length" => body.len().to_string(),
                _ => format!("{path} {body}"),
            };
            let (address, _server) = serve(answer).expect("a port");
            send.send(address).expect("the test waits");
            // Green threads run meanwhile.
            let _ = greenhub::tpool::execute(move || stopped.recv());
        });
        let address = address.recv().expect("the server starts");
        Origin { address, stop: Some(stop), thread: Some(thread) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(Err(panic)) = self.thread.take().map(os::JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Starts the proxy on a free port, and returns it with its address.
fn start(more: &[&str]) -> (Server, String) {
    let arguments = [&["127.0.0.1:0"], more].concat();
    let server = Server::start(&mut command("twisted_style", &arguments));
    let address = server.greeting.strip_prefix("proxy on http://").and_then(|rest| rest.split_once("/;"));
    let address = address.unwrap_or_else(|| panic!("no greeting, but {:?}", server.greeting)).0.to_owned();
    (server, address)
}

fn curl(proxy: &str, more: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--proxy", proxy])
        .args(more)
        .output()
        .expect("curl is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

#[test]
fn curl_gets_answers_over_one_kept_connection() {
    if !is_installed("curl") {
        return;
    }
    let (origin, (server, proxy)) = (Origin::start(), start(&[]));
    let urls = [origin.url("/one"), origin.url("/two")];
    let two = curl(&proxy, &["-w", "[%{num_connects}]", &urls[0], &urls[1]]);
    assert_eq!(two, "/one [1]/two [0]");
    assert_eq!(curl(&proxy, &["--data", "a body", &urls[0]]), "/one a body");
    assert_eq!(curl(&proxy, &[&origin.url("/large")]).len(), LARGE);
    assert!(curl(&proxy, &["--head", &origin.url("/large")]).contains(&format!("ength: {LARGE}")));
    let output = server.interrupt();
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output);
    assert!(printed.contains(&format!(" GET {}\n", urls[1])), "{printed}");
    assert!(printed.ends_with("4 connections, 5 requests\n"), "{printed}");
}

#[test]
fn bodies_of_requests_are_passed_on_in_every_framing() {
    if !is_installed("curl") {
        return;
    }
    let (origin, (_server, proxy)) = (Origin::start(), start(&["--quiet"]));
    let folder = std::env::temp_dir().join(format!("twisted_style-{}", std::process::id()));
    std::fs::write(&folder, "x".repeat(LARGE)).expect("a file");
    let data = format!("@{}", folder.display());
    let url = origin.url("/length");
    let lengths = [
        curl(&proxy, &["--data-binary", &data, "-H", "Expect: 100-continue", &url]),
        curl(&proxy, &["--data-binary", &data, "-H", "Transfer-Encoding: chunked", &url]),
    ];
    let _ = std::fs::remove_file(&folder);
    assert_eq!(lengths, [LARGE.to_string(), LARGE.to_string()]);
}

#[test]
fn a_tunnel_passes_both_directions_on() {
    if !is_installed("curl") {
        return;
    }
    let (origin, (_server, proxy)) = (Origin::start(), start(&["--quiet"]));
    assert_eq!(curl(&proxy, &["--proxytunnel", "--data", "a body", &origin.url("/through")]), "/through a body");
    assert_eq!(curl(&proxy, &["--proxytunnel", &origin.url("/large")]).len(), LARGE);
}

#[test]
fn a_slow_server_holds_up_one_handler_only() {
    if !is_installed("curl") {
        return;
    }
    let (origin, (_server, proxy)) = (Origin::start(), start(&["--quiet"]));
    let (url, through) = (origin.url("/slow"), proxy.clone());
    let slow = thread::spawn(move || curl(&through, &[&url]));
    assert_eq!(curl(&proxy, &[&origin.url("/release")]), "releases");
    assert_eq!(slow.join().expect("no panic"), "released");
}

#[test]
fn an_unreachable_server_and_a_wrong_target_are_responses() {
    if !is_installed("curl") {
        return;
    }
    let (_server, proxy) = start(&["--quiet"]);
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    assert_eq!(curl(&proxy, &["-w", "[%{http_code}]", "-o", "/dev/null", &format!("http://{closed}/")]), "[502]");
    let mut client = TcpStream::connect(&proxy).expect("the proxy listens");
    client.write_all(b"GET /path HTTP/1.1\r\n\r\n").expect("the proxy reads");
    let mut response = String::new();
    client.read_to_string(&mut response).expect("a response");
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("--origin"), "{response}");
}

#[test]
fn wrk_finds_no_error_under_load() {
    if !is_installed("wrk") {
        return;
    }
    let origin = Origin::start();
    let (server, proxy) = start(&["--quiet", "--origin", &origin.address.to_string()]);
    let url = format!("http://{proxy}/page");
    let output = Command::new("wrk").args(["-t", "1", "-c", "50", "-d", "2", "--timeout", "60", &url]).output();
    let printed = text(&output.expect("wrk is installed"));
    assert!(printed.contains("requests in") && !printed.contains("Socket errors"), "{printed}");
    assert!(!printed.contains("Non-2xx"), "{printed}");
    let output = server.interrupt();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn an_open_connection_does_not_outlast_the_farewell() {
    let (server, proxy) = start(&["--farewell", "0.1"]);
    let mut client = TcpStream::connect(&proxy).expect("the proxy listens");
    // Of an unfinished request, which the proxy waits for.
    client.write_all(b"GET / HTTP/1.1\r\n").expect("the proxy reads");
    let output = server.interrupt();
    assert!(output.status.success(), "{output:?}");
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn wrong_arguments_are_reported_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| address.to_string()).expect("the listener has an address");
    let cases: [(&[&str], i32, &str); 5] = [
        (&[], 2, "<ADDRESS>"),
        (&["localhost"], 2, "HOST:PORT"),
        (&["127.0.0.1:0", "--timeout", "0"], 2, "more than 0"),
        (&["127.0.0.1:0", "--colour"], 2, "--colour"),
        (&[&taken], 1, &taken),
    ];
    for (arguments, status, word) in cases {
        let output = run(&mut command("twisted_style", arguments));
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {printed}");
        assert!(printed.contains(word) && printed.lines().count() == 1, "{arguments:?}: {printed}");
    }
}
