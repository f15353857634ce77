//! Watchers of time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::quiet_panic;
use crate::support::{alone, run};
use crate::{LONG, Log, SHORT, unexpected};
use greenhub::debug::hub_exceptions;
use greenhub::gevent::{Priority, Run, Timer, Watcher, WatcherError, event_loop};
use greenhub::hub::Time;
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn};

#[test]
fn a_timer_without_a_period_is_called_once() {
    run("a_timer_without_a_period_is_called_once", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = event_loop().timer(SHORT);
        timer.start(move |timer, ()| calls.push(timer.is_active())).unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), [false], "it has stopped before the call");
    });
}

#[test]
fn a_timer_with_a_period_is_called_until_it_is_stopped() {
    run("a_timer_with_a_period_is_called_until_it_is_stopped", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = event_loop().repeating(SHORT, SHORT);
        timer
            .start(move |timer, ()| {
                calls.push(());
                if calls.len() == 5 {
                    timer.stop();
                }
            })
            .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 5);
    });
}

#[test]
fn a_period_does_not_drift_and_skips_what_was_missed() {
    run("a_period_does_not_drift_and_skips_what_was_missed", || {
        let every = Duration::from_millis(10);
        let log: Log<Time> = Log::new();
        let calls = log.clone();
        let start = get_hub().now();
        let timer = event_loop().repeating(every, every);
        timer
            .start(move |timer, ()| {
                calls.push(get_hub().now());
                match calls.len() {
                    // Two and a half periods pass in the callback.
                    1 => std::thread::sleep(Duration::from_millis(25)),
                    3 => timer.stop(),
                    _ => {}
                }
            })
            .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        let times = log.take();
        // The first call is due after one period and the callback ends after three and a half, so the next one is due
        // after two periods, and comes late; the one after it is due at a whole number of periods again.
        assert_eq!(times.len(), 3);
        assert!(times[0] - start >= every);
        assert!(times[2] - start >= 4 * every, "{times:?}");
    });
}

#[test]
fn a_callback_that_lasts_longer_than_its_period_starves_nobody() {
    run("a_callback_that_lasts_longer_than_its_period_starves_nobody", || {
        let timer = event_loop().repeating(SHORT, SHORT);
        timer.start(|_, ()| std::thread::sleep(3 * SHORT)).unwrap();
        let green = greenhub::spawn(|| (0..5).for_each(|_| sleep(SHORT)));
        green.join().unwrap();
        drop(timer);
    });
}

#[test]
fn a_repeating_timer_goes_on_after_a_panic() {
    alone("a_repeating_timer_goes_on_after_a_panic", || {
        hub_exceptions(false);
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let timer = event_loop().repeating(SHORT, SHORT);
        timer
            .start(move |timer, ()| {
                count.set(count.get() + 1);
                if count.get() == 3 {
                    timer.stop();
                }
                quiet_panic("the callback");
            })
            .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(calls.get(), 3);
    });
}

#[test]
fn again_starts_a_timer_with_its_period() {
    run("again_starts_a_timer_with_its_period", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = event_loop().repeating(crate::LONG, SHORT);
        timer
            .again(move |timer, ()| {
                calls.push(());
                timer.stop();
            })
            .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn again_puts_off_a_timer_that_is_active() {
    run("again_puts_off_a_timer_that_is_active", || {
        let timer = event_loop().repeating(SHORT, crate::LONG);
        timer.start(|_, ()| unexpected("it was put off")).unwrap();
        timer.again(|_, ()| unexpected("it was put off")).unwrap();
        sleep(5 * SHORT);
        assert!(timer.is_active());
        assert_eq!(get_hub().stats().timers, 1);
    });
}

#[test]
fn again_stops_a_timer_without_a_period() {
    run("again_stops_a_timer_without_a_period", || {
        let timer = event_loop().timer(SHORT);
        timer.again(|_, ()| unexpected("it has no period")).unwrap();
        assert!(!timer.is_active());
        timer.start(|_, ()| unexpected("it was stopped")).unwrap();
        timer.again(|_, ()| unexpected("it has no period")).unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
    });
}

#[test]
fn a_change_of_the_period_takes_effect_with_the_next_call() {
    run("a_change_of_the_period_takes_effect_with_the_next_call", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = event_loop().repeating(SHORT, SHORT);
        timer
            .start(move |timer, ()| {
                calls.push(());
                timer.set_every(Duration::ZERO);
            })
            .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert!(log.len() <= 2, "it has stopped");
        assert_eq!(timer.every(), Duration::ZERO);
    });
}

#[test]
fn a_timer_is_measured_from_its_start_not_from_the_turn() {
    run("a_timer_is_measured_from_its_start_not_from_the_turn", || {
        sleep(SHORT);
        let before = event_loop().now();
        std::thread::sleep(20 * SHORT);
        assert_eq!(event_loop().now(), before, "the time of the turn");
        let timer = event_loop().timer(10 * SHORT);
        let started = get_hub().now();
        timer.wait(None).unwrap();
        assert!(get_hub().now() - started >= 10 * SHORT);
        assert!(event_loop().update_now() > before);
    });
}

#[test]
fn a_timer_that_a_green_thread_waits_for_is_not_begun_again() {
    run("a_timer_that_a_green_thread_waits_for_is_not_begun_again", || {
        let timer = Rc::new(event_loop().repeating(SHORT, LONG));
        let waited = Rc::clone(&timer);
        let waiting = spawn(move || waited.wait(None));
        yield_now();
        let refused = timer.again(|_, ()| unexpected("the wait gets the event")).unwrap_err();
        assert!(matches!(refused, WatcherError::Waited), "{refused}");
        waiting.join().unwrap().unwrap();
        assert!(!timer.is_active());
    });
}

/// Calls `f` in the turn in which `timer` has expired, before its callback is called.
fn between_expiry_and_call(timer: &Rc<Timer>, f: impl FnOnce(&Timer) + 'static) {
    let (check, timer, mut f) = (event_loop().check(), Rc::clone(timer), Some(f));
    check.set_priority(Priority::Highest).unwrap();
    let has_called = Rc::new(Cell::new(false));
    let called = Rc::clone(&has_called);
    check
        .start(move |check, ()| {
            if timer.is_pending() {
                f.take().into_iter().for_each(|f| f(&timer));
                called.set(true);
                check.stop();
            }
        })
        .unwrap();
    while !has_called.get() {
        sleep(SHORT);
    }
}

#[test]
fn again_puts_off_a_call_that_is_pending() {
    run("again_puts_off_a_call_that_is_pending", || {
        for restarts in [false, true] {
            let timer = Rc::new(event_loop().repeating(SHORT, crate::LONG));
            timer.start(|_, ()| unexpected("it was put off")).unwrap();
            between_expiry_and_call(&timer, move |timer| {
                if restarts {
                    timer.restart().unwrap();
                } else {
                    timer.again(|_, ()| unexpected("it was put off")).unwrap();
                }
            });
            sleep(SHORT);
            assert!(timer.is_active() && !timer.is_pending());
        }
    });
}

#[test]
fn a_period_that_is_set_before_the_pending_call_keeps_the_timer_going() {
    run("a_period_that_is_set_before_the_pending_call_keeps_the_timer_going", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = Rc::new(event_loop().timer(SHORT));
        timer.start(move |_, ()| calls.push(())).unwrap();
        between_expiry_and_call(&timer, |timer| timer.set_every(SHORT));
        while log.len() < 3 {
            sleep(SHORT);
        }
        assert!(timer.is_active());
        assert_eq!(get_hub().stats().timers, 1);
    });
}

#[test]
fn a_restart_keeps_the_callback() {
    run("a_restart_keeps_the_callback", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = event_loop().repeating(crate::LONG, SHORT);
        assert!(matches!(timer.restart(), Err(WatcherError::NoCallback)));
        timer
            .start(move |timer, ()| {
                calls.push(());
                timer.stop();
            })
            .unwrap();
        timer.restart().unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        timer.restart().unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 2);
        timer.set_every(Duration::ZERO);
        timer.resume().unwrap();
        timer.restart().unwrap();
        assert!(!timer.is_active(), "a timer without a period stops");
    });
}

#[test]
fn an_event_of_the_program_leaves_a_timer_armed() {
    run("an_event_of_the_program_leaves_a_timer_armed", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = event_loop().timer(5 * SHORT);
        timer.start(move |_, ()| calls.push(())).unwrap();
        timer.feed(());
        while timer.is_active() {
            sleep(SHORT);
        }
        assert_eq!(log.len(), 2);
    });
}

#[test]
fn each_call_is_due_a_whole_number_of_periods_after_the_first() {
    run("each_call_is_due_a_whole_number_of_periods_after_the_first", || {
        let every = 2 * SHORT;
        let log: Log<Time> = Log::new();
        let dues = log.clone();
        let timer = event_loop().repeating(every, every);
        timer
            .start(move |timer, ()| {
                dues.push(get_hub().next_deadline().unwrap());
                std::thread::sleep(SHORT);
                if dues.len() == 10 {
                    timer.stop();
                }
            })
            .unwrap();
        let first = get_hub().next_deadline().unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert!(log.take().into_iter().all(|due| (due - first).as_nanos().is_multiple_of(every.as_nanos())));
    });
}
