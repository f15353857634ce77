//! Ten thousand sleepers at once, and a hundred thousand, whose sleeps end at different times. The time is that of one
//! sleep.

use std::time::Duration;

use benches::figures::skip;
use benches::{Stopwatch, scaled};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};

/// A number of sleepers, and the sleeps of each in a sample.
#[derive(Copy, Clone)]
struct Load {
    sleepers: u64,
    /// Enough that the start and the end of the sleepers cost little.
    rounds: u64,
    /// The longest sleep, in microseconds. More sleepers sleep longer, so that a runtime can keep up.
    longest: u64,
}

impl Load {
    /// Returns how long a sleeper sleeps: from 1 ms to the longest sleep, in no order.
    fn sleep_of(self, number: u64) -> Duration {
        Duration::from_micros(1000 + number * 7919 % (self.longest - 1000))
    }
}

fn greenhub_sleeps(load: Load) -> Duration {
    let watch = Stopwatch::start();
    let sleeps = move |number| (0..load.rounds).for_each(|round| greenhub::sleep(load.sleep_of(number + round)));
    let all: Vec<_> = (0..load.sleepers).map(|number| greenhub::spawn(move || sleeps(number))).collect();
    all.into_iter().for_each(|one| one.join().expect("no panic"));
    watch.elapsed()
}

fn tokio_sleeps(load: Load) -> Duration {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(async move {
        let watch = Stopwatch::start();
        let sleeps = |number| {
            tokio::spawn(async move {
                for round in 0..load.rounds {
                    tokio::time::sleep(load.sleep_of(number + round)).await;
                }
            })
        };
        let all: Vec<_> = (0..load.sleepers).map(sleeps).collect();
        for one in all {
            one.await.expect("no panic");
        }
        watch.elapsed()
    })
}

fn smol_sleeps(load: Load) -> Duration {
    let executor = smol::LocalExecutor::new();
    let watch = Stopwatch::start();
    let sleeps = |number| {
        executor.spawn(async move {
            for round in 0..load.rounds {
                smol::Timer::after(load.sleep_of(number + round)).await;
            }
        })
    };
    let all: Vec<_> = (0..load.sleepers).map(sleeps).collect();
    smol::block_on(executor.run(async {
        for one in all {
            one.await;
        }
    }));
    watch.elapsed()
}

fn monoio_sleeps(load: Load) -> Duration {
    let builder = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer();
    builder.build().expect("a runtime").block_on(async move {
        let watch = Stopwatch::start();
        let sleeps = |number| {
            monoio::spawn(async move {
                for round in 0..load.rounds {
                    monoio::time::sleep(load.sleep_of(number + round)).await;
                }
            })
        };
        let all: Vec<_> = (0..load.sleepers).map(sleeps).collect();
        for one in all {
            one.await;
        }
        watch.elapsed()
    })
}

fn may_sleeps(load: Load) -> Duration {
    let watch = Stopwatch::start();
    let sleeps = move |number| (0..load.rounds).for_each(|round| may::coroutine::sleep(load.sleep_of(number + round)));
    let all: Vec<_> = (0..load.sleepers).map(|number| may::go!(move || sleeps(number))).collect();
    all.into_iter().for_each(|one| one.join().expect("no panic"));
    watch.elapsed()
}

fn sleepers(criterion: &mut Criterion) {
    may::config().set_workers(1);
    let few = Load { sleepers: 10_000, rounds: 10, longest: 50_000 };
    let many = Load { sleepers: 100_000, rounds: 3, longest: 100_000 };
    for (name, load) in [("10,000", few), ("100,000", many)] {
        let name = format!("a sleep among {name} sleepers");
        let mut group = criterion.benchmark_group(&name);
        group.sampling_mode(SamplingMode::Flat);
        let mut bench = |name: &str, run: fn(Load) -> Duration| {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| scaled(run(load), load.rounds * load.sleepers, iterations));
            });
        };
        bench("greenhub", greenhub_sleeps);
        bench("tokio", tokio_sleeps);
        bench("smol", smol_sleeps);
        bench("monoio", monoio_sleeps);
        if load.sleepers <= 10_000 {
            bench("may", may_sleeps);
        } else {
            skip(&format!("{name}, may"), "its stacks take more mappings than vm.max_map_count allows");
        }
    }
}

criterion_group!(benches, sleepers);
criterion_main!(benches);
