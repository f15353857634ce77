//! Rate limiters: on one OS thread they are compared with a model, and on two hubs with the bound of their rate.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenhub::sync::{RateLimitError, RateLimiter};
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn, with_timeout};

use super::storm::{Job, job, on_hub, patiently, pause, storms};
use crate::support::green::{held, in_time};
use crate::support::hubs::use_manual_clock;
use crate::support::random::{Moment, Rng};
use crate::support::run;

/// The unit of the model's time. Limits are odd and differ, and all other times are even: no two events come at once.
const HALF: Duration = Duration::from_millis(1);
/// The time of one permit, in halves.
const PERIOD: u64 = 4;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Taken,
    Late,
    Killed,
}

#[derive(Copy, Clone, Debug)]
enum Patience {
    Endless,
    /// By the form of the call with a timeout.
    Limit(u64),
    /// By `with_timeout`.
    Scope(u64),
}

/// A limiter and its waiters, without any switching.
struct Model {
    burst: u64,
    whole_at: u64,
    now: u64,
    /// The waiters in order: the number, the permits and the deadline.
    line: VecDeque<(usize, u64, Option<u64>)>,
    outcomes: Vec<Option<Outcome>>,
}

impl Model {
    fn take(&mut self, permits: u64) -> bool {
        let whole_at = self.whole_at.max(self.now) + PERIOD * permits;
        let conforms = whole_at <= self.now + PERIOD * self.burst;
        if conforms {
            self.whole_at = whole_at;
        }
        conforms
    }

    /// Serves the waiters from the first on.
    fn settle(&mut self) {
        while let Some(&(number, permits, _)) = self.line.front()
            && self.take(permits)
        {
            self.line.pop_front();
            self.outcomes[number] = Some(Outcome::Taken);
        }
    }

    fn arrive(&mut self, permits: u64, limit: Option<u64>) {
        self.line.push_back((self.outcomes.len(), permits, limit.map(|limit| self.now + limit)));
        self.outcomes.push(None);
        self.settle();
    }

    fn leave(&mut self, outcome: Outcome, leaves: impl Fn(&(usize, u64, Option<u64>)) -> bool) {
        for waiter in self.line.iter().filter(|waiter| leaves(waiter)) {
            self.outcomes[waiter.0] = Some(outcome);
        }
        self.line.retain(|waiter| !leaves(waiter));
        self.settle();
    }

    fn pass(&mut self) {
        self.now += 1;
        self.settle();
        let now = self.now;
        self.leave(Outcome::Late, |(_, _, deadline)| *deadline == Some(now));
    }
}

fn acquire(limiter: &RateLimiter, permits: u32, patience: Patience) -> Outcome {
    let taken = match patience {
        Patience::Endless => limiter.acquire_many(permits),
        Patience::Limit(halves) => limiter.acquire_many_timeout(permits, HALF * halves as u32),
        Patience::Scope(halves) => with_timeout(HALF * halves as u32, || limiter.acquire_many(permits))
            .unwrap_or(Err(RateLimitError::TimedOut)),
    };
    if in_time(taken).is_some() { Outcome::Taken } else { Outcome::Late }
}

/// Lets every ready green thread run until it waits.
fn settle() {
    (0..8).for_each(|_| yield_now());
}

#[test]
fn a_rate_limiter_matches_its_model() {
    run("a_rate_limiter_matches_its_model", || {
        use_manual_clock();
        get_hub().set_timer_slack(0, Duration::ZERO);
        let (mut taken, mut late) = (0, 0);
        for seed in 0..400 {
            let (mut random, before) = (Rng::with_seed(seed), held());
            let burst = 1 + random.u64(..4);
            let limiter = Rc::new(RateLimiter::new(1, HALF * PERIOD as u32).with_burst(burst as u32));
            let begin = get_hub().now();
            let mut model = Model { burst, whole_at: 0, now: 0, line: VecDeque::new(), outcomes: Vec::new() };
            let outcomes: Rc<RefCell<Vec<Option<Outcome>>>> = Rc::default();
            let mut greens = Vec::new();
            for step in 0..60 {
                let at = format!("seed {seed}, step {step}");
                let permits = 1 + random.u64(..burst);
                match random.usize(..10) {
                    0..=3 if model.now.is_multiple_of(2) => {
                        let mut limit = 1 + 2 * random.u64(..6);
                        while model.line.iter().any(|(_, _, deadline)| *deadline == Some(model.now + limit)) {
                            limit += 2;
                        }
                        let patience = match random.usize(..3) {
                            0 => Patience::Endless,
                            1 => Patience::Limit(limit),
                            _ => Patience::Scope(limit),
                        };
                        let (limiter, own, number) = (limiter.clone(), outcomes.clone(), greens.len());
                        outcomes.borrow_mut().push(None);
                        greens.push(spawn(move || {
                            let outcome = acquire(&limiter, permits as u32, patience);
                            own.borrow_mut()[number] = Some(outcome);
                        }));
                        settle();
                        model.arrive(permits, if let Patience::Endless = patience { None } else { Some(limit) });
                    }
                    4 if model.now.is_multiple_of(2) => assert_eq!(
                        limiter.try_acquire_many(permits as u32),
                        model.line.is_empty() && model.take(permits),
                        "{at}"
                    ),
                    5 if !greens.is_empty() => {
                        let victim = random.usize(..greens.len());
                        greens[victim].kill();
                        settle();
                        if model.outcomes[victim].is_none() {
                            outcomes.borrow_mut()[victim] = Some(Outcome::Killed);
                        }
                        model.leave(Outcome::Killed, |(number, _, _)| *number == victim);
                    }
                    _ => {
                        // To the next half of the model, whatever the yields above have cost.
                        sleep(begin + HALF * (model.now + 1) as u32 - get_hub().now());
                        settle();
                        model.pass();
                    }
                }
                assert_eq!(*outcomes.borrow(), model.outcomes, "{at}");
            }
            taken += model.outcomes.iter().filter(|outcome| **outcome == Some(Outcome::Taken)).count();
            late += model.outcomes.iter().filter(|outcome| **outcome == Some(Outcome::Late)).count();
            greens.iter().for_each(|green| _ = green.kill());
            drop(greens);
            assert_eq!(held(), before, "seed {seed}");
        }
        assert!(taken > 1000 && late > 300, "{taken}, {late}");
    });
}

#[test]
fn a_rate_limiter_serves_every_waiter_and_keeps_its_rate() {
    const TIME: Duration = Duration::from_micros(50);
    storms("a_rate_limiter_serves_every_waiter_and_keeps_its_rate", |pair, seed| {
        let burst = 1 + seed as u32 % 4;
        let limiter = Arc::new(RateLimiter::new(1, TIME).with_burst(burst));
        let (taken, begun) = (Arc::new(AtomicU32::new(0)), Instant::now());
        let hubs = [0, 1].map(|hub| {
            let (limiter, taken) = (limiter.clone(), taken.clone());
            on_hub(pair[hub], 2 * seed + hub as u64, 5, move || {
                let take_some = |_| -> Job {
                    let (limiter, taken) = (limiter.clone(), taken.clone());
                    job(move |random| {
                        for _ in 0..10 {
                            let permits = random.u32(1..=burst);
                            let done = match random.usize(..4) {
                                0 => in_time(limiter.acquire_many_timeout(permits, random.moment())).is_some(),
                                1 => limiter.try_acquire_many(permits),
                                _ => patiently(random, || limiter.acquire_many(permits).unwrap()).is_some(),
                            };
                            if done {
                                taken.fetch_add(permits, SeqCst);
                            }
                            pause(random);
                        }
                    })
                };
                (0..7).map(take_some).collect()
            })
        });
        // The jobs that nothing kills end, so no turn is lost.
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        let most = burst + (begun.elapsed().as_nanos() / TIME.as_nanos()) as u32 + 1;
        assert!(taken.load(SeqCst) <= most, "{} of {most}", taken.load(SeqCst));
        // The line is empty.
        limiter.acquire_many(burst).unwrap();
    });
}
