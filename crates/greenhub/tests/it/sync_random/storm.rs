//! Jobs in green threads of two hubs, for every pair of hub kinds, with kills and timeouts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn, use_hub, with_timeout};

use crate::support::green::OnDrop;
use crate::support::random::{Moment, Rng};
use crate::support::run;

pub(crate) const MOMENT: Duration = Duration::from_micros(100);
/// The number of storms for each pair of hub kinds.
const STORMS: u64 = 6;

/// Returns every pair of available hub kinds, pairs of the same kind included.
pub(crate) fn pairs() -> Vec<[&'static str; 2]> {
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

/// Runs `storm` for every pair of hub kinds, with several seeds.
pub(crate) fn storms(name: &str, storm: impl Fn([&'static str; 2], u64) + Copy + Send + 'static) {
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

pub(crate) type Job = Box<dyn FnOnce(&mut Rng)>;

pub(crate) fn job(job: impl FnOnce(&mut Rng) + 'static) -> Job {
    Box::new(job)
}

/// Runs the jobs in green threads of an OS thread with the named hub, and kills some of the first `mortal`.
pub(crate) fn on_hub(
    name: &'static str,
    seed: u64,
    mortal: usize,
    jobs: impl FnOnce() -> Vec<Job> + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        use_hub(name).unwrap();
        assert_eq!(get_hub().name(), name);
        let mut random = Rng::with_seed(seed);
        let spawn_one = |job: Job| {
            let mut random = random.fork();
            spawn(move || job(&mut random))
        };
        let greens: Vec<_> = jobs().into_iter().map(spawn_one).collect();
        for _ in 0..4 {
            sleep(random.moment());
            if mortal > 0 {
                greens[random.usize(..mortal)].kill();
            }
        }
        for green in greens {
            if let Err(error) = green.join() {
                assert!(error.is_kill(), "{error}");
            }
        }
        // Lets green threads end that the primitives have started.
        yield_now();
    })
}

/// Waits without a limit, or with a short timeout.
pub(crate) fn patiently<R>(random: &mut Rng, wait: impl FnOnce() -> R) -> Option<R> {
    match random.usize(..3) {
        0 => with_timeout(random.moment(), wait).ok(),
        _ => Some(wait()),
    }
}

pub(crate) fn pause(random: &mut Rng) {
    match random.usize(..3) {
        0 => sleep(random.moment()),
        1 => yield_now(),
        _ => {}
    }
}

/// The number of live permits of this count.
#[derive(Clone, Default)]
pub(crate) struct Count(pub(crate) Arc<AtomicUsize>);

impl Count {
    /// Returns a permit that counts until it is dropped.
    pub(crate) fn one(&self) -> OnDrop<impl FnMut() + use<>> {
        let count = self.0.clone();
        count.fetch_add(1, SeqCst);
        OnDrop(move || _ = count.fetch_sub(1, SeqCst))
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// Blocks the OS thread until the condition holds.
pub(crate) fn until(so: impl Fn() -> bool) {
    while !so() {
        std::thread::sleep(MOMENT);
    }
}
