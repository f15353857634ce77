//! The loop of a stack: it runs one body after another, each of which leaves the stack as it was.
//!
//! Ground rules: those of the [run queue](super).

use std::cell::Cell;

use super::super::control::{ControlRef, Kind, State};
use super::super::describe;
use super::super::driver::Driver;
use super::super::local::{self, Local};
use super::super::overflow;
use super::super::raw::route::run_raw;
use super::super::stack::StackRef;
use super::super::switch::{self, Root};
use super::ending::run_task;
use super::hand_off::{give_stack, requested_size};
use super::queue::{RunQueue, current, thread};
use crate::hub::Stamp;

/// Returns the context that enters a stack: that of the root loop at rest on it, or a fresh one.
///
/// # Safety
///
/// The stack was just taken from the pool of this OS thread, so it has no root, or a root at rest. It is entered once
/// until it is given back.
#[inline]
pub(in super::super) unsafe fn enter_stack(stack: StackRef) -> usize {
    // SAFETY: stack headers are never freed while their OS thread's state exists.
    match unsafe { stack.as_ref() }.context.replace(0) {
        0 => {
            overflow::set_describe(describe::write_owner);
            // SAFETY: without a root at rest nothing is on the stack, by the contract.
            unsafe { switch::fresh::<StackLoop>(stack) }
        }
        context => context,
    }
}

/// The root of every stack.
struct StackLoop;

impl Root for StackLoop {
    fn run() -> (usize, *const Cell<usize>) {
        run_current()
    }
}

/// Runs the current greenlet, and then each next one that may run on the same stack. Never unwinds.
///
/// Returns the context to enter next, and the cell for the context of this stack.
fn run_current() -> (usize, *const Cell<usize>) {
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
            Kind::MainLoop => {
                let goes_on = local.main_loop.run();
                local.main_loop_greenlet.set(None);
                // The next blocking call launches a new loop.
                thread.end_turns();
                // Without a loop the ready greenlets would run until none is left.
                if goes_on { thread.main_loop_greenlet(local).ok() } else { None }
            }
            Kind::Raw => run_raw(me),
            Kind::Main => unreachable!("the main greenlet has the OS thread's own stack"),
        };
        // After a plain greenlet the successor is chosen already, and foreign code must not run before the jump. None
        // does here: `run_raw` has dropped the locals and cleared the exits, its spans have ended with its body, and a
        // kill that has come since contains no value of the program.
        me.drop_cold();
        // SAFETY: the body of `me` has returned. This loop runs on the stack, and lends it again or gives it back.
        let stack = unsafe { me.take_stack() }.expect("a greenlet that runs here was lent this stack");
        // SAFETY: the body of the running greenlet has returned, and `drop_cold` has run the last foreign code. A
        // running greenlet is in no queue.
        unsafe { local.controls.give(me) };

        let next = match next {
            // `me` is the main loop, which the main greenlet has entered to end it.
            _ if thread.has_ended() => local.main,
            Some(next) => next,
            None => thread.successor(local, size).unwrap_or_else(|| thread.mainloop_after(local, size)),
        };
        if next.state() == State::Unstarted {
            // SAFETY: `next` was just taken out of the queue, and begins on this stack in the next round.
            unsafe {
                next.set_state(State::Running);
                next.set_stack(stack);
                thread.set_current(next);
            }
            continue;
        }
        // SAFETY: `next` is suspended or fresh, in no queue, and is entered by the caller.
        let context = unsafe {
            thread.set_current(next);
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
        if let Some(mainloop) = local.main_loop_greenlet.get() {
            return mainloop;
        }
        let needed = local.main_loop.stack_size();
        // A stack of another size may be too small for the loop and the code it calls.
        if size != needed {
            match self.main_loop_greenlet(local) {
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
        let mainloop = local.controls.take(Kind::MainLoop, Stamp::NONE);
        // SAFETY: a new greenlet, which is entered by the caller instead of being queued.
        unsafe { mainloop.set_state(State::Unstarted) };
        local.main_loop_greenlet.set(Some(mainloop));
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
                _ if self.budget.get() == 0 && local.main_loop_greenlet.get().is_some() && !self.renew() => {
                    return None;
                }
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
