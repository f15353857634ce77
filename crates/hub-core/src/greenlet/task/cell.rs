//! The layout of a cell: a header that does not depend on the body, and the body, which is a closure and then a result.
//!
//! Ground rules: those of the [module above](super). This module does not decide when a body is read or written.

use std::alloc::Layout;
use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::NonNull;
use std::rc::Rc;

use super::super::control::ControlRef;
use super::super::run::Waiter;
use super::super::unhandled;
use super::super::unwind::{contained, drop_contained};
use super::TaskRef;
use super::unhandled::{Failure, Unhandled, text_of};
use crate::error::GreenError;
use crate::timer_queue::TimerId;

/// A handle exists.
pub(super) const HANDLE: u8 = 1;

/// The green thread has not ended.
pub(super) const ALIVE: u8 = 2;

/// The closure was taken out.
pub(super) const STARTED: u8 = 4;

/// The body contains the result, or contained it.
pub(super) const DONE: u8 = 8;

/// The body contains the result.
pub(super) const RESULT: u8 = 16;

/// A caller has seen the result, so nothing needs to be reported.
pub(super) const SEEN: u8 = 32;

/// `pins` is not zero.
pub(super) const PINNED: u8 = 64;

/// The part of a cell that does not depend on the body's type.
#[repr(C)]
pub(super) struct Header {
    pub(super) vtable: &'static Vtable,
    pub(super) spawned_at: &'static Location<'static>,
    pub(super) control: Cell<Option<ControlRef>>,
    pub(super) waiter: Cell<Option<Waiter>>,
    pub(super) extra: Cell<Option<NonNull<Extra>>>,
    /// The number of calls that borrow the result in place at present.
    pub(super) looks: Cell<u32>,
    /// The number of calls during which the cell is kept.
    pub(super) pins: Cell<u16>,
    pub(super) bits: Cell<u8>,
    pub(super) class: u8,
}

/// The state that most cells never need.
#[derive(Default)]
pub(super) struct Extra {
    pub(super) name: RefCell<Option<Rc<str>>>,
    pub(super) waiters: RefCell<Vec<Waiter>>,
    pub(super) links: RefCell<VecDeque<(u64, Link)>>,
    pub(super) next_link: Cell<u64>,
    /// The greenlet that is calling the links.
    pub(super) linking: Cell<Option<ControlRef>>,
    pub(super) stack_size: Cell<Option<usize>>,
    /// The timer of a delayed start.
    pub(super) timer: Cell<Option<TimerId>>,
    /// Dropped when the green thread ends.
    pub(super) life: RefCell<Option<Rc<()>>>,
    /// A value that a higher layer makes and uses.
    pub(super) companion: OnceCell<Box<dyn Any>>,
}

/// A callback for the end. It is called with the cell.
pub(super) type Link = Box<dyn FnOnce(&TaskRef)>;

pub(super) struct Vtable {
    pub(super) layout: Layout,
    /// The offset of the body in the cell.
    pub(super) body: usize,
    pub(super) run: unsafe fn(NonNull<Header>),
    pub(super) drop_closure: unsafe fn(NonNull<Header>),
    pub(super) drop_result: unsafe fn(NonNull<Header>),
    pub(super) fail: unsafe fn(NonNull<Header>, GreenError),
    pub(super) unhandled: unsafe fn(NonNull<Header>) -> Option<Failure>,
}

#[repr(C)]
pub(super) struct TaskCell<F, T> {
    pub(super) header: Header,
    pub(super) body: UnsafeCell<Body<F, T>>,
}

pub(super) union Body<F, T> {
    pub(super) closure: ManuallyDrop<F>,
    pub(super) result: ManuallyDrop<Result<T, GreenError>>,
}

pub(super) const fn vtable<F, T, U>() -> Vtable
where
    F: FnOnce() -> T,
    U: Unhandled<T>,
{
    /// # Safety: the cell is a `TaskCell<F, T>` that contains its closure.
    unsafe fn run<F: FnOnce() -> T, T>(cell: NonNull<Header>) {
        // SAFETY: by the contract.
        let closure = unsafe { ManuallyDrop::take(&mut (*body::<F, T>(cell)).closure) };
        let result = contained(closure);
        // SAFETY: the closure was moved out, and nothing else refers to the body.
        unsafe { (*body::<F, T>(cell)).result = ManuallyDrop::new(result) };
    }
    /// # Safety: the cell is a `TaskCell<F, T>` that contains its closure.
    unsafe fn drop_closure<F, T>(cell: NonNull<Header>) {
        // SAFETY: by the contract.
        drop_contained(unsafe { ManuallyDrop::take(&mut (*body::<F, T>(cell)).closure) });
    }
    /// # Safety: the cell is a `TaskCell<F, T>` that contains its result.
    unsafe fn drop_result<F, T>(cell: NonNull<Header>) {
        if std::mem::needs_drop::<Result<T, GreenError>>() {
            // SAFETY: by the contract.
            let result = unsafe { ManuallyDrop::take(&mut (*body::<F, T>(cell)).result) };
            if std::mem::needs_drop::<T>() || result.is_err() {
                drop_contained(result);
            }
        }
    }
    /// # Safety: the cell is a `TaskCell<F, T>` with an empty body.
    unsafe fn fail<F, T>(cell: NonNull<Header>, error: GreenError) {
        // SAFETY: by the contract.
        unsafe { (*body::<F, T>(cell)).result = ManuallyDrop::new(Err(error)) };
    }
    /// # Safety: the cell is a `TaskCell<F, T>` that contains its result.
    unsafe fn unhandled<F, T, U: Unhandled<T>>(cell: NonNull<Header>) -> Option<Failure> {
        // SAFETY: by the contract.
        match unsafe { &*(*body::<F, T>(cell)).result } {
            // Not reported: the code that ended the green thread knows of it.
            Err(GreenError::Kill | GreenError::Loop(_)) => None,
            Err(error) => Some(Failure::Ended(text_of(error))),
            Ok(value) => unhandled::contained_in(value, U::error_in).map(Failure::Returned),
        }
    }
    Vtable {
        layout: Layout::new::<TaskCell<F, T>>(),
        body: std::mem::offset_of!(TaskCell<F, T>, body),
        run: run::<F, T>,
        drop_closure: drop_closure::<F, T>,
        drop_result: drop_result::<F, T>,
        fail: fail::<F, T>,
        unhandled: unhandled::<F, T, U>,
    }
}

fn body<F, T>(cell: NonNull<Header>) -> *mut Body<F, T> {
    let cell = cell.cast::<TaskCell<F, T>>();
    // SAFETY: this computes an address within the allocation, and reads nothing.
    unsafe { UnsafeCell::raw_get(&raw const (*cell.as_ptr()).body) }
}
