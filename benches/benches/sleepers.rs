//! Ten thousand sleepers at once, whose sleeps end at different times. The time is that of one sleep.

use std::time::Duration;

use benches::{Stopwatch, scaled};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};

const SLEEPERS: u64 = 10_000;

/// The sleeps of each sleeper in a sample: so many that the start and the end of the sleepers cost little.
const ROUNDS: u64 = 20;

/// Returns how long a sleeper sleeps: 1 to 50 ms, in no order.
fn sleep_of(number: u64) -> Duration {
    Duration::from_micros(1000 + number * 7919 % 49_000)
}

fn greenhub_sleeps() -> Duration {
    let watch = Stopwatch::start();
    let sleeps = move |number| (0..ROUNDS).for_each(|round| greenhub::sleep(sleep_of(number + round)));
    let all: Vec<_> = (0..SLEEPERS).map(|number| greenhub::spawn(move || sleeps(number))).collect();
    all.into_iter().for_each(|one| one.join().expect("no panic"));
    watch.elapsed()
}

fn tokio_sleeps() -> Duration {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(async move {
        let watch = Stopwatch::start();
        let sleeps = |number| {
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    tokio::time::sleep(sleep_of(number + round)).await;
                }
            })
        };
        let all: Vec<_> = (0..SLEEPERS).map(sleeps).collect();
        for one in all {
            one.await.expect("no panic");
        }
        watch.elapsed()
    })
}

fn sleepers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a sleep among 10,000 sleepers");
    group.sampling_mode(SamplingMode::Flat);
    let mut bench = |name: &str, run: fn() -> Duration| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| scaled(run(), ROUNDS * SLEEPERS, iterations));
        });
    };
    bench("greenhub", greenhub_sleeps);
    bench("tokio", tokio_sleeps);
}

criterion_group!(benches, sleepers);
criterion_main!(benches);
