//! Arming and cancelling a timeout, alone and while 100,000 others are armed.
//!
//! `may` arms a timer only together with a park, so it has no figure here.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use benches::timed;
use criterion::{Criterion, criterion_group, criterion_main};

const LIMIT: Duration = Duration::from_secs(30);

/// Returns the delays of timers that stay armed throughout.
fn others(count: u64) -> impl Iterator<Item = Duration> {
    (0..count).map(|number| Duration::from_secs(600 + number % 600))
}

fn timeouts(criterion: &mut Criterion) {
    for armed in [0, 100_000] {
        let mut group = criterion.benchmark_group(format!("arm and cancel, {armed} armed"));
        group.bench_function("greenhub", |bencher| {
            let hub = greenhub::get_hub();
            let timers: Vec<_> = others(armed).map(|after| hub.schedule(after, || ())).collect();
            greenhub::sleep(Duration::from_millis(1));
            bencher.iter_custom(|count| timed(count, || greenhub::with_timeout(LIMIT, || black_box(()))));
            assert!(timers.iter().all(|timer| timer.cancel()));
        });
        group.bench_function("smol", |bencher| {
            let mut waiting = Context::from_waker(Waker::noop());
            let mut timers: Vec<_> = others(armed).map(smol::Timer::after).collect();
            for timer in &mut timers {
                assert!(pin!(timer).poll(&mut waiting).is_pending());
            }
            let mut arm_and_cancel = || assert!(pin!(smol::Timer::after(LIMIT)).poll(&mut waiting).is_pending());
            bencher.iter_custom(|count| timed(count, &mut arm_and_cancel));
        });
        group.bench_function("tokio", |bencher| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            runtime.block_on(async {
                let mut waiting = Context::from_waker(Waker::noop());
                let mut timers: Vec<_> = others(armed).map(|after| Box::pin(tokio::time::sleep(after))).collect();
                for timer in &mut timers {
                    assert_eq!(timer.as_mut().poll(&mut waiting), Poll::Pending);
                }
                // `timeout` around a ready future would arm no timer.
                let mut arm_and_cancel =
                    || assert_eq!(pin!(tokio::time::sleep(LIMIT)).poll(&mut waiting), Poll::Pending);
                bencher.iter_custom(|count| timed(count, &mut arm_and_cancel));
            });
        });
    }
}

criterion_group!(benches, timeouts);
criterion_main!(benches);
