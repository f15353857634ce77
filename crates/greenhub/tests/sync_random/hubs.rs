//! Green threads of two hubs, and plain OS threads, at one primitive, for every two kinds of hub. Some are killed,
//! some calls are given up. What waits without a limit is served as long as nothing is lost: else the test hangs.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, mpsc as plain};
use std::thread::JoinHandle;
use std::time::Duration;

use greenhub::sync::{
    self, Barrier, BoundedSemaphore, CappedSemaphore, Channel, Condvar, Event, GetError, LazyLock, Once, OnceLock,
    PutError, Queue, Semaphore, mpsc,
};
use greenhub::{get_hub, sleep, spawn, use_hub, with_timeout, yield_now};

use crate::green::OnDrop;
use crate::random::Random;
use crate::support::run;

const MOMENT: Duration = Duration::from_micros(100);
/// Storms for each two kinds of hub.
const STORMS: u64 = 6;

/// Every two kinds of hub that are to be had here, of the same kind too.
fn pairs() -> Vec<[&'static str; 2]> {
    let had = |name: &&str| {
        let name = (*name).to_owned();
        std::thread::spawn(move || use_hub(&*name).is_ok()).join().unwrap()
    };
    let names: Vec<_> = ["epoll", "kqueue", "poll", "select"].into_iter().filter(had).collect();
    assert!(!names.is_empty());
    (0..names.len())
        .flat_map(|first| (first..names.len()).map(move |second| (first, second)))
        .map(|(first, second)| [names[first], names[second]])
        .collect()
}

/// Runs `storm` for every two kinds of hub, some times.
fn storms(name: &str, storm: impl Fn([&'static str; 2], u64) + Copy + Send + 'static) {
    for (index, pair) in pairs().into_iter().enumerate() {
        for seed in 0..STORMS {
            let seed = index as u64 * STORMS + seed;
            run(&format!("{name}, {pair:?}, seed {seed}"), move || {
                let ended = catch_unwind(AssertUnwindSafe(|| storm(pair, seed)));
                assert!(ended.is_ok(), "{pair:?}, seed {seed}");
            });
        }
    }
}

type Job = Box<dyn FnOnce(&mut Random)>;

fn job(job: impl FnOnce(&mut Random) + 'static) -> Job {
    Box::new(job)
}

/// Runs what `jobs` makes in green threads of an OS thread with such a hub, and kills some of the first `mortal`.
fn on_hub(
    name: &'static str,
    seed: u64,
    mortal: usize,
    jobs: impl FnOnce() -> Vec<Job> + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        use_hub(name).unwrap();
        assert_eq!(get_hub().name(), name);
        let mut random = Random::new(seed);
        let spawn_one = |job: Job| {
            let mut random = random.fork();
            spawn(move || job(&mut random))
        };
        let greens: Vec<_> = jobs().into_iter().map(spawn_one).collect();
        for _ in 0..4 {
            sleep(random.moment());
            if mortal > 0 {
                greens[random.below(mortal)].kill();
            }
        }
        for green in greens {
            if let Err(error) = green.join() {
                assert!(error.is_exit(), "{error}");
            }
        }
    })
}

/// Waits, or is ready to for a moment only.
fn patiently<R>(random: &mut Random, wait: impl FnOnce() -> R) -> Option<R> {
    match random.below(3) {
        0 => with_timeout(random.moment(), wait).ok(),
        _ => Some(wait()),
    }
}

fn pause(random: &mut Random) {
    match random.below(3) {
        0 => sleep(random.moment()),
        1 => yield_now(),
        _ => {}
    }
}

/// How many there are still.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    /// Counts until it is dropped.
    fn one(&self) -> OnDrop<impl FnMut() + use<>> {
        let count = self.0.clone();
        count.fetch_add(1, SeqCst);
        OnDrop(move || _ = count.fetch_sub(1, SeqCst))
    }

    fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// Blocks the OS thread until it is so.
fn until(so: impl Fn() -> bool) {
    while !so() {
        std::thread::sleep(MOMENT);
    }
}

/// What became of items. Those whose putter was unwound may or may not have arrived.
#[derive(Default)]
struct Fate {
    put: Mutex<BTreeSet<usize>>,
    refused: Mutex<BTreeSet<usize>>,
    /// By whom, and which.
    got: Mutex<Vec<(usize, usize)>>,
}

impl Fate {
    fn put(&self, item: usize) {
        self.put.lock().unwrap().insert(item);
    }

    fn got(&self, getter: usize, item: usize) {
        self.got.lock().unwrap().push((getter, item));
    }

    fn check(&self) {
        let got = self.got.lock().unwrap();
        let once: BTreeSet<_> = got.iter().map(|(_, item)| *item).collect();
        assert_eq!(once.len(), got.len(), "an item came twice: {got:?}");
        assert!(once.is_superset(&self.put.lock().unwrap()), "an item was lost");
        assert!(once.is_disjoint(&self.refused.lock().unwrap()), "a refused item came");
        let getters: BTreeSet<_> = got.iter().map(|(getter, _)| *getter).collect();
        for getter in getters {
            for putter in 0..24 {
                let seen = got.iter().filter(|(by, item)| *by == getter && item / 100 == putter);
                assert!(seen.is_sorted(), "what {putter} put came to {getter} out of order");
            }
        }
    }
}

/// `None` ends a getter.
type Items = Queue<Option<usize>>;

fn put_some(queue: &Items, fate: &Fate, putter: usize, random: &mut Random) {
    for item in (0..8).map(|n| 100 * putter + n) {
        let done = match random.below(4) {
            0 => Some(queue.put_timeout(Some(item), random.moment())),
            1 => Some(queue.try_put(Some(item))),
            _ => patiently(random, || queue.put(Some(item))),
        };
        match done {
            Some(Ok(())) => fate.put(item),
            Some(Err(PutError::Full(back))) => _ = fate.refused.lock().unwrap().insert(back.unwrap()),
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

fn get_all(queue: &Items, fate: &Fate, getter: usize, random: &mut Random) {
    loop {
        let got = match random.below(4) {
            0 => queue.get_timeout(random.moment()),
            1 => queue.try_get(),
            _ => patiently(random, || queue.get()).unwrap_or(Err(GetError::Empty)),
        };
        match got {
            Ok(item) => {
                let over = item.is_none_or(|item| {
                    fate.got(getter, item);
                    false
                });
                queue.task_done().unwrap();
                if over {
                    return;
                }
            }
            Err(GetError::Empty) => yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn items_of_a_queue_are_neither_lost_nor_doubled_and_all_are_done() {
    storms("items_of_a_queue_are_neither_lost_nor_doubled_and_all_are_done", |pair, seed| {
        let queue: Arc<Items> = Arc::new(Queue::bounded([0, 1, 3, usize::MAX][seed as usize % 4]));
        let (fate, putting, getting) = (Arc::new(Fate::default()), Count::default(), Count::default());
        let hubs = [0, 1].map(|hub| {
            let (queue, fate) = (queue.clone(), fate.clone());
            let counts: Vec<_> = (0..4).map(|_| (putting.one(), getting.one())).collect();
            on_hub(pair[hub], 2 * seed + hub as u64, 9, move || {
                let mut jobs = Vec::new();
                for (n, (puts, gets)) in counts.into_iter().enumerate() {
                    let number = 10 * hub + n;
                    let (own, own_fate) = (queue.clone(), fate.clone());
                    jobs.push(job(move |random| {
                        let _puts = puts;
                        put_some(&own, &own_fate, number, random);
                    }));
                    let (own, own_fate) = (queue.clone(), fate.clone());
                    jobs.push(job(move |random| {
                        let _gets = gets;
                        get_all(&own, &own_fate, number, random);
                    }));
                }
                jobs.push(job(move |_| queue.join().unwrap()));
                jobs
            })
        });
        // One that lives: whatever waits is got.
        let (own, own_fate, gets) = (queue.clone(), fate.clone(), getting.one());
        let plain = std::thread::spawn(move || {
            let _gets = gets;
            while let Some(item) = own.get().unwrap() {
                own_fate.got(20, item);
                own.task_done().unwrap();
            }
            own.task_done().unwrap();
        });
        until(|| putting.get() == 0);
        // Somebody is to get it without being told that there will be no more.
        until(|| queue.len() + queue.putting() == 0);
        while getting.get() > 0 {
            let _ = queue.put_timeout(None, MOMENT);
        }
        plain.join().unwrap();
        while let Ok(item) = queue.try_get() {
            assert_eq!(item, None);
            queue.task_done().unwrap();
        }
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        assert_eq!((queue.unfinished(), queue.getting(), queue.putting()), (0, 0, 0));
        queue.join().unwrap();
        fate.check();
    });
}

#[test]
fn items_of_an_unbounded_channel_are_neither_lost_nor_doubled() {
    storms("items_of_an_unbounded_channel_are_neither_lost_nor_doubled", |pair, seed| {
        let (sender, receiver) = mpsc::channel();
        let (fate, sending) = (Arc::new(Fate::default()), Count::default());
        let mut senders = [0, 1]
            .map(|hub| {
                let (sender, fate) = (sender.clone(), fate.clone());
                let counts: Vec<_> = (0..4).map(|_| sending.one()).collect();
                move || {
                    let one = |(n, sends)| {
                        let (sender, fate) = (sender.clone(), fate.clone());
                        job(move |random| {
                            let _sends = sends;
                            for item in (0..10).map(|item| 100 * (10 * hub + n) + item) {
                                sender.send(item).unwrap();
                                fate.put(item);
                                patiently(random, || sleep(MOMENT));
                            }
                        })
                    };
                    counts.into_iter().enumerate().map(one).collect::<Vec<_>>()
                }
            })
            .into_iter();
        let (far, near) = (senders.next().unwrap(), senders.next().unwrap());
        let far = on_hub(pair[0], 2 * seed, 4, far);
        let receiving = fate.clone();
        let near = on_hub(pair[1], 2 * seed + 1, 7, move || {
            let receiver = Rc::new(receiver);
            let receive = |n| {
                let (receiver, fate) = (receiver.clone(), receiving.clone());
                job(move |random| {
                    loop {
                        let received = match (n, random.below(3)) {
                            // One that lives, and has to be woken.
                            (3, _) => receiver.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                            (_, 0) => receiver.recv_timeout(random.moment()),
                            _ => match patiently(random, || receiver.recv()) {
                                Some(received) => received.map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                                None => Err(mpsc::RecvTimeoutError::Timeout),
                            },
                        };
                        match received {
                            Ok(item) => fate.got(0, item),
                            Err(mpsc::RecvTimeoutError::Timeout) => {}
                            Err(mpsc::RecvTimeoutError::Disconnected) => return,
                        }
                    }
                })
            };
            let mut jobs: Vec<_> = (0..3).map(receive).collect();
            jobs.extend(near());
            jobs.push(receive(3));
            jobs
        });
        until(|| sending.get() == 0);
        // Somebody is to receive it without being told that there will be no more.
        until(|| fate.got.lock().unwrap().len() >= fate.put.lock().unwrap().len());
        drop(sender);
        far.join().unwrap();
        near.join().unwrap();
        assert_eq!(fate.got.lock().unwrap().len(), fate.put.lock().unwrap().len(), "a send never waits");
        fate.check();
    });
}

#[test]
fn an_item_for_a_receiver_that_is_struck_reaches_another() {
    storms("an_item_for_a_receiver_that_is_struck_reaches_another", |pair, seed| {
        const ITEMS: usize = 30;
        let (sender, receiver) = mpsc::channel();
        let received = Arc::new(AtomicUsize::new(0));
        let count = received.clone();
        let receiving = on_hub(pair[0], 2 * seed, 8, move || {
            let receiver = Rc::new(receiver);
            let receive = |n| {
                let (receiver, count) = (receiver.clone(), count.clone());
                job(move |random| {
                    // Struck once it has enough, but for the last one.
                    let mut receive =
                        || if n < 8 { patiently(random, || receiver.recv()) } else { Some(receiver.recv()) };
                    while let Some(Ok(())) = receive() {
                        count.fetch_add(1, SeqCst);
                    }
                })
            };
            (0..9).map(receive).collect()
        });
        let sending = on_hub(pair[1], 2 * seed + 1, 0, move || {
            vec![job(move |random| {
                for sent in 1..=ITEMS {
                    sender.send(()).unwrap();
                    // The next only when this was received: no other send wakes those who were not told of it.
                    while received.load(SeqCst) < sent {
                        sleep(MOMENT);
                    }
                    pause(random);
                }
            })]
        });
        sending.join().unwrap();
        receiving.join().unwrap();
    });
}

#[test]
fn a_bounded_semaphore_has_its_tokens_again() {
    storms("a_bounded_semaphore_has_its_tokens_again", |pair, seed| {
        let tokens = 1 + seed as usize % 3;
        let (semaphore, holding) = (Arc::new(BoundedSemaphore::new(tokens)), Count::default());
        let hubs = [0, 1].map(|hub| {
            let (semaphore, holding) = (semaphore.clone(), holding.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 6, move || {
                let use_some = |_| {
                    let (semaphore, holding) = (semaphore.clone(), holding.clone());
                    job(move |random| {
                        for _ in 0..10 {
                            let got = match random.below(4) {
                                0 => semaphore.acquire_timeout(random.moment()).unwrap(),
                                1 => semaphore.try_acquire(),
                                _ => patiently(random, || semaphore.acquire().unwrap()).is_some(),
                            };
                            if !got {
                                continue;
                            }
                            let _back = OnDrop(|| semaphore.release().expect("it is below its limit"));
                            let _holds = holding.one();
                            assert!(holding.get() <= tokens);
                            pause(random);
                        }
                    })
                };
                (0..6).map(use_some).collect()
            })
        });
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        assert_eq!((semaphore.balance(), holding.get()), (tokens as isize, 0));
        assert!(semaphore.release().is_err(), "all are there");
    });
}

#[test]
fn a_capped_semaphore_loses_and_makes_no_token() {
    storms("a_capped_semaphore_loses_and_makes_no_token", |pair, seed| {
        let limit = seed as usize % 3;
        let semaphore = Arc::new(CappedSemaphore::new(0, limit).unwrap());
        // Given for certain, given or not by those who were unwound meanwhile, taken; who works still.
        let counts: Arc<[AtomicUsize; 3]> = Arc::default();
        let working = Count::default();
        // Of those who give, in each other storm nobody is struck: then the count is exact.
        let struck_giving = seed % 2 == 0;
        let hubs = [0, 1].map(|hub| {
            let (semaphore, counts) = (semaphore.clone(), counts.clone());
            let works: Vec<_> = (0..8).map(|_| working.one()).collect();
            on_hub(pair[hub], 2 * seed + hub as u64, if struck_giving { 8 } else { 4 }, move || {
                let work = |(n, works)| {
                    let (semaphore, counts) = (semaphore.clone(), counts.clone());
                    job(move |random| {
                        let _works = works;
                        for _ in 0..8 {
                            if n < 4 {
                                let took = match random.below(4) {
                                    0 => semaphore.acquire_timeout(random.moment()).unwrap(),
                                    1 => semaphore.try_acquire(),
                                    _ => patiently(random, || semaphore.acquire().unwrap()).is_some(),
                                };
                                counts[2].fetch_add(took.into(), SeqCst);
                                continue;
                            }
                            counts[1].fetch_add(1, SeqCst);
                            let gave = match random.below(4) {
                                0 => Some(semaphore.release_timeout(random.moment()).unwrap()),
                                1 => Some(semaphore.try_release()),
                                2 if struck_giving => patiently(random, || semaphore.release().unwrap()).map(|()| true),
                                _ => Some(semaphore.release().is_ok()),
                            };
                            if let Some(gave) = gave {
                                counts[0].fetch_add(gave.into(), SeqCst);
                                counts[1].fetch_sub(1, SeqCst);
                            }
                        }
                    })
                };
                works.into_iter().enumerate().map(work).collect()
            })
        });
        // Serves whoever is left alone, at both ends.
        while working.get() > 0 {
            counts[0].fetch_add(semaphore.release_timeout(MOMENT).unwrap().into(), SeqCst);
            counts[2].fetch_add(semaphore.acquire_timeout(MOMENT).unwrap().into(), SeqCst);
        }
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        let [given, perhaps, taken] = [0, 1, 2].map(|index| counts[index].load(SeqCst) as isize);
        let there = semaphore.balance();
        assert!((0..=limit as isize).contains(&there));
        assert!((given..=given + perhaps).contains(&(taken + there)), "{given}, {perhaps}; {taken}, {there}");
        assert!(struck_giving || perhaps == 0);
    });
}

#[test]
fn a_notification_for_one_who_is_struck_reaches_another() {
    storms("a_notification_for_one_who_is_struck_reaches_another", |pair, seed| {
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
                            // Two of them stay, whatever happens.
                            if n < 4 { _ = patiently(random, take) } else { take() }
                        })
                    };
                    ones.into_iter().enumerate().map(wait).collect()
                })
            });
            // The next one only when the last was taken: nobody else is told of one whose notification got lost.
            let mut random = Random::new(seed);
            while waiting.get() > 0 {
                let mut there = tokens.0.lock().unwrap();
                if *there == 0 {
                    *there = 1;
                    tokens.1.notify_one();
                    // Who was told waits for the lock.
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
fn an_event_reaches_all_in_each_of_its_rounds() {
    storms("an_event_reaches_all_in_each_of_its_rounds", |pair, seed| {
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
                            let got = match random.below(3) {
                                0 => event.wait_timeout(random.moment()).unwrap(),
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
        let mut random = Random::new(seed);
        for round in 1..=LAST {
            // One of each hub stays. Those who wait now are woken by this one, and have it whatever is sent later.
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
fn a_barrier_opens_for_whole_numbers_of_those_who_stay() {
    storms("a_barrier_opens_for_whole_numbers_of_those_who_stay", |pair, seed| {
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
        // Who is left alone gets company, until all have gone.
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
        // Who was let through and struck before it ran is not among those who say so.
        let (led, through) = (led.get(), through.load(SeqCst));
        assert!(led > 0 && through <= COUNT * led, "{through} came through when it opened {led} times");
        std::thread::spawn(move || {
            let others =
                [(); COUNT - 1].map(|()| barrier.clone()).map(|own| std::thread::spawn(move || _ = own.wait()));
            barrier.wait();
            others.into_iter().for_each(|other| other.join().unwrap());
        })
        .join()
        .expect("nobody is left in it");
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
        // Whoever else has given up: this one does not.
        world.0.call_once_force(|_| _ = made[0].fetch_add(1, SeqCst));
        world.1.get_or_init(|| {
            made[1].fetch_add(1, SeqCst);
            100
        });
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        assert_eq!([0, 1].map(|which| made[which].load(SeqCst)), [1, 1], "one has returned, and none after it has run");
    });
}

#[test]
fn a_lazy_value_is_made_for_all_or_for_none() {
    const POISONED: &str = "LazyLock instance has previously been poisoned";
    storms("a_lazy_value_is_made_for_all_or_for_none", |pair, seed| {
        let (ran, made) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let make: Box<dyn FnOnce() -> u32 + Send> = {
            let (ran, made, mut random) = (ran.clone(), made.clone(), Random::new(seed));
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
                            assert!(!made.load(SeqCst), "it is there");
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

#[test]
fn each_primitive_leads_from_any_kind_of_hub_to_any_other() {
    const ROUNDS: usize = 20;

    /// One gives, the other takes.
    type Sides = [Box<dyn FnOnce() + Send>; 2];
    type Make = fn() -> Sides;

    fn both<P: Send + Sync + 'static>(shared: P, give: fn(&P, usize), take: fn(&P, usize)) -> Sides {
        let shared = Arc::new(shared);
        let other = shared.clone();
        [
            Box::new(move || (0..ROUNDS).for_each(|round| give(&shared, round))),
            Box::new(move || (0..ROUNDS).for_each(|round| take(&other, round))),
        ]
    }

    let ways: [(&str, Make); 6] = [
        ("queue", || {
            both(
                Queue::bounded(0),
                |queue, round| queue.put(round).unwrap(),
                |queue, round| {
                    assert_eq!(queue.get().unwrap(), round);
                },
            )
        }),
        ("channel", || {
            both(
                Channel::new(),
                |channel, round| channel.send(round).unwrap(),
                |channel, round| {
                    assert_eq!(channel.wait().unwrap(), round);
                },
            )
        }),
        ("event", || {
            let pair = (Event::new(), Event::new());
            both(
                pair,
                |(there, back), round| {
                    there.send(round).unwrap();
                    assert_eq!(back.wait().unwrap(), round);
                    back.reset().unwrap();
                },
                |(there, back), round| {
                    assert_eq!(there.wait().unwrap(), round);
                    there.reset().unwrap();
                    back.send(round).unwrap();
                },
            )
        }),
        ("semaphore", || {
            let pair = (Semaphore::new(0), Semaphore::new(0));
            both(
                pair,
                |(there, back), _| {
                    there.release();
                    back.acquire().unwrap();
                },
                |(there, back), _| {
                    there.acquire().unwrap();
                    back.release();
                },
            )
        }),
        ("mutex and condition", || {
            let pair = (sync::Mutex::new(0), Condvar::new());
            both(
                pair,
                |(turns, condvar), round| {
                    let mut turns = condvar.wait_while(turns.lock().unwrap(), |turns| *turns != 2 * round).unwrap();
                    *turns += 1;
                    condvar.notify_one();
                },
                |(turns, condvar), round| {
                    let mut turns = condvar.wait_while(turns.lock().unwrap(), |turns| *turns != 2 * round + 1).unwrap();
                    *turns += 1;
                    condvar.notify_one();
                },
            )
        }),
        ("mpsc", || {
            let (sender, receiver) = mpsc::sync_channel(0);
            let receiver = sync::Mutex::new(receiver);
            both(
                (sender, receiver),
                |(sender, _), round| sender.send(round).unwrap(),
                |(_, receiver), round| {
                    assert_eq!(receiver.lock().unwrap().recv().unwrap(), round);
                },
            )
        }),
    ];
    for pair in pairs() {
        for turned in [false, true] {
            for (name, make) in ways {
                run(&format!("{name}, {pair:?}, turned: {turned}"), move || {
                    let mut sides = make();
                    if turned {
                        sides.reverse();
                    }
                    let (tell, ended) = plain::channel();
                    for (side, hub) in sides.into_iter().zip(pair) {
                        let tell = tell.clone();
                        std::thread::spawn(move || {
                            use_hub(hub).unwrap();
                            let ended = spawn(side).join().is_ok();
                            assert_eq!(get_hub().name(), hub);
                            tell.send(ended).unwrap();
                        });
                    }
                    drop(tell);
                    assert_eq!(ended.iter().collect::<Vec<_>>(), [true, true], "{name}, {pair:?}");
                });
            }
        }
    }
}
