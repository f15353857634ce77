//! Spawning and joining in batches of a thousand. The time is that of one spawn and join.

use std::time::Duration;

use benches::{scaled, timed};
use context::stack::FixedSizeStack;
use context::{Context, Transfer};
use criterion::{Criterion, criterion_group, criterion_main};

const BATCH: u64 = 1000;

fn greenhub_batch() {
    let all: Vec<_> = (0..BATCH).map(|number| greenhub::spawn(move || number)).collect();
    for (number, one) in (0..).zip(all) {
        assert_eq!(one.join().expect("no panic"), number);
    }
}

fn may_batch() {
    let all: Vec<_> = (0..BATCH).map(|number| may::go!(move || number)).collect();
    for (number, one) in (0..).zip(all) {
        assert_eq!(one.join().expect("no panic"), number);
    }
}

async fn tokio_batch() {
    let all: Vec<_> = (0..BATCH).map(|number| tokio::spawn(async move { number })).collect();
    for (number, one) in (0..).zip(all) {
        assert_eq!(one.await.expect("no panic"), number);
    }
}

async fn smol_batch(executor: &smol::LocalExecutor<'_>) {
    let all: Vec<_> = (0..BATCH).map(|number| executor.spawn(async move { number })).collect();
    for (number, one) in (0..).zip(all) {
        assert_eq!(one.await, number);
    }
}

async fn monoio_batch() {
    let all: Vec<_> = (0..BATCH).map(|number| monoio::spawn(async move { number })).collect();
    for (number, one) in (0..).zip(all) {
        assert_eq!(one.await, number);
    }
}

extern "C" fn leave(from: Transfer) -> ! {
    // SAFETY: the context that jumped here is suspended in that jump. This context is never resumed, so its stack may
    // be reused.
    unsafe { from.context.resume(from.data) };
    unreachable!("left for good")
}

/// Creates contexts on the same warm stack, and enters and leaves each.
fn context_batch(stack: &FixedSizeStack) {
    for number in 0..BATCH as usize {
        // SAFETY: the stack outlives the jump, and the previous context on it is never resumed.
        let back = unsafe { Context::new(stack, leave).resume(number) };
        assert_eq!(back.data, number);
    }
}

/// Returns the time of `iterations` operations, measured over whole batches.
fn batches(iterations: u64, batch: impl FnMut()) -> Duration {
    let batches = iterations.div_ceil(BATCH);
    scaled(timed(batches, batch), batches * BATCH, iterations)
}

fn spawns(criterion: &mut Criterion) {
    may::config().set_workers(1);
    let mut group = criterion.benchmark_group("spawn and join");
    let stack = FixedSizeStack::default();
    group.bench_function("context", |bencher| bencher.iter_custom(|count| batches(count, || context_batch(&stack))));
    group.bench_function("greenhub", |bencher| bencher.iter_custom(|count| batches(count, greenhub_batch)));
    group.bench_function("tokio", |bencher| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        bencher.iter_custom(|count| batches(count, || runtime.block_on(tokio_batch())));
    });
    group.bench_function("smol", |bencher| {
        let executor = smol::LocalExecutor::new();
        let batch = || smol::future::block_on(executor.run(smol_batch(&executor)));
        bencher.iter_custom(|count| batches(count, batch));
    });
    group.bench_function("monoio", |bencher| {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("a runtime");
        bencher.iter_custom(|count| batches(count, || runtime.block_on(monoio_batch())));
    });
    group.bench_function("may", |bencher| {
        // Join on a coroutine, as the others do. The system would have to wake a joining OS thread.
        bencher.iter_custom(|count| may::go!(move || batches(count, may_batch)).join().expect("no panic"));
    });
}

criterion_group!(benches, spawns);
criterion_main!(benches);
