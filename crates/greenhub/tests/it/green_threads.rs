//! Green threads: spawns, waits, links and kills.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support::counting::allocated;
use crate::support::green::{
    Drops, LONG, Log, OnDrop, PARK_POINTS, SHORT, held, keep_reports, quiet_panic, reports, wait_until_held,
};
use crate::support::random::Rng;
use crate::support::{assert_succeeded, in_child, is_child, rerun, run};
use greenhub::greenthread::{KillOutcome, current_id};
use greenhub::hub::{LoopError, LoopErrorKind};
use greenhub::sync::Event;
use greenhub::thread::yield_now;
use greenhub::{
    Builder, GreenError, GreenThread, shield, sleep, spawn, spawn_after, spawn_after_local, spawn_n, with_timeout,
};
use hub_core::internal::{KillProgress, kill_progress};

#[test]
fn spawning_on_the_main_loop_does_not_switch() {
    run("spawning_on_the_main_loop_does_not_switch", || {
        let log = Log::new();
        let callback = log.clone();
        greenhub::get_hub().schedule_once(Duration::ZERO, move || {
            let bodies = ["spawn", "spawn_n", "spawn_after", "a deferred"].map(|name| {
                let log = callback.clone();
                move || log.add(name)
            });
            let [first, second, third, fourth] = bodies;
            drop(spawn(first));
            spawn_n(second);
            drop(spawn_after(Duration::ZERO, third));
            drop(greenhub::future::defer_to_green_thread(fourth));
            callback.add("the callback");
        });
        sleep(SHORT);
        assert_eq!((log.len(), log.position("the callback")), (5, Some(0)));
    });
}

#[test]
fn spawned_bodies_run_later_in_order() {
    run("spawned_bodies_run_later_in_order", || {
        let log = Log::new();
        for name in ["first", "second", "third"] {
            let log = log.clone();
            spawn_n(move || log.add(name));
        }
        log.add("parent");
        yield_now();
        log.add("parent again");
        log.is(&["parent", "first", "second", "third", "parent again"]);
    });
}

#[test]
fn several_waiters_can_wait_repeatedly_for_one_value() {
    run("several_waiters_can_wait_repeatedly_for_one_value", || {
        let one = Rc::new(spawn(|| {
            sleep(SHORT);
            String::from("value")
        }));
        let waiters: Vec<_> = (0..5)
            .map(|_| {
                let one = one.clone();
                spawn(move || (one.wait().unwrap(), one.wait().unwrap()))
            })
            .collect();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), ("value".to_owned(), "value".to_owned()));
        }
        assert_eq!(one.wait().unwrap(), "value");
        assert_eq!(Rc::into_inner(one).unwrap().join().unwrap(), "value");
    });
}

#[test]
fn waiters_are_woken_in_order_of_arrival() {
    run("waiters_are_woken_in_order_of_arrival", || {
        let log = Log::new();
        let one = Rc::new(spawn(|| sleep(SHORT)));
        let waiters: Vec<_> = ["a", "b", "c", "d"]
            .map(|name| {
                let (one, log) = (one.clone(), log.clone());
                spawn(move || {
                    one.wait().unwrap();
                    log.add(name);
                })
            })
            .into();
        yield_now();
        // A killed waiter does not disturb the others.
        waiters[0].kill();
        one.wait().unwrap();
        yield_now();
        log.is(&["b", "c", "d"]);
    });
}

#[test]
fn a_waiter_that_is_killed_leaves_the_others_in_order() {
    run("a_waiter_that_is_killed_leaves_the_others_in_order", || {
        let names = ["a", "b", "c", "d"];
        for killed in 0..names.len() {
            let log = Log::new();
            let one = Rc::new(spawn(|| sleep(SHORT)));
            let waiters = names.map(|name| {
                let (one, log) = (one.clone(), log.clone());
                spawn(move || {
                    one.wait().unwrap();
                    log.add(name);
                })
            });
            yield_now();
            waiters[killed].kill();
            one.wait().unwrap();
            yield_now();
            let others: Vec<_> = (0..names.len()).filter(|one| *one != killed).map(|one| names[one]).collect();
            log.is(&others);
        }
    });
}

#[test]
fn a_shielded_timeout_is_not_a_pending_kill() {
    run("a_shielded_timeout_is_not_a_pending_kill", || {
        let event = Rc::new(Event::new());
        let waits = event.clone();
        let green = spawn(move || with_timeout(SHORT, || shield(|| waits.wait())).is_err());
        sleep(4 * SHORT);
        let number = green.id().unwrap();
        assert_eq!(kill_progress(number), KillProgress::None);
        green.kill();
        assert_eq!(kill_progress(number), KillProgress::HeldBack);
        event.send(()).unwrap();
        let _ = green.join();
    });
}

#[test]
fn a_shielded_timeout_does_not_hide_a_refused_kill() {
    run("a_shielded_timeout_does_not_hide_a_refused_kill", || {
        keep_reports();
        let (refused, event) = (Rc::new(Event::new()), Rc::new(Event::new()));
        let (ends, waits) = (refused.clone(), event.clone());
        let green = spawn(move || {
            while catch_unwind(AssertUnwindSafe(|| ends.wait())).is_err() {}
            with_timeout(SHORT, || shield(|| waits.wait())).is_err()
        });
        yield_now();
        assert_eq!(green.kill(), KillOutcome::Refused);
        refused.send(()).unwrap();
        sleep(4 * SHORT);
        assert_eq!(kill_progress(green.id().unwrap()), KillProgress::Refused);
        event.send(()).unwrap();
        let _ = green.join();
    });
}

#[test]
fn waits_that_are_left_early_take_no_memory() {
    in_child(|| {
        let one = Rc::new(spawn(|| sleep(LONG)));
        let round = || {
            let waiters = [(); 100].map(|()| one.clone()).map(|one| spawn(move || one.wait_for_end().is_ok()));
            yield_now();
            waiters.iter().for_each(|waiter| _ = waiter.kill());
        };
        // Fills the pools.
        (0..4).for_each(|_| round());
        let before = allocated();
        (0..10).for_each(|_| round());
        let grown = allocated().1 - before.1;
        assert!(grown < 4096, "{grown} bytes for 1000 waits");
    });
}

#[test]
fn the_high_water_mark_counts_the_touched_pages_of_the_stack() {
    const TOUCHED: usize = 100_000;
    #[inline(never)]
    fn touch() {
        std::hint::black_box([1_u8; TOUCHED]);
    }
    run("the_high_water_mark_counts_the_touched_pages_of_the_stack", || {
        let size = 256 << 10;
        let green = Builder::new().stack_size(size).spawn(|| {
            yield_now();
            touch();
            yield_now();
        });
        let green = green.unwrap();
        assert_eq!(green.stack_high_water(), None, "the green thread has not begun");
        yield_now();
        let before = green.stack_high_water().expect("the green thread has begun");
        yield_now();
        let after = green.stack_high_water().expect("the green thread has not ended");
        assert!(0 < before && before < TOUCHED && TOUCHED < after && after <= 2 * size, "{before}, then {after}");
        green.wait().unwrap();
        assert_eq!(green.stack_high_water(), None, "the green thread has ended");
    });
}

#[test]
fn each_wait_gives_the_same_error() {
    run("each_wait_gives_the_same_error", || {
        let one: GreenThread<()> = spawn(|| quiet_panic("out of luck"));
        let texts = [one.wait(), one.wait()].map(|result| result.unwrap_err().to_string());
        assert_eq!(texts, ["the green thread panicked: out of luck"; 2]);
    });
}

#[test]
fn a_panic_in_spawn_n_is_reported() {
    run("a_panic_in_spawn_n_is_reported", || {
        keep_reports();
        spawn_n(|| quiet_panic("no waiter"));
        yield_now();
        let reports = reports();
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(reports[0].contains("no waiter") && reports[0].contains("green_threads.rs"), "{reports:?}");
    });
}

#[test]
fn spawn_after_outlives_its_spawner() {
    run("spawn_after_outlives_its_spawner", || {
        let begin = Instant::now();
        let later = spawn(|| spawn_after(Duration::from_millis(20), Instant::now)).join().unwrap();
        assert!(!later.is_started());
        assert!(later.join().unwrap() - begin >= Duration::from_millis(20));
    });
}

#[test]
fn spawn_after_local_ends_with_its_spawner() {
    run("spawn_after_local_ends_with_its_spawner", || {
        let ran = Rc::new(Cell::new(0));
        let later = |ran: &Rc<Cell<i32>>| {
            let ran = ran.clone();
            spawn_after_local(SHORT, move || ran.set(ran.get() + 1))
        };
        let ran_too = ran.clone();
        let orphan = spawn(move || later(&ran_too)).join().unwrap();
        assert_eq!(orphan.join().unwrap(), None);
        assert_eq!(ran.get(), 0);
        // The body runs if its spawner lives on.
        assert_eq!(later(&ran).join().unwrap(), Some(()));
        assert_eq!(ran.get(), 1);
    });
}

#[test]
fn the_end_of_a_spawner_ends_its_local_greenlet_before_the_delay() {
    run("the_end_of_a_spawner_ends_its_local_greenlet_before_the_delay", || {
        const AN_HOUR: Duration = Duration::from_secs(3600);
        let orphan = spawn(|| spawn_after_local(AN_HOUR, || ())).join().unwrap();
        assert_eq!(orphan.join().unwrap(), None);
    });
}

#[test]
fn a_zero_sleep_goes_round_robin() {
    run("a_zero_sleep_goes_round_robin", || {
        let log = Rc::new(RefCell::new(Vec::new()));
        let all: Vec<_> = (0..3)
            .map(|name| {
                let log = log.clone();
                spawn(move || {
                    for round in 0..4 {
                        log.borrow_mut().push((round, name));
                        sleep(Duration::ZERO);
                    }
                })
            })
            .collect();
        for one in all {
            one.join().unwrap();
        }
        let expected: Vec<_> = (0..4).flat_map(|round| (0..3).map(move |name| (round, name))).collect();
        assert_eq!(*log.borrow(), expected);
    });
}

#[test]
fn links_run_after_the_result_and_before_the_waiters() {
    run("links_run_after_the_result_and_before_the_waiters", || {
        let log = Log::new();
        let its_id = Rc::new(Cell::new(current_id()));
        let one = Rc::new(spawn({
            let (log, its_id) = (log.clone(), its_id.clone());
            move || {
                its_id.set(current_id());
                sleep(SHORT);
                log.add("body");
                7
            }
        }));
        let waiter = spawn({
            let (log, one) = (log.clone(), one.clone());
            move || {
                one.wait().unwrap();
                log.add("waiter");
            }
        });
        yield_now();
        for name in ["first link", "second link"] {
            let (log, its_id) = (log.clone(), its_id.clone());
            one.link(move |result| {
                assert_eq!(*result.as_ref().unwrap(), 7);
                assert_eq!(current_id(), its_id.get(), "in the context of the green thread that ends");
                // A waiter woken before the links would run here.
                yield_now();
                log.add(name);
            });
        }
        waiter.join().unwrap();
        log.is(&["body", "first link", "second link", "waiter"]);
    });
}

#[test]
fn a_join_while_links_run_waits_for_them() {
    run("a_join_while_links_run_waits_for_them", || {
        let log = Log::new();
        let one = spawn(|| String::from("value"));
        one.link({
            let log = log.clone();
            move |result| {
                sleep(SHORT);
                log.add(result.as_ref().unwrap().clone());
            }
        });
        yield_now();
        assert!(one.is_finished());
        assert_eq!(one.join().unwrap(), "value");
        log.add("joined");
        log.is(&["value", "joined"]);
    });
}

#[test]
fn a_link_may_ask_for_the_result() {
    run("a_link_may_ask_for_the_result", || {
        let log = Log::new();
        let one = Rc::new(spawn(|| 7));
        one.link({
            let (log, one) = (log.clone(), Rc::downgrade(&one));
            move |_| log.add(one.upgrade().unwrap().wait().unwrap().to_string())
        });
        one.wait().unwrap();
        log.is(&["7"]);
    });
}

#[test]
fn a_link_to_an_ended_green_thread_runs_at_once() {
    run("a_link_to_an_ended_green_thread_runs_at_once", || {
        let one = spawn(|| 3);
        one.wait().unwrap();
        let seen = Rc::new(Cell::new(0));
        let to = seen.clone();
        let link = one.link(move |result| to.set(*result.as_ref().unwrap()));
        assert_eq!(seen.get(), 3);
        assert!(!one.unlink(link));
    });
}

#[test]
fn a_link_added_by_a_link_runs_once() {
    run("a_link_added_by_a_link_runs_once", || {
        let log = Log::new();
        let one = Rc::new(spawn(|| ()));
        let (inner, inner_log) = (Rc::downgrade(&one), log.clone());
        one.link(move |_| {
            inner_log.add("outer");
            let log = inner_log.clone();
            inner.upgrade().unwrap().link(move |_| log.add("inner"));
        });
        one.wait().unwrap();
        yield_now();
        log.is(&["outer", "inner"]);
    });
}

#[test]
fn a_failing_link_does_not_stop_the_others() {
    run("a_failing_link_does_not_stop_the_others", || {
        keep_reports();
        let log = Log::new();
        let one = spawn(|| ());
        one.link(|_| quiet_panic("a bad link"));
        let to = log.clone();
        one.link(move |_| to.add("good link"));
        one.wait().unwrap();
        one.link(|_| quiet_panic("another bad link"));
        log.is(&["good link"]);
        let reports = reports();
        assert_eq!(reports.len(), 2, "{reports:?}");
        assert!(reports[0].contains("a bad link") && reports[1].contains("another bad link"), "{reports:?}");
    });
}

#[test]
fn unlink_returns_whether_the_link_existed() {
    run("unlink_returns_whether_the_link_existed", || {
        let drops = Drops::default();
        let one = spawn(|| ());
        let held = drops.one();
        let link = one.link(move |_| {
            let _held = &held;
            panic!("taken back");
        });
        assert!(one.unlink(link));
        assert_eq!(drops.count(), 1);
        assert!(!one.unlink(link));
        one.wait().unwrap();
        assert!(!one.unlink(link));
    });
}

#[test]
fn a_link_may_unlink_later_links() {
    run("a_link_may_unlink_later_links", || {
        let log = Log::new();
        let one = Rc::new(spawn(|| ()));
        let second = Rc::new(Cell::new(None));
        one.link({
            let (log, one, second) = (log.clone(), Rc::downgrade(&one), second.clone());
            move |_| {
                let taken = one.upgrade().unwrap().unlink(second.get().unwrap());
                log.add(taken.to_string());
            }
        });
        second.set(Some(one.link(|_| panic!("taken back"))));
        let to = log.clone();
        one.link(move |_| to.add("third"));
        one.wait().unwrap();
        log.is(&["true", "third"]);
    });
}

#[test]
fn kill_unwinds_its_target_before_it_returns() {
    run("kill_unwinds_its_target_before_it_returns", || {
        let log = Log::new();
        let to = log.clone();
        let one = spawn(move || {
            let _end = to.on_drop("unwound");
            sleep(LONG);
            to.add("never");
        });
        yield_now();
        assert_eq!(one.kill(), KillOutcome::Ended);
        log.add("kill returned");
        log.is(&["unwound", "kill returned"]);
        assert!(one.is_finished());
        assert!(one.join().unwrap_err().is_kill());
    });
}

#[test]
fn the_killer_is_queued_before_the_target_unwinds() {
    run("the_killer_is_queued_before_the_target_unwinds", || {
        let log = Log::new();
        let to = log.clone();
        let target = spawn(move || {
            let _end = OnDrop(move || {
                let log = to.clone();
                spawn_n(move || log.add("spawned while unwinding"));
            });
            sleep(LONG);
        });
        yield_now();
        let to = log.clone();
        spawn_n(move || to.add("ready before"));
        target.kill();
        log.add("killer");
        yield_now();
        log.is(&["ready before", "killer", "spawned while unwinding"]);
    });
}

#[test]
fn kill_of_an_unstarted_green_thread_drops_its_body_and_runs_its_links() {
    run("kill_of_an_unstarted_green_thread_drops_its_body_and_runs_its_links", || {
        let before = held();
        for delay in [Duration::ZERO, LONG] {
            let (log, drops) = (Log::new(), Drops::default());
            let (to, inside) = (log.clone(), drops.one());
            let one = Rc::new(spawn_after(delay, move || {
                let _inside = &inside;
                to.add("body");
            }));
            let to = log.clone();
            one.link(move |result| to.add(format!("link: {}", result.as_ref().unwrap_err())));
            let waiter = spawn({
                let one = one.clone();
                move || one.wait()
            });
            if delay != Duration::ZERO {
                yield_now();
            }
            assert_eq!(one.kill(), KillOutcome::Cancelled);
            assert_eq!(drops.count(), 1);
            assert!(waiter.join().unwrap().unwrap_err().is_kill());
            assert_eq!(one.kill(), KillOutcome::Dead);
            log.is(&["link: the green thread was killed"]);
        }
        assert_eq!(held(), before);
    });
}

#[test]
fn kill_of_an_ended_green_thread_keeps_its_result() {
    run("kill_of_an_ended_green_thread_keeps_its_result", || {
        let one = spawn(|| 5);
        one.wait().unwrap();
        assert_eq!(one.kill(), KillOutcome::Dead);
        assert_eq!(one.kill_with(GreenError::custom("late")), KillOutcome::Dead);
        assert_eq!(one.join().unwrap(), 5);
    });
}

#[test]
fn kill_with_hands_its_error_to_the_waiters() {
    run("kill_with_hands_its_error_to_the_waiters", || {
        let one = Rc::new(spawn(|| sleep(LONG)));
        let waiter = spawn({
            let one = one.clone();
            move || one.wait()
        });
        yield_now();
        assert_eq!(one.kill_with(GreenError::custom("shut down")), KillOutcome::Ended);
        for error in [waiter.join().unwrap(), one.wait()].map(Result::unwrap_err) {
            assert!(matches!(error, GreenError::Custom(_)), "{error:?}");
            assert_eq!(error.to_string(), "shut down");
        }
    });
}

#[test]
fn cancel_works_only_before_the_start() {
    run("cancel_works_only_before_the_start", || {
        let before = held();
        for delay in [Duration::ZERO, LONG] {
            let early = spawn_after(delay, || 1);
            assert!(early.cancel());
            assert!(!early.cancel());
            assert!(early.join().unwrap_err().is_kill());
        }
        let late = spawn(|| {
            sleep(SHORT);
            22
        });
        yield_now();
        assert!(!late.cancel());
        assert_eq!(late.wait().unwrap(), 22);
        assert!(!late.cancel());
        drop(late);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_swallowed_kill_is_thrown_again_at_the_next_park() {
    run("a_swallowed_kill_is_thrown_again_at_the_next_park", || {
        let log = Log::new();
        let to = log.clone();
        let one = spawn(move || {
            assert!(catch_unwind(|| sleep(LONG)).is_err());
            to.add("swallowed");
            assert!(catch_unwind(yield_now).is_err());
            to.add("swallowed again");
            yield_now();
            to.add("never");
        });
        yield_now();
        assert_eq!(one.kill(), KillOutcome::Ended);
        log.is(&["swallowed", "swallowed again"]);
        assert!(one.join().unwrap_err().is_kill());

        // A green thread that does not park again keeps its result.
        let stubborn = spawn(|| catch_unwind(|| sleep(LONG)).is_err());
        yield_now();
        assert_eq!(stubborn.kill(), KillOutcome::Ended);
        assert!(stubborn.join().unwrap());
    });
}

#[test]
fn a_kill_of_the_current_green_thread_unwinds_at_the_call() {
    run("a_kill_of_the_current_green_thread_unwinds_at_the_call", || {
        let log = Log::new();
        let me = Rc::new(RefCell::new(None::<GreenThread<()>>));
        let (to, myself) = (log.clone(), me.clone());
        let one = spawn(move || {
            let _end = to.on_drop("unwound");
            myself.borrow().as_ref().unwrap().kill_with(GreenError::custom("enough"));
            to.add("never");
        });
        *me.borrow_mut() = Some(one);
        yield_now();
        let one = me.borrow_mut().take().unwrap();
        assert_eq!(one.join().unwrap_err().to_string(), "enough");
        log.is(&["unwound"]);
    });
}

#[test]
fn a_wake_up_queued_before_a_kill_is_kept_and_the_kill_strikes_at_the_next_wait() {
    run("a_wake_up_queued_before_a_kill_is_kept_and_the_kill_strikes_at_the_next_wait", || {
        let log = Log::new();
        let source = Rc::new(spawn(yield_now));
        let to = log.clone();
        let waits = source.clone();
        let target = spawn(move || {
            let _end = to.on_drop("unwound");
            waits.wait().unwrap();
            to.add("woken");
            sleep(LONG);
            to.add("went on");
        });
        yield_now();
        // The source ends now and wakes the target, which is killed before it runs.
        let killer = spawn(move || target.kill());
        source.wait().unwrap();
        assert_eq!(killer.join().unwrap(), KillOutcome::Ended);
        sleep(SHORT);
        log.is(&["woken", "unwound"]);
    });
}

#[test]
fn a_kill_strikes_a_ready_green_thread_that_yielded() {
    run("a_kill_strikes_a_ready_green_thread_that_yielded", || {
        let log = Log::new();
        let to = log.clone();
        let target = spawn(move || {
            yield_now();
            to.add("went on");
        });
        yield_now();
        assert_eq!(target.kill(), KillOutcome::Ended);
        log.is(&[]);
    });
}

#[test]
fn an_exit_is_silent_and_a_panic_is_reported_once() {
    run("an_exit_is_silent_and_a_panic_is_reported_once", || {
        keep_reports();
        let killed = spawn(|| sleep(LONG));
        yield_now();
        killed.kill();
        drop(killed);
        let unstarted = spawn(|| ());
        unstarted.kill();
        drop(unstarted);
        yield_now();
        assert_eq!(reports(), [] as [String; 0]);

        // A joined panic is not reported.
        let taken: GreenThread<()> = spawn(|| quiet_panic("taken"));
        assert!(taken.join().is_err());
        assert_eq!(reports(), [] as [String; 0]);

        let failed: GreenThread<()> = spawn(|| quiet_panic("a panic"));
        yield_now();
        assert_eq!(reports(), [] as [String; 0], "a join may still take it");
        drop(failed);
        drop(spawn(|| Err::<(), _>(io::Error::other("an error"))));
        drop(spawn(|| Err::<(), _>(LoopError::from(LoopErrorKind::Panicking))));
        yield_now();
        let reports = reports();
        assert_eq!(reports.len(), 3, "{reports:?}");
        assert!(reports[0].contains("a panic") && reports[1].contains("an error"), "{reports:?}");
        assert!(reports[2].contains("while panicking"), "{reports:?}");
    });
}

#[test]
fn waiting_for_the_current_green_thread_is_an_error() {
    run("waiting_for_the_current_green_thread_is_an_error", || {
        let me = Rc::new(RefCell::new(None::<Rc<GreenThread<()>>>));
        let error = Rc::new(RefCell::new(None));
        let (myself, to) = (me.clone(), error.clone());
        let one = Rc::new(spawn(move || {
            let me = myself.borrow().clone().unwrap();
            *to.borrow_mut() = me.wait().err();
        }));
        *me.borrow_mut() = Some(one.clone());
        one.wait().unwrap();
        assert!(matches!(*error.borrow(), Some(GreenError::Deadlock)));
        me.take();
    });
}

#[test]
fn an_interrupt_reaches_main_and_an_abort_reaches_the_waiters() {
    run("an_interrupt_reaches_main_and_an_abort_reaches_the_waiters", || {
        let before = held();
        let sleeper = Rc::new(spawn(|| {
            sleep(SHORT);
            1
        }));
        let waiter = spawn({
            let sleeper = sleeper.clone();
            move || sleeper.wait()
        });
        spawn_n(|| greenhub::get_hub().interrupt());
        // The interrupt ends main's wait.
        let error = sleeper.wait().unwrap_err();
        assert!(matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::Interrupted), "{error:?}");
        // The next wait restarts the loop with its timers intact.
        assert_eq!(waiter.join().unwrap().unwrap(), 1);
        drop(sleeper);

        // An aborted wait ends the green thread with the error, which its waiters get.
        let one = Rc::new(spawn(|| sleep(LONG)));
        let waiter = spawn({
            let one = one.clone();
            move || one.wait()
        });
        yield_now();
        let hub = greenhub::get_hub();
        hub.abort_wait().unwrap();
        let error = waiter.join().unwrap().unwrap_err();
        assert!(matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::Aborted), "{error:?}");
        drop(one);
        assert_eq!(held(), before);
    });
}

#[test]
fn is_started_and_is_finished_follow_the_state() {
    run("is_started_and_is_finished_follow_the_state", || {
        let one = spawn(|| sleep(SHORT));
        assert_eq!((one.is_started(), one.is_finished()), (false, false));
        yield_now();
        assert_eq!((one.is_started(), one.is_finished()), (true, false));
        one.wait().unwrap();
        assert_eq!((one.is_started(), one.is_finished()), (true, true));
        let killed = spawn(|| ());
        killed.kill();
        assert!(killed.is_finished());
    });
}

#[test]
fn a_sleep_keeps_its_length_after_another_failed() {
    run("a_sleep_keeps_its_length_after_another_failed", || {
        let failing: GreenThread<()> = spawn(|| {
            sleep(SHORT);
            quiet_panic("in between")
        });
        let begin = Instant::now();
        sleep(Duration::from_millis(30));
        assert!(begin.elapsed() >= Duration::from_millis(30));
        assert!(failing.join().is_err());
        let begin = Instant::now();
        sleep(Duration::from_millis(30));
        assert!(begin.elapsed() >= Duration::from_millis(30));
    });
}

#[test]
fn ten_thousand_sleepers_all_wake() {
    run("ten_thousand_sleepers_all_wake", || {
        let woken = Rc::new(Cell::new(0));
        let all: Vec<_> = (0..10_000)
            .map(|index| {
                let woken = woken.clone();
                spawn(move || {
                    sleep(Duration::from_micros(index % 100 * 100));
                    woken.set(woken.get() + 1);
                })
            })
            .collect();
        for one in all {
            one.join().unwrap();
        }
        assert_eq!(woken.get(), 10_000);
    });
}

#[test]
fn a_kill_at_every_park_point_leaks_nothing() {
    if !is_child() {
        return assert_succeeded(&rerun("a_kill_at_every_park_point_leaks_nothing", |_| ()));
    }
    for point in PARK_POINTS {
        run("a_kill_at_every_park_point_leaks_nothing", move || {
            let before = held();
            let drops = Drops::default();
            let inside = drops.one();
            let one = spawn(move || {
                let _inside = inside;
                (point.park)();
                panic!("went on");
            });
            sleep(SHORT);
            let killed = one.kill();
            assert_eq!(
                killed,
                if point.masked { KillOutcome::Scheduled } else { KillOutcome::Ended },
                "{}",
                point.name
            );
            assert!(one.join().unwrap_err().is_kill(), "{}", point.name);
            assert_eq!(drops.count(), 1, "{}", point.name);
            wait_until_held(&before, point.name);
        });
    }
}

#[test]
fn a_kill_takes_effect_even_if_the_killer_has_a_pending_exit() {
    run("a_kill_takes_effect_even_if_the_killer_has_a_pending_exit", || {
        let drops = Drops::default();
        let inside = drops.one();
        let target = spawn(move || {
            let _inside = inside;
            sleep(LONG);
        });
        let killer = spawn(move || {
            assert!(catch_unwind(|| sleep(LONG)).is_err());
            // The killer's own exit unwinds from this call.
            let caught = catch_unwind(AssertUnwindSafe(|| target.kill()));
            assert!(caught.is_err());
            target
        });
        yield_now();
        killer.kill();
        let target = killer.join().unwrap();
        assert!(target.join().unwrap_err().is_kill());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_kill_by_main_loses_no_error_of_the_loop() {
    run("a_kill_by_main_loses_no_error_of_the_loop", || {
        let target = spawn(|| {
            let _end = OnDrop(|| greenhub::get_hub().interrupt());
            sleep(LONG);
        });
        let other = spawn(|| sleep(LONG));
        yield_now();
        let error = {
            target.kill();
            target.join().unwrap_err();
            // The loop was interrupted. Main gets the error at its next wait, whatever it does before.
            for _ in 0..1000 {
                spawn_n(|| ());
            }
            let kill = other.kill();
            assert_eq!(kill, KillOutcome::Ended);
            greenhub::spawn(|| sleep(SHORT)).join().unwrap_err()
        };
        assert!(matches!(&error, GreenError::Loop(error) if error.kind() == LoopErrorKind::Interrupted), "{error:?}");
    });
}

#[test]
fn a_delayed_body_whose_destructor_blocks_is_dropped_once() {
    run("a_delayed_body_whose_destructor_blocks_is_dropped_once", || {
        let before = held();
        let drops = Drops::default();
        let inside = drops.one();
        let blocks = OnDrop(|| sleep(SHORT));
        let cancelled = Rc::new(spawn_after(LONG, move || drop((inside, blocks))));
        let killer = spawn({
            let cancelled = cancelled.clone();
            move || cancelled.kill()
        });
        yield_now();
        assert!(!cancelled.is_finished());
        assert_eq!(cancelled.kill(), KillOutcome::Cancelled);
        assert!(cancelled.wait().unwrap_err().is_kill());
        assert_eq!(killer.join().unwrap(), KillOutcome::Cancelled);
        assert_eq!(drops.count(), 1);
        drop(cancelled);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_queued_body_whose_destructor_blocks_does_not_affect_others() {
    run("a_queued_body_whose_destructor_blocks_does_not_affect_others", || {
        let before = held();
        let inside = OnDrop(|| sleep(Duration::from_millis(20)));
        let cancelled = Rc::new(RefCell::new(None));
        let slot: Rc<RefCell<Option<Rc<GreenThread<()>>>>> = cancelled.clone();
        // The killer runs before its target, whose entry stays in the run queue.
        let killer = spawn(move || {
            let target = slot.borrow().clone().unwrap();
            target.kill()
        });
        *cancelled.borrow_mut() = Some(Rc::new(spawn(move || drop(inside))));
        yield_now();
        yield_now();
        let target = cancelled.take().unwrap();
        assert!(!target.is_finished());
        let bystanders: Vec<_> = (0..4)
            .map(|index| {
                spawn(move || {
                    sleep(Duration::from_millis(30));
                    index
                })
            })
            .collect();
        yield_now();
        assert_eq!(target.kill(), KillOutcome::Cancelled);
        for (index, bystander) in bystanders.into_iter().enumerate() {
            assert_eq!(bystander.join().unwrap(), index);
        }
        assert_eq!(killer.join().unwrap(), KillOutcome::Cancelled);
        assert!(target.wait().unwrap_err().is_kill());
        drop(target);
        assert_eq!(held(), before);
    });
}

#[test]
fn handles_may_be_dropped_at_every_stage() {
    run("handles_may_be_dropped_at_every_stage", || {
        let before = held();
        let drops = Drops::default();
        let make = || {
            let value = drops.one();
            spawn(move || {
                sleep(SHORT);
                value
            })
        };
        drop(make());
        let parked = make();
        yield_now();
        drop(parked);
        let ended = make();
        // The link only borrows the result.
        ended.link(|result| assert!(result.is_ok()));
        sleep(Duration::from_millis(20));
        assert!(ended.is_finished());
        drop(ended);
        // Drops the handle in a link of the same green thread.
        let slot = Rc::new(RefCell::new(None));
        let one = make();
        let inner = slot.clone();
        one.link(move |_| drop(inner.take()));
        *slot.borrow_mut() = Some(one);
        sleep(Duration::from_millis(20));
        // Drops the handle in the body of the same green thread.
        let slot = Rc::new(RefCell::new(None::<GreenThread<()>>));
        let inner = slot.clone();
        let inside = drops.one();
        *slot.borrow_mut() = Some(spawn(move || {
            drop(inner.take());
            yield_now();
            drop(inside);
        }));
        sleep(SHORT);
        drop(slot);
        assert_eq!(drops.count(), 5);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_result_stays_in_place_while_links_borrow_it() {
    run("a_result_stays_in_place_while_links_borrow_it", || {
        let one = Rc::new(spawn(|| vec![1, 2, 3]));
        let seen = Rc::new(RefCell::new(Vec::new()));
        let to = seen.clone();
        one.link(move |result| {
            let result = result.as_ref().unwrap();
            sleep(Duration::from_millis(20));
            to.borrow_mut().extend(result.iter().copied());
        });
        yield_now();
        // A second link, called from main, ends before the first.
        one.link(|result| assert!(result.is_ok()));
        let value = Rc::into_inner(one).unwrap().join().unwrap();
        assert_eq!(value, [1, 2, 3]);
        drop(value);
        sleep(Duration::from_millis(30));
        assert_eq!(*seen.borrow(), [1, 2, 3]);
    });
}

#[test]
fn overlapping_links_leave_the_result_for_join() {
    run("overlapping_links_leave_the_result_for_join", || {
        let one = Rc::new(spawn(|| 9));
        one.wait().unwrap();
        let lookers: Vec<_> = [5, 20]
            .map(|millis| {
                let one = one.clone();
                spawn(move || _ = one.link(move |_| sleep(Duration::from_millis(millis))))
            })
            .into();
        for looker in lookers {
            looker.join().unwrap();
        }
        assert_eq!(Rc::into_inner(one).unwrap().join().unwrap(), 9);
    });
}

#[test]
fn results_and_payloads_with_hostile_destructors_are_contained() {
    run("results_and_payloads_with_hostile_destructors_are_contained", || {
        struct Hostile(Drops, bool);
        impl Drop for Hostile {
            fn drop(&mut self) {
                drop(self.0.one());
                if self.1 {
                    quiet_panic("in a destructor");
                }
                sleep(SHORT);
            }
        }
        struct Payload(usize);
        impl Drop for Payload {
            fn drop(&mut self) {
                if self.0 > 0 {
                    quiet_panic(Payload(self.0 - 1));
                }
                sleep(SHORT);
            }
        }
        keep_reports();
        let before = held();
        let drops = Drops::default();
        for panics in [false, true] {
            let value = Hostile(drops.clone(), panics);
            // No join takes these results: the first has no handle, the second drops its handle after the end.
            spawn_n(move || value);
            let value = Hostile(drops.clone(), panics);
            let one = spawn(move || value);
            sleep(Duration::from_millis(20));
            drop(one);
            sleep(Duration::from_millis(20));
        }
        for depth in [0, 1] {
            spawn_n(move || quiet_panic(Payload(depth)));
            let one: GreenThread<()> = spawn(move || quiet_panic(Payload(depth)));
            assert!(matches!(one.join(), Err(GreenError::Panic(_))));
        }
        assert_eq!(drops.count(), 4);
        assert_eq!(held(), before);
    });
}

#[test]
fn an_error_whose_text_or_destructor_panics_does_no_harm() {
    #[derive(Debug)]
    struct Bad;
    impl std::fmt::Display for Bad {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            quiet_panic("no text")
        }
    }
    impl std::error::Error for Bad {}
    impl Drop for Bad {
        fn drop(&mut self) {
            quiet_panic("no end");
        }
    }
    run("an_error_whose_text_or_destructor_panics_does_no_harm", || {
        keep_reports();
        let before = held();
        let one = spawn(|| sleep(LONG));
        yield_now();
        one.kill_with(GreenError::custom(Bad));
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(one)));
        assert!(dropped.is_ok());
        // The green thread swallows its exit, so that only the pending exit holds the error.
        let one = spawn(|| drop(catch_unwind(|| sleep(LONG))));
        yield_now();
        one.kill_with(GreenError::custom(Bad));
        one.join().unwrap();
        spawn_n(|| Err::<(), Box<dyn std::error::Error>>(Box::new(Bad)));
        yield_now();
        assert_eq!(held(), before);
        assert_eq!(reports().len(), 2, "{:?}", reports());
    });
}

#[test]
fn no_body_runs_twice_under_random_kills() {
    run("no_body_runs_twice_under_random_kills", || {
        let before = held();
        let mut random = Rng::with_seed(1);
        let drops = Drops::default();
        let runs: Rc<RefCell<Vec<u32>>> = Rc::default();
        let mut made = 0;
        let mut all: Vec<GreenThread<usize>> = Vec::new();
        for _ in 0..3000 {
            match random.u64(..6) {
                0..3 => {
                    let (runs, inside, index) = (runs.clone(), drops.one(), made);
                    runs.borrow_mut().push(0);
                    made += 1;
                    let naps = random.u64(..4);
                    let body = move || {
                        let _inside = inside;
                        runs.borrow_mut()[index] += 1;
                        for nap in 0..naps {
                            sleep(Duration::from_micros(nap * 50));
                        }
                        index
                    };
                    all.push(spawn_after(Duration::from_micros(random.u64(..3) * 100), body));
                }
                3 if !all.is_empty() => {
                    let index = random.usize(..all.len());
                    all[index].kill();
                }
                4 if !all.is_empty() => {
                    let index = random.usize(..all.len());
                    drop(all.swap_remove(index));
                }
                _ => yield_now(),
            }
        }
        for one in all {
            match one.join() {
                Ok(index) => assert_eq!(runs.borrow()[index], 1),
                Err(error) => assert!(error.is_kill(), "{error}"),
            }
        }
        sleep(Duration::from_millis(20));
        assert!(runs.borrow().iter().all(|&runs| runs <= 1));
        assert_eq!(drops.count(), made);
        assert_eq!(held(), before);
    });
}
