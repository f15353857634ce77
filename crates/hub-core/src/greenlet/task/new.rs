//! New cells, and the start of their greenlets.
//!
//! Ground rules: those of the [module above](super).

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::Location;

use super::super::control::{ControlRef, Kind, State};
use super::super::driver::Driver;
use super::super::local::Local;
use super::super::run::start::start;
use super::super::trace;
use super::cell::{ALIVE, Body, HANDLE, Header, TaskCell, TaskRef, vtable};
use super::handle::Task;
use super::untaken::{Borrowed, Owned, OwnedOption, Unhandled};

impl TaskRef {
    /// Creates a greenlet with a cell that will run `closure`. It is in no queue yet.
    ///
    /// # Safety
    ///
    /// Everything that `F` and `T` borrow must outlive the closure and the result. The cell itself may live longer.
    #[inline]
    unsafe fn new<F, T, U>(
        local: &Local,
        closure: F,
        handle: bool,
        spawned_at: &'static Location<'static>,
    ) -> (TaskRef, Unbegun)
    where
        F: FnOnce() -> T,
        U: Unhandled<T>,
    {
        let vtable = const { &vtable::<F, T, U>() };
        let control = local.controls.take(Kind::Thread, local.main_loop.stamp());
        let (memory, class) = local.tasks.take(vtable.layout);
        let header = Header {
            vtable,
            spawned_at,
            control: Cell::new(Some(control)),
            waiter: Cell::new(None),
            extra: Cell::new(None),
            looks: Cell::new(0),
            pins: Cell::new(0),
            bits: Cell::new(if handle { ALIVE | HANDLE } else { ALIVE }),
            class,
        };
        let cell = memory.cast::<TaskCell<F, T>>();
        let body = UnsafeCell::new(Body { closure: ManuallyDrop::new(closure) });
        // SAFETY: the pool gave out this memory, which has this layout and no other user.
        unsafe { cell.write(TaskCell { header, body }) };
        let task = TaskRef(cell.cast());
        control.task.0.set(Some(task.0));
        (task, Unbegun(control))
    }
}

/// A new greenlet, which is in no queue.
#[must_use = "the green thread never begins"]
pub(crate) struct Unbegun(ControlRef);

impl Unbegun {
    /// Queues the greenlet. `task` is its cell.
    #[inline]
    pub(crate) fn begin(self, task: &TaskRef) {
        trace::spawned(task);
        // SAFETY: a new greenlet is in no queue, and this value was the only one that can queue it.
        unsafe { start(self.0) };
    }

    /// Marks the greenlet as delayed: it is queued by its timer, or runs in place.
    pub(crate) fn delay(self) {
        // SAFETY: a new greenlet has not begun and is in no queue, and this value was the only one that can queue it.
        unsafe { self.0.set_state(State::Delayed) };
    }
}

/// The handle of a cell whose greenlet is in no queue yet.
#[must_use = "the green thread never begins"]
pub(crate) struct NewTask<T> {
    task: Task<T>,
    greenlet: Unbegun,
}

impl<T> NewTask<T> {
    /// # Safety
    ///
    /// The cell is new, with a handle that belongs to the caller, and its closure returns a `T`.
    #[inline]
    unsafe fn of((task, greenlet): (TaskRef, Unbegun)) -> NewTask<T> {
        NewTask { task: Task { cell: task, result: PhantomData }, greenlet }
    }

    /// Creates a greenlet with a cell that will run `closure`, and a handle. It is in no queue yet.
    #[inline]
    pub(crate) fn new<F>(local: &Local, closure: F, spawned_at: &'static Location<'static>) -> NewTask<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        // SAFETY: neither type borrows anything, and the result of the closure is a `T`.
        unsafe { NewTask::of(TaskRef::new::<F, T, Owned>(local, closure, true, spawned_at)) }
    }

    /// Creates a greenlet with a cell that will run a `closure` which may borrow, and a handle. It is in no queue yet.
    ///
    /// # Safety
    ///
    /// The closure and the result must be dropped before anything that `F` or `T` borrows goes away. The cell itself
    /// may live longer.
    pub(crate) unsafe fn borrowing<F>(local: &Local, closure: F, spawned_at: &'static Location<'static>) -> NewTask<T>
    where
        F: FnOnce() -> T,
    {
        // SAFETY: by the contract, and the result of the closure is a `T`.
        unsafe { NewTask::of(TaskRef::new::<F, T, Borrowed>(local, closure, true, spawned_at)) }
    }

    /// Queues the greenlet.
    #[inline]
    pub(crate) fn begin(self) -> Task<T> {
        self.greenlet.begin(&self.task);
        self.task
    }

    /// Marks the greenlet as delayed: it is queued by its timer, or runs in place.
    pub(crate) fn delay(self) -> Task<T> {
        self.greenlet.delay();
        self.task
    }

    /// Returns the handle and the greenlet.
    pub(crate) fn split(self) -> (Task<T>, Unbegun) {
        (self.task, self.greenlet)
    }
}

impl<T> Deref for NewTask<T> {
    type Target = TaskRef;
    #[inline]
    fn deref(&self) -> &TaskRef {
        &self.task
    }
}

impl<T: 'static> NewTask<Option<T>> {
    /// Like [`new`](NewTask::new), for a closure that returns `None` if its body is not to run.
    ///
    /// An `Err` in its `Some` is an error of the green thread.
    pub(crate) fn optional<F>(local: &Local, closure: F, spawned_at: &'static Location<'static>) -> NewTask<Option<T>>
    where
        F: FnOnce() -> Option<T> + 'static,
    {
        // SAFETY: neither type borrows anything, and the result of the closure is an `Option<T>`.
        unsafe { NewTask::of(TaskRef::new::<F, Option<T>, OwnedOption>(local, closure, true, spawned_at)) }
    }
}

/// Spawns a green thread without a handle.
#[inline]
pub(crate) fn spawn_detached<F, T>(local: &Local, closure: F, spawned_at: &'static Location<'static>)
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    // SAFETY: neither type borrows anything.
    let (task, greenlet) = unsafe { TaskRef::new::<F, T, Owned>(local, closure, false, spawned_at) };
    // The greenlet keeps the cell until it runs.
    greenlet.begin(&task);
}

impl<T> Task<T> {
    /// Creates a cell with a handle, and runs `closure` at once in the running greenlet. Never unwinds.
    pub(crate) fn run_at_once<F>(local: &Local, closure: F, spawned_at: &'static Location<'static>) -> Task<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let task = NewTask::new(local, closure, spawned_at).delay();
        task.run_here(local);
        task
    }
}
