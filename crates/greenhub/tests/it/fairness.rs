//! Fairness: a green thread that is always served at once, or computes for long, does not starve others.
//!
//! These tests count operations and hand-offs, and measure no times.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::support::hubs::use_manual_clock;
use crate::support::limited;
use crate::support::random::Rng;
use greenhub::hub::LoopErrorKind;
use greenhub::net::{TcpListener, TcpStream, UdpSocket};
use greenhub::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use greenhub::park::consume_budget;
use greenhub::sync::{CappedSemaphore, Channel, Event, LightQueue, Mutex, Queue, RwLock, Semaphore, mpsc};
use greenhub::thread::yield_now;
use greenhub::{GreenError, get_hub, io, sleep, spawn, spawn_n, with_timeout};

/// More consecutive operations than any budget allows.
const MANY: usize = 200;

/// The most consecutive operations that a documented budget allows.
const LONGEST: usize = 2 * 16;

/// Calls an operation [`MANY`] times that is served at once, and returns the most consecutive calls during which no
/// other green thread ran.
fn longest_row(mut operation: impl FnMut()) -> usize {
    let others = Rc::new(Cell::new(0));
    let (ran, stop) = (others.clone(), Rc::new(Cell::new(false)));
    let stopped = stop.clone();
    let other = spawn(move || {
        while !stopped.get() {
            ran.set(ran.get() + 1);
            yield_now();
        }
    });
    yield_now();
    let (mut row, mut longest, mut seen) = (0, 0, others.get());
    for _ in 0..MANY {
        operation();
        row = if others.get() == seen { row + 1 } else { 1 };
        seen = others.get();
        longest = longest.max(row);
    }
    stop.set(true);
    other.join().unwrap();
    longest
}

#[track_caller]
fn lets_others_run(operation: impl FnMut()) {
    let longest = longest_row(operation);
    assert!(longest <= LONGEST, "{longest} operations in a row");
    assert!(longest > 1, "an operation that is served at once mostly does not switch");
}

#[track_caller]
fn keeps_the_thread(operation: impl FnMut()) {
    assert_eq!(longest_row(operation), MANY);
}

#[test]
fn reading_available_data_lets_others_run() {
    limited(|| {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut near, &[7; MANY]).unwrap();
        lets_others_run(|| far.read_exact(&mut [0]).unwrap());
        near.write_all(&[7; MANY]).unwrap();
        lets_others_run(|| assert_eq!(far.read_vectored(&mut [std::io::IoSliceMut::new(&mut [0])]).unwrap(), 1));
    });
}

#[test]
fn writing_where_there_is_room_lets_others_run() {
    limited(|| {
        let (mut near, _far) = UnixStream::pair().unwrap();
        lets_others_run(|| near.write_all(&[7]).unwrap());
    });
}

#[test]
fn reading_and_writing_tcp_lets_others_run() {
    limited(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut far = listener.accept().unwrap().0;
        lets_others_run(|| near.write_all(&[7]).unwrap());
        let first = far.peek(&mut [0; MANY]).unwrap();
        assert!(first > 0);
        lets_others_run(|| assert!(far.peek(&mut [0]).unwrap() > 0));
        far.read_exact(&mut [0; MANY]).unwrap();
    });
}

#[test]
fn pipes_let_others_run() {
    limited(|| {
        let (mut reader, mut writer) = io::pipe().unwrap();
        lets_others_run(|| writer.write_all(&[7]).unwrap());
        lets_others_run(|| reader.read_exact(&mut [0]).unwrap());
        let (reader, writer) = std::io::pipe().unwrap();
        let (mut reader, mut writer) = (io::PipeReader::from(reader), io::PipeWriter::from(writer));
        lets_others_run(|| writer.write_all(&[7]).unwrap());
        lets_others_run(|| reader.read_exact(&mut [0]).unwrap());
    });
}

#[test]
fn datagrams_let_others_run() {
    limited(|| {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let there = far.local_addr().unwrap();
        lets_others_run(|| assert_eq!(near.send_to(b"x", there).unwrap(), 1));
        let (near, far) = UnixDatagram::pair().unwrap();
        lets_others_run(|| {
            near.send(b"x").unwrap();
            far.recv(&mut [0]).unwrap();
        });
        let path = std::env::temp_dir().join(format!("greenhub-fairness-{}", std::process::id()));
        let named = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        lets_others_run(|| {
            sender.send_to(b"x", &path).unwrap();
            named.recv(&mut [0]).unwrap();
        });
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn connecting_and_accepting_lets_others_run() {
    limited(|| {
        let path = std::env::temp_dir().join(format!("greenhub-fairness-accept-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        lets_others_run(|| drop(UnixStream::connect(&path).unwrap()));
        lets_others_run(|| drop(listener.accept().unwrap()));
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn channels_and_queues_let_others_run() {
    limited(|| {
        let (sender, receiver) = mpsc::channel();
        (0..2 * MANY).for_each(|number| sender.send(number).unwrap());
        lets_others_run(|| _ = receiver.recv().unwrap());
        lets_others_run(|| _ = receiver.recv_timeout(Duration::from_secs(60)).unwrap());
        let (sender, receiver) = mpsc::sync_channel(MANY);
        lets_others_run(|| sender.send(1).unwrap());
        lets_others_run(|| _ = receiver.iter().next().unwrap());
        let queue = LightQueue::bounded(MANY);
        lets_others_run(|| queue.put(1).unwrap());
        lets_others_run(|| _ = queue.get().unwrap());
        let queue = Queue::new();
        lets_others_run(|| queue.put_timeout(1, Duration::from_secs(60)).unwrap());
        lets_others_run(|| _ = queue.get_timeout(Duration::from_secs(60)).unwrap());
        let channel = Channel::bounded(MANY);
        lets_others_run(|| channel.send(1).unwrap());
        lets_others_run(|| _ = channel.wait().unwrap());
        let places = CappedSemaphore::new(0, MANY).unwrap();
        lets_others_run(|| places.release().unwrap());
        lets_others_run(|| places.acquire().unwrap());
    });
}

#[test]
fn a_park_with_a_token_lets_others_run() {
    limited(|| {
        lets_others_run(|| {
            greenhub::thread::current().unpark();
            greenhub::thread::park();
        });
        lets_others_run(|| consume_budget().unwrap());
    });
}

#[test]
fn taking_a_free_lock_never_switches() {
    limited(|| {
        let (mutex, lock, semaphore, event) = (Mutex::new(0), RwLock::new(0), Semaphore::new(1), Event::new());
        event.send(1).unwrap();
        keeps_the_thread(|| *mutex.lock().unwrap() += 1);
        keeps_the_thread(|| *lock.write().unwrap() += 1);
        keeps_the_thread(|| drop(lock.read().unwrap()));
        keeps_the_thread(|| drop(semaphore.access().unwrap()));
        keeps_the_thread(|| _ = event.wait().unwrap());
    });
}

#[test]
fn non_blocking_operations_never_switch() {
    limited(|| {
        let (sender, receiver) = mpsc::channel();
        keeps_the_thread(|| sender.send(1).unwrap());
        keeps_the_thread(|| _ = receiver.try_recv().unwrap());
        let queue = Queue::new();
        keeps_the_thread(|| queue.try_put(1).unwrap());
        keeps_the_thread(|| _ = queue.try_get().unwrap());
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        keeps_the_thread(|| assert_eq!((&near).write(&[7]).unwrap(), 1));
        far.set_nonblocking(true).unwrap();
        keeps_the_thread(|| assert_eq!(far.read(&mut [0]).unwrap(), 1));
    });
}

#[test]
fn a_timer_fires_beside_a_reader_that_never_waits() {
    limited(|| {
        let ticks = Rc::new(Cell::new(0));
        let ticked = ticks.clone();
        spawn_n(move || {
            loop {
                sleep(Duration::from_millis(1));
                ticked.set(ticked.get() + 1);
            }
        });
        let (mut near, mut far) = UnixStream::pair().unwrap();
        while ticks.get() < 3 {
            near.write_all(&[7]).unwrap();
            far.read_exact(&mut [0]).unwrap();
        }
    });
}

#[test]
fn a_descriptor_is_reported_beside_a_channel_that_never_waits() {
    limited(|| {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let heard = spawn(move || far.read(&mut [0]).unwrap());
        let (sender, receiver) = mpsc::channel();
        for round in 0.. {
            sender.send(round).unwrap();
            receiver.recv().unwrap();
            if round == MANY {
                near.write_all(&[7]).unwrap();
            }
            if heard.is_finished() {
                break;
            }
        }
        assert_eq!(heard.join().unwrap(), 1);
    });
}

#[test]
fn a_kill_between_two_reads_loses_no_byte() {
    limited(|| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..MANY).map(|number| number as u8).collect();
        near.write_all(&sent).unwrap();
        drop(near);
        let got = Rc::new(RefCell::new(Vec::new()));
        let mut killed = 0;
        while got.borrow().len() < MANY - LONGEST {
            let (got, mut far) = (got.clone(), far.try_clone().unwrap());
            let reader = spawn(move || {
                loop {
                    let mut byte = [0];
                    far.read_exact(&mut byte).unwrap();
                    got.borrow_mut().push(byte[0]);
                }
            });
            yield_now();
            assert!(!reader.is_finished(), "it lets others run in between");
            reader.kill();
            killed += usize::from(matches!(reader.wait(), Err(GreenError::Kill)));
        }
        assert!(killed > 1);
        (&far).read_to_end(&mut got.borrow_mut()).unwrap();
        assert_eq!(*got.borrow(), sent);
    });
}

#[test]
fn a_kill_between_two_receives_loses_no_item() {
    limited(|| {
        let queue = Arc::new(Queue::new());
        (0..MANY).for_each(|number| queue.put(number).unwrap());
        let got = Rc::new(RefCell::new(Vec::new()));
        while !queue.is_empty() {
            let (got, queue) = (got.clone(), queue.clone());
            let getter = spawn(move || {
                while let Ok(item) = queue.get() {
                    got.borrow_mut().push(item);
                }
            });
            yield_now();
            getter.kill();
        }
        assert_eq!(*got.borrow(), (0..MANY).collect::<Vec<_>>());
    });
}

#[test]
fn a_timeout_strikes_in_a_loop_that_never_waits() {
    limited(|| {
        let (sender, receiver) = mpsc::channel();
        let late = with_timeout(Duration::from_millis(1), || {
            loop {
                sender.send(1).unwrap();
                receiver.recv().unwrap();
            }
        });
        assert!(late.is_err());
    });
}

#[test]
fn no_budget_switch_while_panicking_or_in_the_main_loop() {
    struct Receives(Rc<mpsc::Receiver<usize>>, Rc<Cell<usize>>);

    impl Drop for Receives {
        fn drop(&mut self) {
            let ran = self.1.get();
            (0..MANY).for_each(|_| _ = self.0.recv().unwrap());
            assert_eq!(self.1.get(), ran);
        }
    }

    limited(|| {
        let (sender, receiver) = mpsc::channel();
        (0..2 * MANY).for_each(|number| sender.send(number).unwrap());
        let (receiver, ran) = (Rc::new(receiver), Rc::new(Cell::new(0)));
        let receives = Receives(receiver.clone(), ran.clone());
        let panics = spawn(move || {
            let _receives = receives;
            std::panic::resume_unwind(Box::new("unwinds"));
        });
        let counts = ran.clone();
        spawn_n(move || {
            loop {
                counts.set(counts.get() + 1);
                yield_now();
            }
        });
        assert!(panics.join().is_err());
        let done = Rc::new(Cell::new(false));
        let (says, before) = (done.clone(), ran.clone());
        get_hub().schedule(Duration::ZERO, move || {
            let ran = before.get();
            (0..MANY).for_each(|_| _ = receiver.recv().unwrap());
            says.set(before.get() == ran);
        });
        sleep(Duration::from_millis(1));
        assert!(done.get());
    });
}

#[test]
fn a_program_without_green_threads_builds_no_hub_by_its_budget() {
    limited(|| {
        // Makes the state of the OS thread.
        let _ = greenhub::greenthread::current_id();
        let (sender, receiver) = mpsc::channel();
        for number in 0..MANY {
            sender.send(number).unwrap();
            receiver.recv().unwrap();
        }
        assert!(!greenhub::hub::has_hub());
        assert_eq!(get_hub().stats().stacks_most, 0, "a loop has begun");
    });
}

#[test]
fn main_gets_its_error_when_its_budget_is_used_up() {
    limited(|| {
        spawn_n(|| get_hub().interrupt());
        // Main gets the error when the loop has taken a turn.
        let error = (0..1000 * MANY).find_map(|_| consume_budget().err());
        assert!(error.as_ref().is_some_and(|error| error.kind() == LoopErrorKind::Interrupted), "{error:?}");
        assert!((0..MANY).all(|_| consume_budget().is_ok()), "it comes once");
    });
}

#[test]
fn green_threads_alternate_after_one_budget_each() {
    limited(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let green: Vec<_> = (0..3)
            .map(|number| {
                let order = order.clone();
                spawn(move || {
                    for _ in 0..MANY {
                        consume_budget().unwrap();
                        order.borrow_mut().push(number);
                    }
                })
            })
            .collect();
        green.into_iter().for_each(|one| one.join().unwrap());
        let order = order.take();
        let rows: Vec<usize> = order.chunk_by(|one, next| one == next).map(<[i32]>::len).collect();
        // Only the first green thread finds that others have run before it.
        assert!(rows[1..].iter().all(|&row| row <= LONGEST / 2), "{rows:?}");
    });
}

/// Blocks the OS thread like a computation.
fn compute() {
    std::thread::sleep(Duration::from_micros(200));
}

#[test]
fn a_timer_does_not_wait_for_a_turn_that_takes_long() {
    limited(|| {
        let ran = Rc::new(Cell::new(0));
        let log = Rc::new(Cell::new(0));
        let (seen, slept) = (ran.clone(), log.clone());
        let sleeper = spawn(move || {
            sleep(Duration::from_millis(1));
            slept.set(seen.get());
        });
        yield_now();
        let busy: Vec<_> = (0..100)
            .map(|_| {
                let ran = ran.clone();
                spawn(move || {
                    compute();
                    ran.set(ran.get() + 1);
                })
            })
            .collect();
        sleeper.join().unwrap();
        assert!(log.get() < 100, "all the others had run before");
        busy.into_iter().for_each(|one| one.join().unwrap());
        assert_eq!(ran.get(), 100);
    });
}

#[test]
fn a_ticker_runs_several_times_in_a_round_of_many_that_compute() {
    const BUSY: usize = 200;
    limited(|| {
        let (ticks, rounds) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let ticked = ticks.clone();
        spawn_n(move || {
            loop {
                sleep(Duration::from_micros(100));
                ticked.set(ticked.get() + 1);
            }
        });
        for number in 0..BUSY {
            let rounds = rounds.clone();
            spawn_n(move || {
                loop {
                    compute();
                    rounds.set(rounds.get() + usize::from(number == 0));
                    yield_now();
                }
            });
        }
        while rounds.get() < 6 {
            yield_now();
        }
        // The ticker runs once a turn. Without a limit on turns, there would be less than one turn for each round.
        assert!(ticks.get() >= 20, "{} ticks in 6 rounds", ticks.get());
    });
}

#[test]
fn long_timer_callbacks_starve_no_ready_green_thread() {
    limited(|| {
        let ran = Rc::new(Cell::new(0));
        for _ in 0..20 {
            spawn_n(|| {
                loop {
                    sleep(Duration::from_nanos(1));
                    compute();
                    compute();
                }
            });
        }
        for _ in 0..5 {
            let ran = ran.clone();
            spawn_n(move || {
                for _ in 0..20 {
                    compute();
                    yield_now();
                }
                ran.set(ran.get() + 1);
            });
        }
        while ran.get() < 5 {
            yield_now();
        }
    });
}

#[test]
fn a_turn_does_not_end_early_while_the_hubs_clock_stands_still() {
    limited(|| {
        let clock = use_manual_clock();
        // The clock's time is long compared with a turn.
        clock.advance(Duration::from_secs(3600));
        get_hub().set_timer_slack(0, Duration::ZERO);
        let log = Rc::new(RefCell::new(Vec::new()));
        let (says, moves) = (log.clone(), clock.clone());
        spawn_n(move || {
            sleep(Duration::from_nanos(1));
            says.borrow_mut().push(usize::MAX);
        });
        yield_now();
        // The sleep begins with the next turn.
        get_hub().run_once(Duration::ZERO).unwrap();
        for number in 0..100 {
            let (log, clock) = (log.clone(), moves.clone());
            spawn_n(move || {
                clock.advance(Duration::from_nanos(1));
                compute();
                log.borrow_mut().push(number);
            });
        }
        sleep(Duration::from_nanos(2));
        assert_eq!(*log.borrow(), (0..100).chain([usize::MAX]).collect::<Vec<_>>());
    });
}

#[test]
fn a_turn_ends_after_half_its_time_by_the_hubs_clock() {
    limited(|| {
        let clock = use_manual_clock();
        get_hub().set_timer_slack(0, Duration::ZERO);
        let log = Rc::new(RefCell::new(Vec::new()));
        let says = log.clone();
        spawn_n(move || {
            sleep(Duration::from_millis(1));
            says.borrow_mut().push(usize::MAX);
        });
        yield_now();
        // The sleep begins with the next turn.
        get_hub().run_once(Some(Duration::ZERO)).unwrap();
        for number in 0..100 {
            let (log, clock) = (log.clone(), clock.clone());
            spawn_n(move || {
                if number == 0 {
                    // More than half of the default turn time, and less than all of it.
                    clock.advance(Duration::from_micros(1500));
                }
                compute();
                log.borrow_mut().push(number);
            });
        }
        sleep(Duration::from_millis(2));
        let place = log.borrow().iter().position(|&one| one == usize::MAX);
        assert!(place.is_some_and(|place| place < 100), "{place:?}");
    });
}

#[test]
fn a_thread_ends_in_the_middle_of_overload() {
    struct Counts(Arc<std::sync::atomic::AtomicUsize>);

    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    for abort in [false, true] {
        let dropped = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counts = dropped.clone();
        std::thread::spawn(move || {
            for number in 0..100 {
                let held = Counts(counts.clone());
                spawn_n(move || {
                    let _held = held;
                    loop {
                        compute();
                        if number % 2 == 0 { sleep(Duration::from_nanos(1)) } else { yield_now() }
                    }
                });
            }
            for _ in 0..3 {
                yield_now();
            }
            if abort {
                get_hub().abort();
                yield_now();
            }
            while let Err(error) = get_hub().shutdown(None) {
                assert!(error.kind() == LoopErrorKind::Aborted, "{error}");
            }
        })
        .join()
        .unwrap();
        assert_eq!(dropped.load(std::sync::atomic::Ordering::Relaxed), 100);
    }
}

#[test]
fn no_ready_greenlet_is_lost_when_turns_end_early() {
    limited(|| {
        let ends = Rc::new(Cell::new(0));
        let mut random = Rng::with_seed(7);
        for _ in 0..10 {
            let all: Vec<_> = (0..60)
                .map(|_| {
                    let (ends, busy) = (ends.clone(), Duration::from_micros(random.u64(..300)));
                    let steps: Vec<_> = (0..random.u64(..5)).map(|_| random.u64(..4)).collect();
                    let body = move || {
                        for step in steps {
                            std::thread::sleep(busy);
                            match step {
                                0 => sleep(busy),
                                1 => spawn(yield_now).join().unwrap(),
                                2 => _ = with_timeout(busy, || sleep(2 * busy)),
                                _ => yield_now(),
                            }
                        }
                        ends.set(ends.get() + 1);
                    };
                    match random.u64(..3) {
                        0 => greenhub::spawn_after(Duration::from_micros(random.u64(..2000)), body),
                        _ => spawn(body),
                    }
                })
                .collect();
            let callbacks = Rc::new(Cell::new(0));
            for _ in 0..20 {
                let called = callbacks.clone();
                let delay = Duration::from_micros(random.u64(..2000));
                get_hub().schedule(delay, move || called.set(called.get() + 1));
            }
            for (number, one) in all.iter().enumerate() {
                if number % 13 == 0 {
                    one.kill();
                    ends.set(ends.get() + usize::from(one.wait().is_err()));
                }
            }
            all.into_iter().enumerate().filter(|(number, _)| number % 13 != 0).for_each(|(_, one)| one.join().unwrap());
            while callbacks.get() < 20 {
                sleep(Duration::from_micros(100));
            }
        }
        assert_eq!(ends.get(), 600);
    });
}
