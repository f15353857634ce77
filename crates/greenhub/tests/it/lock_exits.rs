//! Kills and timeouts during waits for locks, and locks in destructors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::{LONG, Log, SHORT, quiet_panic};
use crate::support::{alone, is_child, rerun, run};
use greenhub::greenthread::{KillOutcome, lock_patience, set_lock_patience};
use greenhub::sync::{Arc, Condvar, Mutex, Once, OnceLock, RwLock, TryLockError};
use greenhub::thread::yield_now;
use greenhub::{sleep, spawn, with_timeout};

/// Lets a green thread hold the lock, and returns a function that releases it.
fn held_until(lock: &Rc<Mutex<Vec<u32>>>) -> impl FnOnce() + use<> {
    let (lock, gate) = (lock.clone(), Rc::new(greenhub::sync::Event::new()));
    let opens = gate.clone();
    let holder = spawn(move || {
        let _held = lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        opens.wait().unwrap();
    });
    yield_now();
    move || {
        gate.send(()).unwrap();
        holder.join().unwrap();
    }
}

/// Pushes its number under the lock when it is dropped.
struct Returned(Rc<Mutex<Vec<u32>>>, u32);

impl Drop for Returned {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(self.1);
    }
}

#[test]
fn the_default_lock_patience_is_a_second() {
    alone("the_default_lock_patience_is_a_second", || {
        assert_eq!(lock_patience(), Some(Duration::from_secs(1)));
        set_lock_patience(None);
        assert_eq!(lock_patience(), None);
        set_lock_patience(SHORT);
        assert_eq!(lock_patience(), Some(SHORT));
    });
}

#[test]
fn a_kill_waits_until_a_destructor_has_acquired_its_lock() {
    alone("a_kill_waits_until_a_destructor_has_acquired_its_lock", || {
        set_lock_patience(None);
        let free = Rc::new(Mutex::new(Vec::new()));
        let release = held_until(&free);
        let own = free.clone();
        let green = spawn(move || {
            drop(Returned(own, 1));
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        release();
        assert!(green.join().unwrap_err().is_kill());
        assert_eq!(*free.lock().unwrap(), [1]);
    });
}

#[test]
fn a_timeout_waits_until_a_destructor_has_acquired_its_lock() {
    alone("a_timeout_waits_until_a_destructor_has_acquired_its_lock", || {
        set_lock_patience(None);
        let free = Rc::new(Mutex::new(Vec::new()));
        let release = held_until(&free);
        let own = free.clone();
        let green = spawn(move || {
            let first = with_timeout(SHORT, || drop(Returned(own.clone(), 1)));
            // The exit is pending from the beginning.
            let second = with_timeout(Duration::ZERO, || drop(Returned(own, 2)));
            (first.is_ok(), second.is_ok())
        });
        sleep(SHORT * 4);
        assert!(!green.is_finished());
        let again = free.clone();
        release();
        drop(again.lock().unwrap());
        assert_eq!(green.join().unwrap(), (true, true));
        assert_eq!(*free.lock().unwrap(), [1, 2]);
    });
}

#[test]
fn an_exit_strikes_when_the_patience_is_over() {
    alone("an_exit_strikes_when_the_patience_is_over", || {
        set_lock_patience(SHORT);
        let (mutex, rwlock) = (Rc::new(Mutex::new(())), Rc::new(RwLock::new(())));
        let _held = (mutex.lock().unwrap(), rwlock.write().unwrap());
        for wait in 0..5 {
            let (mutex, rwlock) = (mutex.clone(), rwlock.clone());
            let green = spawn(move || match wait {
                0 => drop(mutex.lock()),
                1 => drop(rwlock.read()),
                2 => drop(rwlock.write()),
                3 => drop(mutex.try_lock_for(LONG)),
                _ => drop(rwlock.try_write_for(LONG)),
            });
            yield_now();
            assert_eq!(green.kill(), KillOutcome::Scheduled, "{wait}");
            assert!(green.join().unwrap_err().is_kill(), "{wait}");
        }
        // The same holds for an exit pending at the start of the wait, and for a timeout.
        assert!(with_timeout(Duration::ZERO, || drop(mutex.lock())).is_err());
        assert!(with_timeout(SHORT, || drop(mutex.lock())).is_err());
        assert!(!mutex.is_poisoned() && !rwlock.is_poisoned());
    });
}

#[test]
fn without_patience_an_exit_strikes_at_once() {
    alone("without_patience_an_exit_strikes_at_once", || {
        set_lock_patience(Duration::ZERO);
        let mutex = Rc::new(Mutex::new(()));
        let (_held, own) = (mutex.lock().unwrap(), mutex.clone());
        let green = spawn(move || drop(own.lock()));
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Ended);
    });
}

#[test]
fn a_shield_around_a_lock_outlasts_the_patience() {
    alone("a_shield_around_a_lock_outlasts_the_patience", || {
        set_lock_patience(SHORT);
        let free = Rc::new(Mutex::new(Vec::new()));
        let release = held_until(&free);
        let own = free.clone();
        let green = spawn(move || {
            greenhub::shield(|| drop(Returned(own, 1)));
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        sleep(SHORT * 4);
        assert!(!green.is_finished());
        release();
        assert!(green.join().unwrap_err().is_kill());
        assert_eq!(*free.lock().unwrap(), [1]);
    });
}

#[test]
fn a_killed_waiter_passes_its_notification_on() {
    alone("a_killed_waiter_passes_its_notification_on", || {
        set_lock_patience(SHORT);
        let (log, pair) = (Log::new(), Rc::new((Mutex::new(()), Condvar::new())));
        let wait = |n: u32| {
            let (log, pair) = (log.clone(), pair.clone());
            spawn(move || {
                let _guard = pair.1.wait(pair.0.lock().unwrap()).unwrap();
                log.add(n.to_string());
            })
        };
        let [first, second] = [wait(1), wait(2)];
        yield_now();
        let guard = pair.0.lock().unwrap();
        pair.1.notify_one();
        yield_now();
        assert_eq!(first.kill(), KillOutcome::Scheduled);
        assert!(first.join().unwrap_err().is_kill());
        drop(guard);
        second.join().unwrap();
        log.is(&["2"]);
        assert!(!pair.0.is_poisoned());
    });
}

#[test]
fn a_lock_wait_that_holds_an_exit_back_leaves_no_timer() {
    alone("a_lock_wait_that_holds_an_exit_back_leaves_no_timer", || {
        set_lock_patience(LONG);
        let lock = Rc::new(Mutex::new(Vec::new()));
        let release = held_until(&lock);
        let own = lock.clone();
        let green = spawn(move || drop(own.lock().unwrap()));
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert_eq!(greenhub::debug::timers().len(), 1);
        release();
        green.join().unwrap();
        assert_eq!(greenhub::debug::timers().len(), 0);
    });
}

#[test]
fn try_lock_for_reports_contention_and_poison_as_errors() {
    run("try_lock_for_reports_contention_and_poison_as_errors", || {
        let (mutex, rwlock) = (Rc::new(Mutex::new(1)), RwLock::new(1));
        let guards = (mutex.lock().unwrap(), rwlock.read().unwrap());
        assert!(matches!(mutex.try_lock_for(SHORT), Err(TryLockError::WouldBlock)));
        assert!(matches!(mutex.try_lock_for(Duration::ZERO), Err(TryLockError::WouldBlock)));
        assert!(matches!(rwlock.try_write_for(SHORT), Err(TryLockError::WouldBlock)));
        assert_eq!(*rwlock.try_read_for(SHORT).unwrap(), 1);
        drop(guards);
        let writing = rwlock.try_write_for(SHORT).unwrap();
        assert!(matches!(rwlock.try_read_for(SHORT), Err(TryLockError::WouldBlock)));
        drop(writing);
        // The lock is acquired as soon as it is unlocked.
        let own = mutex.clone();
        let guard = mutex.lock().unwrap();
        let waiting = spawn(move || *own.try_lock_for(LONG).unwrap());
        yield_now();
        drop(guard);
        assert_eq!(waiting.join().unwrap(), 1);
        let poisoned = catch_unwind(AssertUnwindSafe(|| {
            let _guard = mutex.lock();
            quiet_panic("half done");
        }));
        assert!(poisoned.is_err());
        assert!(matches!(mutex.try_lock_for(SHORT), Err(TryLockError::Poisoned(_))));
    });
}

#[test]
fn an_unwinding_destructor_takes_a_handed_over_lock_and_the_waiter_stays_first() {
    run("an_unwinding_destructor_takes_a_handed_over_lock_and_the_waiter_stays_first", || {
        let (log, lock) = (Log::new(), Rc::new(Mutex::new(Vec::new())));
        let guard = lock.lock().unwrap();
        let waits = |n: u32| {
            let (log, lock) = (log.clone(), lock.clone());
            spawn(move || {
                let _guard = lock.lock().unwrap();
                log.add(n.to_string());
            })
        };
        let waiting = [waits(1), waits(2)];
        yield_now();
        drop(guard);
        // The lock was handed to the first waiter, which has not run.
        assert!(lock.try_lock().is_err());
        let own = lock.clone();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _returned = Returned(own, 7);
            quiet_panic("in between");
        }));
        assert!(unwound.is_err());
        waiting.into_iter().for_each(|green| green.join().unwrap());
        log.is(&["1", "2"]);
        assert_eq!(*lock.lock().unwrap(), [7]);
    });
}

#[test]
fn a_killed_waiter_whose_lock_was_taken_leaves_it_to_the_next() {
    alone("a_killed_waiter_whose_lock_was_taken_leaves_it_to_the_next", || {
        set_lock_patience(Duration::ZERO);
        let lock = Rc::new(Mutex::new(Vec::new()));
        let guard = lock.lock().unwrap();
        let waits = || {
            let lock = lock.clone();
            spawn(move || drop(lock.lock().unwrap()))
        };
        let [first, second] = [waits(), waits()];
        yield_now();
        drop(guard);
        let own = lock.clone();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _returned = Returned(own, 7);
            quiet_panic("in between");
        }));
        assert!(unwound.is_err());
        first.kill();
        second.join().unwrap();
        assert_eq!(*lock.try_lock().unwrap(), [7]);
    });
}

#[test]
fn an_unwinding_destructor_overtakes_waiters_of_a_reader_writer_lock() {
    run("an_unwinding_destructor_overtakes_waiters_of_a_reader_writer_lock", || {
        struct Writes(Rc<RwLock<u32>>);
        impl Drop for Writes {
            fn drop(&mut self) {
                *self.0.write().unwrap() += 1;
            }
        }
        struct Reads(Rc<RwLock<u32>>, Rc<Cell<u32>>);
        impl Drop for Reads {
            fn drop(&mut self) {
                self.1.set(*self.0.read().unwrap());
            }
        }
        let lock = Rc::new(RwLock::new(0));
        // One writer is next in line and one queues behind it. The lock is handed over or still held.
        for handed in [true, false] {
            let reading = lock.read().unwrap();
            let waiting = [(); 2].map(|()| {
                let lock = lock.clone();
                spawn(move || *lock.write().unwrap() += 10)
            });
            yield_now();
            let read = Rc::new(Cell::new(99));
            let (own, seen) = (lock.clone(), read.clone());
            let reading = if handed {
                drop(reading);
                None
            } else {
                Some(reading)
            };
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let _reads = Reads(own.clone(), seen);
                let _writes = handed.then(|| Writes(own));
                quiet_panic("in between");
            }));
            assert!(unwound.is_err());
            drop(reading);
            waiting.into_iter().for_each(|green| green.join().unwrap());
            assert_eq!(read.get(), if handed { 1 } else { 21 });
        }
        assert_eq!(*lock.read().unwrap(), 41);
    });
}

/// Runs a test body that must abort the process.
fn aborts(name: &'static str, test: impl FnOnce() + Send + 'static) {
    run(name, test);
    unreachable!("{name} did not abort");
}

/// Calls `lock_again` in a destructor while unwinding, after a green thread has taken the lock with `hold`.
fn unwind_into(lock_again: impl FnOnce() + 'static, hold: impl FnOnce() + 'static) {
    struct Locks<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Locks<F> {
        fn drop(&mut self) {
            if let Some(lock) = self.0.take() {
                lock();
            }
        }
    }
    let _holder = greenhub::Builder::new().name("librarian".into()).spawn(hold).unwrap();
    yield_now();
    let _unwound = with_timeout(SHORT, || {
        let _locks = Locks(Some(lock_again));
        sleep(LONG);
    });
}

#[test]
fn the_abort_of_a_destructor_names_the_holder_of_its_mutex() {
    let name = "the_abort_of_a_destructor_names_the_holder_of_its_mutex";
    if is_child() {
        return aborts(name, || {
            let mutex = Rc::new(Mutex::new(()));
            let own = mutex.clone();
            unwind_into(
                move || drop(mutex.lock()),
                move || {
                    let _held = own.lock();
                    sleep(LONG);
                },
            );
        });
    }
    let output = rerun(name, |_| ());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("cannot wait for a mutex while panicking"), "{said}");
    assert!(said.contains("\"librarian\" (spawned at crates/greenhub/tests/it/lock_exits.rs:"), "{said}");
    assert!(said.contains("it is held by") && said.contains("sleeping"), "{said}");
}

#[test]
fn the_abort_of_a_destructor_names_the_holder_of_its_reader_writer_lock() {
    let name = "the_abort_of_a_destructor_names_the_holder_of_its_reader_writer_lock";
    if is_child() {
        return aborts(name, || {
            let rwlock = Rc::new(RwLock::new(()));
            let own = rwlock.clone();
            unwind_into(
                move || drop(rwlock.read()),
                move || {
                    let _held = own.write();
                    sleep(LONG);
                },
            );
        });
    }
    let output = rerun(name, |_| ());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("cannot wait for a reader-writer lock while panicking"), "{said}");
    assert!(said.contains("\"librarian\" (spawned at crates/greenhub/tests/it/lock_exits.rs:"), "{said}");
    assert!(said.contains("it was last taken by") && said.contains("sleeping"), "{said}");
}

#[test]
fn the_abort_of_a_destructor_names_the_runner_of_its_once() {
    let name = "the_abort_of_a_destructor_names_the_runner_of_its_once";
    if is_child() {
        return aborts(name, || {
            let once = Rc::new(Once::new());
            let own = once.clone();
            unwind_into(move || once.call_once(|| ()), move || own.call_once(|| sleep(LONG)));
        });
    }
    let output = rerun(name, |_| ());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("cannot wait for a `Once` while panicking"), "{said}");
    assert!(said.contains("\"librarian\" (spawned at crates/greenhub/tests/it/lock_exits.rs:"), "{said}");
    assert!(said.contains("its closure is run by") && said.contains("sleeping"), "{said}");
}

#[test]
fn the_abort_of_a_destructor_names_the_runner_of_its_once_lock() {
    let name = "the_abort_of_a_destructor_names_the_runner_of_its_once_lock";
    if is_child() {
        return aborts(name, || {
            let lock = Rc::new(OnceLock::new());
            let own = lock.clone();
            unwind_into(move || _ = lock.wait(), move || _ = own.get_or_init(|| sleep(LONG)));
        });
    }
    let output = rerun(name, |_| ());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("\"librarian\" (spawned at crates/greenhub/tests/it/lock_exits.rs:"), "{said}");
    assert!(said.contains("its closure is run by") && said.contains("sleeping"), "{said}");
}

#[test]
fn an_exit_strikes_at_once_in_a_wait_for_a_once() {
    alone("an_exit_strikes_at_once_in_a_wait_for_a_once", || {
        set_lock_patience(None);
        let once = Rc::new(Once::new());
        let own = once.clone();
        let runner = spawn(move || own.call_once(|| sleep(LONG)));
        yield_now();
        assert!(with_timeout(SHORT, || once.call_once(|| ())).is_err());
        runner.kill();
    });
}

/// A connection pool as client libraries have it.
struct Pool {
    free: Mutex<Vec<u32>>,
    returned: Condvar,
}

struct Connection(Arc<Pool>, u32);

impl Pool {
    fn get(self: &Arc<Pool>) -> Connection {
        let mut free = self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        loop {
            if let Some(number) = free.pop() {
                return Connection(self.clone(), number);
            }
            free = self.returned.wait(free).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(self.1);
        self.0.returned.notify_one();
    }
}

#[test]
fn a_pool_with_returning_guards_loses_no_connection_under_timeouts() {
    let usual = if cfg!(debug_assertions) { 3 } else { 20 };
    let runs = std::env::var("GREENHUB_RUNS").map_or(usual, |runs| runs.parse().expect("a number of runs"));
    for _ in 0..runs {
        run("a_pool_with_returning_guards_loses_no_connection_under_timeouts", || {
            let pool = Arc::new(Pool { free: Mutex::new(vec![1, 2, 3]), returned: Condvar::new() });
            let threads = [(); 2].map(|()| {
                let pool = pool.clone();
                std::thread::spawn(move || {
                    let use_it = |i: u64| {
                        let pool = pool.clone();
                        spawn(move || {
                            for k in 0..50 {
                                let limit = Duration::from_micros(500 + (i * 37 + k * 91) % 1500);
                                let _late = with_timeout(limit, || {
                                    let _connection = pool.get();
                                    sleep(Duration::from_micros(300));
                                });
                            }
                        })
                    };
                    let users: Vec<_> = (0..20).map(use_it).collect();
                    users.into_iter().for_each(|user| user.join().unwrap());
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let mut free = pool.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
            free.sort_unstable();
            assert_eq!(free, [1, 2, 3]);
        });
    }
}
