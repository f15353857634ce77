//! The run queue of an OS thread, the running greenlet, and wake-ups, which only queue their target.
//!
//! Ground rules: those of the [module above](super). The fields that lead to memory or name the running greenlet are
//! private to this file: `current`, `local`, `late` and `ended`. The functions that set them are unsafe.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use super::super::control::{ControlRef, Kind, State, Waiter, Wake};
use super::super::driver::Driver;
use super::super::local::{self, Local};
use super::fairness::{OPERATIONS, Turn};
use crate::hub::Stamp;

/// The part of an OS thread's state that every switch touches: plain cells, no destructor, no lazy initialization.
///
/// `ready` and `budget` are kept apart. If they were adjacent, the compiler would update both with one wide operation,
/// which stalls on the narrow store before it.
#[repr(C)]
pub(crate) struct RunQueue {
    pub(super) ready: Cell<usize>,
    current: Cell<Option<ControlRef>>,
    pub(super) head: Cell<Option<ControlRef>>,
    pub(super) tail: Cell<Option<ControlRef>>,
    /// The number of greenlets that may still run in this slice before the main loop polls descriptors and timers
    /// again. Zero while there is no main loop.
    pub(super) budget: Cell<usize>,
    /// The budget at the beginning of the slice.
    pub(super) granted: Cell<usize>,
    /// The number of operations that may still complete without a switch before `charge` checks whether others have
    /// run.
    pub(super) operations: Cell<u32>,
    /// The number of greenlets that ran under the earlier budgets.
    pub(super) switches: Cell<u64>,
    /// Whether nothing looks at the queue by itself: the hub waits, or a program that embeds the loop is between two
    /// turns. The first greenlet that becomes ready wakes it.
    asleep: Cell<bool>,
    /// Whether the main greenlet embeds the loop and is between two turns.
    pub(super) between_turns: Cell<bool>,
    /// The state of this OS thread, until it ends.
    local: Cell<Option<NonNull<Local>>>,
    /// The state of this OS thread after its end, while some of it is still needed.
    late: Cell<Option<NonNull<Local>>>,
    /// Whether the OS thread has ended or is ending. No greenlet is entered then.
    ended: Cell<bool>,
    /// Whether this OS thread polls a future although it has no greenlets yet. Its main greenlet is made in the poll.
    polling: Cell<bool>,
    pub(super) turn: Turn,
}

thread_local! {
    static THREAD: RunQueue = const {
        RunQueue {
            ready: Cell::new(0),
            current: Cell::new(None),
            head: Cell::new(None),
            tail: Cell::new(None),
            budget: Cell::new(0),
            granted: Cell::new(0),
            operations: Cell::new(OPERATIONS),
            switches: Cell::new(0),
            asleep: Cell::new(false),
            between_turns: Cell::new(false),
            local: Cell::new(None),
            late: Cell::new(None),
            ended: Cell::new(false),
            polling: Cell::new(false),
            turn: Turn::new(),
        }
    };
}

/// Returns the run queue of this OS thread. The function is small enough to be inlined everywhere.
#[inline(always)]
pub(in super::super) fn thread() -> &'static RunQueue {
    // SAFETY: a thread-local without destructor lives as long as its OS thread. The reference cannot leave the OS
    // thread: it is `!Send`, as `RunQueue` consists of cells.
    THREAD.with(|thread| unsafe { &*ptr::from_ref(thread) })
}

/// Returns the running greenlet.
#[inline]
pub(crate) fn current() -> ControlRef {
    match thread().current.get() {
        Some(control) => control,
        None => local::get().main,
    }
}

/// Returns the address of the block of the running greenlet; 0 if the OS thread has none.
#[inline]
pub(crate) fn running_address() -> usize {
    thread().current.get().map_or(0, ControlRef::address)
}

/// Sets whether the main greenlet embeds the loop and is between two turns. Its waits are refused then.
pub(crate) fn set_between_turns(between: bool) {
    thread().between_turns.set(between);
}

/// Returns whether the main greenlet embeds the loop and is between two turns.
pub(crate) fn is_between_turns() -> bool {
    thread().between_turns.get()
}

/// Sets whether the first greenlet that becomes ready has to wake the loop.
#[inline(always)]
pub(crate) fn set_asleep(asleep: bool) {
    thread().asleep.set(asleep);
}

/// Wakes the loop if it is asleep: it has something to do that is not in the run queue.
#[inline]
pub(crate) fn rouse() {
    let thread = thread();
    if thread.asleep.get() {
        thread.wake_loop();
    }
}

/// A value that changes whenever another greenlet runs, or the same one again.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct RunEpoch {
    current: Option<u32>,
    ticket: u64,
    hand_offs: u64,
}

/// Returns the current epoch. May be called in a signal handler of its OS thread.
pub(crate) fn run_epoch() -> RunEpoch {
    let thread = thread();
    let current = thread.current.get();
    RunEpoch {
        current: current.map(|current| current.number()),
        ticket: current.map_or(0, |current| current.ticket()),
        hand_offs: thread.hand_offs(),
    }
}

/// Returns the length of the run queue.
#[inline]
pub(crate) fn ready() -> usize {
    thread().ready.get()
}

/// Queues an entry for a callback of the main loop, so that the callback keeps its place among the greenlets.
pub(crate) fn queue_callback() {
    let control = local::get().controls.take(Kind::Thread, Stamp::NONE);
    // SAFETY: the block was just taken, for this entry.
    unsafe { thread().push(control, State::Callback) };
}

impl RunQueue {
    /// Adds a block to the queue, in the given state.
    ///
    /// # Safety
    ///
    /// The block is in no queue, and the state is the true one. A running greenlet is left before anything else runs.
    #[inline]
    pub(super) unsafe fn push(&self, control: ControlRef, state: State) {
        self.ready.set(self.ready.get() + 1);
        // SAFETY: the block is added as the last one, in a state of the queue.
        unsafe {
            control.set_state(state);
            control.set_next(None);
            if let Some(tail) = self.tail.replace(Some(control)) {
                tail.set_next(Some(control));
                return;
            }
        }
        self.head.set(Some(control));
        if self.asleep.get() {
            self.wake_loop();
        }
    }

    /// Wakes the loop, which is asleep, once.
    #[cold]
    #[inline(never)]
    fn wake_loop(&self) {
        self.asleep.set(false);
        local::get().main_loop.wake_by_waker();
    }

    /// Removes `head`, which is the head of the queue.
    #[inline]
    pub(super) fn pop(&self, head: ControlRef) {
        // SAFETY: the block leaves the queue, and the head becomes the one behind it.
        let next = unsafe { head.set_next(None) };
        self.head.set(next);
        if next.is_none() {
            self.tail.set(None);
        }
        self.ready.set(self.ready.get() - 1);
    }

    /// Removes `head`, the head of the queue, which does not run. The removal is charged to the turn, but is no switch.
    pub(super) fn pop_unrun(&self, head: ControlRef) {
        self.pop(head);
        if self.budget.get() != 0 {
            self.budget.set(self.budget.get() - 1);
            self.granted.set(self.granted.get() - 1);
        }
    }

    /// Removes `head`, the head of the queue, which is cancelled.
    #[cold]
    #[inline(never)]
    pub(super) fn discard_cancelled(&self, local: &Local, head: ControlRef) {
        self.pop_unrun(head);
        // SAFETY: a cancelled greenlet has not begun, and was just taken out of the queue.
        unsafe { local.controls.give(head) };
    }

    /// Queues a greenlet that is parked. It has a new ticket.
    #[inline]
    fn queue_if_parked(&self, control: ControlRef) {
        if control.state() == State::Parked {
            // SAFETY: a parked greenlet is suspended, and in no queue.
            unsafe { self.push(control, State::Ready) };
        }
    }

    /// Returns the running greenlet, if the OS thread has one.
    #[inline(always)]
    pub(in super::super) fn running(&self) -> Option<ControlRef> {
        self.current.get()
    }

    /// # Safety
    ///
    /// The greenlet is the running one, or is entered by the caller before anything else runs.
    #[inline(always)]
    pub(in super::super) unsafe fn set_current(&self, control: ControlRef) {
        self.current.set(Some(control));
    }

    /// Returns the state of this OS thread, until it ends.
    #[inline(always)]
    pub(in super::super) fn local(&self) -> Option<NonNull<Local>> {
        self.local.get()
    }

    /// Returns the state of this OS thread after its end, while some of it is still needed.
    pub(in super::super) fn late(&self) -> Option<NonNull<Local>> {
        self.late.get()
    }

    /// Returns whether the OS thread has ended or is ending.
    #[inline(always)]
    pub(in super::super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Sets the state of this OS thread, and its main greenlet as the running one.
    ///
    /// # Safety
    ///
    /// The OS thread has no state, and the caller runs on its own stack. The state is not freed before
    /// [`forget_late`](RunQueue::forget_late).
    pub(in super::super) unsafe fn set_local(&self, local: NonNull<Local>, main: ControlRef) {
        let place = if self.ended.get() { &self.late } else { &self.local };
        place.set(Some(local));
        self.current.set(Some(main));
    }

    /// Marks the OS thread as ended. Returns its state, which is a late one from now on.
    ///
    /// # Safety
    ///
    /// The main greenlet runs, or the body of the running greenlet never returns: the end of a body would enter the
    /// main greenlet.
    pub(in super::super) unsafe fn end(&self) -> Option<NonNull<Local>> {
        self.ended.set(true);
        let local = self.local.take()?;
        self.late.set(Some(local));
        Some(local)
    }

    /// Forgets the late state and the running greenlet.
    ///
    /// # Safety
    ///
    /// The main greenlet runs, and no greenlet of the state runs any more.
    pub(in super::super) unsafe fn forget_late(&self) {
        self.late.set(None);
        self.current.set(None);
    }

    /// Returns whether this OS thread polls a future although it has no greenlets yet.
    #[inline(always)]
    pub(in super::super) fn is_polling(&self) -> bool {
        self.polling.get()
    }

    /// Sets whether this OS thread polls a future although it has no greenlets yet. Returns the former value.
    #[inline(always)]
    pub(super) fn set_polling(&self, polling: bool) -> bool {
        self.polling.replace(polling)
    }
}

impl Waiter {
    /// Ends the park. Returns false if it has ended already. Does not switch.
    #[inline]
    pub(crate) fn wake(self) -> bool {
        self.wake_with(Wake::Event)
    }

    /// Ends the park for the given reason. Returns false if it has ended already. Does not switch.
    #[inline]
    pub(crate) fn wake_with(self, why: Wake) -> bool {
        let control = self.control();
        if control.ticket() != self.ticket() {
            return false;
        }
        control.advance_ticket();
        control.set_wake(why);
        // A greenlet that has a ticket but has not parked yet detects at its park that the ticket has moved.
        thread().queue_if_parked(control);
        true
    }
}

/// Ends the park or the raw switch in which a greenlet is suspended. Does nothing for any other greenlet.
pub(crate) fn end_switch(control: ControlRef, why: Wake) {
    if control.state() == State::Switched && control.kind() != Kind::MainLoop {
        // SAFETY: a greenlet in a raw switch is suspended, and in no queue. Only the main loop is entered without a
        // look at its state.
        unsafe { control.set_state(State::Parked) };
    }
    if control.state() == State::Parked {
        Waiter::new(control, control.ticket()).wake_with(why);
    }
}

/// Empties the run queue. The greenlets in it keep their states, and are not run any more.
pub(crate) fn clear_queue(local: &Local) {
    let thread = thread();
    thread.end_turns();
    while let Some(head) = thread.head.get() {
        thread.pop(head);
        if matches!(head.state(), State::Cancelled | State::Callback) {
            // SAFETY: nothing runs in such a block, and it was just taken out of the queue.
            unsafe { local.controls.give(head) };
        }
    }
}
