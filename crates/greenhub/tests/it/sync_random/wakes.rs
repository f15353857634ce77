//! Events, conditions, barriers and one-time initialization between two hubs. A forgotten waiter hangs the test.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use greenhub::sync::{Barrier, Condvar, Event, LazyLock, Once, OnceLock};
use greenhub::thread::yield_now;
use greenhub::{sleep, spawn, sync};

use super::storm::{Count, MOMENT, job, on_hub, patiently, pause, storms, until};
use crate::support::green::in_time;
use crate::support::random::{Moment, Rng};

#[test]
fn a_notification_for_a_killed_waiter_reaches_another() {
    storms("a_notification_for_a_killed_waiter_reaches_another", |pair, seed| {
        for round in 0..4 {
            let (tokens, waiting) = (Arc::new((sync::Mutex::new(0), Condvar::new())), Count::default());
            let hubs = [0, 1].map(|hub| {
                let (tokens, ones) = (tokens.clone(), (0..6).map(|_| waiting.one()).collect::<Vec<_>>());
                on_hub(pair[hub], 8 * seed + 2 * round + hub as u64, 4, move || {
                    let wait = |(n, one)| {
                        let tokens = tokens.clone();
                        job(move |random| {
                            let _waits = one;
                            let take = || {
                                let (lock, condvar) = &*tokens;
                                *condvar.wait_while(lock.lock().unwrap(), |tokens| *tokens == 0).unwrap() -= 1;
                            };
                            // Two waiters of each hub are never killed and have no timeout.
                            if n < 4 { _ = patiently(random, take) } else { take() }
                        })
                    };
                    ones.into_iter().enumerate().map(wait).collect()
                })
            });
            // The next notification waits until the last token was taken, so it cannot replace a lost one.
            let mut random = Rng::with_seed(seed);
            while waiting.get() > 0 {
                let mut there = tokens.0.lock().unwrap();
                if *there == 0 {
                    *there = 1;
                    tokens.1.notify_one();
                    // The notified waiter waits for the lock.
                    std::thread::sleep(random.moment());
                }
                drop(there);
                std::thread::sleep(random.moment());
            }
            hubs.into_iter().for_each(|hub| hub.join().unwrap());
        }
    });
}

#[test]
fn an_event_reaches_all_waiters_in_every_round() {
    storms("an_event_reaches_all_waiters_in_every_round", |pair, seed| {
        const LAST: usize = 30;
        let (event, sent) = (Arc::new(Event::new()), Arc::new(AtomicUsize::new(0)));
        let hubs = [0, 1].map(|hub| {
            let (event, sent) = (event.clone(), sent.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 5, move || {
                let wait = |_| {
                    let (event, sent) = (event.clone(), sent.clone());
                    job(move |random| {
                        let mut seen = 0;
                        while seen < LAST {
                            let before = sent.load(SeqCst);
                            let got = match random.usize(..3) {
                                0 => in_time(event.wait_timeout(random.moment())),
                                _ => patiently(random, || event.wait().unwrap()),
                            };
                            if let Some(round) = got {
                                assert!(round >= seen && round >= before, "{round} after {seen}, {before} were sent");
                                seen = round;
                            }
                            yield_now();
                        }
                    })
                };
                (0..6).map(wait).collect()
            })
        });
        let mut random = Rng::with_seed(seed);
        for round in 1..=LAST {
            // One waiter of each hub stays. Current waiters receive this round's value, whatever is sent later.
            until(|| event.waiting() >= 2);
            event.send(round).unwrap();
            assert!(event.send(0).is_err());
            sent.store(round, SeqCst);
            if round < LAST {
                std::thread::sleep(random.moment() / 4);
                event.reset().unwrap();
            }
        }
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        assert_eq!(event.waiting(), 0);
    });
}

#[test]
fn a_barrier_opens_once_for_each_full_group() {
    storms("a_barrier_opens_once_for_each_full_group", |pair, seed| {
        const COUNT: usize = 3;
        let (barrier, inside, led, through) =
            (Arc::new(Barrier::new(COUNT)), Count::default(), Count::default(), Arc::new(AtomicUsize::new(0)));
        let arrive = {
            let (barrier, led, through) = (barrier.clone(), led.clone(), through.clone());
            move || {
                let leads = barrier.wait().is_leader();
                led.0.fetch_add(leads.into(), SeqCst);
                through.fetch_add(1, SeqCst);
            }
        };
        let hubs = [0, 1].map(|hub| {
            let (arrive, ones) = (arrive.clone(), (0..5).map(|_| inside.one()).collect::<Vec<_>>());
            on_hub(pair[hub], 2 * seed + hub as u64, 5, move || {
                let one = |one| {
                    let arrive = arrive.clone();
                    job(move |random| {
                        let _one = one;
                        for _ in 0..6 {
                            patiently(random, &arrive);
                            pause(random);
                        }
                    })
                };
                ones.into_iter().map(one).collect()
            })
        });
        // Two companions keep arriving until every job has ended, so that no job waits alone.
        let (company, gone) = (arrive, inside.clone());
        let company = std::thread::spawn(move || {
            let keep = || {
                let arrive = company.clone();
                spawn(move || {
                    loop {
                        arrive();
                        yield_now();
                    }
                })
            };
            let company = [(); COUNT - 1].map(|()| keep());
            while gone.get() > 0 {
                sleep(MOMENT);
            }
            company.iter().for_each(|one| _ = one.kill());
        });
        company.join().unwrap();
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        // A waiter that was released and then killed before it ran is not counted.
        let (led, through) = (led.get(), through.load(SeqCst));
        assert!(led > 0 && through <= COUNT * led, "{through} came through when the barrier opened {led} times");
        std::thread::spawn(move || {
            let others =
                [(); COUNT - 1].map(|()| barrier.clone()).map(|own| std::thread::spawn(move || _ = own.wait()));
            barrier.wait();
            others.into_iter().for_each(|other| other.join().unwrap());
        })
        .join()
        .expect("the barrier is empty");
    });
}

#[test]
fn one_closure_at_a_time_runs_until_one_returns() {
    storms("one_closure_at_a_time_runs_until_one_returns", |pair, seed| {
        let world = Arc::new((Once::new(), OnceLock::new(), [Count::default(), Count::default()]));
        let made: Arc<[AtomicUsize; 2]> = Arc::default();
        let hubs = [0, 1].map(|hub| {
            let (world, made) = (world.clone(), made.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 5, move || {
                let ask = |n| {
                    let (world, made) = (world.clone(), made.clone());
                    job(move |random| {
                        let (once, lock, running) = &*world;
                        let mut delay = random.fork();
                        let mut make = |which: usize| {
                            let _runs = running[which].one();
                            assert_eq!(running[which].get(), 1, "two run at once");
                            sleep(delay.moment());
                            made[which].fetch_add(1, SeqCst);
                        };
                        if patiently(random, || once.call_once_force(|_| make(0))).is_some() {
                            assert!(once.is_completed() && made[0].load(SeqCst) == 1);
                        }
                        let asked = patiently(random, || {
                            *lock.get_or_init(|| {
                                make(1);
                                n
                            })
                        });
                        assert!(asked.is_none() || asked == lock.get().copied());
                        if let Some(made) = asked {
                            once.wait_force();
                            assert_eq!(*lock.wait(), made);
                        }
                    })
                };
                (0..6).map(ask).collect()
            })
        });
        // This call has no timeout, whatever happens to the others.
        world.0.call_once_force(|_| _ = made[0].fetch_add(1, SeqCst));
        world.1.get_or_init(|| {
            made[1].fetch_add(1, SeqCst);
            100
        });
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        assert_eq!([0, 1].map(|which| made[which].load(SeqCst)), [1, 1], "a closure has returned twice, or never");
    });
}

#[test]
fn a_lazy_value_is_initialized_for_all_or_for_none() {
    const POISONED: &str = "LazyLock instance has previously been poisoned";
    storms("a_lazy_value_is_initialized_for_all_or_for_none", |pair, seed| {
        let (ran, made) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let make: Box<dyn FnOnce() -> u32 + Send> = {
            let (ran, made, mut random) = (ran.clone(), made.clone(), Rng::with_seed(seed));
            Box::new(move || {
                ran.fetch_add(1, SeqCst);
                sleep(random.moment());
                made.store(true, SeqCst);
                7
            })
        };
        let lazy = Arc::new(LazyLock::new(make));
        let hubs = [0, 1].map(|hub| {
            let (lazy, made) = (lazy.clone(), made.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 6, move || {
                let ask = |_| {
                    let (lazy, made) = (lazy.clone(), made.clone());
                    job(move |random| match catch_unwind(AssertUnwindSafe(|| patiently(random, || **lazy))) {
                        Ok(Some(value)) => assert!(value == 7 && made.load(SeqCst)),
                        Ok(None) => {}
                        Err(payload) if payload.downcast_ref() == Some(&POISONED) => {
                            assert!(!made.load(SeqCst), "the value was made");
                        }
                        Err(payload) => resume_unwind(payload),
                    })
                };
                (0..6).map(ask).collect()
            })
        });
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        assert!(ran.load(SeqCst) <= 1);
        assert_eq!(LazyLock::get(&lazy).is_some(), made.load(SeqCst));
    });
}
