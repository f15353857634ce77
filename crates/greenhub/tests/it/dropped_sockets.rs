//! A hub keeps no socket open after its last owner, whatever the use before and the way of the release.

use std::cell::RefCell;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support::green::{LONG, SHORT};
use crate::support::hubs::{Tap, Watch, use_tapped_hub};
use crate::support::run;
use greenhub::hub::{Hub, Key};
use greenhub::net::{TcpListener, TcpStream, UdpSocket};
use greenhub::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use greenhub::park::Source;
use greenhub::thread::yield_now;
use greenhub::{Interest, get_hub, sleep, spawn, with_timeout};

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// The numbers that a hub watches, and the files that they named at their registration.
type Known = Rc<RefCell<Vec<(RawFd, PathBuf)>>>;

/// Records registrations.
struct Recorder(Known);

/// Returns the open file behind a number.
fn file(fd: RawFd) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{fd}")).expect("an open descriptor")
}

impl Tap for Recorder {
    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> io::Result<()> {
        let number = call.key.fd();
        call.forward(hub)?;
        let mut known = self.0.borrow_mut();
        known.retain(|(other, _)| *other != number);
        known.push((number, file(number)));
        Ok(())
    }
    fn forget(&mut self, hub: &mut dyn Hub, key: Key, fd: Option<BorrowedFd<'_>>) {
        let named = fd.map(|fd| file(fd.as_raw_fd()));
        // Every hub needs the open descriptor to deregister the file.
        self.0.borrow_mut().retain(|(number, file)| *number != key.fd() || named.as_ref() != Some(file));
        hub.forget(key, fd);
    }
}

/// Makes this OS thread use a hub that records registrations. The loop's own wake-up descriptor is not among them.
fn use_recording_hub() -> Known {
    let known = Known::default();
    use_tapped_hub(Recorder(known.clone()));
    sleep(SHORT);
    known.borrow_mut().clear();
    known
}

/// Returns whether a descriptor of this process refers to the file.
fn is_open(file: &PathBuf) -> bool {
    let listing = fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    listing.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).any(|link| link == *file)
}

#[track_caller]
fn assert_no_waiters() {
    let stats = get_hub().stats();
    assert_eq!((stats.readers, stats.writers, stats.timers), (0, 0, 0));
}

/// A use of a socket before its release.
struct Use {
    name: &'static str,
    make: fn(TcpStream, &mut TcpStream) -> TcpStream,
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(ANY).expect("a free port");
    let one = TcpStream::connect(listener.local_addr().expect("the listener has an address")).expect("a connection");
    (one, listener.accept().expect("a connection").0)
}

fn fill(mut socket: &TcpStream) {
    socket.set_write_timeout(Some(SHORT)).expect("a timeout");
    while socket.write(&[0; 1 << 16]).is_ok() {}
}

fn miss(mut socket: &TcpStream) {
    socket.set_read_timeout(Some(SHORT)).expect("a timeout");
    assert_eq!(socket.read(&mut [0]).expect_err("nothing came").kind(), ErrorKind::TimedOut);
}

/// Kills a green thread in a read of the socket.
fn kill_reader(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(LONG)).expect("a timeout");
    let socket = Rc::new(socket);
    let reads = socket.clone();
    let reader = spawn(move || (&*reads).read(&mut [0]));
    sleep(SHORT);
    reader.kill();
    drop(reader);
    Rc::into_inner(socket).expect("no other reference is left")
}

const USES: &[Use] = &[
    Use { name: "nothing", make: |socket, _| socket },
    Use {
        name: "a read that waited",
        make: |mut socket, peer| {
            let reader = spawn(move || {
                assert_eq!(socket.read(&mut [0]).expect("the read succeeds"), 1);
                socket
            });
            yield_now();
            peer.write_all(b"x").expect("the buffer has room");
            reader.join().expect("no panic")
        },
    },
    Use {
        name: "a read that timed out",
        make: |socket, _| {
            miss(&socket);
            socket
        },
    },
    Use {
        name: "a write that timed out",
        make: |socket, _| {
            fill(&socket);
            socket
        },
    },
    Use {
        name: "both directions",
        make: |socket, _| {
            miss(&socket);
            fill(&socket);
            socket
        },
    },
    Use { name: "a reader that was killed", make: |socket, _| kill_reader(socket) },
    Use {
        name: "a scope that timed out",
        make: |mut socket, _| {
            assert!(with_timeout(SHORT, || socket.read(&mut [0])).is_err());
            socket
        },
    },
];

/// Asserts that the peer of a closed socket is notified of the end.
#[track_caller]
fn assert_end_seen(mut peer: TcpStream, of: &str) {
    peer.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut buffer = [0; 1 << 16];
    loop {
        match peer.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{of}"),
        }
    }
}

#[test]
fn a_dropped_socket_is_forgotten_and_closed_at_once() {
    run("a_dropped_socket_is_forgotten_and_closed_at_once", || {
        let known = use_recording_hub();
        for Use { name, make } in USES {
            let (one, mut other) = pair();
            let one = make(one, &mut other);
            let file = file(one.as_raw_fd());
            drop(one);
            assert!(!known.borrow().iter().any(|(_, known)| *known == file), "{name}");
            assert!(!is_open(&file), "{name}");
            assert_end_seen(other, name);
            assert_no_waiters();
        }
    });
}

#[test]
fn a_closed_socket_is_forgotten_and_closed_at_once() {
    run("a_closed_socket_is_forgotten_and_closed_at_once", || {
        let known = use_recording_hub();
        for Use { name, make } in USES {
            let (one, mut other) = pair();
            let one = make(one, &mut other);
            let file = file(one.as_raw_fd());
            one.close();
            assert!(!known.borrow().iter().any(|(_, known)| *known == file), "{name}");
            assert!(!is_open(&file), "{name}");
            assert_end_seen(other, name);
            assert_no_waiters();
        }
    });
}

#[test]
fn a_socket_turned_into_its_descriptor_is_forgotten() {
    run("a_socket_turned_into_its_descriptor_is_forgotten", || {
        let known = use_recording_hub();
        for Use { name, make } in USES {
            let (one, mut other) = pair();
            let one = OwnedFd::from(make(one, &mut other));
            let file = file(one.as_raw_fd());
            assert!(!known.borrow().iter().any(|(_, known)| *known == file), "{name}");
            drop(one);
            assert!(!is_open(&file), "{name}");
            assert_end_seen(other, name);
        }
    });
}

#[test]
fn dropping_a_socket_keeps_the_registration_of_its_clone() {
    run("dropping_a_socket_keeps_the_registration_of_its_clone", || {
        let known = use_recording_hub();
        let (one, mut other) = pair();
        let mut clone = one.try_clone().unwrap();
        miss(&one);
        miss(&clone);
        let (number, file) = (one.as_raw_fd(), file(one.as_raw_fd()));
        drop(one);
        assert!(!known.borrow().iter().any(|(known, _)| *known == number));
        assert!(is_open(&file));
        clone.set_read_timeout(Some(LONG)).unwrap();
        let reader = spawn(move || clone.read(&mut [0]).map(|count| (count, clone)));
        yield_now();
        other.write_all(b"x").unwrap();
        let (count, clone) = reader.join().unwrap().unwrap();
        assert_eq!(count, 1);
        drop(clone);
        assert!(!is_open(&file));
        assert!(known.borrow().iter().all(|(_, known)| *known != file));
    });
}

#[test]
fn each_type_of_socket_is_forgotten_and_closed_when_dropped() {
    run("each_type_of_socket_is_forgotten_and_closed_when_dropped", || {
        /// Registers the socket by a wait that times out, and drops it.
        fn check<S: AsFd + AsRawFd>(known: &Known, socket: S, wait: impl FnOnce(&S) -> bool) {
            let (file, sort) = (file(socket.as_raw_fd()), std::any::type_name::<S>());
            assert!(with_timeout(SHORT, || wait(&socket)).is_err(), "{sort}");
            assert!(known.borrow().iter().any(|(_, known)| *known == file), "{sort}");
            // A lent descriptor is closed with the socket.
            let _ = socket.as_fd();
            drop(socket);
            assert!(!known.borrow().iter().any(|(_, known)| *known == file), "{sort}");
            assert!(!is_open(&file), "{sort}");
            assert_no_waiters();
        }
        let known = use_recording_hub();
        let (stream, _peer) = pair();
        check(&known, stream, |mut stream| stream.read(&mut [0]).is_ok());
        check(&known, TcpListener::bind(ANY).unwrap(), |listener| listener.accept().is_ok());
        check(&known, UdpSocket::bind(ANY).unwrap(), |socket| socket.recv_from(&mut [0]).is_ok());
        let (stream, _peer) = UnixStream::pair().unwrap();
        check(&known, stream, |mut stream| stream.read(&mut [0]).is_ok());
        let (socket, _peer) = UnixDatagram::pair().unwrap();
        check(&known, socket, |socket| socket.recv(&mut [0]).is_ok());
        let path = std::env::temp_dir().join(format!("greenhub-dropped-{}", std::process::id()));
        check(&known, UnixListener::bind(&path).unwrap(), |listener| listener.accept().is_ok());
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        fs::remove_file(path).unwrap();
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let source = Source::new(socket.into()).unwrap();
        let waker = source.waker();
        check(&known, source, |source| source.wait(Interest::READ, None).is_ok());
        assert!(waker.is_gone());
    });
}

#[test]
fn a_socket_dropped_on_another_os_thread_is_forgotten_and_closed() {
    run("a_socket_dropped_on_another_os_thread_is_forgotten_and_closed", || {
        let known = use_recording_hub();
        for Use { name, make } in USES {
            let (one, mut other) = pair();
            let one = make(one, &mut other);
            let file = file(one.as_raw_fd());
            std::thread::spawn(move || drop(one)).join().unwrap();
            // The release takes effect in the next turn of the hub that registered the socket.
            let begin = Instant::now();
            while is_open(&file) && begin.elapsed() < Duration::from_secs(60) {
                sleep(SHORT);
            }
            assert!(!is_open(&file), "{name}");
            assert!(!known.borrow().iter().any(|(_, known)| *known == file), "{name}");
            assert_end_seen(other, name);
        }
    });
}

#[test]
fn a_socket_used_on_another_os_thread_is_forgotten_by_its_first_hub() {
    run("a_socket_used_on_another_os_thread_is_forgotten_by_its_first_hub", || {
        let known = use_recording_hub();
        let (one, other) = pair();
        miss(&one);
        let file = file(one.as_raw_fd());
        let (one, other) = std::thread::spawn(move || {
            spawn(move || {
                miss(&one);
                (one, other)
            })
            .join()
            .unwrap()
        })
        .join()
        .unwrap();
        let begin = Instant::now();
        while known.borrow().iter().any(|(_, known)| *known == file) && begin.elapsed() < Duration::from_secs(60) {
            sleep(SHORT);
        }
        assert!(!known.borrow().iter().any(|(_, known)| *known == file));
        assert!(is_open(&file));
        drop(one);
        assert!(!is_open(&file));
        assert_end_seen(other, "used on two OS threads");
    });
}
