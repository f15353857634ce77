//! Green threads that wait for watchers.

use std::io::{Write, pipe};
use std::rc::Rc;
use std::time::Duration;

use crate::support::run;
use crate::{LONG, Log, SHORT};
use greenhub::gevent::{Priority, Run, WaitError, Watcher, WatcherError, event_loop, iwait};
use greenhub::hub::{LoopErrorKind, Readiness};
use greenhub::thread::yield_now;
use greenhub::{GreenError, Interest, get_hub, sleep, spawn, with_timeout};

fn error(text: &str) -> GreenError {
    GreenError::Panic(greenhub::greenthread::Panic::new(Box::new(text.to_owned())))
}

#[test]
fn a_wait_returns_the_event_and_stops_the_watcher() {
    run("a_wait_returns_the_event_and_stops_the_watcher", || {
        let (reader, mut writer) = pipe().unwrap();
        let io = Rc::new(event_loop().io(reader, Interest::READ).unwrap());
        let watcher = Rc::clone(&io);
        let waiting = spawn(move || watcher.wait(None));
        yield_now();
        assert!(io.is_active());
        writer.write_all(b"x").unwrap();
        assert!(waiting.join().unwrap().unwrap().contains(Readiness::READ));
        assert!(!io.is_active());
    });
}

#[test]
fn a_second_wait_is_refused_at_once_and_the_first_goes_on() {
    run("a_second_wait_is_refused_at_once_and_the_first_goes_on", || {
        let timer = Rc::new(event_loop().timer(5 * SHORT));
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || watcher.wait(None));
        yield_now();
        assert!(matches!(timer.wait(None), Err(WaitError::ConcurrentUse)));
        assert!(timer.start(|_, ()| ()).is_err());
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_wait_for_a_watcher_with_a_callback_is_refused() {
    run("a_wait_for_a_watcher_with_a_callback_is_refused", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = event_loop().timer(SHORT);
        timer.start(move |_, ()| calls.push(())).unwrap();
        assert!(matches!(timer.wait(None), Err(WaitError::ConcurrentUse)));
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn a_wait_ends_at_its_limit() {
    run("a_wait_ends_at_its_limit", || {
        let timer = event_loop().timer(LONG);
        assert!(matches!(timer.wait(SHORT), Err(WaitError::TimedOut)));
        assert!(!timer.is_active());
        assert_eq!(get_hub().stats().timers, 0);
    });
}

#[test]
fn a_timeout_and_a_kill_stop_the_watcher() {
    run("a_timeout_and_a_kill_stop_the_watcher", || {
        let timer = Rc::new(event_loop().timer(LONG));
        assert!(with_timeout(SHORT, || timer.wait(None)).is_err());
        assert!(!timer.is_active());
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || watcher.wait(None));
        yield_now();
        waiting.kill();
        assert!(!timer.is_active());
        assert_eq!(get_hub().stats().timers, 0);
        assert_eq!(event_loop().counts().active, 0);
    });
}

#[test]
fn a_cancelled_wait_gets_the_error_in_a_later_turn() {
    run("a_cancelled_wait_gets_the_error_in_a_later_turn", || {
        let log = Log::new();
        let timer = Rc::new(event_loop().timer(LONG));
        let (watcher, outcomes) = (Rc::clone(&timer), log.clone());
        let waiting = spawn(move || outcomes.push(watcher.wait(None).unwrap_err().to_string()));
        yield_now();
        assert!(timer.cancel_wait(error("cancelled here")));
        log.push("returned".to_owned());
        waiting.join().unwrap();
        let log = log.take();
        assert!(log[0] == "returned" && log[1].contains("cancelled here"), "{log:?}");
    });
}

#[test]
fn a_cancellation_without_a_waiter_does_nothing() {
    run("a_cancellation_without_a_waiter_does_nothing", || {
        let timer = event_loop().timer(SHORT);
        assert!(!timer.cancel_wait(error("nobody waits")));
        timer.wait(None).unwrap();
    });
}

#[test]
fn a_wait_that_has_ended_is_not_cancelled() {
    run("a_wait_that_has_ended_is_not_cancelled", || {
        let timer = Rc::new(event_loop().timer(LONG));
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || watcher.wait(None));
        yield_now();
        timer.cancel_wait(error("the first"));
        timer.cancel_wait(error("the second"));
        let outcome = waiting.join().unwrap().unwrap_err().to_string();
        assert!(outcome.contains("the first"), "{outcome}");
        // The second one finds another wait, and leaves it alone.
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || watcher.wait(5 * SHORT));
        assert!(matches!(waiting.join().unwrap(), Err(WaitError::TimedOut)));
    });
}

#[test]
fn a_cancellation_comes_before_a_deadline_that_the_loop_has_not_seen() {
    run("a_cancellation_comes_before_a_deadline_that_the_loop_has_not_seen", || {
        let timer = Rc::new(event_loop().timer(SHORT));
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || watcher.wait(None));
        yield_now();
        std::thread::sleep(5 * SHORT);
        timer.cancel_wait(error("cancelled here"));
        let outcome = waiting.join().unwrap();
        assert!(matches!(outcome, Err(WaitError::Cancelled(_))), "{outcome:?}");
    });
}

#[test]
fn a_close_ends_the_wait_with_an_error() {
    run("a_close_ends_the_wait_with_an_error", || {
        let timer = Rc::new(event_loop().timer(LONG));
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || watcher.wait(None));
        yield_now();
        timer.close();
        assert!(!waiting.is_finished(), "the close does not switch");
        assert!(matches!(waiting.join().unwrap(), Err(WaitError::Closed)));
    });
}

#[test]
fn a_wait_in_a_callback_is_refused() {
    run("a_wait_in_a_callback_is_refused", || {
        let log = Log::new();
        let outcomes = log.clone();
        let timer = event_loop().timer(SHORT);
        timer
            .start(move |_, ()| {
                let outcome = event_loop().timer(SHORT).wait(None);
                outcomes
                    .push(matches!(outcome, Err(WaitError::Loop(error)) if error.kind() == LoopErrorKind::InMainloop));
            })
            .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), [true]);
    });
}

#[test]
fn an_abort_ends_the_wait_of_main() {
    run("an_abort_ends_the_wait_of_main", || {
        let timer = event_loop().timer(LONG);
        get_hub().schedule_once(Duration::ZERO, || get_hub().abort());
        assert!(matches!(timer.wait(None), Err(WaitError::Loop(_))));
        assert!(!timer.is_active());
        sleep(SHORT);
    });
}

#[test]
fn green_threads_that_wait_are_told_that_their_hub_is_gone() {
    run("green_threads_that_wait_are_told_that_their_hub_is_gone", || {
        let timer = Rc::new(event_loop().timer(LONG));
        let other = Rc::new(event_loop().timer(LONG));
        let (waits, waits_for_both) = (Rc::clone(&timer), Rc::clone(&other));
        let one = spawn(move || waits.wait(None));
        let both = spawn(move || iwait([&*waits_for_both], None).next().map(|ready| ready.is_ok()));
        yield_now();
        greenhub::use_hub(get_hub().name()).unwrap();
        let outcome = one.join().unwrap();
        assert!(matches!(outcome, Err(WaitError::Watcher(WatcherError::HubDestroyed))), "{outcome:?}");
        assert_eq!(both.join().unwrap(), Some(true));
        assert!(matches!(other.start(|_, ()| ()), Err(WatcherError::HubDestroyed)));
    });
}

#[test]
fn a_stop_ends_the_wait_with_an_error() {
    run("a_stop_ends_the_wait_with_an_error", || {
        let timer = Rc::new(event_loop().timer(LONG));
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || watcher.wait(None));
        yield_now();
        let refused = timer.start(|_, ()| ()).unwrap_err();
        assert!(matches!(refused, WatcherError::Waited), "{refused}");
        assert!(refused.to_string().contains("`stop`"), "{refused}");
        timer.stop();
        assert!(!timer.is_active() && !waiting.is_finished(), "the stop does not switch");
        assert!(matches!(waiting.join().unwrap(), Err(WaitError::Stopped)));
        timer.start(|_, ()| ()).unwrap();
    });
}

#[test]
fn a_stop_keeps_the_event_of_a_wait_that_was_served() {
    run("a_stop_keeps_the_event_of_a_wait_that_was_served", || {
        let timer = Rc::new(event_loop().timer(LONG));
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || watcher.wait(None));
        yield_now();
        // The check watcher is called after the event was delivered, in the same turn, before the waiter runs.
        let (check, stopped) = (event_loop().check(), Rc::clone(&timer));
        check.set_priority(Priority::Lowest).unwrap();
        check.start(move |_, ()| stopped.stop()).unwrap();
        timer.feed(());
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_stop_ends_a_wait_for_several_watchers() {
    run("a_stop_ends_a_wait_for_several_watchers", || {
        let timer = Rc::new(event_loop().timer(LONG));
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || iwait([&*watcher], None).next().map(|ready| ready.is_ok()));
        yield_now();
        timer.stop();
        assert_eq!(waiting.join().unwrap(), Some(true));
    });
}

#[test]
fn a_watcher_that_is_waited_for_takes_no_callback() {
    run("a_watcher_that_is_waited_for_takes_no_callback", || {
        let timer = Rc::new(event_loop().repeating(5 * SHORT, 5 * SHORT));
        timer.start(|_, ()| crate::unexpected("a green thread waits")).unwrap();
        timer.stop();
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || watcher.wait(None));
        yield_now();
        assert!(matches!(timer.resume(), Err(WatcherError::Waited)));
        assert!(matches!(timer.again(|_, ()| ()), Err(WatcherError::Waited)));
        waiting.join().unwrap().unwrap();
        timer.close();
        timer.set_every(Duration::ZERO);
        assert!(matches!(timer.again(|_, ()| ()), Err(WatcherError::Closed)));
    });
}

#[test]
fn the_error_of_a_wait_in_a_callback_names_the_watcher() {
    run("the_error_of_a_wait_in_a_callback_names_the_watcher", || {
        let log = Log::new();
        let errors = log.clone();
        event_loop().run_callback(move || errors.push(event_loop().timer(SHORT).wait(None).unwrap_err().to_string()));
        sleep(SHORT);
        let error = log.take().remove(0);
        assert!(error.contains("waiting for Timer { after: 1ms"), "{error}");
    });
}

#[test]
fn a_listing_names_what_each_green_thread_waits_for() {
    run("a_listing_names_what_each_green_thread_waits_for", || {
        let timer = event_loop().timer(LONG);
        let signal = event_loop().signal(nix::sys::signal::Signal::SIGUSR2 as i32).unwrap();
        let greens = [spawn(move || drop(timer.wait(None))), spawn(move || drop(signal.wait(None)))];
        yield_now();
        let listed: String = greenhub::debug::greenlets().iter().map(ToString::to_string).collect();
        assert!(listed.contains("waiting for a timer") && listed.contains("waiting for a signal"), "{listed}");
        greens.iter().for_each(|green| _ = green.kill());
    });
}
