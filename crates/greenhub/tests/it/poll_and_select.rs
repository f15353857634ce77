//! Behaviour of hubs that pass every descriptor at each wait, and of different hubs side by side.

#![cfg(all(feature = "poll", feature = "select"))]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use crate::support::descriptors::{assert_no_waiters, fill, ms, pair, read, source, stats, until, write};
use crate::support::{deadline, in_child};
use greenhub::debug::hub_exceptions;
use greenhub::hub::{LoopErrorKind, Readiness};
use greenhub::park::trampoline_raw;
use greenhub::thread::yield_now;
use greenhub::{GreenThread, Interest, TrampolineError, get_hub, spawn, trampoline, use_hub};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const BOTH: [&str; 2] = ["poll", "select"];

/// A number above the limit of select(2).
const HIGH: RawFd = 1100;

/// Spawns a green thread that waits for `direction` of the bare number `fd`; returns when it is parked.
fn waiter(fd: RawFd, direction: Interest) -> GreenThread<Result<Readiness, TrampolineError>> {
    // SAFETY: the loop is not notified of the close, which is the case under test, in a process of its own.
    let waiter = spawn(move || unsafe { trampoline_raw(fd, direction, None) });
    yield_now();
    waiter
}

/// Closes `fd` without notifying the loop.
fn close_without_notice(fd: RawFd) {
    // SAFETY: the test owns the number, and no other thread opens a descriptor meanwhile.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

fn raise_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).expect("up to the hard limit");
}

#[test]
fn poll_and_select_are_chosen_by_name() {
    let _deadline = deadline();
    for (name, hub) in [("poll", "poll"), ("select", "select"), ("selects", "select")] {
        use_hub(name).expect("the hub is available");
        assert_eq!(get_hub().name(), hub);
    }
}

#[test]
fn a_closed_number_wakes_all_its_waiters_with_an_error() {
    in_child(|| {
        for hub in BOTH {
            use_hub(hub).expect("the hub is available");
            let (here, _there) = UnixStream::pair().expect("a pair");
            fill(&source(here.try_clone().expect("a copy")));
            let number = here.into_raw_fd();
            let waiters = [waiter(number, Interest::READ), waiter(number, Interest::WRITE)];
            close_without_notice(number);
            for waiter in waiters {
                let error = waiter.join().expect("the waiter returns").expect_err("the descriptor is dead");
                assert!(matches!(error, TrampolineError::InvalidFd { fd: dead } if dead == number), "{hub}: {error}");
            }
            assert_no_waiters();
        }
    });
}

#[test]
fn a_closed_number_leaves_open_ones_waiting() {
    in_child(|| {
        for hub in BOTH {
            use_hub(hub).expect("the hub is available");
            let (here, there) = pair();
            let healthy = spawn(move || read(&here, 8));
            let (dying, _peer) = UnixStream::pair().expect("a pair");
            let number = dying.into_raw_fd();
            let dead = waiter(number, Interest::READ);
            close_without_notice(number);
            assert!(dead.join().expect("the waiter returns").is_err());
            assert!(!healthy.is_finished(), "{hub}");
            let waits = stats().waits;
            greenhub::sleep(ms(20));
            assert!(stats().waits - waits <= 4, "{hub}: the dead number was asked about again");
            write(&there, b"x").expect("the buffer has room");
            assert_eq!(healthy.join().expect("the waiter returns").expect("the read succeeds"), b"x");
        }
    });
}

#[test]
fn a_large_number_that_is_no_descriptor_gives_the_same_error_each_time() {
    let _deadline = deadline();
    for hub in BOTH {
        use_hub(hub).expect("the hub is available");
        for _ in 0..2 {
            // SAFETY: no test opens this many descriptors, so the number is closed.
            let error = unsafe { trampoline_raw(100_000, Interest::READ, None) }.expect_err("not open");
            assert!(matches!(error, TrampolineError::InvalidFd { fd: 100_000 }), "{hub}: {error}");
        }
    }
}

#[test]
fn a_number_too_large_for_select_is_refused_when_it_is_registered() {
    in_child(|| {
        raise_limit();
        use_hub("select").expect("the hub is available");
        let (here, there) = UnixStream::pair().expect("a pair");
        let high = fcntl_dupfd_cloexec(&here, HIGH).expect("a high number");
        let number = high.as_raw_fd();
        let error = trampoline(&high, Interest::READ, None).expect_err("too large");
        assert!(matches!(&error, TrampolineError::Register { fd, .. } if *fd == number), "{error}");
        let text = error.to_string();
        assert!(text.contains(&number.to_string()) && text.contains("1024") && text.contains("poll"), "{text}");
        let high = source(high);
        assert_eq!(high.wait(Interest::READ, None).expect_err("too large").kind(), io::ErrorKind::InvalidInput);
        let refused = get_hub().listen(here.try_clone().expect("a copy"), Interest::READ, |_: Readiness| {});
        assert!(refused.is_ok(), "a small number of the same file is refused");
        // The loop still serves small numbers.
        let (left, right) = pair();
        let reader = spawn(move || read(&left, 8));
        write(&right, b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("the waiter returns").expect("the read succeeds"), b"x");
        // Another hub accepts the refused number.
        drop(refused);
        use_hub("poll").expect("the hub is available");
        io::Write::write_all(&mut &there, b"y").expect("the buffer has room");
        assert_eq!(read(&high, 8).expect("the read succeeds"), b"y");
    });
}

#[test]
fn a_waiter_on_a_large_number_fails_when_select_takes_over() {
    in_child(|| {
        raise_limit();
        use_hub("poll").expect("the hub is available");
        let (here, _there) = UnixStream::pair().expect("a pair");
        let high = Rc::new(fcntl_dupfd_cloexec(&here, HIGH).expect("a high number"));
        let parked = spawn({
            let high = Rc::clone(&high);
            move || trampoline(&*high, Interest::READ, None)
        });
        yield_now();
        use_hub("select").expect("the hub is available");
        assert!(parked.join().is_err(), "the wait outlived its hub");
        let error = trampoline(&*high, Interest::READ, None).expect_err("too large");
        assert!(matches!(error, TrampolineError::Register { .. }), "{error}");
    });
}

#[test]
fn a_hang_up_wakes_both_directions_and_a_failing_waiter_is_contained() {
    in_child(|| {
        for hub in BOTH {
            use_hub(hub).expect("the hub is available");
            hub_exceptions(false);
            let (here, there) = pair();
            let here = Rc::new(here);
            fill(&here);
            let reader = spawn({
                let here = Rc::clone(&here);
                move || -> () {
                    here.wait(Interest::READ, None).expect("the wait succeeds");
                    panic!("a waiter that fails");
                }
            });
            let writer = spawn(move || here.wait(Interest::WRITE, None).map(drop));
            yield_now();
            drop(there);
            assert!(reader.join().is_err(), "{hub}: the reader did not fail");
            assert!(writer.join().expect("the waiter returns").is_ok(), "{hub}");
            hub_exceptions(true);
        }
    });
}

#[test]
fn exceeding_the_descriptor_limit_in_poll_names_the_limit() {
    in_child(|| {
        use_hub("poll").expect("the hub is available");
        let pairs: Vec<_> = (0..10).map(|_| pair()).collect();
        let parked: Vec<_> = pairs.into_iter().map(|(here, there)| (spawn(move || read(&here, 1)), there)).collect();
        let (idle, _peer) = UnixStream::pair().expect("a pair");
        trampoline(&idle, Interest::READ, Some(ms(1))).expect_err("nothing comes");
        let hard = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(5), maximum: hard }).expect("the limit can be lowered");
        let error = trampoline(&idle, Interest::READ, Some(ms(2_000)));
        let Err(TrampolineError::Loop(error)) = error else { panic!("{error:?}") };
        assert_eq!(error.kind(), LoopErrorKind::Wait);
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
        raise_limit();
        // The hub is rebuilt, and the parked waiters are still served.
        for (reader, there) in parked {
            write(&there, b"x").expect("the buffer has room");
            assert_eq!(reader.join().expect("the waiter returns").expect("the read succeeds"), b"x");
        }
    });
}

#[test]
fn threads_with_different_hubs_talk_to_each_other() {
    let _deadline = deadline();
    let mut hubs = BOTH.to_vec();
    hubs.extend(cfg!(feature = "epoll").then_some("epoll").filter(|name| use_hub(*name).is_ok()));
    // The OS threads form a ring; each hub's thread passes every byte to the next.
    let mut ends: Vec<(UnixStream, UnixStream)> =
        (0..=hubs.len()).map(|_| UnixStream::pair().expect("a pair")).collect();
    let first = ends[0].0.try_clone().expect("a copy");
    let mut threads = Vec::new();
    for (index, name) in hubs.iter().copied().enumerate() {
        let from = ends[index].1.try_clone().expect("a copy");
        let to = ends[index + 1].0.try_clone().expect("a copy");
        threads.push(std::thread::spawn(move || {
            use_hub(name).expect("the hub is available");
            let (from, to) = (source(from), source(to));
            let passed = Rc::new(Cell::new(0));
            let passing = spawn({
                let passed = Rc::clone(&passed);
                move || {
                    for _ in 0..100 {
                        let byte = read(&from, 1).expect("the read succeeds");
                        write(&to, &byte).expect("the buffer has room");
                        passed.set(passed.get() + 1);
                    }
                }
            });
            until(|| passed.get() == 100);
            passing.join().expect("all passed");
            get_hub().name()
        }));
    }
    let (_, last) = ends.pop().expect("the last pair");
    let (first, last) = (source(first), source(last));
    for number in 0..100 {
        write(&first, &[number]).expect("the buffer has room");
        assert_eq!(read(&last, 1).expect("the read succeeds"), [number]);
    }
    let names: Vec<&str> = threads.into_iter().map(|thread| thread.join().expect("no failure")).collect();
    assert_eq!(names, hubs);
}
