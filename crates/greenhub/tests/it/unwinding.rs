//! A greenlet that unwinds keeps its OS thread, so no other greenlet ever finds the thread panicking.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::{LONG, Log, OnDrop, SHORT, held, keep_reports, pipe, quiet_panic};
use crate::support::run;
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::greenthread::KillOutcome;
use greenhub::hub::LoopErrorKind;
use greenhub::park::{Source, consume_budget};
use greenhub::sync::{Event, Mutex, Queue, Semaphore};
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, Interest, get_hub, kill, sleep, spawn, trampoline, with_timeout};

/// A reason to unwind; runs a closure in a destructor meanwhile.
struct Cause {
    name: &'static str,
    unwind: fn(Box<dyn FnOnce()>),
}

/// Calls the closure in a destructor.
fn in_drop(during: Box<dyn FnOnce()>) -> OnDrop<impl FnMut()> {
    let mut during = Some(during);
    OnDrop(move || {
        assert!(std::thread::panicking());
        during.take().expect("dropped once")();
    })
}

const CAUSES: &[Cause] = &[
    Cause {
        name: "a panic of the main greenlet",
        unwind: |during| {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let _during = in_drop(during);
                quiet_panic("main");
            }));
            assert!(caught.is_err());
        },
    },
    Cause {
        name: "a panic of a plain greenlet",
        unwind: |during| {
            let greenlet = Greenlet::new(move |_| {
                let _during = in_drop(during);
                quiet_panic("plain");
            });
            assert!(greenlet.switch(Payload::unit()).is_err());
        },
    },
    Cause {
        name: "the last handle of a plain greenlet",
        unwind: |during| {
            let main = Greenlet::main();
            let greenlet = Greenlet::new(move |_| {
                let _during = in_drop(during);
                main.switch(Payload::unit())
            });
            greenlet.switch(Payload::unit()).expect("a switch back");
            drop(greenlet);
        },
    },
    Cause {
        name: "a kill of a plain greenlet",
        unwind: |during| {
            let main = Greenlet::main();
            let greenlet = Greenlet::new(move |_| {
                let _during = in_drop(during);
                main.switch(Payload::unit())
            });
            greenlet.switch(Payload::unit()).expect("a switch back");
            assert!(greenlet.kill().expect("the greenlet ends").is_kill());
        },
    },
    Cause {
        name: "a panic of a green thread",
        unwind: |during| {
            let green = spawn(move || {
                let _during = in_drop(during);
                quiet_panic("green");
            });
            assert!(green.join().is_err());
        },
    },
    Cause {
        name: "a kill of a green thread",
        unwind: |during| {
            let green = spawn(move || {
                let _during = in_drop(during);
                sleep(LONG);
            });
            yield_now();
            assert_eq!(green.kill(), KillOutcome::Ended);
        },
    },
    Cause {
        name: "a timeout of the main greenlet",
        unwind: |during| {
            let late = with_timeout(SHORT, || {
                let _during = in_drop(during);
                sleep(LONG);
            });
            assert!(late.is_err());
        },
    },
];

/// Greenlets that log whether they run, and whether the OS thread is panicking then.
struct Bystanders {
    log: Log,
    unstarted: Greenlet,
    suspended: Greenlet,
    /// Ready at every turn.
    ready: Rc<GreenThread<()>>,
    parked: Rc<GreenThread<()>>,
}

fn note(log: &Log) {
    log.add(if std::thread::panicking() { "ran while panicking" } else { "ran" });
}

impl Bystanders {
    fn new() -> Bystanders {
        let log = Log::new();
        let (main, to) = (Greenlet::main(), log.clone());
        let unstarted = Greenlet::with_parent(&main, move |value| {
            note(&to);
            Ok(value)
        });
        let (back, to) = (main.clone(), log.clone());
        let suspended = Greenlet::with_parent(&main, move |value| {
            let _end = to.on_drop("unwound");
            // A later switch to it ends it.
            let _ = back.switch(value);
            Ok(Payload::unit())
        });
        suspended.switch(Payload::unit()).expect("a switch back");
        let to = log.clone();
        let ready = Rc::new(spawn(move || {
            loop {
                yield_now();
                note(&to);
            }
        }));
        let to = log.clone();
        let parked = Rc::new(spawn(move || {
            let _end = to.on_drop("unwound");
            sleep(LONG);
        }));
        yield_now();
        Bystanders { log, unstarted, suspended, ready, parked }
    }
}

/// Runs `attempt` in a destructor of an unwinding greenlet, for each cause. Checks that `attempt` returns true, that no
/// other greenlet runs meanwhile, and that none ever finds the OS thread panicking.
fn while_unwinding(attempt: fn(&Bystanders) -> bool) {
    for Cause { name, unwind } in CAUSES {
        let bystanders = Rc::new(Bystanders::new());
        let (log, inside) = (bystanders.log.clone(), bystanders.clone());
        let seen = Rc::new(Cell::new(None));
        let saw = seen.clone();
        // A panic in this destructor would abort.
        unwind(Box::new(move || {
            let before = inside.log.len();
            let attempted = catch_unwind(AssertUnwindSafe(|| attempt(&inside)));
            saw.set(Some((attempted.ok(), inside.log.len() - before)));
        }));
        assert_eq!(
            seen.get(),
            Some((Some(true), 0)),
            "{name}: the result of the attempt, and the number of runs of others"
        );
        yield_now();
        assert!(!std::thread::panicking());
        assert!(!log.any("ran while panicking"), "{name}");
        bystanders.ready.kill();
        bystanders.parked.kill();
        let Some(bystanders) = Rc::into_inner(bystanders) else { panic!("{name}: held") };
        drop(bystanders);
    }
}

fn test(name: &str, body: impl FnOnce() + Send + 'static) {
    run(name, || {
        keep_reports();
        let before = held();
        body();
        assert_eq!(held(), before);
    });
}

fn is_refused<T>(outcome: Result<T, GreenError>) -> bool {
    matches!(&outcome, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::Panicking)
}

#[test]
fn switches_are_refused_while_a_greenlet_unwinds() {
    test("switches_are_refused_while_a_greenlet_unwinds", || {
        while_unwinding(|others| {
            [&others.unstarted, &others.suspended].into_iter().all(|target| {
                is_refused(target.switch(Payload::unit()))
                    && is_refused(target.throw(GreenError::custom("thrown")))
                    && is_refused(target.kill())
            }) && !others.unstarted.is_started()
                && !others.suspended.is_dead()
        });
    });
}

#[test]
fn waits_are_refused_or_hold_the_os_thread_while_a_greenlet_unwinds() {
    test("waits_are_refused_or_hold_the_os_thread_while_a_greenlet_unwinds", || {
        let waits: [fn(&Bystanders) -> bool; 13] = [
            |_| {
                yield_now();
                true
            },
            |_| {
                sleep(SHORT);
                true
            },
            |others| is_refused(others.ready.wait()),
            |_| is_refused(spawn(|| ()).join()),
            |_| {
                let (reader, _writer) = pipe();
                trampoline(&reader, Interest::READ, Some(SHORT)).is_err()
            },
            |_| {
                let (reader, _writer) = pipe();
                Source::new(reader.into()).is_ok_and(|source| source.wait(Interest::READ, Some(SHORT)).is_err())
            },
            |_| matches!(Semaphore::new(0).acquire(), Err(error) if error.kind() == LoopErrorKind::Panicking),
            |_| is_refused(Event::<()>::new().wait()),
            |_| Queue::<()>::new().get_timeout(SHORT).is_err(),
            // The budget is used up several times.
            |_| (0..100).all(|_| consume_budget().is_ok()),
            |_| Mutex::new(7).lock().is_ok_and(|value| *value == 7),
            |_| get_hub().run_once(Some(Duration::ZERO)).is_err(),
            // The exit that unwinds the greenlet is not thrown again.
            |_| {
                hub_core::throw_exit();
                true
            },
        ];
        for wait in waits {
            while_unwinding(wait);
        }
    });
}

#[test]
fn a_kill_while_a_greenlet_unwinds_strikes_afterwards() {
    test("a_kill_while_a_greenlet_unwinds_strikes_afterwards", || {
        while_unwinding(|others| {
            [&others.ready, &others.parked].into_iter().all(|target| kill(target) == KillOutcome::Scheduled)
        });
    });
}

#[test]
fn a_self_kill_while_unwinding_unwinds_once() {
    test("a_self_kill_while_unwinding_unwinds_once", || {
        let own = Rc::new(RefCell::new(None::<Rc<GreenThread<()>>>));
        let (slot, scheduled) = (own.clone(), Rc::new(Cell::new(false)));
        let saw = scheduled.clone();
        let green = Rc::new(spawn(move || {
            let own = slot.take().expect("the handle is set before the body runs");
            let _end = in_drop(Box::new(move || saw.set(own.kill() == KillOutcome::Scheduled)));
            quiet_panic("first");
        }));
        own.replace(Some(green.clone()));
        assert_eq!(green.wait().unwrap_err().to_string(), "the green thread panicked: first");
        assert!(scheduled.get());
    });
}

#[test]
fn a_greenlet_dropped_while_another_unwinds_unwinds_afterwards() {
    test("a_greenlet_dropped_while_another_unwinds_unwinds_afterwards", || {
        for Cause { name, unwind } in CAUSES {
            let (main, log) = (Greenlet::main(), Log::new());
            let to = log.clone();
            let suspended = Greenlet::with_parent(&main.clone(), move |_| {
                let _end = to.on_drop("unwound");
                main.switch(Payload::unit())
            });
            suspended.switch(Payload::unit()).unwrap();
            let to = log.clone();
            unwind(Box::new(move || {
                drop(suspended);
                to.add("dropped");
            }));
            yield_now();
            assert!(log.len() == 2 && log.any("unwound"), "{name}: {log:?}");
            log.is(&["dropped", "unwound"]);
        }
    });
}

#[test]
fn a_panic_is_over_before_links_and_joiners_run() {
    test("a_panic_is_over_before_links_and_joiners_run", || {
        let log = Log::new();
        let note = |log: &Log, place: &str| log.add(format!("{place}, panicking: {}", std::thread::panicking()));
        let panics = Rc::new(spawn(|| quiet_panic("green")));
        let to = log.clone();
        panics.link(move |result| {
            assert!(result.is_err());
            note(&to, "a link");
        });
        let (joined, to) = (panics.clone(), log.clone());
        let joiner = spawn(move || {
            assert!(joined.wait().is_err());
            note(&to, "a joiner");
        });
        yield_now();
        joiner.join().unwrap();
        log.is(&["a link, panicking: false", "a joiner, panicking: false"]);
    });
}

#[test]
fn a_caught_exit_is_not_seen_by_other_greenlets() {
    test("a_caught_exit_is_not_seen_by_other_greenlets", || {
        let log = Log::new();
        let to = log.clone();
        let killed = spawn(move || {
            let caught = catch_unwind(|| sleep(LONG));
            to.add(format!("caught: {}", caught.is_err()));
            // Its own exit is thrown again here, and not in a greenlet that runs meanwhile.
            let _end = to.on_drop("exited");
            sleep(LONG);
        });
        let to = log.clone();
        let other = spawn(move || {
            for _ in 0..5 {
                yield_now();
                sleep(SHORT);
            }
            to.add("other ended");
        });
        yield_now();
        assert_eq!(killed.kill(), KillOutcome::Ended);
        log.is(&["caught: true", "exited"]);
        // The next green thread reuses the control block of the killed one.
        let next = spawn(|| {
            yield_now();
            sleep(SHORT);
            7
        });
        assert_eq!(next.join().unwrap(), 7);
        other.join().unwrap();
        assert!(killed.join().unwrap_err().is_kill());
        log.is(&["caught: true", "exited", "other ended"]);
    });
}

#[test]
fn an_exit_ends_its_own_greenlet_only() {
    test("an_exit_ends_its_own_greenlet_only", || {
        let errors = ["one", "two", "three"];
        let greens = errors.map(|_| spawn(|| sleep(LONG)));
        yield_now();
        // The exits are pending together, in an order that differs from that of the spawns.
        let killer = spawn({
            let errors = [2, 0, 1].map(|index: usize| (index, errors[index]));
            let hub = get_hub();
            let greens = Rc::new(greens);
            let to = greens.clone();
            let _timer = hub.schedule(Duration::ZERO, move || {
                for (index, error) in errors {
                    assert_eq!(to[index].kill_with(GreenError::custom(error)), KillOutcome::Scheduled);
                }
            });
            move || {
                sleep(SHORT);
                greens.iter().map(|green| green.wait().unwrap_err().to_string()).collect::<Vec<_>>()
            }
        });
        assert_eq!(killer.join().unwrap(), errors);
    });
}
