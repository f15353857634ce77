//! Unix domain sockets: std's behaviour on both implementations, and the extensions.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support;
use greenhub::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

const SHORT: Duration = Duration::from_millis(20);

/// A path for one socket, which is removed on drop.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Place(std::env::temp_dir().join(format!("greenhub-{}-{number}", std::process::id())))
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Fills the queue of a receiver with `send`, which returns an error when the queue is full. Returns the number of
/// sends.
fn fill(mut send: impl FnMut() -> io::Result<usize>) -> usize {
    let mut sent = 0;
    while send().is_ok() {
        sent += 1;
    }
    sent
}

same_as_std! {
    fn a_stream_goes_both_ways_and_ends() {
        let place = Place::new();
        let listener = unix::UnixListener::bind(&place).unwrap();
        let server = thread::spawn(move || {
            let (mut peer, from) = listener.accept().unwrap();
            assert!(from.is_unnamed());
            let mut received = String::new();
            peer.read_to_string(&mut received).unwrap();
            peer.write_all(received.to_uppercase().as_bytes()).unwrap();
        });
        let mut client = unix::UnixStream::connect(&place).unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(place.as_ref()));
        assert!(client.local_addr().unwrap().is_unnamed());
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HELLO");
        server.join().unwrap();
    }

    fn a_pair_carries_much_data() {
        let (mut one, mut other) = unix::UnixStream::pair().unwrap();
        let data: Vec<u8> = (0..3 << 20).map(|i: usize| (i * 7 + i / 255) as u8).collect();
        let expected = data.clone();
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            other.read_to_end(&mut received).unwrap();
            assert!(received == expected, "the received data differs from the sent data");
        });
        one.write_all(&data).unwrap();
        drop(one);
        reader.join().unwrap();
    }

    fn an_abstract_name_is_an_address() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("greenhub-{}-{}", std::process::id(), module_path!());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = unix::UnixListener::bind_addr(&address).unwrap();
        assert_eq!(listener.local_addr().unwrap().as_abstract_name(), Some(name.as_bytes()));
        let client = unix::UnixStream::connect_addr(&address).unwrap();
        assert_eq!(client.peer_addr().unwrap().as_abstract_name(), Some(name.as_bytes()));
        listener.accept().unwrap();
    }

    fn wrong_paths_are_errors() {
        let place = Place::new();
        assert_eq!(unix::UnixStream::connect(&place).unwrap_err().kind(), ErrorKind::NotFound);
        let _listener = unix::UnixListener::bind(&place).unwrap();
        assert_eq!(unix::UnixListener::bind(&place).unwrap_err().kind(), ErrorKind::AddrInUse);
        let long = "x".repeat(200);
        assert_eq!(unix::UnixStream::connect(&long).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(unix::UnixDatagram::bind("a\0b").unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    fn connecting_to_a_closed_listener_is_refused() {
        let place = Place::new();
        drop(unix::UnixListener::bind(&place).unwrap());
        assert_eq!(unix::UnixStream::connect(&place).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    fn a_read_times_out() {
        let (mut one, _other) = unix::UnixStream::pair().unwrap();
        one.set_read_timeout(Some(SHORT)).unwrap();
        let begun = Instant::now();
        assert_eq!(one.read(&mut [0]).unwrap_err().kind(), TIMED_OUT);
        assert!(begun.elapsed() >= SHORT);
    }

    fn a_write_times_out() {
        let (mut one, _other) = unix::UnixStream::pair().unwrap();
        one.set_write_timeout(Some(SHORT)).unwrap();
        let error = loop {
            if let Err(error) = one.write(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), TIMED_OUT);
    }

    fn writing_to_a_closed_peer_is_a_broken_pipe() {
        let (mut one, other) = unix::UnixStream::pair().unwrap();
        drop(other);
        assert_eq!(one.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    fn a_listener_is_iterated() {
        let place = Place::new();
        let listener = unix::UnixListener::bind(&place).unwrap();
        let _clients = [unix::UnixStream::connect(&place).unwrap(), unix::UnixStream::connect(&place).unwrap()];
        assert_eq!(listener.incoming().take(1).filter(|peer| peer.is_ok()).count(), 1);
        assert!((&listener).into_iter().next().unwrap().is_ok());
    }

    fn a_nonblocking_socket_returns_would_block() {
        let place = Place::new();
        let listener = unix::UnixListener::bind(&place).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let (mut one, _other) = unix::UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        assert_eq!(one.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    fn datagrams_keep_their_bounds_and_their_sender() {
        let (here, there) = (Place::new(), Place::new());
        let one = unix::UnixDatagram::bind(&here).unwrap();
        let other = unix::UnixDatagram::bind(&there).unwrap();
        other.send_to(b"first", &here).unwrap();
        other.send_to_addr(b"second", &one.local_addr().unwrap()).unwrap();
        unix::UnixDatagram::unbound().unwrap().send_to(b"third", &here).unwrap();
        let mut buffer = [0; 16];
        for expected in [&b"first"[..], b"second"] {
            let (n, from) = one.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..n], from.as_pathname()), (expected, Some(there.as_ref())));
        }
        let (n, from) = one.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from.is_unnamed()), (&b"third"[..], true));
    }

    fn a_datagram_of_an_unbound_sender_has_an_unnamed_address() {
        let place = Place::new();
        let one = unix::UnixDatagram::bind(&place).unwrap();
        unix::UnixDatagram::unbound().unwrap().send_to(b"x", &place).unwrap();
        assert!(one.recv_from(&mut [0]).unwrap().1.is_unnamed());
    }

    fn connected_datagram_sockets_need_no_address() {
        let place = Place::new();
        let one = unix::UnixDatagram::bind(&place).unwrap();
        let other = unix::UnixDatagram::unbound().unwrap();
        assert_eq!(other.send(b"x").unwrap_err().kind(), ErrorKind::NotConnected);
        other.connect(&place).unwrap();
        assert_eq!(other.peer_addr().unwrap().as_pathname(), Some(place.as_ref()));
        other.send(b"abc").unwrap();
        assert_eq!(one.recv(&mut [0; 8]).unwrap(), 3);
        let (left, right) = unix::UnixDatagram::pair().unwrap();
        left.send(b"ab").unwrap();
        assert_eq!(right.recv(&mut [0; 8]).unwrap(), 2);
        assert!(right.take_error().unwrap().is_none());
    }

    fn a_datagram_socket_times_out() {
        let (one, other) = unix::UnixDatagram::pair().unwrap();
        one.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(one.recv(&mut [0]).unwrap_err().kind(), TIMED_OUT);
        other.set_write_timeout(Some(SHORT)).unwrap();
        assert!(fill(|| other.send(b"x")) > 0);
        assert_eq!(other.send(b"x").unwrap_err().kind(), TIMED_OUT);
    }

    fn shutting_down_a_datagram_socket_ends_it() {
        let (one, other) = unix::UnixDatagram::pair().unwrap();
        one.shutdown(Shutdown::Write).unwrap();
        assert_eq!(one.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        other.shutdown(Shutdown::Read).unwrap();
        assert_eq!(other.recv(&mut [0]).unwrap(), 0);
    }

    fn clones_are_the_same_socket() {
        let (one, mut other) = unix::UnixStream::pair().unwrap();
        let clone = one.try_clone().unwrap();
        let reader = thread::spawn(move || (&one).read(&mut [0; 8]).unwrap());
        (&clone).write_all(b"ab").unwrap();
        other.write_all(b"abc").unwrap();
        assert_eq!(reader.join().unwrap(), 3);
        assert_eq!(other.read(&mut [0; 8]).unwrap(), 2);
    }
}

/// Linux accepts a path without room for its final zero.
#[test]
fn a_datagram_from_a_sender_with_the_longest_path_is_received() {
    support::run("a_datagram_from_a_sender_with_the_longest_path_is_received", || {
        let (here, there) = (Place::new(), Place::new());
        let mut path = there.0.clone().into_os_string();
        path.push("x".repeat(108 - path.len()));
        let there = Place(path.into());
        let receiver = UnixDatagram::bind(&here).unwrap();
        let unbound = UnixDatagram::unbound().unwrap();
        // SAFETY: the address is valid for the given length, and the socket is open.
        let bound = unsafe {
            let mut address: libc::sockaddr_un = std::mem::zeroed();
            address.sun_family = libc::AF_UNIX as libc::sa_family_t;
            for (to, from) in address.sun_path.iter_mut().zip(there.0.as_os_str().as_encoded_bytes()) {
                *to = *from as libc::c_char;
            }
            libc::bind(unbound.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
        };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        unbound.send_to(b"x", &here).unwrap();
        assert_eq!(receiver.recv_from(&mut [0]).unwrap().0, 1);
        assert!(unbound.local_addr().is_ok());
    });
}

#[test]
fn connecting_waits_for_room_in_a_full_listener() {
    support::run("connecting_waits_for_room_in_a_full_listener", || {
        let place = Place::new();
        let listener = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        );
        let listener = listener.unwrap();
        rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(place.as_ref()).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let listener = UnixListener::from(listener);
        let _first = UnixStream::connect(&place).unwrap();
        let second = greenhub::spawn({
            let path = place.0.clone();
            move || UnixStream::connect(path).map(drop)
        });
        greenhub::sleep(SHORT);
        assert!(!second.is_finished(), "the send did not wait for room in the queue");
        listener.accept().unwrap();
        second.join().unwrap().unwrap();
    });
}

#[test]
fn sending_waits_for_room_at_the_receiver() {
    support::run("sending_waits_for_room_at_the_receiver", || {
        let place = Place::new();
        let receiver = UnixDatagram::bind(&place).unwrap();
        let sender = Rc::new(UnixDatagram::unbound().unwrap());
        sender.set_nonblocking(true).unwrap();
        let sent = fill(|| sender.send_to(b"x", &place));
        sender.set_nonblocking(false).unwrap();
        let addressed = greenhub::spawn({
            let (sender, path) = (Rc::clone(&sender), place.0.clone());
            move || sender.send_to(b"last", path).unwrap()
        });
        let connected = greenhub::spawn({
            let path = place.0.clone();
            move || {
                let sender = UnixDatagram::unbound().unwrap();
                sender.connect(path).unwrap();
                sender.send(b"last").unwrap()
            }
        });
        greenhub::sleep(SHORT);
        assert!(!addressed.is_finished() && !connected.is_finished(), "the send did not wait for room in the queue");
        for _ in 0..sent {
            assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 1);
        }
        assert_eq!((addressed.join().unwrap(), connected.join().unwrap()), (4, 4));
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap() + receiver.recv(&mut [0; 8]).unwrap(), 8);
    });
}

#[test]
fn closing_wakes_every_waiter() {
    support::run("closing_wakes_every_waiter", || {
        let place = Place::new();
        let listener = Rc::new(UnixListener::bind(&place).unwrap());
        let (stream, _other) = UnixStream::pair().unwrap();
        let stream = Rc::new(stream);
        let accepting = greenhub::spawn({
            let listener = Rc::clone(&listener);
            move || listener.accept().unwrap_err().kind()
        });
        let reading = greenhub::spawn({
            let stream = Rc::clone(&stream);
            move || (&*stream).read(&mut [0]).unwrap_err().kind()
        });
        greenhub::sleep(SHORT);
        listener.close();
        stream.close();
        assert_eq!(accepting.join().unwrap(), ErrorKind::NotConnected);
        assert_eq!(reading.join().unwrap(), ErrorKind::NotConnected);
    });
}

#[test]
fn the_shortest_timeout_stays_nonzero_in_std() {
    support::run("the_shortest_timeout_stays_nonzero_in_std", || {
        let (stream, _other) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_nanos(1))).unwrap();
        assert!(stream.into_std().unwrap().read_timeout().unwrap().is_some());
    });
}
