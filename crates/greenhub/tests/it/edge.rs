//! Sockets over an edge-triggered hub, which reports each arrival once: no data may stay unread forever.

#![cfg(all(feature = "epoll", target_os = "linux"))]

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::support;
use greenhub::net::{TcpListener, TcpStream, UdpSocket};
use greenhub::os::unix::net::UnixStream;
use hub_epoll::{EpollHub, Paths, Trigger};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

fn run(name: &str, test: impl FnOnce() + Send + 'static) {
    support::run(name, || {
        greenhub::use_hub_with(|| EpollHub::with(Paths { trigger: Trigger::Edge, ..Paths::default() })).unwrap();
        test();
    });
}

/// Returns a pair whose first end is registered already, by a read that had to wait. Then `data` arrives all at once.
fn pair_with(data: &'static [u8]) -> (UnixStream, UnixStream) {
    let (mut here, mut there) = UnixStream::pair().unwrap();
    let writer = greenhub::spawn(move || {
        there.write_all(b"x").unwrap();
        greenhub::sleep(Duration::from_millis(5));
        there.write_all(data).unwrap();
        there
    });
    assert_eq!(here.read(&mut [0; 2]).unwrap(), 1);
    (here, writer.join().unwrap())
}

#[test]
fn reads_of_one_byte_get_all_bytes() {
    run("reads_of_one_byte_get_all_bytes", || {
        let (mut here, _there) = pair_with(b"0123456789");
        for expected in b'0'..=b'9' {
            let mut byte = [0];
            here.read_exact(&mut byte).unwrap();
            assert_eq!(byte[0], expected);
        }
    });
}

#[test]
fn vectored_reads_of_few_bytes_get_all_bytes() {
    run("vectored_reads_of_few_bytes_get_all_bytes", || {
        let (mut here, _there) = pair_with(b"012345678");
        let mut received = Vec::<u8>::new();
        while received.len() < 9 {
            let (mut one, mut two) = ([0; 1], [0; 2]);
            let n = here.read_vectored(&mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)]).unwrap();
            received.extend([one[0], two[0], two[1]].iter().take(n));
        }
        assert_eq!(received, b"012345678");
    });
}

#[test]
fn an_empty_read_takes_nothing_away() {
    run("an_empty_read_takes_nothing_away", || {
        let (mut here, _there) = pair_with(b"ab");
        assert_eq!(here.read(&mut []).unwrap(), 0);
        assert_eq!(here.read(&mut [0; 4]).unwrap(), 2);
    });
}

#[test]
fn a_peek_takes_nothing_away() {
    run("a_peek_takes_nothing_away", || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let reader = greenhub::spawn(move || {
            let mut buffer = [0; 8];
            (client.peek(&mut buffer).unwrap(), client.peek(&mut buffer).unwrap(), (&client).read(&mut buffer).unwrap())
        });
        greenhub::sleep(Duration::from_millis(5));
        peer.write_all(b"abc").unwrap();
        assert_eq!(reader.join().unwrap(), (3, 3, 3));
    });
}

#[test]
fn datagrams_of_one_arrival_are_all_received() {
    run("datagrams_of_one_arrival_are_all_received", || {
        let here = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let there = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        there.connect(here.local_addr().unwrap()).unwrap();
        let receiver = greenhub::spawn(move || (0..20).map(|_| here.recv(&mut [0; 8]).unwrap()).sum::<usize>());
        greenhub::sleep(Duration::from_millis(5));
        for _ in 0..20 {
            there.send(b"ab").unwrap();
        }
        assert_eq!(receiver.join().unwrap(), 40);
    });
}

#[test]
fn connections_of_one_arrival_are_all_accepted() {
    run("connections_of_one_arrival_are_all_accepted", || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = greenhub::spawn(move || listener.incoming().take(20).filter(|peer| peer.is_ok()).count());
        greenhub::sleep(Duration::from_millis(5));
        let clients: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        assert_eq!(server.join().unwrap(), clients.len());
    });
}

#[test]
fn the_end_is_seen_after_the_last_data() {
    run("the_end_is_seen_after_the_last_data", || {
        let (mut here, there) = pair_with(b"ab");
        drop(there);
        let mut rest = Vec::new();
        here.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"ab");
    });
}

#[test]
fn data_behind_an_urgent_mark_is_read() {
    run("data_behind_an_urgent_mark_is_read", || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let sender = greenhub::spawn(move || {
            greenhub::sleep(Duration::from_millis(1));
            rustix::net::send(&client, b"abc", rustix::net::SendFlags::OOB).unwrap();
            client.write_all(b"def").unwrap();
            client
        });
        let (mut got, mut buffer) = (Vec::new(), [0; 64]);
        while got.len() < 5 {
            let n = peer.read(&mut buffer).expect("the peer has data behind the mark");
            got.extend_from_slice(&buffer[..n]);
        }
        assert_eq!(got, b"abdef");
        drop(sender.join());
    });
}

#[test]
fn data_behind_a_sent_descriptor_is_read() {
    run("data_behind_a_sent_descriptor_is_read", || {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let sender = greenhub::spawn(move || {
            greenhub::sleep(Duration::from_millis(1));
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut along = SendAncillaryBuffer::new(&mut space);
            let sent = [there.as_fd()];
            assert!(along.push(SendAncillaryMessage::ScmRights(&sent)));
            sendmsg(&there, &[IoSlice::new(b"x")], &mut along, SendFlags::empty()).unwrap();
            (&there).write_all(b"y").unwrap();
            there.try_clone().unwrap()
        });
        let (mut got, mut buffer) = (Vec::new(), [0; 64]);
        while got.len() < 2 {
            let n = here.read(&mut buffer).expect("the socket has data behind the descriptor");
            got.extend_from_slice(&buffer[..n]);
        }
        assert_eq!(got, b"xy");
        drop(sender.join());
    });
}
