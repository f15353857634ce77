//! Reports of sockets that are registered once for their life.
//!
//! The tests hold on every hub. They guard against faults of the level-triggered epoll hub.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use crate::support::descriptors::{
    assert_no_waiters, assert_other_end_closed, fill, ms, pair, read, read_within, source, stats, until, write,
};
use crate::support::{in_child, limited};
use greenhub::thread::yield_now;
use greenhub::{Interest, get_hub, sleep, spawn, trampoline, with_timeout};

#[test]
fn data_left_by_a_short_read_is_reported_again() {
    limited(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        write(&there, b"abc").expect("the buffer has room");
        for byte in [b"a", b"b", b"c"] {
            assert_eq!(read_within(&here, 1, Some(Duration::from_secs(60))).expect("left over"), byte);
        }
        assert_eq!(read_within(&here, 1, Some(ms(1))).expect_err("used up").kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_report_without_a_waiter_comes_once_and_is_not_lost() {
    limited(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        for round in 0..5 {
            write(&there, b"x").expect("the buffer has room");
            let waits = stats().waits;
            sleep(ms(20));
            let waits = stats().waits - waits;
            assert!(waits <= 6, "{waits} waits for one sleep in round {round}");
            assert_eq!(read_within(&here, 8, Some(Duration::from_secs(60))).expect("reported again"), b"x");
        }
    });
}

#[test]
fn a_hang_up_without_a_waiter_does_not_spin() {
    limited(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        fill(&here);
        here.wait(Interest::WRITE, Some(ms(1))).expect_err("no room");
        drop(there);
        let waits = stats().waits;
        sleep(ms(20));
        let waits = stats().waits - waits;
        assert!(waits <= 6, "{waits} waits for one sleep");
        assert_other_end_closed(&here);
    });
}

#[test]
fn a_read_after_the_end_returns_the_end_each_time() {
    limited(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("the listener has room");
        let (peer, _) = listener.accept().expect("the accept succeeds");
        let client = source(client);
        client.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        io::Write::write_all(&mut &peer, b"last words").expect("the buffer has room");
        peer.shutdown(Shutdown::Write).expect("a half close");
        assert_eq!(read(&client, 64).expect("the read succeeds"), b"last words");
        for _ in 0..3 {
            assert_eq!(read_within(&client, 64, Some(Duration::from_secs(60))).expect("the end"), b"");
        }
    });
}

#[test]
fn the_end_comes_after_data_read_in_pieces() {
    limited(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        write(&there, b"abc").expect("the buffer has room");
        drop(there);
        let mut all = Vec::new();
        loop {
            let piece = read_within(&here, 2, Some(Duration::from_secs(60))).expect("the read succeeds");
            if piece.is_empty() {
                break;
            }
            all.extend(piece);
        }
        assert_eq!(all, b"abc");
    });
}

#[test]
fn a_full_socket_blocks_its_writer_until_there_is_room() {
    limited(|| {
        let (here, there) = pair();
        let mut left = fill(&here) + 4;
        let writer = spawn(move || {
            let count = write(&here, b"more").expect("the buffer has room");
            assert_eq!(count, 4);
        });
        sleep(ms(2));
        assert!(!writer.is_finished());
        assert_eq!(stats().writers, 1);
        while left > 0 {
            left -= read(&there, 1 << 20).expect("the read succeeds").len();
        }
        writer.join().expect("no panic");
        assert_no_waiters();
    });
}

#[test]
fn data_flows_in_both_directions_at_once() {
    limited(|| {
        const TOTAL: usize = 1 << 20;
        let (here, there) = pair();
        let ends = [Rc::new(here), Rc::new(there)];
        let workers: Vec<_> = ends
            .iter()
            .flat_map(|end| {
                let (from, to) = (Rc::clone(end), Rc::clone(end));
                let sender = spawn(move || {
                    let mut sent = 0;
                    while sent < TOTAL {
                        let chunk: Vec<u8> =
                            (sent..(sent + 5000).min(TOTAL)).map(|index| (index % 251) as u8).collect();
                        sent += write(&to, &chunk).expect("the buffer has room");
                    }
                });
                let receiver = spawn(move || {
                    let mut got = 0;
                    while got < TOTAL {
                        let chunk = read(&from, 3000).expect("the read succeeds");
                        assert!(chunk.iter().enumerate().all(|(index, byte)| *byte == ((got + index) % 251) as u8));
                        got += chunk.len();
                    }
                });
                [sender, receiver]
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("whole and in order"));
        assert_no_waiters();
    });
}

#[test]
fn a_killed_or_timed_out_waiter_leaves_its_socket_usable() {
    limited(|| {
        let (here, there) = pair();
        let here = Rc::new(here);
        for end in 0..3 {
            let waiter = spawn({
                let here = Rc::clone(&here);
                move || match end {
                    0 => drop(read(&here, 8)),
                    1 => drop(read_within(&here, 8, Some(ms(1)))),
                    _ => drop(with_timeout(ms(1), || read(&here, 8))),
                }
            });
            yield_now();
            assert_eq!(stats().readers, 1);
            if end == 0 {
                waiter.kill();
            }
            let _ = waiter.join();
            assert_no_waiters();
            assert_eq!(stats().timers, 0);
            write(&there, b"x").expect("the buffer has room");
            assert_eq!(read_within(&here, 8, Some(Duration::from_secs(60))).expect("the read succeeds"), b"x");
        }
    });
}

#[test]
fn a_timeout_covers_all_parks_of_an_operation() {
    limited(|| {
        let (here, there) = pair();
        let teaser = spawn(move || {
            loop {
                write(&there, b"x").expect("the buffer has room");
                sleep(ms(5));
            }
        });
        // Each byte wakes the waiter, but the operation reports `WouldBlock` every time.
        let error = here
            .read(Some(ms(60)), |fd| -> io::Result<((), greenhub::park::ReadHint)> {
                rustix::io::read(fd, &mut [0; 8])?;
                Err(io::ErrorKind::WouldBlock.into())
            })
            .expect_err("timed out");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        teaser.kill();
    });
}

#[test]
fn a_nonblocking_socket_never_waits() {
    limited(|| {
        let (here, there) = pair();
        here.set_nonblocking(true);
        assert!(here.is_nonblocking());
        let turns = stats().turns;
        for _ in 0..3 {
            assert_eq!(read(&here, 8).expect_err("nothing yet").kind(), io::ErrorKind::WouldBlock);
        }
        assert_eq!(stats().turns, turns);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"x");
        here.set_nonblocking(false);
        assert_eq!(read_within(&here, 8, Some(ms(1))).expect_err("the wait times out").kind(), io::ErrorKind::TimedOut);
        // An earlier readiness hint does not hide data that has arrived since.
        here.set_nonblocking(true);
        write(&there, b"y").expect("the buffer has room");
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"y");
    });
}

#[test]
fn connections_of_one_arrival_are_all_accepted() {
    limited(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let listener = source(listener);
        listener.wait(Interest::READ, Some(ms(1))).expect_err("no connection yet");
        let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).expect("the listener has room")).collect();
        for _ in &clients {
            listener
                .read(Some(Duration::from_secs(60)), |fd| {
                    Ok((rustix::net::accept(fd)?, greenhub::park::ReadHint::Likely))
                })
                .expect("the accept succeeds");
        }
        let none = listener.read(Some(ms(1)), |fd| Ok((rustix::net::accept(fd)?, greenhub::park::ReadHint::Likely)));
        assert_eq!(none.expect_err("no more").kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_number_reused_at_once_never_wakes_the_old_reader() {
    in_child(|| {
        for _ in 0..200 {
            let (old, _old_peer) = pair();
            let old = Rc::new(old);
            let reader = spawn({
                let old = Rc::clone(&old);
                move || read(&old, 8).map_err(|error| error.kind())
            });
            yield_now();
            old.close();
            let (new, new_peer) = pair();
            write(&new_peer, b"for the new one").expect("the buffer has room");
            assert_eq!(reader.join().expect("no panic"), Err(io::ErrorKind::NotConnected));
            drop(old);
            assert_eq!(read(&new, 64).expect("the read succeeds"), b"for the new one");
        }
        assert_no_waiters();
    });
}

#[test]
fn reports_of_a_duplicated_old_file_wake_no_new_waiter() {
    in_child(|| {
        let (here, there) = UnixStream::pair().expect("a pair");
        // The duplicate keeps the closed number's registration alive in the kernel.
        let copy = here.try_clone().expect("a copy");
        let old = source(here);
        old.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        drop(old);
        let (new, new_peer) = pair();
        io::Write::write_all(&mut &there, b"for the old one").expect("the buffer has room");
        let waits = stats().waits;
        assert_eq!(read_within(&new, 8, Some(ms(20))).expect_err("the wait times out").kind(), io::ErrorKind::TimedOut);
        assert!(stats().waits - waits <= 6);
        write(&new_peer, b"x").expect("the buffer has room");
        assert_eq!(read(&new, 8).expect("the read succeeds"), b"x");
        drop(copy);
    });
}

#[test]
fn a_wait_and_a_trampoline_share_a_socket() {
    limited(|| {
        let (here, there) = pair();
        fill(&here);
        let here = Rc::new(here);
        here.wait(Interest::WRITE, Some(ms(1))).expect_err("no room");
        let reader = spawn({
            let here = Rc::clone(&here);
            move || trampoline(&*here, Interest::READ, None)
        });
        yield_now();
        write(&there, b"x").expect("the buffer has room");
        assert!(reader.join().expect("no panic").is_ok());
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"x");
        // The trampoline's wait has not disarmed the other direction.
        let drained = spawn(move || {
            sleep(ms(1));
            read(&there, 1 << 22).map(|_| there)
        });
        here.wait(Interest::WRITE, Some(Duration::from_secs(60))).expect("the descriptor becomes writable");
        drop(drained.join());
    });
}

#[test]
fn a_destructor_may_write_while_panicking() {
    limited(|| {
        struct Farewell(greenhub::park::Source);
        impl Drop for Farewell {
            fn drop(&mut self) {
                assert_eq!(write(&self.0, b"bye").expect("the buffer has room"), 3);
                let late = read_within(&self.0, 8, Some(ms(5))).expect_err("nothing comes");
                assert_eq!(late.kind(), io::ErrorKind::TimedOut);
            }
        }
        let (here, there) = pair();
        spawn(move || {
            let _farewell = Farewell(here);
            panic!("on purpose");
        })
        .join()
        .expect_err("a panic");
        assert_eq!(read(&there, 8).expect("the read succeeds"), b"bye");
    });
}

#[test]
fn a_source_closed_in_a_callback_wakes_its_reader() {
    limited(|| {
        let (here, _there) = pair();
        let here = Rc::new(here);
        let closed = Rc::clone(&here);
        let _timer = get_hub().schedule(ms(2), move || closed.close());
        assert_eq!(read(&here, 8).expect_err("the descriptor is closed").kind(), io::ErrorKind::NotConnected);
        until(|| here.is_closed());
    });
}
