//! A message between two green threads and back, and locks that are free: ours beside std's, tokio's and may's.

use std::sync;
use std::time::Duration;

use benches::{Stopwatch, scaled, timed};
use criterion::{Criterion, criterion_group, criterion_main};

/// So that the start weighs nothing.
fn rounds(iterations: u64) -> u64 {
    iterations.max(1000)
}

fn greenhub_channel(rounds: u64) -> Duration {
    use greenhub::sync::mpsc::channel;
    let ((there, arrived), (back, returned)) = (channel(), channel());
    let watch = Stopwatch::start();
    let bounce = greenhub::spawn(move || arrived.iter().try_for_each(|number: u64| back.send(number)));
    let send = greenhub::spawn(move || {
        for number in 0..rounds {
            there.send(number).expect("the other receives");
            assert_eq!(returned.recv(), Ok(number));
        }
    });
    send.join().expect("it only sends and receives");
    bounce.join().expect("it only bounces").expect("the other receives");
    watch.elapsed()
}

fn may_channel(rounds: u64) -> Duration {
    use may::sync::mpsc::channel;
    let ((there, arrived), (back, returned)) = (channel(), channel());
    let watch = Stopwatch::start();
    let bounce = may::go!(move || arrived.iter().try_for_each(|number: u64| back.send(number)));
    let send = may::go!(move || {
        for number in 0..rounds {
            there.send(number).expect("the other receives");
            assert_eq!(returned.recv(), Ok(number));
        }
    });
    send.join().expect("it only sends and receives");
    bounce.join().expect("it only bounces").expect("the other receives");
    watch.elapsed()
}

fn tokio_channel(rounds: u64) -> Duration {
    use tokio::sync::mpsc::unbounded_channel as channel;
    let ((there, mut arrived), (back, mut returned)) = (channel(), channel());
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async move {
        let watch = Stopwatch::start();
        let bounce = tokio::spawn(async move {
            while let Some(number) = arrived.recv().await {
                let number: u64 = number;
                back.send(number).expect("the other receives");
            }
        });
        let send = tokio::spawn(async move {
            for number in 0..rounds {
                there.send(number).expect("the other receives");
                assert_eq!(returned.recv().await, Some(number));
            }
        });
        send.await.expect("it only sends and receives");
        bounce.await.expect("it only bounces");
        watch.elapsed()
    })
}

/// Between two OS threads: what a program without green threads pays.
fn std_channel(rounds: u64) -> Duration {
    use sync::mpsc::channel;
    let ((there, arrived), (back, returned)) = (channel(), channel());
    let watch = Stopwatch::start();
    let bounce = std::thread::spawn(move || arrived.iter().try_for_each(|number: u64| back.send(number)));
    for number in 0..rounds {
        there.send(number).expect("the other receives");
        assert_eq!(returned.recv(), Ok(number));
    }
    drop(there);
    bounce.join().expect("it only bounces").expect("the other receives");
    watch.elapsed()
}

fn channels(criterion: &mut Criterion) {
    may::config().set_workers(1);
    let mut group = criterion.benchmark_group("a message there and back");
    let mut bench = |name: &str, run: fn(u64) -> Duration| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let rounds = rounds(iterations);
                scaled(run(rounds), rounds, iterations)
            });
        });
    };
    bench("greenhub", greenhub_channel);
    bench("tokio", tokio_channel);
    bench("may", may_channel);
    bench("std, two OS threads", std_channel);
}

fn locks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("locked and unlocked, free");
    group.bench_function("greenhub, Mutex", |bencher| {
        let mutex = greenhub::sync::Mutex::new(0_u64);
        bencher.iter_custom(|count| timed(count, || *mutex.lock().expect("nobody panics") += 1));
    });
    group.bench_function("greenhub, Mutex that two OS threads have used", |bencher| {
        let mutex = greenhub::sync::Mutex::new(0_u64);
        std::thread::scope(|scope| scope.spawn(|| drop(mutex.lock())).join().expect("it only locks"));
        bencher.iter_custom(|count| timed(count, || *mutex.lock().expect("nobody panics") += 1));
    });
    group.bench_function("std, Mutex", |bencher| {
        let mutex = sync::Mutex::new(0_u64);
        bencher.iter_custom(|count| timed(count, || *mutex.lock().expect("nobody panics") += 1));
    });
    group.bench_function("greenhub, Semaphore", |bencher| {
        let semaphore = greenhub::sync::Semaphore::new(1);
        bencher.iter_custom(|count| {
            timed(count, || {
                semaphore.acquire().expect("nobody has it");
                semaphore.release();
            })
        });
    });
    group.bench_function("tokio, Semaphore", |bencher| {
        let semaphore = tokio::sync::Semaphore::new(1);
        bencher.iter_custom(|count| timed(count, || drop(semaphore.try_acquire().expect("nobody has it"))));
    });
}

criterion_group!(benches, channels, locks);
criterion_main!(benches);
