//! A bounded pool of green threads, and a pool of OS threads for blocking code, compared with tokio.

use std::sync::Arc;
use std::time::Duration;

use benches::{Contender, Stopwatch, scaled};
use criterion::{Criterion, criterion_group, criterion_main};

/// The number of tasks that may run at once.
const SIZE: usize = 100;

fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

/// Spawns in a `GreenPool`. Each spawn waits for a free slot, and the end waits for all green threads.
fn greenhub_pool(count: u64) -> Duration {
    let pool = greenhub::GreenPool::new(SIZE);
    let watch = Stopwatch::start();
    for number in 0..count {
        pool.spawn_n(move || number).expect("the main greenlet can wait");
    }
    pool.wait_all().expect("the main greenlet can wait");
    watch.elapsed()
}

/// Spawns tasks, each of which holds a permit of a semaphore.
fn tokio_pool(count: u64) -> Duration {
    tokio_runtime().block_on(async move {
        let (permits, mut tasks) = (Arc::new(tokio::sync::Semaphore::new(SIZE)), tokio::task::JoinSet::new());
        let watch = Stopwatch::start();
        for number in 0..count {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is open");
            tasks.spawn(async move {
                let _permit = permit;
                number
            });
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
        watch.elapsed()
    })
}

fn greenhub_blocking(count: u64) -> Duration {
    let watch = Stopwatch::start();
    for number in 0..count {
        let result = greenhub::tpool::execute(move || number).expect("no panic");
        assert_eq!(result, number);
    }
    watch.elapsed()
}

fn tokio_blocking(count: u64) -> Duration {
    tokio_runtime().block_on(async move {
        let watch = Stopwatch::start();
        for number in 0..count {
            let result = tokio::task::spawn_blocking(move || number).await.expect("no panic");
            assert_eq!(result, number);
        }
        watch.elapsed()
    })
}

fn pools(criterion: &mut Criterion) {
    let mut bench = |group: &str, least: u64, contenders: [Contender; 2]| {
        let mut group = criterion.benchmark_group(group);
        for (name, run) in contenders {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    // With many operations, the cost of the set-up does not count.
                    let count = iterations.max(least);
                    scaled(run(count), count, iterations)
                });
            });
        }
    };
    bench("spawned in a pool of 100", 1000, [("greenhub, GreenPool", greenhub_pool), ("tokio, Semaphore", tokio_pool)]);
    bench(
        "a job on another OS thread",
        100,
        [("greenhub, tpool", greenhub_blocking), ("tokio, spawn_blocking", tokio_blocking)],
    );
}

criterion_group!(benches, pools);
criterion_main!(benches);
