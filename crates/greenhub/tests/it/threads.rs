//! Hubs of several OS threads, and sockets that move between them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::descriptors::{
    assert_no_waiters, assert_other_end_closed, fill, ms, pair, read, read_within, source, stats, until, write,
};
use crate::support::random::Rng;
use crate::support::{in_child, limited, open_descriptors};
use greenhub::park::Source;
use greenhub::thread::yield_now;
use greenhub::{Interest, get_hub, sleep, spawn};

#[test]
fn two_threads_sleep_independently() {
    limited(|| {
        let (here, there) = pair();
        let (started, wait) = channel();
        let thread = thread::spawn(move || {
            let id = get_hub().id();
            started.send(id).expect("the test waits");
            // This hub works while the other sleeps.
            assert_eq!(read(&there, 1).expect("the read succeeds"), b"x");
            // The other hub's wait does not delay this one either.
            for _ in 0..3 {
                sleep(ms(5));
            }
            write(&there, b"y").expect("the buffer has room");
            assert_no_waiters();
            id
        });
        let id = wait.recv().expect("the thread starts");
        assert_ne!(get_hub().id(), id);
        for _ in 0..3 {
            sleep(ms(5));
        }
        assert_no_waiters();
        write(&here, b"x").expect("the buffer has room");
        assert_eq!(read(&here, 1).expect("the read succeeds"), b"y");
        assert_eq!(thread.join().expect("no panic"), id);
    });
}

/// Half of the time that a hub sleeps unless it is woken.
const SOON: Duration = Duration::from_secs(30);

/// Calls `wake` on another OS thread while this hub sleeps for a minute; returns the time from the call to the wake-up.
fn sleeping_until(wake: impl FnOnce(greenhub::hub::Remote) + Send + 'static) -> Duration {
    let remote = get_hub().remote();
    let thread = thread::spawn(move || {
        thread::sleep(ms(30));
        let begin = Instant::now();
        wake(remote);
        begin
    });
    let hub = get_hub();
    let _long = hub.schedule(2 * SOON, || {});
    hub.run_once(None).expect("the turn succeeds");
    let woken = Instant::now();
    woken - thread.join().expect("no panic")
}

#[test]
fn a_remote_wakes_an_idle_hub() {
    limited(|| {
        let (here, there) = pair();
        let remote = get_hub().remote();
        let thread = thread::spawn(move || {
            thread::sleep(ms(30));
            let begin = Instant::now();
            remote
                .spawn(move || _ = write(&there, b"x").expect("the buffer has room"))
                .expect("the hub's OS thread lives");
            begin
        });
        assert_eq!(read_within(&here, 8, Some(2 * SOON)).expect("the read succeeds"), b"x");
        let woken = Instant::now();
        assert!(woken - thread.join().expect("no panic") < SOON);
        assert!(sleeping_until(|remote| remote.notify()) < SOON);
    });
}

#[test]
fn run_once_reads_the_mail_that_woke_it() {
    limited(|| {
        let (sender, receiver) = channel();
        let latency = sleeping_until(move |remote| {
            remote.spawn(move || sender.send(()).expect("the test waits")).expect("the hub's OS thread lives");
        });
        assert!(latency < SOON);
        receiver.try_recv().expect("has run");
    });
}

#[test]
fn ended_threads_leave_no_descriptor_open() {
    in_child(|| {
        let _ = get_hub();
        let before = open_descriptors();
        for round in 0..20 {
            thread::spawn(move || {
                let (here, there) = pair();
                let reader = spawn(move || read(&here, 8));
                yield_now();
                write(&there, b"x").expect("the buffer has room");
                assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
                // Every second OS thread leaves a parked green thread and a remote behind.
                if round % 2 == 0 {
                    drop(spawn(move || read(&there, 8)));
                    yield_now();
                    drop(get_hub().remote());
                }
            })
            .join()
            .expect("no panic");
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_socket_may_move_to_the_hub_of_another_thread() {
    limited(|| {
        let (here, there) = pair();
        // The wait registers the socket with this hub.
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let thread = thread::spawn(move || {
            let data = read(&here, 8).expect("the read succeeds");
            assert_no_waiters();
            (data, here)
        });
        sleep(ms(20));
        write(&there, b"there").expect("the buffer has room");
        until(|| thread.is_finished());
        let (data, here) = thread.join().expect("no panic");
        assert_eq!(data, b"there");
        // Moves the socket back, after the other OS thread and its hub have ended.
        let sender = spawn(move || {
            sleep(ms(5));
            write(&there, b"back").expect("the buffer has room");
            there
        });
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"back");
        drop(sender);
    });
}

#[test]
fn a_moved_socket_does_not_wake_its_former_hub() {
    limited(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let (done, end) = pair();
        let thread = thread::spawn(move || {
            for _ in 0..200 {
                read(&here, 1).expect("the read succeeds");
            }
            write(&end, b"x").expect("the buffer has room");
        });
        let waits = stats().waits;
        let writer = thread::spawn(move || {
            for _ in 0..200 {
                write(&there, b"x").expect("the buffer has room");
                thread::sleep(Duration::from_micros(100));
            }
            there
        });
        assert_eq!(read(&done, 1).expect("the read succeeds"), b"x");
        assert!(stats().waits - waits < 20, "{} waits for one byte", stats().waits - waits);
        drop(writer.join().expect("no panic"));
        thread.join().expect("no panic");
    });
}

#[test]
fn two_hubs_cannot_wait_for_one_socket() {
    limited(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        fill(&here);
        let (started, wait) = channel();
        let reader = thread::spawn({
            let here = Arc::clone(&here);
            move || {
                let reader = spawn(move || read(&here, 8));
                yield_now();
                started.send(()).expect("the test waits");
                reader.join().expect("no panic")
            }
        });
        wait.recv().expect("the reader has parked");
        for direction in [Interest::READ, Interest::WRITE] {
            let error = here.wait(direction, None).expect_err("another hub waits");
            assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
        }
        assert_no_waiters();
        // The refused wait has not moved the socket.
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
        // The socket may be waited for again.
        write(&there, b"y").expect("the buffer has room");
        here.wait(Interest::READ, None).expect("the descriptor becomes readable");
    });
}

#[test]
fn a_replaced_hub_of_the_same_thread_does_not_keep_a_socket() {
    limited(|| {
        let (here, _there) = pair();
        let here = Arc::new(here);
        fill(&here);
        let reader = spawn({
            let here = Arc::clone(&here);
            move || read(&here, 8)
        });
        yield_now();
        greenhub::use_hub(None).expect("outside the loop");
        // The reader is about to be unwound, but has not run yet.
        let error = here.wait(Interest::WRITE, Some(ms(1))).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        reader.join().expect_err("unwound with its hub");
    });
}

#[test]
fn closing_from_another_thread_wakes_the_waiters() {
    limited(|| {
        let (here, there) = pair();
        let here = Arc::new(here);
        let reader = spawn({
            let here = Arc::clone(&here);
            move || read(&here, 8)
        });
        yield_now();
        let number = here.as_raw_fd();
        let thread = thread::spawn(move || {
            thread::sleep(ms(10));
            here.close();
        });
        let error = reader.join().expect("the waiter returns").expect_err("the descriptor is closed");
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        assert!(error.to_string().contains(&number.to_string()), "{error}");
        assert_no_waiters();
        thread.join().expect("no panic");
        assert_other_end_closed(&there);
    });
}

#[test]
fn a_socket_dropped_on_another_os_thread_is_closed_by_its_hub() {
    in_child(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let before = open_descriptors();
        // The other OS thread has no hub; the release request wakes this one.
        thread::spawn(move || drop(here)).join().expect("no panic");
        let error = {
            let mut result = write(&there, b"x");
            while result.is_ok() {
                sleep(ms(1));
                result = write(&there, b"x");
            }
            result.expect_err("not ok")
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(open_descriptors(), before - 1);
    });
}

#[test]
fn a_socket_of_an_ended_thread_can_be_used_and_closed() {
    in_child(|| {
        let _ = get_hub();
        let before = open_descriptors();
        let (here, there) = thread::spawn(|| {
            let (here, there) = pair();
            here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
            there.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
            (here, there)
        })
        .join()
        .expect("no panic");
        drop(there);
        assert_eq!(read(&here, 8).expect("the end"), b"");
        drop(here);
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn into_fd_on_another_os_thread_deregisters_the_descriptor() {
    in_child(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let before = open_descriptors();
        let fd = thread::spawn(move || here.into_fd().expect("the source is open")).join().expect("no panic");
        sleep(ms(1));
        assert_eq!(open_descriptors(), before, "the old number is still open");
        write(&there, b"x").expect("the buffer has room");
        let again = source(fd);
        assert_eq!(read(&again, 8).expect("the read succeeds"), b"x");
    });
}

#[test]
fn into_fd_returns_a_new_number_while_a_hub_still_watches_the_old_one() {
    in_child(|| {
        let (here, _there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let number = here.as_raw_fd();
        let fd = thread::spawn(move || {
            // The wait moves the socket here. The hub of the test does not turn, so it has not read the release
            // request.
            here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
            here.into_fd().expect("the source is open")
        })
        .join()
        .expect("no panic");
        assert_ne!(fd.as_raw_fd(), number);
        sleep(ms(1));
        // SAFETY: `F_GETFD` only queries the number.
        assert!(unsafe { libc::fcntl(number, libc::F_GETFD) } < 0);
    });
}

#[test]
fn every_waiter_is_woken_by_a_close_that_races_with_its_park() {
    limited(|| {
        let begin = Arc::new(Barrier::new(2));
        let (sender, receiver) = channel::<Arc<Source>>();
        let closer = thread::spawn({
            let begin = Arc::clone(&begin);
            move || {
                for (round, here) in receiver.iter().enumerate() {
                    begin.wait();
                    (0..round % 50 * 20).for_each(|_| std::hint::spin_loop());
                    here.close();
                }
            }
        });
        for _ in 0..300 {
            let (here, _there) = pair();
            let here = Arc::new(here);
            sender.send(Arc::clone(&here)).expect("the closing thread waits");
            begin.wait();
            // A watchdog bounds the test if the close is lost; the timeout must not end the wait.
            let error = read_within(&here, 8, Some(2 * SOON)).expect_err("the descriptor is closed");
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        }
        drop(sender);
        closer.join().expect("no panic");
        assert_no_waiters();
    });
}

#[test]
fn concurrent_reads_writes_closes_and_moves_leave_nothing_behind() {
    in_child(|| {
        const PLACES: usize = 4;
        let _ = get_hub();
        let before = open_descriptors();
        let places: Arc<Vec<RwLock<Arc<Source>>>> = Arc::new(
            (0..PLACES).flat_map(|_| <[Source; 2]>::from(pair())).map(|source| RwLock::new(Arc::new(source))).collect(),
        );
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (1..=4_u64)
            .map(|seed| {
                let (places, stop, done) = (Arc::clone(&places), Arc::clone(&stop), Arc::clone(&done));
                thread::spawn(move || {
                    let workers: Vec<_> = (0..3)
                        .map(|worker| {
                            let (places, stop, done) = (Arc::clone(&places), Arc::clone(&stop), Arc::clone(&done));
                            let mut random = Rng::with_seed(seed * 3 + worker);
                            spawn(move || {
                                while !stop.load(Ordering::Relaxed) {
                                    work(&places, &mut random);
                                    done.fetch_add(1, Ordering::Relaxed);
                                    yield_now();
                                }
                            })
                        })
                        .collect();
                    workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
                    assert_no_waiters();
                })
            })
            .collect();
        thread::sleep(ms(1500));
        while done.load(Ordering::Relaxed) <= 1000 && !threads.iter().any(thread::JoinHandle::is_finished) {
            thread::sleep(ms(10));
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        drop(places);
        assert_eq!(open_descriptors(), before);
    });
}

fn work(places: &[RwLock<Arc<Source>>], random: &mut Rng) {
    let index = random.usize(..places.len());
    let source = Arc::clone(&places[index].read().expect("no panic"));
    let result = match random.u64(..12) {
        0..=3 => read_within(&source, 8, Some(ms(random.u64(..3)))).map(drop),
        4..=6 => source.write(Some(ms(1)), |fd| Ok(rustix::io::write(fd, b"abcdefgh")?)).map(drop),
        7 => source.wait(Interest::WRITE, Some(ms(1))),
        8 => {
            let reader = spawn(move || drop(read(&source, 8)));
            yield_now();
            reader.kill();
            Ok(())
        }
        9 => {
            // Another OS thread may have closed the source.
            if !source.is_closed() {
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| source.as_fd().as_raw_fd()));
            }
            Ok(())
        }
        10 => {
            let (left, right) = pair();
            let put = |index: usize, source| {
                std::mem::replace(&mut *places[index].write().expect("no panic"), Arc::new(source))
            };
            let old = [put(index, left), put(index ^ 1, right)];
            drop(source);
            for old in old {
                match Arc::try_unwrap(old) {
                    Ok(last) => drop(last.into_fd()),
                    Err(shared) => shared.close(),
                }
            }
            Ok(())
        }
        _ => {
            source.close();
            Ok(())
        }
    };
    if let Err(error) = result {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, ResourceBusy, TimedOut};
        let expected = [TimedOut, NotConnected, ResourceBusy, BrokenPipe, ConnectionReset];
        assert!(expected.contains(&error.kind()), "{error}");
    }
}
