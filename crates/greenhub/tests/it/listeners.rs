//! Waits for descriptors and listeners: their wake-ups, the order, and the state afterwards.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support::descriptors::{assert_no_waiters, fill, ms, pair, read, source, stats, until, write};
use crate::support::{in_child, limited};
use greenhub::debug::hub_prevent_multiple_readers;
use greenhub::hub::{Listener, Readiness, Registration};
use greenhub::park::{notify_close, trampoline_raw};
use greenhub::thread::yield_now;
use greenhub::{GreenThread, Interest, TrampolineError, get_hub, sleep, spawn, trampoline};

/// Parks a green thread until `stream` is readable.
fn waiting_reader(stream: &Rc<UnixStream>) -> GreenThread<Result<Readiness, TrampolineError>> {
    let stream = Rc::clone(stream);
    let reader = spawn(move || trampoline(&*stream, Interest::READ, None));
    yield_now();
    reader
}

fn streams() -> (Rc<UnixStream>, Rc<UnixStream>) {
    let (left, right) = UnixStream::pair().expect("a pair");
    left.set_nonblocking(true).expect("the descriptor becomes non-blocking");
    (Rc::new(left), Rc::new(right))
}

fn send(stream: &UnixStream, bytes: &[u8]) {
    io::Write::write_all(&mut &*stream, bytes).expect("the buffer has room");
}

fn receive(stream: &UnixStream, limit: usize) -> Vec<u8> {
    let mut buffer = vec![0; limit];
    let count = io::Read::read(&mut &*stream, &mut buffer).expect("the read succeeds");
    buffer.truncate(count);
    buffer
}

#[test]
fn a_timed_out_wait_leaves_no_listener() {
    limited(|| {
        let (here, _there) = streams();
        let begin = Instant::now();
        let error = trampoline(&*here, Interest::READ, Some(ms(10))).expect_err("nothing comes");
        assert!(matches!(error, TrampolineError::TimedOut { fd } if fd == here.as_raw_fd()), "{error}");
        assert!(begin.elapsed() >= ms(10));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
        assert_no_waiters();
        assert_eq!(stats().timers, 0);
    });
}

#[test]
fn a_served_wait_cancels_its_timeout() {
    limited(|| {
        let (here, there) = streams();
        send(&there, b"x");
        trampoline(&*here, Interest::READ, Some(ms(20))).expect("data is there");
        assert_eq!(stats().timers, 0);
        let error = trampoline(&*there, Interest::READ, Some(ms(60))).expect_err("nothing comes");
        assert!(matches!(error, TrampolineError::TimedOut { fd } if fd == there.as_raw_fd()));
    });
}

#[test]
fn a_wait_for_both_directions_or_none_is_an_error() {
    limited(|| {
        let (here, _there) = streams();
        let turns = stats().turns;
        for wrong in [Interest::BOTH, Interest::NONE] {
            let error = trampoline(&*here, wrong, None).expect_err("not one direction");
            assert!(matches!(error, TrampolineError::Interest { interest, .. } if interest == wrong));
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
            assert!(get_hub().listen(Rc::clone(&here), wrong, |_| {}).is_err());
            let (owned, _other) = pair();
            assert_eq!(owned.wait(wrong, None).expect_err("not one direction").kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(stats().turns, turns);
        assert_no_waiters();
    });
}

#[test]
fn a_second_reader_is_refused_and_the_first_is_served() {
    limited(|| {
        let (here, there) = streams();
        let first = waiting_reader(&here);
        let error = trampoline(&*here, Interest::READ, None).expect_err("a reader waits");
        let number = here.as_raw_fd();
        assert!(matches!(error, TrampolineError::SecondSimultaneous { direction: Interest::READ, fd } if fd == number));
        let text = error.to_string();
        assert!(text.contains("read") && text.contains(&number.to_string()), "{text}");
        send(&there, b"x");
        assert!(first.join().expect("the waiter returns").is_ok());

        let mut left = fill(&source(here.try_clone().expect("a copy")));
        let first = spawn({
            let here = Rc::clone(&here);
            move || trampoline(&*here, Interest::WRITE, None)
        });
        yield_now();
        let error = trampoline(&*here, Interest::WRITE, None).expect_err("a writer waits");
        assert!(
            matches!(error, TrampolineError::SecondSimultaneous { direction: Interest::WRITE, fd } if fd == number)
        );
        assert!(error.to_string().contains("write"), "{error}");
        while left > 0 {
            left -= receive(&there, 64 * 1024).len();
        }
        assert!(first.join().expect("the waiter returns").is_ok());
    });
}

#[test]
fn a_reader_and_a_writer_share_a_descriptor() {
    limited(|| {
        let (here, there) = pair();
        let (here, there) = (Rc::new(here), Rc::new(there));
        let filled = fill(&here);
        let reader = spawn({
            let here = Rc::clone(&here);
            move || read(&here, 8)
        });
        let writer = spawn({
            let here = Rc::clone(&here);
            move || write(&here, b"more")
        });
        yield_now();
        assert_eq!((stats().readers, stats().writers), (1, 1));
        write(&there, b"hello").expect("the buffer has room");
        assert_eq!(reader.join().expect("the waiter returns").expect("the read succeeds"), b"hello");
        let mut left = filled;
        while left > 0 {
            left -= read(&there, 64 * 1024).expect("the read succeeds").len();
        }
        assert_eq!(writer.join().expect("the waiter returns").expect("the buffer has room"), 4);
    });
}

#[test]
fn second_readers_can_be_allowed() {
    in_child(|| {
        let (here, there) = streams();
        hub_prevent_multiple_readers(false);
        let first = waiting_reader(&here);
        let second = waiting_reader(&here);
        assert!(!second.is_finished());
        send(&there, b"x");
        assert!(
            first.join().expect("the waiter returns").is_ok() && second.join().expect("the waiter returns").is_ok()
        );
        hub_prevent_multiple_readers(true);
        let _first = waiting_reader(&there);
        assert!(trampoline(&*there, Interest::READ, None).is_err());
    });
}

/// Spawns green threads that each read one byte and log it.
fn readers(
    here: &Rc<UnixStream>,
    count: usize,
    got: &Rc<RefCell<Vec<(usize, u8)>>>,
) -> Vec<GreenThread<Result<(), TrampolineError>>> {
    (0..count)
        .map(|number| {
            let (here, got) = (Rc::clone(here), Rc::clone(got));
            let reader = spawn(move || {
                trampoline(&*here, Interest::READ, None)?;
                got.borrow_mut().push((number, receive(&here, 1)[0]));
                Ok(())
            });
            yield_now();
            reader
        })
        .collect()
}

#[test]
fn allowed_readers_are_served_in_order() {
    in_child(|| {
        hub_prevent_multiple_readers(false);
        let (here, there) = streams();
        let got = Rc::default();
        let readers = readers(&here, 3, &got);
        send(&there, b"abc");
        readers
            .into_iter()
            .for_each(|reader| reader.join().expect("the waiter returns").expect("the descriptor becomes readable"));
        assert_eq!(*got.borrow(), [(0, b'a'), (1, b'b'), (2, b'c')]);
        assert_no_waiters();
    });
}

#[test]
fn a_queued_reader_that_times_out_leaves_the_first_alone() {
    in_child(|| {
        hub_prevent_multiple_readers(false);
        let (here, there) = streams();
        let first = waiting_reader(&here);
        let error = trampoline(&*here, Interest::READ, Some(ms(5))).expect_err("the first comes first");
        assert!(matches!(error, TrampolineError::TimedOut { .. }));
        assert_eq!(stats().readers, 1);
        let killed = waiting_reader(&here);
        killed.kill();
        assert!(killed.is_finished() && !first.is_finished());
        assert_eq!(stats().readers, 1);
        send(&there, b"x");
        assert!(first.join().expect("the waiter returns").is_ok());
    });
}

#[test]
fn several_allowed_readers_all_get_data() {
    in_child(|| {
        hub_prevent_multiple_readers(false);
        let (here, there) = pair();
        let here = Rc::new(here);
        let counts: Vec<Rc<Cell<usize>>> = (0..2).map(|_| Rc::default()).collect();
        let readers: Vec<_> = counts
            .iter()
            .map(|count| {
                let (here, count) = (Rc::clone(&here), Rc::clone(count));
                spawn(move || {
                    while !read(&here, 1).expect("the read succeeds").is_empty() {
                        count.set(count.get() + 1);
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            yield_now();
            write(&there, b"xx").expect("the buffer has room");
            sleep(ms(1));
        }
        drop(there);
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
        assert!(counts.iter().all(|count| count.get() > 0), "{counts:?}");
        assert_eq!(counts.iter().map(|count| count.get()).sum::<usize>(), 40);
    });
}

#[test]
fn a_hang_up_wakes_reader_and_writer() {
    limited(|| {
        let (here, there) = pair();
        fill(&here);
        let here = Rc::new(here);
        let reader = spawn({
            let here = Rc::clone(&here);
            move || read(&here, 8)
        });
        let writer = spawn({
            let here = Rc::clone(&here);
            move || write(&here, b"x")
        });
        yield_now();
        assert_eq!((stats().readers, stats().writers), (1, 1));
        there.close();
        let read = reader.join().expect("the waiter returns");
        // On some systems, unread data turns the end into a reset.
        assert!(
            read.as_ref().is_ok_and(Vec::is_empty) || read.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset)
        );
        assert_eq!(
            writer.join().expect("the waiter returns").expect_err("the reader is gone").kind(),
            io::ErrorKind::BrokenPipe
        );
        assert_no_waiters();
    });
}

#[test]
fn a_refused_registration_leaves_no_trace() {
    limited(|| {
        let file = std::fs::File::open("/etc/passwd").expect("a file");
        let errors: Vec<Option<i32>> = (0..2)
            .map(|_| match trampoline(&file, Interest::READ, Some(ms(100))) {
                Ok(_) => None,
                Err(error) => Some(io::Error::from(error).raw_os_error().expect("the error is the system's")),
            })
            .collect();
        assert_eq!(errors[0], errors[1]);
        if get_hub().name() == "epoll" {
            assert_eq!(errors[0], Some(libc::EPERM));
        }
        assert_no_waiters();
        assert_eq!(stats().timers, 0);
    });
}

#[test]
fn a_negative_descriptor_is_an_invalid_argument() {
    limited(|| {
        for _ in 0..2 {
            // SAFETY: a negative number is never an open descriptor.
            let error = unsafe { trampoline_raw(-1, Interest::READ, None) }.expect_err("no descriptor");
            assert!(matches!(error, TrampolineError::InvalidFd { fd: -1 }), "{error}");
        }
    });
}

#[test]
fn a_listener_added_during_dispatch_is_called_in_a_later_turn() {
    limited(|| {
        let (first, first_peer) = streams();
        let (second, second_peer) = streams();
        send(&first_peer, b"x");
        send(&second_peer, b"x");
        let turns: Rc<RefCell<Vec<(&str, u64)>>> = Rc::default();
        let inner: Rc<RefCell<Option<Registration>>> = Rc::default();
        let noted = {
            let (turns, inner, first) = (Rc::clone(&turns), Rc::clone(&inner), Rc::clone(&first));
            move |_: Readiness| {
                receive(&first, 8);
                turns.borrow_mut().push(("first", stats().turns));
                let (turns, second) = (Rc::clone(&turns), Rc::clone(&second));
                let reader = Rc::clone(&second);
                let added = get_hub().listen(second, Interest::READ, move |_: Readiness| {
                    receive(&reader, 8);
                    turns.borrow_mut().push(("second", stats().turns));
                });
                *inner.borrow_mut() = Some(added.expect("the hub accepts the listener"));
            }
        };
        let _first = get_hub().listen(Rc::clone(&first), Interest::READ, noted).expect("the hub accepts the listener");
        until(|| turns.borrow().len() == 2);
        let turns = turns.borrow();
        assert_eq!((turns[0].0, turns[1].0), ("first", "second"));
        assert!(turns[1].1 > turns[0].1, "{turns:?}");
    });
}

#[test]
fn a_listener_that_reuses_an_entry_is_not_called_for_the_old_report() {
    limited(|| {
        let (idle, _idle_peer) = streams();
        let registered: Rc<RefCell<Vec<Option<Registration>>>> = Rc::default();
        let replaced = Rc::new(Cell::new(0));
        let called = Rc::new(Cell::new(0));
        // The listener that is called first deregisters the other, and registers a third, which reuses the free entry.
        let peers: Vec<_> = (0..2)
            .map(|one| {
                let (here, there) = streams();
                send(&there, b"x");
                let (registered, replaced, called) = (Rc::clone(&registered), Rc::clone(&replaced), Rc::clone(&called));
                let (idle, kept) = (Rc::clone(&idle), Rc::clone(&registered));
                let replaces = move |_: Readiness| {
                    replaced.set(replaced.get() + 1);
                    let other = registered.borrow_mut()[1 - one].take();
                    drop(other);
                    let called = Rc::clone(&called);
                    let third = get_hub()
                        .listen(Rc::clone(&idle), Interest::READ, move |_: Readiness| called.set(called.get() + 1));
                    registered.borrow_mut()[1 - one] = Some(third.expect("the hub accepts the listener"));
                    let own = registered.borrow_mut()[one].take();
                    drop(own);
                };
                let registration =
                    get_hub().listen(here, Interest::READ, replaces).expect("the hub accepts the listener");
                kept.borrow_mut().push(Some(registration));
                there
            })
            .collect();
        sleep(ms(1));
        assert_eq!((replaced.get(), called.get()), (1, 0));
        registered.borrow_mut().clear();
        drop(peers);
    });
}

#[test]
fn a_listener_is_called_once_per_batch() {
    limited(|| {
        let (here, there) = streams();
        send(&there, b"x");
        drop(there);
        let turns: Rc<RefCell<Vec<u64>>> = Rc::default();
        let noted = Rc::clone(&turns);
        let listener = move |_: Readiness| noted.borrow_mut().push(stats().turns);
        let registration = get_hub().listen(here, Interest::READ, listener).expect("the hub accepts the listener");
        until(|| turns.borrow().len() > 2);
        drop(registration);
        let calls = turns.borrow().clone();
        let mut once = calls.clone();
        once.dedup();
        assert_eq!(calls, once, "data, end and hang-up came as several reports");
    });
}

#[test]
fn unread_data_wakes_the_next_wait_at_once() {
    limited(|| {
        let (here, there) = streams();
        send(&there, b"ab");
        trampoline(&*here, Interest::READ, None).expect("the descriptor becomes readable");
        assert_eq!(receive(&here, 1), b"a");
        trampoline(&*here, Interest::READ, Some(Duration::from_secs(60))).expect("ready still");
        assert_eq!(receive(&here, 1), b"b");
    });
}

#[test]
fn unread_data_without_a_waiter_does_not_spin() {
    limited(|| {
        let (here, there) = streams();
        let (owned, owned_peer) = pair();
        trampoline(&*here, Interest::READ, Some(ms(1))).expect_err("nothing yet");
        owned.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        send(&there, b"x");
        write(&owned_peer, b"x").expect("the buffer has room");
        let waits = stats().waits;
        for _ in 0..5 {
            sleep(ms(2));
        }
        let waits = stats().waits - waits;
        assert!(waits <= 20, "{waits} waits for five sleeps");
        assert_eq!(read(&owned, 8).expect("the read succeeds"), b"x");
    });
}

#[derive(Default)]
struct Counts {
    ready: Cell<usize>,
    closed: Cell<usize>,
}

struct CountingListener(Rc<Counts>);

impl Listener for CountingListener {
    fn ready(&self, _fd: i32, _what: Readiness) {
        self.0.ready.set(self.0.ready.get() + 1);
    }
    fn closed(&self, _fd: i32) {
        self.0.closed.set(self.0.closed.get() + 1);
    }
}

#[test]
fn removing_a_spent_listener_does_nothing() {
    limited(|| {
        let (here, there) = streams();
        let counts: Rc<Counts> = Rc::default();
        let spent = get_hub()
            .listen(Rc::clone(&here), Interest::READ, CountingListener(Rc::clone(&counts)))
            .expect("the hub accepts the listener");
        notify_close(here.as_raw_fd());
        yield_now();
        assert_eq!(counts.closed.get(), 1);
        let reader = waiting_reader(&here);
        drop(spent);
        assert_eq!(stats().readers, 1, "the current waiter was deregistered");
        send(&there, b"x");
        assert!(reader.join().expect("the waiter returns").is_ok());
        assert_eq!(counts.ready.get(), 0);
    });
}

#[test]
fn closed_is_called_in_the_main_loop() {
    struct Waits(Rc<std::cell::RefCell<Option<Result<Readiness, TrampolineError>>>>);
    impl Listener for Waits {
        fn ready(&self, _fd: i32, _what: Readiness) {}
        fn closed(&self, _fd: i32) {
            let (reader, _writer) = std::io::pipe().expect("a pipe");
            self.0.replace(Some(trampoline(&reader, Interest::READ, Some(ms(1)))));
        }
    }
    limited(|| {
        // Before and after the start of the loop.
        for _ in 0..2 {
            let (here, _there) = streams();
            let waited = Rc::default();
            let listener = Waits(Rc::clone(&waited));
            let _registration =
                get_hub().listen(Rc::clone(&here), Interest::READ, listener).expect("the hub accepts the listener");
            notify_close(here.as_raw_fd());
            assert!(waited.borrow().is_none(), "the caller has called the listener");
            sleep(ms(1));
            let error = waited.take().expect("the listener was called").expect_err("nothing may wait there");
            assert!(
                matches!(&error, TrampolineError::Loop(error) if error.kind() == greenhub::hub::LoopErrorKind::InMainloop),
                "{error}"
            );
        }
    });
}

#[test]
fn a_listener_deregistered_after_the_notice_is_not_called() {
    limited(|| {
        let (here, _there) = streams();
        let counts: Rc<Counts> = Rc::default();
        let registration = get_hub()
            .listen(Rc::clone(&here), Interest::READ, CountingListener(Rc::clone(&counts)))
            .expect("the hub accepts the listener");
        notify_close(here.as_raw_fd());
        drop(registration);
        sleep(ms(1));
        assert_eq!(counts.closed.get(), 0);
    });
}

struct Failing;

impl Listener for Failing {
    fn ready(&self, _fd: i32, _what: Readiness) {}
    fn closed(&self, _fd: i32) {
        panic!("a listener that fails in `closed`");
    }
}

#[test]
fn notify_close_wakes_every_waiter_even_if_a_listener_panics() {
    limited(|| {
        let (here, _there) = streams();
        let filled = source(here.try_clone().expect("a copy"));
        fill(&filled);
        let _failing =
            get_hub().listen(Rc::clone(&here), Interest::READ, Failing).expect("the hub accepts the listener");
        let writer = spawn({
            let here = Rc::clone(&here);
            move || trampoline(&*here, Interest::WRITE, None)
        });
        yield_now();
        notify_close(here.as_raw_fd());
        let error = writer.join().expect("the waiter returns").expect_err("given up");
        assert!(matches!(error, TrampolineError::Closed { .. }), "{error}");
        assert_no_waiters();
    });
}

#[test]
fn queued_waiters_are_not_counted_as_listeners() {
    in_child(|| {
        hub_prevent_multiple_readers(false);
        let (here, _there) = streams();
        let _readers = readers(&here, 3, &Rc::default());
        assert_eq!((stats().readers, stats().writers), (1, 0));
    });
}

#[test]
fn removing_the_reader_keeps_the_writer_armed() {
    limited(|| {
        let (here, there) = streams();
        let filled = fill(&source(here.try_clone().expect("a copy")));
        let registration = get_hub()
            .listen(Rc::clone(&here), Interest::READ, |_: Readiness| {})
            .expect("the hub accepts the listener");
        let writer = spawn({
            let here = Rc::clone(&here);
            move || trampoline(&*here, Interest::WRITE, None)
        });
        yield_now();
        drop(registration);
        assert_eq!((stats().readers, stats().writers), (0, 1));
        let mut left = filled;
        while left > 0 {
            left -= receive(&there, 64 * 1024).len();
        }
        assert!(writer.join().expect("the waiter returns").is_ok());
    });
}

#[test]
fn a_wait_takes_any_type_that_lends_a_descriptor() {
    limited(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("the listener has room");
        trampoline(&listener, Interest::READ, None).expect("a connection");
        trampoline(&client, Interest::WRITE, None).expect("the descriptor becomes writable");
        let (owned, _peer) = pair();
        trampoline(&owned, Interest::WRITE, None).expect("the descriptor becomes writable");
        // SAFETY: `client` outlives the wait.
        unsafe { trampoline_raw(client.as_raw_fd(), Interest::WRITE, None) }.expect("the descriptor becomes writable");
    });
}

#[test]
fn killing_a_waiter_removes_listener_and_timer() {
    limited(|| {
        let (here, there) = pair();
        fill(&here);
        let here = Rc::new(here);
        let waiters = [
            spawn({
                let here = Rc::clone(&here);
                move || drop(here.wait(Interest::READ, Some(Duration::from_secs(60))))
            }),
            spawn({
                let here = Rc::clone(&here);
                move || drop(here.wait(Interest::WRITE, Some(Duration::from_secs(60))))
            }),
            spawn(move || drop(trampoline(&there, Interest::READ, Some(Duration::from_secs(60))))),
        ];
        yield_now();
        let before = stats();
        assert_eq!((before.readers, before.writers, before.timers), (2, 1, 3));
        waiters.iter().for_each(|waiter| _ = waiter.kill());
        assert_no_waiters();
        assert_eq!(stats().timers, 0);
    });
}

#[test]
fn a_half_close_does_not_wake_a_writer() {
    limited(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("the listener has room");
        let (peer, _) = listener.accept().expect("the accept succeeds");
        let client = source(client);
        fill(&client);
        peer.shutdown(Shutdown::Write).expect("a half close");
        let error = client.wait(Interest::WRITE, Some(ms(30))).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(read(&client, 8).expect("the end"), b"");
    });
}

#[test]
fn a_listener_stays_ahead_of_queued_waiters() {
    in_child(|| {
        hub_prevent_multiple_readers(false);
        let (here, there) = streams();
        let counts: Rc<Counts> = Rc::default();
        let listener = get_hub().listen(Rc::clone(&here), Interest::READ, CountingListener(Rc::clone(&counts)));
        let queued = waiting_reader(&here);
        send(&there, b"x");
        until(|| counts.ready.get() > 1);
        assert!(!queued.is_finished());
        drop(listener);
        assert!(queued.join().expect("the waiter returns").is_ok());
    });
}

#[test]
fn deregistering_a_listener_keeps_the_socket_registered() {
    limited(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        let here = Rc::new(here);
        struct Lent(Rc<greenhub::park::Source>);
        impl std::os::fd::AsFd for Lent {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
        let listener = get_hub()
            .listen(Lent(Rc::clone(&here)), Interest::WRITE, |_: Readiness| {})
            .expect("the hub accepts the listener");
        drop(listener);
        spawn(move || {
            sleep(ms(5));
            write(&there, b"x").expect("the buffer has room");
            sleep(Duration::from_secs(60));
        });
        assert_eq!(read(&here, 8).expect("the read succeeds"), b"x");
    });
}

#[test]
fn a_closure_in_a_cell_listens_and_counts() {
    limited(|| {
        let (here, there) = UnixStream::pair().expect("a pair");
        let seen = Rc::new(Cell::new(0));
        let to = seen.clone();
        let mut calls = 0;
        let count = RefCell::new(move |readiness: Readiness| {
            assert!(readiness.contains(Readiness::READ));
            calls += 1;
            to.set(calls);
        });
        let _registration = get_hub().listen(here, Interest::READ, count).expect("a free direction");
        send(&there, b"x");
        until(|| seen.get() >= 2);
    });
}
