//! Cells: what a green thread is to run, and afterwards what came of it.
//!
//! A cell is written by `spawn` and has no stack; whoever starts it lends it one. It lives until the
//! green thread has ended and nobody holds a handle. Cells are pooled in size classes.
//!
//! Ground rules:
//! - `bits` says what the body holds: the closure until [`STARTED`], nothing while it runs, the result
//!   from [`DONE`] until [`TAKEN`]. Only this module reads or writes the body.
//! - A cell is freed by whoever clears the last of [`HANDLE`] and [`ALIVE`].
//! - Foreign code (closures, destructors, links, the text of errors) runs while [`HANDLE`] or [`ALIVE`] keeps
//!   the cell, or when nobody else finds it any more. What it works on was moved out of the body, or is lent
//!   and stays: `looks` keeps it from being taken, or [`TAKEN`] does.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::iter;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::Location;
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use super::control::{ControlRef, Kind};
use super::driver::Driver;
use super::local::Local;
use super::run::{self, Waiter};
use super::unwind::{contained, drop_contained};
use crate::error::GreenError;
use crate::report::{self, Report};
use crate::timer_queue::TimerId;
use crate::trace;
use crate::unhandled::{self, LostError};

/// A handle exists.
const HANDLE: u8 = 1;
/// It has not ended.
const ALIVE: u8 = 2;
/// The closure was taken out.
const STARTED: u8 = 4;
/// The result is in.
const DONE: u8 = 8;
/// The result was taken out.
const TAKEN: u8 = 16;
/// Somebody was given the result, so nothing needs to be reported.
const SEEN: u8 = 32;

/// The part of a cell that does not depend on what it runs.
#[repr(C)]
pub(crate) struct Header {
    vtable: &'static Vtable,
    spawned_at: &'static Location<'static>,
    control: Cell<Option<ControlRef>>,
    waiter: Cell<Option<Waiter>>,
    more: Cell<Option<NonNull<More>>>,
    /// How many look at the result in place.
    looks: Cell<u32>,
    bits: Cell<u8>,
    class: u8,
}

/// What most cells never need.
#[derive(Default)]
struct More {
    name: RefCell<Option<Rc<str>>>,
    waiters: RefCell<Vec<Waiter>>,
    links: RefCell<VecDeque<(u64, Link)>>,
    next_link: Cell<u64>,
    /// The greenlet that calls the links now.
    linking: Cell<Option<ControlRef>>,
    stack_size: Cell<Option<usize>>,
    /// When it begins, if that is later.
    timer: Cell<Option<TimerId>>,
    /// Alive until it has ended.
    life: RefCell<Option<Rc<()>>>,
    /// Made and used by an upper floor.
    companion: OnceCell<Box<dyn Any>>,
}

type Link = Box<dyn FnOnce()>;

struct Vtable {
    layout: Layout,
    /// Where in the cell the body lies.
    body: usize,
    run: unsafe fn(TaskRef),
    drop_closure: unsafe fn(TaskRef),
    drop_result: unsafe fn(TaskRef),
    fail: unsafe fn(TaskRef, GreenError),
    unhandled: unsafe fn(TaskRef) -> Option<Failure>,
}

/// A failure that was never taken.
enum Failure {
    /// The green thread panicked, or exited with an error: this one.
    Ended(String),
    /// It returned an `Err`.
    Returned(LostError),
}

#[repr(C)]
struct Cellar<F, T> {
    header: Header,
    body: UnsafeCell<Body<F, T>>,
}

union Body<F, T> {
    closure: ManuallyDrop<F>,
    result: ManuallyDrop<Result<T, GreenError>>,
}

/// Refers to a cell that is not freed yet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct TaskRef(NonNull<Header>);

impl TaskRef {
    /// A new greenlet with a cell that will run `closure`. It is in no queue yet.
    ///
    /// # Safety
    ///
    /// What `F` and `T` borrow outlives the cell.
    #[inline]
    unsafe fn new<F, T, U>(local: &Local, closure: F, handle: bool, spawned_at: &'static Location<'static>) -> TaskRef
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
            more: Cell::new(None),
            looks: Cell::new(0),
            bits: Cell::new(if handle { ALIVE | HANDLE } else { ALIVE }),
            class,
        };
        let cell = memory.cast::<Cellar<F, T>>();
        let body = UnsafeCell::new(Body { closure: ManuallyDrop::new(closure) });
        // SAFETY: the pool gave memory of this layout to us alone.
        unsafe { cell.write(Cellar { header, body }) };
        let task = TaskRef(cell.cast());
        control.task.set(Some(task));
        task
    }

    /// Queues its greenlet, which has not begun.
    #[inline]
    pub(crate) fn begin(self) {
        trace::spawned(self);
        if let Some(control) = self.control() {
            run::start(control);
        }
    }

    #[inline]
    fn header<'a>(self) -> &'a Header {
        // SAFETY: by the ground rules a `TaskRef` is used only while its cell lives, and the header
        // consists of cells and constants.
        unsafe { self.0.as_ref() }
    }

    /// Runs the closure and keeps its result. Never unwinds.
    #[inline]
    pub(crate) fn run(self) {
        let header = self.header();
        header.bits.set(header.bits.get() | STARTED);
        // SAFETY: the closure is still in, as STARTED was not set before (cells are started once,
        // by whoever pops them from the run queue).
        unsafe { (header.vtable.run)(self) };
    }

    /// Ends a cell that never started: the closure is dropped, `error` is its result.
    pub(super) fn fail(self, error: GreenError) {
        let header = self.header();
        debug_assert!(!self.has_started());
        header.bits.set(header.bits.get() | STARTED);
        // SAFETY: the closure is still in, as in `run`.
        unsafe {
            (header.vtable.drop_closure)(self);
            (header.vtable.fail)(self, error);
        }
    }

    /// Ends a cell whose body has begun and never goes on: `error` is its result. Never unwinds.
    ///
    /// The stack of the body may still refer to the cell, but nothing runs there any more.
    pub(super) fn abandon(self, error: GreenError) {
        let header = self.header();
        debug_assert!(self.has_started() && !self.is_done());
        // SAFETY: the body of the cell is empty: the closure was moved out when it began, and the result, which
        // its root would write, never comes, because its stack is never entered again.
        unsafe { (header.vtable.fail)(self, error) };
        self.finish();
    }

    /// Tells everybody who waits, then frees the cell unless a handle exists. Never unwinds.
    #[inline]
    pub(crate) fn finish(self) {
        let header = self.header();
        header.bits.set(header.bits.get() | DONE);
        trace::ended(self);
        header.control.set(None);
        if header.more.get().is_some() {
            self.run_links();
        }
        if let Some(waiter) = header.waiter.take() {
            waiter.wake();
        }
        if let Some(more) = self.more() {
            more.life.take();
            for waiter in more.waiters.take() {
                waiter.wake();
            }
        }
        header.bits.set(header.bits.get() & !ALIVE);
        if header.bits.get() & HANDLE == 0 {
            self.free();
        }
    }

    #[cold]
    fn run_links(self) {
        let Some(more) = self.more() else { return };
        more.linking.set(Some(run::current()));
        // One at a time, so that a link can take back those after it.
        loop {
            let Some((_, link)) = more.links.borrow_mut().pop_front() else { break };
            if let Err(error) = contained(link) {
                report::tell(Report::LinkFailed { name: self.describe(), error });
            }
        }
        more.linking.set(None);
    }

    /// The handle is gone.
    #[inline]
    pub(crate) fn release(self) {
        let header = self.header();
        header.bits.set(header.bits.get() & !HANDLE);
        if header.bits.get() & ALIVE == 0 {
            self.free();
        }
    }

    #[inline]
    fn free(self) {
        let header = self.header();
        let bits = header.bits.get();
        if bits & TAKEN == 0 {
            if bits & SEEN == 0 {
                // SAFETY: the result is in: DONE is set and TAKEN is not.
                if let Some(failure) = unsafe { (header.vtable.unhandled)(self) } {
                    self.report(failure);
                }
            }
            // SAFETY: as above, and nobody finds the cell after this.
            unsafe { (header.vtable.drop_result)(self) };
        }
        if let Some(more) = header.more.take() {
            // SAFETY: leaked by `more_or_new`, taken out of its cell just now.
            drop_contained(unsafe { Box::from_raw(more.as_ptr()) });
        }
        super::local::give_task(self.0.cast(), header.class, header.vtable.layout);
    }

    /// Whether the result is in.
    pub(crate) fn is_done(self) -> bool {
        self.header().bits.get() & DONE != 0
    }

    /// Whether the running greenlet need not wait for its end: everybody was told, or is being told by
    /// the running greenlet itself.
    #[inline]
    pub(crate) fn has_ended(self) -> bool {
        self.header().bits.get() & ALIVE == 0 || self.is_linking_here()
    }

    #[cold]
    fn is_linking_here(self) -> bool {
        self.more().is_some_and(|more| more.linking.get() == Some(run::current()))
    }

    /// It no longer has a greenlet: it was taken back before it began.
    pub(crate) fn forget_control(self) {
        self.header().control.set(None);
    }

    /// Drops the result, which is out of reach. An `Err` is reported; any other failure that was not seen is left to the
    /// caller, which gets true.
    pub(crate) fn discard(self) -> bool {
        let header = self.header();
        let bits = header.bits.get();
        debug_assert!(bits & DONE != 0);
        if bits & TAKEN != 0 {
            return false;
        }
        // First of all: the text of an error is foreign code, which may run others who have a handle.
        header.bits.set(bits | TAKEN | SEEN);
        // SAFETY: the result is in: DONE was set and TAKEN was not. With TAKEN nobody else finds it any more.
        let failure = if bits & SEEN == 0 { unsafe { (header.vtable.unhandled)(self) } } else { None };
        // SAFETY: as above.
        unsafe { (header.vtable.drop_result)(self) };
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
    fn report(self, failure: Failure) {
        let (error, result) = match failure {
            Failure::Ended(error) => (error, None),
            Failure::Returned(error) => (error.text(), Some(error.result)),
        };
        report::tell(Report::Unhandled { name: self.describe(), error, result });
    }

    /// Somebody gets to know the result, so a failure need not be reported.
    pub(crate) fn see(self) {
        let header = self.header();
        header.bits.set(header.bits.get() | SEEN);
    }

    pub(crate) fn has_started(self) -> bool {
        self.header().bits.get() & STARTED != 0
    }

    /// The greenlet that runs it, while there is one.
    #[inline]
    pub(crate) fn control(self) -> Option<ControlRef> {
        self.header().control.get()
    }

    /// Adds somebody who wants to know of the end.
    pub(crate) fn add_waiter(self, waiter: Waiter) {
        let header = self.header();
        match header.waiter.get() {
            None => header.waiter.set(Some(waiter)),
            Some(_) => self.more_or_new().waiters.borrow_mut().push(waiter),
        }
    }

    /// Takes a waiter back that has left.
    pub(crate) fn remove_waiter(self, waiter: Waiter) {
        let header = self.header();
        if header.waiter.get() == Some(waiter) {
            // The oldest of the others moves up, so that waiters are woken in order.
            let next = self.more().and_then(|more| {
                let mut waiters = more.waiters.borrow_mut();
                (!waiters.is_empty()).then(|| waiters.remove(0))
            });
            header.waiter.set(next);
        } else if let Some(more) = self.more() {
            more.waiters.borrow_mut().retain(|other| *other != waiter);
        }
    }

    /// Adds a callback for the end. The number takes it back.
    pub(crate) fn add_link(self, link: Link) -> u64 {
        let more = self.more_or_new();
        let number = more.next_link.get();
        more.next_link.set(number + 1);
        more.links.borrow_mut().push_back((number, link));
        number
    }

    pub(crate) fn remove_link(self, number: u64) -> bool {
        let Some(more) = self.more() else { return false };
        let mut links = more.links.borrow_mut();
        let Some(index) = links.iter().position(|(link, _)| *link == number) else { return false };
        let link = links.remove(index);
        drop(links);
        drop_contained(link);
        true
    }

    pub(crate) fn set_name(self, name: &str) {
        *self.more_or_new().name.borrow_mut() = Some(Rc::from(name));
    }

    pub(crate) fn name(self) -> Option<Rc<str>> {
        self.more()?.name.borrow().clone()
    }

    pub(crate) fn set_stack_size(self, size: usize) {
        self.more_or_new().stack_size.set(Some(size));
    }

    /// The size that was asked for, in bytes.
    #[inline]
    pub(super) fn stack_size(self) -> Option<usize> {
        self.more()?.stack_size.get()
    }

    pub(crate) fn spawned_at(self) -> &'static Location<'static> {
        self.header().spawned_at
    }

    /// Name and origin, for reports.
    pub(crate) fn describe(self) -> String {
        match self.name() {
            Some(name) => format!("{name:?} (spawned at {})", self.spawned_at()),
            None => format!("spawned at {}", self.spawned_at()),
        }
    }

    /// Writes what it runs to `out`, piece by piece. May be called in a signal handler of its thread: it takes
    /// no memory and no lock, and leaves out what is being changed at that moment.
    pub(super) fn write_to(self, out: &mut dyn FnMut(&[u8])) {
        out(b"green thread ");
        if let Some(more) = self.more()
            && let Ok(name) = more.name.try_borrow()
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

    fn result_ptr<T>(self) -> *mut ManuallyDrop<Result<T, GreenError>> {
        let offset = self.header().vtable.body;
        // SAFETY: the body lies at this offset of the allocation, and a union keeps each of its
        // fields at its beginning.
        unsafe { self.0.as_ptr().byte_add(offset).cast() }
    }

    pub(crate) fn set_timer(self, timer: TimerId) {
        self.more_or_new().timer.set(Some(timer));
    }

    pub(crate) fn timer(self) -> Option<TimerId> {
        self.more()?.timer.get()
    }

    pub(crate) fn take_timer(self) -> Option<TimerId> {
        self.more()?.timer.take()
    }

    /// Something that lives until it has ended.
    pub(crate) fn life(self) -> Weak<()> {
        Rc::downgrade(self.more_or_new().life.borrow_mut().get_or_insert_default())
    }

    /// The value that an upper floor keeps with the green thread, made at first use.
    pub(crate) fn companion<'a>(self, make: impl FnOnce() -> Box<dyn Any>) -> &'a dyn Any {
        &**self.more_or_new().companion.get_or_init(make)
    }

    fn more<'a>(self) -> Option<&'a More> {
        // SAFETY: leaked by `more_or_new` and freed with the cell.
        self.header().more.get().map(|more| unsafe { more.as_ref() })
    }

    fn more_or_new<'a>(self) -> &'a More {
        let header = self.header();
        if header.more.get().is_none() {
            header.more.set(Some(NonNull::from(Box::leak(Box::default()))));
        }
        self.more().expect("just made")
    }
}

/// Writes a place as `file:line:column`, under the conditions of [`TaskRef::write_to`].
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

/// A cell whose result has the type `T`.
#[derive(Debug)]
pub(crate) struct Task<T> {
    cell: TaskRef,
    result: PhantomData<*const T>,
}

impl<T> Clone for Task<T> {
    fn clone(&self) -> Task<T> {
        *self
    }
}

impl<T> Copy for Task<T> {}

impl<T> Deref for Task<T> {
    type Target = TaskRef;
    #[inline]
    fn deref(&self) -> &TaskRef {
        &self.cell
    }
}

impl<T> Task<T> {
    /// A new greenlet with a cell that will run `closure`. It is in no queue yet.
    #[inline]
    pub(crate) fn new<F>(local: &Local, closure: F, handle: bool, spawned_at: &'static Location<'static>) -> Task<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        // SAFETY: neither borrows anything.
        let cell = unsafe { TaskRef::new::<F, T, Owned>(local, closure, handle, spawned_at) };
        Task { cell, result: PhantomData }
    }

    /// A new greenlet with a cell that has a handle and will run a `closure` which may borrow.
    ///
    /// # Safety
    ///
    /// What `F` and `T` borrow outlives the cell: it ends and its handle is released before.
    pub(crate) unsafe fn borrowing<F>(local: &Local, closure: F, spawned_at: &'static Location<'static>) -> Task<T>
    where
        F: FnOnce() -> T,
    {
        // SAFETY: by the contract.
        let cell = unsafe { TaskRef::new::<F, T, Borrowed>(local, closure, true, spawned_at) };
        Task { cell, result: PhantomData }
    }

    /// The result, moved out. Nobody gets it twice, or while it is looked at.
    pub(crate) fn take_result(self) -> Result<T, GreenError> {
        let header = self.header();
        let bits = header.bits.get();
        debug_assert!(bits & DONE != 0);
        if bits & TAKEN != 0 || header.looks.get() != 0 {
            return Err(GreenError::Taken);
        }
        header.bits.set(bits | TAKEN | SEEN);
        // SAFETY: DONE and not TAKEN: the result is in, and a `Task<T>` is made for results of type `T`.
        unsafe { ManuallyDrop::take(&mut *self.result_ptr::<T>()) }
    }

    /// Shows the result in place, which does not count as taking it. `None` if it was moved out.
    pub(crate) fn look<R>(self, at: impl FnOnce(&Result<T, GreenError>) -> R) -> Option<R> {
        /// Ends the look, also by a panic of the one who looks.
        struct LookedAt(TaskRef);
        impl Drop for LookedAt {
            fn drop(&mut self) {
                let looks = &self.0.header().looks;
                looks.set(looks.get() - 1);
            }
        }
        let header = self.header();
        let bits = header.bits.get();
        debug_assert!(bits & DONE != 0);
        if bits & TAKEN != 0 {
            return None;
        }
        header.looks.set(header.looks.get() + 1);
        let _looked_at = LookedAt(self.cell);
        // SAFETY: DONE and not TAKEN: the result is in, and `looks` keeps it there; its cell lives, for the
        // caller has a handle or is called before it has ended. `T` is right, as in `take_result`.
        Some(at(unsafe { &*self.result_ptr::<T>() }))
    }
}

impl<T: 'static> Task<Option<T>> {
    /// As [`new`](Task::new), with a handle, for a closure that gives `None` if its body is not to run. An `Err` in its
    /// `Some` is an error of the green thread.
    pub(crate) fn optional<F>(local: &Local, closure: F, spawned_at: &'static Location<'static>) -> Task<Option<T>>
    where
        F: FnOnce() -> Option<T> + 'static,
    {
        // SAFETY: neither borrows anything.
        let cell = unsafe { TaskRef::new::<F, Option<T>, OwnedOption>(local, closure, true, spawned_at) };
        Task { cell, result: PhantomData }
    }
}

/// Finds the error in a result that was never taken.
trait Unhandled<T> {
    fn error_in(value: &T) -> Option<LostError>;
}

/// In a result that may borrow: without its message.
struct Borrowed;

impl<T> Unhandled<T> for Borrowed {
    #[inline]
    fn error_in(value: &T) -> Option<LostError> {
        unhandled::error_in(value)
    }
}

/// In a result that owns what it holds.
struct Owned;

impl<T: 'static> Unhandled<T> for Owned {
    #[inline]
    fn error_in(value: &T) -> Option<LostError> {
        unhandled::error_with_message_in(value)
    }
}

/// In a result that owns what it holds and is `None` if the body was not run.
struct OwnedOption;

impl<T: 'static> Unhandled<Option<T>> for OwnedOption {
    #[inline]
    fn error_in(value: &Option<T>) -> Option<LostError> {
        value.as_ref().and_then(unhandled::error_with_message_in)
    }
}

/// The text of an error, which foreign code makes.
fn text_of(error: &GreenError) -> String {
    contained(|| error.to_string()).unwrap_or_else(unhandled::no_text)
}

const fn vtable<F, T, U>() -> Vtable
where
    F: FnOnce() -> T,
    U: Unhandled<T>,
{
    /// # Safety: the cell is a `Cellar<F, T>` with its closure in.
    unsafe fn run<F: FnOnce() -> T, T>(task: TaskRef) {
        // SAFETY: by the contract.
        let closure = unsafe { ManuallyDrop::take(&mut (*body::<F, T>(task)).closure) };
        let result = contained(closure);
        // SAFETY: the closure was moved out; nobody else refers to the body.
        unsafe { (*body::<F, T>(task)).result = ManuallyDrop::new(result) };
    }
    /// # Safety: the cell is a `Cellar<F, T>` with its closure in.
    unsafe fn drop_closure<F, T>(task: TaskRef) {
        // SAFETY: by the contract.
        drop_contained(unsafe { ManuallyDrop::take(&mut (*body::<F, T>(task)).closure) });
    }
    /// # Safety: the cell is a `Cellar<F, T>` with its result in.
    unsafe fn drop_result<F, T>(task: TaskRef) {
        if std::mem::needs_drop::<Result<T, GreenError>>() {
            // SAFETY: by the contract.
            let result = unsafe { ManuallyDrop::take(&mut (*body::<F, T>(task)).result) };
            if std::mem::needs_drop::<T>() || result.is_err() {
                drop_contained(result);
            }
        }
    }
    /// # Safety: the cell is a `Cellar<F, T>` with an empty body.
    unsafe fn fail<F, T>(task: TaskRef, error: GreenError) {
        // SAFETY: by the contract.
        unsafe { (*body::<F, T>(task)).result = ManuallyDrop::new(Err(error)) };
    }
    /// # Safety: the cell is a `Cellar<F, T>` with its result in.
    unsafe fn unhandled<F, T, U: Unhandled<T>>(task: TaskRef) -> Option<Failure> {
        // SAFETY: by the contract.
        match unsafe { &*(*body::<F, T>(task)).result } {
            // The thread that ended it knows.
            Err(GreenError::Exit | GreenError::Loop(_)) => None,
            Err(error) => Some(Failure::Ended(text_of(error))),
            Ok(value) => unhandled::contained_in(value, U::error_in).map(Failure::Returned),
        }
    }
    Vtable {
        layout: Layout::new::<Cellar<F, T>>(),
        body: std::mem::offset_of!(Cellar<F, T>, body),
        run: run::<F, T>,
        drop_closure: drop_closure::<F, T>,
        drop_result: drop_result::<F, T>,
        fail: fail::<F, T>,
        unhandled: unhandled::<F, T, U>,
    }
}

fn body<F, T>(task: TaskRef) -> *mut Body<F, T> {
    let cell = task.0.cast::<Cellar<F, T>>();
    // SAFETY: computes an address within the allocation, reads nothing.
    unsafe { UnsafeCell::raw_get(&raw const (*cell.as_ptr()).body) }
}

const STEP: usize = 64;
const CLASSES: usize = 8;
const BATCH: usize = 64;
const UNPOOLED: u8 = u8::MAX;

/// Free cells of a thread, in size classes of whole cache lines. Larger ones come from the allocator.
pub(crate) struct TaskPool {
    free: [Cell<Option<NonNull<FreeCell>>>; CLASSES],
    batches: RefCell<Vec<(NonNull<u8>, Layout)>>,
    /// How many cells were ever taken, and freed.
    taken: Cell<u64>,
    given: Cell<u64>,
}

struct FreeCell {
    next: Option<NonNull<FreeCell>>,
}

impl TaskPool {
    pub(crate) const fn new() -> TaskPool {
        TaskPool {
            free: [const { Cell::new(None) }; CLASSES],
            batches: RefCell::new(Vec::new()),
            taken: Cell::new(0),
            given: Cell::new(0),
        }
    }

    /// How many cells are not freed.
    pub(crate) fn live(&self) -> usize {
        (self.taken.get() - self.given.get()) as usize
    }

    /// How many there ever were.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    #[inline]
    fn take(&self, layout: Layout) -> (NonNull<u8>, u8) {
        self.taken.set(self.taken.get() + 1);
        let class = (layout.size() - 1) / STEP;
        if class >= CLASSES || layout.align() > STEP {
            return (allocate(layout), UNPOOLED);
        }
        let cell = match self.free[class].get() {
            Some(cell) => cell,
            None => self.grow(class),
        };
        // SAFETY: cells on the list are free memory of this class with a link in them.
        self.free[class].set(unsafe { cell.as_ref() }.next);
        (cell.cast(), class as u8)
    }

    /// # Safety
    ///
    /// `memory` came from `take` of this pool with that class and layout, and nobody refers to it.
    #[inline]
    pub(super) unsafe fn give(&self, memory: NonNull<u8>, class: u8, layout: Layout) {
        self.given.set(self.given.get() + 1);
        if class == UNPOOLED {
            // SAFETY: `take` allocated it with this layout.
            return unsafe { dealloc(memory.as_ptr(), layout) };
        }
        let free = &self.free[class as usize];
        let cell = memory.cast::<FreeCell>();
        // SAFETY: a cell is larger than a link and aligned to a cache line.
        unsafe { cell.write(FreeCell { next: free.get() }) };
        free.set(Some(cell));
    }

    #[cold]
    #[inline(never)]
    fn grow(&self, class: usize) -> NonNull<FreeCell> {
        let size = (class + 1) * STEP;
        let layout = Layout::from_size_align(size * BATCH, STEP).expect("a batch of cells has a size that fits");
        let batch = allocate(layout);
        self.batches.borrow_mut().push((batch, layout));
        let mut next = None;
        for index in (0..BATCH).rev() {
            // SAFETY: within the batch, aligned to a cache line.
            unsafe {
                let cell = batch.add(index * size).cast::<FreeCell>();
                cell.write(FreeCell { next });
                next = Some(cell);
            }
        }
        batch.cast()
    }

    /// Frees the batches in which no cell is in use.
    pub(crate) fn release(&self) {
        let mut batches = self.batches.take();
        batches.sort_unstable_by_key(|&(batch, _)| batch);
        let batch_of =
            |cell: NonNull<FreeCell>| batches.partition_point(|(batch, _)| batch.addr() <= cell.addr()).checked_sub(1);
        // SAFETY: cells on the lists are free memory with a link in them.
        let cells = |first: Option<NonNull<FreeCell>>| iter::successors(first, |cell| unsafe { cell.as_ref() }.next);
        let mut free = vec![0; batches.len()];
        for cell in self.free.iter().flat_map(|list| cells(list.get())) {
            batch_of(cell).into_iter().for_each(|batch| free[batch] += 1);
        }
        for list in &self.free {
            let kept: Vec<_> =
                cells(list.take()).filter(|&cell| batch_of(cell).is_some_and(|batch| free[batch] < BATCH)).collect();
            for &cell in kept.iter().rev() {
                // SAFETY: a free cell of a batch that stays, which is on no list now.
                unsafe { cell.write(FreeCell { next: list.get() }) };
                list.set(Some(cell));
            }
        }
        let mut index = 0;
        batches.retain(|&(batch, layout)| {
            index += 1;
            let unused = free[index - 1] == BATCH;
            if unused {
                // SAFETY: allocated in `grow` with this layout. Each of its cells is free, and on no list any more.
                unsafe { dealloc(batch.as_ptr(), layout) };
            }
            !unused
        });
        *self.batches.borrow_mut() = batches;
    }

    /// Frees every pooled cell.
    ///
    /// # Safety
    ///
    /// No `TaskRef` of this pool is used afterwards.
    pub(crate) unsafe fn unmap(&self) {
        for free in &self.free {
            free.set(None);
        }
        for (batch, layout) in self.batches.take() {
            // SAFETY: allocated in `grow` with this layout; the caller vouches for the references.
            unsafe { dealloc(batch.as_ptr(), layout) };
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: a cell has a header, so the layout is not empty.
    let memory = unsafe { alloc(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releasing_frees_the_batches_without_a_cell_in_use() {
        let pool = TaskPool::new();
        let layout = Layout::from_size_align(100, 8).unwrap();
        let cells: Vec<_> = (0..3 * BATCH + 5).map(|_| pool.take(layout)).collect();
        // In the second batch and in the last one.
        let kept = [cells[BATCH + 3], cells[3 * BATCH + 1]];
        // SAFETY: from `take`, given back once, and not used afterwards.
        let give = |(memory, class): (NonNull<u8>, u8)| unsafe { pool.give(memory, class, layout) };
        cells.iter().filter(|cell| !kept.contains(cell)).for_each(|&cell| give(cell));
        pool.release();
        assert_eq!(pool.batches.borrow().len(), 2);
        // Free cells are taken again: each once, and none that is in use.
        let mut again: Vec<_> = (0..2 * BATCH - 2).map(|_| pool.take(layout)).collect();
        assert_eq!(pool.batches.borrow().len(), 2);
        again.extend(kept);
        again.sort_unstable();
        again.dedup();
        assert_eq!(again.len(), 2 * BATCH);
        again.into_iter().for_each(give);
        pool.release();
        assert!(pool.batches.borrow().is_empty());
        assert_eq!(pool.live(), 0);
    }

    #[test]
    fn a_cell_that_needs_more_alignment_than_a_batch_has_is_not_of_the_pool() {
        let pool = TaskPool::new();
        for (align, pooled) in [(STEP, true), (2 * STEP, false)] {
            let layout = Layout::from_size_align(2 * STEP, align).unwrap();
            let (memory, class) = pool.take(layout);
            assert_eq!(class != UNPOOLED, pooled);
            // SAFETY: from `take`, and not used afterwards.
            unsafe { pool.give(memory, class, layout) };
        }
    }

    #[test]
    fn a_place_is_written_as_it_is_displayed() {
        let at = Location::caller();
        let mut text = Vec::new();
        write_location(at, &mut |part| text.extend_from_slice(part));
        assert_eq!(String::from_utf8(text).unwrap(), at.to_string());
    }
}
