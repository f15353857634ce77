//! The hand-off: a greenlet that parks or yields switches to the next ready one, or to the main loop.
//!
//! Ground rules: those of the [run queue](super).

use super::super::control::{ControlRef, Kind, State, Wake};
use super::super::driver::Driver;
use super::super::local::{self, Local};
use super::super::switch;
use super::queue::{RunQueue, current, thread};
use super::stack_loop::enter_stack;
use crate::error::LoopError;
use crate::hub::Stamp;

impl RunQueue {
    /// Parks `me` until it is woken.
    ///
    /// # Panics
    ///
    /// Panics if `me` is not the running greenlet.
    #[inline(always)]
    pub(in super::super) fn park(&self, me: ControlRef) -> Result<(), LoopError> {
        assert!(self.running() == Some(me), "a greenlet begins a park of another greenlet");
        // SAFETY: `me` is the running greenlet, and is parked and left.
        unsafe {
            me.set_state(State::Parked);
            self.leave::<false>(me)
        }
    }

    /// Like [`yield_running`](RunQueue::yield_running), without the safety condition.
    pub(super) fn yield_current(&self) -> Result<(), LoopError> {
        // SAFETY: this is the running greenlet.
        unsafe { self.yield_running(current()) }
    }

    /// Queues the running greenlet behind the ready ones, and leaves it.
    ///
    /// # Safety
    ///
    /// `me` is the running greenlet.
    #[inline(always)]
    pub(super) unsafe fn yield_running(&self, me: ControlRef) -> Result<(), LoopError> {
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
    #[inline(always)]
    unsafe fn leave<const QUEUED: bool>(&self, me: ControlRef) -> Result<(), LoopError> {
        if let Some(next) = self.head.get()
            && next.state() == State::Ready
            && (self.budget.get() != 0 || self.renew())
        {
            self.pop(next);
            self.budget.set(self.budget.get() - 1);
            // SAFETY: `next` was just taken out of the queue. If it is `me`, that runs on. Otherwise it is suspended,
            // and `me` is running, and parked or queued. A parked greenlet is not in the queue, so it is not `next`.
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
        let mainloop = match self.main_loop_greenlet(local) {
            Ok(mainloop) => mainloop,
            Err(error) => {
                // A masked wait lends its frame, so it lasts while anything can run. Other waits return the error.
                // In a hub nothing may be entered.
                if me.is_masked()
                    && !local.main_loop.in_hub()
                    && let Some(next) = self.successor_of_masked(local)
                {
                    // SAFETY: `next` is suspended or fresh, and was just taken out of the queue. `me` is parked, since
                    // a yield has checked for a main loop, so it is not `next`.
                    unsafe { self.switch(me, next) };
                    return Ok(());
                }
                // A yield has checked for a main loop before it queued `me`, so `me` is parked here. No wake-up can
                // reach this park any more, so it is undone.
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
    #[inline(always)]
    pub(in super::super) unsafe fn switch(&self, me: ControlRef, next: ControlRef) {
        // SAFETY: `next` is suspended or fresh, by the contract, and is entered here by the context that is taken out.
        // Control blocks are never unmapped while their OS thread runs, so the place for the context of `me` is valid.
        unsafe {
            next.set_state(State::Running);
            self.set_current(next);
            switch::jump(next.take_context(), me.context_place());
        }
    }

    #[cold]
    #[inline(never)]
    fn launch_mainloop(&self) -> Result<(), LoopError> {
        self.main_loop_greenlet(local::get()).map(drop)
    }

    /// Returns the main loop, and launches it if needed.
    #[inline]
    pub(super) fn main_loop_greenlet(&self, local: &Local) -> Result<ControlRef, LoopError> {
        match local.main_loop_greenlet.get() {
            Some(mainloop) if !local.main_loop.in_hub() => Ok(mainloop),
            _ => self.new_mainloop(local),
        }
    }

    /// Launches the main loop. Fails in a hub, where nothing may be left, also if there is a main loop.
    #[cold]
    fn new_mainloop(&self, local: &Local) -> Result<ControlRef, LoopError> {
        if local.main_loop.in_hub() {
            return Err(LoopError::in_mainloop("a wait in a hub or while a queue orders its items"));
        }
        let stack = local.take_stack(local.main_loop.stack_size())?;
        let mainloop = local.controls.take(Kind::MainLoop, Stamp::NONE);
        // SAFETY: the stack was just taken, and is entered by this context only. The main loop is fresh, and in no
        // queue.
        unsafe {
            mainloop.set_stack(stack);
            mainloop.set_context(enter_stack(stack));
            mainloop.set_state(State::Switched);
        }
        local.main_loop_greenlet.set(Some(mainloop));
        Ok(mainloop)
    }
}

/// Takes a stack for a green thread that is about to begin.
#[inline]
pub(super) fn give_stack(local: &Local, control: ControlRef) -> Result<(), LoopError> {
    let stack = local.take_stack(requested_size(control))?;
    // SAFETY: the stack was just taken, and is entered by this context only.
    unsafe {
        control.set_stack(stack);
        control.set_context(enter_stack(stack));
    }
    Ok(())
}

/// Returns the stack size that a green thread was spawned with, if it was not the default.
#[inline]
pub(super) fn requested_size(control: ControlRef) -> Option<usize> {
    // SAFETY: a greenlet that is about to begin or has just begun keeps its cell. Nothing runs meanwhile.
    let task = unsafe { control.task.get() }?;
    task.stack_size()
}

/// Lets the main loop of an ended OS thread return, so that its stack is free.
///
/// # Safety
///
/// The main greenlet runs. The OS thread is marked as ended, its loop is closed, and its run queue is empty.
pub(crate) unsafe fn end_mainloop(local: &Local) {
    if let Some(mainloop) = local.main_loop_greenlet.get() {
        // SAFETY: the main greenlet runs this, by the contract, and is left. The main loop is suspended and in no
        // queue. It runs nothing else, because the queue is empty, and returns, because the loop is closed. In an ended
        // OS thread the greenlet that returns goes to the main greenlet.
        unsafe {
            local.main.set_state(State::Switched);
            thread().switch(local.main, mainloop);
        }
    }
}
