//! The ends of connections and of servers.

use std::io::Write;
use std::time::Instant;

use greenhub::net::ServeEnd;
use greenhub::{sleep, spawn};
use greenhub_adapters::http::Server;

use crate::support::{LIMIT, Running, get, ms, response, rest, statuses};

#[test]
fn a_stop_closes_idle_connections_and_finishes_requests() {
    let server = Running::start(Server::new());
    let mut idle = server.connect();
    idle.write_all(get("/hello").as_bytes()).unwrap();
    assert_eq!(response(&mut idle).1, "hello");
    let mut fresh = server.connect();
    let mut busy = server.connect();
    // The second request is in the buffer when the stop comes. It is not begun.
    busy.write_all((get("/sleep") + &get("/hello")).as_bytes()).unwrap();
    while server.begun.get() < 2 {
        sleep(ms(1));
    }
    let begun = Instant::now();
    let ends = spawn(move || (rest(&mut idle), rest(&mut fresh), rest(&mut busy)));
    let count = server.begun.clone();
    let served = server.end();
    assert!(begun.elapsed() < LIMIT, "no connection holds the server up");
    assert_eq!((served.end, served.accepted, served.killed, served.left), (ServeEnd::Stopped, 3, 0, 0));
    let (idle, fresh, busy) = ends.join().unwrap();
    assert_eq!((idle.as_str(), fresh.as_str()), ("", ""));
    assert!(busy.contains("connection: close\r\n") && busy.ends_with("slept"), "{busy}");
    assert_eq!((statuses(&busy).len(), count.get()), (1, 2));
}

#[test]
fn a_stop_from_another_os_thread_closes_idle_connections() {
    let server = Running::start(Server::new());
    let mut idle = server.connect();
    idle.write_all(get("/hello").as_bytes()).unwrap();
    response(&mut idle);
    let stop = server.stop.clone();
    std::thread::spawn(move || {
        std::thread::sleep(ms(10));
        stop.stop();
    });
    assert_eq!(rest(&mut idle), "");
    assert_eq!(server.end().killed, 0);
}

#[test]
fn a_handler_that_panics_is_an_error_of_the_server() {
    let (sender, reports) = std::sync::mpsc::channel();
    greenhub::debug::set_report_stream(move |report| drop(sender.send(report.to_string())));
    let server = Running::start(Server::new());
    let answered = server.exchange(get("/panic") + &get("/hello"));
    assert_eq!(statuses(&answered), [500]);
    assert!(reports.recv_timeout(LIMIT).unwrap().contains("a panic of a test"));
    assert_eq!(statuses(&server.exchange(get("/hello"))), [200], "the server lives on");
}

#[test]
fn a_client_that_reads_nothing_loses_the_connection() {
    let server = Running::start(Server::new().write_timeout(ms(60)));
    let mut stream = server.connect();
    stream.write_all(get("/long").as_bytes()).unwrap();
    sleep(ms(10));
    let begun = Instant::now();
    assert_eq!(server.end().killed, 0);
    assert!(begun.elapsed() < LIMIT);
}

#[test]
fn a_response_to_a_rejected_body_reaches_a_client_that_sends_on() {
    let server = Running::start(Server::new().max_body(10));
    let mut stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    let sender = spawn(move || {
        let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n";
        writer.write_all(head.as_bytes())?;
        (0..90).try_for_each(|_| writer.write_all(&[b'x'; 10_000]))?;
        writer.shutdown(std::net::Shutdown::Write)
    });
    assert_eq!(statuses(&rest(&mut stream)), [413]);
    sender.join().unwrap().unwrap();
}
