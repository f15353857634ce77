//! A yield among 2 green threads, and among 1,000, with one body and with different bodies.

use std::future::poll_fn;
use std::hint::black_box;
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

/// Yields `rounds` times. `N` makes the code differ, so that each body has its own calls of the yield.
#[inline(never)]
fn green_body<const N: u64>(rounds: u64) {
    for number in 0..rounds {
        greenhub::thread::yield_now();
        black_box(number ^ N);
    }
}

#[inline(never)]
fn may_body<const N: u64>(rounds: u64) {
    for number in 0..rounds {
        may::coroutine::yield_now();
        black_box(number ^ N);
    }
}

async fn task_body<const N: u64>(rounds: u64) {
    for number in 0..rounds {
        wake_itself().await;
        black_box(number ^ N);
    }
}

fn greenhub_bodies(threads: u64, rounds: u64) -> Duration {
    const BODIES: [fn(u64); 4] = [green_body::<1>, green_body::<2>, green_body::<3>, green_body::<4>];
    let watch = Stopwatch::start();
    let spawn = |body: fn(u64)| greenhub::spawn(move || body(rounds));
    let all: Vec<_> = BODIES.into_iter().cycle().take(threads as usize).map(spawn).collect();
    all.into_iter().for_each(|one| one.join().expect("no panic"));
    watch.elapsed()
}

fn may_bodies(threads: u64, rounds: u64) -> Duration {
    const BODIES: [fn(u64); 4] = [may_body::<1>, may_body::<2>, may_body::<3>, may_body::<4>];
    let watch = Stopwatch::start();
    let spawn = |body: fn(u64)| may::go!(move || body(rounds));
    let all: Vec<_> = BODIES.into_iter().cycle().take(threads as usize).map(spawn).collect();
    all.into_iter().for_each(|one| one.join().expect("no panic"));
    watch.elapsed()
}

fn tokio_bodies(threads: u64, rounds: u64) -> Duration {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async move {
        let watch = Stopwatch::start();
        let spawn = |number| match number % 4 {
            0 => tokio::spawn(task_body::<1>(rounds)),
            1 => tokio::spawn(task_body::<2>(rounds)),
            2 => tokio::spawn(task_body::<3>(rounds)),
            _ => tokio::spawn(task_body::<4>(rounds)),
        };
        let all: Vec<_> = (0..threads).map(spawn).collect();
        for one in all {
            one.await.expect("no panic");
        }
        watch.elapsed()
    })
}

/// The name of a bench, and a function of the number of green threads and of the yields of each.
type Yields = (&'static str, fn(u64, u64) -> Duration);

fn yields(criterion: &mut Criterion) {
    may::config().set_workers(1);
    for threads in [2, 1000] {
        let benches: [Yields; 6] = [
            ("greenhub", greenhub_yields),
            ("tokio, a task wakes itself", |threads, rounds| tokio_yields(threads, rounds, wake_itself)),
            ("tokio, yield_now", |threads, rounds| tokio_yields(threads, rounds, tokio::task::yield_now)),
            ("may", may_yields),
            ("smol", smol_yields),
            ("monoio, a task wakes itself", monoio_yields),
        ];
        group(criterion, &format!("yield, {threads} green threads"), threads, &benches);
        let benches: [Yields; 3] =
            [("greenhub", greenhub_bodies), ("tokio, a task wakes itself", tokio_bodies), ("may", may_bodies)];
        let name = format!("yield, {threads} green threads of {} bodies", threads.min(4));
        group(criterion, &name, threads, &benches);
    }
}

fn group(criterion: &mut Criterion, name: &str, threads: u64, benches: &[Yields]) {
    let mut group = criterion.benchmark_group(name);
    for &(name, run) in benches {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let rounds = rounds(iterations, threads);
                scaled(run(threads, rounds), threads * rounds, iterations)
            });
        });
    }
}

criterion_group!(benches, yields);
criterion_main!(benches);
