//! What belongs to one thread: its greenlets, their memory, its main loop.
//!
//! Ground rules:
//! - A [`Local`] is made at the first use on a thread and stays until the thread ends; `get` lends it
//!   for as long as anybody on the thread can ask for it. It is freed at the end of the thread only if
//!   no handle and no greenlet is left, and leaked otherwise.
//! - At the end of a thread greenlets are unwound only if the main greenlet is the one that runs;
//!   otherwise the thread ends from within a greenlet, and everything is leaked.

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

use super::control::{ControlRef, Controls, Kind, State};
use super::run::thread;
use super::stack::{StackRef, Stacks};
use super::switch;
use super::task::{TaskPool, write_location};
use super::unwind::{Exit, drop_contained};
use crate::error::{GreenError, LoopError};
use crate::main_loop::MainLoop;
use crate::time::Stamp;

/// The state of a thread that has used greenlets. The loop is its first field, so that who finds one has found the other.
#[repr(C)]
pub(crate) struct Local {
    pub(crate) main_loop: MainLoop,
    pub(crate) controls: Controls,
    pub(crate) tasks: TaskPool,
    pub(crate) stacks: Stacks,
    pub(crate) main: ControlRef,
    pub(crate) mainloop: Cell<Option<ControlRef>>,
    ending: Cell<bool>,
}

thread_local! {
    /// Cleans up when the thread ends.
    static GUARD: Guard = const { Guard };
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(local) = thread().local.get() {
            // SAFETY: made by `create`, and freed by nobody else.
            unsafe { end(local) };
        }
        thread().ended.set(true);
    }
}

/// This thread's state, made at first use.
///
/// # Panics
///
/// When the thread is ending and its state is gone already.
#[inline]
pub(crate) fn get() -> &'static Local {
    match thread().local.get() {
        // SAFETY: see the ground rules; nobody keeps the reference beyond a call from outside.
        Some(local) => unsafe { local.as_ref() },
        None => create(),
    }
}

/// This thread's state, if it was made and is not gone.
#[inline]
pub(crate) fn try_get() -> Option<&'static Local> {
    // SAFETY: as in `get`.
    thread().local.get().map(|local| unsafe { local.as_ref() })
}

/// Whether this thread's state is gone, at the end of the thread.
pub(crate) fn has_ended() -> bool {
    thread().ended.get()
}

/// As [`get`], where a destructor may ask that runs after the thread's state is gone.
///
/// # Errors
///
/// [`LoopError::ThreadEnding`] then.
#[inline]
pub(crate) fn get_unless_ended() -> Result<&'static Local, LoopError> {
    get_if_any().ok_or(LoopError::ThreadEnding)
}

/// As [`get`], but `None` after the thread's state is gone.
#[inline]
pub(crate) fn get_if_any() -> Option<&'static Local> {
    if thread().local.get().is_none() && thread().ended.get() { None } else { Some(get()) }
}

#[cold]
#[inline(never)]
fn create() -> &'static Local {
    assert!(!thread().ended.get(), "this thread is ending: it has no green threads any more");
    let controls = Controls::new();
    let main = controls.take(Kind::Main, Stamp::NONE);
    main.state.set(State::Running);
    let local = Box::new(Local {
        controls,
        tasks: TaskPool::new(),
        stacks: Stacks::new(),
        main,
        mainloop: Cell::new(None),
        main_loop: MainLoop::new(),
        ending: Cell::new(false),
    });
    let local = NonNull::from(Box::leak(local));
    thread().local.set(Some(local));
    thread().set_current(main);
    super::overflow::set_describe(describe);
    // Registers the destructor. Where that is not possible any more the state is leaked.
    let _ = GUARD.try_with(|_| ());
    // SAFETY: just leaked.
    unsafe { local.as_ref() }
}

/// Writes who runs on a stack. It runs in a signal handler, on the thread whose stack has overflowed.
fn describe(stack: StackRef, out: &mut dyn FnMut(&[u8])) {
    let current = thread().running().filter(|current| current.stack.get() == Some(stack));
    match current.map(|current| (current.kind(), current.task())) {
        // The body is still running, so its cell lives.
        Some((Kind::Thread, Some(task))) => task.write_to(out),
        Some((Kind::Thread, None)) => out(b"a green thread that tells of its end"),
        Some((Kind::Mainloop, _)) => out(b"the main loop"),
        _ => out(b"a greenlet"),
    }
}

/// Writes who runs on this thread. May be called in a signal handler: it takes no memory and no lock.
pub(crate) fn describe_running(out: &mut dyn FnMut(&[u8])) {
    let current = thread().running();
    match current.map(|current| (current.kind(), current.task())) {
        Some((Kind::Thread, Some(task))) => task.write_to(out),
        Some((Kind::Thread, None)) => out(b"a green thread that tells of its end"),
        Some((Kind::Mainloop, _)) => match try_get().and_then(|local| local.main_loop.calling()) {
            Some(made_at) => {
                out(b"a callback (made at ");
                write_location(made_at, out);
                out(b")");
            }
            None => out(b"the main loop"),
        },
        Some((Kind::Raw, _)) => out(b"a plain greenlet"),
        Some((Kind::Main, _)) | None => out(b"the main greenlet"),
    }
}

/// The stack of the greenlet that runs, from its lowest byte on; none for the main one, which has the thread's. May be
/// called in a signal handler.
pub(crate) fn running_stack() -> Option<std::ops::Range<usize>> {
    let stack = thread().running()?.stack.get()?;
    // SAFETY: a stack that is lent to a greenlet is mapped, and so is its header.
    let stack = unsafe { stack.as_ref() };
    Some(stack.bottom().addr()..stack.top().addr())
}

/// Whether the end of this thread will be noticed.
pub(crate) fn will_end_in_order() -> bool {
    GUARD.try_with(|_| ()).is_ok()
}

impl Local {
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// A stack of the default size, or of another.
    #[inline]
    pub(super) fn take_stack(&self, size: Option<usize>) -> Result<StackRef, LoopError> {
        let size = size.unwrap_or_else(super::stack::default_size);
        self.stacks.take(size).map_err(|error| LoopError::Stack(Arc::from(error.to_string())))
    }
}

/// The context that enters a stack: that of the root loop at rest on it, or a fresh one.
#[inline]
pub(super) fn enter_stack(stack: StackRef) -> usize {
    // SAFETY: stack headers are never freed while their thread's state exists.
    match unsafe { stack.as_ref() }.context.replace(0) {
        0 => switch::fresh(stack),
        context => context,
    }
}

/// Gives the memory of a cell back to its pool.
pub(super) fn give_task(memory: NonNull<u8>, class: u8, layout: Layout) {
    // SAFETY: cells are made with the pool of their thread and never leave it; the cell that frees
    // itself names its class and layout. A state with cells in use is never freed.
    unsafe { get().tasks.give(memory, class, layout) };
}

/// Ends a thread's greenlets and frees its state, as far as that is possible.
///
/// # Safety
///
/// `local` is the state of this thread, whose destructors run now.
unsafe fn end(local: NonNull<Local>) {
    // SAFETY: by the contract.
    let this = unsafe { local.as_ref() };
    // It refers to this thread and its state from another.
    drop(this.main_loop.detector.take());
    if super::run::current() != this.main {
        // The thread ends from within a greenlet: nothing can be unwound.
        return;
    }
    this.ending.set(true);
    this.main_loop.close();
    // With `panic = "abort"` nothing can be unwound.
    if !is_process_main_thread() && cfg!(panic = "unwind") {
        super::run::unwind_all(this);
        super::run::end_mainloop(this);
    }
    this.main.drop_locals();
    this.main_loop.drop_hub().for_each(drop_contained);
    if this.tasks.live() == 0 && this.controls.live() == 1 {
        this.main.drop_cold();
        // Destructors of what the main loop still holds find that the thread has ended.
        thread().forget_local();
        thread().ended.set(true);
        // SAFETY: no cell is in use, so no handle is left; no greenlet is left but main, which is
        // running these destructors. The thread has forgotten the pointer.
        unsafe {
            this.controls.unmap();
            this.tasks.unmap();
            drop_contained(Box::from_raw(local.as_ptr()));
        }
    }
}

/// The exit with which the greenlets of an ending thread are unwound.
pub(super) fn ending_exit() -> Exit {
    Exit::Kill(GreenError::Loop(LoopError::ThreadEnding))
}

/// At the end of the process nothing is unwound.
fn is_process_main_thread() -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        rustix::thread::gettid() == rustix::process::getpid()
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        std::thread::current().name() == Some("main")
    }
}
