//! A yield among 2 green threads, and among 1,000.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use benches::{Stopwatch, scaled};
use criterion::{Criterion, criterion_group, criterion_main};

/// Returns how often each green thread yields in a sample of `iterations` yields.
///
/// The count is so large that the start costs little.
fn rounds(iterations: u64, threads: u64) -> u64 {
    (iterations / threads).max(200)
}

fn greenhub_yields(threads: u64, rounds: u64) -> Duration {
    let watch = Stopwatch::start();
    let yielding = move || (0..rounds).for_each(|_| greenhub::thread::yield_now());
    let all: Vec<_> = (0..threads).map(|_| greenhub::spawn(yielding)).collect();
    all.into_iter().for_each(|one| one.join().expect("no panic"));
    watch.elapsed()
}

fn may_yields(threads: u64, rounds: u64) -> Duration {
    let watch = Stopwatch::start();
    let yielding = move || (0..rounds).for_each(|_| may::coroutine::yield_now());
    let all: Vec<_> = (0..threads).map(|_| may::go!(yielding)).collect();
    all.into_iter().for_each(|one| one.join().expect("no panic"));
    watch.elapsed()
}

fn tokio_yields<F>(threads: u64, rounds: u64, yield_now: fn() -> F) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async move {
        let watch = Stopwatch::start();
        let yielding = |_| {
            tokio::spawn(async move {
                for _ in 0..rounds {
                    yield_now().await;
                }
            })
        };
        let all: Vec<_> = (0..threads).map(yielding).collect();
        for one in all {
            one.await.expect("no panic");
        }
        watch.elapsed()
    })
}

fn smol_yields(threads: u64, rounds: u64) -> Duration {
    let executor = smol::LocalExecutor::new();
    let yielding = |_| {
        executor.spawn(async move {
            for _ in 0..rounds {
                smol::future::yield_now().await;
            }
        })
    };
    let watch = Stopwatch::start();
    let all: Vec<_> = (0..threads).map(yielding).collect();
    smol::future::block_on(executor.run(async {
        for one in all {
            one.await;
        }
    }));
    watch.elapsed()
}

fn monoio_yields(threads: u64, rounds: u64) -> Duration {
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("a runtime");
    runtime.block_on(async move {
        let watch = Stopwatch::start();
        let yielding = |_| {
            monoio::spawn(async move {
                for _ in 0..rounds {
                    wake_itself().await;
                }
            })
        };
        let all: Vec<_> = (0..threads).map(yielding).collect();
        for one in all {
            one.await;
        }
        watch.elapsed()
    })
}

/// Yields without polling the driver, unlike tokio's own `yield_now`.
async fn wake_itself() {
    let mut woken = false;
    poll_fn(|context| {
        if std::mem::replace(&mut woken, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn yields(criterion: &mut Criterion) {
    may::config().set_workers(1);
    for threads in [2, 1000] {
        let mut group = criterion.benchmark_group(format!("yield, {threads} green threads"));
        let mut bench = |name: &str, run: fn(u64, u64) -> Duration| {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    let rounds = rounds(iterations, threads);
                    scaled(run(threads, rounds), threads * rounds, iterations)
                });
            });
        };
        bench("greenhub", greenhub_yields);
        bench("tokio, a task wakes itself", |threads, rounds| tokio_yields(threads, rounds, wake_itself));
        bench("tokio, yield_now", |threads, rounds| tokio_yields(threads, rounds, tokio::task::yield_now));
        bench("may", may_yields);
        bench("smol", smol_yields);
        bench("monoio, a task wakes itself", monoio_yields);
    }
}

criterion_group!(benches, yields);
criterion_main!(benches);
