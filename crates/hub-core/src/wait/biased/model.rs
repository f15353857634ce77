//! The interleavings of an owner and of threads that end its bias, by loom: `RUSTFLAGS="--cfg loom" cargo test -p
//! hub-core --release --lib model`.
//!
//! Ground rule: the count is touched between `enter` and `leave` only.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::{Bias, UNBIASED};

/// A counter by which loom finds two threads that are inside at once, or a thread that misses another's change.
struct Counter {
    bias: Bias,
    count: UnsafeCell<u32>,
}

// SAFETY: loom's cell reports two threads that use it at once.
unsafe impl Sync for Counter {}
// SAFETY: as above.
unsafe impl Send for Counter {}

impl Counter {
    fn new() -> Arc<Counter> {
        Arc::new(Counter { bias: Bias::new(), count: UnsafeCell::new(0) })
    }

    fn add(&self, me: u64) {
        let entry = self.bias.enter(me);
        // SAFETY: loom checks that no other thread is here.
        self.count.with_mut(|count| unsafe { *count += 1 });
        // SAFETY: entered above.
        unsafe { self.bias.leave(entry) };
    }

    fn count(&self, me: u64) -> u32 {
        let entry = self.bias.enter(me);
        // SAFETY: as above.
        let count = self.count.with(|count| unsafe { *count });
        // SAFETY: entered above.
        unsafe { self.bias.leave(entry) };
        count
    }
}

fn threads(counter: &Arc<Counter>, each: &[(u64, usize)]) {
    let running: Vec<_> = each
        .iter()
        .map(|&(me, times)| {
            let counter = Arc::clone(counter);
            thread::spawn(move || (0..times).for_each(|_| counter.add(me)))
        })
        .collect();
    running.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn the_owner_and_a_thread_that_ends_the_bias_exclude_each_other() {
    loom::model(|| {
        let counter = Counter::new();
        counter.add(1);
        let other = Arc::clone(&counter);
        let other = thread::spawn(move || other.add(2));
        counter.add(1);
        counter.add(1);
        other.join().unwrap();
        assert_eq!(counter.count(1), 4);
        assert_eq!(counter.bias.owner.load(loom::sync::atomic::Ordering::Relaxed), UNBIASED);
    });
}

#[test]
fn two_simultaneous_first_lockers_exclude_each_other() {
    loom::model(|| {
        let counter = Counter::new();
        threads(&counter, &[(1, 1), (2, 2)]);
        assert_eq!(counter.count(3), 3);
    });
}

#[test]
fn two_threads_that_end_a_bias_exclude_each_other() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let counter = Counter::new();
        counter.add(1);
        let others = Arc::clone(&counter);
        let both = thread::spawn(move || threads(&others, &[(2, 1), (3, 1)]));
        counter.add(1);
        both.join().unwrap();
        assert_eq!(counter.count(1), 4);
    });
}
