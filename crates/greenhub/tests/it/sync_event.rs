//! `Event`: a sent value or error reaches every waiter.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::green;
use crate::support::green::{LONG, Log, SHORT, held, in_time, quiet_panic};
use crate::support::random::{Moment, Rng};
use crate::support::run;
use greenhub::hub::LoopErrorKind;
use greenhub::sync::{Event, EventError};
use greenhub::thread::yield_now;
use greenhub::{GreenError, get_hub, sleep, spawn, with_timeout};

const ZERO: Duration = Duration::ZERO;

fn shared<T>() -> Arc<Event<T>> {
    Arc::default()
}

#[test]
fn a_wait_ends_with_the_value_and_later_ones_return_at_once() {
    run("a_wait_ends_with_the_value_and_later_ones_return_at_once", || {
        let (event, log) = (shared(), Log::new());
        let (waiting, waits) = (event.clone(), log.clone());
        let green = spawn(move || {
            waits.add("waits");
            waiting.wait().unwrap()
        });
        yield_now();
        log.is(&["waits"]);
        assert!(!green.is_finished());
        event.send("value").unwrap();
        assert_eq!(green.join().unwrap(), "value");
        let other = spawn({
            let log = log.clone();
            move || log.add("another")
        });
        assert_eq!(event.wait().unwrap(), "value");
        log.is(&["waits"]);
        other.join().unwrap();
    });
}

#[test]
fn sending_never_switches() {
    run("sending_never_switches", || {
        let (event, log) = (shared(), Log::new());
        for _ in 0..3 {
            let (event, log) = (event.clone(), log.clone());
            spawn(move || log.add(event.wait().unwrap()));
        }
        yield_now();
        event.send("woken").unwrap();
        log.is(&[]);
        yield_now();
        log.is(&["woken", "woken", "woken"]);
    });
}

#[test]
fn waiters_wake_in_order_of_arrival() {
    run("waiters_wake_in_order_of_arrival", || {
        let (event, order) = (shared(), Rc::new(RefCell::new(Vec::new())));
        for number in 0..20 {
            let (event, order) = (event.clone(), order.clone());
            spawn(move || {
                event.wait().unwrap();
                order.borrow_mut().push(number);
            });
        }
        yield_now();
        event.send(()).unwrap();
        yield_now();
        assert_eq!(*order.borrow(), (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_second_send_and_a_reset_of_a_fresh_event_are_errors() {
    let event = Event::new();
    assert_eq!(event.reset(), Err(EventError::Fresh));
    event.send(1).unwrap();
    assert_eq!(event.send(2), Err(EventError::Sent));
    assert_eq!(event.send_error(GreenError::Kill), Err(EventError::Sent));
    assert_eq!(event.poll_result(), Some(1));
    event.reset().unwrap();
    assert_eq!(event.reset(), Err(EventError::Fresh));
}

#[test]
fn a_reset_event_is_like_a_fresh_one() {
    run("a_reset_event_is_like_a_fresh_one", || {
        let event = shared();
        event.send_error(GreenError::custom("old")).unwrap();
        event.reset().unwrap();
        assert!(!event.ready() && event.poll().is_none());
        let waiting = event.clone();
        let green = spawn(move || waiting.wait());
        yield_now();
        assert!(!green.is_finished());
        event.send(2).unwrap();
        assert_eq!(green.join().unwrap().unwrap(), 2);
    });
}

#[test]
fn a_sent_error_ends_every_wait() {
    run("a_sent_error_ends_every_wait", || {
        let event = shared::<()>();
        let waiting = event.clone();
        let green = spawn(move || waiting.wait());
        yield_now();
        event.send_error(GreenError::custom("broken")).unwrap();
        assert_eq!(green.join().unwrap().unwrap_err().to_string(), "broken");
        for _ in 0..2 {
            assert_eq!(event.wait().unwrap_err().to_string(), "broken");
            assert_eq!(event.wait_timeout(SHORT).unwrap_err().to_string(), "broken");
        }
    });
}

#[test]
fn a_send_does_not_wake_a_waiter_that_has_left() {
    run("a_send_does_not_wake_a_waiter_that_has_left", || {
        let (event, log) = (shared(), Log::new());
        let (killed, timed) = (event.clone(), event.clone());
        let killed = spawn(move || killed.wait());
        let logs = log.clone();
        let timed = spawn(move || {
            assert!(with_timeout(SHORT, || timed.wait()).is_err());
            logs.add("timed out");
            sleep(SHORT * 4);
            logs.add("slept");
        });
        yield_now();
        assert_eq!(event.waiting(), 2);
        killed.kill();
        assert!(killed.join().unwrap_err().is_kill());
        while log.len() == 0 {
            sleep(SHORT);
        }
        assert_eq!(event.waiting(), 0);
        let begin = Instant::now();
        event.send(1).unwrap();
        timed.join().unwrap();
        assert!(begin.elapsed() >= SHORT, "its sleep was not ended by the event");
        log.is(&["timed out", "slept"]);
    });
}

#[test]
fn a_waiter_that_is_killed_after_the_send_receives_and_ends_at_its_next_wait() {
    run("a_waiter_that_is_killed_after_the_send_receives_and_ends_at_its_next_wait", || {
        let event = shared();
        let (waiting, received) = (event.clone(), Rc::new(Cell::new(0)));
        let receives = received.clone();
        let green = spawn(move || {
            receives.set(waiting.wait().unwrap());
            sleep(LONG);
        });
        yield_now();
        event.send(1).unwrap();
        green.kill();
        assert!(green.join().unwrap_err().is_kill());
        assert_eq!((received.get(), event.wait().unwrap()), (1, 1));
    });
}

#[test]
fn a_waiter_that_fails_does_not_stop_the_others() {
    run("a_waiter_that_fails_does_not_stop_the_others", || {
        green::keep_reports();
        let event = shared();
        let all: Vec<_> = (0..5)
            .map(|number| {
                let event = event.clone();
                spawn(move || {
                    let value: i32 = event.wait().unwrap();
                    if number % 2 == 0 {
                        quiet_panic("fails");
                    }
                    value
                })
            })
            .collect();
        yield_now();
        event.send(7).unwrap();
        let ends: Vec<_> = all.into_iter().map(|green| green.join().ok()).collect();
        assert_eq!(ends, [None, Some(7), None, Some(7), None]);
    });
}

#[test]
fn a_wait_with_a_timeout_gives_the_value_or_its_timeout() {
    run("a_wait_with_a_timeout_gives_the_value_or_its_timeout", || {
        let event = shared();
        let begin = Instant::now();
        assert_eq!(in_time(event.wait_timeout(SHORT)), None);
        assert!(begin.elapsed() >= SHORT);
        let sender = event.clone();
        spawn(move || sender.send(5));
        assert_eq!(in_time(event.wait_timeout(LONG)), Some(5));
    });
}

#[test]
fn a_zero_timeout_takes_one_turn_or_none() {
    run("a_zero_timeout_takes_one_turn_or_none", || {
        let (event, log) = (shared(), Log::new());
        let other = log.clone();
        spawn(move || other.add("ran"));
        assert_eq!(in_time(event.wait_timeout(ZERO)), None);
        log.is(&["ran"]);
        event.send(3).unwrap();
        let other = log.clone();
        let late = spawn(move || other.add("late"));
        assert_eq!(in_time(event.wait_timeout(ZERO)), Some(3));
        log.is(&["ran"]);
        late.join().unwrap();
    });
}

#[test]
fn an_empty_value_counts_as_sent() {
    let event = Event::new();
    event.send(None::<u8>).unwrap();
    assert!(event.ready() && event.has_result());
    assert_eq!(event.poll_result(), Some(None));
}

#[test]
fn queries_never_wait() {
    run("queries_never_wait", || {
        let log = Log::new();
        let other = log.clone();
        let late = spawn(move || other.add("another ran"));
        let ask = |event: &Event<i32>| {
            let state = (event.ready(), event.has_result(), event.has_error());
            (state, event.poll().is_some(), event.poll_result(), event.poll_error().map(|error| error.to_string()))
        };
        let event = Event::new();
        assert_eq!(ask(&event), ((false, false, false), false, None, None));
        event.send(4).unwrap();
        assert_eq!(ask(&event), ((true, true, false), true, Some(4), None));
        event.reset().unwrap();
        event.send_error(GreenError::custom("no")).unwrap();
        assert_eq!(ask(&event), ((true, false, true), true, None, Some("no".to_owned())));
        log.is(&[]);
        late.join().unwrap();
    });
}

#[test]
fn a_value_sent_before_a_due_timeout_is_thrown_is_received() {
    run("a_value_sent_before_a_due_timeout_is_thrown_is_received", || {
        let event = shared();
        let sender = event.clone();
        // All is due at once: the sender runs when the waiter's timeout has expired, but has not been thrown yet.
        spawn(move || {
            sleep(SHORT);
            sender.send(1)
        });
        let waiting = event.clone();
        let green = spawn(move || with_timeout(SHORT, || waiting.wait()));
        yield_now();
        std::thread::sleep(SHORT * 4);
        assert_eq!(green.join().unwrap().unwrap().unwrap(), 1);
        assert_eq!(event.wait().unwrap(), 1);
    });
}

#[test]
fn the_timer_of_a_wait_ends_with_it() {
    run("the_timer_of_a_wait_ends_with_it", || {
        let (event, before) = (shared(), held());
        let (waiting, killed) = (event.clone(), event.clone());
        let waiting = spawn(move || waiting.wait_timeout(LONG));
        let killed = spawn(move || killed.wait_timeout(LONG));
        yield_now();
        killed.kill();
        assert!(killed.join().is_err());
        event.send(1).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), 1);
        assert_eq!(held(), before);
    });
}

#[test]
fn timers_may_send_but_not_wait() {
    run("timers_may_send_but_not_wait", || {
        let (event, other, refused) = (shared(), shared::<()>(), Rc::new(Cell::new(None)));
        let (sender, own_refused) = (event.clone(), refused.clone());
        let _timer = get_hub().schedule(ZERO, move || {
            own_refused.set(other.wait().err());
            sender.send(9).unwrap();
        });
        assert_eq!(event.wait().unwrap(), 9);
        let error = refused.take().expect("the wait was refused");
        assert!(matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::InMainloop), "{error}");
    });
}

#[test]
fn a_wait_while_panicking_is_refused() {
    run("a_wait_while_panicking_is_refused", || {
        green::keep_reports();
        let refused = Rc::new(Cell::new(None));
        let own_refused = refused.clone();
        let green = spawn(move || {
            let _waits = green::OnDrop(move || own_refused.set(Event::<()>::new().wait().err()));
            quiet_panic("on purpose");
        });
        assert!(green.join().is_err());
        assert!(matches!(refused.take(), Some(GreenError::Loop(error)) if error.kind() == LoopErrorKind::Panicking));
    });
}

#[test]
fn woken_waiters_keep_their_value_across_a_reset() {
    run("woken_waiters_keep_their_value_across_a_reset", || {
        let event = shared();
        let waiting = event.clone();
        let green = spawn(move || waiting.wait());
        yield_now();
        event.send(1).unwrap();
        event.reset().unwrap();
        event.send(2).unwrap();
        assert_eq!(green.join().unwrap().unwrap(), 1);
        assert_eq!(event.wait().unwrap(), 2);
    });
}

#[test]
fn a_waiter_that_resets_and_waits_again_is_not_woken_by_the_same_send() {
    run("a_waiter_that_resets_and_waits_again_is_not_woken_by_the_same_send", || {
        let (event, got) = (shared(), Rc::new(RefCell::new(Vec::new())));
        for number in 0..2 {
            let (event, got) = (event.clone(), got.clone());
            spawn(move || {
                for _ in 0..2 {
                    let value = event.wait().unwrap();
                    got.borrow_mut().push((number, value));
                    // The first waiter resets the event.
                    let _ = event.reset();
                }
            });
        }
        yield_now();
        event.send("first").unwrap();
        for _ in 0..3 {
            yield_now();
        }
        assert_eq!(*got.borrow(), [(0, "first"), (1, "first")]);
        assert_eq!(event.waiting(), 2);
        event.send("second").unwrap();
        yield_now();
        assert_eq!(got.borrow()[2..], [(0, "second"), (1, "second")]);
    });
}

#[test]
fn one_send_reaches_two_hubs_and_a_plain_thread() {
    run("one_send_reaches_two_hubs_and_a_plain_thread", || {
        let event = shared();
        let threads: Vec<_> = (0..3)
            .map(|number| {
                let event: Arc<Event<u32>> = event.clone();
                std::thread::spawn(move || {
                    if number == 0 {
                        let sum = event.wait().unwrap() + in_time(event.wait_timeout(LONG)).unwrap();
                        assert!(!greenhub::hub::has_hub());
                        return sum;
                    }
                    let all: Vec<_> =
                        (0..2).map(|_| event.clone()).map(|event| spawn(move || event.wait().unwrap())).collect();
                    all.into_iter().map(|green| green.join().unwrap()).sum()
                })
            })
            .collect();
        while event.waiting() < 5 {
            sleep(SHORT);
        }
        event.send(21).unwrap();
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), 42));
    });
}

#[test]
fn random_waits_kills_and_timeouts_leave_no_waiter_behind() {
    run("random_waits_kills_and_timeouts_leave_no_waiter_behind", || {
        for seed in 0..60 {
            let mut random = Rng::with_seed(seed);
            let (event, before) = (shared(), held());
            let greens: Vec<_> = (0..12)
                .map(|_| {
                    let (event, mut random) = (event.clone(), random.fork());
                    // `Some(value)` for a received value, `None` for an expired timeout.
                    spawn(move || match random.usize(..3) {
                        0 => Some(event.wait().unwrap()),
                        1 => in_time(event.wait_timeout(random.moment())),
                        _ => with_timeout(random.moment(), || event.wait().unwrap()).ok(),
                    })
                })
                .collect();
            let mut killed = 0;
            for green in &greens {
                if random.usize(..3) == 0 {
                    sleep(random.moment());
                    green.kill();
                    killed += 1;
                }
            }
            event.send(seed).unwrap();
            let mut exits = 0;
            for green in greens {
                match green.join() {
                    Ok(value) => assert!(value.is_none_or(|value| value == seed)),
                    Err(error) => {
                        assert!(error.is_kill(), "{error}");
                        exits += 1;
                    }
                }
            }
            assert!(exits <= killed);
            assert_eq!(event.waiting(), 0);
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}
