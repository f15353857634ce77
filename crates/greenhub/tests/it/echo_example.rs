//! The example `echo` as a separate process: its output and its exit status.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Output};

use crate::support::closed_port::ClosedPort;
use crate::support::example;
use crate::support::example::{errors, refuses};
use serde_json::Value;

fn echo(arguments: &[&str]) -> Command {
    example::command("echo", arguments)
}

fn run(arguments: &[&str]) -> Output {
    example::run(&mut echo(arguments))
}

/// Returns the standard output, which must be one JSON object on one line.
fn object(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).expect("JSON is text");
    assert_eq!(text.lines().count(), 1, "one line: {text:?}, and on standard error: {}", errors(output));
    serde_json::from_str(&text).expect("the line is JSON")
}

#[test]
fn one_process_echoes_and_reports_as_json() {
    let output = run(&["--json", "--connections", "20", "--bytes", "100", "--seconds", "0.4"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let object = object(&output);
    assert_eq!(object["connections"], 20);
    assert_eq!(object["bytes"], 100);
    assert_eq!(object["errors"], 0);
    assert!(object["hub"].as_str().is_some_and(|name| !name.is_empty()));
    assert!(object["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.4));
    assert!(object["round_trips"].as_u64().is_some_and(|count| count > 20));
    assert!(object["round_trips_per_s"].as_f64().is_some_and(|rate| rate > 0.0));
    let latencies = ["p50_us", "p99_us", "p999_us"].map(|key| object[key].as_f64().expect("a latency"));
    assert!(latencies[0] > 1.0, "{latencies:?}");
    assert!(latencies.is_sorted(), "{latencies:?}");
    let mut keys: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = [
        "bytes",
        "connections",
        "errors",
        "hub",
        "p50_us",
        "p999_us",
        "p99_us",
        "round_trips",
        "round_trips_per_s",
        "rss_per_green_thread_bytes",
        "seconds",
        "syscalls_per_round_trip",
    ];
    assert_eq!(keys, expected);
}

#[cfg(target_os = "linux")]
#[test]
fn a_round_trip_costs_little_more_than_its_two_reads_and_two_writes() {
    // With so many round trips, the costs of the connections and of the start do not count.
    let many = |output: &Output| object(output)["round_trips"].as_u64().is_some_and(|count| count >= 10_000);
    let (_, output) = example::with_time(|limit| run(&["--json", "--connections", "200", "--seconds", limit]), many);
    let calls = object(&output)["syscalls_per_round_trip"].as_f64().expect("the counter is a number");
    // With an edge-triggered hub, a reader of exact lengths must probe for more data.
    let probes = if std::env::var("GREENHUB_EPOLL").is_ok_and(|ways| ways.contains("edge")) { 2.0 } else { 0.0 };
    // The select hub checks each number before it waits for it.
    let chosen = std::env::var("GREENHUB_HUB").or_else(|_| std::env::var("EVENTLET_HUB"));
    let looks = if chosen.is_ok_and(|name| name.starts_with("select")) { 2.0 } else { 0.0 };
    // On a busy machine turns end early, and sockets that are reported meanwhile are deregistered and registered again.
    assert!((4.0..5.5 + probes + looks).contains(&calls), "{calls}");
}

#[test]
fn messages_larger_than_all_buffers_come_back() {
    let output = run(&["--json", "--connections", "2", "--bytes", "3000000", "--seconds", "0.2"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(object(&output)["round_trips"].as_u64().is_some_and(|count| count > 0));
}

#[test]
fn without_json_there_is_a_table_and_progress_is_on_standard_error() {
    let mut running = example::Server::start(&mut echo(&["--connections", "3", "--seconds", "600"]));
    running.wait_for_line("3 of 3 connections");
    let output = running.interrupt();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let table = String::from_utf8(output.stdout.clone()).expect("the output is UTF-8");
    for row in ["hub ", "connections ", "round trips per second", "latency p99.9", "system calls per round trip"] {
        assert!(table.contains(row), "{row:?} in {table}");
    }
}

#[test]
fn help_is_no_error() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("--connections"));
}

#[test]
fn wrong_arguments_are_refused_with_status_2() {
    refuses(&run(&["--connections", "0"]), 2, &["--connections", "0"]);
    refuses(&run(&["--bytes", "many"]), 2, &["--bytes", "many"]);
    refuses(&run(&["--seconds", "-1"]), 2, &["--seconds"]);
    refuses(&run(&["--seconds", "nan"]), 2, &["--seconds"]);
    refuses(&run(&["--colour"]), 2, &["--colour"]);
    refuses(&run(&["--server", "127.0.0.1:0", "--connect", "127.0.0.1:1"]), 2, &["--server", "--connect"]);
    refuses(&run(&["--server", "nonsense"]), 2, &["nonsense"]);
}

#[test]
fn an_unknown_hub_is_refused_with_status_2() {
    refuses(&run(&["--hub", "nope"]), 2, &["nope"]);
    let output = example::run(echo(&["--json"]).env("GREENHUB_HUB", "nope"));
    refuses(&output, 2, &["nope", "GREENHUB_HUB"]);
}

#[test]
fn a_port_in_use_is_refused_with_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("the listener has an address").to_string();
    refuses(&run(&["--server", &address]), 1, &[&address, "in use"]);
}

#[cfg(target_os = "linux")]
#[test]
fn arguments_out_of_bounds_are_refused_before_anything_is_sent() {
    let output = run(&["--connections", "300", "--bytes", "1000000000", "--connect", "127.0.0.1:1"]);
    refuses(&output, 1, &["memory", "300 connections", "1000000000 bytes"]);
    refuses(&run(&["--connections", &usize::MAX.to_string()]), 1, &["descriptors"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_unwritable_report_fails_the_run() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full exists");
    let output = example::run(echo(&["--connections", "1", "--seconds", "0.1"]).stdout(full));
    refuses(&output, 1, &["report", "space"]);
}

#[cfg(unix)]
#[test]
fn too_few_descriptors_are_a_clear_error() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 100; exec \"$0\" --connections 1000"])
        .arg(echo(&[]).get_program())
        .output()
        .expect("sh starts");
    if rustix::process::geteuid().is_root() && output.status.success() {
        return eprintln!("skipped: this process may raise its own hard limit");
    }
    refuses(&output, 1, &["descriptors", "100"]);
}

#[test]
fn a_hub_with_too_little_room_is_a_clear_error() {
    let output = run(&["--hub", "select", "--json", "--seconds", "0.3"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(object(&output)["connections"], 496);
    assert!(errors(&output).contains("496 connections instead of 1000"), "{}", errors(&output));
    refuses(
        &run(&["--hub", "select", "--connections", "497"]),
        1,
        &["need up to 1026 descriptors", "below 1024", "--connections 496"],
    );
}

/// A server in its own process, and its address.
struct Server {
    process: example::Server,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let process = example::Server::start(&mut echo(&[&["--server", "127.0.0.1:0"], arguments].concat()));
        let address = process.greeting.strip_prefix("serving on ").and_then(|rest| rest.split(';').next());
        Server { address: address.expect("the address").to_owned(), process }
    }

    fn interrupt(self) -> Output {
        self.process.interrupt()
    }

    fn wait(self) -> Output {
        self.process.wait()
    }
}

#[test]
fn server_and_clients_in_two_processes() {
    let server = Server::start(&["--json"]);
    let clients = run(&["--connect", &server.address, "--json", "--connections", "30", "--seconds", "0.4"]);
    assert_eq!(clients.status.code(), Some(0), "{}", errors(&clients));
    let clients = object(&clients);
    let server = server.interrupt();
    assert_eq!(server.status.code(), Some(0), "{}", errors(&server));
    let server = object(&server);
    assert_eq!(clients["connections"], 30);
    assert_eq!(server["connections"], 30);
    assert_eq!(server["round_trips"], clients["round_trips"]);
    assert_eq!(server["p50_us"], Value::Null);
}

#[test]
fn a_server_ends_by_itself_when_its_time_is_over() {
    let server = Server::start(&["--json", "--seconds", "0.2"]);
    let output = server.wait();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(object(&output)["connections"], 0);
}

#[test]
fn clients_without_a_server_fail_and_say_so() {
    let closed = ClosedPort::new();
    let output = run(&["--connect", &closed.address.to_string(), "--json", "--connections", "3"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(object(&output)["errors"], 3);
    assert!(errors(&output).contains("refused"), "{}", errors(&output));
}

#[test]
fn altered_bytes_fail_the_run() {
    let liar = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = liar.local_addr().expect("the listener has an address").to_string();
    let serving = std::thread::spawn(move || {
        let (mut peer, _) = liar.accept().expect("one connection");
        let mut message = [0; 64];
        peer.read_exact(&mut message).expect("a message");
        message[33] ^= 1;
        std::io::Write::write_all(&mut peer, &message).expect("the write succeeds");
        // Keeps the connection open until the client has ended.
        let _ = peer.read(&mut message);
    });
    let output = run(&["--connect", &address, "--json", "--connections", "1", "--seconds", "0.3"]);
    serving.join().expect("the server returns");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(object(&output)["errors"], 1);
    assert!(errors(&output).contains("byte 33"), "{}", errors(&output));
}
