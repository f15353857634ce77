//! Polls of a `Source`: one-shot wakers in place of parked green threads.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

use crate::support::counting::allocations;
use crate::support::descriptors::{
    assert_no_waiters, assert_other_end_closed, fill, ms, pair, read, reports_arrivals, source, stats, until, write,
};
use crate::support::fork::{ends_well, forked};
use crate::support::hubs::{Calls, Tap, Wait, Watch, use_manual_clock, use_tapped_hub};
use crate::support::{alone, in_child, run};
use greenhub::debug::{TargetInfo, hub_prevent_multiple_readers, listeners};
use greenhub::hub::Hub;
use greenhub::park::{ReadHint, Source};
use greenhub::thread::yield_now;
use greenhub::{Interest, get_hub, kill, sleep, spawn, use_hub_with};

/// Counts its wake-ups, and records the last OS thread that woke it.
#[derive(Default)]
struct Flag {
    wakes: AtomicUsize,
    thread: Mutex<Option<ThreadId>>,
}

impl Wake for Flag {
    fn wake(self: Arc<Flag>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        *self.thread.lock().unwrap() = Some(std::thread::current().id());
    }
}

impl Flag {
    fn new() -> (Arc<Flag>, Waker) {
        let flag = Arc::new(Flag::default());
        (Arc::clone(&flag), Waker::from(flag))
    }

    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }

    /// Lets the loop run until the flag was woken for the first time.
    fn wait(&self) {
        while self.wakes() == 0 {
            sleep(ms(1));
        }
    }
}

/// A waker that runs a closure.
struct Call<F: Fn() + Send + Sync>(F);

impl<F: Fn() + Send + Sync> Wake for Call<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn waker(wake: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Call(wake)))
}

fn poll_read(source: &Source, waker: &Waker) -> Poll<io::Result<Vec<u8>>> {
    let mut buffer = vec![0; 64];
    let polled = source.poll(Interest::READ, &mut Context::from_waker(waker), |fd| {
        let count = rustix::io::read(fd, &mut buffer)?;
        Ok((count, ReadHint::Perhaps))
    });
    polled.map_ok(|count| buffer[..count].to_vec())
}

fn poll_write(source: &Source, waker: &Waker, bytes: &[u8]) -> Poll<io::Result<usize>> {
    source.poll(Interest::WRITE, &mut Context::from_waker(waker), |fd| {
        Ok((rustix::io::write(fd, bytes)?, ReadHint::Likely))
    })
}

#[track_caller]
fn ready<T>(polled: Poll<io::Result<T>>) -> T {
    match polled {
        Poll::Ready(result) => result.expect("no error"),
        Poll::Pending => panic!("the poll is pending"),
    }
}

#[track_caller]
fn failed<T>(polled: Poll<io::Result<T>>) -> ErrorKind {
    match polled {
        Poll::Ready(Err(error)) => error.kind(),
        Poll::Ready(Ok(_)) => panic!("the poll succeeded"),
        Poll::Pending => panic!("the poll is pending"),
    }
}

/// Polls until there is a result. A source that is known to be empty is not tried before the next report.
fn until_ready<T>(mut poll: impl FnMut() -> Poll<io::Result<T>>) -> T {
    loop {
        let polled = poll();
        if polled.is_ready() {
            return ready(polled);
        }
        sleep(ms(1));
    }
}

/// Lets the loop take a few turns.
fn some_turns() {
    for _ in 0..3 {
        sleep(ms(1));
    }
}

#[test]
fn a_poll_of_a_ready_source_returns_at_once() {
    run("a_poll_of_a_ready_source_returns_at_once", || {
        let (here, there) = pair();
        write(&there, b"x").expect("the buffer has room");
        let (flag, waker) = Flag::new();
        assert_eq!(ready(poll_read(&here, &waker)), b"x");
        assert_eq!(ready(poll_write(&here, &waker, b"yz")), 2);
        some_turns();
        assert_eq!(flag.wakes(), 0);
        assert_no_waiters();
    });
}

#[test]
fn a_report_wakes_an_armed_reader_once() {
    run("a_report_wakes_an_armed_reader_once", || {
        let (here, there) = pair();
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        assert_eq!((stats().readers, stats().writers), (1, 0));
        some_turns();
        assert_eq!(flag.wakes(), 0);
        write(&there, b"x").expect("the buffer has room");
        flag.wait();
        some_turns();
        assert_eq!(flag.wakes(), 1);
        assert_no_waiters();
        assert_eq!(ready(poll_read(&here, &waker)), b"x");
    });
}

#[test]
fn a_report_wakes_an_armed_writer() {
    run("a_report_wakes_an_armed_writer", || {
        let (here, there) = pair();
        let full = fill(&here);
        let (flag, waker) = Flag::new();
        assert!(poll_write(&here, &waker, b"x").is_pending());
        let mut left = full;
        while left > 0 {
            left -= read(&there, left).expect("the read succeeds").len();
        }
        flag.wait();
        assert_eq!(ready(poll_write(&here, &waker, b"x")), 1);
    });
}

#[test]
fn a_reader_and_a_writer_are_armed_side_by_side() {
    run("a_reader_and_a_writer_are_armed_side_by_side", || {
        let (here, there) = pair();
        fill(&here);
        let ((reading, reader), (writing, writer)) = (Flag::new(), Flag::new());
        assert!(poll_read(&here, &reader).is_pending());
        assert!(poll_write(&here, &writer, b"x").is_pending());
        write(&there, b"x").expect("the buffer has room");
        reading.wait();
        assert_eq!(writing.wakes(), 0);
        assert_eq!((stats().readers, stats().writers), (0, 1));
        drop(there);
        writing.wait();
    });
}

/// Returns the calls of `watch` that a hundred messages to a registered reader take.
fn watches(receive: impl Fn(&Source, &Source)) -> usize {
    let calls = Calls::default();
    let counted = calls.clone();
    use_hub_with(move || counted.hub()).expect("not in the main loop");
    let (here, there) = pair();
    let mut before = 0;
    for round in 0..110 {
        if round == 10 {
            before = calls.watches.get();
        }
        receive(&here, &there);
    }
    calls.watches.get() - before
}

#[test]
fn polls_of_a_registered_source_watch_no_more_than_waits() {
    run("polls_of_a_registered_source_watch_no_more_than_waits", || {
        let waits = watches(|here, there| {
            write(there, b"x").expect("the buffer has room");
            here.wait(Interest::READ, None).expect("the descriptor becomes readable");
            read(here, 8).expect("the read succeeds");
        });
        let polls = watches(|here, there| {
            let (flag, waker) = Flag::new();
            assert!(poll_read(here, &waker).is_pending());
            write(there, b"x").expect("the buffer has room");
            while flag.wakes() == 0 {
                yield_now();
            }
            ready(poll_read(here, &waker));
        });
        assert!(polls <= waits, "{polls} calls for polls, {waits} for waits");
        if get_hub().name() == "epoll" {
            assert_eq!(polls, 0);
        }
    });
}

#[test]
fn a_poll_of_a_source_known_to_be_empty_does_not_try() {
    run("a_poll_of_a_source_known_to_be_empty_does_not_try", || {
        let (here, _there) = pair();
        let (_flag, waker) = Flag::new();
        let tries = Cell::new(0);
        let poll = || {
            here.poll(Interest::READ, &mut Context::from_waker(&waker), |_| {
                tries.set(tries.get() + 1);
                Err::<((), ReadHint), _>(ErrorKind::WouldBlock.into())
            })
        };
        assert!(poll().is_pending() && poll().is_pending() && poll().is_pending());
        assert_eq!(tries.get(), 1);
        here.cancel_poll(Interest::READ);
        assert!(poll().is_pending());
        assert_eq!(stats().readers, 1);
    });
}

#[test]
fn an_interrupted_operation_of_a_poll_is_tried_again() {
    run("an_interrupted_operation_of_a_poll_is_tried_again", || {
        let (here, _there) = pair();
        let tries = Cell::new(0);
        let polled = here.poll(Interest::READ, &mut Context::from_waker(Waker::noop()), |_| {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err(ErrorKind::Interrupted.into()) } else { Ok(((), ReadHint::Perhaps)) }
        });
        ready(polled);
        assert_eq!(tries.get(), 3);
    });
}

#[test]
fn a_poll_fails_with_the_error_of_its_operation() {
    run("a_poll_fails_with_the_error_of_its_operation", || {
        let (here, _there) = pair();
        let polled = here.poll(Interest::READ, &mut Context::from_waker(Waker::noop()), |_| {
            Err::<((), ReadHint), _>(ErrorKind::BrokenPipe.into())
        });
        assert_eq!(failed(polled), ErrorKind::BrokenPipe);
        assert_no_waiters();
    });
}

#[test]
fn a_poll_in_both_directions_is_refused() {
    run("a_poll_in_both_directions_is_refused", || {
        let (here, _there) = pair();
        let polled =
            here.poll(Interest::BOTH, &mut Context::from_waker(Waker::noop()), |_| Ok(((), ReadHint::Perhaps)));
        assert_eq!(failed(polled), ErrorKind::InvalidInput);
    });
}

#[test]
fn another_waker_replaces_the_first() {
    run("another_waker_replaces_the_first", || {
        let (here, there) = pair();
        let ((first, one), (second, other)) = (Flag::new(), Flag::new());
        assert!(poll_read(&here, &one).is_pending());
        assert_eq!(Arc::strong_count(&first), 3);
        assert!(poll_read(&here, &other).is_pending());
        assert_eq!(Arc::strong_count(&first), 2, "the replaced waker is kept");
        assert_eq!(stats().readers, 1);
        write(&there, b"x").expect("the buffer has room");
        second.wait();
        assert_eq!((first.wakes(), second.wakes()), (0, 1));
    });
}

#[test]
fn the_same_waker_is_not_cloned_again() {
    run("the_same_waker_is_not_cloned_again", || {
        let (here, _there) = pair();
        let (flag, waker) = Flag::new();
        for _ in 0..5 {
            assert!(poll_read(&here, &waker).is_pending());
            assert_eq!(Arc::strong_count(&flag), 3);
        }
    });
}

#[test]
fn a_woken_waker_is_not_kept() {
    run("a_woken_waker_is_not_kept", || {
        let (here, there) = pair();
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        write(&there, b"x").expect("the buffer has room");
        flag.wait();
        assert_eq!(Arc::strong_count(&flag), 2);
    });
}

#[test]
fn close_wakes_an_armed_waker_and_closes_the_number() {
    run("close_wakes_an_armed_waker_and_closes_the_number", || {
        let (here, there) = pair();
        let ((reading, reader), (writing, writer)) = (Flag::new(), Flag::new());
        fill(&here);
        assert!(poll_read(&here, &reader).is_pending() && poll_write(&here, &writer, b"x").is_pending());
        here.close();
        assert_other_end_closed(&there);
        reading.wait();
        writing.wait();
        assert_eq!((reading.wakes(), writing.wakes()), (1, 1));
        assert_eq!(failed(poll_read(&here, &reader)), ErrorKind::NotConnected);
        assert_no_waiters();
    });
}

#[test]
fn a_drop_wakes_an_armed_waker_and_closes_the_number() {
    run("a_drop_wakes_an_armed_waker_and_closes_the_number", || {
        let (here, there) = pair();
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        drop(here);
        assert_other_end_closed(&there);
        flag.wait();
        some_turns();
        assert_eq!((flag.wakes(), Arc::strong_count(&flag)), (1, 2));
    });
}

#[test]
fn into_fd_returns_the_number_of_a_polled_source() {
    run("into_fd_returns_the_number_of_a_polled_source", || {
        let (here, there) = pair();
        let number = here.as_raw_fd();
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        let fd = here.into_fd().expect("the source is open");
        assert_eq!(fd.as_raw_fd(), number);
        flag.wait();
        write(&there, b"x").expect("still open");
    });
}

#[test]
fn a_close_on_another_thread_wakes_an_armed_waker_here() {
    run("a_close_on_another_thread_wakes_an_armed_waker_here", || {
        let (here, there) = pair();
        let here = Arc::new(here);
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        let closed = Arc::clone(&here);
        std::thread::spawn(move || closed.close()).join().expect("no panic");
        flag.wait();
        assert_eq!(*flag.thread.lock().unwrap(), Some(std::thread::current().id()));
        assert_eq!(failed(poll_read(&here, &waker)), ErrorKind::NotConnected);
        assert_other_end_closed(&there);
    });
}

#[test]
fn close_does_not_run_the_waker_itself() {
    run("close_does_not_run_the_waker_itself", || {
        let (here, _there) = pair();
        let log = Arc::new(Mutex::new(Vec::new()));
        let woken = Arc::clone(&log);
        // A wake-up may not switch: a wait in it is refused, as in any callback of the main loop.
        let waker = waker(move || {
            let kind = greenhub::thread::current().id();
            let refused = Source::new(std::io::pipe().unwrap().0.into()).unwrap().wait(Interest::READ, ms(1));
            woken.lock().unwrap().push(format!("{} {kind:?}", refused.unwrap_err().kind()));
        });
        assert!(poll_read(&here, &waker).is_pending());
        let other = Rc::new(Cell::new(false));
        let ran = Rc::clone(&other);
        spawn(move || ran.set(true));
        here.close();
        assert!(log.lock().unwrap().is_empty() && !other.get(), "close switched, or ran foreign code");
        until(|| {
            yield_now();
            !log.lock().unwrap().is_empty()
        });
    });
}

#[test]
fn wake_wakes_an_armed_waker_on_every_thread() {
    run("wake_wakes_an_armed_waker_on_every_thread", || {
        let (here, _there) = pair();
        let here = Arc::new(here);
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        here.wake(Interest::WRITE);
        some_turns();
        assert_eq!(flag.wakes(), 0);
        here.wake(Interest::READ);
        flag.wait();
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        let waking = here.waker();
        std::thread::spawn(move || waking.wake(Interest::READ)).join().expect("no panic");
        flag.wait();
        assert!(poll_read(&here, &waker).is_pending());
    });
}

#[test]
fn a_change_of_hub_wakes_an_armed_waker() {
    run("a_change_of_hub_wakes_an_armed_waker", || {
        let (here, there) = pair();
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        greenhub::use_hub("poll").expect("a hub");
        assert_eq!(flag.wakes(), 1);
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        write(&there, b"x").expect("the buffer has room");
        flag.wait();
        assert_eq!(ready(poll_read(&here, &waker)), b"x");
    });
}

#[test]
fn a_queued_wake_up_survives_a_change_of_hub() {
    run("a_queued_wake_up_survives_a_change_of_hub", || {
        let (here, _there) = pair();
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        here.close();
        greenhub::use_hub("poll").expect("a hub");
        flag.wait();
        some_turns();
        assert_eq!(flag.wakes(), 1);
    });
}

#[test]
fn an_abort_wakes_an_armed_waker() {
    run("an_abort_wakes_an_armed_waker", || {
        let (here, there) = pair();
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        yield_now();
        get_hub().abort_wait().expect("main waits");
        flag.wait();
        assert_eq!(flag.wakes(), 1);
        assert!(poll_read(&here, &waker).is_pending());
        write(&there, b"x").expect("the buffer has room");
        while flag.wakes() == 1 {
            sleep(ms(1));
        }
        assert_eq!(ready(poll_read(&here, &waker)), b"x");
    });
}

#[test]
fn a_shutdown_wakes_an_armed_waker() {
    run("a_shutdown_wakes_an_armed_waker", || {
        let (flag, waker) = Flag::new();
        let (here, _there) = pair();
        let ended = std::thread::spawn(move || {
            assert!(poll_read(&here, &waker).is_pending());
            get_hub().shutdown(None).expect("in main");
        });
        ended.join().expect("no panic");
        assert_eq!((flag.wakes(), Arc::strong_count(&flag)), (1, 1));
    });
}

#[test]
fn a_fork_wakes_an_armed_waker_in_the_child() {
    in_child(|| {
        let (here, there) = pair();
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        let child = forked(|| {
            flag.wait();
            some_turns();
            assert_eq!(flag.wakes(), 1);
            assert!(poll_read(&here, &waker).is_pending());
            assert_eq!(stats().readers, 1);
        });
        ends_well(child);
        assert_eq!(flag.wakes(), 0, "the fork woke the parent");
        write(&there, b"parent").expect("the buffer has room");
        flag.wait();
        assert_eq!(ready(poll_read(&here, &waker)), b"parent");
    });
}

#[test]
fn a_wait_beside_an_armed_waker_is_refused() {
    run("a_wait_beside_an_armed_waker_is_refused", || {
        let (here, there) = pair();
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        let error = here.wait(Interest::READ, ms(1)).expect_err("a second reader");
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        here.wait(Interest::WRITE, None).expect("the other direction is free");
        write(&there, b"x").expect("the buffer has room");
        flag.wait();
    });
}

#[test]
fn a_poll_beside_a_parked_reader_is_refused() {
    run("a_poll_beside_a_parked_reader_is_refused", || {
        let (here, there) = pair();
        let here = Rc::new(here);
        let reading = Rc::clone(&here);
        let reader = spawn(move || read(&reading, 8));
        yield_now();
        let (flag, waker) = Flag::new();
        assert_eq!(failed(poll_read(&here, &waker)), ErrorKind::ResourceBusy);
        assert_eq!(Arc::strong_count(&flag), 2);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
        assert!(poll_read(&here, &waker).is_pending());
    });
}

#[test]
fn polls_and_waits_queue_where_several_readers_are_allowed() {
    alone("polls_and_waits_queue_where_several_readers_are_allowed", || {
        hub_prevent_multiple_readers(false);
        let (here, there) = pair();
        let here = Rc::new(here);
        let (flag, waker) = Flag::new();
        // A waker before a green thread.
        assert!(poll_read(&here, &waker).is_pending());
        let reading = Rc::clone(&here);
        let reader = spawn(move || read(&reading, 1));
        yield_now();
        write(&there, b"ab").expect("the buffer has room");
        flag.wait();
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"a");
        assert_eq!(until_ready(|| poll_read(&here, &waker)), b"b");
        // A green thread before a waker, which is replaced in the queue.
        let reading = Rc::clone(&here);
        let reader = spawn(move || read(&reading, 1));
        yield_now();
        let ((first, one), (second, other)) = (Flag::new(), Flag::new());
        assert!(poll_read(&here, &one).is_pending() && poll_read(&here, &other).is_pending());
        write(&there, b"cd").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"c");
        second.wait();
        assert_eq!(first.wakes(), 0);
        assert_eq!(until_ready(|| poll_read(&here, &other)), b"d");
        assert_no_waiters();
    });
}

#[test]
fn a_cancelled_waker_makes_room_for_the_next_waiter() {
    alone("a_cancelled_waker_makes_room_for_the_next_waiter", || {
        hub_prevent_multiple_readers(false);
        let (here, there) = pair();
        let here = Rc::new(here);
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        let reading = Rc::clone(&here);
        let reader = spawn(move || read(&reading, 8));
        yield_now();
        here.cancel_poll(Interest::READ);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
        assert_eq!(flag.wakes(), 1);
    });
}

#[test]
fn cancel_poll_wakes_the_wakers_of_its_directions() {
    run("cancel_poll_wakes_the_wakers_of_its_directions", || {
        let (here, there) = pair();
        fill(&here);
        let ((reading, reader), (writing, writer)) = (Flag::new(), Flag::new());
        assert!(poll_read(&here, &reader).is_pending() && poll_write(&here, &writer, b"x").is_pending());
        here.cancel_poll(Interest::READ);
        assert_eq!((stats().readers, stats().writers), (0, 1));
        assert_eq!(reading.wakes(), 0, "the waker ran inside of the call");
        some_turns();
        assert_eq!((reading.wakes(), writing.wakes()), (1, 0));
        here.cancel_poll(Interest::BOTH);
        assert_no_waiters();
        drop(there);
        some_turns();
        assert_eq!((reading.wakes(), writing.wakes()), (1, 1));
        assert_eq!((Arc::strong_count(&reading), Arc::strong_count(&writing)), (2, 2));
    });
}

#[test]
fn a_waker_that_panics_does_not_end_the_loop() {
    run("a_waker_that_panics_does_not_end_the_loop", || {
        for closes in [false, true] {
            let (here, there) = pair();
            assert!(poll_read(&here, &waker(|| panic!("a waker panics, which is expected"))).is_pending());
            let (flag, other) = Flag::new();
            assert!(poll_read(&there, &other).is_pending());
            if closes {
                here.close();
            } else {
                write(&there, b"x").expect("the buffer has room");
                write(&here, b"x").expect("the buffer has room");
            }
            flag.wait();
        }
        assert_no_waiters();
    });
}

#[test]
fn a_waker_whose_drop_panics_does_not_unwind_a_poll() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Bomb>) {}
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the drop of a waker panics, which is expected");
        }
    }
    run("a_waker_whose_drop_panics_does_not_unwind_a_poll", || {
        let bomb = || {
            let bomb = Arc::new(Bomb);
            let waker = Waker::from(Arc::clone(&bomb));
            // Only the armed clone is left to run the destructor.
            (waker, bomb)
        };
        let arm = |here: &Source| {
            let (waker, bomb) = bomb();
            assert!(poll_read(here, &waker).is_pending());
            drop(waker);
            drop(bomb);
        };
        let (here, there) = pair();
        arm(&here);
        assert!(poll_read(&here, Waker::noop()).is_pending());
        here.cancel_poll(Interest::READ);
        arm(&here);
        here.cancel_poll(Interest::READ);
        arm(&here);
        write(&there, b"x").expect("the buffer has room");
        some_turns();
        assert_eq!(ready(poll_read(&here, Waker::noop())), b"x");
    });
}

#[test]
fn a_waker_may_poll_cancel_and_close() {
    run("a_waker_may_poll_cancel_and_close", || {
        let (here, there) = pair();
        let (other, _kept) = pair();
        let (here, other) = (Arc::new(here), Arc::new(other));
        let (flag, inner) = Flag::new();
        let (polled, closed) = (Arc::clone(&here), Arc::clone(&other));
        let (other_flag, other_waker) = Flag::new();
        assert!(poll_read(&other, &other_waker).is_pending());
        let outer = waker(move || {
            assert_eq!(ready(poll_read(&polled, &inner)), b"x");
            assert!(poll_read(&polled, &inner).is_pending());
            polled.cancel_poll(Interest::READ);
            assert!(poll_read(&polled, &inner).is_pending());
            closed.close();
        });
        assert!(poll_read(&here, &outer).is_pending());
        write(&there, b"x").expect("the buffer has room");
        other_flag.wait();
        assert_eq!(flag.wakes(), 1, "the cancelled waker is woken, and the armed one is not");
        write(&there, b"y").expect("the buffer has room");
        until(|| flag.wakes() == 2);
    });
}

#[test]
fn a_waker_whose_clone_polls_is_armed_once() {
    use std::task::{RawWaker, RawWakerVTable};
    thread_local! {
        static POLLED: RefCell<Option<Rc<Source>>> = const { RefCell::new(None) };
    }
    fn clone(_: *const ()) -> RawWaker {
        if let Some(source) = POLLED.take() {
            assert!(poll_read(&source, Waker::noop()).is_pending());
        }
        RawWaker::new(std::ptr::null(), &TABLE)
    }
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| (), |_| (), |_| ());
    run("a_waker_whose_clone_polls_is_armed_once", || {
        // SAFETY: the functions of the table use no data.
        let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &TABLE)) };
        let (here, _there) = pair();
        let here = Rc::new(here);
        POLLED.set(Some(Rc::clone(&here)));
        assert!(poll_read(&here, &waker).is_pending());
        assert_eq!(stats().readers, 1);
        here.cancel_poll(Interest::READ);
        assert_no_waiters();
    });
}

#[test]
fn unconfirmed_reports_of_polls_are_bounded() {
    run("unconfirmed_reports_of_polls_are_bounded", || {
        if reports_arrivals() {
            return;
        }
        let _clock = use_manual_clock();
        let (here, there) = pair();
        write(&there, b"x").expect("the buffer has room");
        let here = Arc::new(here);
        let tries = Arc::new(AtomicUsize::new(0));
        fn poll(here: &Arc<Source>, tries: &Arc<AtomicUsize>) {
            let (next, counted) = (Arc::clone(here), Arc::clone(tries));
            let waker = waker(move || poll(&next, &counted));
            let polled = here.poll(Interest::READ, &mut Context::from_waker(&waker), |_| {
                tries.fetch_add(1, Ordering::SeqCst);
                Err::<((), ReadHint), _>(ErrorKind::WouldBlock.into())
            });
            assert!(polled.is_pending());
        }
        poll(&here, &tries);
        sleep(ms(1000));
        let tries = tries.load(Ordering::SeqCst);
        // The pauses grow from 1 ms to 64 ms: 63 ms, then 15 of 64 ms.
        assert!((5..40).contains(&tries), "{tries} tries");
        here.cancel_poll(Interest::READ);
    });
}

#[test]
fn close_wakes_a_poll_that_pauses() {
    run("close_wakes_a_poll_that_pauses", || {
        if reports_arrivals() {
            return;
        }
        let _clock = use_manual_clock();
        let (here, there) = pair();
        write(&there, b"x").expect("the buffer has room");
        let poll = |waker: &Waker| {
            here.poll(Interest::READ, &mut Context::from_waker(waker), |_| {
                Err::<((), ReadHint), _>(ErrorKind::WouldBlock.into())
            })
        };
        let mut timers = 0;
        let (flag, waker) = loop {
            let (flag, waker) = Flag::new();
            assert!(poll(&waker).is_pending());
            timers += 1;
            if stats().timers > 0 {
                break (flag, waker);
            }
            while flag.wakes() == 0 {
                yield_now();
            }
            assert!(timers < 100, "no poll pauses");
        };
        here.close();
        while flag.wakes() == 0 {
            yield_now();
        }
        assert_eq!(stats().timers, 0);
        drop(waker);
    });
}

#[test]
fn a_retrying_writer_is_woken_without_a_report() {
    run("a_retrying_writer_is_woken_without_a_report", || {
        let (here, there) = UnixStream::pair().expect("a pair");
        let here = source(here);
        here.set_retrying(true);
        fill(&here);
        let (flag, waker) = Flag::new();
        assert!(poll_write(&here, &waker, b"x").is_pending());
        // The system reports this to no writer.
        there.shutdown(Shutdown::Read).expect("the socket is connected");
        flag.wait();
        let mut polled = poll_write(&here, &waker, b"x");
        while polled.is_pending() {
            sleep(ms(5));
            polled = poll_write(&here, &waker, b"x");
        }
        assert_eq!(failed(polled), ErrorKind::BrokenPipe);
        assert_eq!(stats().timers, 0);
    });
}

#[test]
fn polls_that_succeed_in_a_row_let_others_run() {
    run("polls_that_succeed_in_a_row_let_others_run", || {
        let (here, _there) = pair();
        yield_now();
        let (flag, waker) = Flag::new();
        let mut polls = 0;
        while poll_write(&here, &waker, b"x").is_ready() {
            polls += 1;
            assert!(polls < 1000, "no poll was held back");
        }
        assert_eq!(flag.wakes(), 1, "the poll that is held back wakes its waker");
        assert_no_waiters();
        assert_eq!(ready(poll_write(&here, &waker, b"x")), 1);
    });
}

#[test]
fn a_poll_on_another_thread_takes_the_source_over() {
    run("a_poll_on_another_thread_takes_the_source_over", || {
        let (here, there) = pair();
        let here = Arc::new(here);
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        let moved = Arc::clone(&here);
        let (armed, is_armed) = mpsc::channel();
        let other = std::thread::spawn(move || {
            let (flag, waker) = Flag::new();
            assert!(poll_read(&moved, &waker).is_pending());
            armed.send(()).expect("a receiver");
            flag.wait();
            ready(poll_read(&moved, &waker))
        });
        is_armed.recv().expect("a sender");
        flag.wait();
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(other.join().expect("no panic"), b"x");
        assert_eq!(flag.wakes(), 1);
    });
}

#[test]
fn a_wait_on_another_thread_does_not_disturb_a_poll() {
    run("a_wait_on_another_thread_does_not_disturb_a_poll", || {
        let (here, there) = pair();
        let here = Arc::new(here);
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        let waiting = Arc::clone(&here);
        let refused = std::thread::spawn(move || waiting.wait(Interest::READ, ms(1))).join().expect("no panic");
        assert_eq!(refused.expect_err("polled elsewhere").kind(), ErrorKind::ResourceBusy);
        some_turns();
        assert_eq!(flag.wakes(), 0);
        write(&there, b"x").expect("the buffer has room");
        flag.wait();
    });
}

#[test]
fn a_poll_does_not_disturb_a_wait_on_another_thread() {
    run("a_poll_does_not_disturb_a_wait_on_another_thread", || {
        let (here, there) = pair();
        let here = Arc::new(here);
        let waiting = Arc::clone(&here);
        let (begun, has_begun) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            spawn(move || begun.send(()));
            read(&waiting, 8)
        });
        has_begun.recv().expect("the reader waits");
        let (_flag, waker) = Flag::new();
        // The reader may have begun to wait a little later.
        let mut polled = poll_read(&here, &waker);
        while polled.is_pending() {
            here.cancel_poll(Interest::READ);
            polled = poll_read(&here, &waker);
        }
        assert_eq!(failed(polled), ErrorKind::ResourceBusy);
        write(&there, b"x").expect("the buffer has room");
        assert_eq!(reader.join().expect("no panic").expect("the read succeeds"), b"x");
    });
}

#[test]
fn a_cancel_on_another_thread_wakes_the_waker() {
    run("a_cancel_on_another_thread_wakes_the_waker", || {
        let (here, _there) = pair();
        let here = Arc::new(here);
        let (flag, waker) = Flag::new();
        assert!(poll_read(&here, &waker).is_pending());
        let cancelled = Arc::clone(&here);
        std::thread::spawn(move || cancelled.cancel_poll(Interest::READ)).join().expect("no panic");
        flag.wait();
        assert_no_waiters();
    });
}

#[test]
fn a_poll_inside_the_wait_of_a_hub_is_armed_after_it() {
    /// Polls inside its next wait.
    struct PollsInWait(Option<Box<dyn FnOnce()>>);
    impl Tap for PollsInWait {
        fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
            if let Some(poll) = self.0.take() {
                poll();
            }
            call.forward(hub)
        }
    }
    run("a_poll_inside_the_wait_of_a_hub_is_armed_after_it", || {
        for cancels in [false, true] {
            let (here, there) = pair();
            let here = Arc::new(here);
            let (flag, waker) = Flag::new();
            let (polled, polling) = (Arc::clone(&here), waker.clone());
            let mut poll: Option<Box<dyn FnOnce()>> = Some(Box::new(move || {
                assert!(poll_read(&polled, &polling).is_pending());
                if cancels {
                    polled.cancel_poll(Interest::READ);
                }
            }));
            use_hub_with(move || crate::support::hubs::Tapped::new(PollsInWait(poll.take())))
                .expect("not in the main loop");
            some_turns();
            if cancels {
                flag.wait();
                assert_no_waiters();
            } else {
                assert_eq!((flag.wakes(), stats().readers), (0, 1));
                write(&there, b"x").expect("the buffer has room");
                flag.wait();
                assert_eq!(ready(poll_read(&here, &waker)), b"x");
            }
        }
    });
}

/// Polls a source in the waits of a hub.
struct PollsInWaits {
    source: Rc<Source>,
    waker: Waker,
    /// How often to poll.
    polls: Rc<Cell<usize>>,
    error: Rc<Cell<Option<ErrorKind>>>,
    refuses: bool,
}

impl Tap for PollsInWaits {
    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> io::Result<()> {
        if self.refuses && call.key.fd() == self.source.as_raw_fd() {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        call.forward(hub)
    }

    fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
        if let Some(left) = self.polls.get().checked_sub(1) {
            self.polls.set(left);
            if let Poll::Ready(result) = poll_read(&self.source, &self.waker) {
                self.polls.set(0);
                self.error.set(Some(result.expect_err("the buffer is empty").kind()));
            }
        }
        call.forward(hub)
    }
}

/// Lets a poll inside the waits of a hub go on until it fails, and returns the error.
fn error_in_waits(refuses: bool, prepare: impl FnOnce(&Rc<Source>)) -> ErrorKind {
    let (here, _there) = pair();
    let (source, polls, error) = (Rc::new(here), Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
    let (flag, waker) = Flag::new();
    let tap = PollsInWaits { source: source.clone(), waker, polls: polls.clone(), error: error.clone(), refuses };
    use_tapped_hub(tap);
    prepare(&source);
    polls.set(20);
    for _ in 0..20 {
        some_turns();
    }
    assert_eq!(flag.wakes(), 1);
    error.get().expect("no poll has failed")
}

#[test]
fn a_poll_inside_the_wait_of_a_hub_is_refused_beside_a_parked_reader() {
    run("a_poll_inside_the_wait_of_a_hub_is_refused_beside_a_parked_reader", || {
        let mut reader = None;
        let error = error_in_waits(false, |source| {
            let reading = Rc::clone(source);
            reader = Some(spawn(move || read(&reading, 8)));
            yield_now();
        });
        assert_eq!(error, ErrorKind::ResourceBusy);
        kill(&reader.expect("a reader"));
    });
}

#[test]
fn a_poll_inside_the_wait_of_a_hub_gets_the_error_of_the_hub() {
    run("a_poll_inside_the_wait_of_a_hub_gets_the_error_of_the_hub", || {
        assert_eq!(error_in_waits(true, |_| ()), ErrorKind::QuotaExceeded);
    });
}

#[test]
fn an_error_of_a_poll_inside_the_wait_of_a_hub_does_not_outlive_its_cause() {
    run("an_error_of_a_poll_inside_the_wait_of_a_hub_does_not_outlive_its_cause", || {
        let (here, there) = pair();
        let (source, polls, error) = (Rc::new(here), Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
        let (flag, waker) = Flag::new();
        let tap = PollsInWaits { source: source.clone(), waker, polls: polls.clone(), error, refuses: false };
        use_tapped_hub(tap);
        let reading = Rc::clone(&source);
        let reader = spawn(move || read(&reading, 8));
        yield_now();
        polls.set(1);
        flag.wait();
        kill(&reader);
        assert!(reader.join().is_err());
        let (later, waker) = Flag::new();
        assert!(poll_read(&source, &waker).is_pending());
        write(&there, b"x").expect("the buffer has room");
        later.wait();
        assert_eq!(ready(poll_read(&source, &waker)), b"x");
    });
}

#[test]
fn an_armed_waker_keeps_the_loop_waiting() {
    run("an_armed_waker_keeps_the_loop_waiting", || {
        let (here, there) = pair();
        let main = greenhub::thread::current();
        let waker = waker(move || main.unpark());
        assert!(poll_read(&here, &waker).is_pending());
        let writer = std::thread::spawn(move || {
            std::thread::sleep(ms(50));
            write(&there, b"x").expect("the buffer has room");
        });
        greenhub::thread::park();
        assert_eq!(ready(poll_read(&here, &waker)), b"x");
        writer.join().expect("no panic");
    });
}

#[test]
fn a_listing_shows_an_armed_waker() {
    run("a_listing_shows_an_armed_waker", || {
        let (here, _there) = pair();
        assert!(poll_read(&here, Waker::noop()).is_pending());
        let listed = listeners();
        let [waiter] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!((waiter.fd, waiter.interest), (here.as_raw_fd(), Interest::READ));
        assert!(matches!(waiter.target, TargetInfo::Future) && waiter.target.to_string() == "a future");
    });
}

#[test]
fn a_poll_allocates_nothing_once_warm() {
    run("a_poll_allocates_nothing_once_warm", || {
        let (here, there) = pair();
        let (flag, waker) = Flag::new();
        let mut buffer = [0; 8];
        let mut round = |woken: usize| {
            let mut poll = || {
                here.poll(Interest::READ, &mut Context::from_waker(&waker), |fd| {
                    Ok((rustix::io::read(fd, &mut buffer)?, ReadHint::Perhaps))
                })
            };
            assert!(poll().is_pending() && poll().is_pending());
            write(&there, b"x").expect("the buffer has room");
            while flag.wakes() < woken {
                yield_now();
            }
            assert!(poll().is_ready());
        };
        (1..=100).for_each(&mut round);
        let before = allocations();
        (101..=1100).for_each(&mut round);
        assert_eq!(allocations() - before, 0);
    });
}

#[test]
fn a_killed_green_thread_leaves_no_waker_of_its_dropped_source() {
    run("a_killed_green_thread_leaves_no_waker_of_its_dropped_source", || {
        let (here, there) = pair();
        let (flag, waker) = Flag::new();
        let holder = spawn(move || {
            assert!(poll_read(&here, &waker).is_pending());
            sleep(std::time::Duration::from_secs(3600));
        });
        yield_now();
        kill(&holder);
        assert_other_end_closed(&there);
        flag.wait();
        assert_no_waiters();
    });
}

#[test]
fn a_source_polled_at_random_on_two_threads_loses_no_byte() {
    run("a_source_polled_at_random_on_two_threads_loses_no_byte", || {
        const BYTES: usize = 300;
        let (here, there) = pair();
        let here = Arc::new(here);
        let taken = Arc::new(AtomicUsize::new(0));
        let take = |here: Arc<Source>, taken: Arc<AtomicUsize>| {
            move || {
                while taken.load(Ordering::SeqCst) < BYTES {
                    let (flag, waker) = Flag::new();
                    let mut buffer = [0];
                    let polled = here.poll(Interest::READ, &mut Context::from_waker(&waker), |fd| {
                        Ok((rustix::io::read(fd, &mut buffer)?, ReadHint::Perhaps))
                    });
                    match polled {
                        Poll::Ready(Ok(count)) => _ = taken.fetch_add(count, Ordering::SeqCst),
                        Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}"),
                        Poll::Pending => {
                            while flag.wakes() == 0 && taken.load(Ordering::SeqCst) < BYTES {
                                sleep(ms(1));
                            }
                        }
                    }
                }
            }
        };
        let other = std::thread::spawn(take(Arc::clone(&here), Arc::clone(&taken)));
        let mut writer = 0;
        let own = spawn(take(Arc::clone(&here), Arc::clone(&taken)));
        while writer < BYTES {
            writer += write(&there, b"x").expect("the buffer has room");
            if writer % 7 == 0 {
                sleep(ms(1));
            }
        }
        own.join().expect("no panic");
        other.join().expect("no panic");
        assert_eq!(taken.load(Ordering::SeqCst), BYTES);
        drop(here);
        assert_other_end_closed(&there);
        until(|| stats().readers == 0);
    });
}
