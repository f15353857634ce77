//! Callbacks that do not keep the loop alive, and the wait for the end of all work.

use std::cell::Cell;
use std::io::{Write, pipe};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::main_loop::deadlock;
use crate::support::fork::in_fork;
use crate::support::run;
use greenhub::hub::{LoopErrorKind, Phase};
use greenhub::sync::Event;
use greenhub::{GreenError, Interest, get_hub, sleep, spawn, spawn_after, trampoline, with_timeout};

const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn an_uncounted_timer_does_not_keep_the_loop_alive() {
    run("an_uncounted_timer_does_not_keep_the_loop_alive", || {
        let timer = get_hub().schedule_once(LONG, || ());
        assert!(!get_hub().join(SHORT).unwrap());
        timer.set_counted(false);
        assert!(get_hub().join(LONG).unwrap());
        timer.set_counted(true);
        assert!(!get_hub().join(SHORT).unwrap());
    });
}

#[test]
fn an_uncounted_timer_fires_at_its_time() {
    run("an_uncounted_timer_fires_at_its_time", || {
        let fired = Rc::new(Cell::new(false));
        let fires = Rc::clone(&fired);
        get_hub().schedule_once(SHORT, move || fires.set(true)).set_counted(false);
        sleep(Duration::from_millis(20));
        assert!(fired.get());
    });
}

#[test]
fn an_uncounted_listener_does_not_keep_the_loop_alive() {
    run("an_uncounted_listener_does_not_keep_the_loop_alive", || {
        let (reader, _writer) = pipe().unwrap();
        let registration = get_hub().listen(reader, Interest::READ, |_| ()).unwrap();
        assert!(!get_hub().join(SHORT).unwrap());
        registration.set_counted(false);
        assert!(get_hub().join(LONG).unwrap());
        registration.set_counted(true);
        assert!(!get_hub().join(SHORT).unwrap());
    });
}

#[test]
fn an_uncounted_listener_is_called() {
    run("an_uncounted_listener_is_called", || {
        let (reader, mut writer) = pipe().unwrap();
        let called = Rc::new(Cell::new(false));
        let calls = Rc::clone(&called);
        let registration = get_hub().listen(reader, Interest::READ, move |_| calls.set(true)).unwrap();
        registration.set_counted(false);
        writer.write_all(b"x").unwrap();
        sleep(SHORT);
        assert!(called.get());
    });
}

#[test]
fn a_green_thread_beside_an_uncounted_listener_keeps_the_loop_alive() {
    run("a_green_thread_beside_an_uncounted_listener_keeps_the_loop_alive", || {
        let (first, second) = (pipe().unwrap(), pipe().unwrap());
        get_hub()
            .listen(first.0, Interest::READ, |_| ())
            .map(|registration| {
                registration.set_counted(false);
                std::mem::forget(registration);
            })
            .unwrap();
        let reader = second.0;
        let waiting = spawn(move || trampoline(&reader, Interest::READ, None));
        assert!(!get_hub().join(SHORT).unwrap());
        waiting.kill();
        assert!(get_hub().join(LONG).unwrap());
    });
}

#[test]
fn counting_the_same_callback_twice_changes_nothing() {
    run("counting_the_same_callback_twice_changes_nothing", || {
        let timers = [get_hub().schedule_once(LONG, || ()), get_hub().schedule_once(LONG, || ())];
        for counted in [false, false, true, true, false] {
            timers[0].set_counted(counted);
        }
        assert!(!get_hub().join(SHORT).unwrap(), "the other one counts");
        timers[1].set_counted(false);
        assert!(get_hub().join(LONG).unwrap());
        assert!(timers[0].cancel() && timers[1].cancel());
        let counted = get_hub().schedule_once(LONG, || ());
        assert!(!get_hub().join(SHORT).unwrap(), "cancelled timers are subtracted no more");
        counted.cancel();
    });
}

#[test]
fn main_gets_loop_exit_beside_uncounted_callbacks() {
    run("main_gets_loop_exit_beside_uncounted_callbacks", || {
        let (reader, _writer) = pipe().unwrap();
        get_hub().schedule_once(LONG, || ()).set_counted(false);
        let registration = get_hub().listen(reader, Interest::READ, |_| ()).unwrap();
        registration.set_counted(false);
        let [left, _right] = deadlock();
        let waited = left.wait();
        assert!(matches!(waited, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::LoopExit));
    });
}

#[test]
fn main_gets_loop_exit_of_an_outside_wait_beside_an_idle_hook() {
    in_fork(|| {
        let hub = get_hub();
        let ran = Rc::new(Cell::new(0));
        let runs = Rc::clone(&ran);
        let hook = hub.hook(Phase::Idle, move || runs.set(runs.get() + 1));
        // Only an OS thread could set it, and there is no other one.
        let waited = Event::<()>::new().wait();
        assert!(matches!(waited, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::LoopExit));
        assert!(ran.get() > 1);
        hook.set_counted(true);
        let event = Rc::new(Event::new());
        let sender = Rc::clone(&event);
        let send = move || _ = sender.send("by a timer that does not keep the loop alive");
        hub.schedule_once(Duration::from_millis(1500), send).set_counted(false);
        assert!(event.wait().is_ok(), "the counted hook keeps the loop alive");
    });
}

#[test]
fn the_time_of_a_counted_timer_is_no_standstill() {
    in_fork(|| {
        let (lasts, begin) = (Duration::from_millis(1500), Instant::now());
        let armed = Cell::new(false);
        let hub = get_hub();
        let _hook = hub.hook(Phase::Idle, move || {
            if !armed.replace(true) {
                get_hub().schedule_once(lasts, || ());
            }
        });
        let waited = Event::<()>::new().wait();
        assert!(matches!(waited, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::LoopExit));
        assert!(begin.elapsed() >= lasts + Duration::from_secs(1), "{:?}", begin.elapsed());
    });
}

#[test]
fn a_counted_hook_keeps_the_loop_alive() {
    run("a_counted_hook_keeps_the_loop_alive", || {
        let hook = get_hub().hook(Phase::Prepare, || ());
        assert!(get_hub().join(LONG).unwrap());
        hook.set_counted(true);
        assert!(!get_hub().join(SHORT).unwrap());
        drop(hook);
        assert!(get_hub().join(LONG).unwrap());
    });
}

#[test]
fn join_returns_when_all_green_threads_have_ended() {
    run("join_returns_when_all_green_threads_have_ended", || {
        let ended = Rc::new(Cell::new(0));
        for delay in [0, 1, 5] {
            let ended = Rc::clone(&ended);
            spawn_after(Duration::from_millis(delay), move || ended.set(ended.get() + 1));
        }
        assert!(get_hub().join(None).unwrap());
        assert_eq!(ended.get(), 3);
    });
}

#[test]
fn join_does_not_wait_for_green_threads_that_nothing_can_wake() {
    run("join_does_not_wait_for_green_threads_that_nothing_can_wake", || {
        let green = spawn(|| greenhub::sync::Event::<()>::new().wait());
        let parked = spawn(wait_for_own_message);
        assert!(get_hub().join(LONG).unwrap());
        assert!(!green.is_finished());
        green.kill();
        parked.kill();
    });
}

/// Waits for a message that only the caller itself could send.
fn wait_for_own_message() {
    let (sender, receiver) = greenhub::sync::mpsc::channel::<()>();
    let _sender = sender;
    let _ = receiver.recv();
}

#[test]
fn the_limit_of_join_cancels_nothing_and_leaves_no_timer() {
    run("the_limit_of_join_cancels_nothing_and_leaves_no_timer", || {
        let green = spawn(|| sleep(Duration::from_millis(30)));
        assert!(!get_hub().join(SHORT).unwrap());
        assert!(!green.is_finished());
        green.join().unwrap();
        assert!(get_hub().join(LONG).unwrap());
        assert_eq!(get_hub().stats().timers, 0);
    });
}

#[test]
fn a_timeout_around_join_leaves_no_wait_behind() {
    run("a_timeout_around_join_leaves_no_wait_behind", || {
        let green = spawn(|| sleep(LONG));
        let timed_out = with_timeout(SHORT, || get_hub().join(None));
        assert!(timed_out.is_err());
        green.kill();
        assert_eq!(get_hub().stats().timers, 0);
        assert!(get_hub().join(None).unwrap());
    });
}

#[test]
fn join_belongs_to_the_main_greenlet() {
    run("join_belongs_to_the_main_greenlet", || {
        let refused = spawn(|| get_hub().join(None).unwrap_err().kind());
        assert_eq!(refused.join().unwrap(), LoopErrorKind::InMainloop);
    });
}

#[test]
fn join_returns_the_error_that_the_loop_has_for_main() {
    run("join_returns_the_error_that_the_loop_has_for_main", || {
        get_hub().schedule_once(SHORT, || get_hub().fail("the disk is full"));
        let error = get_hub().join(None).unwrap_err();
        assert_eq!(error.kind(), LoopErrorKind::System);
        assert_eq!(error.system_error().unwrap().to_string(), "the disk is full");
    });
}

#[test]
fn a_timer_for_an_instant_fires_at_it() {
    run("a_timer_for_an_instant_fires_at_it", || {
        let hub = get_hub();
        let fired = Rc::new(Cell::new(None));
        let fires = Rc::clone(&fired);
        let due = hub.now() + Duration::from_millis(5);
        hub.schedule_at(due, move || fires.set(Some(get_hub().now())));
        let past = Rc::new(Cell::new(false));
        let passes = Rc::clone(&past);
        hub.schedule_at(hub.now(), move || passes.set(true));
        greenhub::thread::yield_now();
        assert!(past.get() && fired.get().is_none());
        sleep(Duration::from_millis(20));
        assert!(fired.get().is_some_and(|at| at >= due));
    });
}

#[test]
fn the_cached_time_stands_still_within_a_turn() {
    run("the_cached_time_stands_still_within_a_turn", || {
        let hub = get_hub();
        sleep(SHORT);
        let cached = hub.cached_now();
        std::thread::sleep(SHORT);
        assert_eq!(hub.cached_now(), cached);
        assert!(hub.now() > cached);
        assert!(hub.cached_now() > cached, "the sample of `now` is the last one");
    });
}
