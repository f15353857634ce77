//! Waiting for several descriptors at once.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support::green;
use crate::support::green::{LONG, SHORT, held, ticker};
use crate::support::random::{Moment, Rng};
use crate::support::run;
use greenhub::greenthread::KillOutcome;
use greenhub::hub::Readiness;
use greenhub::io::{PipeReader, pipe};
use greenhub::os::unix::net::UnixStream;
use greenhub::select::{PollFd, poll, select};
use greenhub::thread::yield_now;
use greenhub::{Interest, get_hub, sleep, spawn, trampoline, with_timeout};

const NO_FDS: &[BorrowedFd<'static>] = &[];

fn numbers(fds: &[impl AsFd]) -> Vec<RawFd> {
    fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect()
}

/// Returns a pair of streams; the first one's send buffer is full.
fn full() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    while (&one).write(&[0; 4096]).is_ok() {}
    one.set_nonblocking(false).unwrap();
    (one, other)
}

#[test]
fn waiting_for_many_blocks_only_the_caller() {
    run("waiting_for_many_blocks_only_the_caller", || {
        let (one, _kept) = pipe().unwrap();
        let (other, mut writer) = pipe().unwrap();
        let (full, _kept_too) = full();
        let ticks = ticker();
        let counted = Rc::clone(&ticks);
        spawn(move || {
            while counted.get() < 10 {
                sleep(SHORT);
            }
            writer.write_all(b"x").unwrap();
        });
        let (readable, writable) = select(&[&one, &other], &[&full], None).unwrap();
        assert!(ticks.get() >= 10);
        assert_eq!(numbers(&readable), [other.as_raw_fd()]);
        assert!(writable.is_empty());
    });
}

#[test]
fn a_timeout_returns_an_empty_result() {
    run("a_timeout_returns_an_empty_result", || {
        let (reader, _kept) = pipe().unwrap();
        let (full, _kept_too) = full();
        let begun = Instant::now();
        let (readable, writable) = select(&[&reader], &[&full], Some(SHORT * 4)).unwrap();
        assert!(begun.elapsed() >= SHORT * 4);
        assert!(readable.is_empty() && writable.is_empty());
    });
}

#[test]
fn a_timeout_of_zero_polls_once() {
    run("a_timeout_of_zero_polls_once", || {
        let (reader, mut writer) = pipe().unwrap();
        let other = spawn(|| ());
        assert!(select(&[&reader], NO_FDS, Some(Duration::ZERO)).unwrap().0.is_empty());
        writer.write_all(b"x").unwrap();
        assert_eq!(select(&[&reader], NO_FDS, Some(Duration::ZERO)).unwrap().0.len(), 1);
        assert!(!other.is_finished(), "the call has switched");
    });
}

#[test]
fn all_ready_descriptors_are_reported_in_both_directions() {
    run("all_ready_descriptors_are_reported_in_both_directions", || {
        let (one, other) = UnixStream::pair().unwrap();
        (&one).write_all(b"x").unwrap();
        (&other).write_all(b"x").unwrap();
        let (silent, _kept) = UnixStream::pair().unwrap();
        let all = [&one, &silent, &other];
        let (readable, writable) = select(&all, &all, None).unwrap();
        assert_eq!(numbers(&readable), [one.as_raw_fd(), other.as_raw_fd()]);
        assert_eq!(writable.len(), 3);
        let mut asked = [PollFd::new(&one, Interest::BOTH), PollFd::new(&silent, Interest::READ)];
        assert_eq!(poll(&mut asked, None).unwrap(), 1);
        assert_eq!(asked[0].readiness(), Readiness::READ | Readiness::WRITE);
        assert_eq!(asked[1].readiness(), Readiness::NONE);
        assert_eq!((asked[1].fd().as_raw_fd(), asked[1].interest()), (silent.as_raw_fd(), Interest::READ));
    });
}

#[test]
fn one_descriptor_is_waited_for_in_both_directions() {
    run("one_descriptor_is_waited_for_in_both_directions", || {
        let (full, other) = full();
        let wait = |drain: bool| {
            let mut other = other.try_clone().unwrap();
            spawn(move || {
                sleep(SHORT);
                if drain {
                    assert!(other.read(&mut vec![0; 1 << 20]).unwrap() > 0);
                } else {
                    other.write_all(b"x").unwrap();
                }
            });
            let mut asked = [PollFd::new(&full, Interest::BOTH), PollFd::new(&full, Interest::BOTH)];
            assert_eq!(poll(&mut asked, Some(LONG)).unwrap(), 2);
            asked.map(|asked| asked.readiness())
        };
        assert_eq!(wait(false), [Readiness::READ; 2]);
        full.set_nonblocking(true).unwrap();
        (&full).read_exact(&mut [0]).unwrap();
        full.set_nonblocking(false).unwrap();
        assert_eq!(wait(true), [Readiness::WRITE; 2]);
    });
}

#[test]
fn a_bad_descriptor_is_an_error_each_time() {
    run("a_bad_descriptor_is_an_error_each_time", || {
        let (reader, mut writer) = pipe().unwrap();
        // SAFETY: the number is only polled, and no test of this program opens that many descriptors.
        let bad = unsafe { BorrowedFd::borrow_raw(1_000_000) };
        for timeout in [None, Some(SHORT), Some(Duration::ZERO)] {
            for _ in 0..3 {
                let error = select(&[reader.as_fd(), bad], NO_FDS, timeout).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EBADF));
                let mut asked = [PollFd::new(&reader, Interest::READ), PollFd::new(&bad, Interest::WRITE)];
                assert_eq!(poll(&mut asked, timeout).unwrap(), 1);
                assert!(asked[0].readiness().is_empty());
                assert!(asked[1].readiness().contains(Readiness::INVALID | Readiness::WRITE));
            }
        }
        // The valid descriptor can still be waited for.
        writer.write_all(b"x").unwrap();
        assert_eq!(select(&[&reader], NO_FDS, None).unwrap().0.len(), 1);
    });
}

#[test]
fn the_end_of_a_stream_is_reported() {
    run("the_end_of_a_stream_is_reported", || {
        let (reader, writer) = pipe().unwrap();
        spawn(move || drop(writer));
        let mut asked = [PollFd::new(&reader, Interest::READ)];
        assert_eq!(poll(&mut asked, None).unwrap(), 1);
        assert_eq!(asked[0].readiness(), Readiness::READ | Readiness::END);
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        assert_eq!(select(NO_FDS, &[&writer], None).unwrap().1.len(), 1);
    });
}

#[test]
fn a_file_is_always_ready() {
    run("a_file_is_always_ready", || {
        let file = greenhub::fs::File::open("/proc/self/exe").unwrap();
        let (silent, _kept) = pipe().unwrap();
        assert_eq!(select(&[file.as_fd(), silent.as_fd()], NO_FDS, None).unwrap().0.len(), 1);
    });
}

#[test]
fn a_select_without_descriptors_sleeps() {
    run("a_select_without_descriptors_sleeps", || {
        let begun = Instant::now();
        assert_eq!(poll(&mut [], Some(SHORT)).unwrap(), 0);
        assert!(begun.elapsed() >= SHORT);
        assert!(with_timeout(SHORT, || poll(&mut [], None)).is_err());
    });
}

#[test]
fn a_wait_that_ends_early_leaves_no_trace() {
    run("a_wait_that_ends_early_leaves_no_trace", || {
        let before = held();
        let streams: Vec<_> = (0..20).map(|_| UnixStream::pair().unwrap()).collect();
        let streams = Rc::new(streams);
        let wait = |streams: &Rc<Vec<(UnixStream, UnixStream)>>| {
            let all: Vec<_> = streams.iter().map(|(one, _)| one).collect();
            select(&all, NO_FDS, Some(LONG)).map(|(readable, _)| readable.len())
        };
        let lent = Rc::clone(&streams);
        let waiting = spawn(move || wait(&lent));
        yield_now();
        sleep(SHORT);
        assert_eq!(get_hub().stats().readers, 20);
        assert_eq!(waiting.kill(), KillOutcome::Ended);
        drop(waiting);
        assert!(with_timeout(SHORT, || wait(&streams)).is_err());
        assert_eq!(held(), before);
        // A wait that includes a descriptor with a waiter is refused, and leaves that waiter parked.
        let lent = Rc::clone(&streams);
        let reading = spawn(move || (&lent[7].0).read(&mut [0]).unwrap());
        yield_now();
        assert_eq!(wait(&streams).unwrap_err().kind(), ErrorKind::ResourceBusy);
        assert_eq!(get_hub().stats().readers, 1);
        (&streams[7].1).write_all(b"x").unwrap();
        assert_eq!(reading.join().unwrap(), 1);
        (&streams[19].1).write_all(b"x").unwrap();
        assert_eq!(wait(&streams).unwrap(), 1);
    });
}

#[test]
fn closing_a_descriptor_fails_its_waiter() {
    run("closing_a_descriptor_fails_its_waiter", || {
        let (reader, _kept) = pipe().unwrap();
        let (other, _kept_too) = pipe().unwrap();
        let closed = Rc::new(reader);
        let closer = Rc::clone(&closed);
        spawn(move || {
            sleep(SHORT);
            closer.close();
        });
        let error = select(&[&other, &*closed], NO_FDS, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        assert!(error.to_string().contains(&format!("descriptor {} was closed", closed.as_raw_fd())), "{error}");
    });
}

#[test]
fn a_select_that_is_always_ready_lets_others_run() {
    run("a_select_that_is_always_ready_lets_others_run", || {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let other = spawn(|| sleep(SHORT));
        while !other.is_finished() {
            assert_eq!(select(&[&reader], NO_FDS, None).unwrap().0.len(), 1);
        }
    });
}

#[test]
fn a_select_while_panicking_waits_for_the_grace_period() {
    run("a_select_while_panicking_waits_for_the_grace_period", || {
        struct Asks<'a>(&'a PipeReader, &'a Cell<Option<usize>>);
        impl Drop for Asks<'_> {
            fn drop(&mut self) {
                self.1.set(select(&[self.0], NO_FDS, None).ok().map(|(readable, _)| readable.len()));
            }
        }
        let (reader, mut writer) = pipe().unwrap();
        let found = Cell::new(None);
        for expected in [0, 1] {
            let asks = Asks(&reader, &found);
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _asks = asks;
                green::quiet_panic(0)
            }));
            assert!(panicked.is_err());
            assert_eq!(found.get(), Some(expected));
            writer.write_all(b"x").unwrap();
        }
    });
}

/// Compares the reported readiness with the system's over many rounds.
#[test]
fn random_sets_match_the_system() {
    run("random_sets_match_the_system", || {
        let mut random = Rng::with_seed(7);
        let pipes: Vec<_> = (0..12).map(|_| pipe().unwrap()).collect();
        let pipes = Rc::new(pipes);
        let mut full = [0; 12];
        for _ in 0..300 {
            let asked: Vec<_> = (0..random.usize(..12) + 1).map(|_| random.usize(..12)).collect();
            let later = random.usize(..12);
            let lent = Rc::clone(&pipes);
            let pause = random.moment();
            let writing = spawn(move || {
                sleep(pause);
                (&lent[later].1).write_all(b"x").unwrap();
            });
            let readers: Vec<_> = asked.iter().map(|&n| &pipes[n].0).collect();
            let readable = select(&readers, NO_FDS, Some(SHORT)).unwrap().0;
            let found = numbers(&readable);
            let count = |full: &[i32; 12], n: usize| full[n] > 0;
            let before: Vec<_> = asked.iter().filter(|&&n| count(&full, n)).map(|&n| pipes[n].0.as_raw_fd()).collect();
            let written = writing.is_finished();
            writing.join().unwrap();
            full[later] += 1;
            let after: Vec<_> = asked.iter().filter(|&&n| count(&full, n)).map(|&n| pipes[n].0.as_raw_fd()).collect();
            if before == after || !written {
                assert_eq!(found, before);
            } else {
                // The concurrent write may fall before the poll or after it.
                assert!(found == before || found == after, "{found:?} is neither {before:?} nor {after:?}");
                assert!(!found.is_empty());
            }
            for (n, full) in full.iter_mut().enumerate() {
                if *full > 0 && random.usize(..3) > 0 {
                    trampoline(&pipes[n].0, Interest::READ, None).unwrap();
                    (&pipes[n].0).read_exact(&mut [0]).unwrap();
                    *full -= 1;
                }
            }
        }
    });
}
