//! Tests of the example `port_forwarder` as a program: forwarded data and exit status.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::closed_port::ClosedPort;
use crate::support::example;
use crate::support::example::{ends, errors, refuses, text};

struct Forwarder {
    process: example::Server,
    address: SocketAddr,
}

impl Forwarder {
    fn start(to: &str, options: &[&str]) -> Forwarder {
        let arguments = [&["127.0.0.1:0", to, "--farewell", "20"], options].concat();
        let process = example::Server::start(&mut example::command("port_forwarder", &arguments));
        let address = process.greeting.split(' ').nth(1).and_then(|address| address.parse().ok());
        Forwarder { address: address.expect("the address"), process }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        // A read timeout turns a hang into a failure.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time");
        stream
    }

    fn interrupt(self) -> Output {
        self.process.interrupt()
    }
}

/// Serves `connections` connections with `serve`. Returns the address.
fn server(connections: usize, serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("the listener has an address").to_string();
    thread::spawn(move || {
        listener.incoming().take(connections).for_each(|stream| serve(stream.expect("the accept succeeds")))
    });
    address
}

#[test]
fn data_is_forwarded_in_both_directions() {
    let shouting = server(1, |mut stream| {
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("the peer sends UTF-8");
        stream.write_all(said.to_uppercase().as_bytes()).expect("the peer reads");
    });
    let forwarder = Forwarder::start(&shouting, &["--verbose"]);
    let mut stream = forwarder.connect();
    stream.write_all(b"is anybody there?").expect("the peer reads");
    // The server answers after the end of the request.
    stream.shutdown(Shutdown::Write).expect("the connection is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the peer sends UTF-8");
    assert_eq!(answer, "IS ANYBODY THERE?");
    let output = forwarder.interrupt();
    assert!(errors(&output).contains("17 bytes there, 17 bytes back"));
    assert_eq!(text(&output), "1 connections, 0 failed; 17 bytes there, 17 bytes back\n");
}

#[test]
fn large_data_is_forwarded_on_many_connections_at_once() {
    const EACH: usize = 1 << 20;
    let echo = server(20, |mut stream| {
        thread::spawn(move || {
            let mut copy = stream.try_clone().expect("a clone");
            std::io::copy(&mut stream, &mut copy).expect("the connection is open");
        });
    });
    let forwarder = Forwarder::start(&echo, &[]);
    let clients: Vec<_> = (0..20_u8)
        .map(|byte| {
            let mut stream = forwarder.connect();
            thread::spawn(move || {
                let mut writer = stream.try_clone().expect("a clone");
                let writing = thread::spawn(move || {
                    writer.write_all(&vec![byte; EACH]).expect("the peer reads");
                    writer.shutdown(Shutdown::Write).expect("the connection is open");
                });
                let mut back = Vec::new();
                stream.read_to_end(&mut back).expect("the connection is open");
                writing.join().expect("no panic");
                assert!(back.len() == EACH && back.iter().all(|&it| it == byte));
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("no panic"));
    let output = forwarder.interrupt();
    assert_eq!(text(&output), format!("20 connections, 0 failed; {0} bytes there, {0} bytes back\n", 20 * EACH));
    ends(&output, 0);
}

#[test]
fn an_unreachable_target_is_reported_and_the_next_connection_served() {
    let closed = ClosedPort::new();
    let forwarder = Forwarder::start(&closed.address.to_string(), &[]);
    for _ in 0..2 {
        assert_eq!(forwarder.connect().read(&mut [0]).expect("the end"), 0);
    }
    let output = forwarder.interrupt();
    assert_eq!(errors(&output).matches("cannot connect to").count(), 2, "{}", errors(&output));
    assert!(text(&output).starts_with("2 connections, 2 failed"));
}

#[test]
fn an_idle_connection_is_closed() {
    let silent = server(1, |stream| thread::sleep(Duration::from_secs(u64::from(stream.peer_addr().is_ok()) * 100)));
    let forwarder = Forwarder::start(&silent, &["--idle", "0.1"]);
    let begun = Instant::now();
    assert_eq!(forwarder.connect().read(&mut [0]).expect("the end"), 0);
    assert!(begun.elapsed() < Duration::from_secs(50));
    assert!(text(&forwarder.interrupt()).starts_with("1 connections, 1 failed"));
}

#[test]
fn a_connection_idle_in_one_direction_stays_open() {
    let talk = |idle: &str| {
        // Twenty of these pauses make twice the idle limit.
        let pause = Duration::from_secs_f64(idle.parse::<f64>().expect("a number") / 10.0);
        let talking = server(1, move |mut stream| {
            for _ in 0..20 {
                thread::sleep(pause);
                if stream.write_all(b".").is_err() {
                    break;
                }
            }
        });
        let forwarder = Forwarder::start(&talking, &["--idle", idle]);
        let mut heard = String::new();
        let mut stream = forwarder.connect();
        stream.read_to_string(&mut heard).expect("the peer sends UTF-8");
        drop(stream);
        (heard, forwarder.interrupt())
    };
    let (_, (heard, output)) = example::with_time(talk, |(_, output)| !errors(output).contains("timed out"));
    assert_eq!(heard, ".".repeat(20));
    ends(&output, 0);
}

#[test]
fn help_is_no_error() {
    let output = example::run(&mut example::command("port_forwarder", &["--help"]));
    ends(&output, 0);
    assert!(text(&output).contains("--idle"));
}

#[test]
fn wrong_arguments_are_reported_in_one_line() {
    let refused = |arguments: &[&str]| example::run(&mut example::command("port_forwarder", arguments));
    refuses(&refused(&["127.0.0.1:0"]), 2, &["<TO>", "--help"]);
    refuses(&refused(&["nowhere", "127.0.0.1:1"]), 2, &["'nowhere'", "HOST:PORT"]);
    refuses(&refused(&["127.0.0.1:0", "no port"]), 2, &["'no port'", "HOST:PORT"]);
    refuses(&refused(&[":0", "127.0.0.1:1"]), 2, &["':0'", "HOST:PORT"]);
    refuses(&refused(&["127.0.0.1:0", "127.0.0.1:1", "--idle", "0"]), 2, &["--idle"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("the listener has an address").to_string();
    refuses(&refused(&[&address, "127.0.0.1:1"]), 1, &["cannot listen on", "in use"]);
}
