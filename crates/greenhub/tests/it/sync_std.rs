//! `sync`: std's behaviour on both implementations, from one test body, then the green differences.

mod random;

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::green::{LONG, Log, OnDrop, SHORT, held, quiet_panic};
use crate::support::hubs::default_hub;
use crate::support::{alone, run};
use greenhub::greenthread::{KillOutcome, set_panicking_grace};
use greenhub::sync::{
    Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, Queue, RwLock, RwLockWriteGuard, Semaphore, TryLockError,
    mpsc,
};
use greenhub::thread::yield_now;
use greenhub::{GreenThread, get_hub, sleep, spawn, use_hub_with, with_timeout};

same_as_std! {
    fn a_mutex_excludes() {
        let total = sync::Arc::new(sync::Mutex::new(0));
        let adders = (0..4).map(|_| {
            let total = sync::Arc::clone(&total);
            thread::spawn(move || {
                for _ in 0..50 {
                    let mut total = total.lock().unwrap();
                    let before = *total;
                    thread::yield_now();
                    *total = before + 1;
                }
            })
        });
        for adder in adders.collect::<Vec<_>>() {
            adder.join().unwrap();
        }
        assert_eq!(*total.lock().unwrap(), 200);
    }

    fn a_held_mutex_would_block() {
        let mutex = sync::Mutex::new(1);
        let guard = mutex.lock().unwrap();
        assert!(matches!(mutex.try_lock(), Err(sync::TryLockError::WouldBlock)));
        assert!(format!("{mutex:?}").contains("<locked>"));
        drop(guard);
        *mutex.try_lock().unwrap() += 1;
        assert_eq!(format!("{mutex:?}"), "Mutex { data: 2, poisoned: false, .. }");
        assert_eq!(mutex.into_inner().unwrap(), 2);
    }

    fn a_panic_poisons_a_mutex_until_it_is_cleared() {
        let mutex = sync::Arc::new(sync::Mutex::new(1));
        let other = sync::Arc::clone(&mutex);
        let ended = thread::spawn(move || {
            let mut guard = other.lock().unwrap();
            *guard = 2;
            quiet_panic("on purpose");
        });
        assert!(ended.join().is_err());
        assert!(mutex.is_poisoned());
        assert_eq!(*mutex.lock().unwrap_err().into_inner(), 2);
        assert!(matches!(mutex.try_lock(), Err(sync::TryLockError::Poisoned(_))));
        mutex.clear_poison();
        assert_eq!(*mutex.lock().unwrap(), 2);
    }

    fn exclusive_access_to_a_lock_needs_no_guard() {
        let mut mutex = sync::Mutex::new(1);
        *mutex.get_mut().unwrap() += 1;
        assert_eq!(*mutex.lock().unwrap(), 2);
        let mut lock = sync::RwLock::new(String::from("a"));
        lock.get_mut().unwrap().push('b');
        assert_eq!(*lock.read().unwrap(), "ab");
        assert_eq!(lock.into_inner().unwrap(), "ab");
    }

    fn poison_is_reported_without_a_guard_until_it_is_cleared() {
        let (mut mutex, mut lock) = (sync::Mutex::new(1), sync::RwLock::new(1));
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let (_first, _second) = (mutex.lock(), lock.write());
            quiet_panic("on purpose")
        }));
        assert!(unwound.is_err());
        assert_eq!(**mutex.get_mut().unwrap_err().get_ref(), 1);
        *lock.get_mut().unwrap_err().into_inner() = 2;
        assert!(matches!(lock.try_read(), Err(sync::TryLockError::Poisoned(_))));
        lock.clear_poison();
        assert!(!lock.is_poisoned());
        assert_eq!(*lock.read().unwrap(), 2);
        assert_eq!(*lock.try_write().unwrap(), 2);
        assert_eq!((mutex.into_inner().unwrap_err().into_inner(), lock.into_inner().unwrap()), (1, 2));
        let poisoned = sync::RwLock::new(3);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _guard = poisoned.write();
            quiet_panic("on purpose")
        }));
        assert!(unwound.is_err());
        assert_eq!(poisoned.into_inner().unwrap_err().into_inner(), 3);
    }

    fn a_mutex_is_made_in_a_constant_and_of_unsized_values() {
        static COUNT: sync::Mutex<u32> = sync::Mutex::new(6);
        assert_eq!(*COUNT.lock().unwrap(), 6);
        let shared: sync::Arc<sync::Mutex<dyn Fn() -> u32 + Send>> = sync::Arc::new(sync::Mutex::new(|| 7));
        assert_eq!(shared.lock().unwrap()(), 7);
    }

    fn readers_share_and_a_writer_excludes() {
        let lock = sync::RwLock::new(1);
        let (first, second) = (lock.read().unwrap(), lock.try_read().unwrap());
        assert_eq!(*first + *second, 2);
        assert!(matches!(lock.try_write(), Err(sync::TryLockError::WouldBlock)));
        drop((first, second));
        let mut writer = lock.write().unwrap();
        *writer = 5;
        assert!(matches!(lock.try_read(), Err(sync::TryLockError::WouldBlock)));
        assert!(format!("{lock:?}").contains("<locked>"));
        drop(writer);
        assert_eq!(*lock.read().unwrap(), 5);
    }

    fn a_writer_that_panics_poisons_and_a_reader_does_not() {
        let lock = sync::RwLock::new(());
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let _guard = lock.read();
                quiet_panic("on purpose")
            });
            assert!(reader.join().is_err());
            assert!(!lock.is_poisoned());
            let writer = scope.spawn(|| {
                let _guard = lock.write();
                quiet_panic("on purpose")
            });
            assert!(writer.join().is_err());
        });
        assert!(lock.read().is_err() && lock.write().is_err() && lock.is_poisoned());
    }

    fn a_rwlock_keeps_readers_and_writers_apart() {
        let pair = sync::RwLock::new((0, 0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..30 {
                        let mut pair = pair.write().unwrap();
                        pair.0 += 1;
                        thread::yield_now();
                        pair.1 += 1;
                    }
                });
                scope.spawn(|| {
                    for _ in 0..30 {
                        let pair = pair.read().unwrap();
                        let first = pair.0;
                        thread::yield_now();
                        assert_eq!((first, first), *pair);
                    }
                });
            }
        });
        assert_eq!(*pair.read().unwrap(), (90, 90));
    }

    fn a_condvar_notifies_of_a_change() {
        let pair = sync::Arc::new((sync::Mutex::new(0), sync::Condvar::new()));
        let other = sync::Arc::clone(&pair);
        let counting = thread::spawn(move || {
            for _ in 0..10 {
                *other.0.lock().unwrap() += 1;
                other.1.notify_one();
                thread::yield_now();
            }
        });
        let count = pair.1.wait_while(pair.0.lock().unwrap(), |count| *count < 10).unwrap();
        assert_eq!(*count, 10);
        drop(count);
        counting.join().unwrap();
    }

    fn notify_all_wakes_all_waiters() {
        let pair = sync::Arc::new((sync::Mutex::new(false), sync::Condvar::new()));
        let waiting = (0..4).map(|_| {
            let pair = sync::Arc::clone(&pair);
            thread::spawn(move || *pair.1.wait_while(pair.0.lock().unwrap(), |open| !*open).unwrap())
        });
        let waiting = waiting.collect::<Vec<_>>();
        thread::sleep(SHORT);
        *pair.0.lock().unwrap() = true;
        pair.1.notify_all();
        assert!(waiting.into_iter().all(|waiting| waiting.join().unwrap()));
    }

    fn a_wait_for_a_condition_times_out() {
        let (mutex, condvar) = (sync::Mutex::new(()), sync::Condvar::new());
        let begin = Instant::now();
        let waited = condvar.wait_timeout_while(mutex.lock().unwrap(), SHORT, |()| true).unwrap();
        assert!(waited.1.timed_out() && begin.elapsed() >= SHORT);
        let (_guard, waited) = condvar.wait_timeout(waited.0, SHORT).unwrap();
        assert!(waited.timed_out() && mutex.try_lock().is_err());
    }

    fn a_barrier_opens_for_its_count_and_has_one_leader() {
        let barrier = sync::Barrier::new(3);
        let arrived = sync::atomic::AtomicUsize::new(0);
        let leaders = sync::atomic::AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for round in 1..=5 {
                        arrived.fetch_add(1, sync::atomic::Ordering::SeqCst);
                        let result = barrier.wait();
                        assert!(arrived.load(sync::atomic::Ordering::SeqCst) >= 3 * round);
                        leaders.fetch_add(result.is_leader().into(), sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(leaders.into_inner(), 5);
        assert!(sync::Barrier::new(0).wait().is_leader());
    }

    fn a_closure_runs_once_and_all_wait_for_it() {
        static ONCE: sync::Once = sync::Once::new();
        static RAN: sync::atomic::AtomicUsize = sync::atomic::AtomicUsize::new(0);
        let callers = (0..4).map(|_| {
            thread::spawn(|| {
                ONCE.call_once(|| {
                    thread::sleep(SHORT);
                    RAN.fetch_add(1, sync::atomic::Ordering::SeqCst);
                });
                RAN.load(sync::atomic::Ordering::SeqCst)
            })
        });
        let callers = callers.collect::<Vec<_>>();
        ONCE.wait();
        assert!(ONCE.is_completed());
        assert!(callers.into_iter().all(|caller| caller.join().unwrap() == 1));
    }

    fn a_closure_that_panics_poisons_its_once() {
        let once = sync::Once::new();
        let call = || once.call_once(|| quiet_panic("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        assert!(!once.is_completed());
        assert!(catch_unwind(AssertUnwindSafe(|| once.call_once(|| ()))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| once.wait())).is_err());
        let poisoned = Cell::new(false);
        once.call_once_force(|state| poisoned.set(state.is_poisoned()));
        assert!(poisoned.get() && once.is_completed());
        once.wait();
    }

    fn a_forced_wait_lasts_until_a_later_closure_returns() {
        let once = sync::Arc::new(sync::Once::new());
        let call = || once.call_once(|| quiet_panic("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        let other = sync::Arc::clone(&once);
        let waiting = thread::spawn(move || {
            other.wait_force();
            other.is_completed()
        });
        thread::sleep(SHORT);
        assert!(!waiting.is_finished());
        once.call_once_force(|state| assert!(state.is_poisoned()));
        assert!(waiting.join().unwrap());
        once.wait_force();
    }

    fn a_value_is_made_once() {
        static VALUE: sync::OnceLock<String> = sync::OnceLock::new();
        assert_eq!(VALUE.get(), None);
        let waiting = thread::spawn(|| VALUE.wait().len());
        let makers = (0..3).map(|n| {
            thread::spawn(move || {
                VALUE.get_or_init(|| {
                    thread::sleep(SHORT);
                    format!("by {n}")
                })
            })
        });
        let made: Vec<_> = makers.collect::<Vec<_>>().into_iter().map(|maker| maker.join().unwrap()).collect();
        assert!(made.iter().all(|value| *value == made[0]));
        assert_eq!(waiting.join().unwrap(), 4);
        assert_eq!(VALUE.set(String::new()), Err(String::new()));
    }

    fn a_value_whose_maker_panics_is_made_by_the_next() {
        let mut lock = sync::OnceLock::new();
        let make = || *lock.get_or_init(|| quiet_panic("on purpose"));
        let made: Result<i32, _> = catch_unwind(AssertUnwindSafe(make));
        assert!(made.is_err() && lock.get().is_none());
        assert!(lock.get_mut().is_none());
        assert_eq!(lock.set(2), Ok(()));
        *lock.get_mut().unwrap() += 1;
        assert_eq!((lock.clone(), format!("{lock:?}")), (sync::OnceLock::from(3), "OnceLock(3)".to_owned()));
        assert_eq!((lock.take(), lock.into_inner()), (Some(3), None));
    }

    fn a_lazy_value_is_made_by_the_first_access_and_others_wait() {
        static MADE: sync::atomic::AtomicUsize = sync::atomic::AtomicUsize::new(0);
        static VALUE: sync::LazyLock<String> = sync::LazyLock::new(|| {
            thread::sleep(SHORT);
            format!("made {}", 1 + MADE.fetch_add(1, sync::atomic::Ordering::SeqCst))
        });
        assert_eq!(format!("{:?}", &VALUE), "LazyLock(<uninit>)");
        let askers: Vec<_> = (0..3).map(|_| thread::spawn(|| VALUE.as_str())).collect();
        assert!(askers.into_iter().all(|asker| asker.join().unwrap() == "made 1"));
        assert_eq!((sync::LazyLock::force(&VALUE).len(), VALUE.len()), (6, 6));
        assert_eq!(format!("{:?}", &VALUE), "LazyLock(\"made 1\")");
        let owned = 7;
        assert_eq!(*sync::LazyLock::new(move || owned) + *sync::LazyLock::<i32>::default(), 7);
    }

    fn a_lazy_value_whose_maker_panics_stays_poisoned() {
        let calls = Cell::new(0);
        let lazy: sync::LazyLock<i32, _> = sync::LazyLock::new(|| {
            calls.set(calls.get() + 1);
            quiet_panic("on purpose")
        });
        let first = catch_unwind(AssertUnwindSafe(|| *lazy)).unwrap_err();
        assert_eq!(first.downcast_ref(), Some(&"on purpose"));
        let later = catch_unwind(AssertUnwindSafe(|| *sync::LazyLock::force(&lazy))).unwrap_err();
        assert_eq!(later.downcast_ref(), Some(&"LazyLock instance has previously been poisoned"));
        assert_eq!((calls.get(), format!("{lazy:?}")), (1, "LazyLock(<uninit>)".to_owned()));
    }

    fn a_channel_keeps_the_order_of_each_sender() {
        let (sender, receiver) = sync::mpsc::channel();
        let senders = (0..3).map(|who| {
            let sender = sender.clone();
            thread::spawn(move || {
                for n in 0..20 {
                    sender.send((who, n)).unwrap();
                    thread::yield_now();
                }
            })
        });
        let senders = senders.collect::<Vec<_>>();
        drop(sender);
        let received: Vec<_> = receiver.iter().collect();
        for who in 0..3 {
            let order: Vec<_> = received.iter().filter(|item| item.0 == who).map(|item| item.1).collect();
            assert_eq!(order, (0..20).collect::<Vec<_>>());
        }
        assert_eq!(receiver.recv(), Err(sync::mpsc::RecvError));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }

    fn a_receiver_is_iterated_by_reference_and_lent_again() {
        let (sender, receiver) = sync::mpsc::channel();
        let sending = thread::spawn(move || {
            for n in 0..6 {
                sender.send(n).unwrap();
                thread::yield_now();
            }
        });
        let mut received = Vec::new();
        for n in &receiver {
            received.push(n);
            if n == 2 {
                break;
            }
        }
        received.extend(&receiver);
        assert_eq!(received, (0..6).collect::<Vec<_>>());
        sending.join().unwrap();
    }

    fn a_dropped_end_is_an_error() {
        let (sender, receiver) = sync::mpsc::channel();
        assert_eq!(receiver.try_recv(), Err(sync::mpsc::TryRecvError::Empty));
        assert_eq!(receiver.recv_timeout(SHORT), Err(sync::mpsc::RecvTimeoutError::Timeout));
        sender.send(1).unwrap();
        let other = sender.clone();
        drop((sender, other));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1]);
        assert_eq!(receiver.try_recv(), Err(sync::mpsc::TryRecvError::Disconnected));
        assert_eq!(receiver.recv_timeout(LONG), Err(sync::mpsc::RecvTimeoutError::Disconnected));
        let (sender, receiver) = sync::mpsc::sync_channel(1);
        drop(receiver);
        assert_eq!(sender.send(2), Err(sync::mpsc::SendError(2)));
        assert_eq!(sender.try_send(3), Err(sync::mpsc::TrySendError::Disconnected(3)));
    }

    fn a_bounded_channel_makes_its_senders_wait() {
        let (sender, receiver) = sync::mpsc::sync_channel(2);
        assert_eq!((sender.try_send(0), sender.send(1)), (Ok(()), Ok(())));
        assert_eq!(sender.try_send(9), Err(sync::mpsc::TrySendError::Full(9)));
        let more = thread::spawn(move || (2..20).for_each(|n| sender.send(n).unwrap()));
        assert_eq!(receiver.into_iter().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        more.join().unwrap();
    }

    fn a_channel_without_a_buffer_hands_over() {
        let (sender, receiver) = sync::mpsc::sync_channel(0);
        assert_eq!(sender.try_send(0), Err(sync::mpsc::TrySendError::Full(0)));
        let taken = sync::Arc::new(sync::atomic::AtomicBool::new(false));
        let is_taken = sync::Arc::clone(&taken);
        let sending = thread::spawn(move || {
            for n in 0..10 {
                sender.send(n).unwrap();
                assert!(is_taken.load(sync::atomic::Ordering::SeqCst));
            }
        });
        thread::sleep(SHORT);
        taken.store(true, sync::atomic::Ordering::SeqCst);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        sending.join().unwrap();
    }

    fn a_dropped_receiver_returns_the_item() {
        for bound in [0, 1] {
            let (sender, receiver) = sync::mpsc::sync_channel(bound);
            let sending = thread::spawn(move || (0..=bound).map(|n| sender.send(n)).fold(None, |_, sent| Some(sent)));
            thread::sleep(SHORT);
            drop(receiver);
            assert_eq!(sending.join().unwrap(), Some(Err(sync::mpsc::SendError(bound))));
        }
    }
}

/// Spawns green threads that each take the lock, log their number, and hold the lock over a yield.
fn in_line(log: &Log, lock: &Rc<Mutex<()>>, numbers: impl IntoIterator<Item = u32>) -> Vec<GreenThread<()>> {
    let spawn_one = |n: u32| {
        let (log, lock) = (log.clone(), lock.clone());
        spawn(move || {
            let _guard = lock.lock().unwrap_or_else(|error| error.into_inner());
            log.add(n.to_string());
            yield_now();
        })
    };
    let all = numbers.into_iter().map(spawn_one).collect();
    yield_now();
    all
}

#[test]
fn a_mutex_is_handed_off_in_order_of_arrival() {
    run("a_mutex_is_handed_off_in_order_of_arrival", || {
        let (log, lock) = (Log::new(), Rc::new(Mutex::new(())));
        let guard = lock.lock().unwrap();
        let waiting = in_line(&log, &lock, 1..=3);
        drop(guard);
        assert!(lock.try_lock().is_err(), "the first waiter has no grant");
        drop(lock.lock().unwrap());
        log.is(&["1", "2", "3"]);
        waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
    });
}

#[test]
fn a_lock_goes_from_one_killed_waiter_to_the_next() {
    run("a_lock_goes_from_one_killed_waiter_to_the_next", || {
        let (log, lock, before) = (Log::new(), Rc::new(Mutex::new(())), held());
        let guard = lock.lock().unwrap();
        let waiting = in_line(&log, &lock, 1..=4);
        // One waiter is killed before it gets the lock, one after its grant and before it runs.
        assert_eq!(waiting[1].kill(), KillOutcome::Scheduled);
        drop(guard);
        assert_eq!(waiting[0].kill(), KillOutcome::Ended);
        drop(lock.lock().unwrap_err());
        log.is(&["1", "2", "3", "4"]);
        assert!(waiting[1].is_finished());
        drop(waiting);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_timed_out_waiter_leaves_the_lock_to_the_next() {
    run("a_timed_out_waiter_leaves_the_lock_to_the_next", || {
        let lock = Mutex::new(());
        let guard = lock.lock().unwrap();
        assert!(with_timeout(SHORT, || drop(lock.lock())).is_err());
        drop(guard);
        assert!(lock.try_lock().is_ok());
    });
}

#[test]
fn a_kill_or_timeout_that_unwinds_a_guard_poisons() {
    run("a_kill_or_timeout_that_unwinds_a_guard_poisons", || {
        let lock = Arc::new(Mutex::new(0));
        let other = lock.clone();
        let half_done = spawn(move || {
            *other.lock().unwrap() = 1;
            let _guard = other.lock().unwrap();
            sleep(LONG);
        });
        yield_now();
        half_done.kill();
        assert_eq!(**lock.lock().unwrap_err().get_ref(), 1);
        lock.clear_poison();
        let timed = with_timeout(SHORT, || {
            let _guard = lock.lock().unwrap();
            sleep(LONG);
        });
        assert!(timed.is_err() && lock.is_poisoned());
        let value = RwLock::new(0);
        let timed = with_timeout(SHORT, || {
            let _guard = value.write().unwrap();
            sleep(LONG);
        });
        assert!(timed.is_err() && value.is_poisoned());
    });
}

#[test]
fn one_mutex_serves_two_hubs_and_plain_threads() {
    run("one_mutex_serves_two_hubs_and_plain_threads", || {
        let total = Arc::new(Mutex::new(0));
        let add = |total: &Mutex<u64>, wait: fn()| {
            for _ in 0..200 {
                let mut total = total.lock().unwrap();
                let before = *total;
                wait();
                *total = before + 1;
            }
        };
        let hubs = (0..2).map(|_| {
            let total = total.clone();
            std::thread::spawn(move || {
                let total = &total;
                greenhub::scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(move || add(total, yield_now));
                    }
                });
            })
        });
        let plain = (0..2).map(|_| {
            let total = total.clone();
            std::thread::spawn(move || {
                add(&total, std::thread::yield_now);
                assert!(!greenhub::hub::has_hub());
            })
        });
        let all: Vec<_> = hubs.chain(plain).collect();
        all.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*total.lock().unwrap(), 8 * 200);
    });
}

#[test]
fn a_held_lock_panics_in_an_unwinding_destructor() {
    const NAME: &str = "a_held_lock_panics_in_an_unwinding_destructor";
    if support::is_child() {
        let lock = Rc::new(Mutex::new(()));
        let _guard = lock.lock();
        let other = lock.clone();
        let unwinding = spawn(move || {
            let _on_drop = OnDrop(|| drop(other.lock()));
            sleep(LONG);
        });
        yield_now();
        unwinding.kill();
        return;
    }
    let output = support::rerun(NAME, |_| {});
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot wait for a mutex while panicking"), "{said}");
}

#[test]
fn an_unwinding_destructor_takes_locks_that_are_free_or_released_in_time() {
    alone("an_unwinding_destructor_takes_locks_that_are_free_or_released_in_time", || {
        set_panicking_grace(Duration::from_secs(60));
        let (free, busy) = (Mutex::new(0), Arc::new(Mutex::new(0)));
        let (locked, is_locked) = std::sync::mpsc::channel();
        let other = busy.clone();
        let holder = std::thread::spawn(move || {
            let _guard = other.lock();
            locked.send(()).unwrap();
            std::thread::sleep(SHORT);
        });
        is_locked.recv().unwrap();
        yield_now();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _on_drop = OnDrop(|| {
                *free.lock().unwrap() += 1;
                *busy.lock().unwrap() += 1;
            });
            quiet_panic("on purpose");
        }));
        assert!(unwound.is_err());
        assert_eq!((*free.lock().unwrap(), *busy.lock().unwrap()), (1, 1));
        holder.join().unwrap();
        set_panicking_grace(Duration::from_millis(100));
    });
}

#[test]
fn a_send_without_room_while_panicking_is_an_error() {
    run("a_send_without_room_while_panicking_is_an_error", || {
        for bound in [0, 1] {
            let (sender, receiver) = mpsc::sync_channel(bound);
            yield_now();
            (0..bound).for_each(|_| sender.send("first").unwrap());
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let _on_drop = OnDrop(|| {
                    assert_eq!(sender.send("second"), Err(mpsc::SendError("second")));
                });
                quiet_panic("on purpose");
            }));
            assert!(unwound.is_err());
            assert_eq!(receiver.try_iter().count(), bound);
        }
    });
}

#[test]
fn a_lock_in_the_main_loop_is_refused_with_a_panic() {
    run("a_lock_in_the_main_loop_is_refused_with_a_panic", || {
        let (lock, log) = (Rc::new(Mutex::new(())), Log::new());
        let guard = lock.lock();
        let (other, own_log) = (lock.clone(), log.clone());
        let _timer = greenhub::get_hub().schedule(Duration::ZERO, move || {
            let refused = catch_unwind(AssertUnwindSafe(|| drop(other.lock())));
            own_log.add(if refused.is_err() { "refused" } else { "locked" });
        });
        sleep(SHORT);
        log.is(&["refused"]);
        drop(guard);
        assert!(lock.try_lock().is_ok());
    });
}

#[test]
fn a_notified_waiter_that_is_killed_returns_with_the_mutex() {
    run("a_notified_waiter_that_is_killed_returns_with_the_mutex", || {
        // Killed before it runs again, or while it waits for the mutex.
        for relocking in [false, true] {
            let (log, pair) = (Log::new(), Rc::new((Mutex::new(()), Condvar::new())));
            let wait = |n: u32| {
                let (log, pair) = (log.clone(), pair.clone());
                spawn(move || {
                    let _guard = pair.1.wait(pair.0.lock().unwrap()).unwrap();
                    log.add(n.to_string());
                })
            };
            let waiting: Vec<_> = (1..=3).map(wait).collect();
            yield_now();
            let guard = pair.0.lock().unwrap();
            pair.1.notify_one();
            if relocking {
                yield_now();
            }
            assert_eq!(waiting[0].kill(), KillOutcome::Scheduled);
            drop(guard);
            sleep(SHORT);
            log.is(&["1"]);
            assert!(!pair.0.is_poisoned());
        }
    });
}

#[test]
fn a_writer_is_not_overtaken_by_readers() {
    run("a_writer_is_not_overtaken_by_readers", || {
        let (log, lock) = (Log::new(), Rc::new(RwLock::new(())));
        let reading = lock.read().unwrap();
        let access = |name: &'static str| {
            let (log, lock) = (log.clone(), lock.clone());
            spawn(move || {
                if name.starts_with("write") {
                    let _guard = lock.write().unwrap();
                    log.add(format!("{name} in"));
                    yield_now();
                    log.add(format!("{name} out"));
                } else {
                    let _guard = lock.read().unwrap();
                    log.add(format!("{name} in"));
                    sleep(SHORT);
                    log.add(format!("{name} out"));
                }
            })
        };
        let all: Vec<_> = ["write 1", "read 2", "read 3", "write 4"].map(access).into();
        yield_now();
        assert!(lock.try_read().is_err(), "the waiting writer does not block readers");
        drop(reading);
        all.into_iter().for_each(|one| one.join().unwrap());
        log.is(&[
            "write 1 in",
            "write 1 out",
            "read 2 in",
            "read 3 in",
            "read 2 out",
            "read 3 out",
            "write 4 in",
            "write 4 out",
        ]);
    });
}

#[test]
fn a_downgraded_writer_admits_readers_and_no_writer() {
    run("a_downgraded_writer_admits_readers_and_no_writer", || {
        let (lock, log) = (Arc::new(RwLock::new(0)), Log::new());
        let (reading, read) = (lock.clone(), log.clone());
        let mut guard = lock.write().unwrap();
        let readers = [0, 1].map(|_| {
            let (reading, read) = (reading.clone(), read.clone());
            spawn(move || read.add(format!("reads {}", reading.read().unwrap())))
        });
        let (writing, wrote) = (lock.clone(), log.clone());
        let writer = spawn(move || {
            *writing.write().unwrap() = 2;
            wrote.add("wrote");
        });
        yield_now();
        *guard = 1;
        let guard = RwLockWriteGuard::downgrade(guard);
        log.is(&[]);
        for reader in readers {
            reader.join().unwrap();
        }
        sleep(SHORT);
        log.is(&["reads 1", "reads 1"]);
        assert_eq!(*guard, 1);
        drop(guard);
        writer.join().unwrap();
        assert_eq!(*lock.read().unwrap(), 2);
        assert!(!lock.is_poisoned());
    });
}

#[test]
fn a_killed_writer_admits_the_readers() {
    alone("a_killed_writer_admits_the_readers", || {
        // The killed writer stands at the turnstile, or behind the writer there.
        for which in [0, 1] {
            let lock = Rc::new(RwLock::new(()));
            let reading = lock.read().unwrap();
            let write = || {
                let lock = lock.clone();
                spawn(move || drop(lock.write().unwrap()))
            };
            let writers = [write(), write()];
            let other = lock.clone();
            let reader = spawn(move || drop(other.read().unwrap()));
            yield_now();
            greenhub::greenthread::set_lock_patience(SHORT);
            let [first, second] = writers;
            let [killed, last] = if which == 0 { [first, second] } else { [second, first] };
            assert_eq!(killed.kill(), KillOutcome::Scheduled);
            assert!(killed.join().unwrap_err().is_kill());
            assert!(!reader.is_finished());
            last.kill();
            assert!(last.join().unwrap_err().is_kill());
            yield_now();
            assert!(reader.is_finished(), "the reader still waits");
            drop(reading);
            assert!(lock.try_write().is_ok() && !lock.is_poisoned());
        }
    });
}

#[test]
fn a_killed_waiter_withdraws_its_arrival_at_a_barrier() {
    run("a_killed_waiter_withdraws_its_arrival_at_a_barrier", || {
        let barrier = Rc::new(Barrier::new(3));
        let arrive = || {
            let barrier = barrier.clone();
            spawn(move || barrier.wait().is_leader())
        };
        let first = [arrive(), arrive()];
        yield_now();
        first[0].kill();
        let third = arrive();
        yield_now();
        assert!(!third.is_finished());
        assert!(barrier.wait().is_leader());
        assert!(!third.join().unwrap());
    });
}

#[test]
fn an_arrival_released_by_the_barrier_counts_despite_an_abort() {
    run("an_arrival_released_by_the_barrier_counts_despite_an_abort", || {
        let barrier = Arc::new(Barrier::new(2));
        let (there, through) = std::sync::mpsc::channel();
        let _abort = get_hub().schedule(Duration::ZERO, {
            let barrier = barrier.clone();
            move || {
                get_hub().abort();
                // Main waits at the barrier, and does not continue before the loop has ended.
                let (barrier, there) = (barrier.clone(), there.clone());
                std::thread::spawn(move || there.send(barrier.wait().is_leader()));
                assert!(through.recv().unwrap());
            }
        });
        assert!(matches!(with_timeout(Duration::from_secs(60), || barrier.wait().is_leader()), Ok(false)));
    });
}

#[test]
fn an_arrival_that_builds_its_hub_is_not_released_by_an_earlier_opening() {
    run("an_arrival_that_builds_its_hub_is_not_released_by_an_earlier_opening", || {
        let (barrier, came) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
        let (built, is_built) = std::sync::mpsc::channel();
        let others = barrier.clone();
        use_hub_with(move || {
            // Runs without a lock, and before this OS thread has its place at the barrier.
            let pair = [(); 2].map(|()| others.clone()).map(|own| std::thread::spawn(move || own.wait().is_leader()));
            assert_eq!(pair.map(|one| one.join().unwrap()).iter().filter(|leads| **leads).count(), 1);
            built.send(()).unwrap();
            default_hub()
        })
        .unwrap();
        let (own, tells) = (barrier.clone(), came.clone());
        let partner = std::thread::spawn(move || {
            is_built.recv().unwrap();
            std::thread::sleep(SHORT);
            tells.store(true, Ordering::SeqCst);
            own.wait().is_leader()
        });
        let _has_green_threads = spawn(|| ());
        let leads = barrier.wait().is_leader();
        assert!(came.load(Ordering::SeqCst), "released without the arrival of the partner");
        assert_ne!(partner.join().unwrap(), leads);
    });
}

#[test]
fn a_killed_closure_poisons_its_once_and_leaves_a_once_lock_empty() {
    run("a_killed_closure_poisons_its_once_and_leaves_a_once_lock_empty", || {
        let both = Rc::new((Once::new(), OnceLock::new()));
        let (once, lock) = (both.clone(), both.clone());
        let killed = [
            spawn(move || once.0.call_once(|| sleep(LONG))),
            spawn(move || {
                lock.1.get_or_init(|| {
                    sleep(LONG);
                    1
                });
            }),
        ];
        yield_now();
        let other = both.clone();
        let next = spawn(move || *other.1.get_or_init(|| 2));
        yield_now();
        killed.iter().for_each(|killed| _ = killed.kill());
        assert_eq!(next.join().unwrap(), 2);
        both.0.call_once_force(|state| assert!(state.is_poisoned()));
        assert!(both.0.is_completed());
    });
}

#[test]
fn a_killed_closure_poisons_its_lazy_value_for_waiters() {
    run("a_killed_closure_poisons_its_lazy_value_for_waiters", || {
        let lazy = Rc::new(LazyLock::new(|| {
            sleep(LONG);
            1
        }));
        let ask = || {
            let lazy = lazy.clone();
            spawn(move || catch_unwind(AssertUnwindSafe(|| **lazy)).is_err())
        };
        let (making, waiting) = (ask(), [ask(), ask()]);
        yield_now();
        making.kill();
        assert!(waiting.into_iter().all(|waiting| waiting.join().unwrap()));
        assert!(LazyLock::get(&lazy).is_none());
    });
}

#[test]
fn an_exclusively_borrowed_lazy_value_may_be_changed() {
    run("an_exclusively_borrowed_lazy_value_may_be_changed", || {
        let mut lazy = LazyLock::new(|| {
            yield_now();
            1
        });
        assert!(LazyLock::get_mut(&mut lazy).is_none() && LazyLock::get(&lazy).is_none());
        *LazyLock::force_mut(&mut lazy) += 1;
        *lazy += 1;
        assert_eq!(LazyLock::get_mut(&mut lazy).copied(), Some(3));
        assert_eq!(LazyLock::get(&lazy), Some(&3));
    });
}

#[test]
fn a_receiver_killed_after_its_grant_receives() {
    run("a_receiver_killed_after_its_grant_receives", || {
        let (sender, receiver) = mpsc::channel();
        let receiver = Rc::new(receiver);
        let receive = || {
            let receiver = receiver.clone();
            spawn(move || receiver.recv())
        };
        let waiting = [receive(), receive()];
        yield_now();
        sender.send(1).unwrap();
        assert!(receiver.try_recv().is_err(), "the first waiter has no grant");
        waiting[0].kill();
        let [first, second] = waiting;
        assert_eq!(first.join().unwrap(), Ok(1));
        sender.send(2).unwrap();
        assert_eq!(second.join().unwrap(), Ok(2));
    });
}

#[test]
fn an_item_granted_to_a_receiver_is_not_free_for_a_newcomer() {
    run("an_item_granted_to_a_receiver_is_not_free_for_a_newcomer", || {
        let (sender, receiver) = mpsc::sync_channel(0);
        let receiver = Rc::new(receiver);
        let get = || {
            let receiver = receiver.clone();
            move || receiver.recv().unwrap()
        };
        let pool = greenhub::GreenPool::new(1);
        let first = pool.spawn(get()).unwrap();
        yield_now();
        let second = spawn(get());
        yield_now();
        // Offers an item to the first receiver, and withdraws it before the receiver runs.
        let offers = sender.clone();
        std::thread::spawn(move || assert!(with_timeout(SHORT, || offers.send(1)).is_err())).join().unwrap();
        // The newcomer runs after the first receiver and before the second.
        pool.kill_all();
        let newcomer = {
            let receiver = receiver.clone();
            spawn(move || receiver.try_recv())
        };
        sender.try_send(2).unwrap();
        assert_eq!(newcomer.join().unwrap(), Err(mpsc::TryRecvError::Empty));
        assert_eq!(second.join().unwrap(), 2);
        assert!(first.join().unwrap_err().is_kill());
    });
}

#[test]
fn a_sender_killed_after_its_grant_sends() {
    run("a_sender_killed_after_its_grant_sends", || {
        let (sender, receiver) = mpsc::sync_channel(1);
        sender.send(0).unwrap();
        let send = |n| {
            let sender = sender.clone();
            spawn(move || sender.send(n))
        };
        let waiting = [1, 2, 3].map(send);
        yield_now();
        waiting[1].kill();
        assert_eq!(receiver.recv(), Ok(0));
        assert!(sender.try_send(9).is_err(), "the first waiter has no grant of the room");
        // The room is already granted to it.
        waiting[0].kill();
        assert_eq!((receiver.recv_timeout(LONG), receiver.recv_timeout(LONG)), (Ok(1), Ok(3)));
        assert_eq!(sender.try_send(4), Ok(()));
    });
}

#[test]
fn a_killed_sender_withdraws_its_offer() {
    run("a_killed_sender_withdraws_its_offer", || {
        let (sender, receiver) = mpsc::sync_channel(0);
        let send = |n| {
            let sender = sender.clone();
            spawn(move || sender.send(n))
        };
        let waiting = [1, 2, 3].map(send);
        yield_now();
        waiting[0].kill();
        assert_eq!((receiver.recv(), receiver.try_recv()), (Ok(2), Ok(3)));
        assert_eq!(receiver.try_recv(), Err(mpsc::TryRecvError::Empty));
        let [_, second, third] = waiting;
        assert_eq!((second.join().unwrap(), third.join().unwrap()), (Ok(()), Ok(())));
        // A waiting receiver counts as room.
        let receiving = spawn(move || receiver.recv());
        yield_now();
        assert_eq!(sender.try_send(4), Ok(()));
        assert_eq!(receiving.join().unwrap(), Ok(4));
    });
}

#[test]
fn an_ending_os_thread_keeps_earlier_grants_and_is_skipped_later() {
    run("an_ending_os_thread_keeps_earlier_grants_and_is_skipped_later", || {
        for given_before in [false, true] {
            let (mutex, permits, queue) =
                (Arc::new(Mutex::new(0)), Arc::new(Semaphore::new(0)), Arc::new(Queue::new()));
            let (sender, receiver) = mpsc::sync_channel(1);
            sender.send(0).unwrap();
            let guard = mutex.lock().unwrap();
            let (waits, waiting) = std::sync::mpsc::channel();
            let (end, ends) = std::sync::mpsc::channel::<()>();
            let theirs = (mutex.clone(), permits.clone(), queue.clone(), sender.clone());
            let waits_and_ends = move || {
                let (mutex, permits, queue, sender) = theirs;
                spawn(move || mutex.lock().map(drop).is_ok());
                spawn(move || permits.acquire());
                spawn(move || queue.get());
                spawn(move || sender.send(1));
                yield_now();
                waits.send(()).unwrap();
                // No waiter runs before the end.
                assert!(ends.recv().is_err());
            };
            // An abandoned waiter is skipped. A waiter woken earlier takes its grant during the shutdown.
            let spawn_thread: fn(_) -> _ =
                if given_before { |body| greenhub::thread::os::spawn(body).into_std() } else { std::thread::spawn };
            let thread = spawn_thread(waits_and_ends);
            waiting.recv().unwrap();
            let give = || {
                drop(guard);
                permits.release();
                queue.put("item").unwrap();
                assert_eq!(receiver.try_recv(), Ok(0));
            };
            if given_before {
                give();
                drop(end);
                thread.join().unwrap();
            } else {
                drop(end);
                thread.join().unwrap();
                give();
            }
            assert_eq!(*mutex.try_lock().unwrap(), 0);
            assert_ne!(permits.try_acquire(), given_before);
            assert_eq!(queue.try_get().ok(), (!given_before).then_some("item"));
            assert_eq!(receiver.try_recv().ok(), given_before.then_some(1));
            sender.try_send(2).unwrap();
            assert_eq!(receiver.try_recv(), Ok(2));
        }
    });
}

#[test]
fn channels_connect_hubs_and_plain_threads() {
    run("channels_connect_hubs_and_plain_threads", || {
        for bound in [0, 1, 8] {
            let (sender, receiver) = mpsc::sync_channel(bound);
            let (back, answers) = mpsc::channel();
            let doubling = std::thread::spawn(move || receiver.iter().for_each(|n: u64| back.send(2 * n).unwrap()));
            let sending = std::thread::spawn(move || {
                greenhub::scope(|scope| {
                    for who in 0..4 {
                        let sender = sender.clone();
                        scope.spawn(move || (0..50).for_each(|n| sender.send(50 * who + n).unwrap()));
                    }
                });
            });
            let counting = spawn(|| sleep(SHORT));
            let mut all: Vec<_> = answers.iter().collect();
            all.sort_unstable();
            assert_eq!(all, (0..200).map(|n| 2 * n).collect::<Vec<_>>());
            counting.join().unwrap();
            sending.join().unwrap();
            doubling.join().unwrap();
        }
    });
}

#[test]
fn a_poisoned_lock_is_reported_to_its_waiters() {
    run("a_poisoned_lock_is_reported_to_its_waiters", || {
        let lock = Rc::new(Mutex::new(()));
        let other = lock.clone();
        let holder = spawn(move || {
            let _guard = other.lock().unwrap();
            sleep(LONG);
        });
        yield_now();
        let other = lock.clone();
        let waiting = spawn(move || other.lock().is_err());
        yield_now();
        holder.kill();
        assert!(waiting.join().unwrap());
        assert!(matches!(lock.try_lock(), Err(TryLockError::Poisoned(_))));
    });
}

/// Between two throws of an exit, others run, so the exit must not be thrown under the lock of a primitive.
#[test]
fn a_rethrown_exit_does_not_switch_under_the_lock_of_a_primitive() {
    run("a_rethrown_exit_does_not_switch_under_the_lock_of_a_primitive", || {
        let mutex = Arc::new(Mutex::new(()));
        let held = mutex.lock().unwrap();
        let waiting = mutex.clone();
        let green = spawn(move || {
            for _ in 0..3 {
                drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(waiting.lock()))));
            }
        });
        let other = mutex.clone();
        let looks = spawn(move || {
            for _ in 0..20 {
                assert!(other.try_lock().is_err());
                yield_now();
            }
        });
        yield_now();
        green.kill();
        looks.join().unwrap();
        green.join().unwrap();
        drop(held);
        drop(mutex.lock().unwrap());
    });
}
