//! Random programs of green threads on two hubs, with kills and timeouts at every wait, checked by counters.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use greenhub::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, TryLockError, mpsc};
use greenhub::thread::yield_now;
use greenhub::{GreenThread, sleep, spawn, with_timeout};

use crate::support::random::{Rng, seeds};
use crate::support::run;

/// The shared primitives, each with the counters that check it.
struct World {
    total: Mutex<u64>,
    added: AtomicU64,
    pair: RwLock<(u64, u64)>,
    inside: AtomicI64,
    items: (mpsc::SyncSender<u64>, Mutex<mpsc::Receiver<u64>>),
    sent: AtomicU64,
    received: AtomicU64,
    tokens: (Mutex<i64>, Condvar),
    given: AtomicI64,
    taken: AtomicI64,
    /// The number of green threads that want a token.
    hungry: AtomicI64,
}

impl World {
    /// Adds a token and notifies one waiter.
    fn give(&self, mut tokens: MutexGuard<'_, i64>) {
        *tokens += 1;
        self.given.fetch_add(1, Ordering::SeqCst);
        drop(tokens);
        self.tokens.1.notify_one();
    }

    /// Adds a token if one is wanted and none is there. A waiter beside an available token would wait forever.
    fn feed(&self) {
        let tokens = locked(&self.tokens.0);
        if self.hungry.load(Ordering::SeqCst) > 0 && *tokens == 0 {
            self.give(tokens);
        }
    }
}

/// Locks despite poison: kills poison, which is not tested here.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pause(random: &mut Rng) {
    match random.u64(..3) {
        0 => yield_now(),
        1 => sleep(Duration::from_micros(random.u64(..300))),
        _ => {}
    }
}

fn step(world: &World, random: &mut Rng) {
    match random.u64(..6) {
        0 => {
            let mut total = locked(&world.total);
            let before = *total;
            pause(random);
            *total = before + 1;
            world.added.fetch_add(1, Ordering::SeqCst);
        }
        1 => {
            let pair = world.pair.read().unwrap_or_else(PoisonError::into_inner);
            assert!(world.inside.fetch_add(1, Ordering::SeqCst) >= 0, "a writer is inside");
            let leave = Leave(&world.inside, -1);
            pause(random);
            assert_eq!(pair.0, pair.1);
            drop(leave);
        }
        2 => {
            let mut pair = world.pair.write().unwrap_or_else(PoisonError::into_inner);
            assert_eq!(world.inside.fetch_sub(1 << 32, Ordering::SeqCst), 0, "a reader or writer is inside");
            let leave = Leave(&world.inside, 1 << 32);
            pause(random);
            *pair = (pair.0 + 1, pair.1 + 1);
            drop(leave);
            if random.u64(..2) == 0 {
                // Still exclusive, so it counts as a reader before others can enter.
                let written = *pair;
                world.inside.fetch_add(1, Ordering::SeqCst);
                let leave = Leave(&world.inside, -1);
                let pair = RwLockWriteGuard::downgrade(pair);
                let _leave_before_it = leave;
                pause(random);
                assert_eq!(*pair, written);
            }
        }
        3 => {
            let item = random.u64(..1000);
            if world.items.0.send(item).is_ok() {
                world.sent.fetch_add(item, Ordering::SeqCst);
            }
        }
        4 => {
            let receiver = locked(&world.items.1);
            if let Ok(item) = receiver.recv_timeout(Duration::from_micros(random.u64(..500))) {
                world.received.fetch_add(item, Ordering::SeqCst);
            }
        }
        _ => {
            // One token a notification: a lost notification leaves a token beside a waiter.
            if random.u64(..3) == 0 {
                return world.give(locked(&world.tokens.0));
            }
            world.hungry.fetch_add(1, Ordering::SeqCst);
            let _leave = Leave(&world.hungry, -1);
            let tokens = locked(&world.tokens.0);
            let mut tokens = if random.u64(..2) == 0 {
                world.tokens.1.wait_while(tokens, |tokens| *tokens == 0).unwrap_or_else(PoisonError::into_inner)
            } else {
                let limit = Duration::from_micros(random.u64(..1000));
                let waited = world.tokens.1.wait_timeout_while(tokens, limit, |tokens| *tokens == 0);
                let (tokens, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                assert_eq!(waited.timed_out(), *tokens == 0);
                tokens
            };
            if *tokens > 0 {
                *tokens -= 1;
                world.taken.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

struct Leave<'a>(&'a AtomicI64, i64);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(self.1, Ordering::SeqCst);
    }
}

/// Runs green threads that work on the world; some are killed, some calls time out.
fn hub(world: &Arc<World>, seed: u64) {
    let threads: Rc<RefCell<Vec<GreenThread<()>>>> = Rc::default();
    for n in 0..12 {
        let (world, mut random) = (world.clone(), Rng::with_seed(seed * 31 + n + 1));
        threads.borrow_mut().push(spawn(move || {
            for _ in 0..30 {
                if random.u64(..4) == 0 {
                    let limit = Duration::from_micros(random.u64(..400));
                    let _ = with_timeout(limit, || step(&world, &mut random));
                } else {
                    step(&world, &mut random);
                }
            }
        }));
    }
    let mut random = Rng::with_seed(seed * 77 + 5);
    for _ in 0..6 {
        sleep(Duration::from_micros(random.u64(..800)));
        let victim = random.usize(..12);
        threads.borrow()[victim].kill();
    }
    for thread in threads.take() {
        if let Err(error) = thread.join() {
            assert!(error.is_kill(), "{error}");
        }
    }
}

fn check(seed: u64, bound: usize) {
    let (sender, receiver) = mpsc::sync_channel(bound);
    let world = Arc::new(World {
        total: Mutex::default(),
        added: AtomicU64::new(0),
        pair: RwLock::default(),
        inside: AtomicI64::new(0),
        items: (sender, Mutex::new(receiver)),
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
        tokens: (Mutex::new(0), Condvar::new()),
        given: AtomicI64::new(0),
        taken: AtomicI64::new(0),
        hungry: AtomicI64::new(0),
    });
    // Serves waiters for room or for a missing token until the end.
    let over = Arc::new(Mutex::new(false));
    let (served, end) = (world.clone(), over.clone());
    let serving = std::thread::spawn(move || {
        while !*end.lock().unwrap() {
            served.feed();
            let receiver = locked(&served.items.1);
            if let Ok(item) = receiver.recv_timeout(Duration::from_micros(100)) {
                served.received.fetch_add(item, Ordering::SeqCst);
            }
        }
    });
    let hubs: Vec<_> = (0..2)
        .map(|n| {
            let world = world.clone();
            std::thread::spawn(move || hub(&world, 2 * seed + n))
        })
        .collect();
    let ended: Vec<_> = hubs.into_iter().map(|hub| hub.join()).collect();
    *over.lock().unwrap() = true;
    serving.join().unwrap();
    for ended in ended {
        ended.unwrap();
    }
    let world = Arc::into_inner(world).unwrap();
    let World { total, added, pair, inside, items, sent, received, tokens, given, taken, hungry } = world;
    assert_eq!(tokens.0.into_inner().unwrap(), given.into_inner() - taken.into_inner());
    assert_eq!(hungry.into_inner(), 0);
    assert!(!matches!(total.try_lock(), Err(TryLockError::WouldBlock)), "not locked");
    assert_eq!(total.into_inner().unwrap_or_else(PoisonError::into_inner), added.into_inner());
    assert_eq!(inside.into_inner(), 0);
    let pair = pair.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(pair.0, pair.1);
    let receiver = items.1.into_inner().unwrap_or_else(PoisonError::into_inner);
    drop(items.0);
    let left: u64 = receiver.iter().sum();
    let (received, sent) = (received.into_inner() + left, sent.into_inner());
    // Without a buffer, a sender may be killed after its item was received.
    assert!(received == sent || bound == 0 && received > sent, "{received} of {sent}");
}

#[test]
fn nothing_is_lost_under_kills_and_timeouts() {
    for seed in seeds(6, 200) {
        for bound in [0, 1, 3] {
            run(&format!("seed {seed}, bound {bound}"), move || {
                let checked = catch_unwind(AssertUnwindSafe(|| check(seed + 1, bound)));
                assert!(checked.is_ok(), "seed {seed}, bound {bound}");
            });
        }
    }
}
