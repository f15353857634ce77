//! Rule 10 of `docs/design.md`: a greenlet that finishes may run the next body on its own stack, without leaving state
//! behind.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::{
    Drops, LONG, Log, OnDrop, SHORT, held, keep_reports, quiet_panic, reports, wait_until_held,
};
use crate::support::run;
use greenhub::greenthread::{KillOutcome, is_exit};
use greenhub::local::green_local;
use greenhub::thread::yield_now;
use greenhub::{Builder, GreenThread, get_hub, shield, sleep, spawn, spawn_after, spawn_n};

/// Returns a value that panics in its destructor and counts its drops.
fn panics_at_drop(drops: &Drops) -> impl Sized + use<> {
    let one = drops.one();
    OnDrop(move || {
        let _counted = &one;
        quiet_panic("in a drop")
    })
}

#[test]
fn rule_10_a_chain_of_bodies_lets_timers_fire() {
    /// The chain ends by itself after this many bodies.
    const MAX: u64 = 3_000_000;

    fn chain(stop: Rc<Cell<bool>>, ran: Rc<Cell<u64>>) {
        ran.set(ran.get() + 1);
        if !stop.get() && ran.get() < MAX {
            spawn_n(move || chain(stop, ran));
        }
    }
    run("rule_10_a_chain_of_bodies_lets_timers_fire", || {
        let (stop, ran) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (stops, counts) = (stop.clone(), ran.clone());
        spawn_n(move || chain(stops, counts));
        sleep(SHORT);
        stop.set(true);
        assert!(ran.get() < MAX, "the chain has ended by itself");
        yield_now();
    });
}

#[test]
fn rule_10_each_body_is_charged_to_the_budget() {
    run("rule_10_each_body_is_charged_to_the_budget", || {
        sleep(SHORT);
        let ran = Rc::new(Cell::new(0_u64));
        for _ in 0..10_000 {
            let ran = ran.clone();
            spawn_n(move || ran.set(ran.get() + 1));
        }
        let switches = get_hub().stats().switches;
        while ran.get() < 10_000 {
            yield_now();
        }
        // A body run in place is counted as a switch, through the budget it has used.
        let switches = get_hub().stats().switches - switches;
        assert!(switches >= 10_000, "{switches} were counted");
    });
}

#[test]
fn rule_10_callbacks_keep_their_place_among_bodies() {
    run("rule_10_callbacks_keep_their_place_among_bodies", || {
        sleep(SHORT);
        let log = Log::new();
        for entry in ["first", "second", "third"] {
            let (body, callback) = (log.clone(), log.clone());
            spawn_n(move || body.add(entry));
            get_hub().schedule(Duration::ZERO, move || callback.add("callback"));
        }
        sleep(SHORT);
        log.is(&["first", "callback", "second", "callback", "third", "callback"]);
    });
}

#[test]
fn rule_10_a_body_never_runs_on_too_small_a_stack() {
    fn dig(depth: usize) -> usize {
        let frame = std::hint::black_box([depth; 128]);
        if depth == 0 { frame[0] } else { dig(depth - 1) + frame[depth % 128] }
    }
    run("rule_10_a_body_never_runs_on_too_small_a_stack", || {
        for _ in 0..4 {
            Builder::new().stack_size(1).spawn(|| ()).unwrap();
            // Needs more than 64 KiB, and less than the default stack size.
            let usual = spawn(|| dig(80));
            Builder::new().stack_size(1).spawn(|| ()).unwrap();
            let larger = Builder::new().stack_size(1 << 20).spawn(|| dig(400)).unwrap();
            assert!(usual.join().unwrap() > 0 && larger.join().unwrap() > 0);
        }
    });
}

#[test]
fn rule_10_a_pending_exit_does_not_strike_links_or_destructors() {
    green_local! {
        static KEPT: RefCell<Vec<Box<dyn std::any::Any>>> = RefCell::default()
    }
    run("rule_10_a_pending_exit_does_not_strike_links_or_destructors", || {
        let (log, before) = (Log::new(), held());
        let (local, result, link) = (log.clone(), log.clone(), log.clone());
        let body = spawn(move || {
            let local = OnDrop(move || {
                sleep(SHORT);
                local.add("local");
            });
            KEPT.with_borrow_mut(|kept| kept.push(Box::new(local)));
            drop(catch_unwind(|| sleep(LONG)));
            OnDrop(move || {
                sleep(SHORT);
                result.add("result");
            })
        });
        body.link(move |_| {
            sleep(SHORT);
            link.add("link");
        });
        yield_now();
        // The body swallows the exit, which stays pending until the body ends.
        body.kill();
        drop(body);
        wait_until_held(&before, "every destructor has run");
        log.is(&["local", "link", "result"]);
    });
}

#[test]
fn rule_10_an_exit_in_a_destructor_does_not_strike_later_links() {
    green_local! {
        static KEPT: RefCell<Vec<Box<dyn std::any::Any>>> = RefCell::default()
    }
    run("rule_10_an_exit_in_a_destructor_does_not_strike_later_links", || {
        let (log, before) = (Log::new(), held());
        let (local, link) = (log.clone(), log.clone());
        let body = spawn(move || {
            let local = OnDrop(move || {
                drop(catch_unwind(|| sleep(LONG)));
                local.add("local");
            });
            KEPT.with_borrow_mut(|kept| kept.push(Box::new(local)));
        });
        body.link(move |_| {
            sleep(SHORT);
            link.add("link");
        });
        yield_now();
        log.is(&[]);
        body.kill();
        drop(body);
        wait_until_held(&before, "every destructor has run");
        log.is(&["local", "link"]);
    });
}

#[test]
fn rule_10_a_pending_exit_does_not_strike_the_next_body() {
    run("rule_10_a_pending_exit_does_not_strike_the_next_body", || {
        let struck = Rc::new(Cell::new(0));
        for _ in 0..4 {
            let body = spawn(|| drop(catch_unwind(|| sleep(LONG))));
            yield_now();
            let next: Vec<_> = (0..3)
                .map(|_| {
                    let struck = struck.clone();
                    spawn(move || {
                        let caught = catch_unwind(|| shield(yield_now));
                        let again = catch_unwind(yield_now);
                        let exits =
                            [caught, again].into_iter().filter_map(Result::err).filter(|thrown| is_exit(&**thrown));
                        struck.set(struck.get() + exits.count());
                    })
                })
                .collect();
            body.kill();
            next.into_iter().for_each(|next| next.join().unwrap());
        }
        assert_eq!(struck.get(), 0);
    });
}

#[test]
fn rule_10_green_locals_are_dropped_before_the_next_body() {
    green_local! {
        static NUMBER: Cell<u32> = Cell::new(7);
        static KEPT: RefCell<Vec<Box<dyn std::any::Any>>> = RefCell::default()
    }
    run("rule_10_green_locals_are_dropped_before_the_next_body", || {
        let log = Log::new();
        for _ in 0..3 {
            let log = log.clone();
            spawn_n(move || {
                log.add(NUMBER.get().to_string());
                NUMBER.set(1);
                KEPT.with_borrow_mut(|kept| kept.push(Box::new(log.on_drop("dropped"))));
            });
        }
        yield_now();
        log.is(&["7", "dropped", "7", "dropped", "7", "dropped"]);
    });
}

#[test]
fn rule_10_unclaimed_results_may_panic_in_drop() {
    run("rule_10_unclaimed_results_may_panic_in_drop", || {
        keep_reports();
        let before = held();
        let drops = Drops::default();
        for _ in 0..3 {
            let result = panics_at_drop(&drops);
            // The result is dropped by the greenlet of the body.
            drop(spawn(move || result));
            let result = panics_at_drop(&drops);
            spawn_n(move || result);
        }
        // The result is dropped with the handle.
        let result = panics_at_drop(&drops);
        let ended = spawn(move || result);
        sleep(SHORT);
        assert!(catch_unwind(AssertUnwindSafe(move || drop(ended))).is_ok());
        assert_eq!(drops.count(), 7);
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_10_links_may_panic_when_called_or_dropped() {
    run("rule_10_links_may_panic_when_called_or_dropped", || {
        keep_reports();
        let before = held();
        let drops = Drops::default();
        let body = spawn(yield_now);
        let (called, taken_back, kept) = (panics_at_drop(&drops), panics_at_drop(&drops), panics_at_drop(&drops));
        body.link(move |_| drop(called));
        let link = body.link(move |_| drop(taken_back));
        body.link(move |_| drop(kept));
        assert!(catch_unwind(AssertUnwindSafe(|| body.unlink(link))).unwrap());
        body.join().unwrap();
        assert_eq!(drops.count(), 3);
        assert!(reports().len() >= 2);
        assert_eq!(held(), before);
    });
}

/// The ways in which a body ends before it has begun.
const CANCELS: [fn(&GreenThread<()>); 3] = [
    |unstarted| assert_eq!(unstarted.kill(), KillOutcome::Cancelled),
    |unstarted| assert!(unstarted.cancel()),
    // Killed by a body that runs before it, possibly on the same stack.
    |unstarted| _ = unstarted.kill(),
];

type Spawn = fn(Box<dyn FnOnce()>) -> GreenThread<()>;

/// The ways to spawn a body: into the run queue, and with a delay.
const UNSTARTED: [Spawn; 2] = [|body| spawn(body), |body| spawn_after(LONG, body)];

#[test]
fn rule_10_a_body_killed_before_its_start_fires_its_links() {
    run("rule_10_a_body_killed_before_its_start_fires_its_links", || {
        let before = held();
        for make in UNSTARTED {
            for (index, cancel) in CANCELS.into_iter().enumerate() {
                let log = Log::new();
                let (never, links, errors, waits) = (log.clone(), log.clone(), log.clone(), log.clone());
                // Runs first, and cancels the body in `victim`, if there is one.
                let victim = Rc::new(RefCell::new(None::<Rc<GreenThread<()>>>));
                let taken = victim.clone();
                let first = spawn(move || taken.take().into_iter().for_each(|unstarted| cancel(&unstarted)));
                let unstarted = Rc::new(make(Box::new(move || never.add("never"))));
                unstarted.link(move |result| {
                    assert!(result.as_ref().is_err_and(|error| error.is_kill()));
                    links.add("link");
                });
                unstarted.link_error(move |_| errors.add("link of errors"));
                if index == 2 {
                    victim.replace(Some(unstarted.clone()));
                    first.join().unwrap();
                } else {
                    cancel(&unstarted);
                    log.is(&["link", "link of errors"]);
                    first.join().unwrap();
                }
                assert!(unstarted.wait().unwrap_err().is_kill());
                waits.add("waiter");
                log.is(&["link", "link of errors", "waiter"]);
            }
        }
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_10_a_body_killed_before_its_start_wakes_its_waiters() {
    run("rule_10_a_body_killed_before_its_start_wakes_its_waiters", || {
        let later = Rc::new(spawn_after(LONG, || ()));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let later = later.clone();
                spawn(move || later.wait().is_err_and(|error| error.is_kill()))
            })
            .collect();
        yield_now();
        later.kill();
        for waiter in waiters {
            assert!(greenhub::with_timeout(Duration::from_secs(60), || waiter.join().unwrap()).unwrap());
        }
    });
}

#[test]
fn rule_10_a_body_killed_before_its_start_may_panic_in_drop() {
    run("rule_10_a_body_killed_before_its_start_may_panic_in_drop", || {
        keep_reports();
        let before = held();
        let drops = Drops::default();
        for make in UNSTARTED {
            for cancel in CANCELS {
                let captured = panics_at_drop(&drops);
                let unstarted = make(Box::new(move || drop(captured)));
                assert!(catch_unwind(AssertUnwindSafe(|| cancel(&unstarted))).is_ok());
                assert!(unstarted.join().unwrap_err().is_kill());
            }
        }
        assert_eq!(drops.count(), 6);
        assert_eq!(held(), before);
    });
}

#[test]
fn rule_10_a_stack_is_not_reused_while_links_and_destructors_wait() {
    run("rule_10_a_stack_is_not_reused_while_links_and_destructors_wait", || {
        let before = held();
        let intact = Rc::new(Cell::new(0));
        let waits = |intact: &Rc<Cell<usize>>, number: usize| {
            let intact = intact.clone();
            move || {
                let frame = std::hint::black_box([number; 64]);
                // The other bodies begin on stacks of their own.
                (0..4).for_each(|_| spawn_n(|| _ = std::hint::black_box([usize::MAX; 512])));
                sleep(SHORT);
                if std::hint::black_box(&frame).iter().all(|&place| place == number) {
                    intact.set(intact.get() + 1);
                }
            }
        };
        for number in 0..20 {
            let (link, mut result) = (waits(&intact, number), Some(waits(&intact, number)));
            let body = spawn(move || OnDrop(move || result.take().into_iter().for_each(|waits| waits())));
            body.link(move |_| link());
        }
        while intact.get() < 40 {
            sleep(SHORT);
        }
        assert_eq!(held(), before);
    });
}
