//! The layout of a cell: a header that does not depend on the body, and the body, which is a closure and then a result.
//! Also the references to a cell, and the facts in its header.
//!
//! Ground rules: those of the [module above](super). This module does not decide when a body is read or written.

use std::alloc::Layout;
use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::mem::{ManuallyDrop, offset_of};
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::super::control::{ControlRef, Waiter};
use super::super::exit::{contained, drop_contained};
use super::super::unhandled;
use super::untaken::{Failure, Unhandled, text_of};
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

/// The offsets of the fields that a debugger reads: the location of the spawn and the rare state in the header, and the
/// pointer and length of the name in the rare state.
pub(in super::super) const OFFSETS: [u32; 4] = [
    offset_of!(Header, spawned_at) as u32,
    offset_of!(Header, extra) as u32,
    (offset_of!(Extra, name_bytes) + offset_of!(NameBytes, start)) as u32,
    (offset_of!(Extra, name_bytes) + offset_of!(NameBytes, len)) as u32,
];

/// The bytes of a name, for debuggers, which do not know where a `RefCell` keeps them.
pub(super) struct NameBytes {
    start: Cell<*const u8>,
    len: Cell<usize>,
}

impl Default for NameBytes {
    fn default() -> NameBytes {
        NameBytes { start: Cell::new(ptr::null()), len: Cell::new(0) }
    }
}

/// The state that most cells never need.
#[derive(Default)]
pub(super) struct Extra {
    pub(super) name: RefCell<Option<Rc<str>>>,
    name_bytes: NameBytes,
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

/// Refers to a cell that is not freed yet.
#[derive(PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct TaskRef(pub(super) NonNull<Header>);

impl TaskRef {
    #[inline]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: by the ground rules a `TaskRef` is used only while its cell lives, and the header consists of cells
        // and constants.
        unsafe { self.0.as_ref() }
    }

    /// Returns whether the cell contains the result, or contained it.
    pub(crate) fn is_done(&self) -> bool {
        self.header().bits.get() & DONE != 0
    }

    pub(crate) fn has_started(&self) -> bool {
        self.header().bits.get() & STARTED != 0
    }

    /// Returns the greenlet that runs the body, while there is one.
    #[inline]
    pub(crate) fn control(&self) -> Option<ControlRef> {
        self.header().control.get()
    }

    /// Removes the greenlet of the cell, because it was cancelled before it began.
    pub(in super::super) fn forget_control(&self) {
        self.header().control.set(None);
    }

    /// Marks the result as seen, so that a failure need not be reported.
    pub(crate) fn see(&self) {
        let header = self.header();
        header.bits.set(header.bits.get() | SEEN);
    }

    pub(crate) fn set_name(&self, name: &str) {
        let (name, extra) = (Rc::<str>::from(name), self.extra_or_new());
        extra.name_bytes.start.set(name.as_ptr());
        extra.name_bytes.len.set(name.len());
        *extra.name.borrow_mut() = Some(name);
    }

    pub(crate) fn name(&self) -> Option<Rc<str>> {
        self.extra()?.name.borrow().clone()
    }

    pub(crate) fn set_stack_size(&self, size: usize) {
        self.extra_or_new().stack_size.set(Some(size));
    }

    /// Returns the requested stack size, in bytes.
    #[inline]
    pub(in super::super) fn stack_size(&self) -> Option<usize> {
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
    /// It allocates nothing and takes no lock, and leaves out a name that is being changed at that moment. The name is
    /// escaped as in [`describe`](TaskRef::describe): it may come from a client, and goes to terminals and logs.
    pub(in super::super) fn write_to(&self, out: &mut dyn FnMut(&[u8])) {
        out(b"green thread ");
        if let Some(extra) = self.extra()
            && let Ok(name) = extra.name.try_borrow()
            && let Some(name) = &*name
        {
            out(b"\"");
            write_escaped(name, out);
            out(b"\" ");
        }
        out(b"(spawned at ");
        write_location(self.spawned_at(), out);
        out(b")");
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

    /// Returns the value that a higher layer keeps with the green thread, made at first use.
    pub(crate) fn companion(&self, make: impl FnOnce() -> Box<dyn Any>) -> &dyn Any {
        &**self.extra_or_new().companion.get_or_init(make)
    }

    pub(super) fn result_ptr<T>(&self) -> *mut ManuallyDrop<Result<T, GreenError>> {
        // SAFETY: by the ground rules a `TaskRef` is used only while its cell lives.
        unsafe { result(self.0) }
    }

    pub(super) fn extra(&self) -> Option<&Extra> {
        // SAFETY: leaked by `extra_or_new` and freed with the cell.
        self.header().extra.get().map(|extra| unsafe { extra.as_ref() })
    }

    pub(super) fn extra_or_new(&self) -> &Extra {
        let header = self.header();
        if header.extra.get().is_none() {
            header.extra.set(Some(NonNull::from(Box::leak(Box::default()))));
        }
        self.extra().expect("just made")
    }
}

/// Writes a text as its `Debug` form shows it, without the quotes, under the conditions of [`TaskRef::write_to`].
fn write_escaped(text: &str, out: &mut dyn FnMut(&[u8])) {
    for char in text.chars() {
        match char {
            '\'' => out(b"'"),
            char => char.escape_debug().for_each(|char| out(char.encode_utf8(&mut [0; 4]).as_bytes())),
        }
    }
}

/// Writes a location as `file:line:column`, under the conditions of [`TaskRef::write_to`].
pub(in super::super) fn write_location(at: &Location<'_>, out: &mut dyn FnMut(&[u8])) {
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
pub(in super::super) struct TaskSlot(pub(super) Cell<Option<NonNull<Header>>>);

impl TaskSlot {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    pub(in super::super) fn clear(&self) {
        self.0.set(None);
    }

    /// Returns the cell.
    ///
    /// # Safety
    ///
    /// The value is used only as long as something keeps the cell.
    #[inline]
    pub(in super::super) unsafe fn get(&self) -> Option<TaskRef> {
        self.0.get().map(TaskRef)
    }

    /// Takes the cell away from the greenlet.
    ///
    /// # Safety
    ///
    /// The caller finishes the cell, and does not use the value afterwards.
    pub(in super::super) unsafe fn take(&self) -> Option<TaskRef> {
        self.0.take().map(TaskRef)
    }
}

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

/// `repr(C)` places both fields at offset 0. [`result`] relies on it.
#[repr(C)]
pub(super) union Body<F, T> {
    pub(super) closure: ManuallyDrop<F>,
    pub(super) result: ManuallyDrop<Result<T, GreenError>>,
}

pub(super) const fn vtable<F, T, U>() -> Vtable
where
    F: FnOnce() -> T,
    U: Unhandled<T>,
{
    /// # Safety
    ///
    /// The cell is a `TaskCell<F, T>` that contains its closure.
    unsafe fn run<F: FnOnce() -> T, T>(cell: NonNull<Header>) {
        // SAFETY: by the contract.
        let closure = unsafe { ManuallyDrop::take(&mut (*body::<F, T>(cell)).closure) };
        let result = contained(closure);
        // SAFETY: the closure was moved out, and nothing else refers to the body.
        unsafe { (*body::<F, T>(cell)).result = ManuallyDrop::new(result) };
    }
    /// # Safety
    ///
    /// The cell is a `TaskCell<F, T>` that contains its closure.
    unsafe fn drop_closure<F, T>(cell: NonNull<Header>) {
        // SAFETY: by the contract.
        drop_contained(unsafe { ManuallyDrop::take(&mut (*body::<F, T>(cell)).closure) });
    }
    // The functions below do not depend on `F`, so that closures with the same type of result share their code.
    /// # Safety
    ///
    /// The cell is a `TaskCell<_, T>` that contains its result, which nothing else uses, now or afterwards.
    unsafe fn drop_result<T>(cell: NonNull<Header>) {
        if std::mem::needs_drop::<Result<T, GreenError>>() {
            // SAFETY: by the contract.
            let result = unsafe { ManuallyDrop::take(&mut *result::<T>(cell)) };
            if std::mem::needs_drop::<T>() || result.is_err() {
                drop_contained(result);
            }
        }
    }
    /// # Safety
    ///
    /// The cell is a `TaskCell<_, T>` with an empty body.
    unsafe fn fail<T>(cell: NonNull<Header>, error: GreenError) {
        // SAFETY: by the contract.
        unsafe { result::<T>(cell).write(ManuallyDrop::new(Err(error))) };
    }
    /// # Safety
    ///
    /// The cell is a `TaskCell<_, T>` that contains its result, which stays there during the call.
    unsafe fn unhandled<T, U: Unhandled<T>>(cell: NonNull<Header>) -> Option<Failure> {
        // SAFETY: by the contract.
        match unsafe { &**result::<T>(cell) } {
            // Not reported: the code that ended the green thread has caused it.
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
        drop_result: drop_result::<T>,
        fail: fail::<T>,
        unhandled: unhandled::<T, U>,
    }
}

/// # Safety
///
/// The cell lives, and is a `TaskCell<F, T>`.
unsafe fn body<F, T>(cell: NonNull<Header>) -> *mut Body<F, T> {
    let cell = cell.cast::<TaskCell<F, T>>();
    // SAFETY: by the contract this computes an address within the allocation. It reads nothing.
    unsafe { UnsafeCell::raw_get(&raw const (*cell.as_ptr()).body) }
}

/// Returns a pointer to the result of a cell. The pointer may be used only if the result has the type `T`.
///
/// # Safety
///
/// The cell lives.
unsafe fn result<T>(cell: NonNull<Header>) -> *mut ManuallyDrop<Result<T, GreenError>> {
    let cell = cell.as_ptr();
    // SAFETY: the cell lives, and `TaskRef::new` has written the vtable for its types, so its body is at this offset.
    // `cell` comes from the pointer to the whole cell, of which the header is the beginning.
    unsafe { cell.byte_add((*cell).vtable.body).cast() }
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

    #[test]
    fn a_name_is_written_as_it_is_formatted() {
        for name in ["plain", "it's é", "\u{1b}[2J\"\r\n\\", "\0\u{7f}\u{9b}\u{202e}", "\u{1f980}"] {
            let mut text = Vec::new();
            write_escaped(name, &mut |part| text.extend_from_slice(part));
            assert_eq!(format!("\"{}\"", String::from_utf8(text).unwrap()), format!("{name:?}"));
        }
    }
}
