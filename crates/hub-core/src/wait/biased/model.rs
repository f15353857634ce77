//! The interleavings of an owner and of those who end its bias, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p hub-core --release --lib model`.
//!
//! Ground rule: the count is touched between `enter` and `leave` only.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::{Bias, EVERYBODY};

/// loom finds two who are inside at once, or one who does not see what another has done.
struct Counter {
    bias: Bias,
    count: UnsafeCell<u32>,
}

// SAFETY: loom's cell tells if two threads use it at once.
unsafe impl Sync for Counter {}
// SAFETY: as above.
unsafe impl Send for Counter {}

impl Counter {
    fn new() -> Arc<Counter> {
        Arc::new(Counter { bias: Bias::new(), count: UnsafeCell::new(0) })
    }

    fn add(&self, me: u64) {
        let way = self.bias.enter(me);
        // SAFETY: loom checks that nobody else is here.
        self.count.with_mut(|count| unsafe { *count += 1 });
        // SAFETY: entered above.
        unsafe { self.bias.leave(way) };
    }

    fn count(&self, me: u64) -> u32 {
        let way = self.bias.enter(me);
        // SAFETY: as above.
        let count = self.count.with(|count| unsafe { *count });
        // SAFETY: entered above.
        unsafe { self.bias.leave(way) };
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
fn an_owner_and_one_who_ends_its_bias_are_never_inside_together() {
    loom::model(|| {
        let counter = Counter::new();
        counter.add(1);
        let other = Arc::clone(&counter);
        let other = thread::spawn(move || other.add(2));
        counter.add(1);
        counter.add(1);
        other.join().unwrap();
        assert_eq!(counter.count(1), 4);
        assert_eq!(counter.bias.owner.load(loom::sync::atomic::Ordering::Relaxed), EVERYBODY);
    });
}

#[test]
fn two_who_come_first_together_are_served_one_after_the_other() {
    loom::model(|| {
        let counter = Counter::new();
        threads(&counter, &[(1, 1), (2, 2)]);
        assert_eq!(counter.count(3), 3);
    });
}

#[test]
fn two_who_end_a_bias_together_are_served_one_after_the_other() {
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
