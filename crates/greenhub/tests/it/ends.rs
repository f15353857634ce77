//! The ends of connections as waiters observe them: hang-ups, shutdowns by either side, spurious readiness reports.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::{self, alone, hubs};
use greenhub::hub::Readiness;
use greenhub::net::{TcpListener, UdpSocket};
use greenhub::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use greenhub::park::Source;
use greenhub::{GreenPool, GreenThread, HubRef, Interest, trampoline, with_timeout};
use rustix::net::Shutdown as Shut;

/// The time after which a wait that should have ended fails its test.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `green` until it waits for a descriptor.
#[track_caller]
fn until_it_waits<T>(green: &GreenThread<T>) {
    for _ in 0..20 {
        greenhub::sleep(Duration::from_millis(1));
    }
    assert!(!green.is_finished(), "the operation does not wait");
}

/// Makes this OS thread use a hub with a manual clock, so that a wait for a report takes no time.
fn on_a_manual_clock() -> HubRef {
    hubs::use_manual_clock();
    greenhub::get_hub()
}

/// Joins `green`, and asserts that no time has passed.
#[track_caller]
fn at_once<T>(hub: &HubRef, green: GreenThread<T>) -> T {
    let before = hub.now();
    let result = green.join().unwrap();
    assert_eq!(hub.now(), before, "a timer has ended the wait, not a report");
    result
}

/// A path for one socket, whose file is removed on drop.
struct SocketPath(std::path::PathBuf);

impl SocketPath {
    fn new(name: &str) -> SocketPath {
        SocketPath(std::env::temp_dir().join(format!("greenhub-ends-{}-{name}", std::process::id())))
    }
}

impl AsRef<std::path::Path> for SocketPath {
    fn as_ref(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Returns a socket with an entry in its error queue. It is always ready, and has nothing to receive.
fn with_an_error_in_its_queue() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let on: libc::c_int = 1;
    // SAFETY: the socket is open, and the value has the given size.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, (&raw const on).cast(), 4) };
    assert_eq!(set, 0);
    let unbound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    socket.connect(unbound).unwrap();
    socket.send(b"x").unwrap();
    assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    socket
}

/// Returns a terminal in raw mode: the non-blocking controlling end, and the terminal itself.
fn terminal() -> (std::fs::File, OwnedFd) {
    let (mut near, mut far) = (0, 0);
    // SAFETY: `openpty` gets two valid pointers to write to and null for its options. On success both numbers are open
    // and have no other owner. `termios` is a plain C structure, which `tcgetattr` fills.
    unsafe {
        assert_eq!(libc::openpty(&mut near, &mut far, ptr::null_mut(), ptr::null_mut(), ptr::null_mut()), 0);
        let mut modes: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(far, &mut modes), 0);
        libc::cfmakeraw(&mut modes);
        assert_eq!(libc::tcsetattr(far, libc::TCSANOW, &modes), 0);
        let (near, far) = (OwnedFd::from_raw_fd(near), OwnedFd::from_raw_fd(far));
        rustix::io::ioctl_fionbio(&near, true).unwrap();
        (near.into(), far)
    }
}

#[test]
fn a_hang_up_wakes_a_writer_to_a_full_terminal() {
    support::run("a_hang_up_wakes_a_writer_to_a_full_terminal", || {
        let (near, far) = terminal();
        while (&near).write(&[b'x'; 1024]).is_ok() {}
        let writer = greenhub::spawn(move || trampoline(&near, Interest::WRITE, Some(LIMIT)).unwrap());
        until_it_waits(&writer);
        drop(far);
        assert!(writer.join().unwrap().contains(Readiness::HANGUP));
    });
}

#[test]
fn a_hang_up_by_the_peer_wakes_a_writer() {
    support::run("a_hang_up_by_the_peer_wakes_a_writer", || {
        for unread in [&b""[..], b"unread"] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(unread).unwrap();
            near.set_write_timeout(Some(LIMIT)).unwrap();
            let writer = greenhub::spawn(move || (&near).write_all(&[0; 1 << 24]).unwrap_err().kind());
            until_it_waits(&writer);
            far.shutdown(Shutdown::Both).unwrap();
            assert_eq!(writer.join().unwrap(), ErrorKind::BrokenPipe, "with {unread:?}");
        }
    });
}

#[test]
fn an_own_shutdown_wakes_the_waiters_of_every_clone_at_once() {
    support::run("an_own_shutdown_wakes_the_waiters_of_every_clone_at_once", || {
        let hub = on_a_manual_clock();
        for how in [Shutdown::Write, Shutdown::Both] {
            let (near, _far) = UnixStream::pair().unwrap();
            let clone = near.try_clone().unwrap();
            let writer = greenhub::spawn(move || (&clone).write_all(&[0; 1 << 24]).unwrap_err().kind());
            until_it_waits(&writer);
            near.shutdown(how).unwrap();
            assert_eq!(at_once(&hub, writer), ErrorKind::BrokenPipe, "{how:?}");
        }
        for how in [Shutdown::Read, Shutdown::Both] {
            let (near, _far) = UnixStream::pair().unwrap();
            let clone = near.try_clone().unwrap();
            let reader = greenhub::spawn(move || (&clone).read(&mut [0]).unwrap());
            until_it_waits(&reader);
            near.shutdown(how).unwrap();
            assert_eq!(at_once(&hub, reader), 0, "{how:?}");
        }
    });
}

#[test]
fn an_own_shutdown_wakes_a_sender_of_datagrams_at_once() {
    support::run("an_own_shutdown_wakes_a_sender_of_datagrams_at_once", || {
        let hub = on_a_manual_clock();
        let (near, _far) = UnixDatagram::pair().unwrap();
        let clone = near.try_clone().unwrap();
        let sender = greenhub::spawn(move || {
            loop {
                if let Err(error) = clone.send(b"x") {
                    return error.kind();
                }
            }
        });
        until_it_waits(&sender);
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(at_once(&hub, sender), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_shutdown_wakes_a_waiter_on_another_thread() {
    support::run("a_shutdown_wakes_a_waiter_on_another_thread", || {
        let (near, _far) = UnixStream::pair().unwrap();
        let clone = near.try_clone().unwrap();
        let writer = std::thread::spawn(move || (&clone).write_all(&[0; 1 << 24]).unwrap_err().kind());
        std::thread::sleep(Duration::from_millis(20));
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(writer.join().unwrap(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_waiter_on_another_thread_is_woken_by_the_source() {
    support::run("a_waiter_on_another_thread_is_woken_by_the_source", || {
        let (reader, _writer) = std::io::pipe().unwrap();
        let source = Arc::new(Source::new(reader.into()).unwrap());
        let waker = source.waker();
        let waiting = Arc::clone(&source);
        let (done, is_done) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            waiting.wait(Interest::READ, None).unwrap();
            done.send(()).unwrap();
        });
        // The green thread may not wait yet, so the waker is called repeatedly.
        while is_done.recv_timeout(Duration::from_millis(10)).is_err() {
            waker.wake(Interest::WRITE);
            assert!(is_done.try_recv().is_err(), "a wake-up of writers has ended the wait of a reader");
            source.wake(Interest::READ);
        }
        waiter.join().unwrap();
        assert!(!waker.is_gone());
        drop(source);
        assert!(waker.is_gone());
    });
}

#[test]
fn a_shutdown_of_the_peers_read_side_wakes_a_writer() {
    support::run("a_shutdown_of_the_peers_read_side_wakes_a_writer", || {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_write_timeout(Some(LIMIT)).unwrap();
        let writer = greenhub::spawn(move || (&near).write_all(&[0; 1 << 24]).unwrap_err().kind());
        until_it_waits(&writer);
        far.shutdown(Shutdown::Read).unwrap();
        assert_eq!(writer.join().unwrap(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_shutdown_of_the_peers_read_side_wakes_a_sender_of_datagrams() {
    support::run("a_shutdown_of_the_peers_read_side_wakes_a_sender_of_datagrams", || {
        let path = SocketPath::new("deaf");
        let (near, far) = (UnixDatagram::unbound().unwrap(), UnixDatagram::bind(&path).unwrap());
        near.connect(&path).unwrap();
        near.set_write_timeout(Some(LIMIT)).unwrap();
        let sender = greenhub::spawn(move || {
            loop {
                if let Err(error) = near.send(b"x") {
                    return error.kind();
                }
            }
        });
        until_it_waits(&sender);
        far.shutdown(Shutdown::Read).unwrap();
        assert_eq!(sender.join().unwrap(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn the_write_timeout_of_a_unix_socket_holds_across_retries() {
    support::run("the_write_timeout_of_a_unix_socket_holds_across_retries", || {
        let hub = on_a_manual_clock();
        const TIMEOUT: Duration = Duration::from_millis(700);
        let (near, _far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        while (&near).write(&[0; 4096]).is_ok() {}
        near.set_nonblocking(false).unwrap();
        near.set_write_timeout(Some(TIMEOUT)).unwrap();
        let begun = hub.now();
        assert_eq!((&near).write(b"x").unwrap_err().kind(), ErrorKind::TimedOut);
        let took = hub.now() - begun;
        assert!(took >= TIMEOUT && took < TIMEOUT * 2, "{took:?}");
    });
}

#[test]
fn closing_the_receiver_wakes_a_sender_that_waits_for_room() {
    support::run("closing_the_receiver_wakes_a_sender_that_waits_for_room", || {
        let hub = on_a_manual_clock();
        let path = SocketPath::new("full");
        let _receiver = UnixDatagram::bind(&path).unwrap();
        let sender = Rc::new(UnixDatagram::unbound().unwrap());
        let sending = greenhub::spawn({
            let (sender, path) = (Rc::clone(&sender), path.0.clone());
            move || loop {
                if let Err(error) = sender.send_to(b"x", &path) {
                    return error.kind();
                }
            }
        });
        until_it_waits(&sending);
        sender.close();
        assert_eq!(at_once(&hub, sending), ErrorKind::NotConnected);
    });
}

#[test]
fn accepting_from_a_listener_that_is_shut_down_fails_each_time() {
    support::run("accepting_from_a_listener_that_is_shut_down_fails_each_time", || {
        let path = SocketPath::new("accept");
        let listener = Rc::new(UnixListener::bind(&path).unwrap());
        let _pending = UnixStream::connect(&path).unwrap();
        let accepting = greenhub::spawn({
            let listener = Rc::clone(&listener);
            move || [(); 4].map(|()| listener.accept().map(drop).map_err(|error| error.kind()))
        });
        until_it_waits(&accepting);
        rustix::net::shutdown(&*listener, Shut::Both).unwrap();
        let invalid = Err(ErrorKind::InvalidInput);
        assert_eq!(accepting.join().unwrap(), [Ok(()), invalid, invalid, invalid]);
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "as in std");
    });
}

#[test]
fn serving_a_listener_that_is_shut_down_ends() {
    support::run("serving_a_listener_that_is_shut_down_ends", || {
        let path = SocketPath::new("serve");
        let unix = Rc::new(UnixListener::bind(&path).unwrap());
        let tcp = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let serving = [
            greenhub::spawn({
                let unix = Rc::clone(&unix);
                move || greenhub::net::serve(&*unix, &GreenPool::new(1), |_, _| ()).is_err()
            }),
            greenhub::spawn({
                let tcp = Rc::clone(&tcp);
                move || greenhub::net::serve(&*tcp, &GreenPool::new(1), |_, _| ()).is_err()
            }),
        ];
        serving.iter().for_each(until_it_waits);
        rustix::net::shutdown(&*unix, Shut::Both).unwrap();
        rustix::net::shutdown(&*tcp, Shut::Both).unwrap();
        assert_eq!(serving.map(|server| server.join().unwrap()), [true, true]);
    });
}

#[test]
fn receiving_from_a_socket_that_is_shut_down_ends_each_time() {
    support::run("receiving_from_a_socket_that_is_shut_down_ends_each_time", || {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        near.connect(far.local_addr().unwrap()).unwrap();
        let near = Rc::new(near);
        let receiving = greenhub::spawn({
            let near = Rc::clone(&near);
            move || [near.recv(&mut [0]), near.peek(&mut [0]), near.recv(&mut [0])].map(Result::unwrap)
        });
        until_it_waits(&receiving);
        rustix::net::shutdown(&*near, Shut::Read).unwrap();
        assert_eq!(receiving.join().unwrap(), [0; 3]);
    });
}

#[test]
fn spurious_readiness_reports_cost_few_turns() {
    support::run("spurious_readiness_reports_cost_few_turns", || {
        let hub = on_a_manual_clock();
        let socket = with_an_error_in_its_queue();
        let receiver = greenhub::spawn(move || socket.recv(&mut [0]).map_err(|error| error.kind()));
        until_it_waits(&receiver);
        let turns = hub.stats().turns;
        greenhub::sleep(Duration::from_secs(2));
        let turns = hub.stats().turns - turns;
        assert!(turns < 200, "{turns} turns in two seconds");
        assert!(!receiver.is_finished(), "as in std, there is nothing to receive");
        receiver.kill();
    });
}

#[test]
fn data_is_received_while_the_error_queue_is_not_empty() {
    support::run("data_is_received_while_the_error_queue_is_not_empty", || {
        let socket = with_an_error_in_its_queue();
        let sender = UdpSocket::bind(socket.peer_addr().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let receiver = greenhub::spawn(move || socket.recv(&mut [0; 8]).unwrap());
        until_it_waits(&receiver);
        sender.send_to(b"abc", address).unwrap();
        assert_eq!(receiver.join().unwrap(), 3);
    });
}

#[test]
fn a_read_timeout_holds_despite_spurious_reports() {
    support::run("a_read_timeout_holds_despite_spurious_reports", || {
        let hub = on_a_manual_clock();
        const TIMEOUT: Duration = Duration::from_millis(700);
        let socket = with_an_error_in_its_queue();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let begun = hub.now();
        assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        let took = hub.now() - begun;
        assert!(took >= TIMEOUT && took < TIMEOUT * 2, "{took:?}");
    });
}

#[test]
fn every_exit_strikes_despite_spurious_reports() {
    support::run("every_exit_strikes_despite_spurious_reports", || {
        let hub = on_a_manual_clock();
        let socket = Rc::new(with_an_error_in_its_queue());
        let receive = {
            let socket = Rc::clone(&socket);
            move || socket.recv(&mut [0]).map_err(|error| error.kind())
        };
        let killed = greenhub::spawn(receive.clone());
        until_it_waits(&killed);
        killed.kill();
        assert!(killed.join().is_err());
        assert!(with_timeout(Duration::from_millis(300), receive.clone()).is_err());
        let closed = greenhub::spawn(receive);
        until_it_waits(&closed);
        socket.close();
        assert_eq!(at_once(&hub, closed), Err(ErrorKind::NotConnected));
    });
}

#[test]
fn a_waiter_that_pauses_keeps_its_place() {
    alone("a_waiter_that_pauses_keeps_its_place", || {
        on_a_manual_clock();
        let socket = Rc::new(with_an_error_in_its_queue());
        let receive = {
            let socket = Rc::clone(&socket);
            move || socket.recv(&mut [0; 8]).map_err(|error| error.kind())
        };
        let first = greenhub::spawn(receive.clone());
        until_it_waits(&first);
        for _ in 0..10 {
            assert_eq!(greenhub::spawn(receive.clone()).join().unwrap(), Err(ErrorKind::ResourceBusy));
            greenhub::sleep(Duration::from_millis(7));
        }
        greenhub::debug::hub_prevent_multiple_readers(false);
        let second = greenhub::spawn(receive);
        until_it_waits(&second);
        let sender = UdpSocket::bind(socket.peer_addr().unwrap()).unwrap();
        for _ in 0..2 {
            sender.send_to(b"abc", socket.local_addr().unwrap()).unwrap();
        }
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (Ok(3), Ok(3)));
    });
}

#[test]
fn a_wait_while_unwinding_ends_despite_spurious_reports() {
    support::run("a_wait_while_unwinding_ends_despite_spurious_reports", || {
        struct ReceiveOnDrop(UdpSocket, Rc<Cell<Option<ErrorKind>>>);
        impl Drop for ReceiveOnDrop {
            fn drop(&mut self) {
                self.1.set(self.0.recv(&mut [0]).err().map(|error| error.kind()));
            }
        }
        let result = Rc::new(Cell::new(None));
        let receiver = ReceiveOnDrop(with_an_error_in_its_queue(), Rc::clone(&result));
        let panicking = greenhub::spawn(move || {
            let _receiver = receiver;
            std::panic::resume_unwind(Box::new("unwinds without a report"));
        });
        assert!(panicking.join().is_err());
        assert_eq!(result.get(), Some(ErrorKind::TimedOut));
    });
}
