//! The run queue, parking, waking, and the hand-off from one greenlet to the next.
//!
//! A greenlet that parks switches straight to the next ready one. The switch goes to the main loop only when no
//! greenlet is ready, or the turn is over. A wake-up only queues its target.
//!
//! Ground rules:
//! - `current` is set before the jump, by the greenlet that switches. So a greenlet that arrives is current.
//! - A block is in the run queue, once, if and only if its state is Unstarted, Ready, Cancelled or Callback.
//! - A ticket is woken at most once: a wake-up advances it, and so does every other end of a park.
//! - No borrow of a `RefCell` or of a hub is held when a greenlet is left.

mod exits;
mod fairness;
mod interrupt;
mod mask;
mod poll;
mod waiter;

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, compiler_fence};

use super::control::{ControlRef, Kind, State, Wake};
use super::driver::{Driver, FutureWaits};
use super::local::{self, Local};
use super::spans;
use super::switch;
use super::trace;
use crate::base::wait_reason::WaitReason;
use crate::error::{GreenError, LoopError, LoopErrorKind};
use crate::hub::Stamp;
use crate::report::{self, Report};

pub(crate) use self::exits::{check_exit, exit_again, exit_is_pending, exit_now, has_to_exit};
pub(crate) use self::fairness::{charge, fire, is_yield_due, operations_used_up, run_ready};
pub use self::fairness::{set_turn_time, turn_time};
use self::interrupt::cancel;
pub(crate) use self::interrupt::{end_abandoned, interrupt};
pub(crate) use self::mask::{Mask, Shield, lift_shields};
pub(crate) use self::poll::PollMode;
pub(super) use self::waiter::arrive;
pub(crate) use self::waiter::{Park, Waiter, may_leave};

/// The part of an OS thread's state that every switch touches: plain cells, no destructor, no lazy initialization.
///
/// `ready` and `budget` are kept apart. If they were adjacent, the compiler would update both with one wide operation,
/// which stalls on the narrow store before it.
#[repr(C)]
pub(crate) struct RunQueue {
    ready: Cell<usize>,
    current: Cell<Option<ControlRef>>,
    head: Cell<Option<ControlRef>>,
    tail: Cell<Option<ControlRef>>,
    /// The number of greenlets that may still run in this slice before the main loop polls descriptors and timers
    /// again. Zero while there is no main loop.
    budget: Cell<usize>,
    /// The budget at the beginning of the slice.
    granted: Cell<usize>,
    /// The number of operations that may still complete without a switch before [`charge`] checks whether others have
    /// run.
    operations: Cell<u32>,
    /// The number of greenlets that ran under the earlier budgets.
    switches: Cell<u64>,
    /// Whether nothing looks at the queue by itself: the hub waits, or a program that embeds the loop is between two
    /// turns. The first greenlet that becomes ready wakes it.
    asleep: Cell<bool>,
    /// Whether the main greenlet embeds the loop and is between two turns.
    between_turns: Cell<bool>,
    /// The state of this OS thread, until it ends.
    pub(super) local: Cell<Option<NonNull<Local>>>,
    /// The state of this OS thread after its end, while some of it is still needed.
    pub(super) late: Cell<Option<NonNull<Local>>>,
    /// Whether the OS thread has ended or is ending. No greenlet is entered then.
    pub(super) ended: Cell<bool>,
    /// Whether this OS thread polls a future although it has no greenlets yet. Its main greenlet is made in the poll.
    pub(super) polling: Cell<bool>,
    turn: fairness::Turn,
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
            operations: Cell::new(fairness::OPERATIONS),
            switches: Cell::new(0),
            asleep: Cell::new(false),
            between_turns: Cell::new(false),
            local: Cell::new(None),
            late: Cell::new(None),
            ended: Cell::new(false),
            polling: Cell::new(false),
            turn: fairness::Turn::new(),
        }
    };
}

/// Returns the run queue of this OS thread. The function is small enough to be inlined everywhere.
#[inline(always)]
pub(super) fn thread() -> &'static RunQueue {
    // SAFETY: a thread-local without destructor lives as long as its thread. The reference cannot leave the thread: it
    // is `!Send`, as `RunQueue` consists of cells.
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

/// Returns whether the running code must not block.
///
/// True in the main loop, in a main greenlet that embeds it, and in a subscriber during an event of this crate.
#[inline]
pub(crate) fn in_mainloop() -> bool {
    trace::in_subscriber() || thread().current.get().is_some_and(runs_loop)
}

/// Returns whether `control` is the main loop, or a main greenlet that embeds it.
fn runs_loop(control: ControlRef) -> bool {
    match control.kind() {
        Kind::Mainloop => true,
        Kind::Main => thread().between_turns.get(),
        _ => false,
    }
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

/// Returns whether the running code must not switch: in the main loop, in a subscriber, in a poll of a future.
#[inline]
pub(crate) fn must_not_switch() -> bool {
    let thread = thread();
    in_mainloop() || thread.current.get().map_or(thread.polling.get(), |current| current.is_polling())
}

/// Queues a greenlet whose body has not begun. After the end or during the shutdown of its OS thread, cancels it
/// instead.
///
/// # Safety
///
/// The greenlet has not begun, and is in no queue.
#[inline]
pub(super) unsafe fn start(control: ControlRef) {
    if local::get().refuses_bodies() {
        // SAFETY: by the contract.
        return unsafe { refuse(control) };
    }
    // SAFETY: the greenlet has not begun and is in no queue, by the contract.
    unsafe { thread().push(control, State::Unstarted) };
}

/// Ends the park or the raw switch in which a greenlet is suspended. Does nothing for any other greenlet.
pub(crate) fn end_switch(control: ControlRef, why: Wake) {
    if control.state() == State::Switched && control.kind() != Kind::Mainloop {
        // SAFETY: a greenlet in a raw switch is suspended, and in no queue. Only the main loop is entered without a look at
        // its state.
        unsafe { control.set_state(State::Parked) };
    }
    if control.state() == State::Parked {
        Waiter::new(control, control.ticket()).wake_with(why);
    }
}

/// Queues a green thread whose start time has come. Does nothing if it is not delayed any more.
pub(crate) fn start_delayed(control: ControlRef) {
    if control.state() == State::Delayed {
        // SAFETY: a delayed greenlet has not begun, and is in no queue.
        unsafe { start(control) };
    }
}

/// Lets every other ready greenlet run once, then continues. Switches.
#[inline]
pub(crate) fn yield_now() -> Result<(), LoopError> {
    let me = current();
    if waiter::must_check(me) {
        waiter::may_park(me, WaitReason::Yield)?;
    }
    me.reason.set(WaitReason::Yield);
    spans::exited(me);
    // SAFETY: `me` is the running greenlet, and a subscriber does not switch.
    unsafe { thread().yield_running(me) }.inspect_err(|_| spans::entered(me))?;
    arrive(me).map(drop)
}

/// Queues an entry for a callback of the main loop, so that the callback keeps its place among the greenlets.
pub(crate) fn queue_callback() {
    let control = local::get().controls.take(Kind::Thread, Stamp::NONE);
    // SAFETY: the block was just taken, for this entry.
    unsafe { thread().push(control, State::Callback) };
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

/// Sets the budget to zero, so that each hand-off takes the checked path. Returns the budget for [`resume_hand_off`].
///
/// The caller has entered a hub before: the checked path refuses to leave a greenlet in a hub.
#[inline]
pub(crate) fn stop_hand_off() -> usize {
    let thread = thread();
    let budget = thread.budget.replace(0);
    thread.granted.set(thread.granted.get() - budget);
    budget
}

/// Undoes [`stop_hand_off`].
#[inline]
pub(crate) fn resume_hand_off(budget: usize) {
    let thread = thread();
    thread.granted.set(thread.granted.get() + budget);
    thread.budget.set(budget);
}

/// # Safety
///
/// The same as for [`start`].
#[cold]
unsafe fn refuse(control: ControlRef) {
    // SAFETY: by the contract, the greenlet is in no queue. The destructors that `cancel` runs do not queue a cancelled
    // greenlet.
    unsafe {
        cancel(control, LoopError::from(LoopErrorKind::ThreadEnding).into());
        local::get().controls.give(control);
    }
}

/// Returns how often a greenlet was run from the queue.
pub(crate) fn switches() -> u64 {
    let thread = thread();
    thread.grant(thread.budget.get());
    thread.switches.get()
}

impl RunQueue {
    /// Grants a new budget, and adds the used part of the former one to the count of switches.
    #[inline]
    fn grant(&self, budget: usize) {
        let ran = self.granted.get() - self.budget.get();
        self.switches.set(self.switches.get() + ran as u64);
        self.granted.set(budget);
        self.budget.set(budget);
    }

    /// Adds a block to the queue, in the given state.
    ///
    /// # Safety
    ///
    /// The block is in no queue, and the state is the true one. A running greenlet is left before anything else runs.
    #[inline]
    unsafe fn push(&self, control: ControlRef, state: State) {
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
    fn pop(&self, head: ControlRef) {
        // SAFETY: the block leaves the queue, and the head becomes the one behind it.
        let next = unsafe { head.set_next(None) };
        self.head.set(next);
        if next.is_none() {
            self.tail.set(None);
        }
        self.ready.set(self.ready.get() - 1);
    }

    /// Removes `head`, the head of the queue, which does not run. The removal is charged to the turn, but is no switch.
    fn pop_unrun(&self, head: ControlRef) {
        self.pop(head);
        if self.budget.get() != 0 {
            self.budget.set(self.budget.get() - 1);
            self.granted.set(self.granted.get() - 1);
        }
    }

    /// Removes `head`, the head of the queue, which is cancelled.
    #[cold]
    #[inline(never)]
    fn discard_cancelled(&self, local: &Local, head: ControlRef) {
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

    /// Parks `me` until it is woken.
    ///
    /// # Panics
    ///
    /// Panics if `me` is not the running greenlet.
    #[inline]
    pub(super) fn park(&self, me: ControlRef) -> Result<(), LoopError> {
        assert!(self.current.get() == Some(me), "a greenlet begins a park of another greenlet");
        // SAFETY: `me` is the running greenlet, and is parked and left.
        unsafe {
            me.set_state(State::Parked);
            self.leave::<false>(me)
        }
    }

    /// Like [`yield_running`](RunQueue::yield_running), without the safety condition.
    fn yield_current(&self) -> Result<(), LoopError> {
        // SAFETY: this is the running greenlet.
        unsafe { self.yield_running(current()) }
    }

    /// Queues the running greenlet behind the ready ones, and leaves it.
    ///
    /// # Safety
    ///
    /// `me` is the running greenlet.
    #[inline]
    unsafe fn yield_running(&self, me: ControlRef) -> Result<(), LoopError> {
        if self.budget.get() == 0 && !self.renew() {
            self.launch_mainloop()?;
        }
        me.set_wake(Wake::Event);
        // SAFETY: `me` is the running greenlet, which is in no queue. It is queued and left.
        unsafe {
            self.push(me, State::Ready);
            self.leave::<true>(me)
        }
    }

    /// Leaves the running greenlet for the next one.
    ///
    /// # Safety
    ///
    /// `me` is the running greenlet. It is queued if `QUEUED`, and parked otherwise.
    #[inline]
    unsafe fn leave<const QUEUED: bool>(&self, me: ControlRef) -> Result<(), LoopError> {
        if let Some(next) = self.head.get()
            && next.state() == State::Ready
            && (self.budget.get() != 0 || self.renew())
        {
            self.pop(next);
            self.budget.set(self.budget.get() - 1);
            // SAFETY: `next` was just taken out of the queue. If it is `me`, that runs on. Otherwise it is suspended, and
            // `me` is running, and parked or queued. A parked greenlet is not in the queue, so it is not `next`.
            unsafe {
                if QUEUED && next == me {
                    me.set_state(State::Running);
                } else {
                    self.switch(me, next);
                }
            }
            return Ok(());
        }
        // SAFETY: by the contract.
        unsafe { self.leave_slowly(me) }
    }

    /// # Safety
    ///
    /// `me` is the running greenlet, and parked or queued.
    #[cold]
    #[inline(never)]
    unsafe fn leave_slowly(&self, me: ControlRef) -> Result<(), LoopError> {
        let local = local::get();
        let mainloop = match self.mainloop(local) {
            Ok(mainloop) => mainloop,
            Err(error) => {
                // A masked wait lends its frame, so it lasts while anything can run. Other waits return the error.
                // In a hub nothing may be entered.
                if me.is_masked()
                    && !local.main_loop.in_hub()
                    && let Some(next) = self.successor_of_masked(local)
                {
                    // SAFETY: `next` is suspended or fresh, and was just taken out of the queue. `me` is parked, since a yield
                    // has checked for a main loop, so it is not `next`.
                    unsafe { self.switch(me, next) };
                    return Ok(());
                }
                // A yield has checked for a main loop before it queued `me`, so `me` is parked here. No wake-up can reach
                // this park any more, so it is undone.
                debug_assert_eq!(me.state(), State::Parked, "a queued greenlet leaves without a main loop");
                me.advance_ticket();
                me.set_wake(Wake::Event);
                // SAFETY: `me` was not left.
                unsafe { me.set_state(State::Running) };
                return Err(error);
            }
        };
        while let Some(next) = self.head.get()
            && (self.budget.get() != 0 || self.renew())
        {
            match next.state() {
                State::Cancelled => {
                    self.discard_cancelled(local, next);
                    continue;
                }
                State::Unstarted => {
                    // The main loop tries again to take a stack. If that fails too, it cancels the greenlet.
                    if give_stack(local, next).is_err() {
                        break;
                    }
                }
                State::Ready => {}
                _ => break,
            }
            self.pop(next);
            self.budget.set(self.budget.get() - 1);
            // SAFETY: `next` was just taken out of the queue. If it is `me`, that runs on. Otherwise it is suspended or
            // fresh, and `me` is parked or queued.
            unsafe {
                if next == me {
                    me.set_state(State::Running);
                } else {
                    self.switch(me, next);
                }
            }
            return Ok(());
        }
        // SAFETY: the main loop is suspended or fresh whenever another greenlet runs, and never queued.
        unsafe { self.switch(me, mainloop) };
        Ok(())
    }

    /// Takes the greenlet to run after a masked one where no main loop can be launched. `None` if none can run.
    ///
    /// There is no budget without a main loop, so none is asked for.
    #[cold]
    fn successor_of_masked(&self, local: &Local) -> Option<ControlRef> {
        while let Some(next) = self.head.get() {
            match next.state() {
                State::Cancelled => {
                    self.discard_cancelled(local, next);
                    continue;
                }
                State::Unstarted => give_stack(local, next).ok()?,
                State::Ready => {}
                _ => return None,
            }
            self.pop(next);
            self.switches.set(self.switches.get() + 1);
            return Some(next);
        }
        None
    }

    /// Leaves `me` and enters `next`. Returns when another greenlet enters `me`.
    ///
    /// # Safety
    ///
    /// `next` must be suspended or fresh, in no queue, and not `me`. `me` must be the running greenlet, in a state from
    /// which it will be entered again.
    #[inline]
    pub(super) unsafe fn switch(&self, me: ControlRef, next: ControlRef) {
        // SAFETY: `next` is suspended or fresh, by the contract, and is entered here by the context that is taken out.
        // Control blocks are never unmapped while their thread runs, so the place for the context of `me` is valid.
        unsafe {
            next.set_state(State::Running);
            self.current.set(Some(next));
            switch::jump(next.take_context(), me.context_place());
        }
    }

    #[cold]
    #[inline(never)]
    fn launch_mainloop(&self) -> Result<(), LoopError> {
        self.mainloop(local::get()).map(drop)
    }

    /// Returns the main loop, and launches it if needed.
    fn mainloop(&self, local: &Local) -> Result<ControlRef, LoopError> {
        if local.main_loop.in_hub() {
            return Err(LoopError::in_mainloop("a wait in a hub or while a queue orders its items"));
        }
        if let Some(mainloop) = local.mainloop.get() {
            return Ok(mainloop);
        }
        let stack = local.take_stack(local.main_loop.stack_size())?;
        let mainloop = local.controls.take(Kind::Mainloop, Stamp::NONE);
        // SAFETY: the stack was just taken, and is entered by this context only. The main loop is fresh, and in no queue.
        unsafe {
            mainloop.set_stack(stack);
            mainloop.set_context(local::enter_stack(stack));
            mainloop.set_state(State::Switched);
        }
        local.mainloop.set(Some(mainloop));
        Ok(mainloop)
    }
}

/// Takes a stack for a green thread that is about to begin.
#[inline]
fn give_stack(local: &Local, control: ControlRef) -> Result<(), LoopError> {
    let stack = local.take_stack(requested_size(control))?;
    // SAFETY: the stack was just taken, and is entered by this context only.
    unsafe {
        control.set_stack(stack);
        control.set_context(local::enter_stack(stack));
    }
    Ok(())
}

/// Runs the current greenlet, and then each next one that may run on the same stack. Never unwinds. For `root`.
///
/// Returns the context to enter next, and the cell for the context of this stack.
pub(super) fn run_current() -> (usize, *const Cell<usize>) {
    let local = local::get();
    let thread = thread();
    loop {
        let me = current();
        let size = requested_size(me);
        let next = match me.kind() {
            Kind::Thread => {
                run_task(me);
                None
            }
            Kind::Mainloop => {
                let goes_on = local.main_loop.run(local);
                local.mainloop.set(None);
                // The next blocking call launches a new loop.
                thread.end_turns();
                // Without a loop the ready greenlets would run until none is left.
                if goes_on { thread.mainloop(local).ok() } else { None }
            }
            Kind::Raw => super::raw::run_raw(me),
            Kind::Main => unreachable!("the main greenlet has the thread's own stack"),
        };
        // After a plain greenlet the successor is chosen already, and foreign code must not run before the jump. None does
        // here: `run_raw` has dropped the locals and cleared the exits, its spans have ended with its body, and a kill that
        // has come since contains no value of the program.
        me.drop_cold();
        // SAFETY: the body of `me` has returned. This loop runs on the stack, and lends it again or gives it back.
        let stack = unsafe { me.take_stack() }.expect("a greenlet that runs here was lent this stack");
        // SAFETY: the body of the running greenlet has returned, and `drop_cold` has run the last foreign code. A running
        // greenlet is in no queue.
        unsafe { local.controls.give(me) };

        let next = match next {
            // `me` is the main loop, which the main greenlet has entered to end it.
            _ if thread.ended.get() => local.main,
            Some(next) => next,
            None => thread.successor(local, size).unwrap_or_else(|| thread.mainloop_after(local, size)),
        };
        if next.state() == State::Unstarted {
            // SAFETY: `next` was just taken out of the queue, and begins on this stack in the next round.
            unsafe {
                next.set_state(State::Running);
                next.set_stack(stack);
            }
            thread.current.set(Some(next));
            continue;
        }
        thread.current.set(Some(next));
        // SAFETY: `next` is suspended or fresh, in no queue, and is entered by the caller.
        let context = unsafe {
            next.set_state(State::Running);
            next.take_context()
        };
        // SAFETY: the body has returned and nothing of it is on the stack. No other code can take the stack before the
        // jump leaves it.
        unsafe { local.stacks.give(stack) };
        // SAFETY: headers outlive the use of their stack and never move.
        return (context, unsafe { &raw const (*stack.as_ptr()).context });
    }
}

impl RunQueue {
    /// Returns the main loop, to run after an ended greenlet.
    ///
    /// A new main loop begins on the same stack if that has the size that the loop needs, or if there is no other stack
    /// and the hub asks for no larger one.
    fn mainloop_after(&self, local: &Local, size: Option<usize>) -> ControlRef {
        if let Some(mainloop) = local.mainloop.get() {
            return mainloop;
        }
        let needed = local.main_loop.stack_size();
        // A stack of another size may be too small for the loop and the code it calls.
        if size != needed {
            match self.mainloop(local) {
                Ok(mainloop) => return mainloop,
                Err(error) if needed.is_some() => {
                    // No greenlet is ready, so the main greenlet is parked or switched away. It gets the error.
                    local.main_loop.fail_main(error);
                    if let Some(main) = self.successor(local, size) {
                        return main;
                    }
                }
                Err(_) => {}
            }
        }
        let mainloop = local.controls.take(Kind::Mainloop, Stamp::NONE);
        // SAFETY: a new greenlet, which is entered by the caller instead of being queued.
        unsafe { mainloop.set_state(State::Unstarted) };
        local.mainloop.set(Some(mainloop));
        mainloop
    }

    /// Returns the greenlet to run after an ended one, or `None` for the main loop.
    ///
    /// The greenlet is ready, or has not begun and may use the same stack. In the latter case its state is Unstarted.
    #[inline(always)]
    fn successor(&self, local: &Local, size: Option<usize>) -> Option<ControlRef> {
        while let Some(next) = self.head.get() {
            match next.state() {
                // Without a main loop, the queue is served even if the budget is used up: the main greenlet must get
                // the error of the ended loop.
                _ if self.budget.get() == 0 && local.mainloop.get().is_some() && !self.renew() => return None,
                State::Cancelled => {
                    self.discard_cancelled(local, next);
                    continue;
                }
                State::Ready => {}
                State::Unstarted => {
                    if requested_size(next) != size {
                        if give_stack(local, next).is_err() {
                            return None;
                        }
                        // SAFETY: `next` has a stack of its own now, and is entered like a suspended greenlet.
                        unsafe { next.set_state(State::Ready) };
                    }
                }
                _ => return None,
            }
            self.pop(next);
            match self.budget.get() {
                0 => self.switches.set(self.switches.get() + 1),
                budget => self.budget.set(budget - 1),
            }
            return Some(next);
        }
        None
    }
}

/// Returns the stack size that a green thread was spawned with, if it was not the default.
#[inline]
fn requested_size(control: ControlRef) -> Option<usize> {
    // SAFETY: a greenlet that is about to begin or has just begun keeps its cell. Nothing runs meanwhile.
    let task = unsafe { control.task.get() }?;
    task.stack_size()
}

fn run_task(me: ControlRef) {
    // SAFETY: the greenlet keeps the cell until `finish`, after which the value is not used.
    let Some(task) = (unsafe { me.task.get() }) else { return };
    spans::entered(me);
    // SAFETY: the cell belongs to the running greenlet, which the queue has entered once. A cell that is cancelled loses
    // its greenlet.
    unsafe { task.run() };
    me.task.clear();
    // A signal handler that reads `task` here finds `None` or a live task.
    compiler_fence(Ordering::SeqCst);
    // Pending exits concerned the body. Links and destructors may block again.
    me.clear_exits();
    me.drop_locals();
    // SAFETY: `run` has stored the result. The greenlet refers to the cell no more, so nothing else finishes it.
    unsafe { task.finish() };
}

/// Reports a callback that panicked. The loop continues.
pub(crate) fn report_callback(operation: &'static str, error: GreenError) {
    report::tell(Report::CallbackFailed { operation, error });
}

impl RunQueue {
    /// Runs the head of the queue, and the greenlets that follow by hand-off. For the main loop.
    ///
    /// Returns false if the head is a callback that is due only in the next turn.
    #[inline(always)]
    fn run_head(&self, local: &Local, head: ControlRef) -> bool {
        match head.state() {
            State::Callback => {
                if !local.main_loop.callback_is_due() {
                    return false;
                }
                self.pop_unrun(head);
                // SAFETY: the entry of a callback, which was just taken out of the queue.
                unsafe { local.controls.give(head) };
                local.main_loop.run_callback();
                return true;
            }
            State::Cancelled => {
                self.discard_cancelled(local, head);
                return true;
            }
            State::Unstarted => {
                if let Err(error) = give_stack(local, head) {
                    self.pop_unrun(head);
                    // SAFETY: `head` has not begun, and was just taken out of the queue. A cancelled greenlet is not
                    // queued again.
                    unsafe {
                        cancel(head, error.into());
                        local.controls.give(head);
                    }
                    return true;
                }
            }
            _ => {}
        }
        let me = current();
        self.pop(head);
        self.budget.set(self.budget.get() - 1);
        // SAFETY: `head` is suspended or fresh and was just taken out of the queue. The main loop is left, and entered by
        // a greenlet that finds nothing to run.
        unsafe {
            me.set_state(State::Switched);
            self.switch(me, head);
        }
        true
    }

    /// Returns the running greenlet, if the OS thread has one.
    #[inline]
    pub(super) fn running(&self) -> Option<ControlRef> {
        self.current.get()
    }

    /// # Safety
    ///
    /// The greenlet is the running one.
    pub(super) unsafe fn set_current(&self, control: ControlRef) {
        self.current.set(Some(control));
    }

    pub(super) fn forget_late(&self) {
        self.late.set(None);
        self.current.set(None);
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

/// Empties the run queue, and abandons the given greenlets if they are suspended: nothing wakes or enters them again.
pub(crate) fn abandon(local: &Local, greenlets: &[ControlRef]) {
    clear_queue(local);
    for control in greenlets.iter().filter(|control| control.is_alive() && control.is_suspended()) {
        local.futures.forget(control.number());
        // SAFETY: the greenlet is suspended. The queue is empty, so it is in none.
        unsafe { control.set_state(State::Abandoned) };
        control.advance_ticket();
    }
}

/// Lets the main loop of an ended OS thread return, so that its stack is free.
///
/// # Safety
///
/// The main greenlet runs. The OS thread is marked as ended, its loop is closed, and its run queue is empty.
pub(super) unsafe fn end_mainloop(local: &Local) {
    if let Some(mainloop) = local.mainloop.get() {
        // SAFETY: the main greenlet runs this, by the contract, and is left. The main loop is suspended and in no queue.
        // It runs nothing else, because the queue is empty, and returns, because the loop is closed. In an ended thread
        // the greenlet that returns goes to the main greenlet.
        unsafe {
            local.main.set_state(State::Switched);
            thread().switch(local.main, mainloop);
        }
    }
}

/// Marks `me` as a main greenlet, because the OS thread ends on the stack of `me`.
///
/// Every park of a main greenlet takes the checked path, which refuses parks on an ended OS thread.
pub(super) fn end_here(me: ControlRef) {
    me.become_main();
}
