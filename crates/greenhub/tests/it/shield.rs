//! Shields: the exits they hold back, the exits they let through, and when a held-back exit strikes.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support::counting;
use crate::support::green;
use crate::support::green::{LONG, Log, OnDrop, PARK_POINTS, SHORT};
use crate::support::{alone, run};
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::greenthread::KillOutcome;
use greenhub::hub::has_hub;
use greenhub::sync::{Event, mpsc};
use greenhub::thread::yield_now;
use greenhub::{GreenError, get_hub, scope, shield, sleep, spawn, with_timeout};

/// Longer than any exit of these tests takes to arrive.
const LATER: Duration = Duration::from_millis(20);

#[test]
fn a_shield_returns_the_result_of_its_closure() {
    run("a_shield_returns_the_result_of_its_closure", || {
        assert_eq!(shield(|| 7), 7);
        assert_eq!(shield(|| spawn(|| 8).join()).unwrap(), 8);
    });
}

#[test]
fn a_kill_strikes_at_the_first_wait_after_a_shield() {
    run("a_kill_strikes_at_the_first_wait_after_a_shield", || {
        let (log, event) = (Log::new(), Rc::new(Event::new()));
        let (own, waited) = (log.clone(), Rc::clone(&event));
        let green = spawn(move || {
            shield(|| {
                assert_eq!(waited.wait().unwrap(), 1);
                own.add("woken");
                yield_now();
            });
            own.add("after");
            yield_now();
            own.add("never");
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        for _ in 0..10 {
            yield_now();
        }
        assert!(!green.is_finished());
        log.is(&[]);
        event.send(1).unwrap();
        assert!(green.join().unwrap_err().is_kill());
        log.is(&["woken", "after"]);
    });
}

#[test]
fn a_kill_of_a_ready_green_thread_waits_for_its_shield() {
    run("a_kill_of_a_ready_green_thread_waits_for_its_shield", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            shield(|| {
                yield_now();
                own.add("in");
            });
            yield_now();
            own.add("never");
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert!(green.join().unwrap_err().is_kill());
        log.is(&["in"]);
    });
}

#[test]
fn a_self_kill_waits_for_the_shield() {
    run("a_self_kill_waits_for_the_shield", || {
        let log = Log::new();
        let own = log.clone();
        let me = Rc::new(RefCell::new(None::<greenhub::GreenThread<()>>));
        let handle = Rc::clone(&me);
        let green = spawn(move || {
            shield(|| {
                let killed = handle.borrow().as_ref().unwrap().kill();
                assert_eq!(killed, KillOutcome::Scheduled);
                yield_now();
                own.add("in");
            });
            yield_now();
            own.add("never");
        });
        me.replace(Some(green));
        yield_now();
        yield_now();
        assert!(me.take().unwrap().join().unwrap_err().is_kill());
        log.is(&["in"]);
    });
}

#[test]
fn every_wait_outlasts_a_kill_and_ends_with_a_timeout_of_its_own() {
    alone("every_wait_outlasts_a_kill_and_ends_with_a_timeout_of_its_own", || {
        for point in PARK_POINTS {
            let log = Log::new();
            let own = log.clone();
            let park = point.park;
            let green = spawn(move || {
                let begin = Instant::now();
                let struck = shield(|| with_timeout(LATER, park).is_err());
                own.add(if struck && begin.elapsed() >= LATER { "struck by its own" } else { "left early" });
                sleep(LONG);
            });
            yield_now();
            assert_eq!(green.kill(), KillOutcome::Scheduled, "{}", point.name);
            assert!(green.join().unwrap_err().is_kill(), "{}", point.name);
            assert!(log.any("struck by its own"), "{}: {log:?}", point.name);
        }
    });
}

#[test]
fn no_exit_strikes_an_operation_served_at_once_in_a_shield() {
    const ITEMS: u32 = 100;
    run("no_exit_strikes_an_operation_served_at_once_in_a_shield", || {
        let (sender, receiver) = mpsc::channel();
        (0..ITEMS).for_each(|item| sender.send(item).unwrap());
        let received = Rc::new(Cell::new(0));
        let seen = Rc::clone(&received);
        let receive = move || {
            receiver.recv().unwrap();
            seen.set(seen.get() + 1);
        };
        let green = spawn(move || {
            shield(|| (0..ITEMS - 50).for_each(|_| receive()));
            (0..50).for_each(|_| receive());
        });
        yield_now();
        assert!(
            received.get() > 0 && received.get() < ITEMS - 50,
            "the receiver has not run, or has not yielded: {} items",
            received.get()
        );
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert!(green.join().unwrap_err().is_kill());
        assert!((ITEMS - 50..ITEMS).contains(&received.get()), "{}", received.get());
    });
}

#[test]
fn a_timeout_around_a_shield_strikes_after_it() {
    run("a_timeout_around_a_shield_strikes_after_it", || {
        for limit in [Duration::ZERO, SHORT] {
            let log = Log::new();
            let begin = Instant::now();
            let late = with_timeout(limit, || {
                shield(|| {
                    sleep(LATER);
                    log.add("slept");
                });
                sleep(LONG);
                log.add("never");
            });
            assert!(late.is_err());
            assert!(begin.elapsed() >= LATER);
            log.is(&["slept"]);
        }
    });
}

#[test]
fn a_timeout_in_a_shield_without_a_later_wait_does_not_strike() {
    run("a_timeout_in_a_shield_without_a_later_wait_does_not_strike", || {
        assert_eq!(with_timeout(SHORT, || shield(|| sleep(LATER))), Ok(()));
        sleep(SHORT);
    });
}

#[test]
fn a_link_around_a_shield_strikes_after_it() {
    run("a_link_around_a_shield_strikes_after_it", || {
        let log = Log::new();
        let peer = spawn(|| ());
        let linked = peer.with_link(|| {
            shield(|| {
                sleep(SHORT);
                assert!(peer.is_finished());
                log.add("slept");
            });
            sleep(LONG);
        });
        assert!(linked.is_err());
        log.is(&["slept"]);
    });
}

#[test]
fn a_link_inside_a_shield_strikes() {
    run("a_link_inside_a_shield_strikes", || {
        assert!(shield(|| spawn(|| ()).with_link(|| sleep(LONG))).is_err());
    });
}

#[test]
fn an_inner_shield_does_not_end_the_outer_one() {
    run("an_inner_shield_does_not_end_the_outer_one", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            shield(|| {
                shield(|| sleep(SHORT));
                own.add("between");
                sleep(SHORT);
                own.add("outer");
            });
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert!(green.join().unwrap_err().is_kill());
        log.is(&["between", "outer"]);
    });
}

#[test]
fn a_timeout_between_two_shields_waits_for_the_inner_one_only() {
    run("a_timeout_between_two_shields_waits_for_the_inner_one_only", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            shield(|| {
                let late = with_timeout(SHORT, || {
                    shield(|| {
                        sleep(LATER);
                        own.add("inner");
                    });
                    sleep(LONG);
                });
                assert!(late.is_err());
                own.add("struck");
                sleep(SHORT);
                own.add("outer");
            });
            sleep(LONG);
        });
        yield_now();
        green.kill();
        assert!(green.join().unwrap_err().is_kill());
        log.is(&["inner", "struck", "outer"]);
    });
}

#[test]
fn a_panic_ends_a_shield() {
    run("a_panic_ends_a_shield", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            let caught = catch_unwind(|| shield(|| green::quiet_panic("out")));
            assert!(caught.is_err());
            own.add("caught");
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Ended);
        log.is(&["caught"]);
    });
}

#[test]
fn a_panic_leaves_a_shield_with_a_kill_held_back() {
    run("a_panic_leaves_a_shield_with_a_kill_held_back", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            let caught = catch_unwind(|| {
                shield(|| {
                    sleep(SHORT);
                    green::quiet_panic("out")
                })
            });
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"out"));
            own.add("caught");
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert!(green.join().unwrap_err().is_kill());
        log.is(&["caught"]);
    });
}

#[test]
fn a_scope_inside_a_shield_keeps_its_children() {
    run("a_scope_inside_a_shield_keeps_its_children", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            shield(|| {
                scope(|s| {
                    s.spawn(|| {
                        sleep(SHORT);
                        own.add("child");
                    });
                });
                own.add("joined");
            });
            sleep(LONG);
        });
        yield_now();
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert!(green.join().unwrap_err().is_kill());
        log.is(&["child", "joined"]);
    });
}

#[test]
fn a_shield_in_a_child_holds_its_scope() {
    run("a_shield_in_a_child_holds_its_scope", || {
        let log = Log::new();
        let late = with_timeout(SHORT, || {
            scope(|s| {
                s.spawn(|| {
                    shield(|| sleep(LATER));
                    log.add("child");
                    sleep(LONG);
                });
            });
        });
        assert!(late.is_err());
        log.is(&["child"]);
    });
}

#[test]
fn a_destructor_in_a_shield_is_not_interrupted() {
    run("a_destructor_in_a_shield_is_not_interrupted", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            let dropped = OnDrop(move || {
                shield(|| sleep(SHORT));
                own.add("given back");
            });
            drop(dropped);
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert!(green.join().unwrap_err().is_kill());
        log.is(&["given back"]);
    });
}

#[test]
fn a_shield_while_unwinding_changes_nothing() {
    run("a_shield_while_unwinding_changes_nothing", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            let _dropped = OnDrop(move || {
                shield(|| {
                    assert!(std::thread::panicking());
                    own.add("given back");
                });
            });
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Ended);
        log.is(&["given back"]);
    });
}

#[test]
fn a_shield_in_the_main_loop_runs_its_closure() {
    run("a_shield_in_the_main_loop_runs_its_closure", || {
        let log = Log::new();
        let own = log.clone();
        get_hub().schedule(Duration::ZERO, move || shield(|| own.add("called")));
        sleep(SHORT);
        log.is(&["called"]);
    });
}

#[test]
fn a_shield_builds_no_hub() {
    run("a_shield_builds_no_hub", || {
        assert_eq!(shield(|| 1), 1);
        assert!(!has_hub());
    });
}

#[test]
fn a_shield_works_in_a_late_destructor() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            assert_eq!(shield(|| 1), 1);
        }
    }
    thread_local!(static LATE: Late = const { Late });
    let thread = std::thread::spawn(|| {
        LATE.with(|_| ());
        sleep(SHORT);
    });
    thread.join().unwrap();
}

#[test]
fn a_shield_takes_no_memory() {
    run("a_shield_takes_no_memory", || {
        sleep(SHORT);
        let before = counting::allocations();
        for _ in 0..1000 {
            shield(|| shield(|| ()));
        }
        assert_eq!(counting::allocations(), before);
    });
}

#[test]
fn shields_nest_deeper_than_their_counter() {
    fn nest(depth: usize, f: &dyn Fn()) {
        if depth == 0 { f() } else { shield(|| nest(depth - 1, f)) }
    }
    run("shields_nest_deeper_than_their_counter", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            nest(300, &|| {
                sleep(SHORT);
                own.add("deepest");
            });
            sleep(LONG);
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Scheduled);
        assert!(green.join().unwrap_err().is_kill());
        log.is(&["deepest"]);
    });
}

#[test]
fn a_plain_greenlet_in_a_shield_gets_its_exit_as_an_error() {
    run("a_plain_greenlet_in_a_shield_gets_its_exit_as_an_error", || {
        let log = Log::new();
        let own = log.clone();
        let main = Greenlet::current();
        let greenlet = Greenlet::new(move |_| {
            let switched = shield(|| main.switch(Payload::unit()));
            own.add(if matches!(switched, Err(GreenError::Kill)) { "an error" } else { "something else" });
            sleep(SHORT);
            own.add("never");
            Ok(Payload::unit())
        });
        greenlet.switch(Payload::unit()).unwrap();
        // Nothing can switch to the greenlet any more.
        drop(greenlet);
        sleep(SHORT);
        log.is(&["an error"]);
    });
}

#[test]
fn a_shielded_sleep_ends_with_its_loop() {
    run("a_shielded_sleep_ends_with_its_loop", || {
        let log = Log::new();
        let own = log.clone();
        let green = spawn(move || {
            shield(|| sleep(LONG));
            own.add("woken");
            sleep(LONG);
        });
        yield_now();
        get_hub().abort_wait().unwrap();
        assert!(green.join().is_err());
        log.is(&["woken"]);
    });
}

#[test]
fn a_shield_does_not_outlast_a_shutdown() {
    run("a_shield_does_not_outlast_a_shutdown", || {
        let green = spawn(|| shield(|| sleep(LONG)));
        yield_now();
        let ended = get_hub().shutdown(Some(SHORT)).unwrap();
        assert_eq!((ended.unwound, ended.abandoned), (1, 0));
        assert!(green.join().is_err());
    });
}

#[test]
fn exits_are_caught_with_catch_unwind_after_a_shield_only() {
    run("exits_are_caught_with_catch_unwind_after_a_shield_only", || {
        let log = Log::new();
        let late = with_timeout(SHORT, || {
            let caught = catch_unwind(AssertUnwindSafe(|| shield(|| sleep(LATER))));
            log.add(if caught.is_ok() { "went through" } else { "struck" });
            sleep(LONG);
        });
        assert!(late.is_err());
        log.is(&["went through"]);
    });
}
