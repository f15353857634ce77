//! UDP: std's behaviour on both implementations, and the extensions.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support;
use greenhub::net::UdpSocket;

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const SHORT: Duration = Duration::from_millis(20);

same_as_std! {
    fn datagrams_keep_their_bounds_and_their_sender() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        let other = net::UdpSocket::bind(ANY).unwrap();
        let address = one.local_addr().unwrap();
        assert_eq!(other.send_to(b"first", address).unwrap(), 5);
        assert_eq!(other.send_to(b"", address).unwrap(), 0);
        assert_eq!(other.send_to(b"third", address).unwrap(), 5);
        let mut buffer = [0; 16];
        for expected in [&b"first"[..], b"", b"third"] {
            let (n, from) = one.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..n], from), (expected, other.local_addr().unwrap()));
        }
    }

    fn data_beyond_the_buffer_is_lost() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        let other = net::UdpSocket::bind(ANY).unwrap();
        other.send_to(b"12345", one.local_addr().unwrap()).unwrap();
        other.send_to(b"6", one.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 3];
        assert_eq!(one.recv_from(&mut buffer).unwrap().0, 3);
        assert_eq!(&buffer, b"123");
        assert_eq!(one.recv(&mut buffer).unwrap(), 1);
    }

    fn a_connected_socket_knows_its_peer() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        let other = net::UdpSocket::bind(ANY).unwrap();
        assert_eq!(one.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(one.send(b"x").is_err());
        one.connect(other.local_addr().unwrap()).unwrap();
        other.connect(one.local_addr().unwrap()).unwrap();
        assert_eq!(one.peer_addr().unwrap(), other.local_addr().unwrap());
        one.send(b"ping").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(other.peek(&mut buffer).unwrap(), 4);
        assert_eq!(other.recv(&mut buffer).unwrap(), 4);
    }

    fn peek_leaves_the_datagram() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        let other = net::UdpSocket::bind(ANY).unwrap();
        other.send_to(b"abc", one.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(one.peek_from(&mut buffer).unwrap(), (3, other.local_addr().unwrap()));
        assert_eq!(one.recv_from(&mut buffer).unwrap(), (3, other.local_addr().unwrap()));
    }

    fn a_receive_times_out() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        one.set_read_timeout(Some(SHORT)).unwrap();
        let begun = Instant::now();
        assert_eq!(one.recv_from(&mut [0]).unwrap_err().kind(), TIMED_OUT);
        assert!(begun.elapsed() >= SHORT);
        assert_eq!(one.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    fn a_nonblocking_socket_returns_would_block() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        one.set_nonblocking(true).unwrap();
        assert_eq!(one.recv_from(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    fn options_are_kept() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        assert!(!one.broadcast().unwrap());
        one.set_broadcast(true).unwrap();
        assert!(one.broadcast().unwrap());
        one.set_ttl(9).unwrap();
        assert_eq!(one.ttl().unwrap(), 9);
        one.set_multicast_ttl_v4(5).unwrap();
        assert_eq!(one.multicast_ttl_v4().unwrap(), 5);
        one.set_multicast_loop_v4(false).unwrap();
        assert!(!one.multicast_loop_v4().unwrap());
        assert!(one.multicast_loop_v6().is_err());
        assert!(one.take_error().unwrap().is_none());
    }

    fn a_group_is_joined_and_left_once() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        let group = Ipv4Addr::new(224, 0, 0, 251);
        one.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
        one.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!(
            one.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap_err().kind(),
            ErrorKind::AddrNotAvailable
        );
    }

    fn sending_nowhere_is_an_error() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        let none: &[SocketAddr] = &[];
        assert_eq!(one.send_to(b"x", none).unwrap_err().kind(), ErrorKind::InvalidInput);
        let six: SocketAddr = "[::1]:9".parse().unwrap();
        assert!(one.send_to(b"x", six).is_err());
    }

    fn a_clone_and_its_original_share_the_datagrams() {
        let one = net::UdpSocket::bind(ANY).unwrap();
        let clone = one.try_clone().unwrap();
        let address = one.local_addr().unwrap();
        let waiting = thread::spawn(move || clone.recv(&mut [0; 8]).unwrap());
        net::UdpSocket::bind(ANY).unwrap().send_to(b"abc", address).unwrap();
        assert_eq!(waiting.join().unwrap(), 3);
    }
}

#[test]
fn others_run_while_a_receive_waits() {
    support::run("others_run_while_a_receive_waits", || {
        let one = UdpSocket::bind(ANY).unwrap();
        let address = one.local_addr().unwrap();
        let receiver = greenhub::spawn(move || one.recv(&mut [0; 8]).unwrap());
        greenhub::sleep(SHORT);
        assert!(!receiver.is_finished());
        UdpSocket::bind(ANY).unwrap().send_to(b"abc", address).unwrap();
        assert_eq!(receiver.join().unwrap(), 3);
    });
}

#[test]
fn closing_wakes_the_receiver() {
    support::run("closing_wakes_the_receiver", || {
        let one = Rc::new(UdpSocket::bind(ANY).unwrap());
        let receiver = greenhub::spawn({
            let one = Rc::clone(&one);
            move || one.recv(&mut [0; 8]).unwrap_err().kind()
        });
        greenhub::sleep(SHORT);
        one.close();
        assert_eq!(receiver.join().unwrap(), ErrorKind::NotConnected);
    });
}

#[test]
fn all_queued_datagrams_are_received_without_a_new_one() {
    support::run("all_queued_datagrams_are_received_without_a_new_one", || {
        let one = UdpSocket::bind(ANY).unwrap();
        let other = UdpSocket::bind(ANY).unwrap();
        let address = one.local_addr().unwrap();
        let receiver = greenhub::spawn(move || (0..50).map(|_| one.recv(&mut [0; 8]).unwrap()).sum::<usize>());
        greenhub::sleep(SHORT);
        for _ in 0..50 {
            other.send_to(b"ab", address).unwrap();
        }
        assert_eq!(receiver.join().unwrap(), 100);
    });
}
