//! The life of a cell: its closure runs and leaves a result, its links run, its waiters are woken, and it is freed.
//!
//! Ground rules: those of the [module above](super).

use super::super::control::State;
use super::super::exit::{contained, drop_contained};
use super::super::local::{self, Local};
use super::super::run::queue::current;
use super::super::trace;
use super::cell::{ALIVE, DONE, HANDLE, PINNED, RESULT, SEEN, STARTED, TaskRef};
use super::untaken::Failure;
use crate::error::GreenError;
use crate::report::{self, Report};

impl TaskRef {
    /// Runs the closure and stores its result. Never unwinds.
    ///
    /// # Safety
    ///
    /// The cell has not started, and nothing else starts it: the caller is its greenlet, or has taken the greenlet
    /// away.
    #[inline]
    pub(in super::super) unsafe fn run(&self) {
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
    pub(in super::super) unsafe fn fail(&self, error: GreenError) {
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
    pub(in super::super) unsafe fn abandon(&self, error: GreenError) {
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
    // Always: LLVM keeps a call for so many callers, and one of them is the end of every green thread.
    #[inline(always)]
    pub(in super::super) unsafe fn finish(&self) {
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
        extra.linking.set(Some(current()));
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
    pub(super) unsafe fn release(&self) {
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
    pub(super) unsafe fn free(self) {
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
        unsafe { local::give_task(self.0.cast(), header.class, header.vtable.layout) };
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
}
