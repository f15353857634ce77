//! The waiters for one thing, alone or beside other things.

use hub_core::{LeftMark, ReadyMark, ReadyMarks};

use super::wait_queue::WaitQueue;

/// The waiters for one thing of a primitive that is [`Waitable`](hub_core::Waitable).
///
/// A waiter in the queue waits for this thing alone, and is granted it. A waiter that also waits for other objects has
/// left a mark: it is granted nothing, and takes the thing by a later call.
pub(crate) struct Waiters<P = ()> {
    pub(crate) queue: WaitQueue<P>,
    pub(crate) marks: ReadyMarks,
}

impl<P> Waiters<P> {
    pub(crate) const fn new() -> Waiters<P> {
        Waiters { queue: WaitQueue::new(), marks: ReadyMarks::new() }
    }

    /// Grants the first waiter in the queue, and returns its payload. If the queue is empty, sets the marks.
    #[inline]
    pub(crate) fn grant_payload(&mut self) -> Option<P> {
        let granted = self.queue.grant_payload();
        if granted.is_none() {
            self.marks.set_all();
        }
        granted
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.marks.is_empty()
    }

    /// Keeps a mark until the thing is there, or sets it at once. For `Waitable::leave`.
    pub(crate) fn leave(&mut self, mark: ReadyMark, is_ready: bool) -> LeftMark {
        if is_ready {
            mark.set();
            LeftMark::SET
        } else {
            self.marks.leave(mark)
        }
    }

    /// Removes a mark. For `Waitable::take_back`.
    pub(crate) fn take_back(&mut self, left: &LeftMark) {
        self.marks.take_back(left);
    }
}

impl Waiters {
    /// Grants the first waiter in the queue. If the queue is empty, sets the marks and returns false.
    #[inline]
    pub(crate) fn grant(&mut self) -> bool {
        self.grant_payload().is_some()
    }

    /// Grants all waiters in the queue, and sets the marks.
    #[inline]
    pub(crate) fn grant_all(&mut self) {
        while self.grant() {}
    }
}

impl<P> Default for Waiters<P> {
    fn default() -> Waiters<P> {
        Waiters::new()
    }
}
