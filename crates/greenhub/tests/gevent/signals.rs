//! Watchers of signals.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Barrier};

use nix::sys::signal::{Signal as Number, kill, raise};
use nix::unistd::getpid;

use crate::support::counting::allocations;
use crate::support::descriptors::until;
use crate::support::fork::{ends_well, forked};
use crate::support::green::quiet_panic;
use crate::support::{alone, in_child, open_descriptors, run};
use crate::{Log, SHORT, settle};
use greenhub::debug::hub_exceptions;
use greenhub::gevent::{Run, Signal, Watcher, WatcherError, event_loop, on_signal};
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn};

const FIRST: i32 = Number::SIGUSR1 as i32;
const SECOND: i32 = Number::SIGUSR2 as i32;

/// Returns an active watcher, and the log of its calls.
fn logged(signal: i32) -> (Signal, Log<()>) {
    let (watcher, log) = (event_loop().signal(signal).unwrap(), Log::new());
    let calls = log.clone();
    watcher.start(move |_, ()| calls.push(())).unwrap();
    (watcher, log)
}

#[test]
fn a_signal_calls_its_watcher_from_the_loop() {
    alone("a_signal_calls_its_watcher_from_the_loop", || {
        let (watcher, log) = logged(FIRST);
        for round in 1..=3 {
            raise(Number::SIGUSR1).unwrap();
            assert_eq!(log.len(), round - 1, "the handler itself calls nothing");
            until(|| log.len() == round);
        }
        assert_eq!(watcher.signal(), FIRST);
    });
}

#[test]
fn a_signal_wakes_a_loop_that_sleeps() {
    alone("a_signal_wakes_a_loop_that_sleeps", || {
        let watcher = event_loop().signal(FIRST).unwrap();
        watcher.set_counted(true);
        // A signal before the start would end this process.
        let keep = logged(FIRST);
        let other = std::thread::spawn(|| {
            std::thread::sleep(20 * SHORT);
            kill(getpid(), Number::SIGUSR1).unwrap();
        });
        watcher.wait(None).unwrap();
        other.join().unwrap();
        drop(keep);
    });
}

#[test]
fn each_watcher_of_a_signal_is_called_and_no_other() {
    alone("each_watcher_of_a_signal_is_called_and_no_other", || {
        let watchers = [logged(FIRST), logged(SECOND), logged(FIRST)];
        raise(Number::SIGUSR1).unwrap();
        until(|| watchers[0].1.len() == 1 && watchers[2].1.len() == 1);
        assert_eq!(watchers[1].1.len(), 0);
        watchers[0].0.stop();
        raise(Number::SIGUSR1).unwrap();
        until(|| watchers[2].1.len() == 2);
        assert_eq!(watchers[0].1.len(), 1);
    });
}

#[test]
fn the_loops_of_all_os_threads_that_watch_a_signal_are_told() {
    alone("the_loops_of_all_os_threads_that_watch_a_signal_are_told", || {
        let started = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let started = Arc::clone(&started);
                std::thread::spawn(move || {
                    let (watcher, log) = logged(FIRST);
                    watcher.set_counted(true);
                    started.wait();
                    until(|| log.len() == 1);
                })
            })
            .collect();
        started.wait();
        kill(getpid(), Number::SIGUSR1).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_number_that_is_no_signal_to_catch_is_an_error() {
    run("a_number_that_is_no_signal_to_catch_is_an_error", || {
        for signal in [0, -1, i32::MIN, 1000, i32::MAX] {
            let error = event_loop().signal(signal).unwrap_err();
            assert!(matches!(error, WatcherError::Signal { signal: named, .. } if named == signal), "{error}");
            assert!(error.to_string().contains("no such signal"), "{error}");
        }
        for signal in [Number::SIGKILL, Number::SIGSTOP, Number::SIGSEGV, Number::SIGILL, Number::SIGFPE] {
            let error = on_signal(signal as i32, || ()).unwrap_err().to_string();
            assert!(error.contains("cannot or must not be caught") && error.contains("SIGTERM"), "{error}");
        }
    });
}

#[test]
fn a_signal_that_the_system_reserves_is_an_error_at_the_start() {
    run("a_signal_that_the_system_reserves_is_an_error_at_the_start", || {
        // The C library uses it for its threads.
        let watcher = event_loop().signal(32).unwrap();
        let error = watcher.start(|_, ()| ()).unwrap_err();
        assert!(matches!(error, WatcherError::System { .. }), "{error}");
        assert!(!watcher.is_active());
        assert_eq!(event_loop().counts().active, 0);
    });
}

#[test]
fn a_signal_watcher_is_counted_only_on_request() {
    alone("a_signal_watcher_is_counted_only_on_request", || {
        let (watcher, log) = logged(FIRST);
        assert!(!watcher.is_counted());
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        watcher.set_counted(true);
        assert_eq!(event_loop().counts().active, 1);
        let calls = log.clone();
        watcher
            .start(move |watcher, ()| {
                calls.push(());
                watcher.stop();
            })
            .unwrap();
        let other = std::thread::spawn(|| kill(getpid(), Number::SIGUSR1).unwrap());
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 1);
        other.join().unwrap();
    });
}

#[test]
fn a_signal_that_has_come_is_delivered_before_the_loop_ends() {
    alone("a_signal_that_has_come_is_delivered_before_the_loop_ends", || {
        let (watcher, log) = logged(FIRST);
        raise(Number::SIGUSR1).unwrap();
        assert!(!watcher.is_counted() && !event_loop().run(Run::UntilIdle).unwrap());
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn a_callback_stops_and_drops_signal_watchers() {
    alone("a_callback_stops_and_drops_signal_watchers", || {
        let own: Rc<RefCell<Vec<Signal>>> = Rc::default();
        let log = Log::new();
        for _ in 0..3 {
            let (watcher, slot, calls) = (event_loop().signal(FIRST).unwrap(), Rc::clone(&own), log.clone());
            watcher
                .start(move |watcher, ()| {
                    calls.push(());
                    watcher.stop();
                    drop(slot.take());
                })
                .unwrap();
            own.borrow_mut().push(watcher);
        }
        let (_last, told) = logged(FIRST);
        raise(Number::SIGUSR1).unwrap();
        until(|| told.len() == 1);
        assert_eq!(log.len(), 1, "the others were closed while they were pending");
    });
}

#[test]
fn a_signal_between_two_starts_is_not_delivered() {
    alone("a_signal_between_two_starts_is_not_delivered", || {
        let (watcher, log) = logged(FIRST);
        watcher.stop();
        raise(Number::SIGUSR1).unwrap();
        settle();
        watcher.resume().unwrap();
        settle();
        assert_eq!(log.len(), 0);
        raise(Number::SIGUSR1).unwrap();
        until(|| log.len() == 1);
    });
}

#[test]
fn a_kill_ends_a_wait_for_a_signal() {
    alone("a_kill_ends_a_wait_for_a_signal", || {
        let watcher = Rc::new(event_loop().signal(FIRST).unwrap());
        let waited = Rc::clone(&watcher);
        let waiting = spawn(move || waited.wait(None));
        yield_now();
        assert!(watcher.is_active());
        waiting.kill();
        assert!(!watcher.is_active());
    });
}

#[test]
fn a_storm_of_signals_loses_no_kind() {
    alone("a_storm_of_signals_loses_no_kind", || {
        let (first, second) = (logged(FIRST), logged(SECOND));
        let other = std::thread::spawn(|| {
            for number in 0..100_000 {
                raise(if number == 50_000 { Number::SIGUSR2 } else { Number::SIGUSR1 }).unwrap();
            }
        });
        until(|| other.is_finished() && second.1.len() == 1);
        other.join().unwrap();
        let before = first.1.len();
        assert!(before > 0);
        raise(Number::SIGUSR1).unwrap();
        until(|| first.1.len() > before);
        settle();
        assert_eq!(second.1.len(), 1);
    });
}

#[test]
fn a_delivered_signal_allocates_nothing() {
    alone("a_delivered_signal_allocates_nothing", || {
        let (watcher, log) = logged(FIRST);
        watcher.set_counted(true);
        log.0.borrow_mut().reserve(1000);
        let count = |turns: usize| {
            let before = allocations();
            for _ in 0..turns {
                raise(Number::SIGUSR1).unwrap();
                get_hub().run_once(None).unwrap();
            }
            allocations() - before
        };
        count(10);
        assert_eq!(count(100), 0);
        assert_eq!(log.len(), 110);
    });
}

#[test]
fn signal_watchers_leave_no_descriptor_behind() {
    alone("signal_watchers_leave_no_descriptor_behind", || {
        event_loop().timer(SHORT).wait(None).unwrap();
        let before = open_descriptors();
        for _ in 0..10 {
            let watchers = [logged(FIRST), logged(FIRST), logged(SECOND)];
            raise(Number::SIGUSR2).unwrap();
            until(|| watchers[2].1.len() == 1);
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_signal_reaches_the_watchers_of_its_own_process_only() {
    in_child(|| {
        let (watcher, log) = logged(FIRST);
        sleep(SHORT);
        let child = forked(|| {
            raise(Number::SIGUSR1).unwrap(); // the loop of the child has not run yet
            until(|| log.len() == 1);
            raise(Number::SIGUSR1).unwrap();
            until(|| log.len() == 2);
        });
        ends_well(child);
        assert_eq!(log.len(), 0);
        raise(Number::SIGUSR1).unwrap();
        until(|| log.len() == 1);
        drop(watcher);
    });
}

#[test]
fn a_signal_handler_runs_in_a_green_thread_of_its_own_and_may_block() {
    alone("a_signal_handler_runs_in_a_green_thread_of_its_own_and_may_block", || {
        let log = Log::new();
        let calls = log.clone();
        let handler = on_signal(FIRST, move || {
            calls.push("begins");
            sleep(20 * SHORT);
            calls.push("ends");
        })
        .unwrap();
        raise(Number::SIGUSR1).unwrap();
        until(|| log.len() == 1);
        raise(Number::SIGUSR1).unwrap(); // the first call still runs, or has just ended
        until(|| log.len() == 4);
        handler.cancel();
        handler.cancel();
        raise(Number::SIGUSR1).unwrap();
        settle();
        assert_eq!(log.take().iter().filter(|entry| **entry == "begins").count(), 2);
    });
}

#[test]
fn a_signal_handler_stays_after_a_panic_and_goes_with_its_value() {
    alone("a_signal_handler_stays_after_a_panic_and_goes_with_its_value", || {
        hub_exceptions(false);
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let handler = on_signal(FIRST, move || {
            count.set(count.get() + 1);
            quiet_panic("the handler")
        })
        .unwrap();
        for round in 1..=3 {
            raise(Number::SIGUSR1).unwrap();
            until(|| calls.get() == round);
        }
        drop(handler);
        assert_eq!(Rc::strong_count(&calls), 1, "the closure is dropped");
        raise(Number::SIGUSR1).unwrap();
        settle();
        assert_eq!(calls.get(), 3);
    });
}
