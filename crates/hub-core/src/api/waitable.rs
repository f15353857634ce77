//! Objects that can be waited for together.

use std::rc::Rc;
use std::sync::Arc;

use super::green_thread::GreenThread;
use super::scope::ScopedGreenThread;
use crate::greenlet::task::TaskRef;
use crate::wait::ready_list::{LeftMark, ReadyMark};

/// An object that becomes ready and can be waited for beside others.
///
/// gevent's objects with `rawlink`: green threads, events, semaphores, watchers. The waits are `iwait` and `wait` of
/// `hub-loop`, or a [`ReadyList`](crate::ReadyList).
///
/// A waiter leaves one mark with each object. The marks lead to one list, so an object keeps its place in the order
/// even if the waiter runs much later. A waiter that gives up takes its marks back. A mark gives the waiter nothing:
/// the waiter of a semaphore gets no permit, and so no permit is lost with a waiter that gave up. The event of a
/// watcher goes with the watcher when the waiter [gives](Waitable::give) it; a watcher says what becomes of an event
/// that was not given. A queue or a channel gives no item either: the waiter takes one by a call that does not wait,
/// and waits again if another getter was faster. No item is lost with a waiter that gave up, because all marks are set
/// when an item comes for which no getter waits.
///
/// An implementation keeps its marks in [`ReadyMarks`](crate::ReadyMarks).
pub trait Waitable {
    /// Returns whether a wait would return at once. Does not switch.
    fn is_ready(&self) -> bool;

    /// Keeps a mark and sets it when the object becomes ready; at once if it is. Does not switch.
    fn leave(&self, mark: ReadyMark) -> LeftMark;

    /// Removes a mark that [`leave`](Waitable::leave) has kept. Does not switch.
    ///
    /// Does nothing if the mark was set before.
    fn take_back(&self, left: LeftMark);

    /// Takes part in giving the object to the caller of the wait. Does not switch.
    ///
    /// The waiter calls it instead of [`take_back`](Waitable::take_back), mostly after the mark was set. An object
    /// whose readiness belongs to one waiter ends it here, as a watcher does, so that nothing is lost with a waiter
    /// that gave up. The default is to take the mark back.
    fn give(&self, left: LeftMark) {
        self.take_back(left);
    }
}

/// A green thread is ready when it has ended.
impl<T> Waitable for GreenThread<T> {
    fn is_ready(&self) -> bool {
        self.is_finished()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        leave(&self.task, mark)
    }

    fn take_back(&self, left: LeftMark) {
        take_back(&self.task, &left);
    }
}

/// A green thread of a scope is ready when it has ended.
impl<T> Waitable for ScopedGreenThread<'_, T> {
    fn is_ready(&self) -> bool {
        self.is_finished()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        leave(self.task(), mark)
    }

    fn take_back(&self, left: LeftMark) {
        take_back(self.task(), &left);
    }
}

impl<W: Waitable + ?Sized> Waitable for &W {
    fn is_ready(&self) -> bool {
        (**self).is_ready()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        (**self).leave(mark)
    }

    fn take_back(&self, left: LeftMark) {
        (**self).take_back(left);
    }

    fn give(&self, left: LeftMark) {
        (**self).give(left);
    }
}

impl<W: Waitable + ?Sized> Waitable for Rc<W> {
    fn is_ready(&self) -> bool {
        (**self).is_ready()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        (**self).leave(mark)
    }

    fn take_back(&self, left: LeftMark) {
        (**self).take_back(left);
    }

    fn give(&self, left: LeftMark) {
        (**self).give(left);
    }
}

impl<W: Waitable + ?Sized> Waitable for Arc<W> {
    fn is_ready(&self) -> bool {
        (**self).is_ready()
    }

    fn leave(&self, mark: ReadyMark) -> LeftMark {
        (**self).leave(mark)
    }

    fn take_back(&self, left: LeftMark) {
        (**self).take_back(left);
    }

    fn give(&self, left: LeftMark) {
        (**self).give(left);
    }
}

fn leave(task: &TaskRef, mark: ReadyMark) -> LeftMark {
    if task.is_done() {
        mark.set();
        return LeftMark::SET;
    }
    LeftMark::numbered(task.add_link(Box::new(move |_| mark.set())))
}

fn take_back(task: &TaskRef, left: &LeftMark) {
    if let Some(number) = left.number() {
        task.remove_link(number);
    }
}
