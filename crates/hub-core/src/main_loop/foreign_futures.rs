//! The futures of other OS threads for results of green threads of this one, which the end of this OS thread wakes.

use std::cell::RefCell;
use std::sync::Weak;

/// A future that another OS thread may poll.
pub(crate) trait ForeignFuture: Send + Sync {
    /// Wakes the waiter of a pending future, whose green thread will never complete it. Does not unwind.
    fn wake_abandoned(&self);
}

/// The pending futures, and some that were dropped since.
#[derive(Default)]
pub(super) struct ForeignFutures {
    futures: RefCell<Vec<Weak<dyn ForeignFuture>>>,
}

impl ForeignFutures {
    /// Adds a future, and removes those that were dropped whenever the list would grow.
    pub(super) fn add(&self, future: Weak<dyn ForeignFuture>) {
        let mut futures = self.futures.borrow_mut();
        if futures.len() == futures.capacity() {
            futures.retain(|future| future.strong_count() != 0);
            // At least half of the room is free afterwards, so that the next search is far away.
            let length = futures.len();
            futures.reserve(length + 1);
        }
        futures.push(future);
    }

    /// Removes all futures, in a forked child: their OS threads are the parent's.
    pub(super) fn forget(&self) {
        self.futures.take();
    }

    /// Wakes the waiters of the futures that are still pending, at the end of the OS thread.
    pub(super) fn wake_all(&self) {
        for future in self.futures.take() {
            if let Some(future) = future.upgrade() {
                future.wake_abandoned();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    impl ForeignFuture for AtomicUsize {
        fn wake_abandoned(&self) {
            self.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn weak(future: &Arc<AtomicUsize>) -> Weak<dyn ForeignFuture> {
        Arc::<AtomicUsize>::downgrade(future)
    }

    #[test]
    fn dropped_futures_make_room_for_others() {
        let futures = ForeignFutures::default();
        let kept: Vec<_> = (0..10).map(|_| Arc::default()).collect();
        for _ in 0..100 {
            kept.iter().for_each(|_| futures.add(weak(&Arc::default())));
        }
        kept.iter().for_each(|future| futures.add(weak(future)));
        assert!(futures.futures.borrow().capacity() < 100);
        futures.wake_all();
        futures.wake_all();
        assert!(kept.iter().all(|future| future.load(Ordering::Relaxed) == 1));
    }
}
