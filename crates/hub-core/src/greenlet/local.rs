//! The state of one OS thread: its greenlets, their memory, its main loop.
//!
//! Ground rules:
//! - A [`Local`] is made at the first use on an OS thread and stays until the OS thread ends. Only [`free_late`] frees
//!   it. That runs in a destructor of a thread-local, on the stack of the main greenlet, when no other greenlet and no
//!   cell is left. Every frame of this crate that ran before has returned by then, or is in a `main` that called `exit`
//!   and is never returned to.
//! - The references that `get` and `try_get` lend are arguments, local variables, and fields of guards with a lifetime.
//!   No value that outlives the frame of such a call has one: no static, no thread-local, no future, no handle. With
//!   the rule above, none is in use when the state is freed. The watchdog of the blocking detector, on another OS
//!   thread, refers to a part of the state, which it pins.
//! - After the end the OS thread is in the state `ended`, and switches nowhere: `Park::current` and all other ways to
//!   leave a greenlet refuse. `try_get` then returns `None`. `get` returns the state that is left, or makes a state in
//!   which nothing begins, so that destructors that run later get errors.
//! - An abandoned greenlet is never entered again. Its stack, its control block and everything that refers to them stay
//!   in memory; the rest is freed.

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;

use super::control::arena::Controls;
use super::control::{ControlRef, Kind, State};
use super::debugger;
use super::driver::{Driver, FutureWaits, Futures, MainLoop};
use super::exit::drop_contained;
use super::run::queue::thread;
use super::stack::{StackRef, Stacks};
use super::task::pool::TaskPool;
use crate::error::{LoopError, LoopErrorKind};
use crate::hub::Stamp;

/// The state of an OS thread that has used greenlets. The loop is the first field, so both have the same address.
#[repr(C)]
pub(crate) struct Local {
    pub(crate) main_loop: MainLoop,
    pub(crate) controls: Controls,
    pub(crate) tasks: TaskPool,
    pub(crate) stacks: Stacks,
    pub(crate) futures: Futures,
    pub(crate) main: ControlRef,
    /// The greenlet that runs `main_loop`, while there is one.
    pub(crate) main_loop_greenlet: Cell<Option<ControlRef>>,
    /// The number of open scopes of the main greenlet.
    pub(crate) main_scopes: Cell<usize>,
    /// Whether no body may begin: the OS thread has ended, or its hub is being shut down.
    refuses_bodies: Cell<bool>,
    /// How often a further guard was due. Only the first 31 times register one.
    guards: Cell<u32>,
    /// The number of calls of [`Local::watch_for_end`] until the next registration.
    until_guard: Cell<u64>,
    /// Whether the state is never freed, because another OS thread refers to it or the process ends.
    pinned: Cell<bool>,
}

/// Ends the OS thread's greenlets, as a destructor of a thread-local.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        end_with_thread_locals();
    }
}

/// Guards of an OS thread. The first is registered with the state of the OS thread, the others one by one later.
///
/// Destructors of thread-locals run in the reverse order of their registration on Linux, and in no reliable order
/// elsewhere. The first guard that is dropped ends the OS thread. With a single guard, the thread-locals made after it
/// would be destroyed while green threads can still run.
macro_rules! guards {
    ($($name:ident)*) => {
        thread_local! {
            $(static $name: Guard = const { Guard };)*
        }
        /// Functions that each register one guard.
        static GUARDS: [fn(); [$(stringify!($name)),*].len()] = [$(|| _ = $name.try_with(|_| ())),*];
    };
}

guards! {
    G0 G1 G2 G3 G4 G5 G6 G7 G8 G9 G10 G11 G12 G13 G14 G15 G16 G17 G18 G19 G20 G21 G22 G23 G24 G25 G26 G27 G28 G29 G30 G31
}

thread_local! {
    /// Frees a state that a destructor has made after the end of its OS thread.
    static LATE_GUARD: Guard = const { Guard };
}

/// Ends this OS thread while its thread-locals are being destroyed. A later call frees what an earlier one could not.
pub(crate) fn end_with_thread_locals() {
    MainLoop::end_with_thread_locals();
}

/// Returns this OS thread's state, made at first use. After the end of the OS thread: a state in which nothing begins.
#[inline]
pub(crate) fn get() -> &'static Local {
    match thread().local() {
        // SAFETY: the state was not freed, since `local` leads to it, and by the ground rules no reference is left when
        // it is.
        Some(local) => unsafe { local.as_ref() },
        None => get_slowly(),
    }
}

/// Returns this OS thread's state, if it was made and the OS thread has not ended.
#[inline]
pub(crate) fn try_get() -> Option<&'static Local> {
    // SAFETY: as in `get`.
    thread().local().map(|local| unsafe { local.as_ref() })
}

/// Like [`get`], for callers that work without it after the end of the OS thread.
///
/// # Errors
///
/// Returns [`LoopErrorKind::ThreadEnding`] after the end of the OS thread.
#[inline]
pub(crate) fn get_unless_ended() -> Result<&'static Local, LoopError> {
    get_if_any().ok_or_else(|| LoopErrorKind::ThreadEnding.into())
}

/// Like [`get`], but returns `None` after the end of the OS thread.
#[inline]
pub(crate) fn get_if_any() -> Option<&'static Local> {
    if thread().local().is_none() && has_ended() { None } else { Some(get()) }
}

/// Returns whether this OS thread has ended for its greenlets: nothing switches any more.
#[inline]
pub(crate) fn has_ended() -> bool {
    thread().has_ended()
}

#[cold]
#[inline(never)]
fn get_slowly() -> &'static Local {
    late().unwrap_or_else(|| create(has_ended()))
}

fn create(ended: bool) -> &'static Local {
    let controls = Controls::new();
    let main = controls.take(Kind::Main, Stamp::NONE);
    // SAFETY: this greenlet is running.
    unsafe { main.set_state(State::Running) };
    main.set_polling(thread().is_polling());
    let local = Box::new(Local {
        controls,
        tasks: TaskPool::new(),
        stacks: Stacks::new(),
        futures: Futures::new(),
        main,
        main_loop_greenlet: Cell::new(None),
        main_scopes: Cell::new(0),
        main_loop: MainLoop::new(),
        refuses_bodies: Cell::new(ended),
        guards: Cell::new(0),
        until_guard: Cell::new(1),
        pinned: Cell::new(false),
    });
    let local = NonNull::from(Box::leak(local));
    // SAFETY: just leaked.
    let this = unsafe { local.as_ref() };
    if ended {
        this.main_loop.close();
    }
    // SAFETY: `get` found no state, so there is no other greenlet and no other stack. Only `free_late` frees the state.
    unsafe { thread().set_local(local, main) };
    if ended {
        // A state whose guard cannot be registered any more is leaked.
        let _ = LATE_GUARD.try_with(|_| ());
    } else {
        debugger::enter(this.controls.list());
        GUARDS[0]();
    }
    this
}

/// Returns the stack of the running greenlet, from its lowest byte on. May be called in a signal handler.
///
/// Returns `None` for the main greenlet, which uses the OS thread's stack.
pub(crate) fn running_stack() -> Option<std::ops::Range<usize>> {
    thread().running()?.stack_bounds()
}

impl Local {
    /// Returns whether no body may begin any more.
    #[inline]
    pub(crate) fn refuses_bodies(&self) -> bool {
        self.refuses_bodies.get()
    }

    /// Prevents bodies from beginning, as long as the returned value exists.
    pub(crate) fn refuse_bodies(&self) -> impl Drop + '_ {
        struct Refusing<'a>(&'a Cell<bool>, bool);
        impl Drop for Refusing<'_> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }
        Refusing(&self.refuses_bodies, self.refuses_bodies.replace(true))
    }

    /// Registers another guard, at first at each call, then ever more rarely, until all are registered.
    ///
    /// Most thread-locals that exist at the end of the OS thread are then older than the youngest guard. Called when
    /// the main greenlet parks, and in turns of the loop.
    #[inline]
    pub(crate) fn watch_for_end(&self) {
        let left = self.until_guard.get() - 1;
        self.until_guard.set(left);
        if left == 0 {
            self.register_guard();
        }
    }

    #[cold]
    fn register_guard(&self) {
        let number = self.guards.get() + 1;
        self.guards.set(number);
        // One for each of the first 15 calls, then one for each power of two.
        self.until_guard.set(if number < 16 { 1 } else { 1 << (number - 12).min(63) });
        if let Some(register) = GUARDS.get(number as usize) {
            register();
        }
    }

    /// Prevents the state from being freed, because another OS thread refers to it or the process ends.
    pub(crate) fn pin(&self) {
        self.pinned.set(true);
    }

    /// Returns whether the state of an ended OS thread may be freed, where the main greenlet runs.
    pub(crate) fn may_be_freed(&self) -> bool {
        !self.pinned.get() && thread().running() == Some(self.main)
    }

    /// Iterates over the green threads and plain greenlets that are alive when the iterator reaches them.
    ///
    /// Greenlets made during the iteration are left out.
    pub(crate) fn alive(&self) -> impl Iterator<Item = ControlRef> + use<> {
        self.controls.in_use().into_iter().filter(|control| control.is_alive())
    }

    /// Returns the size of the stack of the main loop, in bytes; zero if no loop runs.
    pub(crate) fn main_loop_stack_size(&self) -> usize {
        // SAFETY: the main loop keeps its stack until it has ended, and stack headers are never freed while their
        // OS thread's state exists.
        self.main_loop_greenlet
            .get()
            .and_then(|mainloop| mainloop.stack())
            .map_or(0, |stack| unsafe { stack.as_ref() }.size())
    }

    /// Takes a stack of the given size, or of the default size.
    #[inline]
    pub(super) fn take_stack(&self, size: Option<usize>) -> Result<StackRef, LoopError> {
        let size = size.unwrap_or_else(super::stack::default_size);
        self.stacks.take(size).map_err(|error| LoopError::no_stack(&error))
    }
}

/// Gives the memory of a cell back to its pool.
///
/// # Safety
///
/// The memory was taken from the pool of this OS thread with that class and layout, and is not used afterwards.
#[inline]
pub(super) unsafe fn give_task(memory: NonNull<u8>, class: u8, layout: Layout) {
    // SAFETY: by the contract. A state with cells in use is never freed.
    unsafe { get().tasks.give(memory, class, layout) };
}

/// Marks this OS thread as ended: [`try_get`] finds no state any more, no body begins, and nothing switches.
///
/// Returns the state, unless the OS thread had ended or has none.
///
/// # Safety
///
/// The main greenlet runs, or the body of the running greenlet never returns.
pub(crate) unsafe fn mark_ended() -> Option<&'static Local> {
    // SAFETY: by the contract; and as in `get`.
    let local = unsafe { thread().end()?.as_ref() };
    local.refuses_bodies.set(true);
    debugger::leave(local.controls.list());
    Some(local)
}

/// Returns the state that is left of an ended OS thread.
pub(crate) fn late() -> Option<&'static Local> {
    // SAFETY: as in `get`: the state that `late` leads to was not freed.
    thread().late().map(|local| unsafe { local.as_ref() })
}

/// Frees the parts of an ended OS thread's state that nothing refers to any more.
///
/// # Safety
///
/// [`Local::may_be_freed`] of the state, and its main greenlet has no cold state any more. No frame that will run again
/// refers to any part of the state.
pub(crate) unsafe fn free_late() {
    let Some(local) = thread().late() else { return };
    // SAFETY: as in `get`: the state that `late` leads to was not freed.
    let this = unsafe { local.as_ref() };
    if this.tasks.live() != 0 || this.controls.live() != 1 {
        this.stacks.release();
        this.tasks.release();
        // SAFETY: only stale tickets refer to unused blocks. They do so by number, and no block is found by its number
        // any more. New blocks come from new chunks.
        return unsafe { this.controls.release() };
    }
    // SAFETY: no cell is in use, so no handle is left. The only greenlet left is the main one, which runs this. The
    // OS thread has forgotten the pointer, and frames do not refer to it, by the contract. The state was leaked by
    // `create`.
    unsafe {
        // Destructors of values that the main loop still holds find that the OS thread has ended.
        thread().forget_late();
        this.controls.unmap();
        this.tasks.unmap();
        drop_contained(Box::from_raw(local.as_ptr()));
    }
}
