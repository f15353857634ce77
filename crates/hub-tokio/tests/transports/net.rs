//! Sockets of Tokio, and servers over them.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use greenhub::{GreenError, GreenThread};
use hub_tokio::GreenTransport;
use hub_tokio::net::{self, Handlers, Listener, Served, StopServe};
use tokio::net::TcpStream;

use crate::support::{
    ENDINGS, Mode, POLLABLE, end_while_parked, in_modes, on_each_hub, on_tokio, pattern, some_turns, until,
};

fn listen() -> (Listener, SocketAddr) {
    let listener = net::listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn pair() -> (GreenTransport<TcpStream>, GreenTransport<TcpStream>) {
    let (listener, address) = listen();
    let client = net::connect(address).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(client.get_ref().local_addr().unwrap(), peer);
    (client, server)
}

/// Echoes each connection, in handlers of the set.
fn spawn_echo(handlers: &Handlers) -> (GreenThread<io::Result<()>>, SocketAddr) {
    let (listener, address) = listen();
    let handlers = handlers.clone();
    let echo = |transport: GreenTransport<TcpStream>, _| io::copy(&mut &transport, &mut &transport);
    (greenhub::spawn(move || net::serve(&listener, &handlers, echo)), address)
}

#[test]
fn sockets_carry_data_both_ways() {
    on_tokio(|| {
        let (client, server) = pair();
        let sent = pattern(300_000);
        let data = sent.clone();
        let writer = greenhub::spawn(move || {
            (&client).write_all(&data)?;
            client.shutdown()?;
            io::read_to_string(&client)
        });
        let mut received = Vec::new();
        (&server).read_to_end(&mut received).unwrap();
        assert!(received == sent);
        (&server).write_all(b"thanks").unwrap();
        drop(server);
        assert_eq!(writer.join().unwrap().unwrap(), "thanks");
    });
}

#[test]
fn a_name_is_resolved() {
    on_tokio(|| {
        let (listener, address) = listen();
        let connected = net::connect(("localhost", address.port())).unwrap();
        assert_eq!(connected.get_ref().peer_addr().unwrap(), address);
        drop(listener.accept().unwrap());
    });
}

#[test]
fn a_refused_connection_is_an_error() {
    on_tokio(|| {
        let (listener, address) = listen();
        drop(listener.into_inner());
        assert_eq!(net::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn without_a_runtime_the_error_says_so() {
    in_modes(&[Mode::Hub(POLLABLE), Mode::Hub("poll")], || {
        for refused in [net::connect("127.0.0.1:1").map(drop), net::listen("127.0.0.1:0").map(drop)] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported);
            assert!(refused.to_string().starts_with("no Tokio runtime here"), "{refused}");
        }
    });
}

#[test]
fn an_exit_ends_an_accept() {
    on_tokio(|| {
        for ending in ENDINGS {
            let (listener, address) = listen();
            let listener = Rc::new(listener);
            let accepting = Rc::clone(&listener);
            end_while_parked(ending, move || drop(accepting.accept()));
            let client = net::connect(address).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(client.get_ref().local_addr().unwrap(), peer, "{ending:?}");
        }
    });
}

#[test]
fn an_exit_ends_operations_on_a_socket() {
    on_tokio(|| {
        for ending in ENDINGS {
            let (client, server) = pair();
            let (client, server) = (Rc::new(client), Rc::new(server));
            let reading = Rc::clone(&client);
            end_while_parked(ending, move || drop((&*reading).read(&mut [0])));
            let writing = Rc::clone(&client);
            end_while_parked(ending, move || drop((&*writing).write_all(&vec![0; 64 << 20])));
            client.shutdown().unwrap();
            let mut received = 0;
            let mut buffer = vec![0; 64 << 10];
            loop {
                match (&*server).read(&mut buffer).unwrap() {
                    0 => break,
                    n => received += n,
                }
            }
            assert!(received > 0 && received < 64 << 20, "{ending:?}");
        }
    });
}

#[test]
fn a_second_simultaneous_accept_is_an_error() {
    on_tokio(|| {
        let (listener, address) = listen();
        let listener = Rc::new(listener);
        let accepting = Rc::clone(&listener);
        let first = greenhub::spawn(move || accepting.accept().map(drop));
        some_turns();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::ResourceBusy);
        drop(net::connect(address).unwrap());
        first.join().unwrap().unwrap();
    });
}

#[test]
fn a_reset_wakes_reader_and_writer_with_an_error() {
    on_tokio(|| {
        let (client, server) = pair();
        let client = Rc::new(client);
        let (reading, writing) = (Rc::clone(&client), Rc::clone(&client));
        let reader = greenhub::spawn(move || (&*reading).read(&mut [0]));
        let writer = greenhub::spawn(move || (&*writing).write_all(&vec![0; 64 << 20]));
        some_turns();
        assert!(!reader.is_finished() && !writer.is_finished());
        // The received data is not read, so the system sends a reset.
        drop(server);
        let read = reader.join().unwrap();
        assert!(matches!(&read, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{read:?}");
        let written = writer.join().unwrap().unwrap_err();
        assert!(matches!(written.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{written}");
        assert_eq!((&*client).read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn a_runtime_elsewhere_drives_the_sockets_of_any_hub() {
    on_each_hub(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (mut client, mut server) = runtime_pair(&runtime);
        let writer = greenhub::spawn(move || server.write_all(b"across"));
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "across");
        writer.join().unwrap().unwrap();
        runtime.shutdown_background();
    });
}

/// Returns the ends of a connection whose runtime runs on OS threads of its own.
fn runtime_pair(runtime: &tokio::runtime::Runtime) -> (GreenTransport<TcpStream>, GreenTransport<TcpStream>) {
    let made = runtime.spawn(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        io::Result::Ok((client, listener.accept().await?.0))
    });
    let (client, server) = greenhub::future::block_on(made).unwrap().unwrap();
    (GreenTransport::new(client), GreenTransport::new(server))
}

#[test]
fn a_runtime_that_is_shut_down_ends_the_waits_with_its_error() {
    on_each_hub(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (client, _server) = runtime_pair(&runtime);
        let client = Rc::new(client);
        let (reading, writing) = (Rc::clone(&client), Rc::clone(&client));
        let reader = greenhub::spawn(move || (&*reading).read(&mut [0]));
        let writer = greenhub::spawn(move || (&*writing).write_all(&vec![0; 64 << 20]));
        some_turns();
        assert!(!reader.is_finished() && !writer.is_finished());
        thread::spawn(move || runtime.shutdown_background()).join().unwrap();
        let ends = [reader.join().unwrap().map(drop), writer.join().unwrap(), (&*client).write(b"x").map(drop)];
        for end in ends {
            let text = end.unwrap_err().to_string();
            assert!(text.contains("shutdown") || text.contains("shutting down"), "{text}");
        }
    });
}

#[test]
fn a_current_thread_runtime_that_is_dropped_ends_the_waits() {
    on_each_hub(|| {
        // Its own thread drives it until the test says so: no other thread would.
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (made, ends) = mpsc::channel();
        let driver = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                made.send((client, listener.accept().await.unwrap().0)).unwrap();
                let _ = stopped.await;
            });
        });
        let (client, _server) = ends.recv().unwrap();
        let reader = greenhub::spawn(move || GreenTransport::new(client).read(&mut [0]));
        some_turns();
        assert!(!reader.is_finished());
        stop.send(()).unwrap();
        assert!(reader.join().unwrap().is_err());
        driver.join().unwrap();
    });
}

#[test]
fn handlers_are_listed_while_they_run_and_can_be_waited_for() {
    on_tokio(|| {
        let handlers = Handlers::new();
        let (server, address) = spawn_echo(&handlers);
        let mut clients: Vec<_> = (0..3).map(|_| net::connect(address).unwrap()).collect();
        until(|| handlers.len() == 3);
        assert_eq!(handlers.ids().len(), 3);
        drop(clients.pop());
        until(|| handlers.len() == 2);
        // The server accepts no more, and its handlers go on.
        server.kill();
        let waiting = handlers.clone();
        let waiter = greenhub::spawn(move || waiting.wait_all());
        for mut client in clients {
            client.write_all(b"still there").unwrap();
            assert_eq!(client.read(&mut [0; 64]).unwrap(), 11);
            assert!(!waiter.is_finished());
        }
        waiter.join().unwrap().unwrap();
        assert!(handlers.is_empty());
        handlers.wait_all().unwrap();
    });
}

#[test]
fn a_handler_that_panics_has_ended() {
    greenhub::debug::set_report_stream(|report| {
        let text = report.to_string();
        if !text.ends_with("a handler's panic") {
            eprintln!("{text}");
        }
    });
    on_tokio(|| {
        let (listener, address) = listen();
        let handlers = Handlers::new();
        let running = handlers.clone();
        let server = greenhub::spawn(move || {
            net::serve(&listener, &running, |_, _| -> () { std::panic::resume_unwind(Box::new("a handler's panic")) })
        });
        let mut client = net::connect(address).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        until(|| handlers.is_empty());
        // The server goes on.
        drop(net::connect(address).unwrap());
        assert!(!server.is_finished());
        server.kill();
    });
}

#[test]
fn a_handler_cannot_wait_for_all_handlers() {
    on_tokio(|| {
        let (listener, address) = listen();
        let handlers = Handlers::new();
        let (running, result) = (handlers.clone(), Rc::new(RefCell::new(None)));
        let seen = Rc::clone(&result);
        let server = greenhub::spawn(move || {
            let inside = running.clone();
            net::serve(&listener, &running, move |_, _| *seen.borrow_mut() = Some(inside.wait_all()))
        });
        drop(net::connect(address).unwrap());
        until(|| result.borrow().is_some());
        assert!(matches!(result.take(), Some(Err(GreenError::Deadlock))));
        server.kill();
    });
}

#[test]
fn a_handler_is_called_only_for_an_established_connection() {
    on_tokio(|| {
        let (listener, address) = listen();
        let (handled, failed) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
        let (handlers, count, failures) = (Handlers::new(), Rc::clone(&handled), Rc::clone(&failed));
        let running = handlers.clone();
        // The handshake is one byte.
        let establish = |stream: TcpStream| async {
            let mut stream = stream;
            match tokio::io::AsyncReadExt::read_u8(&mut stream).await? {
                b'!' => Ok(stream),
                _ => Err(io::Error::new(ErrorKind::InvalidData, "not a handshake")),
            }
        };
        let server = greenhub::spawn(move || {
            let handler = move |mut transport: GreenTransport<TcpStream>, _| {
                count.set(count.get() + 1);
                transport.write_all(b"welcome")
            };
            let fail = move |error: io::Error, peer| failures.borrow_mut().push((error.kind(), peer));
            net::serve_established(&listener, &running, establish, handler, fail)
        });
        let mut slow = net::connect(address).unwrap();
        let mut bad = net::connect(address).unwrap();
        let peer = bad.get_ref().local_addr().unwrap();
        bad.write_all(b"?").unwrap();
        assert_eq!(bad.read(&mut [0]).unwrap(), 0);
        assert_eq!((handled.get(), failed.take()), (0, vec![(ErrorKind::InvalidData, peer)]));
        let mut good = net::connect(address).unwrap();
        good.write_all(b"!").unwrap();
        assert_eq!(io::read_to_string(good).unwrap(), "welcome");
        // The slow connection has held up no other one.
        slow.write_all(b"!").unwrap();
        assert_eq!(io::read_to_string(slow).unwrap(), "welcome");
        assert_eq!(handled.get(), 2);
        server.kill();
        handlers.wait_all().unwrap();
    });
}

/// Copies in both directions until either side ends, and closes both.
fn forward(client: GreenTransport<TcpStream>, target: SocketAddr) -> io::Result<()> {
    let upstream = Rc::new(net::connect(target)?);
    let client = Rc::new(client);
    let (from, to) = (Rc::clone(&client), Rc::clone(&upstream));
    let there = greenhub::spawn(move || io::copy(&mut &*from, &mut &*to));
    let back = there.with_link(|| io::copy(&mut &*upstream, &mut &*client));
    there.kill();
    there.ignore_result();
    back.map_or(Ok(()), |copied| copied.map(drop))
}

#[test]
fn a_forwarder_closes_both_directions_when_either_side_ends() {
    on_tokio(|| {
        for client_ends in [true, false] {
            let handlers = Handlers::new();
            let (target, target_address) = listen();
            let (entrance, address) = listen();
            let running = handlers.clone();
            let forwarder = greenhub::spawn(move || {
                net::serve(&entrance, &running, move |transport, _| forward(transport, target_address))
            });
            let mut client = net::connect(address).unwrap();
            let (mut server, _) = target.accept().unwrap();
            client.write_all(b"there").unwrap();
            assert_eq!(server.read(&mut [0; 64]).unwrap(), 5);
            server.write_all(b"back").unwrap();
            assert_eq!(client.read(&mut [0; 64]).unwrap(), 4);
            let mut left = if client_ends {
                drop(client);
                server
            } else {
                drop(server);
                client
            };
            assert_eq!(left.read(&mut [0; 64]).unwrap(), 0);
            forwarder.kill();
            handlers.wait_all().unwrap();
        }
    });
}

#[test]
fn a_timeout_of_the_caller_ends_a_server() {
    on_tokio(|| {
        let (listener, _) = listen();
        let served =
            greenhub::with_timeout(Duration::from_millis(5), || net::serve(&listener, &Handlers::new(), |_, _| ()));
        assert!(served.is_err());
    });
}

/// Serves until `stop` is stopped, in handlers of the set. Each handler reads until its client closes.
fn spawn_until(stop: &StopServe, handlers: &Handlers) -> (GreenThread<io::Result<Served>>, SocketAddr) {
    let (listener, address) = listen();
    let (stop, handlers) = (stop.clone(), handlers.clone());
    let read = |mut transport: GreenTransport<TcpStream>, _| transport.read_to_end(&mut Vec::new());
    (greenhub::spawn(move || net::serve_until(&stop, &listener, &handlers, read)), address)
}

/// Returns the numbers of accepted connections, killed handlers and remaining handlers.
fn counts(server: GreenThread<io::Result<Served>>) -> (u64, usize, usize) {
    let served = server.join().unwrap().unwrap();
    (served.accepted, served.killed, served.left)
}

#[test]
fn a_stopped_server_waits_for_its_handlers() {
    on_tokio(|| {
        let (stop, handlers) = (StopServe::new(), Handlers::new());
        let (server, address) = spawn_until(&stop, &handlers);
        let clients = [net::connect(address).unwrap(), net::connect(address).unwrap()];
        until(|| handlers.len() == 2);
        stop.stop();
        for client in clients {
            some_turns();
            assert!(!server.is_finished());
            drop(client);
        }
        assert_eq!(counts(server), (2, 0, 0));
        assert!(handlers.is_empty());
    });
}

#[test]
fn a_stopped_server_accepts_no_more_and_leaves_its_listener_open() {
    on_tokio(|| {
        let (listener, address) = listen();
        let (listener, stop, handlers) = (Rc::new(listener), StopServe::new(), Handlers::new());
        let (accepting, stopped, running) = (Rc::clone(&listener), stop.clone(), handlers.clone());
        let server = greenhub::spawn(move || net::serve_until(&stopped, &accepting, &running, |_, _| ()));
        some_turns();
        stop.stop();
        assert_eq!(counts(server), (0, 0, 0));
        let client = net::connect(address).unwrap();
        some_turns();
        // A stopped handle ends a further server at once, and the connection waits for one that is not stopped.
        let served = net::serve_until(&stop, &listener, &handlers, |_, _| ()).unwrap();
        assert_eq!(served.accepted, 0);
        assert_eq!(listener.accept().unwrap().1, client.get_ref().local_addr().unwrap());
    });
}

#[test]
fn a_stop_by_another_os_thread_ends_a_server() {
    on_tokio(|| {
        let stop = StopServe::new();
        let (server, _) = spawn_until(&stop, &Handlers::new());
        some_turns();
        thread::spawn(move || stop.stop()).join().unwrap();
        assert_eq!(counts(server), (0, 0, 0));
    });
}

#[test]
fn a_deadline_kills_the_late_handlers() {
    on_tokio(|| {
        let (stop, handlers) = (StopServe::new(), Handlers::new());
        let (server, address) = spawn_until(&stop, &handlers);
        let _clients = [net::connect(address).unwrap(), net::connect(address).unwrap()];
        until(|| handlers.len() == 2);
        // A later call brings the deadline nearer, also while the server waits for it.
        stop.stop_within(Duration::from_secs(3600));
        some_turns();
        assert!(!server.is_finished());
        stop.stop_within(Duration::from_millis(1));
        assert_eq!(counts(server), (2, 2, 0));
        assert!(handlers.is_empty());
    });
}

#[test]
fn a_stopped_server_waits_for_no_handler_of_another_one() {
    on_tokio(|| {
        let (stop, handlers) = (StopServe::new(), Handlers::new());
        let (other, other_address) = spawn_until(&StopServe::new(), &handlers);
        let (server, address) = spawn_until(&stop, &handlers);
        let _kept = net::connect(other_address).unwrap();
        let client = net::connect(address).unwrap();
        until(|| handlers.len() == 2);
        drop(client);
        stop.stop();
        assert_eq!(counts(server), (1, 0, 0));
        assert_eq!(handlers.len(), 1);
        other.kill();
    });
}

#[test]
fn a_handler_that_refuses_its_kill_is_left() {
    on_tokio(|| {
        let (listener, address) = listen();
        let (stop, handlers, done) = (StopServe::new(), Handlers::new(), Rc::new(Cell::new(false)));
        let (stopped, running, ends) = (stop.clone(), handlers.clone(), Rc::clone(&done));
        let server = greenhub::spawn(move || {
            net::serve_until(&stopped, &listener, &running, move |_, _| {
                while !ends.get() {
                    let _ = catch_unwind(AssertUnwindSafe(|| greenhub::sleep(Duration::from_millis(1))));
                }
            })
        });
        let _client = net::connect(address).unwrap();
        until(|| handlers.len() == 1);
        stop.stop_within(Duration::ZERO);
        assert_eq!(counts(server), (1, 1, 1));
        done.set(true);
        handlers.wait_all().unwrap();
    });
}

#[test]
fn a_deadline_ends_a_handshake() {
    on_tokio(|| {
        let (listener, address) = listen();
        let (stop, handlers) = (StopServe::new(), Handlers::new());
        let (stopped, running) = (stop.clone(), handlers.clone());
        let server = greenhub::spawn(move || {
            let establish = |mut stream: TcpStream| async move {
                tokio::io::AsyncReadExt::read_u8(&mut stream).await?;
                Ok(stream)
            };
            let handler = |_: GreenTransport<TcpStream>, _| unreachable!("no handshake is complete");
            net::serve_established_until(&stopped, &listener, &running, establish, handler, |_, _| ())
        });
        let _client = net::connect(address).unwrap();
        until(|| handlers.len() == 1);
        stop.stop_within(Duration::ZERO);
        assert_eq!(counts(server), (1, 1, 0));
    });
}
