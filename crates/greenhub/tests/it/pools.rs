//! Pools of green threads and of resources.

mod random_programs;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::green;
use crate::support::green::{LONG, Log, SHORT, held, keep_reports, quiet_panic, reports};
use crate::support::random::Rng;
use crate::support::run;
use greenhub::greenpool::GreenPile;
use greenhub::greenthread::{KillOutcome, current_id};
use greenhub::pools::Pool;
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenPool, sleep, spawn, spawn_after_local, with_timeout};

/// Counts the workers that run at present, and the highest count so far.
#[derive(Clone, Default)]
struct AtWork(Rc<Cell<(usize, usize)>>);

impl AtWork {
    fn work(&self, steps: usize) {
        let (now, most) = self.0.get();
        self.0.set((now + 1, most.max(now + 1)));
        for _ in 0..steps {
            yield_now();
        }
        let (now, most) = self.0.get();
        self.0.set((now - 1, most));
    }

    fn most(&self) -> usize {
        self.0.get().1
    }
}

fn yields(count: usize) {
    for _ in 0..count {
        yield_now();
    }
}

#[test]
fn at_most_the_size_of_a_pool_runs_at_once() {
    run("at_most_the_size_of_a_pool_runs_at_once", || {
        let (pool, at_work) = (GreenPool::new(4), AtWork::default());
        let greens: Vec<_> = (0..20)
            .map(|n| {
                let at_work = at_work.clone();
                pool.spawn(move || {
                    at_work.work(3);
                    n
                })
                .unwrap()
            })
            .collect();
        assert_eq!(pool.running(), 4, "the last was let in when only four were left");
        assert_eq!(pool.free(), 0);
        pool.wait_all().unwrap();
        assert_eq!(at_work.most(), 4);
        for (n, green) in greens.into_iter().enumerate() {
            assert!(green.is_finished());
            assert_eq!(green.join().unwrap(), n);
        }
        assert_eq!((pool.running(), pool.free(), pool.waiting()), (0, 4, 0));
    });
}

#[test]
fn work_of_a_pool_begins_in_the_order_of_spawning() {
    run("work_of_a_pool_begins_in_the_order_of_spawning", || {
        let (pool, log) = (GreenPool::new(3), Log::new());
        for n in 0..10 {
            let log = log.clone();
            pool.spawn_n(move || {
                log.add(n.to_string());
                yields(n % 3);
            })
            .unwrap();
        }
        pool.wait_all().unwrap();
        log.is(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    });
}

#[test]
fn waiting_spawners_are_counted_after_a_shrink() {
    run("waiting_spawners_are_counted_after_a_shrink", || {
        let pool = GreenPool::new(2);
        for _ in 0..2 {
            pool.spawn_n(|| sleep(LONG)).unwrap();
        }
        let own = pool.clone();
        let waiting = spawn(move || own.spawn_n(|| ()).unwrap());
        yield_now();
        assert_eq!(pool.waiting(), 1);
        pool.resize(1);
        assert_eq!((pool.waiting(), pool.free(), pool.running()), (1, -1, 2));
        waiting.kill();
        assert_eq!(pool.waiting(), 0);
        pool.kill_all();
        pool.wait_all().unwrap();
        assert_eq!((pool.free(), pool.running()), (1, 0));
    });
}

#[test]
fn a_worker_of_a_full_pool_runs_its_spawns_in_place() {
    run("a_worker_of_a_full_pool_runs_its_spawns_in_place", || {
        keep_reports();
        let pool = GreenPool::new(1);
        let own = pool.clone();
        let outer = pool.spawn(move || {
            let inner = own.spawn(current_id).unwrap();
            assert!(inner.is_finished());
            // A panic in place ends up in the handle.
            let failed = own.spawn(|| -> () { quiet_panic("inner") }).unwrap();
            assert!(matches!(failed.join(), Err(GreenError::Panic(panic)) if panic.message() == "inner"));
            own.spawn_n(|| -> () { quiet_panic("unjoined") }).unwrap();
            (inner.join().unwrap(), current_id())
        });
        let (inner, outer) = outer.unwrap().join().unwrap();
        assert_eq!(inner, outer);
        pool.wait_all().unwrap();
        assert_eq!((pool.running(), pool.free()), (0, 1));
        assert_eq!(reports().len(), 1);
        assert!(reports()[0].contains("unjoined"), "{:?}", reports());
    });
}

#[test]
fn an_exit_in_a_spawn_run_in_place_ends_the_worker() {
    run("an_exit_in_a_spawn_run_in_place_ends_the_worker", || {
        keep_reports();
        let (pool, log, before) = (GreenPool::new(1), Log::new(), held());
        let own = pool.clone();
        let seen = log.clone();
        let worker = pool
            .spawn(move || {
                let _end = seen.on_drop("worker unwound");
                let inner = seen.on_drop("inner unwound");
                let _unreached = own.spawn(move || {
                    let _inner = inner;
                    sleep(LONG);
                });
                seen.add("went on");
            })
            .unwrap();
        yield_now();
        assert_eq!(worker.kill(), KillOutcome::Ended);
        assert!(worker.join().unwrap_err().is_kill());
        log.is(&["inner unwound", "worker unwound"]);
        // A timeout of the worker unwinds the nested spawn too, up to the timeout's scope.
        let own = pool.clone();
        let timed = pool.spawn(move || {
            let timed = with_timeout(SHORT, || own.spawn(|| sleep(LONG)).map(drop));
            timed.is_err()
        });
        assert!(timed.unwrap().join().unwrap());
        assert_eq!(pool.free(), 1);
        assert_eq!(reports(), [""; 0]);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_worker_releases_its_permit_however_it_ends() {
    run("a_worker_releases_its_permit_however_it_ends", || {
        let (pool, before) = (GreenPool::new(2), held());
        let failed = pool.spawn(|| -> () { quiet_panic("fails") }).unwrap();
        let parked = pool.spawn(|| sleep(LONG)).unwrap();
        assert_eq!(pool.free(), 0);
        yields(2);
        assert!(failed.join().is_err());
        assert_eq!(pool.free(), 1);
        let unstarted = pool.spawn(|| unreachable!()).unwrap();
        assert_eq!(pool.free(), 0);
        assert_eq!(unstarted.kill(), KillOutcome::Cancelled);
        assert_eq!(pool.free(), 1);
        assert_eq!(parked.kill(), KillOutcome::Ended);
        assert_eq!((pool.free(), pool.running()), (2, 0));
        pool.wait_all().unwrap();
        drop((unstarted, parked));
        assert_eq!(held(), before);
    });
}

#[test]
fn a_spawner_that_times_out_or_is_killed_takes_no_permit() {
    run("a_spawner_that_times_out_or_is_killed_takes_no_permit", || {
        let (pool, before) = (GreenPool::new(1), held());
        let busy = pool.spawn(|| sleep(LONG)).unwrap();
        let timed = with_timeout(SHORT, || pool.spawn_n(|| unreachable!()));
        assert!(timed.is_err());
        let own = pool.clone();
        let killed = spawn(move || own.spawn_n(|| unreachable!()));
        yield_now();
        assert_eq!(pool.waiting(), 1);
        killed.kill();
        let own = pool.clone();
        let next = spawn(move || own.spawn(|| "let in").unwrap().join().unwrap());
        // Granted and killed in the same turn: the spawner keeps its permit, and the next one gets it after the job.
        let own = pool.clone();
        let chosen = spawn(move || own.spawn_n(|| ()));
        let own = pool.clone();
        let behind = spawn(move || own.spawn(|| "behind").unwrap().join().unwrap());
        yields(2);
        assert_eq!(pool.waiting(), 3);
        busy.kill();
        assert_eq!(next.join().unwrap(), "let in");
        chosen.kill();
        assert_eq!(behind.join().unwrap(), "behind");
        pool.wait_all().unwrap();
        assert_eq!((pool.free(), pool.waiting()), (1, 0));
        drop((busy, killed, chosen));
        assert_eq!(held(), before);
    });
}

#[test]
fn a_spawner_killed_after_its_grant_keeps_its_permit() {
    run("a_spawner_killed_after_its_grant_keeps_its_permit", || {
        let pool = GreenPool::new(0);
        let spawned = Rc::new(Cell::new(false));
        let first = {
            let (own, spawned) = (pool.clone(), spawned.clone());
            spawn(move || own.spawn_n(move || spawned.set(true)))
        };
        let second = {
            let own = pool.clone();
            spawn(move || own.spawn(|| 2).unwrap().join().unwrap())
        };
        yield_now();
        // The first spawner is granted a permit, and killed before it runs.
        pool.resize(1);
        assert_eq!((pool.running(), pool.waiting()), (1, 1));
        first.kill();
        assert_eq!(second.join().unwrap(), 2);
        assert!(spawned.get());
        pool.wait_all().unwrap();
        assert_eq!((pool.free(), pool.waiting()), (1, 0));
    });
}

#[test]
fn a_worker_cannot_wait_for_all_of_its_pool() {
    run("a_worker_cannot_wait_for_all_of_its_pool", || {
        let pool = GreenPool::new(2);
        let own = pool.clone();
        let inside = pool.spawn(move || {
            assert!(own.contains_current());
            own.wait_all()
        });
        let error = inside.unwrap().join().unwrap().unwrap_err();
        assert!(matches!(error, GreenError::Deadlock));
        assert!(error.to_string().contains("will never terminate"));
        assert!(!pool.contains_current());
    });
}

#[test]
fn wait_all_returns_after_waiting_spawners_have_run() {
    run("wait_all_returns_after_waiting_spawners_have_run", || {
        let (pool, ran) = (GreenPool::new(1), Rc::new(Cell::new(0)));
        let work = move |ran: &Rc<Cell<u32>>| {
            let ran = ran.clone();
            move || {
                yield_now();
                ran.set(ran.get() + 1);
            }
        };
        pool.spawn_n(work(&ran)).unwrap();
        let spawners: Vec<_> = (0..5)
            .map(|_| {
                let (pool, work) = (pool.clone(), work(&ran));
                spawn(move || pool.spawn_n(work).unwrap())
            })
            .collect();
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let pool = pool.clone();
                spawn(move || {
                    pool.wait_all().unwrap();
                    pool.running()
                })
            })
            .collect();
        yield_now();
        assert_eq!(pool.waiting(), 5);
        pool.wait_all().unwrap();
        assert_eq!((pool.running(), ran.get()), (0, 6));
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap(), 0);
        }
        assert!(spawners.iter().all(|spawner| spawner.is_finished()));
    });
}

#[test]
fn a_resize_kills_no_worker_and_growing_admits_spawners_at_once() {
    run("a_resize_kills_no_worker_and_growing_admits_spawners_at_once", || {
        let pool = GreenPool::new(1);
        let gate = Rc::new(Cell::new(false));
        let work = |gate: &Rc<Cell<bool>>| {
            let gate = gate.clone();
            move || {
                while !gate.get() {
                    yield_now();
                }
            }
        };
        pool.spawn_n(work(&gate)).unwrap();
        let spawners: Vec<_> = (0..3)
            .map(|_| {
                let (pool, work) = (pool.clone(), work(&gate));
                spawn(move || pool.spawn(work).unwrap())
            })
            .collect();
        yield_now();
        assert_eq!((pool.running(), pool.waiting()), (1, 3));
        pool.resize(3);
        assert_eq!((pool.running(), pool.waiting()), (3, 1), "while the first still runs");
        yield_now();
        assert_eq!(spawners.iter().filter(|spawner| spawner.is_finished()).count(), 2);
        pool.resize(1);
        assert_eq!((pool.running(), pool.free(), pool.size()), (3, -2, 1));
        gate.set(true);
        pool.wait_all().unwrap();
        for spawner in spawners {
            spawner.join().unwrap().join().unwrap();
        }
        assert_eq!(pool.free(), 1);
    });
}

#[test]
fn a_pool_of_size_zero_admits_no_spawner_until_it_grows() {
    run("a_pool_of_size_zero_admits_no_spawner_until_it_grows", || {
        let pool = GreenPool::new(0);
        assert!(with_timeout(SHORT, || pool.spawn_n(|| ())).is_err());
        let own = pool.clone();
        let waiting = spawn(move || own.spawn(|| "admitted").unwrap().join());
        yields(3);
        assert!(!waiting.is_finished());
        pool.wait_all().unwrap();
        pool.resize(1);
        assert_eq!(waiting.join().unwrap().unwrap(), "admitted");
    });
}

#[test]
fn spawn_n_reports_a_failure_and_releases_the_permit() {
    run("spawn_n_reports_a_failure_and_releases_the_permit", || {
        keep_reports();
        let pool = GreenPool::new(1);
        pool.spawn_n(|| -> () { quiet_panic("lost") }).unwrap();
        pool.wait_all().unwrap();
        yield_now();
        assert_eq!(pool.free(), 1);
        assert_eq!(reports().len(), 1);
        assert!(reports()[0].contains("lost"), "{:?}", reports());
    });
}

#[test]
fn a_spawn_on_a_full_pool_from_the_main_loop_is_an_error() {
    run("a_spawn_on_a_full_pool_from_the_main_loop_is_an_error", || {
        let pool = GreenPool::new(1);
        let busy = pool.spawn(|| sleep(LONG)).unwrap();
        let (own, seen) = (pool.clone(), Rc::new(RefCell::new(None)));
        let own_seen = seen.clone();
        let _timer = greenhub::get_hub().schedule(Duration::ZERO, move || {
            *own_seen.borrow_mut() = Some(own.spawn_n(|| ()).unwrap_err().to_string());
        });
        while seen.borrow().is_none() {
            sleep(SHORT);
        }
        assert!(seen.take().unwrap().contains("main loop"));
        busy.kill();
        assert_eq!((pool.free(), pool.waiting()), (1, 0));
    });
}

#[test]
fn kill_all_ends_running_workers_and_admits_waiting_spawners() {
    run("kill_all_ends_running_workers_and_admits_waiting_spawners", || {
        let (pool, log, before) = (GreenPool::new(3), Log::new(), held());
        let unwound = log.on_drop("unwound");
        let parked = pool
            .spawn(move || {
                let _unwound = unwound;
                sleep(LONG);
            })
            .unwrap();
        yield_now();
        let own = pool.clone();
        let killer = pool
            .spawn(move || {
                own.kill_all();
                // The kill of the calling worker strikes at its next switch.
                yield_now();
                unreachable!();
            })
            .unwrap();
        let dropped = log.on_drop("dropped");
        let unstarted = pool.spawn(move || drop(dropped)).unwrap();
        let own = pool.clone();
        let spawner = spawn(move || own.spawn(|| "let in").unwrap().join().unwrap());
        pool.wait_all().unwrap();
        for ended in [parked, unstarted] {
            assert!(ended.join().unwrap_err().is_kill());
        }
        let killer: Result<(), _> = killer.join();
        assert!(killer.unwrap_err().is_kill());
        log.is(&["dropped", "unwound"]);
        assert_eq!(spawner.join().unwrap(), "let in");
        pool.kill_all();
        pool.wait_all().unwrap();
        assert_eq!(held(), before);
    });
}

#[test]
fn a_linked_worker_ends_with_its_partner_until_unlinked() {
    run("a_linked_worker_ends_with_its_partner_until_unlinked", || {
        let pool = GreenPool::new(4);
        for unlinked in [false, true] {
            let partner = Rc::new(pool.spawn(|| sleep(LONG)).unwrap());
            let failing = pool
                .spawn(|| -> () {
                    yield_now();
                    quiet_panic("fate")
                })
                .unwrap();
            let linked = partner.clone();
            let link = failing.link(move |result| {
                if let Err(error) = result {
                    linked.kill_with(error.clone());
                }
            });
            if unlinked {
                assert!(failing.unlink(link));
            }
            assert!(failing.join().is_err());
            yield_now();
            assert_eq!(partner.is_finished(), !unlinked);
            if unlinked {
                partner.kill();
            } else {
                assert!(matches!(partner.wait(), Err(GreenError::Panic(panic)) if panic.message() == "fate"));
            }
        }
        pool.wait_all().unwrap();
    });
}

#[test]
fn mapping_gives_results_in_order_and_reads_lazily() {
    run("mapping_gives_results_in_order_and_reads_lazily", || {
        let (pool, read) = (GreenPool::new(3), Rc::new(Cell::new(0_usize)));
        let counted = read.clone();
        let source = (0..20_usize).inspect(move |_| counted.set(counted.get() + 1));
        let mut results = pool.imap(source.zip(0..), |(a, b): (usize, usize)| {
            yields(20 - a);
            a * 10 + b
        });
        assert_eq!(read.get(), 0);
        for n in 0..20 {
            assert_eq!(results.next().unwrap().unwrap(), n * 11);
            assert!(read.get() <= n + 3, "{} were read for {}", read.get(), n + 1);
        }
        assert!(results.next().is_none());
        assert!(results.next().is_none());
        assert!(pool.imap([0; 0], |_| ()).next().is_none());
        pool.wait_all().unwrap();
    });
}

#[test]
fn a_failed_item_fails_at_its_position() {
    run("a_failed_item_fails_at_its_position", || {
        let pool = GreenPool::new(2);
        let fails = |n: i32| if n == 1 { quiet_panic("one") } else { n };
        let results: Vec<_> = pool.imap(0..4, fails).map(|result| result.map_err(|error| error.to_string())).collect();
        assert_eq!(results, [Ok(0), Err("the green thread panicked: one".into()), Ok(2), Ok(3)]);
        let mut pile = GreenPile::new(2);
        for n in 0..4 {
            pile.spawn(move || fails(n)).unwrap();
        }
        let results: Vec<_> = pile.by_ref().map(|result| result.ok()).collect();
        assert_eq!(results, [Some(0), None, Some(2), Some(3)]);
    });
}

#[test]
fn a_panic_of_the_source_reaches_the_caller_of_next() {
    run("a_panic_of_the_source_reaches_the_caller_of_next", || {
        let pool = GreenPool::new(2);
        let source = (0..3).inspect(|n| {
            if *n == 1 {
                quiet_panic("source")
            }
        });
        let asking = spawn({
            let pool = pool.clone();
            move || pool.imap(source, |n| n).map(Result::unwrap).collect::<Vec<_>>()
        });
        assert!(matches!(asking.join(), Err(GreenError::Panic(panic)) if panic.message() == "source"));
        pool.wait_all().unwrap();
        assert_eq!(pool.free(), 2);
    });
}

#[test]
fn mapping_uses_the_permits_of_its_pool() {
    run("mapping_uses_the_permits_of_its_pool", || {
        let (pool, at_work) = (GreenPool::new(3), AtWork::default());
        let worker = at_work.clone();
        pool.spawn_n(move || worker.work(5)).unwrap();
        let worker = at_work.clone();
        let mut results = pool.imap(0..6, move |n| {
            worker.work(2);
            n
        });
        assert_eq!(results.next().unwrap().unwrap(), 0);
        assert!(pool.running() > 0);
        assert_eq!(results.by_ref().count(), 5);
        assert_eq!(at_work.most(), 3);
        // In a worker of a full pool, the items run in place.
        let (pool, own) = (GreenPool::new(1), pool);
        drop(own);
        let own = pool.clone();
        let inside = pool.spawn(move || own.imap(0..3, |n| (n, current_id())).map(Result::unwrap).collect::<Vec<_>>());
        let inside = inside.unwrap().join().unwrap();
        assert_eq!(inside.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(inside.iter().map(|(_, id)| *id).collect::<HashSet<_>>().len(), 1);
    });
}

#[test]
fn wait_all_of_a_pool_includes_the_items_of_a_mapping() {
    run("wait_all_of_a_pool_includes_the_items_of_a_mapping", || {
        let (pool, begun, done) = (GreenPool::new(3), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (begins, ends) = (begun.clone(), done.clone());
        let mut results = pool.imap(0..9, move |n| {
            begins.set(begins.get() + 1);
            (0..n).for_each(|_| yield_now());
            ends.set(ends.get() + 1);
        });
        results.next().unwrap().unwrap();
        assert!(pool.running() > 0, "others are in flight");
        pool.wait_all().unwrap();
        assert_eq!((pool.running(), begun.get(), done.get()), (0, 3, 3));
        // Items that had not begun are not waited for; `next` reads them later.
        assert!(results.all(|result| result.is_ok()));
        assert_eq!(done.get(), 9);
    });
}

#[test]
fn a_timeout_during_mapping_loses_no_item() {
    run("a_timeout_during_mapping_loses_no_item", || {
        let (pool, before) = (GreenPool::new(2), held());
        let busy = pool.spawn(|| sleep(LONG)).unwrap();
        let second = pool.spawn(|| sleep(LONG)).unwrap();
        let mut results = pool.imap(0..4, |n| {
            sleep(SHORT);
            n
        });
        // The first timeout strikes the wait for a permit, the later ones the wait for a result.
        assert!(with_timeout(Duration::from_micros(100), || results.next()).is_err());
        busy.kill();
        let mut seen = Vec::new();
        loop {
            match with_timeout(Duration::from_millis(2), || results.next()) {
                Ok(Some(result)) => seen.push(result.unwrap()),
                Ok(None) => break,
                Err(_) => {}
            }
        }
        assert_eq!(seen, [0, 1, 2, 3]);
        second.kill();
        pool.wait_all().unwrap();
        drop((busy, second, results));
        assert_eq!(held(), before);
    });
}

#[test]
fn piles_give_results_in_the_order_of_spawning_and_do_not_mix() {
    run("piles_give_results_in_the_order_of_spawning_and_do_not_mix", || {
        let pool = GreenPool::new(4);
        let mut evens = GreenPile::with_pool(&pool);
        let mut odds = GreenPile::with_pool(&pool);
        for n in 0..50 {
            let pile = if n % 2 == 0 { &mut evens } else { &mut odds };
            pile.spawn(move || {
                yields(n * 7 % 5);
                n
            })
            .unwrap();
        }
        assert_eq!((odds.len(), odds.is_empty()), (25, false));
        assert!(evens.map(Result::unwrap).eq((0..50).step_by(2)));
        assert!(odds.map(Result::unwrap).eq((1..50).step_by(2)));
        assert!(GreenPile::<()>::new(1).next().is_none());
    });
}

#[test]
fn a_timed_out_spawn_of_a_pile_is_not_counted() {
    run("a_timed_out_spawn_of_a_pile_is_not_counted", || {
        let mut pile = GreenPile::new(2);
        let gate = Rc::new(Cell::new(false));
        for n in 0..2 {
            let gate = gate.clone();
            pile.spawn(move || {
                while !gate.get() {
                    sleep(SHORT);
                }
                n
            })
            .unwrap();
        }
        assert!(with_timeout(SHORT, || pile.spawn(|| unreachable!())).is_err());
        assert_eq!(pile.len(), 2);
        gate.set(true);
        for n in 2..10 {
            pile.spawn(move || n).unwrap();
        }
        assert!(pile.map(Result::unwrap).eq(0..10));
    });
}

#[test]
fn a_local_delayed_spawn_ends_with_its_worker() {
    run("a_local_delayed_spawn_ends_with_its_worker", || {
        let (pool, ran) = (GreenPool::new(1), Rc::new(Cell::new(false)));
        let seen = ran.clone();
        pool.spawn_n(move || drop(spawn_after_local(SHORT, move || seen.set(true)))).unwrap();
        pool.wait_all().unwrap();
        sleep(SHORT * 3);
        assert!(!ran.get());
    });
}

/// A reference model of a pool of size `size`, without any switching.
struct Model {
    size: usize,
    running: Vec<usize>,
    waiting: Vec<usize>,
}

impl Model {
    fn settle(&mut self) {
        while self.running.len() < self.size && !self.waiting.is_empty() {
            self.running.push(self.waiting.remove(0));
        }
    }
}

#[test]
fn a_pool_matches_its_model() {
    run("a_pool_matches_its_model", || {
        for seed in 1..100_u64 {
            let mut random = Rng::with_seed(seed);
            let before = held();
            let pool = GreenPool::new(2);
            let mut model = Model { size: 2, running: Vec::new(), waiting: Vec::new() };
            let began: Rc<RefCell<Vec<usize>>> = Rc::default();
            let ends: Rc<RefCell<HashSet<usize>>> = Rc::default();
            let mut spawners = Vec::new();
            for step in 0..80 {
                match random.usize(..6) {
                    0 | 1 => {
                        let number = spawners.len();
                        let (own, began, ends) = (pool.clone(), began.clone(), ends.clone());
                        let worker = move || {
                            began.borrow_mut().push(number);
                            while !ends.borrow().contains(&number) {
                                yield_now();
                            }
                        };
                        spawners.push(spawn(move || {
                            let worker = own.spawn(worker).unwrap();
                            let _kill = green::KillOnDrop(worker);
                            sleep(LONG);
                        }));
                        model.waiting.push(number);
                    }
                    // Kills a spawner and, through its `KillOnDrop`, the worker it has spawned.
                    2 if !spawners.is_empty() => {
                        let number = random.usize(..spawners.len());
                        spawners[number].kill();
                        model.running.retain(|running| *running != number);
                        model.waiting.retain(|waiting| *waiting != number);
                    }
                    3 if !model.running.is_empty() => {
                        let number = model.running.remove(random.usize(..model.running.len()));
                        ends.borrow_mut().insert(number);
                    }
                    4 => {
                        yields(40);
                        model.size = random.usize(..5);
                        pool.resize(model.size);
                    }
                    _ => yield_now(),
                }
                model.settle();
                // Not at every step, so that kills and ends also strike between a grant and the resumption.
                if random.usize(..3) != 0 {
                    continue;
                }
                yields(40);
                let real = (pool.running(), pool.waiting(), pool.free());
                let free = model.size as isize - model.running.len() as isize;
                let expected = (model.running.len(), model.waiting.len(), free);
                assert_eq!(real, expected, "seed {seed}, step {step}");
                // The permits belong to the earliest spawners.
                let has_begun = |number: &usize| began.borrow().contains(number);
                assert!(model.running.iter().all(has_begun), "seed {seed}, step {step}");
                assert!(!model.waiting.iter().any(has_begun), "seed {seed}, step {step}");
            }
            for spawner in &spawners {
                spawner.kill();
            }
            pool.wait_all().unwrap();
            drop(spawners);
            assert_eq!((pool.running(), pool.waiting()), (0, 0));
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}

/// Returns a pool of numbered resources, and the count of resources made.
fn numbered(size: usize) -> (Rc<Pool<usize>>, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    (Rc::new(Pool::new(size, move || Ok(count.fetch_add(1, Ordering::Relaxed)))), made)
}

#[test]
fn resources_are_made_up_to_a_limit_then_waited_for() {
    run("resources_are_made_up_to_a_limit_then_waited_for", || {
        let (pool, made) = numbered(2);
        assert!(pool.is_empty());
        let (one, two) = (pool.get().unwrap(), pool.get().unwrap());
        assert_eq!((one, two, pool.free(), pool.len()), (0, 1, 0, 2));
        let own = pool.clone();
        let waiting = spawn(move || *own.item().unwrap());
        yield_now();
        assert_eq!(pool.waiting(), 1);
        pool.put(two);
        assert!(!waiting.is_finished());
        assert_eq!(waiting.join().unwrap(), 1);
        pool.put(one);
        assert_eq!((pool.free(), pool.waiting(), made.load(Ordering::Relaxed)), (2, 0, 2));
        assert_eq!(pool.item().unwrap().into_inner(), 1);
        assert_eq!(pool.len(), 1);
    });
}

#[test]
fn free_resources_are_handed_out_oldest_first_unless_asked() {
    run("free_resources_are_handed_out_oldest_first_unless_asked", || {
        let (pool, _) = numbered(3);
        let newest = Pool::new(3, || Ok(9)).newest_first();
        for pool in [&pool, &newest] {
            let mut held: Vec<_> = (0..3).map(|_| pool.get().unwrap()).collect();
            held.clear();
            (0..3).for_each(|n| pool.put(n));
        }
        assert_eq!((0..3).map(|_| pool.get().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((0..3).map(|_| newest.get().unwrap()).collect::<Vec<_>>(), [2, 1, 0]);
    });
}

#[test]
fn a_slow_maker_respects_the_limit() {
    run("a_slow_maker_respects_the_limit", || {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let slow = move || {
            sleep(SHORT);
            Ok(count.fetch_add(1, Ordering::Relaxed))
        };
        let pool = Rc::new(Pool::new(4, slow));
        let users: Vec<_> = (0..10)
            .map(|_| {
                let pool = pool.clone();
                spawn(move || {
                    let _item = pool.item().unwrap();
                    sleep(SHORT);
                })
            })
            .collect();
        users.into_iter().for_each(|user| user.join().unwrap());
        assert_eq!((made.load(Ordering::Relaxed), pool.free(), pool.len()), (4, 4, 4));
    });
}

#[test]
fn a_failed_maker_passes_its_slot_to_the_next_waiter() {
    run("a_failed_maker_passes_its_slot_to_the_next_waiter", || {
        let before = held();
        let fails = Arc::new(AtomicUsize::new(0));
        let times = fails.clone();
        let pool = Rc::new(Pool::new(1, move || {
            sleep(SHORT);
            match times.fetch_add(1, Ordering::Relaxed) {
                0 => Err(io::Error::other("refused")),
                1 => quiet_panic("broken"),
                2 => {
                    sleep(LONG);
                    unreachable!()
                }
                n => Ok(n),
            }
        }));
        let users: Vec<_> = (0..4)
            .map(|_| {
                let pool = pool.clone();
                spawn(move || pool.item().map(|item| *item).map_err(|error| error.to_string()))
            })
            .collect();
        while fails.load(Ordering::Relaxed) < 3 {
            sleep(SHORT);
        }
        assert_eq!(pool.waiting(), 1);
        users[2].kill();
        let results: Vec<_> = users.into_iter().map(|user| user.join()).collect();
        assert_eq!(results[0].as_ref().unwrap().as_ref().unwrap_err(), "refused");
        assert!(matches!(&results[1], Err(GreenError::Panic(panic)) if panic.message() == "broken"));
        assert!(results[2].as_ref().unwrap_err().is_kill());
        assert_eq!(results[3].as_ref().unwrap().as_ref().unwrap(), &3);
        assert_eq!((pool.free(), pool.len()), (1, 1));
        drop(results);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_put_skips_waiters_that_have_left() {
    run("a_put_skips_waiters_that_have_left", || {
        let (pool, _) = numbered(1);
        let before = held();
        let item = pool.get().unwrap();
        let users: Vec<_> =
            (0..3)
                .map(|n| {
                    let pool = pool.clone();
                    spawn(move || {
                        if n == 2 { pool.get().map(drop).is_ok() } else { with_timeout(SHORT, || pool.get()).is_ok() }
                    })
                })
                .collect();
        sleep(SHORT * 3);
        users[2].kill();
        assert_eq!(pool.waiting(), 0);
        pool.put(item);
        assert_eq!((pool.free(), pool.len()), (1, 1));
        drop(users);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_user_killed_after_its_grant_passes_the_resource_on() {
    run("a_user_killed_after_its_grant_passes_the_resource_on", || {
        let (pool, made) = numbered(1);
        let item = pool.get().unwrap();
        let users: Vec<_> = (0..2)
            .map(|_| {
                let pool = pool.clone();
                spawn(move || *pool.item().unwrap())
            })
            .collect();
        yield_now();
        pool.put(item);
        users[0].kill();
        assert_eq!(users[1].wait().unwrap(), 0);
        assert_eq!((pool.free(), made.load(Ordering::Relaxed)), (1, 1));
    });
}

#[test]
fn shrinking_drops_returned_resources_and_growing_makes_room() {
    run("shrinking_drops_returned_resources_and_growing_makes_room", || {
        let (pool, _) = numbered(2);
        let (one, two) = (pool.get().unwrap(), pool.get().unwrap());
        pool.resize(1);
        assert_eq!((pool.free(), pool.size()), (-1, 1));
        pool.put(one);
        assert_eq!((pool.free(), pool.len()), (0, 1));
        pool.put(two);
        assert_eq!((pool.free(), pool.len()), (1, 1));
        pool.resize(2);
        assert_eq!(pool.free(), 2);
        let (_one, _two) = (pool.get().unwrap(), pool.get().unwrap());
        let own = pool.clone();
        let waiting = spawn(move || own.get().unwrap());
        yield_now();
        pool.resize(3);
        assert_eq!(waiting.join().unwrap(), 3);
        // A resize drops free resources above the new size at once.
        (0..3).for_each(|n| pool.put(n));
        pool.resize(0);
        assert!(pool.is_empty());
    });
}

#[test]
fn shrinking_keeps_a_resource_granted_to_a_waiter() {
    run("shrinking_keeps_a_resource_granted_to_a_waiter", || {
        let (pool, made) = numbered(1);
        for killed in [false, true] {
            let item = pool.get().unwrap();
            let own = pool.clone();
            let chosen = spawn(move || own.get().unwrap());
            yield_now();
            pool.put(item);
            pool.resize(0);
            if killed {
                chosen.kill();
            }
            let number = chosen.join().unwrap();
            pool.put(number);
            assert!(pool.is_empty());
            assert_eq!(made.load(Ordering::Relaxed), if killed { 2 } else { 1 });
            pool.resize(1);
        }
    });
}

#[test]
fn a_resource_is_handed_from_one_os_thread_to_another() {
    run("a_resource_is_handed_from_one_os_thread_to_another", || {
        let pool = Arc::new(Pool::new(1, || Ok(0)));
        let busy = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (pool, busy) = (pool.clone(), busy.clone());
                std::thread::spawn(move || {
                    for _ in 0..50 {
                        let mut item = pool.item().unwrap();
                        assert!(!busy.swap(true, Ordering::SeqCst));
                        *item += 1;
                        if n == 0 {
                            yield_now();
                        }
                        busy.store(false, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*pool.item().unwrap(), 150);
    });
}
