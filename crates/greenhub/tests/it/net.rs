//! TCP: std's behaviour on both implementations, and the extensions.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::closed_port::ClosedPort;
use greenhub::Interest;
use greenhub::hub::{Hub, Key, Lease, Readiness, Ready, Rearm, Watched};
use greenhub::net::{ConnectOptions, Resolver, SystemResolver, TcpListener, TcpStream, ToSocketAddrs};

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(60);

/// Returns a listener with a full backlog: a further connect waits.
fn full_listener() -> (OwnedFd, SocketAddr, Vec<OwnedFd>) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let new = || socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let listener = new();
    bind(&listener, &SocketAddr::from(ANY)).unwrap();
    listen(&listener, 0).unwrap();
    let address = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    let waiting = (0..8).map(|_| {
        let socket = new();
        let _ = connect(&socket, &address);
        socket
    });
    let waiting = waiting.collect();
    (listener, address, waiting)
}

/// Returns data in which neighbouring bytes differ.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

same_as_std! {
    fn data_goes_both_ways_and_ends() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut peer, from) = listener.accept().unwrap();
            assert_eq!(from, peer.peer_addr().unwrap());
            let mut received = String::new();
            peer.read_to_string(&mut received).unwrap();
            peer.write_all(received.to_uppercase().as_bytes()).unwrap();
        });
        let mut client = net::TcpStream::connect(address).unwrap();
        assert_eq!(client.peer_addr().unwrap(), address);
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HELLO");
        server.join().unwrap();
    }

    fn much_data_goes_both_ways_at_once() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let ends = move |stream: net::TcpStream| {
            let mut reader = stream.try_clone().unwrap();
            let receiving = thread::spawn(move || {
                let mut received = Vec::new();
                reader.read_to_end(&mut received).unwrap();
                received
            });
            (&stream).write_all(&pattern(4 << 20)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert!(receiving.join().unwrap() == pattern(4 << 20), "the received data differs from the sent data");
        };
        let server = thread::spawn(move || ends(listener.accept().unwrap().0));
        ends(net::TcpStream::connect(address).unwrap());
        server.join().unwrap();
    }

    fn peek_leaves_the_data() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        client.write_all(b"abc").unwrap();
        let mut buffer = [0; 8];
        for _ in 0..2 {
            assert_eq!(peer.peek(&mut buffer).unwrap(), 3);
            assert_eq!(&buffer[..3], b"abc");
        }
        assert_eq!(peer.read(&mut buffer).unwrap(), 3);
    }

    fn vectored_calls_use_all_pieces() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(client.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")]).unwrap(), 5);
        let (mut one, mut other) = ([0; 3], [0; 4]);
        let n = peer.read_vectored(&mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)]).unwrap();
        assert_eq!((n, &one, &other[..2]), (5, b"abc", &b"de"[..]));
    }

    fn more_pieces_than_the_system_takes_are_sent_in_part() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let pieces = vec![IoSlice::new(b"x"); 3000];
        assert_eq!(client.write_vectored(&pieces).unwrap(), 1024);
    }

    fn an_empty_buffer_reads_nothing_where_there_is_data() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(peer.read(&mut []).unwrap(), 0);
        assert_eq!(peer.read(&mut [0; 2]).unwrap(), 1);
    }

    fn a_clone_is_the_same_connection() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut clone = client.try_clone().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(clone.local_addr().unwrap(), client.local_addr().unwrap());
        (&client).write_all(b"1").unwrap();
        drop(client);
        clone.write_all(b"2").unwrap();
        let mut received = [0; 2];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"12");
        drop(clone);
        assert_eq!(peer.read(&mut received).unwrap(), 0);
    }

    fn clones_share_timeouts_and_mode() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut clone = client.try_clone().unwrap();
        client.set_read_timeout(Some(SHORT)).unwrap();
        assert!(clone.read_timeout().unwrap().is_some());
        client.set_nonblocking(true).unwrap();
        assert_eq!(clone.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    fn timeouts_are_kept_and_zero_is_refused() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!((client.read_timeout().unwrap(), client.write_timeout().unwrap()), (None, None));
        client.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        client.set_write_timeout(Some(Duration::from_secs(4))).unwrap();
        assert_eq!(client.read_timeout().unwrap(), Some(Duration::from_secs(3)));
        assert_eq!(client.write_timeout().unwrap(), Some(Duration::from_secs(4)));
        assert_eq!(client.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(client.set_write_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        client.set_read_timeout(None).unwrap();
        assert_eq!(client.read_timeout().unwrap(), None);
    }

    fn a_read_times_out_and_loses_nothing() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(SHORT)).unwrap();
        for _ in 0..2 {
            let begun = Instant::now();
            assert_eq!(client.read(&mut [0; 4]).unwrap_err().kind(), TIMED_OUT);
            assert!(begun.elapsed() >= SHORT);
        }
        peer.write_all(b"late").unwrap();
        client.set_read_timeout(None).unwrap();
        let mut received = [0; 4];
        client.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"late");
    }

    fn a_write_times_out() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _peer = listener.accept().unwrap();
        client.set_write_timeout(Some(SHORT)).unwrap();
        let error = loop {
            if let Err(error) = client.write(&[0; 1 << 16]) {
                break error;
            }
        };
        assert_eq!(error.kind(), TIMED_OUT);
    }

    fn connecting_without_a_listener_is_refused() {
        let closed = ClosedPort::new();
        assert_eq!(net::TcpStream::connect(closed.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let refused = net::TcpStream::connect_timeout(&closed.address, LONG).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }

    fn connecting_tries_all_addresses() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let closed = ClosedPort::new();
        let addresses = [closed.address, listener.local_addr().unwrap()];
        let client = net::TcpStream::connect(&addresses[..]).unwrap();
        assert_eq!(client.peer_addr().unwrap(), addresses[1]);
        let none: &[SocketAddr] = &[];
        assert_eq!(net::TcpStream::connect(none).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    fn connecting_times_out() {
        let (_listener, address, _waiting) = full_listener();
        let begun = Instant::now();
        let error = net::TcpStream::connect_timeout(&address, SHORT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() >= SHORT);
        let error = net::TcpStream::connect_timeout(&address, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    fn connecting_within_the_timeout_succeeds() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = net::TcpStream::connect_timeout(&address, LONG).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"x").unwrap();
        assert_eq!(client.read(&mut [0; 2]).unwrap(), 1);
    }

    fn an_address_in_use_is_refused() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let error = net::TcpListener::bind(listener.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }

    fn an_address_can_be_reused_at_once() {
        let again = |_| {
            let listener = net::TcpListener::bind(ANY).unwrap();
            let address = listener.local_addr().unwrap();
            let mut client = net::TcpStream::connect(address).unwrap();
            // The side that closes first keeps the address in TIME_WAIT.
            drop(listener.accept().unwrap());
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            drop((client, listener));
            net::TcpListener::bind(address)
        };
        // Another program may take the address first, but not five times.
        assert!((0..5).map(again).any(|listener| listener.is_ok()));
    }

    fn options_are_kept() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        listener.set_ttl(17).unwrap();
        assert_eq!(listener.ttl().unwrap(), 17);
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!client.nodelay().unwrap());
        client.set_nodelay(true).unwrap();
        assert!(client.nodelay().unwrap());
        client.set_ttl(42).unwrap();
        assert_eq!(client.ttl().unwrap(), 42);
        assert!(client.take_error().unwrap().is_none());
        assert!(listener.take_error().unwrap().is_none());
    }

    fn a_nonblocking_socket_returns_would_block() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        peer.write_all(b"x").unwrap();
        client.set_nonblocking(false).unwrap();
        assert_eq!(client.read(&mut [0; 2]).unwrap(), 1);
    }

    fn writing_to_a_closed_peer_is_an_error_without_a_signal() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
        let error = loop {
            if let Err(error) = client.write(b"x") {
                break error;
            }
            thread::sleep(Duration::from_millis(1));
        };
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    }

    fn a_reset_reaches_the_reader() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let reader = thread::spawn(move || {
            let reset = client.read(&mut [0]).unwrap_err().kind();
            // The reset is reported once; later reads return the end.
            assert_eq!((client.read(&mut [0]).unwrap(), client.read(&mut [0]).unwrap()), (0, 0));
            assert_eq!(client.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            reset
        });
        let (peer, _) = listener.accept().unwrap();
        rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        thread::sleep(Duration::from_millis(5));
        drop(peer);
        assert_eq!(reader.join().unwrap(), ErrorKind::ConnectionReset);
    }

    fn shutting_down_wakes_the_reader() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut clone = client.try_clone().unwrap();
        let reader = thread::spawn(move || clone.read(&mut [0]).unwrap());
        thread::sleep(Duration::from_millis(5));
        client.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap(), 0);
    }

    fn incoming_gives_each_connection() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let clients = thread::spawn(move || {
            (0..3).map(|_| net::TcpStream::connect(address).unwrap().local_addr().unwrap()).collect::<Vec<_>>()
        });
        let accepted: Vec<_> = listener.incoming().take(3).map(|peer| peer.unwrap().peer_addr().unwrap()).collect();
        assert_eq!(accepted, clients.join().unwrap());
    }

    fn names_and_literals_are_addresses() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for client in [
            net::TcpStream::connect(("localhost", port)),
            net::TcpStream::connect((String::from("127.0.0.1"), port)),
            net::TcpStream::connect(format!("localhost:{port}")),
            net::TcpStream::connect(listener.local_addr().unwrap()),
        ] {
            assert_eq!(client.unwrap().peer_addr().unwrap().port(), port);
        }
        assert_eq!(net::TcpStream::connect("localhost").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(net::TcpStream::connect("localhost:http").unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    fn debug_output_names_both_ends() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let fd = client.as_raw_fd();
        assert_eq!(format!("{client:?}"), format!("TcpStream {{ addr: {local:?}, peer: {peer:?}, fd: {fd} }}"));
    }

    fn a_descriptor_is_a_socket_and_back() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let local = client.local_addr().unwrap();
        let client = net::TcpStream::from(OwnedFd::from(client));
        assert_eq!(client.local_addr().unwrap(), local);
    }
}

/// A hub that reports every waiting writer as writable at each wait, and no other readiness.
struct Hasty;

impl Hub for Hasty {
    fn name(&self) -> &'static str {
        "tests::hasty"
    }

    fn rearm(&self) -> Rearm {
        Rearm::Explicit
    }

    fn watch(&mut self, _: Key, _: BorrowedFd<'_>, _: Interest, _: Lease) -> io::Result<()> {
        Ok(())
    }

    fn forget(&mut self, _: Key, _: Option<BorrowedFd<'_>>) {}

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        const PAUSE: Duration = Duration::from_millis(5);
        std::thread::sleep(timeout.map_or(PAUSE, |timeout| timeout.min(PAUSE)));
        for (key, _, armed) in watched.iter() {
            if armed.contains(Interest::WRITE) {
                ready.push(key, Readiness::WRITE);
            }
        }
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn connecting_has_one_deadline_however_often_it_is_woken() {
    support::run("connecting_has_one_deadline_however_often_it_is_woken", || {
        const TIMEOUT: Duration = Duration::from_millis(100);
        greenhub::use_hub_with(|| Ok(Hasty)).unwrap();
        let (_listener, address, _waiting) = full_listener();
        let was_woken_often = |_| {
            let before = greenhub::get_hub().stats().waits;
            let begun = Instant::now();
            assert_eq!(TcpStream::connect_timeout(&address, TIMEOUT).unwrap_err().kind(), ErrorKind::TimedOut);
            assert!(begun.elapsed() >= TIMEOUT);
            greenhub::get_hub().stats().waits > before + 2
        };
        // A slow machine may fit few waits into the timeout, but not in 20 attempts.
        assert!((0..20).any(was_woken_often));
        // Several addresses share one deadline.
        let options = ConnectOptions::new().timeout(TIMEOUT);
        assert_eq!(options.connect(&[address; 1000][..]).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_connection_may_choose_its_source_address() {
    support::run("a_connection_may_choose_its_source_address", || {
        let listener = TcpListener::bind(ANY).unwrap();
        let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 0));
        let options = ConnectOptions::new().source(source).timeout(LONG);
        let client = options.connect(listener.local_addr().unwrap()).unwrap();
        let (_, from) = listener.accept().unwrap();
        assert_eq!((from, from.ip()), (client.local_addr().unwrap(), source.ip()));
        let closed = ClosedPort::new();
        let refused = options.connect(closed.address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // An address reserved for documentation (RFC 5737).
        let elsewhere = ConnectOptions::new().source((Ipv4Addr::new(192, 0, 2, 1), 0).into());
        assert_eq!(elsewhere.connect(listener.local_addr().unwrap()).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        let never = ConnectOptions::new().timeout(Duration::ZERO);
        assert_eq!(never.connect(listener.local_addr().unwrap()).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(ConnectOptions::default(), ConnectOptions::new());
    });
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(ANY).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn sockets_may_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<TcpStream>();
    check::<TcpListener>();
    check::<greenhub::net::UdpSocket>();
    check::<greenhub::os::unix::net::UnixStream>();
    check::<greenhub::os::unix::net::UnixListener>();
    check::<greenhub::os::unix::net::UnixDatagram>();
}

#[test]
fn others_run_while_a_read_waits() {
    support::run("others_run_while_a_read_waits", || {
        let (mut client, mut peer) = pair();
        let reader = greenhub::spawn(move || client.read(&mut [0; 8]).unwrap());
        greenhub::sleep(SHORT);
        assert!(!reader.is_finished());
        peer.write_all(b"abc").unwrap();
        assert_eq!(reader.join().unwrap(), 3);
    });
}

#[test]
fn many_connections_are_served_by_one_thread() {
    support::run("many_connections_are_served_by_one_thread", || {
        const MANY: usize = 200;
        let listener = TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let server = greenhub::spawn(move || {
            for peer in listener.incoming() {
                let mut peer = peer.unwrap();
                greenhub::spawn(move || {
                    let mut buffer = [0; 64];
                    loop {
                        let n = peer.read(&mut buffer).unwrap();
                        if n == 0 {
                            return;
                        }
                        peer.write_all(&buffer[..n]).unwrap();
                    }
                });
            }
        });
        let clients: Vec<_> = (0..MANY)
            .map(|i| {
                greenhub::spawn(move || {
                    let mut client = TcpStream::connect(address).unwrap();
                    for round in 0..5 {
                        let text = format!("{i}:{round}");
                        client.write_all(text.as_bytes()).unwrap();
                        let mut answer = vec![0; text.len()];
                        client.read_exact(&mut answer).unwrap();
                        assert_eq!(answer, text.as_bytes());
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        server.kill();
    });
}

#[test]
fn closing_a_listener_ends_accept_and_incoming() {
    support::run("closing_a_listener_ends_accept_and_incoming", || {
        let listener = Rc::new(TcpListener::bind(ANY).unwrap());
        let accepting = greenhub::spawn({
            let listener = Rc::clone(&listener);
            move || listener.accept().unwrap_err().kind()
        });
        greenhub::sleep(SHORT);
        listener.close();
        assert_eq!(accepting.join().unwrap(), ErrorKind::NotConnected);
        assert_eq!(listener.incoming().count(), 0);
    });
}

#[test]
fn closing_wakes_reader_and_writer_of_the_same_thread() {
    support::run("closing_wakes_reader_and_writer_of_the_same_thread", || {
        let (client, mut peer) = pair();
        let client = Rc::new(client);
        let reader = greenhub::spawn({
            let client = Rc::clone(&client);
            move || (&*client).read(&mut [0]).unwrap_err().kind()
        });
        let writer = greenhub::spawn({
            let client = Rc::clone(&client);
            move || (&*client).write_all(&pattern(64 << 20)).unwrap_err().kind()
        });
        greenhub::sleep(SHORT);
        client.close();
        assert_eq!(reader.join().unwrap(), ErrorKind::NotConnected);
        assert_eq!(writer.join().unwrap(), ErrorKind::NotConnected);
        assert_eq!((&*client).read(&mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(client.set_nodelay(true).unwrap_err().kind(), ErrorKind::NotConnected);
        // The number is released, so the peer reads the end.
        let mut rest = Vec::new();
        let _ = peer.read_to_end(&mut rest);
    });
}

#[test]
fn closing_on_another_thread_wakes_the_reader() {
    support::run("closing_on_another_thread_wakes_the_reader", || {
        let (client, _peer) = pair();
        let client = std::sync::Arc::new(client);
        let closer = std::thread::spawn({
            let client = client.clone();
            move || {
                std::thread::sleep(SHORT);
                client.close();
            }
        });
        assert_eq!((&*client).read(&mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
        closer.join().unwrap();
    });
}

#[test]
fn a_socket_moved_to_another_thread_keeps_working() {
    support::run("a_socket_moved_to_another_thread_keeps_working", || {
        let (mut client, mut peer) = pair();
        // The read registers the descriptor with this thread's hub.
        let writer = greenhub::spawn(move || {
            greenhub::sleep(Duration::from_millis(2));
            peer.write_all(b"1").unwrap();
            peer
        });
        assert_eq!(client.read(&mut [0; 4]).unwrap(), 1);
        let mut peer = writer.join().unwrap();
        let there = std::thread::spawn(move || {
            assert_eq!(client.read(&mut [0; 4]).unwrap(), 2);
            client.write_all(b"xyz").unwrap();
            client
        });
        greenhub::sleep(Duration::from_millis(5));
        peer.write_all(b"22").unwrap();
        assert_eq!(peer.read(&mut [0; 4]).unwrap(), 3);
        // Moves the socket back after the other thread has ended.
        let mut client = there.join().unwrap();
        greenhub::spawn(move || {
            greenhub::sleep(Duration::from_millis(2));
            peer.write_all(b"333").unwrap();
            greenhub::sleep(SHORT);
        });
        assert_eq!(client.read(&mut [0; 4]).unwrap(), 3);
    });
}

#[test]
fn a_second_reader_is_refused_and_a_clone_is_not() {
    support::run("a_second_reader_is_refused_and_a_clone_is_not", || {
        let (client, mut peer) = pair();
        let client = Rc::new(client);
        let clone = client.try_clone().unwrap();
        let first = greenhub::spawn({
            let client = Rc::clone(&client);
            move || (&*client).read(&mut [0; 1]).unwrap()
        });
        greenhub::thread::yield_now();
        let refused = (&*client).read(&mut [0; 1]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceBusy);
        let second = greenhub::spawn(move || (&clone).read(&mut [0; 1]).unwrap());
        greenhub::thread::yield_now();
        peer.write_all(b"ab").unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 1));
    });
}

#[test]
fn others_run_while_a_name_is_looked_up() {
    support::run("others_run_while_a_name_is_looked_up", || {
        let ran = Rc::new(Cell::new(false));
        greenhub::spawn({
            let ran = Rc::clone(&ran);
            move || ran.set(true)
        });
        let literal = ("127.0.0.1", 7).to_socket_addrs().unwrap();
        assert_eq!(literal.collect::<Vec<_>>(), [SocketAddr::from((Ipv4Addr::LOCALHOST, 7))]);
        assert_eq!("[::1]:7".to_socket_addrs().unwrap().count(), 1);
        assert!(!ran.get(), "a literal address has caused a switch");
        // The result may be cached by another test.
        let addresses = SystemResolver.resolve("localhost").unwrap();
        assert!(addresses.into_iter().all(|address| address.ip().is_loopback()));
        assert!(ran.get());
    });
}

#[test]
fn a_timeout_of_a_scope_ends_a_read() {
    support::run("a_timeout_of_a_scope_ends_a_read", || {
        let (mut client, mut peer) = pair();
        assert!(greenhub::with_timeout(SHORT, || client.read(&mut [0])).is_err());
        peer.write_all(b"x").unwrap();
        assert_eq!(client.read(&mut [0; 2]).unwrap(), 1);
    });
}

#[test]
fn a_socket_goes_to_std_and_back_with_its_settings() {
    support::run("a_socket_goes_to_std_and_back_with_its_settings", || {
        let (client, mut peer) = pair();
        client.set_read_timeout(Some(Duration::from_secs(7))).unwrap();
        let is_nonblocking =
            |fd: &dyn AsFd| rustix::fs::fcntl_getfl(fd.as_fd()).unwrap().contains(rustix::fs::OFlags::NONBLOCK);
        assert!(is_nonblocking(&client));
        let mut client = client.into_std().unwrap();
        assert!(!is_nonblocking(&client));
        assert_eq!(client.read_timeout().unwrap(), Some(Duration::from_secs(7)));
        peer.write_all(b"x").unwrap();
        assert_eq!(client.read(&mut [0; 2]).unwrap(), 1);
        client.set_nonblocking(true).unwrap();
        let mut client = TcpStream::from_std(client).unwrap();
        assert_eq!(client.read_timeout().unwrap(), Some(Duration::from_secs(7)));
        assert_eq!(client.read(&mut [0; 2]).unwrap_err().kind(), ErrorKind::WouldBlock);
        client.close();
        assert_eq!(client.into_std().unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn accept_returns_emfile_and_keeps_the_connection() {
    const NAME: &str = "accept_returns_emfile_and_keeps_the_connection";
    if !support::is_child() {
        let output = support::rerun(NAME, |_| {});
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    support::run(NAME, || {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let listener = TcpListener::bind(ANY).unwrap();
        // The wait creates the hub and its descriptors before the limit is set.
        listener.set_nonblocking(true).unwrap();
        greenhub::sleep(Duration::from_millis(1));
        listener.set_nonblocking(false).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let limit = client.as_raw_fd() as u64 + 1;
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
        let mut plugs = Vec::new();
        while let Ok(plug) = client.try_clone() {
            plugs.push(plug);
        }
        let error = listener.accept().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        plugs.pop();
        drop(client);
        assert!(listener.accept().is_ok(), "the connection was lost");
    });
}

#[test]
fn a_missing_hub_is_an_error_of_the_call() {
    const NAME: &str = "a_missing_hub_is_an_error_of_the_call";
    if !support::is_child() {
        let output = support::rerun(NAME, |command| {
            command.env("GREENHUB_HUB", "no-such-hub");
        });
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    support::run(NAME, || {
        let listener = TcpListener::bind(ANY).unwrap();
        let error = listener.accept().unwrap_err();
        assert!(error.to_string().contains("no-such-hub"), "{error}");
    });
}

#[test]
fn a_server_out_of_descriptors_serves_accepted_connections() {
    const TEST: &str = "a_server_out_of_descriptors_serves_accepted_connections";
    if !support::is_child() {
        let output = support::rerun(TEST, |_| ());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    support::run(TEST, || {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        const CLIENTS: usize = 10;
        let listener = TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let served = Rc::new(Cell::new(0));
        let count = Rc::clone(&served);
        greenhub::spawn(move || {
            // Many servers skip errors like this.
            for mut stream in listener.incoming().flatten() {
                let count = Rc::clone(&count);
                greenhub::spawn(move || {
                    stream.read_exact(&mut [0]).unwrap();
                    count.set(count.get() + 1);
                });
            }
        });
        greenhub::sleep(Duration::from_millis(1));
        let clients: Vec<_> = (0..CLIENTS).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let open = support::open_descriptors() as u64;
        setrlimit(Resource::RLIMIT_NOFILE, open + 2, hard).unwrap();
        let (held, release) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            for mut client in &clients {
                client.write_all(b"x").unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
            // The clients stay open, so only finished green threads free descriptors.
            let _ = release.recv();
        });
        while served.get() < CLIENTS {
            greenhub::sleep(Duration::from_millis(1));
        }
        drop(held);
        writer.join().unwrap();
    });
}
