//! The spans of green threads, and when they are entered.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use greenhub::debug::in_span;
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::greenthread::{KillOutcome, current_id, current_name};
use greenhub::hub::Hub;
use greenhub::park::{Deadline, Parker, WaitReason};
use greenhub::sync::{Event, Queue};
use greenhub::thread::yield_now;
use greenhub::{
    Builder, GreenError, GreenThread, Interest, get_hub, sleep, spawn, spawn_after, spawn_n, trampoline, use_hub,
    use_hub_with, with_timeout,
};
use tracing::{Span, info_span};

use crate::notes::{Notes, meanwhile, nothing_meanwhile};
use crate::support::green::{LONG, OnDrop, SHORT, keep_reports, pipe, quiet_panic};
use crate::support::{is_child, rerun, run};

/// Runs a test with a recording subscriber, on an OS thread of its own.
fn test(name: &str, body: impl FnOnce(Notes) + Send + 'static) {
    let notes = run(name, || {
        keep_reports();
        let (notes, _listening) = Notes::listen();
        body(notes.clone());
        nothing_meanwhile();
        notes
    });
    // The OS thread has ended, and with it every greenlet suspended there.
    notes.are_settled();
}

fn named<T: 'static>(name: &str, body: impl FnOnce() -> T + 'static) -> GreenThread<T> {
    Builder::new().name(name.into()).spawn(body).unwrap()
}

fn part(label: &str) -> Span {
    info_span!(target: "test", "part", label)
}

/// Returns two handles to a cell that the test fills.
fn seen<T: Default>() -> (Rc<RefCell<T>>, Rc<RefCell<T>>) {
    let seen = Rc::new(RefCell::default());
    (seen.clone(), seen)
}

#[test]
fn a_green_thread_has_a_span_with_its_identity() {
    test("a_green_thread_has_a_span_with_its_identity", |notes| {
        let green = named("worker", current_id);
        let number = green.id().unwrap();
        let span = notes.of("worker");
        assert_eq!(span.fields[..2], [format!("number={number}"), "name=worker".to_owned()]);
        assert!(span.fields[2].starts_with(&format!("spawned_at={}:", file!())), "{span:?}");
        assert_eq!(green.join().unwrap(), number);
        spawn_n(|| ());
        assert_eq!(notes.last().unwrap().label, "green_thread");
        yield_now();
    });
}

#[test]
fn a_span_is_a_child_of_the_span_of_its_spawner() {
    test("a_span_is_a_child_of_the_span_of_its_spawner", |notes| {
        let parent = named("parent", || {
            named("child", || ()).join().unwrap();
            in_span(part("a part"), || named("of a part", || ()).join().unwrap());
        });
        parent.join().unwrap();
        let parent_of = |label| notes.of(label).parent;
        assert_eq!(parent_of("parent"), None);
        assert_eq!(parent_of("child").as_deref(), Some("parent"));
        assert_eq!(parent_of("a part").as_deref(), Some("parent"));
        assert_eq!(parent_of("of a part").as_deref(), Some("a part"));
    });
}

#[test]
fn events_are_in_the_span_of_the_running_green_thread_only() {
    test("events_are_in_the_span_of_the_running_green_thread_only", |notes| {
        let talk = |name: &'static str| {
            let notes = notes.clone();
            named(name, move || {
                for _ in 0..3 {
                    assert_eq!(notes.here(), [name]);
                    yield_now();
                    assert_eq!(notes.here(), [name]);
                    sleep(SHORT);
                }
            })
        };
        let both = [talk("one"), talk("other")];
        for green in both {
            assert_eq!(notes.here(), [""; 0]);
            green.join().unwrap();
        }
        assert_eq!(notes.here(), [""; 0]);
    });
}

#[test]
fn a_body_run_on_a_reused_stack_is_in_its_own_span() {
    test("a_body_run_on_a_reused_stack_is_in_its_own_span", |notes| {
        let (places, all) = seen::<Vec<(String, usize)>>();
        for name in ["first", "second", "third"] {
            let (notes, places) = (notes.clone(), places.clone());
            drop(named(name, move || {
                let here = 0_u8;
                places.borrow_mut().push((notes.here().join(" "), (&raw const here).addr()));
            }));
        }
        yield_now();
        let all = all.take();
        assert_eq!(all.iter().map(|(span, _)| &**span).collect::<Vec<_>>(), ["first", "second", "third"]);
        assert!(all.iter().all(|(_, place)| *place == all[0].1), "{all:?}");
    });
}

#[test]
fn callbacks_of_the_loop_are_in_no_span() {
    test("callbacks_of_the_loop_are_in_no_span", |notes| {
        let (places, all) = seen::<Vec<Vec<String>>>();
        let (reader, writer) = pipe();
        let green = named("maker", move || {
            in_span(part("a part"), || {
                let note = move || places.borrow_mut().push(notes.here());
                let (at_once, later) = (note.clone(), note.clone());
                get_hub().schedule(Duration::ZERO, at_once);
                get_hub().schedule(SHORT, later);
                let _registration = get_hub().listen(reader, Interest::READ, move |_| note()).unwrap();
                drop(writer);
                sleep(SHORT * 2);
            });
        });
        green.join().unwrap();
        let all = all.take();
        assert!(all.len() >= 3 && all.iter().all(Vec::is_empty), "{all:?}");
    });
}

#[test]
fn destructors_links_and_green_locals_are_in_the_span_of_their_green_thread() {
    test("destructors_links_and_green_locals_are_in_the_span_of_their_green_thread", |notes| {
        greenhub::local::green_local! {
            static OWN: RefCell<Option<Box<dyn std::any::Any>>> = RefCell::new(None);
        }
        let (places, all) = seen::<Vec<Vec<String>>>();
        let note = {
            let notes = notes.clone();
            move || {
                let (notes, places) = (notes.clone(), places.clone());
                move || places.borrow_mut().push(notes.here())
            }
        };
        let (in_frame, own) = (note(), note());
        let killed = named("killed", move || {
            OWN.with(|value| *value.borrow_mut() = Some(Box::new(OnDrop(own))));
            let _in_frame = OnDrop(in_frame);
            sleep(LONG);
        });
        let linked = note();
        killed.link(move |_| linked());
        yield_now();
        assert_eq!(killed.kill(), KillOutcome::Ended);
        assert_eq!(all.take(), [["killed"]; 3]);
    });
}

#[test]
fn the_span_is_closed_once_however_the_green_thread_ends() {
    test("the_span_is_closed_once_however_the_green_thread_ends", |notes| {
        let ends: [(&str, fn()); 5] = [
            ("returns", || ()),
            ("panics", || quiet_panic("a panic")),
            ("is killed", || sleep(LONG)),
            ("times out", || drop(with_timeout(SHORT, || sleep(LONG)))),
            ("swallows its exit", || {
                let _ = catch_unwind(|| sleep(LONG));
                sleep(LONG);
            }),
        ];
        for (name, body) in ends {
            let green = named(name, body);
            yield_now();
            if name != "times out" {
                green.id().map(hub_core::internal::request_exit);
            }
            let _ = green.join();
            let span = notes.of(name);
            assert_eq!((span.entered, span.closed), (span.exited, 1), "{span:?}");
            assert!(span.entered > 0, "{span:?}");
        }
        let text = String::from("borrowed");
        greenhub::scope(|scope| {
            scope.spawn(|| text.len());
        });
        let child = notes.last().unwrap();
        assert_eq!((child.entered, child.closed), (1, 1), "{child:?}");
    });
}

#[test]
fn an_unstarted_green_thread_has_a_span_that_is_closed_and_never_entered() {
    test("an_unstarted_green_thread_has_a_span_that_is_closed_and_never_entered", |notes| {
        let check = |kill: &dyn Fn() -> bool| {
            let open = notes.last().unwrap();
            assert_eq!((open.entered, open.closed), (0, 0));
            assert!(kill());
            let closed = notes.last().unwrap();
            assert_eq!((closed.entered, closed.closed), (0, 1));
        };
        let killed = spawn(|| ());
        check(&|| killed.kill() == KillOutcome::Cancelled);
        let cancelled = spawn(|| ());
        check(&|| cancelled.cancel());
        let later = spawn_after(LONG, || ());
        check(&|| later.cancel());
        // The control block is reused while the cancelled body's captures are dropped.
        let parks = OnDrop(|| sleep(SHORT));
        let held = spawn(move || drop(parks));
        let next = Rc::new(Cell::new(0));
        let counts = next.clone();
        spawn_n(move || (0..3).for_each(|_| drop(named("next", || ()).join().map(|()| counts.set(counts.get() + 1)))));
        assert_eq!(held.kill(), KillOutcome::Cancelled);
        assert_eq!(next.get(), 3);
    });
}

#[test]
fn green_threads_unwound_by_an_ending_os_thread_are_in_their_spans() {
    let (sender, entered) = std::sync::mpsc::channel();
    test("green_threads_unwound_by_an_ending_os_thread_are_in_their_spans", move |notes| {
        let ends = notes.clone();
        drop(named("left behind", move || {
            in_span(part("a part"), || {
                let _at_the_end = OnDrop(|| sender.send(ends.entered()).unwrap());
                sleep(LONG);
            });
        }));
        drop(spawn_after(LONG, || ()));
        yield_now();
        assert_eq!(notes.entered(), [""; 0]);
    });
    assert_eq!(entered.recv().unwrap(), ["left behind", "a part"]);
}

#[test]
fn a_span_lasts_across_waits() {
    test("a_span_lasts_across_waits", |notes| {
        let queue = Rc::new(Queue::new());
        let event = Rc::new(Event::<u8>::new());
        let other = {
            let (notes, queue, event) = (notes.clone(), queue.clone(), event.clone());
            move || {
                assert_eq!(notes.here(), ["other"]);
                sleep(SHORT);
                assert_eq!(notes.here(), ["other"]);
                queue.put(1).unwrap();
                yield_now();
                event.send(2).unwrap();
                assert_eq!(notes.here(), ["other"]);
            }
        };
        let waits = {
            let notes = notes.clone();
            move || {
                let here = || assert_eq!(notes.here(), ["waits", "a part"]);
                in_span(part("a part"), || {
                    let other = named("other", other);
                    yield_now();
                    here();
                    sleep(SHORT);
                    here();
                    assert_eq!(queue.get().unwrap(), 1);
                    here();
                    assert_eq!(event.wait().unwrap(), 2);
                    here();
                    other.join().unwrap();
                    here();
                    assert_eq!(greenhub::tpool::execute(|| 3).unwrap(), 3);
                    here();
                });
                assert_eq!(notes.here(), ["waits"]);
            }
        };
        named("waits", waits).join().unwrap();
    });
}

#[test]
fn spans_nest() {
    test("spans_nest", |notes| {
        let mine = notes.clone();
        let green = named("green", move || {
            let value = in_span(part("outer"), || {
                yield_now();
                let value = in_span(part("inner"), || {
                    sleep(SHORT);
                    assert_eq!(mine.here(), ["green", "outer", "inner"]);
                    7
                });
                yield_now();
                assert_eq!(mine.here(), ["green", "outer"]);
                value
            });
            assert_eq!(mine.here(), ["green"]);
            value
        });
        assert_eq!(green.join().unwrap(), 7);
        assert_eq!(notes.of("inner").parent.as_deref(), Some("outer"));
    });
}

#[test]
fn the_main_greenlet_leaves_its_spans_while_others_run() {
    test("the_main_greenlet_leaves_its_spans_while_others_run", |notes| {
        let theirs = notes.clone();
        in_span(part("main's"), || {
            let green = named("green", move || assert_eq!(theirs.here(), ["green"]));
            sleep(SHORT);
            assert_eq!(notes.here(), ["main's"]);
            green.join().unwrap();
        });
        assert_eq!(notes.here(), [""; 0]);
    });
}

#[test]
fn greenlets_switched_by_hand_have_their_own_spans() {
    test("greenlets_switched_by_hand_have_their_own_spans", |notes| {
        let main = Greenlet::current();
        let theirs = notes.clone();
        let (places, all) = seen::<Vec<Vec<String>>>();
        let plain = Greenlet::new(move |_| {
            places.borrow_mut().push(theirs.here());
            in_span(part("plain"), || {
                let _at_the_end = OnDrop(|| places.borrow_mut().push(theirs.here()));
                main.switch(Payload::unit())?;
                places.borrow_mut().push(theirs.here());
                sleep(SHORT);
                places.borrow_mut().push(theirs.here());
                main.switch(Payload::unit())
            })
        });
        in_span(part("main's"), || {
            for _ in 0..2 {
                plain.switch(Payload::unit()).unwrap();
                assert_eq!(notes.here(), ["main's"]);
            }
            // Dropping the greenlet makes it exit: the drop switches to the greenlet and back.
            drop(plain);
            assert_eq!(notes.here(), ["main's"]);
            let gone = Greenlet::new(Ok);
            gone.kill().unwrap();
            assert_eq!(notes.here(), ["main's"]);
            let switched = gone.switch(Payload::unit());
            assert!(switched.is_ok(), "a switch to a killed greenlet did not return to its parent: {switched:?}");
            assert_eq!(notes.here(), ["main's"]);
        });
        assert_eq!(all.take(), [vec![], vec!["plain"], vec!["plain"], vec!["plain"]]);
    });
}

#[test]
fn a_span_ends_by_a_panic_a_kill_and_a_timeout() {
    test("a_span_ends_by_a_panic_a_kill_and_a_timeout", |notes| {
        let inside = |label: &'static str, notes: &Notes, body: fn()| {
            let (name, theirs) = (current_name(), notes.clone());
            let expected: Vec<_> = name.iter().map(|name| name.to_string()).chain([label.to_owned()]).collect();
            in_span(part(label), move || {
                let _unwound = OnDrop(|| assert_eq!(theirs.here(), expected));
                body();
            });
        };
        let green = {
            let notes = notes.clone();
            named("green", move || {
                let panicked = catch_unwind(AssertUnwindSafe(|| inside("panic", &notes, || quiet_panic("a panic"))));
                assert!(panicked.is_err());
                assert_eq!(notes.here(), ["green"]);
                assert!(with_timeout(SHORT, || inside("timeout", &notes, || sleep(LONG))).is_err());
                assert_eq!(notes.here(), ["green"]);
                let killed = catch_unwind(AssertUnwindSafe(|| inside("kill", &notes, || sleep(LONG))));
                assert_eq!(notes.here(), ["green"]);
                // The kill continues to unwind.
                std::panic::resume_unwind(killed.unwrap_err());
            })
        };
        sleep(SHORT * 3);
        while notes.all().iter().all(|span| span.label != "kill") {
            sleep(SHORT);
        }
        assert_eq!(green.kill(), KillOutcome::Ended);
        assert!(green.join().unwrap_err().is_kill());
        for label in ["panic", "timeout", "kill"] {
            assert_eq!(notes.of(label).closed, 1);
        }
    });
}

#[test]
fn a_killer_leaves_its_spans_while_the_target_unwinds() {
    test("a_killer_leaves_its_spans_while_the_target_unwinds", |notes| {
        in_span(part("killer"), || {
            for waits in [false, true] {
                let theirs = notes.clone();
                let green = named("green", move || {
                    let _unwound = OnDrop(|| assert_eq!(theirs.here(), ["green"]));
                    if waits { sleep(LONG) } else { (0..100).for_each(|_| yield_now()) }
                });
                yield_now();
                assert_eq!(green.kill(), KillOutcome::Ended);
                assert_eq!(notes.here(), ["killer"]);
                assert!(matches!(green.join(), Err(GreenError::Kill)));
            }
        });
    });
}

#[test]
fn a_masked_wait_exits_and_enters_spans_like_any_wait() {
    test("a_masked_wait_exits_and_enters_spans_like_any_wait", |notes| {
        let (theirs, childs) = (notes.clone(), notes.clone());
        let green = named("green", move || {
            in_span(part("a part"), || {
                let _unwound = OnDrop(|| assert_eq!(theirs.here(), ["green", "a part"]));
                greenhub::scope(|scope| {
                    scope.spawn(|| {
                        let _unwound = OnDrop(|| assert_eq!(childs.here(), ["green_thread"]));
                        sleep(LONG);
                    });
                });
            });
        });
        yield_now();
        green.kill();
        assert!(green.join().unwrap_err().is_kill());
    });
}

#[test]
fn a_blocking_subscriber_gets_an_error_and_loses_no_wait() {
    if !is_child() {
        // The test writes about its panics to standard error, so it runs in a process of its own.
        let name = "spans::a_blocking_subscriber_gets_an_error_and_loses_no_wait";
        return assert!(rerun(name, |_| ()).status.success());
    }
    test("a_blocking_subscriber_gets_an_error_and_loses_no_wait", |_| {
        sleep(SHORT);
        let (tried, refused) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let lock = Arc::new(greenhub::sync::Mutex::new(()));
        let (reader, _writer) = pipe();
        let sleeper = named("sleeper", || sleep(LONG));
        let plain = Greenlet::new(Ok);
        let exits = Rc::new(Cell::new(0));
        let suspended = RefCell::new(Vec::new());
        for _ in 0..20 {
            let (main, exits) = (Greenlet::current(), exits.clone());
            let one = Greenlet::new(move |_| {
                let _exits = OnDrop(|| exits.set(exits.get() + 1));
                main.switch(Payload::unit())
            });
            one.switch(Payload::unit()).unwrap();
            suspended.borrow_mut().push(one);
        }
        let (tries, refusals) = (tried.clone(), refused.clone());
        let held = lock.clone();
        meanwhile(move |event, label| {
            if (event, label) == ("new", "main's") {
                // The program itself makes that span.
                return;
            }
            tries.set(tries.get() + 1);
            let (before, name) = (current_id(), current_name());
            assert!(Parker::new(WaitReason::Event).is_err());
            assert!(trampoline(&reader, Interest::READ, None).is_err());
            assert!(sleeper.wait().is_err());
            assert!(plain.switch(Payload::unit()).is_err());
            assert!(use_hub(None).is_err());
            let locked = catch_unwind(AssertUnwindSafe(|| held.try_lock().is_err() && held.lock().is_ok()));
            assert!(!matches!(locked, Ok(true)));
            assert!(catch_unwind(|| sleep(SHORT)).is_err());
            yield_now();
            // A dropped greenlet exits later.
            let exited = exits.get();
            drop(suspended.borrow_mut().pop());
            assert_eq!(exits.get(), exited);
            assert_eq!((current_id(), current_name()), (before, name));
            // A panic of a check above is caught by the library, so the checks are counted.
            refusals.set(refusals.get() + 1);
        });
        let queue = Rc::new(Queue::new());
        let puts = queue.clone();
        let greens = [
            spawn(move || {
                for n in 0..10 {
                    sleep(Duration::from_micros(100));
                    puts.put(n).unwrap();
                }
            }),
            spawn(move || (0..10).for_each(|n| assert_eq!(queue.get().unwrap(), n))),
            spawn({
                let lock = lock.clone();
                move || {
                    for _ in 0..10 {
                        let _held = lock.lock().unwrap();
                        yield_now();
                    }
                }
            }),
            spawn(move || (0..10).for_each(|_| drop(lock.lock().unwrap()))),
        ];
        in_span(part("main's"), || {
            for green in greens {
                green.join().unwrap();
            }
        });
        nothing_meanwhile();
        assert!(tried.get() > 40);
        assert_eq!(refused.get(), tried.get());
    });
}

#[test]
fn a_subscriber_may_end_the_wait_that_is_about_to_begin() {
    test("a_subscriber_may_end_the_wait_that_is_about_to_begin", |_| {
        // The subscriber unparks the green thread.
        let woken = spawn(|| {
            let parker = Parker::new(WaitReason::Event).unwrap();
            let unparker = parker.unparker();
            meanwhile(move |event, _| {
                if event == "exit" {
                    unparker.unpark();
                }
            });
            let parked = parker.park(&mut Deadline::none()).unwrap();
            nothing_meanwhile();
            parked
        });
        assert_eq!(woken.join().unwrap(), greenhub::park::Parked::Unparked);
        // The subscriber kills the green thread. Without the kill, the last wait would take an hour.
        let switch_to_a_sleeper = || {
            let one = Greenlet::new(|_| {
                sleep(LONG);
                Ok(Payload::unit())
            });
            drop(one.switch(Payload::unit()));
        };
        for wait in [|| sleep(LONG), yield_now, switch_to_a_sleeper] {
            let killed = spawn(move || {
                meanwhile(|event, _| {
                    if event == "exit" {
                        nothing_meanwhile();
                        assert!(hub_core::internal::request_exit(current_id()));
                    }
                });
                wait();
                sleep(LONG);
            });
            assert!(killed.join().unwrap_err().is_kill());
        }
        // The subscriber kills the green thread when it resumes.
        let killed = spawn(|| {
            meanwhile(|event, _| {
                if event == "enter" {
                    nothing_meanwhile();
                    assert!(hub_core::internal::request_exit(current_id()));
                }
            });
            yield_now();
            unreachable!("the green thread continued after its kill");
        });
        assert!(killed.join().unwrap_err().is_kill());
    });
}

#[test]
fn a_subscriber_may_kill_the_target_of_a_kill() {
    test("a_subscriber_may_kill_the_target_of_a_kill", |_| {
        let target = Rc::new(named("target", || sleep(LONG)));
        yield_now();
        let same = target.clone();
        let (result, killed) = seen::<Option<KillOutcome>>();
        let killer = named("killer", move || {
            let again = same.clone();
            meanwhile(move |event, label| {
                if (event, label) == ("exit", "killer") {
                    nothing_meanwhile();
                    *result.borrow_mut() = Some(again.kill());
                }
            });
            same.kill()
        });
        assert_eq!(killer.join().unwrap(), KillOutcome::Ended);
        // The subscriber cannot switch, so its kill is scheduled.
        assert_eq!(killed.take(), Some(KillOutcome::Scheduled));
        assert!(target.is_finished());
    });
}

#[test]
fn a_subscriber_may_wake_the_target_of_a_switch() {
    test("a_subscriber_may_wake_the_target_of_a_switch", |notes| {
        let (to, target) = seen::<Option<Greenlet>>();
        let green = named("target", move || {
            *to.borrow_mut() = Some(Greenlet::current());
            let waits = Greenlet::new(|_| {
                sleep(LONG);
                Ok(Payload::unit())
            });
            drop(waits.switch(Payload::unit()));
        });
        in_span(part("main's"), || {
            sleep(SHORT);
            let target = target.take().unwrap();
            let green = Rc::new(green);
            let same = green.clone();
            meanwhile(move |event, _| {
                if event == "exit" {
                    nothing_meanwhile();
                    same.kill();
                }
            });
            let switched = target.switch(Payload::unit());
            assert!(
                matches!(switched, Err(GreenError::Switch(greenhub::greenlet::GreenletError::Parked))),
                "{switched:?}"
            );
            assert_eq!(notes.here(), ["main's"]);
            assert!(green.wait().unwrap_err().is_kill());
        });
    });
}

#[test]
fn a_pending_exit_is_not_thrown_in_a_subscriber() {
    test("a_pending_exit_is_not_thrown_in_a_subscriber", |_| {
        let (set_continued, continued) = seen::<bool>();
        let killed = named("killed", || sleep(LONG));
        yield_now();
        meanwhile(move |event, label| {
            if (event, label) == ("enter", "killed") {
                // `run_in_place` checks for a pending exit at its end.
                drop(hub_core::internal::run_in_place(|| ()));
                *set_continued.borrow_mut() = true;
            }
        });
        assert_eq!(killed.kill(), KillOutcome::Ended);
        assert!(continued.take());
    });
}

#[test]
fn an_earlier_wait_is_refused_in_a_subscriber() {
    test("an_earlier_wait_is_refused_in_a_subscriber", |_| {
        sleep(SHORT);
        let (result, refused) = seen::<Option<bool>>();
        in_span(part("main's"), || {
            let parker = Cell::new(Some(Parker::new(WaitReason::Event).unwrap()));
            meanwhile(move |event, _| {
                if event == "exit"
                    && let Some(parker) = parker.take()
                {
                    *result.borrow_mut() = Some(parker.park(&mut Deadline::from(Some(SHORT))).is_err());
                }
            });
            yield_now();
        });
        assert_eq!(refused.take(), Some(true));
    });
}

#[test]
fn a_wait_refused_late_reenters_its_spans() {
    if !is_child() {
        // The test writes about its panics to standard error, so it runs in a process of its own.
        let name = "spans::a_wait_refused_late_reenters_its_spans";
        return assert!(rerun(name, |_| ()).status.success());
    }
    test("a_wait_refused_late_reenters_its_spans", |notes| {
        let (places, all) = seen::<Vec<Vec<String>>>();
        // There is no loop yet, and none can be made while a hub is built.
        let build = move || -> std::io::Result<Box<dyn Hub>> {
            assert!(catch_unwind(|| sleep(SHORT)).is_err());
            places.borrow_mut().push(notes.here());
            assert!(catch_unwind(yield_now).is_err());
            places.borrow_mut().push(notes.here());
            Err(std::io::Error::other("no hub"))
        };
        use_hub_with(build).unwrap();
        in_span(part("main's"), || assert!(greenhub::try_get_hub().is_err()));
        assert_eq!(all.take(), [["main's"]; 2]);
    });
}

#[test]
fn a_switch_without_a_stack_reenters_its_spans() {
    if !is_child() {
        return assert!(rerun("spans::a_switch_without_a_stack_reenters_its_spans", |_| ()).status.success());
    }
    test("a_switch_without_a_stack_reenters_its_spans", |notes| {
        sleep(SHORT);
        const MUCH: usize = 512 << 20;
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, MUCH as _, MUCH as _).unwrap();
        greenhub::greenthread::set_default_stack_size(MUCH).unwrap();
        in_span(part("main's"), || {
            let switched = Greenlet::new(Ok).switch(Payload::unit());
            assert!(
                matches!(&switched, Err(GreenError::Loop(error)) if error.kind() == greenhub::hub::LoopErrorKind::Stack),
                "{switched:?}"
            );
            assert_eq!(notes.here(), ["main's"]);
        });
    });
}

#[test]
fn the_error_of_a_second_kill_is_dropped_in_the_span_of_the_killer() {
    test("the_error_of_a_second_kill_is_dropped_in_the_span_of_the_killer", |notes| {
        #[derive(Debug)]
        struct Noisy(Notes, std::sync::mpsc::Sender<Vec<String>>);
        impl std::fmt::Display for Noisy {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("noisy")
            }
        }
        impl std::error::Error for Noisy {}
        impl Drop for Noisy {
            fn drop(&mut self) {
                let _ = self.1.send(self.0.here());
            }
        }
        let green = named("target", || sleep(LONG));
        yield_now();
        assert!(hub_core::internal::request_exit(green.id().unwrap()));
        let (sender, entered) = std::sync::mpsc::channel();
        in_span(part("killer"), || {
            assert_eq!(green.kill_with(GreenError::custom(Noisy(notes, sender))), KillOutcome::Ended);
        });
        assert_eq!(entered.try_iter().collect::<Vec<_>>(), [["killer"]]);
    });
}

#[test]
fn a_subscriber_that_panics_in_span_calls_does_no_harm() {
    for at in ["new", "enter", "exit", "close"] {
        run("a_subscriber_that_panics_in_span_calls_does_no_harm", move || {
            keep_reports();
            let (_, _listening) = Notes::listen();
            meanwhile(move |event, _| {
                if event == at {
                    quiet_panic("a subscriber that panics");
                }
            });
            let green = spawn(|| {
                yield_now();
                let child = spawn(|| sleep(SHORT));
                // The program creates no span: the subscriber's panic in the creation would unwind the program.
                let span = if current_name().is_none() { Span::none() } else { part("never") };
                in_span(span, || child.join().unwrap());
                7
            });
            assert_eq!(green.join().unwrap(), 7);
            assert!(spawn(|| ()).cancel());
            let killed = spawn(|| sleep(LONG));
            yield_now();
            assert_eq!(killed.kill(), KillOutcome::Ended);
            nothing_meanwhile();
        });
    }
}

#[test]
fn a_subscriber_may_spawn_without_spans() {
    if !is_child() {
        return assert!(rerun("spans::a_subscriber_may_spawn_without_spans", |_| ()).status.success());
    }
    // A global subscriber, since a scoped one is not called for spans made inside its own methods.
    let notes = Notes::default();
    tracing::subscriber::set_global_default(notes.clone()).unwrap();
    run("a_subscriber_may_spawn_without_spans", move || {
        let (ran, count) = seen::<usize>();
        meanwhile(move |event, label| {
            let ran = ran.clone();
            assert!(label == "named" && (event == "enter") <= current_name().is_some());
            spawn_n(move || {
                assert_eq!(current_name(), None);
                *ran.borrow_mut() += 1;
            });
        });
        named("named", || sleep(SHORT)).join().unwrap();
        nothing_meanwhile();
        yield_now();
        // Made, entered, exited for the wait, entered, exited, closed.
        assert_eq!(count.take(), 6);
        assert_eq!(notes.all().len(), 1);
        notes.are_settled();
    });
}

#[test]
fn a_forked_child_stays_in_its_spans() {
    if !is_child() {
        return assert!(rerun("spans::a_forked_child_stays_in_its_spans", |_| ()).status.success());
    }
    test("a_forked_child_stays_in_its_spans", |notes| {
        let green = named("green", move || {
            in_span(part("a part"), || {
                sleep(SHORT);
                // SAFETY: the other OS threads of this process only wait for this one. The child ends without any
                // cleanup.
                let forked = unsafe { nix::unistd::fork() }.unwrap();
                sleep(SHORT);
                let here = notes.here() == ["green", "a part"];
                match forked {
                    // SAFETY: `_exit` ends the child without running any other code.
                    nix::unistd::ForkResult::Child => unsafe { libc::_exit(if here { 0 } else { 1 }) },
                    nix::unistd::ForkResult::Parent { child } => {
                        let status = nix::sys::wait::waitpid(child, None).unwrap();
                        here && matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0))
                    }
                }
            })
        });
        assert!(green.join().unwrap());
    });
}

#[test]
fn no_span_is_entered_without_a_subscriber() {
    run("no_span_is_entered_without_a_subscriber", || {
        assert_eq!(in_span(part("unrecorded"), || spawn(|| 7).join().unwrap()), 7);
        let (notes, listening) = Notes::listen();
        drop(listening);
        in_span(part("unrecorded"), || spawn(yield_now).join().unwrap());
        assert_eq!(notes.all(), []);
    });
}
