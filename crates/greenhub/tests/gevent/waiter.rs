//! A value that is handed to one green thread.

use std::rc::Rc;
use std::time::Duration;

use crate::support::run;
use crate::{LONG, Log, SHORT};
use greenhub::gevent::{WaitError, Waiter, Watcher, event_loop};
use greenhub::hub::LoopErrorKind;
use greenhub::thread::yield_now;
use greenhub::{GreenError, get_hub, spawn, with_timeout};

#[test]
fn a_value_that_comes_before_the_get_is_kept() {
    run("a_value_that_comes_before_the_get_is_kept", || {
        let waiter = Waiter::new();
        waiter.switch(7);
        assert!(waiter.is_ready() && waiter.is_successful());
        assert_eq!(waiter.get().unwrap(), 7);
        assert!(!waiter.is_ready(), "the value was taken");
    });
}

#[test]
fn an_error_that_comes_before_the_get_is_kept() {
    run("an_error_that_comes_before_the_get_is_kept", || {
        let waiter: Waiter<()> = Waiter::new();
        waiter.throw(GreenError::custom("thrown here"));
        assert!(waiter.is_ready() && !waiter.is_successful());
        let error = waiter.get().unwrap_err();
        assert!(matches!(&error, WaitError::Cancelled(error) if error.to_string() == "thrown here"), "{error}");
    });
}

#[test]
fn a_cleared_waiter_is_not_ready() {
    run("a_cleared_waiter_is_not_ready", || {
        let waiter = Waiter::new();
        waiter.switch(1);
        waiter.clear();
        assert!(!waiter.is_ready());
        waiter.switch(2);
        waiter.switch(3);
        assert_eq!(waiter.get().unwrap(), 3, "the last value counts");
    });
}

#[test]
fn a_second_get_is_refused_at_once_and_the_first_goes_on() {
    run("a_second_get_is_refused_at_once_and_the_first_goes_on", || {
        let waiter = Rc::new(Waiter::new());
        let first = Rc::clone(&waiter);
        let waiting = spawn(move || first.get());
        yield_now();
        assert!(matches!(waiter.get(), Err(WaitError::ConcurrentUse)));
        waiter.switch(7);
        assert_eq!(waiting.join().unwrap().unwrap(), 7);
    });
}

#[test]
fn a_switch_wakes_without_switching() {
    run("a_switch_wakes_without_switching", || {
        let log = Log::new();
        for sends_in_a_callback in [false, true] {
            let waiter = Rc::new(Waiter::new());
            let (getter, got) = (Rc::clone(&waiter), log.clone());
            let waiting = spawn(move || got.push(getter.get().unwrap()));
            yield_now();
            let sent = log.clone();
            let send = move || {
                waiter.switch("got");
                sent.push("sent");
            };
            if sends_in_a_callback {
                event_loop().run_callback(send);
            } else {
                spawn(send).join().unwrap();
            }
            waiting.join().unwrap();
            assert_eq!(log.take(), ["sent", "got"]);
        }
    });
}

#[test]
fn a_throw_ends_the_get_with_the_error() {
    run("a_throw_ends_the_get_with_the_error", || {
        let waiter: Rc<Waiter<()>> = Rc::default();
        let getter = Rc::clone(&waiter);
        let waiting = spawn(move || getter.get());
        yield_now();
        waiter.throw(GreenError::custom("thrown here"));
        assert_eq!(waiting.join().unwrap().unwrap_err().to_string(), "the wait was cancelled: thrown here");
    });
}

#[test]
fn a_killed_getter_leaves_the_waiter_free() {
    run("a_killed_getter_leaves_the_waiter_free", || {
        let waiter = Rc::new(Waiter::new());
        let getter = Rc::clone(&waiter);
        let waiting = spawn(move || getter.get());
        yield_now();
        waiting.kill();
        assert!(with_timeout(SHORT, || waiter.get()).is_err());
        waiter.switch(7);
        assert_eq!(waiter.get().unwrap(), 7);
    });
}

#[test]
fn a_value_that_a_killed_getter_did_not_take_is_kept() {
    run("a_value_that_a_killed_getter_did_not_take_is_kept", || {
        let waiter = Rc::new(Waiter::new());
        let getter = Rc::clone(&waiter);
        let waiting = spawn(move || drop(getter.get().map(|_: i32| greenhub::sleep(LONG))));
        yield_now();
        waiter.switch(7);
        assert!(!waiting.is_finished());
        // The value was handed over before the kill, so the getter takes it, and the kill strikes at its next wait.
        waiting.kill();
        assert!(!waiter.is_ready() || waiter.get().unwrap() == 7);
    });
}

#[test]
fn a_panic_of_the_getter_does_not_reach_the_switch() {
    run("a_panic_of_the_getter_does_not_reach_the_switch", || {
        let waiter = Rc::new(Waiter::new());
        let getter = Rc::clone(&waiter);
        let waiting = spawn(move || crate::support::green::quiet_panic(getter.get().unwrap()));
        yield_now();
        waiter.switch("after the switch");
        assert!(waiting.join().unwrap_err().to_string().contains("after the switch"));
    });
}

#[test]
fn a_get_on_the_main_loop_is_refused() {
    run("a_get_on_the_main_loop_is_refused", || {
        let log = Log::new();
        let outcomes = log.clone();
        event_loop().run_callback(move || {
            let waiter: Waiter<()> = Waiter::new();
            let refused =
                matches!(waiter.get(), Err(WaitError::Loop(error)) if error.kind() == LoopErrorKind::InMainloop);
            outcomes.push(refused);
        });
        event_loop().timer(SHORT).wait(None).unwrap();
        assert_eq!(log.take(), [true]);
    });
}

#[test]
fn the_debug_text_shows_the_wait_the_value_or_the_error() {
    run("the_debug_text_shows_the_wait_the_value_or_the_error", || {
        let waiter = Rc::new(Waiter::new());
        assert_eq!(format!("{waiter:?}"), "Waiter { waiting: false }");
        let getter = Rc::clone(&waiter);
        let waiting = spawn(move || getter.get());
        yield_now();
        assert_eq!(format!("{waiter:?}"), "Waiter { waiting: true }");
        waiter.switch(7);
        assert_eq!(format!("{waiter:?}"), "Waiter { waiting: true, value: 7 }");
        assert_eq!(waiting.join().unwrap().unwrap(), 7);
        waiter.throw(GreenError::Kill);
        assert_eq!(format!("{waiter:?}"), "Waiter { waiting: false, error: Kill }");
        waiter.clear();
        get_hub().schedule_once(Duration::ZERO, || ());
    });
}
