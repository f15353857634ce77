//! Links: callbacks at the end of a green thread, and scopes that end with it.

use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::support::green;
use crate::support::green::{Drops, LONG, Log, SHORT, held, keep_reports, quiet_panic, reports};
use crate::support::run;
use greenhub::greenthread::{GreenletId, KillOutcome, LinkId, Linked, current_id};
use greenhub::hub::LoopErrorKind;
use greenhub::sync::{Event, Queue, Semaphore};
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, get_hub, scope, sleep, spawn, spawn_after, with_timeout};

const ZERO: Duration = Duration::ZERO;

type Shared = Rc<GreenThread<&'static str>>;

/// A way to start a green thread that ends when the caller next waits.
struct Ending {
    name: &'static str,
    begin: fn() -> Shared,
    error: Option<&'static str>,
}

const ENDINGS: [Ending; 4] = [
    Ending { name: "a value", begin: || Rc::new(spawn(|| "value")), error: None },
    Ending {
        name: "a panic",
        begin: || {
            keep_reports();
            Rc::new(spawn(|| quiet_panic("on purpose")))
        },
        error: Some("the green thread panicked: on purpose"),
    },
    Ending {
        name: "a kill",
        begin: || {
            let green = Rc::new(spawn(|| {
                sleep(LONG);
                "never"
            }));
            let victim = green.clone();
            spawn(move || assert_eq!(victim.kill(), KillOutcome::Ended));
            green
        },
        error: Some("the green thread was killed"),
    },
    Ending {
        name: "a kill before it has begun",
        begin: || {
            keep_reports();
            let green = Rc::new(spawn_after(LONG, || "never"));
            let victim = green.clone();
            spawn(move || assert_eq!(victim.kill_with(GreenError::custom("no need")), KillOutcome::Cancelled));
            green
        },
        error: Some("no need"),
    },
];

fn parked() -> Shared {
    let green = Rc::new(spawn(|| {
        sleep(LONG);
        "never"
    }));
    yield_now();
    green
}

fn text(linked: &Linked) -> Option<String> {
    linked.error().map(ToString::to_string)
}

#[test]
fn a_link_is_called_for_its_kind_of_end_only() {
    run("a_link_is_called_for_its_kind_of_end_only", || {
        for Ending { name, begin, error } in ENDINGS {
            let green = begin();
            // Linked while the green thread runs, and after its end.
            for _ in 0..2 {
                let (called, values, errors) = (Log::new(), Log::new(), Log::new());
                let log = called.clone();
                green.link(move |_| log.add("called"));
                let log = values.clone();
                green.link_value(move |value| log.add(*value));
                let log = errors.clone();
                green.link_error(move |error| log.add(error.to_string()));
                let _ = green.wait();
                called.is(&["called"]);
                values.is(if error.is_none() { &["value"] } else { &[] });
                assert!(error.map_or(errors.len() == 0, |error| errors.any(error)), "{name}: {errors:?}");
            }
        }
    });
}

#[test]
fn a_link_to_an_ended_green_thread_is_called_each_time() {
    run("a_link_to_an_ended_green_thread_is_called_each_time", || {
        let green = spawn(|| 7);
        green.wait().unwrap();
        let sum = Rc::new(Cell::new(0));
        for count in 1..=10 {
            let to = sum.clone();
            green.link_value(move |value| to.set(to.get() + value));
            assert_eq!(sum.get(), 7 * count);
        }
    });
}

#[test]
fn a_link_may_forward_the_result_to_an_event_or_a_queue() {
    run("a_link_may_forward_the_result_to_an_event_or_a_queue", || {
        for Ending { begin, error, .. } in ENDINGS {
            let (event, queue) = (Arc::new(Event::new()), Arc::new(Queue::new()));
            let green = begin();
            let to = event.clone();
            green.link_value(move |value| to.send(*value).unwrap());
            let to = event.clone();
            green.link_error(move |error| to.send_error(error.clone()).unwrap());
            let to = queue.clone();
            green.link(move |result| to.put(result.clone()).unwrap());
            let results = [event.wait(), queue.get().unwrap()].map(|result| result.map_err(|error| error.to_string()));
            let expected = error.map_or(Ok("value"), |error| Err(error.to_owned()));
            assert_eq!(results, [expected.clone(), expected]);
        }
    });
}

#[test]
fn a_link_is_called_once() {
    run("a_link_is_called_once", || {
        let (green, log) = (parked(), Log::new());
        let to = log.clone();
        let link = green.link(move |_| to.add("called"));
        green.kill();
        green.kill();
        assert!(green.wait().unwrap_err().is_kill());
        let other = log.clone();
        green.link(move |_| other.add("another"));
        assert!(!green.unlink(link));
        log.is(&["called", "another"]);
    });
}

#[test]
fn links_unlinked_while_others_run_are_not_called() {
    run("links_unlinked_while_others_run_are_not_called", || {
        let green = parked();
        let later: Rc<RefCell<Vec<LinkId>>> = Rc::default();
        let (drops, log) = (Drops::default(), Log::new());
        let (own, links, taken) = (Rc::downgrade(&green), later.clone(), log.clone());
        green.link(move |_| {
            let own = own.upgrade().unwrap();
            let last = links.borrow_mut().pop().unwrap();
            assert!(links.borrow().iter().all(|link| own.unlink(*link)));
            taken.add("first");
            // Another green thread may unlink too, while this link blocks.
            let owner = own.clone();
            let by_another = spawn(move || owner.unlink(last));
            assert!(by_another.join().unwrap());
        });
        let taken_back = [
            green.link(drops.one_that_panics()),
            green.link_value(drops.one_that_panics()),
            green.link_error(drops.one_that_panics()),
            green.link_error(drops.one_that_panics()),
        ];
        later.borrow_mut().extend(taken_back);
        let to = log.clone();
        green.link_error(move |_| to.add("last"));
        green.kill();
        assert!(green.wait().is_err());
        log.is(&["first", "last"]);
        assert_eq!(drops.count(), 4);
    });
}

impl Drops {
    /// Returns a link that must not be called.
    fn one_that_panics<A>(&self) -> impl FnOnce(&A) + use<A> {
        let one = self.one();
        move |_: &A| {
            let _one = &one;
            panic!("was taken back");
        }
    }
}

#[test]
fn a_linked_scope_ends_with_its_green_thread() {
    run("a_linked_scope_ends_with_its_green_thread", || {
        for Ending { name, begin, error } in ENDINGS {
            for in_main in [true, false] {
                let drops = Drops::default();
                let inside = drops.one();
                let body = move || {
                    let green = begin();
                    let linked = green.with_link(move || {
                        let _inside = inside;
                        sleep(LONG);
                    });
                    assert!(green.is_finished());
                    linked
                };
                let linked = if in_main { body() } else { spawn(body).join().unwrap() };
                let linked = linked.unwrap_err();
                assert_eq!(text(&linked).as_deref(), error, "{name}");
                assert!(linked.to_string().contains("links.rs"), "{linked}");
                assert_eq!(drops.count(), 1);
                // No later switch throws the strike again.
                yield_now();
            }
        }
    });
}

#[test]
fn a_scope_linked_to_an_ended_green_thread_does_not_begin() {
    run("a_scope_linked_to_an_ended_green_thread_does_not_begin", || {
        for Ending { begin, error, .. } in ENDINGS {
            let green = begin();
            let _ = green.wait();
            let linked = green.with_link(|| -> () { unreachable!() }).unwrap_err();
            assert_eq!(text(&linked).as_deref(), error);
            assert_eq!(green.with_link_value(|| "begins").is_ok(), error.is_some());
            assert_eq!(green.with_link_error(|| "begins").is_ok(), error.is_none());
        }
    });
}

#[test]
fn a_result_that_was_taken_links_as_an_error() {
    run("a_result_that_was_taken_links_as_an_error", || {
        let deferred = greenhub::future::defer_to_green_thread(|| 7);
        let mut deferred = std::pin::pin!(deferred);
        assert_eq!(greenhub::future::block_on(deferred.as_mut()).unwrap(), 7);
        let green = deferred.thread();
        let linked = Rc::new(Cell::new(false));
        let links = Rc::clone(&linked);
        green.link(move |result| links.set(matches!(result, Err(GreenError::Taken))));
        assert!(linked.get());
        let ran = Cell::new(0);
        assert!(matches!(green.with_link(|| ran.set(1)).unwrap_err().error(), Some(GreenError::Taken)));
        green.with_link_value(|| ran.set(ran.get() + 2)).unwrap();
        assert_eq!(ran.get(), 2);
    });
}

#[test]
fn a_linked_scope_is_struck_by_its_kind_of_end_only() {
    run("a_linked_scope_is_struck_by_its_kind_of_end_only", || {
        for Ending { begin, error, .. } in ENDINGS {
            let green = begin();
            assert_eq!(green.with_link_value(|| sleep(SHORT)).is_err(), error.is_none());
            let green = begin();
            assert_eq!(green.with_link_error(|| sleep(SHORT)).is_err(), error.is_some());
        }
    });
}

#[test]
fn leaving_a_linked_scope_unlinks_it() {
    run("leaving_a_linked_scope_unlinks_it", || {
        let before = held();
        {
            let green = parked();
            assert_eq!(green.with_link(|| "value").unwrap(), "value");
            assert!(catch_unwind(std::panic::AssertUnwindSafe(|| green.with_link(|| quiet_panic("out")))).is_err());
            assert!(with_timeout(SHORT, || green.with_link(|| sleep(LONG))).is_err());
            let own = green.clone();
            let killed = spawn(move || own.with_link(|| sleep(LONG)));
            yield_now();
            killed.kill();
            assert!(killed.join().unwrap_err().is_kill());
            // A bystander that reuses the slot of the killed green thread is not struck either.
            let bystander = spawn(|| sleep(SHORT));
            green.kill();
            sleep(SHORT);
            bystander.join().unwrap();
        }
        assert_eq!(held(), before);
    });
}

#[test]
fn a_linked_error_may_propagate_along_a_chain() {
    run("a_linked_error_may_propagate_along_a_chain", || {
        for Ending { begin, error, .. } in ENDINGS {
            let first = begin();
            // A chain, in which each green thread ends with the one before.
            let second = Rc::new(spawn(move || -> Result<(), GreenError> { Ok(first.with_link(|| sleep(LONG))?) }));
            let own = second.clone();
            let third = spawn(move || -> Result<(), GreenError> { Ok(own.with_link(|| sleep(LONG))?) });
            let by_second = third.join().unwrap().unwrap_err();
            assert!(matches!(&by_second, GreenError::Linked(linked) if linked.error().is_none()), "{by_second}");
            let by_first = second.wait().unwrap().unwrap_err();
            assert!(matches!(&by_first, GreenError::Linked(linked) if text(linked).as_deref() == error), "{by_first}");
        }
    });
}

#[test]
fn two_green_threads_linked_to_each_other_end_together() {
    run("two_green_threads_linked_to_each_other_end_together", || {
        for first in [0, 1] {
            let partners: Rc<RefCell<Vec<Rc<GreenThread<bool>>>>> = Rc::default();
            for number in 0..2 {
                let all = partners.clone();
                let partner = spawn(move || {
                    let other = all.borrow()[1 - number].clone();
                    other.with_link(|| sleep(LONG)).is_err()
                });
                partners.borrow_mut().push(Rc::new(partner));
            }
            yield_now();
            let pair = partners.take();
            pair[first].kill();
            assert!(pair[first].wait().unwrap_err().is_kill());
            assert!(pair[1 - first].wait().unwrap(), "ends with the other");
        }
    });
}

#[test]
fn a_strike_waits_for_the_next_wait_within_the_scope() {
    run("a_strike_waits_for_the_next_wait_within_the_scope", || {
        let log = Log::new();
        let (green, other) = (spawn(|| ()), spawn(|| ()));
        // The green thread inside the scope causes the end.
        let linked = green.with_link(|| {
            assert_eq!(green.kill(), KillOutcome::Cancelled);
            log.add("goes on");
            yield_now();
            log.add("never");
        });
        assert!(linked.unwrap_err().error().unwrap().is_kill());
        // Without a wait the scope returns its value, and the strike is dropped.
        let value = other.with_link(|| {
            other.kill();
            "value"
        });
        assert_eq!(value.unwrap(), "value");
        sleep(SHORT);
        log.is(&["goes on"]);
    });
}

#[test]
fn linked_scopes_and_timeouts_nest_and_each_catches_its_own() {
    run("linked_scopes_and_timeouts_nest_and_each_catches_its_own", || {
        let (outer, inner) = (parked(), parked());
        let killer = |green: &Shared| {
            let green = green.clone();
            spawn(move || green.kill())
        };
        // The strike of the outer link passes the inner scopes.
        killer(&outer);
        let struck = outer.with_link(|| {
            let _ = with_timeout(LONG, || inner.with_link(|| sleep(LONG)));
            unreachable!("goes on to the outer scope");
        });
        assert!(Result::<(), _>::unwrap_err(struck).error().unwrap().is_kill());
        // The inner scope catches its own strike, and the timeout strikes after it.
        killer(&inner);
        let log = Log::new();
        let late = with_timeout(SHORT, || {
            assert!(inner.with_link(|| sleep(LONG)).is_err());
            log.add("caught");
            sleep(LONG);
        });
        assert_eq!(late.unwrap_err().after(), Some(SHORT));
        // A timeout passes a linked scope.
        let green = parked();
        let late = with_timeout(SHORT, || green.with_link(|| sleep(LONG)).map_err(|_| ()));
        assert_eq!(late.unwrap_err().after(), Some(SHORT));
        // Two nested scopes are linked to the same green thread.
        killer(&green);
        let struck = green.with_link(|| {
            let inner = green.with_link(|| sleep(LONG));
            log.add(format!("inner {}", inner.is_err()));
            yield_now();
            log.add("never");
        });
        // The outer link was called first.
        assert!(struck.is_err());
        log.is(&["caught"]);
    });
}

#[test]
fn a_swallowed_strike_comes_back_while_its_scope_is_open() {
    run("a_swallowed_strike_comes_back_while_its_scope_is_open", || {
        let log = Log::new();
        let struck = spawn(|| ()).with_link(|| {
            assert!(catch_unwind(|| sleep(LONG)).is_err());
            log.add("swallowed");
            yield_now();
            log.add("never");
        });
        assert!(struck.is_err());
        assert!(spawn(|| ()).with_link(|| catch_unwind(|| sleep(LONG)).is_err()).unwrap());
        yield_now();
        log.is(&["swallowed"]);
    });
}

#[test]
fn a_strike_in_a_scope_of_children_ends_them_first() {
    run("a_strike_in_a_scope_of_children_ends_them_first", || {
        let (before, log) = (held(), Log::new());
        for joins in [true, false] {
            let lent = Cell::new(0);
            let struck = spawn(|| sleep(SHORT)).with_link(|| {
                scope(|s| {
                    s.spawn(|| {
                        let _end = log.on_drop("child");
                        lent.set(lent.get() + 1);
                        sleep(LONG);
                    });
                    if !joins {
                        sleep(LONG);
                    }
                });
            });
            assert!(struck.is_err());
            assert_eq!(lent.get(), 1);
            log.add("struck");
        }
        log.is(&["child", "struck", "child", "struck"]);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_strike_and_a_kill_at_once_end_as_killed() {
    run("a_strike_and_a_kill_at_once_end_as_killed", || {
        let other = parked();
        let own = other.clone();
        let linked = Rc::new(spawn(move || own.with_link(|| sleep(LONG))));
        yield_now();
        // Both strike before the green thread runs again.
        let victim = linked.clone();
        let _timer = get_hub().schedule(ZERO, move || {
            other.kill();
            victim.kill();
        });
        assert!(linked.wait().unwrap_err().is_kill());
    });
}

#[test]
fn a_strike_resumed_outside_its_scope_is_a_linked_error() {
    run("a_strike_resumed_outside_its_scope_is_a_linked_error", || {
        let payload = Rc::new(RefCell::new(None));
        let to = payload.clone();
        spawn(|| ()).with_link(move || *to.borrow_mut() = catch_unwind(|| sleep(LONG)).err()).unwrap();
        let payload = payload.take().unwrap();
        let error = spawn(move || -> () { resume_unwind(payload) }).join().unwrap_err();
        assert!(matches!(&error, GreenError::Linked(linked) if linked.error().is_none()), "{error}");
        assert!(error.to_string().ends_with("has returned"), "{error}");
    });
}

#[test]
fn an_error_is_reported_once_despite_links_unless_joined() {
    run("an_error_is_reported_once_despite_links_unless_joined", || {
        keep_reports();
        for taken in [true, false] {
            let log = Log::new();
            let green = spawn(|| -> () { quiet_panic("of a worker") });
            for _ in 0..2 {
                let to = log.clone();
                green.link_error(move |error| to.add(error.to_string()));
            }
            green.link(|_| ());
            green.link_value(|()| unreachable!());
            assert!(green.with_link(|| sleep(LONG)).is_err());
            assert_eq!(log.len(), 2);
            if taken {
                assert!(green.join().is_err());
            } else {
                drop(green);
            }
            assert_eq!(reports().len(), usize::from(!taken), "{:?}", reports());
        }
        assert!(reports()[0].contains("of a worker"), "{:?}", reports());
    });
}

#[test]
fn waiting_for_a_killed_green_thread_is_an_error() {
    run("waiting_for_a_killed_green_thread_is_an_error", || {
        let green = parked();
        let own = green.clone();
        let waiter = spawn(move || own.wait());
        yield_now();
        green.kill();
        // The kill is an error, never a result.
        assert!(waiter.join().unwrap().unwrap_err().is_kill());
        assert!(matches!(green.wait(), Err(GreenError::Kill)));
        // The kill is not thrown into the waiter, which continues.
        yield_now();
    });
}

#[test]
fn waiting_with_a_zero_timeout_does_not_switch() {
    run("waiting_with_a_zero_timeout_does_not_switch", || {
        let (green, log) = (parked(), Log::new());
        let other = log.clone();
        let other = spawn(move || other.add("ran"));
        let late = with_timeout(ZERO, || green.wait());
        assert_eq!(late.unwrap_err().after(), Some(ZERO));
        log.is(&[]);
        // A longer timeout switches, and does not affect the target.
        assert!(with_timeout(SHORT, || green.wait()).is_err());
        log.is(&["ran"]);
        assert!(other.is_finished() && !green.is_finished());
        assert_eq!(with_timeout(ZERO, || other.wait()).unwrap().map_err(|error| error.to_string()), Ok(()));
        green.kill();
    });
}

#[test]
fn links_and_polls_in_the_main_loop_do_not_wait() {
    run("links_and_polls_in_the_main_loop_do_not_wait", || {
        let (event, queue) = (Arc::new(Event::<()>::new()), Arc::new(Queue::<()>::new()));
        let (permits, log) = (Semaphore::new(0), Log::new());
        let green = parked();
        let own = green.clone();
        let linked = spawn(move || own.with_link(|| sleep(LONG)).is_err());
        yield_now();
        let (own, to) = (green.clone(), log.clone());
        let ready = log.clone();
        let _timer = get_hub().schedule(ZERO, move || {
            let ready = ready.clone();
            spawn(move || ready.add("another"));
            assert!(event.poll().is_none() && !event.ready());
            assert!(queue.try_get().is_err() && !permits.try_acquire());
            assert!(!own.is_finished());
            // A wait is refused, even with a zero timeout.
            let refused = event.wait_timeout(ZERO).unwrap_err();
            assert!(
                matches!(&refused, GreenError::Loop(error) if error.kind() == LoopErrorKind::InMainloop),
                "{refused}"
            );
            assert_eq!(own.with_link(|| "in place").unwrap(), "in place");
            let called = to.clone();
            own.link_error(move |_| called.add("called"));
            assert_eq!(own.kill(), KillOutcome::Scheduled);
            to.add("timer");
        });
        assert!(linked.join().unwrap());
        assert!(green.wait().is_err());
        log.is(&["timer", "another", "called"]);
    });
}

#[test]
fn the_end_of_an_os_thread_unwinds_linked_scopes() {
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    for _ in 0..2 {
        let to = log.clone();
        run("the_end_of_an_os_thread_unwinds_linked_scopes", move || {
            let log = move |entry| to.lock().unwrap().push(entry);
            let other = parked();
            let own = other.clone();
            let inside = green::OnDrop(move || log("unwound"));
            spawn(move || {
                let _inside = inside;
                let _ = own.with_link(|| sleep(LONG));
            });
            yield_now();
        });
    }
    assert_eq!(*log.lock().unwrap(), ["unwound"; 2]);
}

#[test]
fn a_link_is_called_in_the_green_thread_that_causes_the_end() {
    run("a_link_is_called_in_the_green_thread_that_causes_the_end", || {
        // The first unwinds on its own stack. The second is cancelled before its start.
        let running = parked();
        let unstarted = spawn_after(LONG, || ());
        let seen: Rc<RefCell<Vec<GreenletId>>> = Rc::default();
        for number in [0, 1] {
            let to = seen.clone();
            let add = move || to.borrow_mut().push(current_id());
            if number == 0 {
                running.link(move |_| add())
            } else {
                unstarted.link(move |_| add())
            };
        }
        let its_own = running.id().unwrap();
        running.kill();
        unstarted.kill();
        assert_eq!(*seen.borrow(), [its_own, current_id()]);
    });
}

#[test]
fn a_join_within_a_link_leaves_the_result_to_the_link() {
    run("a_join_within_a_link_leaves_the_result_to_the_link", || {
        let green = Rc::new(RefCell::new(None::<GreenThread<Vec<u8>>>));
        let log = Log::new();
        let (handle, own) = (Rc::clone(&green), log.clone());
        let spawned = spawn(|| vec![7; 4]);
        spawned.link(move |result| {
            let joined = handle.take().expect("the last handle").join();
            own.add(if joined.is_err() { "refused" } else { "taken" });
            // The link still borrows the result.
            assert_eq!(*result.as_ref().expect("a value"), [7; 4]);
            own.add("read");
        });
        green.replace(Some(spawned));
        yield_now();
        log.is(&["refused", "read"]);
    });
}
