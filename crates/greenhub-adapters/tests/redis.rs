//! redis's commands over green sockets, with a server that sends prepared bytes. The recipes use the real server.

use std::cell::Cell;
use std::io::{Read, Write};
use std::time::Duration;

use greenhub::os::unix::net::UnixStream;
use greenhub::{GreenThread, sleep, spawn};
use greenhub_adapters::redis::Connection;
use redis::{Commands, ConnectionLike, ProtocolVersion, RedisConnectionInfo, RedisError, cmd, pipe};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

thread_local! {
    /// Whether the client of this test lets its server go on.
    static IS_OPEN: Cell<bool> = const { Cell::new(false) };
}

/// Lets the server go on behind its gate.
fn open_gate() {
    IS_OPEN.set(true);
}

/// A step of a server: it waits for its client, expects bytes or sends others.
enum Step {
    Gate,
    Expect(&'static str),
    Send(&'static str),
}
use Step::{Expect, Gate, Send};

/// Starts a server that takes the steps, then waits for the end of the connection. Returns the client's side.
fn serve(steps: impl IntoIterator<Item = Step> + 'static) -> (UnixStream, GreenThread<()>) {
    let (client, mut server) = UnixStream::pair().unwrap();
    let served = spawn(move || {
        for step in steps {
            match step {
                Gate => {
                    while !IS_OPEN.replace(false) {
                        sleep(ms(1));
                    }
                }
                Send(bytes) => server.write_all(bytes.as_bytes()).unwrap(),
                Expect(words) => {
                    let mut bytes = vec![0; packed(words).len()];
                    server.read_exact(&mut bytes).unwrap();
                    assert_eq!(String::from_utf8(bytes).unwrap(), packed(words));
                }
            }
        }
        assert_eq!(server.read(&mut [0]).unwrap(), 0, "the client has sent more");
    });
    (client, served)
}

/// Returns a command as it is sent.
fn packed(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let items: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{items}", words.len())
}

/// Runs `client` over a connection to a server that takes the steps.
fn run(steps: impl IntoIterator<Item = Step> + 'static, client: impl FnOnce(Connection)) {
    run_with(&RedisConnectionInfo::default(), steps, |connection| client(connection.unwrap()));
}

fn run_with(
    settings: &RedisConnectionInfo,
    steps: impl IntoIterator<Item = Step> + 'static,
    client: impl FnOnce(Result<Connection, RedisError>),
) {
    let (stream, served) = serve(steps);
    client(Connection::new(stream, settings));
    served.join().unwrap();
}

#[test]
fn commands_and_pipelines_get_their_responses() {
    let steps = [
        Expect("SET key 1"),
        Send("+OK\r\n"),
        Expect("INCR key"),
        Expect("INCR key"),
        Send(":2\r\n:3\r\n"),
        Expect("GET key"),
        Send("-WRONGTYPE no\r\n"),
        Expect("GET key"),
        Send("$1\r\n3\r\n"),
    ];
    run(steps, |mut connection| {
        let _: () = connection.set("key", 1).unwrap();
        let numbers: (i64, i64) = pipe().cmd("INCR").arg("key").cmd("INCR").arg("key").query(&mut connection).unwrap();
        assert_eq!(numbers, (2, 3));
        let error = connection.get::<_, i64>("key").unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"));
        assert_eq!(connection.get::<_, i64>("key").unwrap(), 3);
        assert!(connection.is_open());
    });
}

#[test]
fn a_transaction_that_the_server_refuses_leaves_the_connection_in_order() {
    let steps = [
        Expect("MULTI"),
        Expect("NONSENSE"),
        Expect("EXEC"),
        Send("+OK\r\n-ERR unknown command\r\n-EXECABORT discarded\r\n"),
        Expect("PING"),
        Send("+PONG\r\n"),
    ];
    run(steps, |mut connection| {
        let error = pipe().atomic().cmd("NONSENSE").exec(&mut connection).unwrap_err();
        assert!(error.to_string().contains("unknown command"), "{error}");
        assert!(connection.check_connection());
    });
}

#[test]
fn a_response_after_the_timeout_is_skipped() {
    let steps = [
        Expect("GET late"),
        Expect("GET pipelined"),
        Gate,
        Send("$4\r\nla"),
        Send("te\r\n$9\r\npipelined\r\n"),
        Expect("GET next"),
        Send("$4\r\nnext\r\n"),
    ];
    run(steps, |mut connection| {
        connection.set_read_timeout(Some(ms(10))).unwrap();
        let error = pipe().get("late").get("pipelined").exec(&mut connection).unwrap_err();
        assert!(error.is_timeout() && connection.is_open(), "{error}");
        connection.set_read_timeout(None).unwrap();
        open_gate();
        assert_eq!(connection.get::<_, String>("next").unwrap(), "next");
    });
}

#[test]
fn a_killed_request_does_not_leave_its_response_to_the_next() {
    let steps =
        [Expect("GET late"), Send("$4\r\nl"), Gate, Send("ate\r\n"), Expect("GET next"), Send("$4\r\nnext\r\n")];
    run(steps, |mut connection| {
        let left = greenhub::with_timeout(ms(5), || connection.get::<_, String>("late"));
        assert!(left.is_err());
        open_gate();
        assert_eq!(connection.get::<_, String>("next").unwrap(), "next");
    });
}

#[test]
fn a_broken_connection_refuses_further_requests() {
    for bytes in ["$4\r\nhal", "nonsense\r\n"] {
        let (client, mut server) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(client, &RedisConnectionInfo::default()).unwrap();
        server.write_all(bytes.as_bytes()).unwrap();
        server.shutdown(std::net::Shutdown::Write).unwrap();
        connection.get::<_, String>("key").unwrap_err();
        assert!(!connection.is_open());
        let error = connection.get::<_, String>("key").unwrap_err();
        assert!(error.is_io_error() && error.to_string().contains("cannot be used any more"), "{error}");
    }
}

#[test]
fn a_write_that_is_left_early_ends_the_connection() {
    let (client, _server) = UnixStream::pair().unwrap();
    let mut connection = Connection::new(client, &RedisConnectionInfo::default()).unwrap();
    let long = "x".repeat(16 << 20);
    assert!(greenhub::with_timeout(ms(5), || connection.set::<_, _, ()>("key", long)).is_err());
    assert!(!connection.is_open() && !connection.check_connection());
}

#[test]
fn a_new_connection_logs_in() {
    let settings = RedisConnectionInfo::default().set_password("secret").set_db(3);
    let steps = [Expect("AUTH secret"), Expect("SELECT 3"), Send("+OK\r\n+OK\r\n")];
    run_with(&settings, steps, |connection| assert_eq!(connection.unwrap().get_db(), 3));
    let steps = [Expect("AUTH secret"), Expect("SELECT 3"), Send("-WRONGPASS no\r\n-NOAUTH no\r\n")];
    run_with(&settings, steps, |connection| assert_eq!(connection.unwrap_err().code(), Some("WRONGPASS")));
    let settings = settings.set_username("user").set_protocol(ProtocolVersion::RESP3).set_db(0);
    let steps = [Expect("HELLO 3 AUTH user secret"), Send("%1\r\n+server\r\n+redis\r\n")];
    run_with(&settings, steps, |connection| assert!(connection.is_ok()));
}

#[test]
fn pushes_are_no_responses() {
    let steps = [
        Expect("GET key"),
        Send(">2\r\n+invalidate\r\n*1\r\n+key\r\n$5\r\nvalue\r\n"),
        Expect("QUIET"),
        Expect("GET key"),
        Send("$5\r\nvalue\r\n"),
    ];
    run(steps, |mut connection| {
        assert_eq!(connection.get::<_, String>("key").unwrap(), "value");
        cmd("QUIET").set_no_response(true).exec(&mut connection).unwrap();
        assert_eq!(connection.get::<_, String>("key").unwrap(), "value");
    });
}

/// The server's side of a subscription, in both versions of the protocol.
fn news(kind: char) -> Vec<Step> {
    let line = |text: String| Send(Box::leak(text.into_boxed_str()));
    vec![
        Expect("SUBSCRIBE news other"),
        line(format!("{kind}3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")),
        line(format!("{kind}3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nfirst\r\n")),
        line(format!("{kind}3\r\n$9\r\nsubscribe\r\n$5\r\nother\r\n:2\r\n")),
        Expect("PSUBSCRIBE n*"),
        line(format!("{kind}3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:3\r\n")),
        line(format!("{kind}4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$6\r\nsec")),
        Gate,
        line(format!("ond\r\n{kind}3\r\n$7\r\nmessage\r\n$5\r\nother\r\n$5\r\nthird\r\n")),
        Expect("UNSUBSCRIBE news"),
        line(format!("{kind}3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:2\r\n")),
    ]
}

#[test]
fn messages_arrive_in_order_and_none_is_lost() {
    for kind in ['*', '>'] {
        run(news(kind), |connection| {
            let mut news = connection.into_pub_sub();
            news.subscribe(&["news", "other"]).unwrap();
            news.psubscribe("n*").unwrap();
            let mut received = vec![news.get_message().unwrap()];
            // Both waits end in the middle of a message.
            news.set_read_timeout(Some(ms(5))).unwrap();
            assert!(news.get_message().unwrap_err().is_timeout());
            news.set_read_timeout(None).unwrap();
            assert!(greenhub::with_timeout(ms(5), || news.get_message()).is_err());
            open_gate();
            received.extend([news.get_message().unwrap(), news.get_message().unwrap()]);
            news.unsubscribe("news").unwrap();
            let texts: Vec<String> = received.iter().map(|message| message.get_payload().unwrap()).collect();
            assert_eq!(texts, ["first", "second", "third"]);
            assert_eq!(received[1].get_pattern::<String>().unwrap(), "n*");
            assert_eq!(received[2].get_channel_name(), "other");
        });
    }
}

#[test]
fn a_refused_subscription_is_an_error() {
    let (stream, served) = serve([Expect("SUBSCRIBE secret"), Send("-NOPERM no\r\n")]);
    let mut news = Connection::new(stream, &RedisConnectionInfo::default()).unwrap().into_pub_sub();
    assert_eq!(news.subscribe("secret").unwrap_err().code(), Some("NOPERM"));
    assert!(news.get_message().is_err());
    served.join().unwrap();
}

#[test]
fn a_server_that_says_nothing_fails_the_connection_in_time() {
    let listener = greenhub::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://:secret@{}/", listener.local_addr().unwrap());
    let error = greenhub_adapters::redis::connect(url, ms(20)).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    drop(listener);
    let error = greenhub_adapters::redis::connect("redis://127.0.0.1:1/", ms(20_000)).unwrap_err();
    assert!(error.is_connection_refusal(), "{error}");
}
