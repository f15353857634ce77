//! The example `chat` as a separate process: the lines that its clients receive, and its exit status.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::example;
use crate::support::example::{ends, errors, refuses, text};

fn chat(arguments: &[&str]) -> Command {
    example::command("chat", arguments)
}

fn run(arguments: &[&str]) -> Output {
    example::run(&mut chat(arguments))
}

struct Server {
    process: example::Server,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let process = example::Server::start(&mut chat(&[&["--listen", "127.0.0.1:0"], arguments].concat()));
        let address = process.greeting.strip_prefix("listening on ").and_then(|rest| rest.split(';').next());
        Server { address: address.expect("the address").to_owned(), process }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).expect("a server");
        // Turns a server that hangs into a failure.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let mut client = Client { lines: BufReader::new(stream.try_clone().expect("a clone")), stream };
        client.expect_line("* your name?");
        client
    }

    /// Connects a client with this name, and expects `here` as the list of all clients.
    fn enter(&self, name: &str, here: &str) -> Client {
        let mut client = self.connect();
        client.send_line(name);
        client.expect_line(&format!("* here: {here}"));
        client
    }

    /// Connects the only client. Returns `None` if the client was too slow to send its name.
    fn enter_in_time(&self, name: &str) -> Option<Client> {
        let mut client = self.connect();
        (&client.stream).write_all(format!("{name}\n").as_bytes()).ok()?;
        let mut line = String::new();
        let count = client.lines.read_line(&mut line).ok()?;
        assert_eq!(line, if count == 0 { String::new() } else { format!("* here: {name}\n") });
        (count > 0).then_some(client)
    }

    fn interrupt(self) -> Output {
        self.process.interrupt()
    }
}

struct Client {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Client {
    fn send_line(&self, text: &str) {
        (&self.stream).write_all(format!("{text}\n").as_bytes()).expect("the write succeeds");
    }

    #[track_caller]
    fn receive_line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.strip_suffix('\n').expect("a whole line").to_owned()
    }

    #[track_caller]
    fn expect_line(&mut self, expected: &str) {
        assert_eq!(self.receive_line(), expected);
    }

    /// Asserts that the server closes the connection without another line.
    #[track_caller]
    fn expect_end(mut self) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("the end");
        assert_eq!(rest, "");
    }
}

#[test]
fn each_line_reaches_all_other_clients_in_order() {
    let server = Server::start(&[]);
    let mut alice = server.enter("alice", "alice");
    let mut bob = server.enter("bob", "alice, bob");
    alice.expect_line("* bob has joined");
    let mut carol = server.enter("carol", "alice, bob, carol");
    for client in [&mut alice, &mut bob] {
        client.expect_line("* carol has joined");
    }
    for number in 0..100 {
        alice.send_line(&format!("line {number}"));
    }
    for number in 0..100 {
        for client in [&mut bob, &mut carol] {
            client.expect_line(&format!("alice: line {number}"));
        }
    }
    bob.send_line("thanks");
    // A client does not receive its own lines.
    alice.expect_line("bob: thanks");
    carol.expect_line("bob: thanks");
    let output = server.interrupt();
    ends(&output, 0);
    assert_eq!(text(&output), "3 clients, 101 lines, 0 removed as too slow\n");
}

#[test]
fn the_server_asks_again_after_an_invalid_name() {
    let server = Server::start(&[]);
    let _alice = server.enter("alice", "alice");
    let mut client = server.connect();
    for wrong in ["", "two words", "x\u{1b}[2J", "abcdefghijklmnopqrstuvwxyz"] {
        client.send_line(wrong);
        client.expect_line("* a name has 1 to 20 letters, digits, - or _");
        client.expect_line("* your name?");
    }
    client.send_line("alice");
    client.expect_line("* the name alice is taken");
    client.expect_line("* your name?");
    client.send_line("bob");
    client.expect_line("* here: alice, bob");
}

#[test]
fn a_departure_is_announced_and_frees_the_name() {
    let server = Server::start(&[]);
    let mut alice = server.enter("alice", "alice");
    for way in 0..3 {
        let bob = server.enter("bob", "alice, bob");
        alice.expect_line("* bob has joined");
        match way {
            0 => bob.send_line("/quit"),
            1 => bob.stream.shutdown(Shutdown::Write).expect("the socket is connected"),
            // With this linger time, the drop resets the connection.
            _ => rustix::net::sockopt::set_socket_linger(&bob.stream, Some(Duration::ZERO)).expect("an option"),
        }
        if way < 2 {
            bob.expect_end();
        } else {
            drop(bob);
        }
        alice.expect_line("* bob has left");
    }
    alice.send_line("/who");
    alice.expect_line("* here: alice");
    alice.send_line("/dance");
    alice.expect_line("* unknown command; use /who or /quit");
}

#[test]
fn control_characters_are_removed_from_lines() {
    let server = Server::start(&[]);
    let alice = server.enter("alice", "alice");
    let mut bob = server.enter("bob", "alice, bob");
    (&alice.stream).write_all(b"\x1b[2Jhi\x07 \xff there\r\n\n").expect("the write succeeds");
    bob.expect_line("alice: [2Jhi \u{fffd} there");
    alice.send_line("/quit");
    bob.expect_line("* alice has left");
}

#[test]
fn a_line_over_the_limit_ends_the_connection() {
    let server = Server::start(&[]);
    let mut alice = server.enter("alice", "alice");
    let bob = server.enter("bob", "alice, bob");
    alice.expect_line("* bob has joined");
    bob.send_line(&"x".repeat(900));
    alice.expect_line(&format!("bob: {}", "x".repeat(900)));
    // The line has no newline, so only the limit ends it.
    let _ = (&bob.stream).write_all(&[b'y'; 1001]);
    alice.expect_line("* bob has left");
    let mut bob = bob;
    bob.expect_line("* a line has up to 1000 bytes");
    bob.expect_end();
}

#[test]
fn a_client_that_does_not_read_is_disconnected_without_delaying_others() {
    let server = Server::start(&["--queue", "20"]);
    let mut alice = server.enter("alice", "alice");
    let sleeper = server.enter("sleeper", "alice, sleeper");
    alice.expect_line("* sleeper has joined");
    let mut bob = server.enter("bob", "alice, bob, sleeper");
    alice.expect_line("* bob has joined");
    let zs = "z".repeat(900);
    let mut sent = 0;
    let out = "* sleeper was removed: too slow";
    // Bob receives each line before the next is sent, so that only the sleeper falls behind.
    loop {
        alice.send_line(&zs);
        sent += 1;
        assert!(sent < 50_000, "45 megabytes are buffered for a client that does not read");
        match bob.receive_line() {
            line if line == out => break,
            line => assert_eq!(line, format!("alice: {zs}")),
        }
    }
    alice.expect_line(out);
    alice.send_line("/who");
    alice.expect_line("* here: alice, bob");
    drop(sleeper);
    let output = server.interrupt();
    ends(&output, 0);
    assert!(text(&output).ends_with(", 1 removed as too slow\n"), "{}", text(&output));
}

#[test]
fn connections_over_the_limit_wait() {
    let server = Server::start(&["--max-clients", "1"]);
    let alice = server.enter("alice", "alice");
    let waiting = TcpStream::connect(&server.address).expect("a server");
    waiting.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    assert!((&waiting).read(&mut [0]).is_err(), "the second connection was served beyond the limit");
    alice.send_line("/quit");
    alice.expect_end();
    waiting.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut line = String::new();
    BufReader::new(waiting).read_line(&mut line).expect("a line");
    assert_eq!(line, "* your name?\n");
}

#[test]
fn a_client_without_a_name_is_disconnected_after_the_timeout() {
    let server = Server::start(&["--client-timeout", "0.05"]);
    server.connect().expect_end();
    // A client that has sent its name may stay silent.
    let mut alice = std::iter::repeat_with(|| server.enter_in_time("alice")).flatten().next().expect("many attempts");
    std::thread::sleep(Duration::from_millis(150));
    alice.send_line("/who");
    alice.expect_line("* here: alice");
}

#[test]
fn ctrl_c_notifies_all_clients() {
    let server = Server::start(&[]);
    let mut alice = server.enter("alice", "alice");
    let mut bob = server.enter("bob", "alice, bob");
    alice.expect_line("* bob has joined");
    // This client has not sent its name.
    let unnamed = server.connect();
    let output = server.interrupt();
    ends(&output, 0);
    for client in [&mut alice, &mut bob] {
        client.expect_line("* the server is closing");
    }
    alice.expect_end();
    bob.expect_end();
    unnamed.expect_end();
    assert_eq!(text(&output), "3 clients, 0 lines, 0 removed as too slow\n");
}

#[test]
fn help_is_no_error() {
    let output = run(&["--help"]);
    ends(&output, 0);
    assert!(text(&output).contains("--listen"));
}

#[test]
fn wrong_arguments_are_refused_with_status_2() {
    refuses(&run(&["--listen", "nonsense"]), 2, &["nonsense", "HOST:PORT"]);
    refuses(&run(&["--listen", "127.0.0.1:http"]), 2, &["127.0.0.1:http", "port"]);
    refuses(&run(&["--max-clients", "0"]), 2, &["--max-clients"]);
    refuses(&run(&["--queue", "many"]), 2, &["--queue", "many"]);
    refuses(&run(&["--client-timeout", "0"]), 2, &["--client-timeout"]);
    refuses(&run(&["--colour"]), 2, &["--colour"]);
}

#[test]
fn an_unknown_hub_is_refused_with_status_2() {
    refuses(&run(&["--hub", "nope"]), 2, &["nope"]);
    refuses(&example::run(chat(&[]).env("GREENHUB_HUB", "nope")), 2, &["nope", "GREENHUB_HUB"]);
}

#[test]
fn a_port_in_use_is_refused_with_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("the listener has an address").to_string();
    refuses(&run(&["--listen", &address]), 1, &[&address, "in use"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_unwritable_report_fails_the_run() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full exists");
    let output = example::Server::start(chat(&["--listen", "127.0.0.1:0"]).stdout(full)).interrupt();
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(errors(&output).contains("report"), "{}", errors(&output));
}
