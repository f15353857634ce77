//! Behaviour common to all sockets: std's, and the rows of Eventlet's catalogue.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::hubs::use_manual_clock;
use greenhub::Interest;
use greenhub::net::{TcpListener, TcpStream, UdpSocket};
use greenhub::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use greenhub::select::select;

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(60);

/// Returns data in which neighbouring bytes differ.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// Returns the number of connections in the backlog, where the system reports it.
#[cfg(target_os = "linux")]
fn waiting_connections(listener: &impl AsFd) -> Option<u32> {
    use std::os::fd::AsRawFd;
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the call writes at most `len` bytes, and all zeros are a valid `tcp_info`.
    let info = unsafe {
        let asked = libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut len);
        assert_eq!(asked, 0);
        info.assume_init()
    };
    Some(info.tcpi_unacked)
}

#[cfg(not(target_os = "linux"))]
fn waiting_connections(_: &impl AsFd) -> Option<u32> {
    None
}

same_as_std! {
    fn a_peek_waits_like_a_read() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(client.peek(&mut [0]).unwrap_err().kind(), TIMED_OUT);
        client.set_read_timeout(None).unwrap();
        let waiting = thread::spawn(move || client.peek(&mut [0; 8]).unwrap());
        peer.write_all(b"abc").unwrap();
        assert_eq!(waiting.join().unwrap(), 3);
    }

    fn the_end_stays_the_end() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"last").unwrap();
        drop(peer);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last");
        for _ in 0..3 {
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
            assert_eq!(client.peek(&mut [0; 8]).unwrap(), 0);
        }
    }

    fn shutting_down_one_direction_leaves_the_other() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        peer.write_all(b"still").unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 5);
        client.shutdown(Shutdown::Read).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }

    fn shutting_down_an_unconnected_socket_is_an_error() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(client.shutdown(Shutdown::Both).unwrap_err().kind(), ErrorKind::NotConnected);
    }

    fn shutting_down_a_non_socket_is_an_error() {
        let wrong = net::TcpStream::from(OwnedFd::from(std::io::pipe().unwrap().0));
        assert_eq!(wrong.shutdown(Shutdown::Both).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }

    fn shutting_down_a_listener_wakes_accept() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let other = listener.as_fd().try_clone_to_owned().unwrap();
        let accepting = thread::spawn(move || listener.accept().unwrap_err());
        thread::sleep(SHORT);
        rustix::net::shutdown(&other, rustix::net::Shutdown::Both).unwrap();
        assert_eq!(accepting.join().unwrap().raw_os_error(), Some(libc::EINVAL));
    }

    fn timeouts_and_mode_can_be_changed_back_and_forth() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        for _ in 0..3 {
            client.set_nonblocking(true).unwrap();
            let begun = Instant::now();
            assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert!(begun.elapsed() < LONG);
            client.set_nonblocking(false).unwrap();
            client.set_read_timeout(Some(SHORT)).unwrap();
            let begun = Instant::now();
            assert_eq!(client.read(&mut [0]).unwrap_err().kind(), TIMED_OUT);
            assert!(begun.elapsed() >= SHORT);
            client.set_read_timeout(None).unwrap();
            peer.write_all(b"x").unwrap();
            assert_eq!(client.read(&mut [0; 2]).unwrap(), 1);
        }
    }

    fn a_buffered_writer_loses_nothing_to_partial_writes() {
        const LINES: usize = 400_000;
        let listener = net::TcpListener::bind(ANY).unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        let writing = thread::spawn(move || {
            let mut writer = BufWriter::with_capacity(100_000, client);
            for number in 0..LINES {
                writeln!(writer, "line {number}").unwrap();
            }
            writer.flush().unwrap();
        });
        let mut expected = 0;
        for line in BufReader::new(peer).lines() {
            assert_eq!(line.unwrap(), format!("line {expected}"));
            expected += 1;
        }
        assert_eq!(expected, LINES);
        writing.join().unwrap();
    }

    fn a_copy_from_stream_to_stream_is_complete() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let source = net::TcpStream::connect(address).unwrap();
        let (mut middle_in, _) = listener.accept().unwrap();
        let mut middle_out = net::TcpStream::connect(address).unwrap();
        let (mut sink, _) = listener.accept().unwrap();
        let writing = thread::spawn(move || (&source).write_all(&pattern(2 << 20)).unwrap());
        let copying = thread::spawn(move || io::copy(&mut middle_in, &mut middle_out).unwrap());
        let mut received = Vec::new();
        sink.read_to_end(&mut received).unwrap();
        assert!(received == pattern(2 << 20), "the received data differs from the sent data");
        assert_eq!(copying.join().unwrap(), 2 << 20);
        writing.join().unwrap();
    }

    fn connections_are_accepted_in_order_of_arrival() {
        let listener = net::TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..20)
            .map(|number| {
                let client = net::TcpStream::connect(address).unwrap();
                // Another processor may complete the handshake.
                while waiting_connections(&listener).is_some_and(|waiting| waiting <= number) {
                    thread::yield_now();
                }
                client
            })
            .collect();
        for client in &clients {
            assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
        }
    }

    fn binding_a_remote_address_is_an_error() {
        // An address reserved for documentation (RFC 5737).
        let foreign = (Ipv4Addr::new(192, 0, 2, 1), 0);
        assert_eq!(net::TcpListener::bind(foreign).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        assert_eq!(net::UdpSocket::bind(foreign).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    }

    fn a_refused_datagram_is_an_error_of_the_next_call_only() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        let other = net::UdpSocket::bind(ANY).unwrap();
        let address = other.local_addr().unwrap();
        one.connect(address).unwrap();
        // The address is taken by a socket that is connected to itself, so it accepts no other datagram.
        other.connect(address).unwrap();
        one.send(b"x").unwrap();
        assert_eq!(one.recv_from(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        other.send_to(b"abc", one.local_addr().unwrap()).unwrap();
        assert_eq!(one.recv_from(&mut [0; 8]).unwrap(), (3, address));
    }

    fn a_connected_socket_receives_from_its_peer_only() {
        let [one, peer, stranger] = [(), (), ()].map(|()| net::UdpSocket::bind(ANY).unwrap());
        let address = one.local_addr().unwrap();
        one.connect(peer.local_addr().unwrap()).unwrap();
        stranger.send_to(b"psst", address).unwrap();
        peer.send_to(b"abc", address).unwrap();
        assert_eq!(one.recv_from(&mut [0; 8]).unwrap(), (3, peer.local_addr().unwrap()));
        one.set_nonblocking(true).unwrap();
        assert_eq!(one.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    fn a_broadcast_needs_permission() {
        let one = net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let all = SocketAddr::from((Ipv4Addr::BROADCAST, 9));
        assert_eq!(one.send_to(b"x", all).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }

    fn a_datagram_that_is_too_long_is_refused() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        let error = one.send_to(&[0; 1 << 17], one.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }

    fn a_listener_descriptor_is_not_a_stream() {
        let listener = std::net::TcpListener::bind(ANY).unwrap();
        let mut wrong = net::TcpStream::from(OwnedFd::from(listener));
        assert_eq!(wrong.read(&mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(wrong.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(wrong.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
    }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(ANY).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Returns a closure that tells whether other green threads have run since the call.
fn others() -> impl Fn() -> bool {
    let ran = Rc::new(Cell::new(false));
    let runs = Rc::clone(&ran);
    greenhub::spawn_n(move || runs.set(true));
    move || ran.get()
}

#[test]
fn no_descriptor_of_a_socket_blocks() {
    support::run("no_descriptor_of_a_socket_blocks", || {
        #[track_caller]
        fn check(fd: impl AsFd) {
            assert!(rustix::fs::fcntl_getfl(fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        }
        let listener = TcpListener::bind(ANY).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        check(&listener);
        check(&client);
        check(accepted.try_clone().unwrap());
        check(accepted);
        check(TcpStream::connect_timeout(&listener.local_addr().unwrap(), LONG).unwrap());
        check(UdpSocket::bind(ANY).unwrap());
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        check(UnixStream::from_std(one).unwrap());
        check(UnixStream::from(OwnedFd::from(other)));
        check(UnixStream::pair().unwrap().1);
        check(UnixDatagram::pair().unwrap().0);
        check(UnixDatagram::unbound().unwrap());
        let path = std::env::temp_dir().join(format!("greenhub-nonblocking-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        check(listener.accept().unwrap().0);
        check(listener);
        check(client);
    });
}

#[test]
fn an_operation_that_is_ready_does_not_switch() {
    support::run("an_operation_that_is_ready_does_not_switch", || {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let others = others();
        let before = greenhub::get_hub().stats();
        for _ in 0..10 {
            one.write_all(b"abc").unwrap();
            assert_eq!(other.read(&mut [0; 8]).unwrap(), 3);
        }
        let stats = greenhub::get_hub().stats();
        assert!(!others());
        assert_eq!((stats.watches, stats.waits), (before.watches, before.waits), "the hub was asked");
        greenhub::thread::yield_now();
        assert!(others());
    });
}

// std waits too, and then returns no data instead of the error.
#[test]
fn an_empty_read_waits_like_any_other() {
    support::run("an_empty_read_waits_like_any_other", || {
        let (mut client, mut peer) = pair();
        client.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(client.read(&mut []).unwrap_err().kind(), ErrorKind::TimedOut);
        peer.write_all(b"x").unwrap();
        assert_eq!(client.read(&mut []).unwrap(), 0);
        assert_eq!(client.read(&mut [0]).unwrap(), 1);
    });
}

#[test]
fn accepting_waits_gives_a_green_socket_and_can_time_out() {
    support::run("accepting_waits_gives_a_green_socket_and_can_time_out", || {
        let listener = TcpListener::bind(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(greenhub::with_timeout(SHORT, || listener.accept()).is_err());
        let client = greenhub::spawn(move || {
            greenhub::sleep(SHORT);
            let client = TcpStream::connect(address).unwrap();
            greenhub::sleep(SHORT);
            (&client).write_all(b"late").unwrap();
            client
        });
        let (mut peer, _) = listener.accept().unwrap();
        assert!(!client.is_finished());
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 4);
    });
}

/// Returns a stream that was never connected.
fn unconnected() -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, socket};
    TcpStream::from(socket(AddressFamily::INET, SocketType::STREAM, None).unwrap())
}

#[test]
fn reading_an_unconnected_stream_is_an_error_at_once() {
    support::run("reading_an_unconnected_stream_is_an_error_at_once", || {
        let others = others();
        let mut stream = unconnected();
        for _ in 0..3 {
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
        }
        assert!(!others());
    });
}

#[test]
fn writing_to_an_unconnected_stream_is_an_error_at_once() {
    support::run("writing_to_an_unconnected_stream_is_an_error_at_once", || {
        let others = others();
        let mut stream = unconnected();
        for _ in 0..3 {
            assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
        assert!(!others());
    });
}

#[test]
fn a_write_fills_the_free_buffer_space() {
    support::run("a_write_fills_the_free_buffer_space", || {
        let (mut one, _other) = UnixStream::pair().unwrap();
        let data = vec![0; 16 << 20];
        let taken = one.write(&data).unwrap();
        assert!((1..data.len()).contains(&taken), "{taken}");
        one.set_nonblocking(true).unwrap();
        let mut rest = 0;
        while let Ok(more) = one.write(&data) {
            rest += more;
        }
        assert!(rest < data.len());
    });
}

#[test]
fn the_timeout_of_a_write_all_is_for_each_wait() {
    support::run("the_timeout_of_a_write_all_is_for_each_wait", || {
        const TIMEOUT: Duration = Duration::from_millis(700);
        use_manual_clock();
        let (mut one, mut other) = UnixStream::pair().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&one, 8192).unwrap();
        one.set_write_timeout(Some(TIMEOUT)).unwrap();
        let writing = greenhub::spawn(move || one.write_all(&pattern(4 << 20)));
        let (hub, mut received) = (greenhub::get_hub(), Vec::new());
        let begun = hub.now();
        while hub.now() < begun + TIMEOUT * 3 / 2 {
            greenhub::sleep(Duration::from_millis(10));
            let mut piece = [0; 16384];
            let length = other.read(&mut piece).unwrap();
            received.extend(&piece[..length]);
        }
        assert!(!writing.is_finished());
        other.read_to_end(&mut received).unwrap();
        writing.join().unwrap().unwrap();
        assert!(received == pattern(4 << 20), "the received data differs from the sent data");
    });
}

#[test]
fn operations_fail_after_close_and_a_second_close_has_no_effect() {
    support::run("operations_fail_after_close_and_a_second_close_has_no_effect", || {
        let (mut one, mut other) = pair();
        one.close();
        one.close();
        let closed = ErrorKind::NotConnected;
        assert_eq!(one.read(&mut [0]).unwrap_err().kind(), closed);
        assert_eq!(one.write(b"x").unwrap_err().kind(), closed);
        assert_eq!(one.peek(&mut [0]).unwrap_err().kind(), closed);
        assert_eq!(one.shutdown(Shutdown::Both).unwrap_err().kind(), closed);
        assert_eq!(one.local_addr().unwrap_err().kind(), closed);
        assert_eq!(one.set_read_timeout(None).unwrap_err().kind(), closed);
        assert_eq!(one.try_clone().unwrap_err().kind(), closed);
        assert_eq!(other.read(&mut [0]).unwrap(), 0);
        let socket = UdpSocket::bind(ANY).unwrap();
        socket.close();
        socket.close();
        assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), closed);
        let listener = TcpListener::bind(ANY).unwrap();
        listener.close();
        assert_eq!(listener.accept().unwrap_err().kind(), closed);
    });
}

#[test]
fn the_hub_keeps_no_socket_alive() {
    support::run("the_hub_keeps_no_socket_alive", || {
        let (mut one, other) = pair();
        let reader = greenhub::spawn(move || {
            let mut other = other;
            assert_eq!(other.read(&mut [0; 8]).unwrap(), 1);
            other.set_read_timeout(Some(SHORT)).unwrap();
            assert_eq!(other.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
            // The stream is dropped while it is registered with the hub.
        });
        greenhub::sleep(SHORT);
        one.write_all(b"x").unwrap();
        assert_eq!(one.read(&mut [0]).unwrap(), 0);
        reader.join().unwrap();
        let stats = greenhub::get_hub().stats();
        assert_eq!((stats.readers, stats.writers, stats.timers), (0, 0, 0));
    });
}

#[test]
fn a_fresh_pair_is_writable_at_once_each_time() {
    support::run("a_fresh_pair_is_writable_at_once_each_time", || {
        let (one, other) = UnixStream::pair().unwrap();
        for _ in 0..2 {
            for socket in [&one, &other] {
                assert!(greenhub::trampoline(socket, Interest::WRITE, Some(LONG)).is_ok());
                assert!(greenhub::trampoline(socket, Interest::READ, Some(SHORT)).is_err());
            }
            let both = [&one, &other];
            let (readable, writable) = select(&both, &both, Some(Duration::ZERO)).unwrap();
            assert_eq!((readable.len(), writable.len()), (0, 2));
        }
    });
}
