//! ureq's agents over green sockets, with servers of raw bytes.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenhub::net::{SocketAddr, TcpListener, TcpStream};
use greenhub::{sleep, spawn, spawn_n};
use ureq::config::Config;
use ureq::{Agent, Error, Timeout};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Starts a server that calls `handle` with each connection and its number.
fn serve(handle: impl Fn(TcpStream, usize) + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn_n(move || {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept() else { return };
            let handle = handle.clone();
            spawn_n(move || handle(stream, number));
        }
    });
    address
}

/// Reads the head of a request. Returns false at the end of the connection.
fn read_head(stream: &mut TcpStream) -> bool {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !stream.read(&mut byte).is_ok_and(|count| count > 0) {
            return false;
        }
        bytes.push(byte[0]);
    }
    true
}

/// Answers the requests of a connection with the number of the connection.
fn answer(mut stream: TcpStream, number: usize) {
    while read_head(&mut stream) {
        let text = number.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
        stream.write_all((head + &text).as_bytes()).unwrap();
    }
}

fn agent(change: impl FnOnce(&mut Option<Duration>)) -> Agent {
    let mut timeout = Some(Duration::from_secs(30));
    change(&mut timeout);
    greenhub_adapters::ureq::agent(Config::builder().timeout_global(timeout).build())
}

fn get(agent: &Agent, address: SocketAddr) -> Result<String, Error> {
    agent.get(format!("http://{address}/")).call()?.body_mut().read_to_string()
}

#[test]
fn a_connection_is_used_again() {
    let address = serve(answer);
    let agent = agent(|_| {});
    for _ in 0..3 {
        assert_eq!(get(&agent, address).unwrap(), "0");
    }
}

#[test]
fn a_connection_that_the_server_has_ended_is_not_used_again() {
    let address = serve(|mut stream, number| {
        read_head(&mut stream);
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
        stream.write_all(text.as_bytes()).unwrap();
    });
    let agent = agent(|_| {});
    for number in 0..3 {
        assert_eq!(get(&agent, address).unwrap(), number.to_string());
        // The end arrives.
        sleep(ms(5));
    }
}

#[test]
fn requests_overlap() {
    let waiting = Rc::new(Cell::new(0));
    let counter = Rc::clone(&waiting);
    let address = serve(move |stream, number| {
        counter.set(counter.get() + 1);
        // No request is answered before all are there.
        while counter.get() < 20 {
            sleep(ms(1));
        }
        answer(stream, number);
    });
    let agent = agent(|_| {});
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let agent = agent.clone();
            spawn(move || get(&agent, address))
        })
        .collect();
    let mut numbers: Vec<usize> =
        requests.into_iter().map(|request| request.join().unwrap().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
}

#[test]
fn the_time_limits_are_those_of_the_agent() {
    let address = serve(|mut stream, _| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx").unwrap();
        sleep(Duration::from_secs(60));
    });
    let begun = Instant::now();
    let agent = agent(|timeout| *timeout = Some(ms(50)));
    let error = get(&agent, address).unwrap_err();
    assert!(matches!(error, Error::Timeout(Timeout::Global)), "{error}");
    assert!(begun.elapsed() >= ms(50) && begun.elapsed() < Duration::from_secs(30));
    let config = Config::builder().timeout_recv_body(Some(ms(50))).build();
    let error = get(&greenhub_adapters::ureq::agent(config), address).unwrap_err();
    assert!(matches!(error, Error::Timeout(Timeout::RecvBody)), "{error}");
}

#[test]
fn a_limit_of_zero_is_a_timeout() {
    let address = serve(answer);
    let error = get(&agent(|timeout| *timeout = Some(Duration::ZERO)), address).unwrap_err();
    assert!(matches!(error, Error::Timeout(Timeout::Global)), "{error}");
}

#[test]
fn names_come_from_the_resolver_of_greenhub() {
    /// Resolves two names, one of them never.
    struct Names;
    impl greenhub::net::Resolver for Names {
        fn resolve(&self, host: &str) -> std::io::Result<Vec<SocketAddr>> {
            if host == "never.test" {
                sleep(Duration::from_secs(60));
            }
            // Nothing listens at the first address.
            Ok(vec![([127, 0, 0, 2], 0).into(), ([127, 0, 0, 1], 0).into()])
        }
    }
    greenhub::net::set_resolver(Names);
    let port = serve(answer).port();
    let agent = agent(|timeout| *timeout = Some(ms(500)));
    let text = agent.get(format!("http://server.test:{port}/")).call().unwrap().body_mut().read_to_string().unwrap();
    assert_eq!(text, "0");
    let error = agent.get(format!("http://never.test:{port}/")).call().unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
}

#[test]
fn a_killed_request_leaves_the_agent_usable() {
    let address = serve(|stream, number| {
        if number == 0 {
            sleep(Duration::from_secs(60));
        }
        answer(stream, number);
    });
    let agent = agent(|_| {});
    let request = spawn({
        let agent = agent.clone();
        move || get(&agent, address)
    });
    sleep(ms(5));
    request.kill();
    assert_eq!(get(&agent, address).unwrap(), "1");
}

#[test]
fn a_shutdown_ends_requests_in_progress() {
    let address = serve(|_stream, _| sleep(Duration::from_secs(60)));
    let agent = agent(|_| {});
    let request = spawn({
        let agent = agent.clone();
        move || get(&agent, address)
    });
    sleep(ms(5));
    std::thread::spawn(move || agent.shutdown()).join().unwrap();
    assert!(request.join().unwrap().is_err());
}

#[test]
fn a_request_past_a_socks_proxy_is_refused() {
    let config = Config::builder().proxy(Some(ureq::Proxy::new("socks5://127.0.0.1:1").unwrap())).build();
    let error = get(&greenhub_adapters::ureq::agent(config), serve(answer)).unwrap_err();
    assert!(error.to_string().contains("SOCKS"), "{error}");
}

#[cfg(not(feature = "ureq-3-rustls"))]
#[test]
fn a_request_without_tls_is_refused() {
    let address = serve(answer);
    let error = agent(|_| {}).get(format!("https://{address}/")).call().unwrap_err();
    assert!(matches!(error, Error::TlsRequired), "{error}");
}
