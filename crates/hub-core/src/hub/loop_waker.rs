//! The waker of a hub whose wait runs foreign code.

use std::cell::{Cell, RefCell};
use std::task::Waker;

/// A waker, and whether the loop has been woken since the wait began.
///
/// Cloning, waking and dropping a waker is foreign code. None of it runs while the cell is borrowed.
#[derive(Default)]
pub(crate) struct LoopWaker {
    waker: RefCell<Option<Waker>>,
    was_woken: Cell<bool>,
}

impl LoopWaker {
    /// Forgets earlier wake-ups. The waker stays, so that a later [`set`](LoopWaker::set) of the same one is free.
    #[inline]
    pub(crate) fn begin_wait(&self) {
        self.was_woken.set(false);
    }

    /// Sets the waker, and wakes it if the loop was woken before.
    pub(crate) fn set(&self, waker: &Waker) {
        let is_known = self.waker.borrow().as_ref().is_some_and(|known| known.will_wake(waker));
        if !is_known {
            let waker = waker.clone();
            let replaced = self.waker.replace(Some(waker));
            drop(replaced);
        }
        if self.was_woken.get() {
            waker.wake_by_ref();
        }
    }

    /// Wakes the waker, or the next one that is set.
    pub(crate) fn wake(&self) {
        self.was_woken.set(true);
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake_by_ref();
            // The waker may have set another one.
            let spare = match &mut *self.waker.borrow_mut() {
                Some(_) => Some(waker),
                empty => {
                    *empty = Some(waker);
                    None
                }
            };
            drop(spare);
        }
    }

    /// Removes the waker.
    pub(crate) fn take(&self) -> Option<Waker> {
        self.waker.take()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn a_wake_up_before_the_waker_is_set_is_not_lost() {
        let (loop_waker, (count, waker)) = (LoopWaker::default(), counted());
        loop_waker.begin_wait();
        loop_waker.wake();
        loop_waker.set(&waker);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_wake_up_of_an_earlier_wait_is_forgotten() {
        let (loop_waker, (count, waker)) = (LoopWaker::default(), counted());
        loop_waker.wake();
        loop_waker.begin_wait();
        loop_waker.set(&waker);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_same_waker_is_cloned_once() {
        let (loop_waker, (count, waker)) = (LoopWaker::default(), counted());
        for _ in 0..3 {
            loop_waker.begin_wait();
            loop_waker.set(&waker);
            loop_waker.wake();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        // One for `count`, one for `waker`, one for the clone.
        assert_eq!(Arc::strong_count(&count), 3);
        drop(loop_waker.take());
        assert_eq!(Arc::strong_count(&count), 2);
    }
}
