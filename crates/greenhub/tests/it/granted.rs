//! A granted wait returns its grant: a later exit strikes at the next wait.

use std::cell::Cell;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::green::{LONG, SHORT};
use crate::support::hubs::use_manual_clock;
use crate::support::random::Rng;
use crate::support::{alone, run};
use greenhub::greenthread::KillOutcome;
use greenhub::hub::{Listener, ManualClock, Readiness};
use greenhub::os::unix::net::UnixStream;
use greenhub::sync::{
    CancellationToken, Channel, Condvar, Event, Mutex, Notify, Queue, RwLock, Semaphore, broadcast, mpsc, oneshot,
    watch,
};
use greenhub::thread::yield_now;
use greenhub::{get_hub, pools, sleep, spawn, tpool, with_timeout};

/// A wait that returns whether it was granted, and the grant, which may come from any OS thread.
type Pair = (Box<dyn FnOnce() -> bool>, Box<dyn FnOnce() + Send>);

/// A kind of wait with its grant.
struct Wait {
    name: &'static str,
    make: fn() -> Pair,
}

fn pair(wait: impl FnOnce() -> bool + 'static, grant: impl FnOnce() + Send + 'static) -> Pair {
    (Box::new(wait), Box::new(grant))
}

const WAITS: &[Wait] = &[
    Wait {
        name: "recv",
        make: || {
            let (sender, receiver) = mpsc::channel();
            pair(move || receiver.recv() == Ok(7), move || sender.send(7).unwrap())
        },
    },
    Wait {
        name: "send, without a buffer",
        make: || {
            let (sender, receiver) = mpsc::sync_channel(0);
            pair(move || sender.send(7).is_ok(), move || assert_eq!(receiver.recv(), Ok(7)))
        },
    },
    Wait {
        name: "send, with a full buffer",
        make: || {
            let (sender, receiver) = mpsc::sync_channel(1);
            sender.send(6).unwrap();
            pair(
                move || sender.send(7).is_ok(),
                move || {
                    assert_eq!(receiver.recv(), Ok(6));
                    std::mem::forget(receiver);
                },
            )
        },
    },
    Wait {
        name: "Queue::get",
        make: || {
            let queue = Arc::new(Queue::new());
            let own = queue.clone();
            pair(move || own.get().unwrap() == 7, move || queue.put(7).unwrap())
        },
    },
    Wait {
        name: "Queue::put",
        make: || {
            let queue = Arc::new(Queue::bounded(0));
            let own = queue.clone();
            pair(move || own.put(7).is_ok(), move || assert_eq!(queue.get().unwrap(), 7))
        },
    },
    Wait {
        name: "Channel::wait",
        make: || {
            let channel = Arc::new(Channel::bounded(1));
            let own = channel.clone();
            pair(move || own.wait().unwrap() == 7, move || channel.send(7).unwrap())
        },
    },
    Wait {
        name: "oneshot, recv",
        make: || {
            let (sender, receiver) = oneshot::channel();
            pair(move || receiver.recv().unwrap() == 7, move || sender.send(7).unwrap())
        },
    },
    Wait {
        name: "oneshot, closed",
        make: || {
            let (sender, receiver) = oneshot::channel::<u8>();
            pair(move || sender.closed().is_ok(), move || drop(receiver))
        },
    },
    Wait {
        name: "watch, changed",
        make: || {
            let (sender, mut receiver) = watch::channel(0);
            let wait = move || {
                receiver.changed().unwrap();
                *receiver.borrow() == 7
            };
            pair(wait, move || sender.send(7).unwrap())
        },
    },
    Wait {
        name: "broadcast, recv",
        make: || {
            let (sender, mut receiver) = broadcast::channel(1);
            pair(move || receiver.recv().unwrap() == 7, move || assert_eq!(sender.send(7).unwrap(), 1))
        },
    },
    Wait {
        name: "Notify::wait",
        make: || {
            let notify = Arc::new(Notify::new());
            let own = notify.clone();
            pair(move || own.wait().is_ok(), move || notify.notify_one())
        },
    },
    Wait {
        name: "CancellationToken::wait",
        make: || {
            let token = CancellationToken::new();
            let own = token.child_token();
            pair(move || own.wait().is_ok(), move || token.cancel())
        },
    },
    Wait {
        name: "Semaphore::acquire",
        make: || {
            let semaphore = Arc::new(Semaphore::new(0));
            let own = semaphore.clone();
            pair(move || own.acquire().is_ok(), move || semaphore.release())
        },
    },
    Wait {
        name: "Event::wait",
        make: || {
            let event = Arc::new(Event::new());
            let own = event.clone();
            pair(move || own.wait().unwrap() == 7, move || event.send(7).unwrap())
        },
    },
    Wait {
        name: "Condvar::wait",
        make: || {
            let shared = Arc::new((Mutex::new(()), Condvar::new()));
            let own = shared.clone();
            let wait = move || own.1.wait(own.0.lock().unwrap()).is_ok();
            pair(wait, move || shared.1.notify_one())
        },
    },
    Wait {
        name: "Pool::get",
        make: || {
            let pool = Arc::new(pools::Pool::new(1, || Ok(7)));
            let (own, item) = (pool.clone(), pool.get().unwrap());
            pair(move || own.get().unwrap() == 7, move || pool.put(item))
        },
    },
    Wait {
        name: "read",
        make: || {
            let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
            let mut near = UnixStream::from_std(near).unwrap();
            pair(
                move || near.read(&mut [0; 8]).unwrap() == 1,
                move || {
                    far.write_all(b"x").unwrap();
                    std::mem::forget(far);
                },
            )
        },
    },
];

/// Lets the loop arm the new timers, whose time begins then.
fn let_the_loop_arm_timers() {
    sleep(Duration::from_nanos(1));
}

/// Runs `work` on another OS thread, and blocks the calling one with all of its green threads meanwhile.
fn elsewhere(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work).join().unwrap();
}

#[test]
fn a_grant_from_another_os_thread_comes_before_a_later_kill() {
    for Wait { name, make } in WAITS.iter().filter(|wait| wait.name != "read") {
        run(name, move || {
            let (wait, grant) = make();
            let (granted, went_on) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
            let (in_wait, after) = (granted.clone(), went_on.clone());
            let green = spawn(move || {
                in_wait.set(wait());
                sleep(LONG);
                after.set(true);
            });
            yield_now();
            // The wake-up is in the mailbox of this thread, which reads it only after the kill.
            elsewhere(grant);
            assert_eq!(green.kill(), KillOutcome::Ended, "{name}");
            assert!(granted.get(), "{name}: lost");
            assert!(!went_on.get(), "{name}: the kill did not strike at the next wait");
        });
    }
}

#[test]
fn a_grant_from_another_os_thread_comes_before_a_later_timeout() {
    for Wait { name, make } in WAITS {
        run(name, move || {
            let clock = use_manual_clock();
            let (wait, grant) = make();
            let green = spawn(move || with_timeout(SHORT, wait));
            let_the_loop_arm_timers();
            // The grant is in time, but the green thread runs only long after the deadline.
            elsewhere(grant);
            clock.advance(SHORT * 4);
            assert_eq!(green.join().unwrap(), Ok(true), "{name}");
        });
    }
}

#[test]
fn a_late_timeout_strikes_at_the_next_wait_of_its_scope() {
    run("a_late_timeout_strikes_at_the_next_wait_of_its_scope", || {
        let clock = use_manual_clock();
        let (sender, receiver) = mpsc::channel();
        let got = Rc::new(Cell::new(0));
        let gets = got.clone();
        let green = spawn(move || {
            with_timeout(SHORT, || {
                gets.set(receiver.recv().unwrap());
                sleep(LONG);
            })
        });
        let_the_loop_arm_timers();
        elsewhere(move || sender.send(7).unwrap());
        clock.advance(SHORT * 4);
        assert!(green.join().unwrap().is_err());
        assert_eq!(got.get(), 7);
    });
}

#[test]
fn the_result_of_a_finished_job_comes_before_a_later_kill() {
    alone("the_result_of_a_finished_job_comes_before_a_later_kill", || {
        tpool::set_num_threads(NonZeroUsize::MIN);
        let (got, green) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
        let gets = got.clone();
        green.set(Some(spawn(move || {
            gets.set(tpool::execute(|| 7).unwrap());
            sleep(LONG);
        })));
        yield_now();
        // The pool's only thread begins this job after the first, so the first has finished.
        let (begun, begins) = std::sync::mpsc::channel();
        let second = spawn(move || tpool::execute(move || begun.send(()).unwrap()));
        yield_now();
        begins.recv().unwrap();
        assert_eq!(green.take().unwrap().kill(), KillOutcome::Ended);
        assert_eq!(got.get(), 7);
        second.join().unwrap().unwrap();
    });
}

#[test]
fn a_scoped_job_returns_its_result_before_the_kill_strikes() {
    run("a_scoped_job_returns_its_result_before_the_kill_strikes", || {
        let got = Rc::new(Cell::new(0));
        let gets = got.clone();
        let (go, goes) = std::sync::mpsc::channel::<()>();
        let green = spawn(move || {
            gets.set(tpool::execute_scoped(move || goes.recv().map_or(0, |()| 7)).unwrap());
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        go.send(()).unwrap();
        assert!(green.join().unwrap_err().is_kill());
        assert_eq!(got.get(), 7);
    });
}

/// A listener that answers a peer, and then computes until long after the peer's timeout.
struct AnswersSlowly {
    peer: std::os::unix::net::UnixStream,
    answered: AtomicBool,
    clock: ManualClock,
}

impl Listener for AnswersSlowly {
    fn ready(&self, _: std::os::fd::RawFd, _: Readiness) {
        if !self.answered.swap(true, Ordering::Relaxed) {
            (&self.peer).write_all(b"answer").unwrap();
            self.clock.advance(SHORT * 4);
        }
    }
}

#[test]
fn an_answer_during_a_long_listener_call_comes_before_the_timeout() {
    run("an_answer_during_a_long_listener_call_comes_before_the_timeout", || {
        let (near, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut near = UnixStream::from_std(near).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let clock = use_manual_clock();
        let listener = Rc::new(AnswersSlowly { peer, answered: AtomicBool::new(false), clock });
        let registration = get_hub().listen(reader, greenhub::Interest::READ, listener).unwrap();
        let green = spawn(move || {
            let read = with_timeout(SHORT, || near.read(&mut [0; 16]));
            read.map(|read| read.unwrap())
        });
        let_the_loop_arm_timers();
        writer.write_all(b"x").unwrap();
        assert_eq!(green.join().unwrap(), Ok(6));
        drop(registration);
    });
}

/// The number of operations of a counting test.
const OPERATIONS: usize = if cfg!(debug_assertions) { 3_000 } else { 100_000 };

/// Returns a random time limit near the time of the other side. Every eighth limit expires at once, every eighth never.
fn limit(number: usize, random: &mut Rng) -> Duration {
    match number % 8 {
        0 => Duration::ZERO,
        1 => LONG,
        _ => Duration::from_micros(random.usize(..200) as u64),
    }
}

/// Runs `OPERATIONS` calls in green threads, each within a limit, and counts the calls that return true.
fn count_done(operation: impl Fn(usize) -> bool + 'static) -> usize {
    const GREENS: usize = 16;
    let operation = Rc::new(operation);
    let greens: Vec<_> = (0..GREENS)
        .map(|green| {
            let operation = operation.clone();
            spawn(move || {
                let mut random = Rng::with_seed(green as u64);
                let numbers = (0..OPERATIONS / GREENS).map(|turn| turn * GREENS + green);
                numbers
                    .filter(|&number| {
                        let turn = number / GREENS;
                        with_timeout(limit(turn, &mut random), || operation(number)).unwrap_or(false)
                    })
                    .count()
            })
        })
        .collect();
    greens.into_iter().map(|green| green.join().unwrap()).sum()
}

/// Spins for a short random time.
fn dawdle(random: &mut Rng) {
    for _ in 0..random.usize(..400) {
        std::hint::spin_loop();
    }
    if random.usize(..8) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn sends_under_timeouts_count_exactly() {
    for capacity in [0, 1] {
        run("sends_under_timeouts_count_exactly", move || {
            let (sender, receiver) = mpsc::sync_channel(capacity);
            let receiving = std::thread::spawn(move || {
                let mut random = Rng::with_seed(1);
                receiver.iter().inspect(|_| dawdle(&mut random)).count()
            });
            let sent = count_done(move |number| sender.send(number).is_ok());
            assert_eq!(sent, receiving.join().unwrap(), "capacity {capacity}");
            assert!(0 < sent && sent < OPERATIONS);
        });
    }
}

#[test]
fn puts_under_timeouts_count_exactly() {
    for capacity in [0, 1] {
        run("puts_under_timeouts_count_exactly", move || {
            let (queue, done) = (Arc::new(Queue::bounded(capacity)), Arc::new(AtomicBool::new(false)));
            let (getting, ends) = (queue.clone(), done.clone());
            let getter = std::thread::spawn(move || {
                let (mut random, mut got) = (Rng::with_seed(2), 0);
                loop {
                    // Loaded before the get: no item is put after the flag is set.
                    let last = ends.load(Ordering::Acquire);
                    match getting.get_timeout(Duration::from_millis(1)) {
                        Ok(_) => got += 1,
                        Err(_) if last => return got,
                        Err(_) => {}
                    }
                    dawdle(&mut random);
                }
            });
            let putting = queue.clone();
            let put = count_done(move |number| putting.put(number).is_ok());
            done.store(true, Ordering::Release);
            assert_eq!(put, getter.join().unwrap(), "capacity {capacity}");
            assert!(0 < put && put < OPERATIONS);
        });
    }
}

#[test]
fn gets_under_timeouts_count_exactly() {
    run("gets_under_timeouts_count_exactly", || {
        let queue = Arc::new(Queue::new());
        let (putting, stop) = (queue.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let putter = std::thread::spawn(move || {
            let (mut random, mut put) = (Rng::with_seed(3), 0);
            while !stopped.load(Ordering::Relaxed) {
                putting.put(put).unwrap();
                put += 1;
                dawdle(&mut random);
                while putting.len() > 8 && !stopped.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }
            put
        });
        let getting = queue.clone();
        let got = count_done(move |_| getting.get().is_ok());
        stop.store(true, Ordering::Relaxed);
        let put = putter.join().unwrap();
        assert_eq!(got + std::iter::from_fn(|| queue.try_get().ok()).count(), put);
        assert!(0 < got);
    });
}

#[test]
fn acquires_under_timeouts_count_exactly() {
    run("acquires_under_timeouts_count_exactly", || {
        let semaphore = Arc::new(Semaphore::new(0));
        let (releasing, stop) = (semaphore.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let releaser = std::thread::spawn(move || {
            let (mut random, mut released) = (Rng::with_seed(4), 0);
            while !stopped.load(Ordering::Relaxed) {
                releasing.release();
                released += 1;
                dawdle(&mut random);
                while releasing.balance() > 4 && !stopped.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }
            released
        });
        let taking = semaphore.clone();
        let taken = count_done(move |_| taking.acquire().is_ok());
        stop.store(true, Ordering::Relaxed);
        let released = releaser.join().unwrap();
        assert_eq!(semaphore.balance(), released - taken as isize);
        assert!(0 < taken);
    });
}

#[test]
fn locks_under_timeouts_are_neither_lost_nor_held_twice() {
    run("locks_under_timeouts_are_neither_lost_nor_held_twice", || {
        let shared = Arc::new((Mutex::new(0), RwLock::new(0), AtomicUsize::new(0), AtomicBool::new(false)));
        let theirs = shared.clone();
        let other = std::thread::spawn(move || {
            let mut random = Rng::with_seed(5);
            while !theirs.3.load(Ordering::Relaxed) {
                let (mutex, rwlock) = (theirs.0.lock().unwrap(), theirs.1.write().unwrap());
                dawdle(&mut random);
                drop((mutex, rwlock));
                dawdle(&mut random);
            }
        });
        let own = shared.clone();
        let done = count_done(move |number| {
            let (mutex, rwlock) = (&own.0, &own.1);
            if number % 2 == 0 {
                let Ok(mut value) = mutex.try_lock_for(Duration::from_micros(100)) else { return false };
                *value += 1;
            } else {
                *rwlock.write().unwrap() += 1;
            }
            own.2.fetch_add(1, Ordering::Relaxed);
            true
        });
        shared.3.store(true, Ordering::Relaxed);
        other.join().unwrap();
        let values = *shared.0.try_lock().unwrap() + *shared.1.try_write().unwrap();
        assert_eq!((values, shared.2.load(Ordering::Relaxed)), (done, done));
    });
}

#[test]
fn resources_of_a_pool_are_not_lost_under_timeouts() {
    run("resources_of_a_pool_are_not_lost_under_timeouts", || {
        let pool = Arc::new(pools::Pool::new(2, || Ok(())));
        let (theirs, stop) = (pool.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let other = std::thread::spawn(move || {
            let mut random = Rng::with_seed(6);
            while !stopped.load(Ordering::Relaxed) {
                let item = theirs.item().unwrap();
                dawdle(&mut random);
                drop(item);
            }
        });
        let own = pool.clone();
        let got = count_done(move |number| {
            let item = own.item().unwrap();
            if number % 3 == 0 {
                yield_now();
            }
            drop(item);
            true
        });
        stop.store(true, Ordering::Relaxed);
        other.join().unwrap();
        assert_eq!((pool.free(), pool.waiting()), (2, 0));
        assert!(0 < got);
    });
}
