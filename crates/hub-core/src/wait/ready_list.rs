//! A wait for several objects, which are given in the order in which they become ready.
//!
//! The waiter has a [`ReadyList`]. It leaves a [`ReadyMark`] with each object, and each object keeps its marks in
//! [`ReadyMarks`]. Setting a mark appends the number of its object to the list and unparks the waiter.
//!
//! Ground rules:
//! - A mark is set at most once, and the list has room for it, so that setting one neither allocates nor unwinds.
//! - A mark may be set under the lock of a primitive: setting it runs no foreign code and does not switch.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::biased::BiasedMutex;
use super::parker::Parker;
use super::trampoline::{check_interests, park_for_any};
use super::unparker::{Unparker, unpark_under_lock};
use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, TrampolineError};
use crate::greenlet::local;
use crate::hub::Interest;
use crate::main_loop::deadline::Deadline;
use crate::main_loop::parked::Parked;

/// The objects of one waiter that are ready, in the order in which they became so.
///
/// It is the waiter's side of [`Waitable`](crate::Waitable).
///
/// ```
/// use greenhub::park::{Deadline, ReadyList, Waitable};
/// let list = ReadyList::new();
/// let slow = greenhub::spawn(greenhub::thread::yield_now);
/// let quick = greenhub::spawn(|| ());
/// let left = [slow.leave(list.mark(0)), quick.leave(list.mark(1))];
/// assert_eq!(list.next(&mut Deadline::none())?, Some(1));
/// // The other green thread keeps no mark of a waiter that has gone.
/// slow.take_back(left.into_iter().next().unwrap());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct ReadyList {
    shared: Arc<BiasedMutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// The numbers of the objects that are ready, and were not given out.
    ready: VecDeque<usize>,
    /// The number of marks that may still be set.
    open: usize,
    /// The wait for the next object.
    waiter: Option<Unparker>,
}

/// A place in a [`ReadyList`], left with an object.
///
/// Dropping it leaves the object out of the list.
#[must_use = "the object is left out of the list if its mark is dropped"]
pub struct ReadyMark {
    shared: Arc<BiasedMutex<Shared>>,
    number: usize,
}

impl ReadyList {
    /// Creates a list of no objects.
    #[must_use]
    pub fn new() -> ReadyList {
        ReadyList::default()
    }

    /// Returns a mark for the object with this number. Does not switch.
    pub fn mark(&self, number: usize) -> ReadyMark {
        let mut shared = self.shared.lock();
        shared.open += 1;
        let room = shared.open;
        shared.ready.reserve(room);
        drop(shared);
        ReadyMark { shared: Arc::clone(&self.shared), number }
    }

    /// Waits for the next object that becomes ready, and returns its number. Switches, unless one is ready.
    ///
    /// Returns `None` if `deadline` passes first.
    ///
    /// # Errors
    ///
    /// Returns an error if the caller cannot wait, and the error that the main loop has for the main greenlet.
    pub fn next(&self, deadline: &mut Deadline) -> Result<Option<usize>, LoopError> {
        loop {
            if let Some(number) = self.shared.lock().ready.pop_front() {
                return Ok(Some(number));
            }
            let parker = Parker::new(WaitReason::Select)?;
            if self.await_mark(&parker) {
                continue;
            }
            let parked = parker.park(deadline)?;
            let next = self.shared.lock().ready.pop_front();
            if next.is_some() || parked == Parked::TimedOut {
                return Ok(next);
            }
        }
    }

    /// Like [`next`](ReadyList::next), but also ends when one of `fds` is ready. Switches, unless an object is ready.
    ///
    /// Each descriptor has a direction of its own, reading or writing. Returns `None` if a descriptor is ready or
    /// `deadline` has passed. The caller finds out which by checking, as with
    /// [`trampoline_any`](crate::trampoline_any).
    ///
    /// ```
    /// use greenhub::Interest;
    /// use greenhub::park::{Deadline, ReadyList, Waitable};
    /// use std::io::Write;
    /// use std::os::fd::AsFd;
    /// let list = ReadyList::new();
    /// let slow = greenhub::spawn(|| greenhub::sleep(std::time::Duration::from_secs(3600)));
    /// let left = slow.leave(list.mark(0));
    /// let (reader, mut writer) = std::io::pipe()?;
    /// writer.write_all(b"x")?;
    /// assert_eq!(list.next_with(&[(reader.as_fd(), Interest::READ)], &mut Deadline::none())?, None);
    /// slow.take_back(left);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`next`](ReadyList::next) and [`trampoline_any`](crate::trampoline_any). The limit is no error.
    pub fn next_with(
        &self,
        fds: &[(BorrowedFd<'_>, Interest)],
        deadline: &mut Deadline,
    ) -> Result<Option<usize>, TrampolineError> {
        if fds.is_empty() {
            return Ok(self.next(deadline)?);
        }
        check_interests(fds)?;
        loop {
            if let Some(number) = self.shared.lock().ready.pop_front() {
                return Ok(Some(number));
            }
            // Only a hub watches descriptors: without one, the parker would be that of the OS thread as a whole.
            local::get_unless_ended()?.main_loop.ensure_hub()?;
            let parker = Parker::new(WaitReason::Select)?;
            if self.await_mark(&parker) {
                continue;
            }
            let parked = park_for_any(parker, fds, deadline);
            let next = self.shared.lock().ready.pop_front();
            return match parked {
                Ok(()) | Err(TrampolineError::TimedOut { .. }) => Ok(next),
                // The object stays ready: the caller gets the error, and asks no more.
                Err(error) => Err(error),
            };
        }
    }

    /// Makes `parker` the wait for the next mark. Returns true if there is one already, which has found no waiter.
    fn await_mark(&self, parker: &Parker) -> bool {
        let mut shared = self.shared.lock();
        shared.waiter = Some(parker.unparker());
        !shared.ready.is_empty()
    }
}

impl ReadyMark {
    /// Appends the object to the list, and wakes the waiter. Does not switch.
    pub fn set(self) {
        let waiter = {
            let mut shared = self.shared.lock();
            shared.ready.push_back(self.number);
            shared.waiter.take()
        };
        // Without the lock: it may wake the waker of an embedded loop, which is foreign code. The caller may hold the
        // lock of the object.
        if let Some(waiter) = waiter {
            unpark_under_lock(waiter);
        }
    }
}

impl Drop for ReadyMark {
    fn drop(&mut self) {
        self.shared.lock().open -= 1;
    }
}

impl fmt::Debug for ReadyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared.lock();
        let (ready, open) = (shared.ready.len(), shared.open);
        drop(shared);
        f.debug_struct("ReadyList").field("ready", &ready).field("open", &open).finish()
    }
}

impl fmt::Debug for ReadyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyMark").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The marks that waiters have left with one object.
///
/// It belongs to the state of the object, under the object's lock if it has one.
#[derive(Debug, Default)]
pub struct ReadyMarks {
    marks: Vec<(u64, ReadyMark)>,
    next: u64,
}

/// Identifies a mark that was left with an object, for [`take_back`](crate::Waitable::take_back).
#[derive(Debug)]
#[must_use = "the object keeps the mark until it is taken back"]
pub struct LeftMark(Option<u64>);

impl LeftMark {
    /// The mark of an object that was ready: it was set at once, and is not kept.
    pub const SET: LeftMark = LeftMark(None);

    /// Returns the value for a mark that is kept under this number.
    pub(crate) const fn numbered(number: u64) -> LeftMark {
        LeftMark(Some(number))
    }

    /// Returns the number under which the mark is kept.
    pub(crate) fn number(&self) -> Option<u64> {
        self.0
    }
}

impl ReadyMarks {
    /// Creates an empty list of marks.
    #[must_use]
    pub const fn new() -> ReadyMarks {
        ReadyMarks { marks: Vec::new(), next: 0 }
    }

    /// Keeps a mark until the object is ready.
    pub fn leave(&mut self, mark: ReadyMark) -> LeftMark {
        let number = self.next;
        self.next += 1;
        self.marks.push((number, mark));
        LeftMark::numbered(number)
    }

    /// Removes a mark. Does nothing if it was set before.
    pub fn take_back(&mut self, left: &LeftMark) {
        if let Some(index) = left.0.and_then(|number| self.marks.binary_search_by_key(&number, |(key, _)| *key).ok()) {
            drop(self.marks.remove(index));
        }
    }

    /// Sets all marks, in the order in which they were left. Does not switch.
    #[inline]
    pub fn set_all(&mut self) {
        if !self.marks.is_empty() {
            self.set_each();
        }
    }

    /// Removes all marks, for a caller that sets them without a borrow of this list.
    #[must_use = "dropped marks leave their objects out of the lists"]
    pub fn take_all(&mut self) -> ReadyMarks {
        ReadyMarks { marks: mem::take(&mut self.marks), next: self.next }
    }

    #[cold]
    fn set_each(&mut self) {
        mem::take(&mut self.marks).into_iter().for_each(|(_, mark)| mark.set());
    }

    /// Returns the number of marks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Returns whether there is no mark.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }
}
