//! The example `metrics` as a program: its answers to requests, and its numbers for Prometheus.

use std::time::{Duration, Instant};

use crate::support::example;
use crate::support::example::{ends, refuses, text};
use crate::support::web_server::WebServer;

fn start() -> WebServer {
    WebServer::run(&mut example::command("metrics", &["--interval", "0.01"]))
}

fn get(server: &WebServer, path: &str) -> String {
    server.request(&format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"))
}

/// Returns the sum of a value over its labels.
fn value(answer: &str, name: &str) -> f64 {
    let found = answer.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    found.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")).sum()
}

#[test]
fn numbers_of_the_hub_and_of_the_program_are_served() {
    let server = start();
    assert!(get(&server, "/").ends_with("\r\n\r\nhello\n"));
    assert!(get(&server, "/work").ends_with("\r\n\r\n500500\n"));
    let begun = Instant::now();
    let answer = loop {
        let answer = get(&server, "/metrics");
        if value(&answer, "greenhub_spawned_total") >= 4.0 {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{answer}");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(value(&answer, "requests_total") >= 3.0, "{answer}");
    assert_eq!(value(&answer, "greenhub_pool_wait_seconds_count"), 1.0, "{answer}");
    assert!(value(&answer, "greenhub_loop_latency_seconds_count") >= 3.0, "{answer}");
    assert!(answer.contains("\n# HELP greenhub_turns_total Turns of the main loop\n"), "{answer}");
    assert!(answer.contains("\n# TYPE greenhub_turns_total counter\n"), "{answer}");
    assert!(get(&server, "/nothing").starts_with("HTTP/1.1 404 "));
    let output = server.interrupt();
    ends(&output, 0);
    assert!(text(&output).ends_with(" clients\n"), "{}", text(&output));
}

#[test]
fn wrong_usage_is_refused_in_one_line() {
    let run = |arguments: &[&str]| example::run(&mut example::command("metrics", arguments));
    refuses(&run(&["--interval", "0"]), 2, &["--interval"]);
    refuses(&run(&["--listen", "nowhere"]), 2, &["nowhere", "--listen"]);
    refuses(&run(&["--hub", "nonsense"]), 2, &["nonsense"]);
}
