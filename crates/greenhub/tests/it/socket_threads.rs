//! Sockets that OS threads hand over, close and drop while they are in use.

use std::cell::RefCell;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::support;
use greenhub::os::unix::net::UnixStream;

#[test]
fn closing_at_any_moment_wakes_the_reader_on_another_thread() {
    support::run("closing_at_any_moment_wakes_the_reader_on_another_thread", || {
        let (send, receive) = mpsc::channel::<Arc<UnixStream>>();
        let closer = std::thread::spawn(move || {
            for (i, stream) in receive.iter().enumerate() {
                for _ in 0..i % 64 {
                    std::hint::spin_loop();
                }
                if i % 16 == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
                stream.close();
            }
        });
        for _ in 0..2000 {
            let (here, _there) = UnixStream::pair().unwrap();
            let here = Arc::new(here);
            send.send(Arc::clone(&here)).unwrap();
            let error = (&*here).read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
        }
        drop(send);
        closer.join().unwrap();
        assert_eq!(greenhub::get_hub().stats().readers, 0);
    });
}

#[test]
fn a_socket_moved_around_a_ring_keeps_its_data_in_order() {
    support::run("a_socket_moved_around_a_ring_keeps_its_data_in_order", || {
        const THREADS: usize = 3;
        const ROUNDS: u8 = 200;
        let (stream, mut source) = UnixStream::pair().unwrap();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel::<(u8, UnixStream)>()).unzip();
        senders[0].send((0, stream)).unwrap();
        let threads: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(i, receiver)| {
                let next = senders[(i + 1) % THREADS].clone();
                std::thread::spawn(move || {
                    for (expected, mut stream) in receiver {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        assert_eq!(byte[0], expected);
                        if expected + 1 == ROUNDS || next.send((expected + 1, stream)).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        for byte in 0..ROUNDS {
            source.write_all(&[byte]).unwrap();
            if byte % 3 == 0 {
                greenhub::sleep(Duration::from_micros(300));
            }
        }
        drop(senders);
        // The OS thread that read the last byte has dropped its sender, so the others end in turn.
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn sockets_dropped_on_other_threads_leave_no_descriptor_open() {
    const TEST: &str = "sockets_dropped_on_other_threads_leave_no_descriptor_open";
    if !support::is_child() {
        let output = support::rerun(TEST, |_| {});
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    support::run(TEST, || {
        greenhub::sleep(Duration::from_millis(1));
        let (send, receive) = mpsc::channel::<UnixStream>();
        let dropper = std::thread::spawn(move || receive.iter().for_each(drop));
        let before = support::open_descriptors();
        for i in 0..500_u32 {
            let (mut here, mut there) = UnixStream::pair().unwrap();
            // The wait registers the socket with this thread's hub.
            here.set_read_timeout(Some(Duration::from_micros(10))).unwrap();
            assert!(here.read(&mut [0]).is_err());
            send.send(here).unwrap();
            // The number may be reused only after this hub has deregistered it.
            assert_eq!(there.read(&mut [0]).unwrap(), 0, "round {i}");
        }
        drop(send);
        dropper.join().unwrap();
        greenhub::sleep(Duration::from_millis(1));
        assert_eq!(support::open_descriptors(), before);
    });
}

#[test]
fn a_flush_after_the_end_of_the_hub_arrives() {
    thread_local! {
        static LAST: RefCell<Option<BufWriter<UnixStream>>> = const { RefCell::new(None) };
    }
    support::run("a_flush_after_the_end_of_the_hub_arrives", || {
        let (here, mut there) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            // Initialized first, so destroyed last, after the state of the hub.
            LAST.with(|_| ());
            greenhub::sleep(Duration::from_millis(1));
            let mut writer = BufWriter::new(here);
            writer.write_all(b"bye").unwrap();
            LAST.set(Some(writer));
        });
        thread.join().unwrap();
        let mut received = String::new();
        there.read_to_string(&mut received).unwrap();
        assert_eq!(received, "bye");
    });
}
