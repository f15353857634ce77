//! The semaphores: no permit is lost or created, and waiters are served in order of arrival.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::green;
use crate::support::green::{LONG, Log, SHORT, held, in_time, keep_reports, quiet_panic};
use crate::support::random::{Moment, Rng};
use crate::support::run;
use greenhub::greenthread::KillOutcome;
use greenhub::hub::{LoopError, LoopErrorKind};
use greenhub::sync::{BoundedSemaphore, CappedSemaphore, Semaphore, TooManyReleases};
use greenhub::thread::yield_now;
use greenhub::{GreenThread, get_hub, sleep, spawn, with_timeout};

fn permits(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count))
}

fn capped(count: usize, limit: usize) -> Arc<CappedSemaphore> {
    Arc::new(CappedSemaphore::new(count, limit).unwrap())
}

/// Lets every ready green thread run until it waits.
fn settle() {
    (0..5).for_each(|_| yield_now());
}

/// Spawns a green thread that acquires a permit and keeps it.
fn taker(semaphore: &Arc<Semaphore>) -> GreenThread<()> {
    let semaphore = semaphore.clone();
    let green = spawn(move || semaphore.acquire().unwrap());
    yield_now();
    green
}

/// Like [`taker`], for a bounded semaphore.
fn bounded_taker(semaphore: &Arc<BoundedSemaphore>) -> GreenThread<()> {
    let semaphore = semaphore.clone();
    let green = spawn(move || semaphore.acquire().unwrap());
    yield_now();
    green
}

#[test]
fn acquire_takes_one_or_waits_and_release_gives_one_back() {
    run("acquire_takes_one_or_waits_and_release_gives_one_back", || {
        let semaphore = Arc::new(Semaphore::default());
        assert!(!semaphore.locked());
        semaphore.acquire().unwrap();
        assert!(semaphore.locked());
        let green = taker(&semaphore);
        settle();
        assert!(!green.is_finished());
        semaphore.release();
        green.join().unwrap();
        assert!(semaphore.locked());
        semaphore.release();
        assert!(!semaphore.locked());
    });
}

#[test]
fn try_acquire_fails_without_a_permit() {
    let semaphore = Semaphore::new(1);
    assert!(semaphore.try_acquire());
    assert!(!semaphore.try_acquire());
    assert!(semaphore.try_access().is_none());
    semaphore.release();
    assert!(semaphore.try_access().is_some());
    assert!(!greenhub::hub::has_hub());
}

#[test]
fn release_never_switches() {
    run("release_never_switches", || {
        let (semaphore, log) = (permits(0), Log::new());
        for name in ["first", "second"] {
            let (semaphore, log) = (semaphore.clone(), log.clone());
            spawn(move || {
                semaphore.acquire().unwrap();
                log.add(name);
            });
        }
        settle();
        semaphore.release();
        log.is(&[]);
        settle();
        log.is(&["first"]);
        semaphore.release();
        settle();
        log.is(&["first", "second"]);
    });
}

#[test]
fn a_guard_releases_its_permit_however_it_is_dropped() {
    run("a_guard_releases_its_permit_however_it_is_dropped", || {
        keep_reports();
        let semaphore = permits(1);
        drop(semaphore.access().unwrap());
        drop(in_time(semaphore.access_timeout(SHORT)).expect("a permit is free"));
        let holds = semaphore.clone();
        let panics = spawn(move || {
            let _guard = holds.access().unwrap();
            quiet_panic("on purpose");
        });
        assert!(panics.join().is_err());
        let holds = semaphore.clone();
        let killed = spawn(move || {
            let _guard = holds.access().unwrap();
            sleep(LONG);
        });
        yield_now();
        assert!(in_time(semaphore.access_timeout(SHORT)).is_none());
        killed.kill();
        assert!(killed.join().is_err());
        assert_eq!(semaphore.balance(), 1);
    });
}

#[test]
fn two_contenders_get_equal_shares() {
    run("two_contenders_get_equal_shares", || {
        let semaphore = permits(1);
        let counts = [(); 2].map(|()| Rc::new(Cell::new(0u32)));
        let greens = counts.clone().map(|count| {
            let semaphore = semaphore.clone();
            spawn(move || {
                loop {
                    let _guard = semaphore.access().unwrap();
                    count.set(count.get() + 1);
                    yield_now();
                }
            })
        });
        for _ in 0..1000 {
            yield_now();
        }
        greens.iter().for_each(|green| _ = green.kill());
        let (one, other) = (counts[0].get(), counts[1].get());
        assert!(one > 100 && one.abs_diff(other) <= 1, "{one} {other}");
    });
}

#[test]
fn waiters_are_served_in_order_of_arrival() {
    run("waiters_are_served_in_order_of_arrival", || {
        let (semaphore, order) = (permits(0), Rc::new(RefCell::new(Vec::new())));
        for number in 0..10 {
            let (semaphore, order) = (semaphore.clone(), order.clone());
            spawn(move || {
                // Both forms wait in the same queue.
                match number % 2 {
                    0 => semaphore.acquire().unwrap(),
                    _ => assert!(in_time(semaphore.acquire_timeout(LONG)).is_some()),
                }
                order.borrow_mut().push(number);
            });
        }
        settle();
        (0..10).for_each(|_| semaphore.release());
        settle();
        assert_eq!(*order.borrow(), (0..10).collect::<Vec<_>>());
    });
}

/// The ways to release a permit.
const RELEASES: [fn(&Arc<BoundedSemaphore>); 2] = [
    // Through `Deref`, like a plain semaphore.
    |semaphore| Semaphore::release(semaphore),
    |semaphore| semaphore.release().unwrap(),
];

#[test]
fn a_blocking_newcomer_is_served_after_all_waiters() {
    run("a_blocking_newcomer_is_served_after_all_waiters", || {
        let forms: [fn(&Semaphore); 4] = [
            |semaphore| {
                semaphore.acquire().unwrap();
                semaphore.release();
            },
            |semaphore| {
                assert!(in_time(semaphore.acquire_timeout(LONG)).is_some());
                semaphore.release();
            },
            |semaphore| drop(semaphore.access().unwrap()),
            |semaphore| drop(in_time(semaphore.access_timeout(LONG)).unwrap()),
        ];
        for waiting in forms {
            for newcomer in forms {
                let (semaphore, log) = (permits(0), Log::new());
                let waiters = ["first", "second", "third"].map(|name| {
                    let (semaphore, log) = (semaphore.clone(), log.clone());
                    spawn(move || {
                        waiting(&semaphore);
                        log.add(name);
                    })
                });
                settle();
                // The permit is granted to the first waiter, which has not run yet.
                semaphore.release();
                newcomer(&semaphore);
                log.add("newcomer");
                log.is(&["first", "second", "third", "newcomer"]);
                waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
                assert_eq!(semaphore.balance(), 1);
            }
        }
    });
}

#[test]
fn a_granted_permit_is_not_free_for_a_newcomer() {
    run("a_granted_permit_is_not_free_for_a_newcomer", || {
        let newcomers: [fn(&Semaphore) -> bool; 4] = [
            Semaphore::try_acquire,
            |semaphore| semaphore.try_access().is_some(),
            |semaphore| in_time(semaphore.acquire_timeout(Duration::ZERO)).is_some(),
            |semaphore| in_time(semaphore.access_timeout(Duration::ZERO)).is_some(),
        ];
        for newcomer in newcomers {
            for release in RELEASES {
                let semaphore = Arc::new(BoundedSemaphore::new(1));
                assert!(semaphore.try_acquire());
                let waiter = bounded_taker(&semaphore);
                release(&semaphore);
                assert!(semaphore.locked());
                assert!(!newcomer(&semaphore));
                waiter.join().unwrap();
                assert_eq!(semaphore.balance(), 0);
            }
        }
    });
}

#[test]
fn a_dropped_guard_grants_its_permit_to_the_first_waiter() {
    run("a_dropped_guard_grants_its_permit_to_the_first_waiter", || {
        let semaphore = permits(1);
        let guard = semaphore.access().unwrap();
        let (first, second) = (taker(&semaphore), taker(&semaphore));
        drop(guard);
        assert!(!semaphore.try_acquire() && semaphore.try_access().is_none());
        settle();
        assert!(first.is_finished() && !second.is_finished());
        semaphore.release();
        second.join().unwrap();
        assert_eq!(semaphore.balance(), 0);
    });
}

#[test]
fn a_granted_permit_is_not_free_for_another_os_thread() {
    run("a_granted_permit_is_not_free_for_another_os_thread", || {
        let semaphore = permits(0);
        let waiter = taker(&semaphore);
        semaphore.release();
        // No green thread of this OS thread runs before the other OS thread has ended.
        let shared = semaphore.clone();
        let newcomer =
            std::thread::spawn(move || (shared.try_acquire(), in_time(shared.acquire_timeout(SHORT)).is_some()));
        assert_eq!(newcomer.join().unwrap(), (false, false));
        assert!(!waiter.is_finished());
        waiter.join().unwrap();
        assert_eq!(semaphore.balance(), 0);
    });
}

#[test]
fn a_newcomer_at_either_end_of_a_capped_semaphore_is_served_after_all_waiters() {
    run("a_newcomer_at_either_end_of_a_capped_semaphore_is_served_after_all_waiters", || {
        type End = fn(&CappedSemaphore);
        let acquires: [End; 2] = [
            |semaphore| semaphore.acquire().unwrap(),
            |semaphore| assert!(in_time(semaphore.acquire_timeout(LONG)).is_some()),
        ];
        let releases: [End; 2] = [
            |semaphore| semaphore.release().unwrap(),
            |semaphore| assert!(in_time(semaphore.release_timeout(LONG)).is_some()),
        ];
        for (ends, others, start) in [(acquires, releases, 0), (releases, acquires, 1)] {
            for newcomer in ends {
                for grant in others {
                    let (semaphore, log) = (capped(start, 1), Log::new());
                    let waiters = ["first", "second", "third"].map(|name| {
                        let (semaphore, log) = (semaphore.clone(), log.clone());
                        spawn(move || {
                            ends[0](&semaphore);
                            log.add(name);
                            grant(&semaphore);
                        })
                    });
                    settle();
                    grant(&semaphore);
                    newcomer(&semaphore);
                    log.add("newcomer");
                    log.is(&["first", "second", "third", "newcomer"]);
                    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
                }
            }
        }
    });
}

#[test]
fn a_granted_permit_of_a_capped_semaphore_is_not_free_for_a_newcomer() {
    run("a_granted_permit_of_a_capped_semaphore_is_not_free_for_a_newcomer", || {
        let newcomers: [fn(&CappedSemaphore) -> bool; 2] =
            [CappedSemaphore::try_acquire, |semaphore| in_time(semaphore.acquire_timeout(Duration::ZERO)).is_some()];
        let releases: [fn(&CappedSemaphore); 2] =
            [|semaphore| semaphore.release().unwrap(), |semaphore| assert!(semaphore.try_release())];
        for newcomer in newcomers {
            for release in releases {
                let semaphore = capped(0, 1);
                let acquires = semaphore.clone();
                let waiter = spawn(move || acquires.acquire().unwrap());
                settle();
                release(&semaphore);
                assert!(semaphore.locked());
                assert!(!newcomer(&semaphore));
                waiter.join().unwrap();
                assert_eq!(semaphore.balance(), 0);
            }
        }
    });
}

#[test]
fn a_killed_waiter_leaves_its_permit_to_the_next() {
    run("a_killed_waiter_leaves_its_permit_to_the_next", || {
        let semaphore = permits(0);
        let (first, second, third) = (taker(&semaphore), taker(&semaphore), taker(&semaphore));
        second.kill();
        assert!(second.join().unwrap_err().is_kill());
        semaphore.release();
        // The permit was granted before the kill, although the waiter has not run.
        first.kill();
        first.join().unwrap();
        semaphore.release();
        third.join().unwrap();
        assert_eq!(semaphore.balance(), 0);
    });
}

#[test]
fn a_permit_refused_by_its_waiter_is_regranted() {
    run("a_permit_refused_by_its_waiter_is_regranted", || {
        let semaphore = permits(0);
        let waits = semaphore.clone();
        let killed = spawn(move || waits.acquire().unwrap());
        let (waits, released) = (semaphore.clone(), semaphore.clone());
        let next = spawn(move || {
            // Main waits, and so does the killed green thread, whose exit leaves a gap in the queue.
            assert_eq!(killed.kill(), KillOutcome::Ended);
            get_hub().schedule(Duration::ZERO, move || {
                assert_eq!(released.balance(), -2);
                get_hub().abort();
                // From another OS thread, so that main does not see the wake-up before the loop ends.
                let released = released.clone();
                std::thread::spawn(move || released.release()).join().unwrap();
            });
            waits.acquire().unwrap();
        });
        let error = semaphore.acquire().unwrap_err();
        assert!(error.kind() == LoopErrorKind::Aborted, "{error}");
        assert!(!next.is_finished());
        assert!(!semaphore.try_acquire(), "the permit was freed, not granted");
        assert_eq!(semaphore.balance(), 0, "the next waiter has left the queue");
        next.join().unwrap();
    });
}

#[test]
fn acquire_times_out_and_leaves_the_queue() {
    run("acquire_times_out_and_leaves_the_queue", || {
        let (semaphore, before) = (permits(0), held());
        let begin = Instant::now();
        assert!(in_time(semaphore.acquire_timeout(SHORT)).is_none());
        assert!(begin.elapsed() >= SHORT);
        assert!(with_timeout(SHORT, || semaphore.acquire()).is_err());
        assert_eq!(semaphore.balance(), 0);
        semaphore.release();
        assert_eq!(semaphore.balance(), 1);
        assert!(in_time(semaphore.acquire_timeout(SHORT)).is_some());
        assert_eq!(held(), before);
    });
}

#[test]
fn many_timed_out_waiters_leave_no_gaps_in_the_queue() {
    run("many_timed_out_waiters_leave_no_gaps_in_the_queue", || {
        let semaphore = permits(0);
        let first = taker(&semaphore);
        for _ in 0..500 {
            assert!(in_time(semaphore.acquire_timeout(Duration::ZERO)).is_none());
        }
        let last = taker(&semaphore);
        assert_eq!(semaphore.balance(), -2);
        semaphore.release();
        first.join().unwrap();
        assert!(!last.is_finished());
        semaphore.release();
        last.join().unwrap();
    });
}

#[test]
fn the_balance_is_free_permits_minus_waiters() {
    run("the_balance_is_free_permits_minus_waiters", || {
        let semaphore = permits(3);
        assert_eq!(semaphore.balance(), 3);
        let all: Vec<_> = (0..6).map(|_| taker(&semaphore)).collect();
        assert_eq!(semaphore.balance(), -3);
        (0..6).for_each(|_| semaphore.release());
        assert_eq!(semaphore.balance(), 3);
        all.into_iter().for_each(|green| green.join().unwrap());
    });
}

#[test]
fn a_bounded_semaphore_is_not_released_above_its_start() {
    run("a_bounded_semaphore_is_not_released_above_its_start", || {
        let semaphore = BoundedSemaphore::new(2);
        assert!(matches!(semaphore.release(), Err(TooManyReleases { .. })));
        semaphore.acquire().unwrap();
        semaphore.release().unwrap();
        assert!(matches!(semaphore.release(), Err(TooManyReleases { .. })));
        let guard = semaphore.access().unwrap();
        semaphore.release().unwrap();
        // The excess release of a guard is not reported.
        drop(guard);
        assert_eq!(semaphore.balance(), 2);
    });
}

#[test]
fn a_capped_semaphore_waits_at_both_ends() {
    run("a_capped_semaphore_waits_at_both_ends", || {
        let semaphore = capped(1, 2);
        assert!(!semaphore.locked() && !semaphore.bounded());
        semaphore.release().unwrap();
        assert!(semaphore.bounded() && !semaphore.try_release());
        let releasing = semaphore.clone();
        let green = spawn(move || releasing.release());
        settle();
        assert!(!green.is_finished());
        assert_eq!(semaphore.balance(), 3);
        semaphore.acquire().unwrap();
        green.join().unwrap().unwrap();
        assert!(semaphore.try_acquire() && semaphore.try_acquire());
        assert!(semaphore.locked() && !semaphore.try_acquire());
        let acquiring = semaphore.clone();
        let green = spawn(move || acquiring.acquire());
        settle();
        assert_eq!(semaphore.balance(), -1);
        assert!(!green.is_finished());
        semaphore.release().unwrap();
        green.join().unwrap().unwrap();
        assert_eq!(semaphore.balance(), 0);
    });
}

#[test]
fn with_a_limit_of_zero_both_ends_meet() {
    run("with_a_limit_of_zero_both_ends_meet", || {
        let semaphore = capped(0, 0);
        assert!(semaphore.locked() && semaphore.bounded());
        let releasing = semaphore.clone();
        let green = spawn(move || releasing.release());
        settle();
        assert!(!green.is_finished());
        semaphore.acquire().unwrap();
        green.join().unwrap().unwrap();
        let acquiring = semaphore.clone();
        let green = spawn(move || acquiring.acquire());
        settle();
        assert!(!green.is_finished());
        semaphore.release().unwrap();
        green.join().unwrap().unwrap();
        assert_eq!(semaphore.balance(), 0);
    });
}

#[test]
fn both_ends_of_a_capped_semaphore_time_out() {
    run("both_ends_of_a_capped_semaphore_time_out", || {
        let semaphore = capped(1, 1);
        assert!(in_time(semaphore.release_timeout(SHORT)).is_none());
        assert!(with_timeout(SHORT, || semaphore.release()).is_err());
        assert_eq!(semaphore.balance(), 1);
        assert!(in_time(semaphore.acquire_timeout(SHORT)).is_some());
        assert!(in_time(semaphore.acquire_timeout(SHORT)).is_none());
        assert!(with_timeout(SHORT, || semaphore.acquire()).is_err());
        assert_eq!(semaphore.balance(), 0);
        assert!(in_time(semaphore.release_timeout(SHORT)).is_some());
    });
}

#[test]
fn a_capped_semaphore_may_hold_usize_max_permits() {
    run("a_capped_semaphore_may_hold_usize_max_permits", || {
        let semaphore = CappedSemaphore::new(usize::MAX, usize::MAX).unwrap();
        assert!(semaphore.bounded() && semaphore.try_acquire() && !semaphore.bounded());
    });
}

#[test]
fn a_granted_permit_is_not_in_the_balance() {
    run("a_granted_permit_is_not_in_the_balance", || {
        let semaphore = Arc::new(CappedSemaphore::new(0, 0).unwrap());
        let (acquires, releases) = (semaphore.clone(), semaphore.clone());
        let acquirer = spawn(move || acquires.acquire().unwrap());
        yield_now();
        let releaser = spawn(move || releases.release().unwrap());
        let seen = spawn(move || (semaphore.balance(), semaphore.locked()));
        assert_eq!(seen.join().unwrap(), (0, true));
        acquirer.join().unwrap();
        releaser.join().unwrap();
    });
}

#[test]
fn a_capped_semaphore_does_not_start_above_its_limit() {
    let error = CappedSemaphore::new(3, 2).unwrap_err();
    assert_eq!(error.to_string(), "a semaphore capped at 2 cannot start with 3 permits");
    assert_eq!(CappedSemaphore::new(2, 2).unwrap().balance(), 2);
}

#[test]
fn on_the_main_loop_and_while_panicking_a_wait_is_refused() {
    run("on_the_main_loop_and_while_panicking_a_wait_is_refused", || {
        keep_reports();
        let (semaphore, refusals) = (permits(1), Rc::new(RefCell::new(Vec::new())));
        let (waits, own_refusals) = (semaphore.clone(), refusals.clone());
        let both = move || {
            // A free permit is taken; the wait for the next one is refused.
            let _guard = waits.access().unwrap();
            own_refusals.borrow_mut().push(waits.acquire().unwrap_err());
        };
        let _timer = get_hub().schedule(Duration::ZERO, both.clone());
        sleep(SHORT);
        let green = spawn(move || {
            let _waits = green::OnDrop(both);
            quiet_panic("on purpose");
        });
        assert!(green.join().is_err());
        let refusals = refusals.borrow();
        let kinds: Vec<_> = refusals.iter().map(LoopError::kind).collect();
        assert_eq!(kinds, [LoopErrorKind::InMainloop, LoopErrorKind::Panicking], "{refusals:?}");
        assert_eq!(semaphore.balance(), 1);
    });
}

#[test]
fn random_waits_kills_and_timeouts_lose_and_create_no_permit() {
    run("random_waits_kills_and_timeouts_lose_and_create_no_permit", || {
        let mut served = 0;
        for seed in 0..120 {
            let mut random = Rng::with_seed(seed);
            let start = 1 + random.usize(..3);
            let (semaphore, before) = (permits(start), held());
            // The number of permit holders, which never exceeds the initial number of permits.
            let (holding, count) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let mut greens = Vec::new();
            for _ in 0..10 {
                let (semaphore, mut random) = (semaphore.clone(), random.fork());
                let (holding, count) = (holding.clone(), count.clone());
                greens.push(spawn(move || {
                    for _ in 0..8 {
                        let guard = match random.usize(..4) {
                            0 => Some(semaphore.access().unwrap()),
                            1 => in_time(semaphore.access_timeout(random.moment())),
                            2 => semaphore.try_access(),
                            _ => with_timeout(random.moment(), || semaphore.access().unwrap()).ok(),
                        };
                        let Some(_guard) = guard else { continue };
                        let leaves = holding.clone();
                        holding.set(holding.get() + 1);
                        let _holds = green::OnDrop(move || leaves.set(leaves.get() - 1));
                        assert!(holding.get() <= start, "{holding:?} of {start}");
                        count.set(count.get() + 1);
                        match random.usize(..3) {
                            0 => sleep(random.moment()),
                            1 => yield_now(),
                            _ => {}
                        }
                    }
                }));
            }
            for _ in 0..5 {
                sleep(random.moment());
                greens[random.usize(..10)].kill();
            }
            for green in greens {
                // No wait is endless, since every holder releases its permit.
                if let Err(error) = green.join() {
                    assert!(error.is_kill(), "seed {seed}: {error}");
                }
            }
            assert_eq!((semaphore.balance(), holding.get()), (start as isize, 0), "seed {seed}");
            assert_eq!(held(), before, "seed {seed}");
            served += count.get();
        }
        assert!(served > 1000, "{served}");
    });
}

#[test]
fn random_ends_of_a_capped_semaphore_keep_its_permits() {
    run("random_ends_of_a_capped_semaphore_keep_its_permits", || {
        for seed in 0..60 {
            let mut random = Rng::with_seed(seed);
            let limit = random.usize(..3);
            let start = random.usize(..limit + 1);
            let semaphore = capped(start, limit);
            let balance = Rc::new(Cell::new(start as isize));
            let greens: Vec<_> = (0..10)
                .map(|number| {
                    let (semaphore, balance, mut random) = (semaphore.clone(), balance.clone(), random.fork());
                    spawn(move || {
                        for _ in 0..10 {
                            let timeout = random.moment();
                            let (done, change) = match number % 2 {
                                0 => (in_time(semaphore.acquire_timeout(timeout)).is_some(), -1),
                                _ => (in_time(semaphore.release_timeout(timeout)).is_some(), 1),
                            };
                            balance.set(balance.get() + if done { change } else { 0 });
                        }
                    })
                })
                .collect();
            greens.into_iter().for_each(|green| green.join().unwrap());
            assert_eq!(semaphore.balance(), balance.get(), "seed {seed}");
            assert!((0..=limit as isize).contains(&balance.get()));
        }
    });
}

#[test]
fn a_wait_for_another_os_thread_times_out_and_leaves_nothing_behind() {
    run("a_wait_for_another_os_thread_times_out_and_leaves_nothing_behind", || {
        let semaphore = permits(1);
        assert!(semaphore.try_acquire());
        for green in [false, true] {
            let shared = semaphore.clone();
            let wait = move || {
                let begin = Instant::now();
                (in_time(shared.acquire_timeout(SHORT)).is_some(), begin.elapsed() >= SHORT)
            };
            let other = std::thread::spawn(move || if green { spawn(wait).join().unwrap() } else { wait() });
            assert_eq!(other.join().unwrap(), (false, true));
            assert_eq!(semaphore.balance(), 0);
        }
        semaphore.release();
        assert!(semaphore.try_acquire(), "a waiter that left has taken the permit");
    });
}

#[test]
fn each_hub_and_plain_thread_resumes_its_own_waiters() {
    static HOLDING: AtomicUsize = AtomicUsize::new(0);
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    let semaphore = permits(2);
    let shared = semaphore.clone();
    run("each_hub_and_plain_thread_resumes_its_own_waiters", move || {
        thread_local!(static HERE: Cell<usize> = const { Cell::new(0) });
        let work = move |semaphore: &Semaphore| {
            for round in 0..200 {
                let guard = match round % 3 {
                    0 => in_time(semaphore.access_timeout(Duration::from_micros(100))),
                    _ => Some(semaphore.access().unwrap()),
                };
                let Some(_guard) = guard else { continue };
                HERE.set(HERE.get() + usize::from(round % 3 != 0));
                assert!(HOLDING.fetch_add(1, Ordering::SeqCst) < 2);
                if greenhub::hub::has_hub() {
                    yield_now();
                }
                HOLDING.fetch_sub(1, Ordering::SeqCst);
                SERVED.fetch_add(1, Ordering::SeqCst);
            }
        };
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let semaphore = shared.clone();
                std::thread::spawn(move || {
                    // Every wait without a limit ends on the OS thread on which it began.
                    if number < 2 {
                        work(&semaphore);
                        assert_eq!(HERE.get(), 133);
                        return assert!(!greenhub::hub::has_hub());
                    }
                    let greens = [(); 3].map(|()| semaphore.clone()).map(|one| spawn(move || work(&one)));
                    greens.into_iter().for_each(|green| green.join().unwrap());
                    assert_eq!(HERE.get(), 3 * 133);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(semaphore.balance(), 2);
    assert!(SERVED.load(Ordering::SeqCst) >= 8 * 132);
}
