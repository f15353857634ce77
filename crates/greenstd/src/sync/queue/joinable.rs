use std::fmt;
use std::ops::Deref;

use hub_core::{Deadline, LeftMark, LoopError, ReadyMark, Waitable};

use super::{JoinWait, OrderedLightQueue};
use crate::sync::order::{Fifo, Lifo, Order, Priority};
use crate::sync::wait_queue::{Unserved, Wait};

/// A [`Queue`] whose items leave in the order `O`.
///
/// It is an [`OrderedLightQueue`] that also counts unfinished items.
pub struct OrderedQueue<T, O>(OrderedLightQueue<T, O>);

/// A [`LightQueue`](crate::sync::LightQueue) that also counts unfinished items. Eventlet's `Queue`.
///
/// Callers can wait until all items are reported done.
///
/// ```
/// use greenhub::sync::Queue;
/// use std::sync::Arc;
/// let jobs: Arc<Queue<u32>> = Arc::default();
/// (1..=3).try_for_each(|n| jobs.put(n))?;
/// let worker = jobs.clone();
/// greenhub::thread::spawn(move || {
///     while let Ok(_job) = worker.get() {
///         worker.task_done().unwrap();
///     }
/// });
/// jobs.join()?;
/// assert!(jobs.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "JoinableQueue")]
#[doc(alias = "SimpleQueue")]
pub type Queue<T> = OrderedQueue<T, Fifo<T>>;

/// A [`Queue`] that returns the smallest item first. Eventlet's `PriorityQueue`.
///
/// Equal items leave in the order in which they were put.
///
/// Items are compared under the lock of the queue. In a comparison a wait or a yield fails or panics, as in the main
/// loop, and a use of a queue with such an order panics. A panic of a comparison reaches the operation and loses no
/// item: see [`Order`].
///
/// ```
/// use greenhub::sync::PriorityQueue;
/// let queue = PriorityQueue::new();
/// for (priority, job) in [(2, "later"), (1, "first"), (2, "last")] {
///     queue.try_put((priority, job))?;
/// }
/// assert_eq!(queue.try_get()?, (1, "first"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type PriorityQueue<T> = OrderedQueue<T, Priority<T>>;

/// A [`Queue`] that returns the item first that was put last.
///
/// ```
/// use greenhub::sync::LifoQueue;
/// let queue = LifoQueue::new();
/// queue.try_put("old")?;
/// queue.try_put("new")?;
/// assert_eq!(queue.try_get()?, "new");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type LifoQueue<T> = OrderedQueue<T, Lifo<T>>;

/// The error of a `task_done` without an unfinished item.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("task_done was called more often than items were put")]
#[non_exhaustive]
pub struct TooManyTasksDone;

impl<T, O: Order<T>> OrderedQueue<T, O> {
    /// Creates a queue without a limit.
    #[must_use]
    pub fn new() -> Self {
        OrderedQueue(OrderedLightQueue::new())
    }

    /// Creates a queue that is full with `capacity` items. With zero, a put meets a get.
    #[must_use]
    pub fn bounded(capacity: usize) -> Self {
        OrderedQueue(OrderedLightQueue::bounded(capacity))
    }

    /// Reports the work for one item as done. Does not switch.
    ///
    /// # Errors
    ///
    /// Returns [`TooManyTasksDone`] if all items were reported done before.
    pub fn task_done(&self) -> Result<(), TooManyTasksDone> {
        let mut state = self.lock();
        if state.unfinished == 0 {
            return Err(TooManyTasksDone);
        }
        state.finish(1);
        Ok(())
    }

    /// Waits until all items that were put are reported done. Switches if it waits.
    ///
    /// Items of waiting putters do not count.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the
    /// wait of the main greenlet by an error.
    pub fn join(&self) -> Result<(), LoopError> {
        self.refuse_use_by_order();
        let joined = JoinWait::wait(&self.state, &mut Deadline::none(), (), |state, ungranted| match ungranted {
            Some(()) if state.unfinished != 0 => Err(()),
            _ => Ok(()),
        });
        match joined {
            Ok(()) | Err(Unserved::TimedOut(())) => Ok(()),
            Err(Unserved::Failed(error, _)) => Err(error),
        }
    }

    /// Returns the number of items that are not reported done. Does not switch.
    #[doc(alias = "unfinished_tasks")]
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.lock().unfinished
    }
}

impl<T, O> Deref for OrderedQueue<T, O> {
    type Target = OrderedLightQueue<T, O>;

    fn deref(&self) -> &OrderedLightQueue<T, O> {
        &self.0
    }
}

/// The same as for [`LightQueue`](crate::sync::LightQueue).
impl<T, O: Order<T>> Waitable for OrderedQueue<T, O> {
    fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        self.0.leave(mark)
    }

    fn take_back(&self, left: LeftMark) {
        self.0.take_back(left);
    }
}

impl<T, O: Order<T>> Default for OrderedQueue<T, O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, O: Order<T>> fmt::Debug for OrderedQueue<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f, "Queue").field("unfinished", &self.unfinished()).finish()
    }
}
