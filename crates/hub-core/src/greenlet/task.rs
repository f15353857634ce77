//! The cells of green threads: the body of a green thread, and afterwards its result.
//!
//! `spawn` writes a cell, which has no stack. The green thread gets a stack when it begins. A cell lives until the
//! green thread has ended and no handle is left. Cells are pooled in size classes.
//!
//! Ground rules:
//! - `bits` describes the content of the body: the closure until [`STARTED`], nothing while it runs, the result while
//!   [`RESULT`] is set. Only this module and its vtable read or write the body.
//! - A cell is freed by the code that clears the last of [`HANDLE`], [`ALIVE`] and [`PINNED`].
//! - A [`TaskRef`] is not `Clone`. Safe code gets a reference to one, from a value that keeps the cell: a
//!   [`TaskHandle`] has the bit [`HANDLE`], and [`TaskSlot::with`] and [`WeakTask::with`] pin the cell during a call.
//! - Foreign code (closures, destructors, links, the text of errors) runs while [`HANDLE`], [`ALIVE`] or a pin keeps
//!   the cell, or when nothing else refers to it any more. The value it works on was moved out of the body, or is lent
//!   and stays: `looks`, or a [`RESULT`] that was cleared, prevents it from being taken.

mod cell;
mod pool;
mod unhandled;

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::panic::Location;
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use self::cell::{ALIVE, Body, DONE, Extra, HANDLE, Header, Link, PINNED, RESULT, SEEN, STARTED, TaskCell, vtable};
use self::unhandled::{Borrowed, Failure, Owned, OwnedOption, Unhandled};
use super::control::{ControlRef, Kind, State};
use super::driver::Driver;
use super::local::Local;
use super::run::{self, Waiter};
use super::trace;
use super::unwind::{contained, drop_contained};
use crate::error::GreenError;
use crate::report::{self, Report};
use crate::timer_queue::TimerId;

pub(crate) use self::pool::TaskPool;

/// Refers to a cell that is not freed yet.
#[derive(PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct TaskRef(NonNull<Header>);

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

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: by the ground rules a `TaskRef` is used only while its cell lives, and the header consists of cells
        // and constants.
        unsafe { self.0.as_ref() }
    }

    /// Runs the closure and stores its result. Never unwinds.
    ///
    /// # Safety
    ///
    /// The cell has not started, and nothing else starts it: the caller is its greenlet, or has taken the greenlet
    /// away.
    #[inline]
    pub(super) unsafe fn run(&self) {
        let header = self.header();
        let bits = header.bits.get();
        debug_assert!(bits & STARTED == 0, "a cell is started once");
        header.bits.set(bits | STARTED);
        // SAFETY: the closure is still in the body, because STARTED was not set before, by the contract.
        unsafe { (header.vtable.run)(self.0) };
    }

    /// Ends a cell that never started. The closure is dropped, and `error` becomes the result.
    ///
    /// # Safety
    ///
    /// The same as for [`run`](TaskRef::run).
    pub(super) unsafe fn fail(&self, error: GreenError) {
        let header = self.header();
        debug_assert!(!self.has_started());
        header.bits.set(header.bits.get() | STARTED);
        // SAFETY: the closure is still in the body, as in `run`.
        unsafe {
            (header.vtable.drop_closure)(self.0);
            (header.vtable.fail)(self.0, error);
        }
    }

    /// Ends a cell whose body has begun and never continues. `error` becomes the result. Never unwinds.
    ///
    /// The stack of the body may still refer to the cell, but nothing runs there any more.
    ///
    /// # Safety
    ///
    /// The body has begun, has stored no result, and is never entered again. Without a handle the cell is not used
    /// after this.
    pub(super) unsafe fn abandon(&self, error: GreenError) {
        let header = self.header();
        debug_assert!(self.has_started() && !self.is_done());
        // SAFETY: the body of the cell is empty. The closure was moved out when it began. Its root would write the
        // result, but the stack of the root is never entered again.
        unsafe { (header.vtable.fail)(self.0, error) };
        // SAFETY: the result was just stored, for the first time.
        unsafe { self.finish() };
    }

    /// Runs the links, wakes all waiters, and frees the cell unless a handle exists. Never unwinds.
    ///
    /// # Safety
    ///
    /// The body contains the result, and this is called once. Without a handle the cell is not used after this.
    #[inline]
    pub(super) unsafe fn finish(&self) {
        let header = self.header();
        header.bits.set(header.bits.get() | DONE | RESULT);
        trace::ended(self);
        header.control.set(None);
        if header.extra.get().is_some() {
            self.run_links();
        }
        if let Some(waiter) = header.waiter.take() {
            waiter.wake();
        }
        if let Some(extra) = self.extra() {
            extra.life.take();
            for waiter in extra.waiters.take() {
                waiter.wake();
            }
        }
        header.bits.set(header.bits.get() & !ALIVE);
        if header.bits.get() & (HANDLE | PINNED) == 0 {
            // SAFETY: `ALIVE` was the last bit, and the body contains the result, by the contract.
            unsafe { TaskRef(self.0).free() };
        }
    }

    #[cold]
    fn run_links(&self) {
        let Some(extra) = self.extra() else { return };
        extra.linking.set(Some(run::current()));
        // One at a time, so that a link can remove later ones.
        loop {
            let Some((_, link)) = extra.links.borrow_mut().pop_front() else { break };
            if let Err(error) = contained(|| link(self)) {
                report::tell(Report::LinkFailed { name: self.describe(), error });
            }
        }
        extra.linking.set(None);
    }

    /// Runs a cell that has not begun in the running greenlet, in place of its own. Never unwinds.
    ///
    /// Returns false, and does nothing, if the cell has begun or its greenlet is in the run queue.
    pub(crate) fn run_here(&self, local: &Local) -> bool {
        let Some(control) = self.control().filter(|control| control.state() == State::Delayed) else { return false };
        self.forget_control();
        // SAFETY: a delayed greenlet is in no queue and has not begun. The cell refers to it no more.
        unsafe { local.controls.give(control) };
        // SAFETY: the cell of a delayed greenlet has not started, and the greenlet was taken away. The handle
        // that lends this reference keeps the cell.
        unsafe {
            self.run();
            self.finish();
        }
        true
    }

    /// Gives up the handle.
    ///
    /// # Safety
    ///
    /// The cell has a handle, which is not used afterwards.
    #[inline(always)]
    unsafe fn release(&self) {
        let bits = &self.header().bits;
        bits.set(bits.get() & !HANDLE);
        if bits.get() & (ALIVE | PINNED) == 0 {
            // SAFETY: `HANDLE` was the last bit, and `finish` has cleared `ALIVE`.
            unsafe { TaskRef(self.0).free() };
        }
    }

    /// Frees the cell.
    ///
    /// # Safety
    ///
    /// The caller has cleared the last bit that kept the cell, and has stored the result before.
    #[inline]
    unsafe fn free(self) {
        let header = self.header();
        let bits = header.bits.get();
        if bits & RESULT != 0 {
            if bits & SEEN == 0 {
                // SAFETY: the body contains the result: RESULT is set.
                if let Some(failure) = unsafe { (header.vtable.unhandled)(self.0) } {
                    self.report(failure);
                }
            }
            // SAFETY: as above, and nothing refers to the cell after this.
            unsafe { (header.vtable.drop_result)(self.0) };
        }
        if let Some(extra) = header.extra.take() {
            // SAFETY: leaked by `extra_or_new`, and just taken out of its cell.
            drop_contained(unsafe { Box::from_raw(extra.as_ptr()) });
        }
        // SAFETY: the cell was made with the pool of its OS thread, which it never leaves, and nothing refers to it.
        unsafe { super::local::give_task(self.0.cast(), header.class, header.vtable.layout) };
    }

    /// Returns whether the cell contains the result, or contained it.
    pub(crate) fn is_done(&self) -> bool {
        self.header().bits.get() & DONE != 0
    }

    /// Returns whether the running greenlet need not wait for the end.
    ///
    /// The waiters were woken, or the running greenlet is about to do so itself.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.header().bits.get() & ALIVE == 0 || self.is_linking_here()
    }

    #[cold]
    fn is_linking_here(&self) -> bool {
        self.extra().is_some_and(|extra| extra.linking.get() == Some(run::current()))
    }

    /// Removes the greenlet of the cell, because it was cancelled before it began.
    pub(super) fn forget_control(&self) {
        self.header().control.set(None);
    }

    /// Drops the result, which is out of reach. An `Err` is reported.
    ///
    /// Returns true for any other failure that was not seen, which the caller must report. Returns false, and does
    /// nothing, if there is no result or a caller is looking at it.
    pub(crate) fn discard(&self) -> bool {
        let header = self.header();
        let bits = header.bits.get();
        if bits & RESULT == 0 || header.looks.get() != 0 {
            return false;
        }
        // Must be first: the text of an error is foreign code, which may run code that has a handle.
        header.bits.set((bits | SEEN) & !RESULT);
        // SAFETY: the body contains the result: RESULT was set. Without RESULT no other code uses it any more.
        let failure = if bits & SEEN == 0 { unsafe { (header.vtable.unhandled)(self.0) } } else { None };
        // SAFETY: as above.
        unsafe { (header.vtable.drop_result)(self.0) };
        match failure {
            None => false,
            Some(Failure::Ended(_)) => true,
            Some(returned) => {
                self.report(returned);
                false
            }
        }
    }

    #[cold]
    fn report(&self, failure: Failure) {
        let (error, result) = match failure {
            Failure::Ended(error) => (error, None),
            Failure::Returned(error) => (error.text(), Some(error.result)),
        };
        report::tell(Report::Unhandled { name: self.describe(), error, result });
    }

    /// Marks the result as seen, so that a failure need not be reported.
    pub(crate) fn see(&self) {
        let header = self.header();
        header.bits.set(header.bits.get() | SEEN);
    }

    pub(crate) fn has_started(&self) -> bool {
        self.header().bits.get() & STARTED != 0
    }

    /// Returns the greenlet that runs the body, while there is one.
    #[inline]
    pub(crate) fn control(&self) -> Option<ControlRef> {
        self.header().control.get()
    }

    /// Adds a waiter for the end.
    pub(crate) fn add_waiter(&self, waiter: Waiter) {
        let header = self.header();
        match header.waiter.get() {
            None => header.waiter.set(Some(waiter)),
            Some(_) => self.extra_or_new().waiters.borrow_mut().push(waiter),
        }
    }

    /// Removes a waiter that has left.
    pub(crate) fn remove_waiter(&self, waiter: Waiter) {
        let header = self.header();
        if header.waiter.get() == Some(waiter) {
            // The oldest of the others moves up, so that waiters are woken in order.
            let next = self.extra().and_then(|extra| {
                let mut waiters = extra.waiters.borrow_mut();
                (!waiters.is_empty()).then(|| waiters.remove(0))
            });
            header.waiter.set(next);
        } else if let Some(extra) = self.extra() {
            extra.waiters.borrow_mut().retain(|other| *other != waiter);
        }
    }

    /// Adds a callback for the end. Returns a number for [`remove_link`](TaskRef::remove_link).
    pub(crate) fn add_link(&self, link: Link) -> u64 {
        let extra = self.extra_or_new();
        let number = extra.next_link.get();
        extra.next_link.set(number + 1);
        extra.links.borrow_mut().push_back((number, link));
        number
    }

    pub(crate) fn remove_link(&self, number: u64) -> bool {
        let Some(extra) = self.extra() else { return false };
        let mut links = extra.links.borrow_mut();
        let Some(index) = links.iter().position(|(link, _)| *link == number) else { return false };
        let link = links.remove(index);
        drop(links);
        drop_contained(link);
        true
    }

    pub(crate) fn set_name(&self, name: &str) {
        *self.extra_or_new().name.borrow_mut() = Some(Rc::from(name));
    }

    pub(crate) fn name(&self) -> Option<Rc<str>> {
        self.extra()?.name.borrow().clone()
    }

    pub(crate) fn set_stack_size(&self, size: usize) {
        self.extra_or_new().stack_size.set(Some(size));
    }

    /// Returns the requested stack size, in bytes.
    #[inline]
    pub(super) fn stack_size(&self) -> Option<usize> {
        self.extra()?.stack_size.get()
    }

    pub(crate) fn spawned_at(&self) -> &'static Location<'static> {
        self.header().spawned_at
    }

    /// Returns name and origin, for reports.
    pub(crate) fn describe(&self) -> String {
        match self.name() {
            Some(name) => format!("{name:?} (spawned at {})", self.spawned_at()),
            None => format!("spawned at {}", self.spawned_at()),
        }
    }

    /// Writes name and origin to `out`, piece by piece. May be called in a signal handler of its OS thread.
    ///
    /// It takes no memory and no lock, and leaves out a name that is being changed at that moment.
    pub(super) fn write_to(&self, out: &mut dyn FnMut(&[u8])) {
        out(b"green thread ");
        if let Some(extra) = self.extra()
            && let Ok(name) = extra.name.try_borrow()
            && let Some(name) = &*name
        {
            out(b"\"");
            out(name.as_bytes());
            out(b"\" ");
        }
        out(b"(spawned at ");
        write_location(self.spawned_at(), out);
        out(b")");
    }

    fn result_ptr<T>(&self) -> *mut ManuallyDrop<Result<T, GreenError>> {
        let offset = self.header().vtable.body;
        // SAFETY: the body is at this offset of the allocation, and a union keeps each of its fields at its beginning.
        unsafe { self.0.as_ptr().byte_add(offset).cast() }
    }

    pub(crate) fn set_timer(&self, timer: TimerId) {
        self.extra_or_new().timer.set(Some(timer));
    }

    pub(crate) fn timer(&self) -> Option<TimerId> {
        self.extra()?.timer.get()
    }

    pub(crate) fn take_timer(&self) -> Option<TimerId> {
        self.extra()?.timer.take()
    }

    /// Returns a reference that can be kept beyond the end of the green thread.
    pub(crate) fn downgrade(&self) -> WeakTask {
        let life = Rc::downgrade(self.extra_or_new().life.borrow_mut().get_or_insert_default());
        WeakTask { life, cell: self.0 }
    }

    /// Returns the value that a higher layer keeps with the green thread, made at first use.
    pub(crate) fn companion(&self, make: impl FnOnce() -> Box<dyn Any>) -> &dyn Any {
        &**self.extra_or_new().companion.get_or_init(make)
    }

    fn extra(&self) -> Option<&Extra> {
        // SAFETY: leaked by `extra_or_new` and freed with the cell.
        self.header().extra.get().map(|extra| unsafe { extra.as_ref() })
    }

    fn extra_or_new(&self) -> &Extra {
        let header = self.header();
        if header.extra.get().is_none() {
            header.extra.set(Some(NonNull::from(Box::leak(Box::default()))));
        }
        self.extra().expect("just made")
    }
}

/// Writes a location as `file:line:column`, under the conditions of [`TaskRef::write_to`].
pub(super) fn write_location(at: &Location<'_>, out: &mut dyn FnMut(&[u8])) {
    out(at.file().as_bytes());
    for number in [at.line(), at.column()] {
        let mut digits = [0; 10];
        let mut first = digits.len();
        let mut left = number;
        loop {
            first -= 1;
            digits[first] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        out(b":");
        out(&digits[first..]);
    }
}

/// The place of a control block for its cell. A greenlet gives its cell up before it finishes it.
#[repr(transparent)]
pub(super) struct TaskSlot(Cell<Option<NonNull<Header>>>);

impl TaskSlot {
    pub(super) fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    pub(super) fn clear(&self) {
        self.0.set(None);
    }

    /// Calls `f` with the cell, which is kept meanwhile.
    pub(super) fn with<R>(&self, f: impl FnOnce(&TaskRef) -> R) -> Option<R> {
        // SAFETY: the cell is `ALIVE` as long as it is in its place.
        let pinned = unsafe { Pinned::new(self.0.get()?) };
        Some(f(&pinned.0))
    }

    /// Returns the cell.
    ///
    /// # Safety
    ///
    /// The value is used only as long as something keeps the cell.
    #[inline]
    pub(super) unsafe fn get(&self) -> Option<TaskRef> {
        self.0.get().map(TaskRef)
    }

    /// Takes the cell away from the greenlet.
    ///
    /// # Safety
    ///
    /// The caller finishes the cell, and does not use the value afterwards.
    pub(super) unsafe fn take(&self) -> Option<TaskRef> {
        self.0.take().map(TaskRef)
    }
}

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
    cell: TaskRef,
    result: PhantomData<*const T>,
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

/// A new greenlet, which is in no queue.
#[must_use = "the green thread never begins"]
pub(crate) struct Unbegun(ControlRef);

impl Unbegun {
    /// Queues the greenlet. `task` is its cell.
    #[inline]
    pub(crate) fn begin(self, task: &TaskRef) {
        trace::spawned(task);
        // SAFETY: a new greenlet is in no queue, and this value was the only one that can queue it.
        unsafe { run::start(self.0) };
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
        // SAFETY: RESULT was set: the body contains the result, and a `Task<T>` is made for results of
        // type `T`.
        unsafe { ManuallyDrop::take(&mut *self.result_ptr::<T>()) }
    }

    /// Calls `at` with the result in place, which does not take it. Returns `None` if there is no result.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_written_as_it_is_displayed() {
        let at = Location::caller();
        let mut text = Vec::new();
        write_location(at, &mut |part| text.extend_from_slice(part));
        assert_eq!(String::from_utf8(text).unwrap(), at.to_string());
    }
}
