//! The values that keep a cell: handles, with and without the type of the result, and pins.
//!
//! Ground rules: those of the [module above](super).

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use super::super::control::Control;
use super::cell::{ALIVE, HANDLE, Header, PINNED, RESULT, SEEN, TaskRef, TaskSlot};
use crate::error::GreenError;

/// Keeps a cell during a call.
struct Pinned(TaskRef);

impl Pinned {
    /// # Safety
    ///
    /// The cell lives.
    unsafe fn new(cell: NonNull<Header>) -> Pinned {
        let task = TaskRef(cell);
        let header = task.header();
        header.pins.set(header.pins.get().checked_add(1).expect("a cell is not pinned 65,536 times"));
        header.bits.set(header.bits.get() | PINNED);
        Pinned(task)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let header = self.0.header();
        header.pins.set(header.pins.get() - 1);
        if header.pins.get() != 0 {
            return;
        }
        header.bits.set(header.bits.get() & !PINNED);
        if header.bits.get() & (HANDLE | ALIVE) == 0 {
            // SAFETY: this pin was the last one, and `finish` has cleared `ALIVE`.
            unsafe { TaskRef(self.0.0).free() };
        }
    }
}

impl TaskSlot {
    /// Calls `f` with the cell, which is kept meanwhile.
    pub(in super::super) fn with<R>(&self, f: impl FnOnce(&TaskRef) -> R) -> Option<R> {
        // SAFETY: the cell is `ALIVE` as long as it is in its place.
        let pinned = unsafe { Pinned::new(self.0.get()?) };
        Some(f(&pinned.0))
    }
}

impl Control {
    /// Calls `f` with the cell of the green thread. Returns `None` if its body has returned.
    pub(crate) fn with_task<R>(&self, f: impl FnOnce(&TaskRef) -> R) -> Option<R> {
        self.task.with(f)
    }
}

impl TaskRef {
    /// Returns a reference that can be kept beyond the end of the green thread.
    pub(crate) fn downgrade(&self) -> WeakTask {
        let life = Rc::downgrade(self.extra_or_new().life.borrow_mut().get_or_insert_default());
        WeakTask { life, cell: self.0 }
    }
}

/// Refers to the cell of a green thread until the green thread has ended.
pub(crate) struct WeakTask {
    /// The strong reference is in the cell, and is dropped before the cell is freed. No other code makes one.
    life: Weak<()>,
    cell: NonNull<Header>,
}

impl WeakTask {
    /// Returns whether the green thread has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        self.life.strong_count() != 0
    }

    /// Calls `f` with the cell, which is kept meanwhile. Returns `None` if the green thread has ended.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&TaskRef) -> R) -> Option<R> {
        if !self.is_alive() {
            return None;
        }
        // SAFETY: the strong reference exists, so the cell lives.
        let pinned = unsafe { Pinned::new(self.cell) };
        Some(f(&pinned.0))
    }
}

/// A handle of a cell, which keeps the cell.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct TaskHandle(TaskRef);

impl TaskHandle {
    /// Returns a second value for the same cell, which does not keep it.
    ///
    /// # Safety
    ///
    /// The value is used only as long as something keeps the cell.
    pub(crate) unsafe fn lend(&self) -> ManuallyDrop<TaskHandle> {
        ManuallyDrop::new(TaskHandle(TaskRef(self.0.0)))
    }
}

impl Deref for TaskHandle {
    type Target = TaskRef;
    #[inline]
    fn deref(&self) -> &TaskRef {
        &self.0
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        // SAFETY: the handle is dropped once, and is not used afterwards.
        unsafe { self.0.release() };
    }
}

/// The handle of a cell whose result has the type `T`.
///
/// It contains no [`TaskHandle`], so that its `Drop` is generic and inlined into the caller.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Task<T> {
    pub(super) cell: TaskRef,
    pub(super) result: PhantomData<*const T>,
}

impl<T> Drop for Task<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the handle is dropped once, and is not used afterwards.
        unsafe { self.cell.release() };
    }
}

impl<T> Deref for Task<T> {
    type Target = TaskRef;
    #[inline]
    fn deref(&self) -> &TaskRef {
        &self.cell
    }
}

impl<T> Task<T> {
    /// Returns the handle without the type of the result.
    pub(crate) fn erase(self) -> TaskHandle {
        let task = ManuallyDrop::new(self);
        TaskHandle(TaskRef(task.cell.0))
    }

    /// Returns a second value for the same cell, which does not keep it.
    ///
    /// # Safety
    ///
    /// The value is used only as long as something keeps the cell.
    pub(crate) unsafe fn lend(&self) -> ManuallyDrop<Task<T>> {
        ManuallyDrop::new(Task { cell: TaskRef(self.cell.0), result: PhantomData })
    }

    /// Adds a callback for the end. Returns a number for [`remove_link`](TaskRef::remove_link).
    pub(crate) fn link(&self, link: impl FnOnce(&Task<T>) + 'static) -> u64
    where
        T: 'static,
    {
        self.add_link(Box::new(move |task| {
            // SAFETY: both types are transparent wrappers of the same pointer. A link is called with its own cell,
            // whose result is a `T`. A reference cannot release the handle.
            link(unsafe { mem::transmute::<&TaskRef, &Task<T>>(task) });
        }))
    }

    /// Moves the result out. It is given out once, after the end, and never during a look.
    pub(crate) fn take_result(&self) -> Result<T, GreenError> {
        let header = self.header();
        let bits = header.bits.get();
        if bits & RESULT == 0 || header.looks.get() != 0 {
            return Err(GreenError::Taken);
        }
        header.bits.set((bits | SEEN) & !RESULT);
        // SAFETY: RESULT was set: the body contains the result, and a `Task<T>` is made for results of type `T`.
        unsafe { ManuallyDrop::take(&mut *self.result_ptr::<T>()) }
    }

    /// Calls `at` with a reference to the result, which stays in the cell. Returns `None` if there is no result.
    pub(crate) fn look<R>(&self, at: impl FnOnce(&Result<T, GreenError>) -> R) -> Option<R> {
        /// Ends the look, also in case of a panic of `at`.
        struct LookedAt<'a>(&'a Cell<u32>);
        impl Drop for LookedAt<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        let header = self.header();
        let bits = header.bits.get();
        if bits & RESULT == 0 {
            return None;
        }
        header.looks.set(header.looks.get() + 1);
        let _looked_at = LookedAt(&header.looks);
        // SAFETY: RESULT is set: the body contains the result, and `looks` keeps it there. The handle that lends `self`
        // keeps the cell. `T` is right, as in `take_result`.
        Some(at(unsafe { &*self.result_ptr::<T>() }))
    }
}
