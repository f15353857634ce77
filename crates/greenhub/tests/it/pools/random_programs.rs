//! Random programs on pools, with kills and timeouts at every wait.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenhub::greenpool::GreenPile;
use greenhub::pools::Pool;
use greenhub::thread::yield_now;
use greenhub::{GreenPool, sleep, spawn, with_timeout};

use crate::support::green::{OnDrop, held, quiet_panic};
use crate::support::random::{Moment, Rng};
use crate::support::run;

/// Maps through a pool, and checks that each item comes once, in order, with its failure at its place.
fn map_all(pool: &GreenPool, random: &mut Rng, strikes: &Cell<usize>, at_work: &Rc<Cell<usize>>) {
    const ITEMS: usize = 20;
    let read = Rc::new(Cell::new(0));
    let (source_read, work, delays) = (read.clone(), at_work.clone(), RefCell::new(random.fork()));
    let source = (0..ITEMS).inspect(move |_| source_read.set(source_read.get() + 1));
    let mut results = pool.imap(source, move |item| {
        work.set(work.get() + 1);
        let work = work.clone();
        let _leaves = OnDrop(move || work.set(work.get() - 1));
        let (sleeps, delay) = {
            let mut random = delays.borrow_mut();
            (random.usize(..4) > 0, random.moment())
        };
        if sleeps {
            sleep(delay)
        } else {
            yield_now()
        }
        if item % 5 == 4 {
            quiet_panic(item);
        }
        item
    });
    let mut taken = 0;
    loop {
        let struck = strikes.get();
        let next = match random.usize(..3) {
            0 => with_timeout(random.moment(), || results.next()),
            _ => Ok(results.next()),
        };
        // A timed-out call is repeated and must return the same item.
        let Ok(next) = next else { continue };
        let Some(result) = next else { break };
        match result {
            Ok(item) => assert_eq!(item, taken),
            Err(error) if error.is_kill() => assert!(strikes.get() > 0, "item {taken}, after {struck} strikes"),
            Err(error) => assert!(taken % 5 == 4, "item {taken}: {error}"),
        }
        taken += 1;
        assert!(read.get() - taken <= 3, "read {} items when {taken} were taken", read.get());
    }
    assert_eq!(taken, ITEMS);
}

#[test]
fn random_mapping_kills_and_timeouts_keep_order_and_permits() {
    run("random_mapping_kills_and_timeouts_keep_order_and_permits", || {
        crate::support::green::keep_reports();
        for seed in 0..25 {
            let mut random = Rng::with_seed(seed);
            let (pool, before) = (GreenPool::new(1 + random.usize(..3)), held());
            let (strikes, at_work) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let mappers: Vec<_> = (0..4)
                .map(|_| {
                    let (pool, strikes, at_work) = (pool.clone(), strikes.clone(), at_work.clone());
                    let mut random = random.fork();
                    spawn(move || map_all(&pool, &mut random, &strikes, &at_work))
                })
                .collect();
            for _ in 0..8 {
                sleep(random.moment());
                assert!(at_work.get() <= 3);
                match random.usize(..4) {
                    0 => {
                        strikes.set(strikes.get() + 1);
                        pool.kill_all();
                    }
                    1 => _ = mappers[random.usize(..4)].kill(),
                    2 => pool.resize(random.usize(..4)),
                    _ => {}
                }
            }
            pool.resize(2);
            for mapper in mappers {
                if let Err(error) = mapper.join() {
                    assert!(error.is_kill(), "seed {seed}: {error}");
                }
            }
            pool.wait_all().unwrap();
            assert_eq!((pool.running(), pool.free(), pool.waiting(), at_work.get()), (0, 2, 0, 0), "seed {seed}");
            drop(pool);
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}

/// Uses a pile, and checks that each spawn's result or failure comes once, in order.
fn pile_up(pool: &GreenPool, random: &mut Rng, strikes: &Cell<usize>, at_work: &Rc<Cell<usize>>) {
    let mut pile = GreenPile::with_pool(pool);
    let (mut spawned, mut expected) = (0, VecDeque::new());
    while spawned < 20 || !expected.is_empty() {
        assert_eq!((pile.len(), pile.is_empty()), (expected.len(), expected.is_empty()));
        if spawned < 20 && random.usize(..2) == 0 {
            let (item, work, moment) = (spawned, at_work.clone(), (random.usize(..3) > 0).then(|| random.moment()));
            let spawn_one = || {
                pile.spawn(move || {
                    work.set(work.get() + 1);
                    let _leaves = OnDrop(move || work.set(work.get() - 1));
                    moment.map_or_else(yield_now, sleep);
                    if item % 5 == 4 {
                        quiet_panic(item);
                    }
                    item
                })
            };
            let done = match random.usize(..3) {
                0 => with_timeout(random.moment(), spawn_one),
                _ => Ok(spawn_one()),
            };
            spawned += 1;
            // A spawn that times out while it waits for a permit spawns nothing.
            if let Ok(done) = done {
                done.unwrap();
                expected.push_back(item);
            }
            continue;
        }
        let next = match random.usize(..3) {
            0 => with_timeout(random.moment(), || pile.next()),
            _ => Ok(pile.next()),
        };
        // A timed-out call is repeated and must return the same result.
        let Ok(next) = next else { continue };
        let item = expected.pop_front();
        match (next, item) {
            (None, None) => {}
            (Some(Ok(result)), Some(item)) => assert_eq!(result, item),
            (Some(Err(error)), Some(_)) if error.is_kill() => assert!(strikes.get() > 0),
            (Some(Err(error)), Some(item)) => assert!(item % 5 == 4, "item {item}: {error}"),
            (next, item) => panic!("{next:?} instead of {item:?}"),
        }
    }
}

#[test]
fn random_piles_kills_and_timeouts_keep_order_and_permits() {
    run("random_piles_kills_and_timeouts_keep_order_and_permits", || {
        crate::support::green::keep_reports();
        for seed in 0..25 {
            let mut random = Rng::with_seed(seed);
            let (pool, before) = (GreenPool::new(1 + random.usize(..3)), held());
            let (strikes, at_work) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let piles: Vec<_> = (0..4)
                .map(|_| {
                    let (pool, strikes, at_work) = (pool.clone(), strikes.clone(), at_work.clone());
                    let mut random = random.fork();
                    spawn(move || pile_up(&pool, &mut random, &strikes, &at_work))
                })
                .collect();
            for _ in 0..8 {
                sleep(random.moment());
                assert!(at_work.get() <= 3);
                match random.usize(..3) {
                    0 => {
                        strikes.set(strikes.get() + 1);
                        pool.kill_all();
                    }
                    1 => _ = piles[random.usize(..4)].kill(),
                    _ => {}
                }
            }
            for pile in piles {
                if let Err(error) = pile.join() {
                    assert!(error.is_kill(), "seed {seed}: {error}");
                }
            }
            pool.wait_all().unwrap();
            assert_eq!((pool.running(), pool.waiting(), at_work.get()), (0, 0, 0), "seed {seed}");
            drop(pool);
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}

/// A reference model of a pool of resources, without any switching.
struct Model {
    size: usize,
    using: Vec<usize>,
    waiting: VecDeque<usize>,
}

impl Model {
    fn settle(&mut self) {
        while self.using.len() < self.size
            && let Some(first) = self.waiting.pop_front()
        {
            self.using.push(first);
        }
    }

    fn remove(&mut self, user: usize) {
        self.using.retain(|using| *using != user);
        self.waiting.retain(|waiting| *waiting != user);
    }
}

/// How a user releases its resource.
#[derive(Copy, Clone)]
enum End {
    PutBack,
    Lost,
}

#[test]
fn a_pool_of_resources_matches_its_model() {
    run("a_pool_of_resources_matches_its_model", || {
        for seed in 0..100 {
            let (mut random, before) = (Rng::with_seed(seed), held());
            let living = Arc::new(());
            let pool = {
                let living = living.clone();
                Rc::new(Pool::new(2, move || {
                    yield_now();
                    Ok(living.clone())
                }))
            };
            let mut model = Model { size: 2, using: Vec::new(), waiting: VecDeque::new() };
            let has_one: Rc<RefCell<HashSet<usize>>> = Rc::default();
            let mut users = Vec::new();
            for step in 0..60 {
                match random.usize(..6) {
                    0 | 1 => {
                        let (number, end) = (users.len(), Rc::new(Cell::new(None)));
                        let (pool, has_one, own_end) = (pool.clone(), has_one.clone(), end.clone());
                        let user = spawn(move || {
                            let item = pool.item().unwrap();
                            has_one.borrow_mut().insert(number);
                            let _gone = OnDrop(move || _ = has_one.borrow_mut().remove(&number));
                            loop {
                                match own_end.get() {
                                    Some(End::PutBack) => return,
                                    Some(End::Lost) => return drop(item.into_inner()),
                                    None => yield_now(),
                                }
                            }
                        });
                        users.push((user, end));
                        model.waiting.push_back(number);
                    }
                    2 if !users.is_empty() => {
                        let number = random.usize(..users.len());
                        users[number].0.kill();
                        model.remove(number);
                    }
                    3 if !model.using.is_empty() => {
                        let number = model.using[random.usize(..model.using.len())];
                        let end = if random.usize(..2) == 0 { End::PutBack } else { End::Lost };
                        users[number].1.set(Some(end));
                        model.remove(number);
                    }
                    4 => {
                        // Lets users enter under the old size before the resize.
                        (0..40).for_each(|_| yield_now());
                        model.size = random.usize(..4);
                        pool.resize(model.size);
                    }
                    _ => yield_now(),
                }
                model.settle();
                // Not at every step, so that kills and ends also strike between a grant and the resumption.
                if random.usize(..3) != 0 {
                    continue;
                }
                (0..40).for_each(|_| yield_now());
                let free = model.size as isize - model.using.len() as isize;
                assert_eq!((pool.waiting(), pool.free()), (model.waiting.len(), free), "seed {seed}, step {step}");
                let using: HashSet<_> = model.using.iter().copied().collect();
                assert_eq!(*has_one.borrow(), using, "seed {seed}, step {step}");
                assert_eq!(Arc::strong_count(&living) - 2, pool.len(), "seed {seed}, step {step}");
                assert!((using.len()..=model.size.max(using.len())).contains(&pool.len()), "seed {seed}, step {step}");
            }
            for (user, _) in users {
                user.kill();
                let _ = user.join();
            }
            assert_eq!((pool.waiting(), pool.free()), (0, model.size as isize), "seed {seed}");
            drop(pool);
            assert_eq!(Arc::strong_count(&living), 1, "seed {seed}");
            assert_eq!(held(), before, "seed {seed}");
        }
    });
}

/// A resource whose live instances are counted.
struct Resource {
    number: usize,
    living: Arc<AtomicUsize>,
}

impl Drop for Resource {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Uses a resource for a moment, and checks that no other user has it.
fn use_one(pool: &Pool<Resource>, in_use: &Mutex<HashSet<usize>>, random: &mut Rng) {
    let item = match pool.item() {
        Ok(item) => item,
        Err(error) => return assert_eq!(error.kind(), io::ErrorKind::Other, "{error}"),
    };
    let number = item.number;
    assert!(in_use.lock().unwrap().insert(number), "{number} is in use twice");
    let back = OnDrop(|| assert!(in_use.lock().unwrap().remove(&number)));
    sleep(random.moment());
    drop(back);
    if random.usize(..5) == 0 {
        drop(item.into_inner());
    }
}

#[test]
fn resources_are_neither_lost_nor_shared_under_kills_and_timeouts() {
    run("resources_are_neither_lost_nor_shared_under_kills_and_timeouts", || {
        for seed in 0..15 {
            let living = Arc::new(AtomicUsize::new(0));
            let in_use = Arc::new(Mutex::new(HashSet::new()));
            let size = 1 + seed % 3;
            let pool = {
                let (living, made) = (living.clone(), AtomicUsize::new(0));
                Arc::new(Pool::new(size, move || {
                    let number = made.fetch_add(1, Ordering::SeqCst);
                    if number % 3 == 0 {
                        sleep(Duration::from_micros(50));
                    }
                    if number % 7 == 6 {
                        return Err(io::Error::other("on purpose"));
                    }
                    living.fetch_add(1, Ordering::SeqCst);
                    Ok(Resource { number, living: living.clone() })
                }))
            };
            let hubs = (0..2).map(|hub| {
                let (pool, in_use) = (pool.clone(), in_use.clone());
                std::thread::spawn(move || {
                    let mut random = Rng::with_seed((2 * seed + hub) as u64);
                    let users: Vec<_> = (0..6)
                        .map(|_| {
                            let (pool, in_use, mut random) = (pool.clone(), in_use.clone(), random.fork());
                            spawn(move || {
                                for _ in 0..10 {
                                    match random.usize(..3) {
                                        0 => {
                                            let limit = random.moment();
                                            drop(with_timeout(limit, || use_one(&pool, &in_use, &mut random)));
                                        }
                                        _ => use_one(&pool, &in_use, &mut random),
                                    }
                                }
                            })
                        })
                        .collect();
                    for _ in 0..3 {
                        sleep(random.moment() * 2);
                        users[random.usize(..6)].kill();
                    }
                    for user in users {
                        if let Err(error) = user.join() {
                            assert!(error.is_kill(), "{error}");
                        }
                    }
                })
            });
            for hub in hubs.collect::<Vec<_>>() {
                assert!(hub.join().is_ok(), "seed {seed}");
            }
            assert_eq!((pool.free(), pool.waiting()), (size as isize, 0), "seed {seed}");
            assert_eq!(living.load(Ordering::SeqCst), pool.len(), "seed {seed}");
            assert!(pool.len() <= size, "seed {seed}");
            assert!(in_use.lock().unwrap().is_empty(), "seed {seed}");
        }
    });
}
