//! The cold state of a control block, which most greenlets never need: pending exits, local values, spans, the node of
//! a plain greenlet.
//!
//! Ground rules:
//! - [`ColdState`] belongs to one use of a control block. It is made when it is first needed. Only `take_cold` frees
//!   it, when the greenlet has ended. No `RefCell` in it is borrowed, and no reference to it is kept, while foreign
//!   code runs or greenlets switch. So all methods take and return values.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;

#[cfg(feature = "tracing")]
use tracing::Span;

use super::control::{ControlRef, State};
use super::exit::{Exit, KillProgress, drop_contained};
use super::locals::Locals;
use super::raw::node::Switching;
use crate::error::ExitKind;
use crate::timer_queue::TimerId;

/// A pending exit of a greenlet, and how often it was thrown and swallowed.
struct Pending {
    exit: Exit,
    throws: u32,
}

/// The part of a control block that most greenlets never need.
#[derive(Default)]
pub(crate) struct ColdState {
    /// The pending exits, in the order in which they are thrown.
    pending: RefCell<Vec<Pending>>,
    /// The number of throws of exits so far.
    thrown: Cell<u64>,
    /// The number of kills given up.
    refused_kills: Cell<u32>,
    /// Whether it was reported that an exit was given up.
    reported: Cell<bool>,
    /// The patience timer, which ends a wait for a lock with the exit that the wait holds back.
    patience_timer: Cell<Option<TimerId>>,
    switching: Switching,
    locals: Locals,
    #[cfg(feature = "tracing")]
    spans: Spans,
}

/// The state of spans in a control block.
#[cfg(feature = "tracing")]
#[derive(Default)]
struct Spans {
    /// From the outermost span inwards. Taken out during calls of a subscriber.
    stack: RefCell<Vec<Span>>,
    /// Whether the spans are exited.
    away: Cell<bool>,
}

#[cfg(feature = "tracing")]
impl Spans {
    fn has_any(&self) -> bool {
        !self.stack.borrow().is_empty()
    }

    fn take(&self) -> Vec<Span> {
        self.stack.take()
    }

    fn put(&self, stack: Vec<Span>) -> Vec<Span> {
        self.stack.replace(stack)
    }

    fn push(&self, span: Span) {
        self.stack.borrow_mut().push(span);
    }

    fn pop(&self) -> Option<Span> {
        self.stack.borrow_mut().pop()
    }

    fn set_away(&self, away: bool) -> bool {
        self.away.replace(away)
    }
}

/// The place of a control block for its cold state. Only this module uses the content.
#[repr(transparent)]
pub(super) struct ColdSlot(Cell<Option<NonNull<ColdState>>>);

impl ColdSlot {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    #[cold]
    fn make(&self) -> NonNull<ColdState> {
        let cold = NonNull::from(Box::leak(Box::new(ColdState::default())));
        self.0.set(Some(cold));
        cold
    }
}

impl ControlRef {
    /// Adds an exit. It takes effect when the greenlet next arrives from a park without a mask.
    ///
    /// The first kill stays, and a second one is returned. Dropping its error is foreign code, after which the caller
    /// must read the state of the greenlet again.
    pub(crate) fn set_exit(self, exit: Exit) -> Option<Exit> {
        // SAFETY: no foreign code runs here.
        let mut pending = unsafe { self.cold() }.pending.borrow_mut();
        match exit {
            Exit::Kill(_) if pending.first().is_some_and(Pending::is_kill) => return Some(exit),
            // A kill goes before all exits of scopes.
            Exit::Kill(_) => pending.insert(0, Pending { exit, throws: 0 }),
            Exit::Timeout { .. } | Exit::Linked { .. } => pending.push(Pending { exit, throws: 0 }),
        }
        self.note_exit(true);
        None
    }

    /// Removes the pending exit of a scope that has ended or has caught the exit.
    pub(crate) fn clear_scope(self, number: u64) {
        self.take_back(|pending| pending.exit.scope() == Some(number));
    }

    /// Removes the first pending exit for which `is_it` returns true.
    fn take_back(self, is_it: impl FnMut(&Pending) -> bool) {
        // SAFETY: the callers pass code of this module. Foreign code runs only after the last use of the reference.
        let Some(cold) = (unsafe { self.try_cold() }) else { return };
        let mut pending = cold.pending.borrow_mut();
        let place = pending.iter().position(is_it);
        let taken = place.map(|place| pending.remove(place));
        self.note_exit(!pending.is_empty());
        drop(pending);
        // The exit may contain an error of the program.
        drop_contained(taken);
    }

    /// Returns how often the next exit was thrown.
    ///
    /// The next exit is the first that no shield holds back. It is thrown as soon as no mask is in force.
    pub(super) fn throws(self) -> Option<u32> {
        if !self.has_exit() {
            return None;
        }
        // SAFETY: no foreign code runs here.
        let pending = unsafe { self.try_cold() }?.pending.borrow();
        pending.iter().find(|pending| self.is_due(pending)).map(|pending| pending.throws)
    }

    /// Returns the next exit, and counts a throw.
    pub(super) fn next_throw(self) -> Option<Exit> {
        // SAFETY: no foreign code runs here. The clone of an error of the program counts a reference.
        let cold = unsafe { self.try_cold() }?;
        let mut pending = cold.pending.borrow_mut();
        let next = pending.iter_mut().find(|pending| self.is_due(pending))?;
        next.throws += 1;
        cold.thrown.set(cold.thrown.get() + 1);
        Some(next.exit.clone())
    }

    /// Returns the next exit, to continue it after it was caught on its way. It does not count as swallowed.
    pub(super) fn next_again(self) -> Option<Exit> {
        // SAFETY: as in `next_throw`.
        let pending = unsafe { self.try_cold() }?.pending.borrow();
        pending.iter().find(|pending| self.is_due(pending)).map(|pending| pending.exit.clone())
    }

    /// Returns the number of throws of exits so far.
    pub(crate) fn thrown(self) -> u64 {
        // SAFETY: no foreign code runs here.
        unsafe { self.try_cold() }.map_or(0, |cold| cold.thrown.get())
    }

    /// Gives up the next exit, because the greenlet has swallowed it too often.
    ///
    /// Returns the kind of the exit, at the first time for this greenlet.
    pub(super) fn give_up_exit(self) -> Option<ExitKind> {
        // SAFETY: no foreign code runs before the last use of the reference.
        let cold = unsafe { self.try_cold() }?;
        let kind = cold.pending.borrow().iter().find(|pending| self.is_due(pending))?.exit.kind();
        if kind == ExitKind::Kill {
            cold.refused_kills.set(cold.refused_kills.get() + 1);
        }
        let reported = cold.reported.replace(true);
        // May drop an error of the program.
        self.take_back(|pending| self.is_due(pending));
        (!reported).then_some(kind)
    }

    /// Returns how many kills this greenlet has refused.
    pub(crate) fn refused_kills(self) -> u32 {
        // SAFETY: no foreign code runs here.
        unsafe { self.try_cold() }.map_or(0, |cold| cold.refused_kills.get())
    }

    /// Returns the progress of the kill of this greenlet.
    pub(crate) fn kill_progress(self) -> KillProgress {
        if !self.has_exit() {
            return if self.refused_kills() == 0 { KillProgress::None } else { KillProgress::Refused };
        }
        // SAFETY: no foreign code runs here.
        match unsafe { self.cold() }.pending.borrow().first() {
            Some(first) if first.is_kill() => {
                let strikes = self.is_due(first) && !self.is_masked() && self.state() == State::Ready;
                if strikes { KillProgress::Striking } else { KillProgress::HeldBack }
            }
            _ if self.refused_kills() == 0 => KillProgress::None,
            _ => KillProgress::Refused,
        }
    }

    /// Returns the first of the pending exits, held back or not.
    pub(super) fn held_exit(self) -> Option<Exit> {
        if !self.has_exit() {
            return None;
        }
        // SAFETY: as in `next_throw`.
        unsafe { self.try_cold() }?.pending.borrow().first().map(|pending| pending.exit.clone())
    }

    /// Returns whether an exit is pending that no shield holds back.
    pub(crate) fn has_pending_exit(self) -> bool {
        self.throws().is_some()
    }

    fn is_due(self, pending: &Pending) -> bool {
        !self.is_shielded_from(&pending.exit)
    }

    /// Returns whether a shield holds `exit` back.
    pub(crate) fn is_shielded_from(self, exit: &Exit) -> bool {
        exit.shields() < self.shields()
    }

    /// Replaces the patience timer, and returns the former one.
    pub(super) fn replace_patience_timer(self, timer: Option<TimerId>) -> Option<TimerId> {
        // SAFETY: no foreign code runs here.
        unsafe { self.cold() }.patience_timer.replace(timer)
    }

    /// Removes all pending exits.
    #[inline]
    pub(super) fn clear_exits(self) {
        self.note_exit(false);
        if !self.cold.is_empty() {
            self.forget_pending();
        }
    }

    #[cold]
    fn forget_pending(self) {
        // SAFETY: the reference ends before the exits are dropped, which may contain errors of the program.
        let pending = unsafe { self.cold() }.pending.take();
        drop_contained(pending);
    }

    /// Returns the state of raw switches.
    ///
    /// # Safety
    ///
    /// While the reference is used, no foreign code runs and greenlets do not switch.
    #[inline]
    pub(super) unsafe fn switching<'a>(self) -> &'a Switching {
        // SAFETY: by the contract.
        unsafe { &self.cold().switching }
    }

    /// Like [`switching`](ControlRef::switching), but returns `None` if there is no cold state.
    ///
    /// # Safety
    ///
    /// The same as for [`switching`](ControlRef::switching).
    #[inline]
    pub(super) unsafe fn try_switching<'a>(self) -> Option<&'a Switching> {
        // SAFETY: by the contract.
        unsafe { self.try_cold() }.map(|cold| &cold.switching)
    }

    /// Returns the greenlet's value of the key with this address.
    pub(crate) fn local_value(self, key: usize) -> Option<Rc<dyn Any>> {
        // SAFETY: no foreign code runs here.
        unsafe { self.try_cold() }?.locals.find(key)
    }

    /// Gives the greenlet a value of the key with this address.
    pub(crate) fn add_local_value(self, key: usize, value: Rc<dyn Any>) {
        // SAFETY: no foreign code runs here.
        unsafe { self.cold() }.locals.insert(key, value);
    }

    /// Returns whether the greenlet's local values are being dropped, so that no value is added.
    pub(crate) fn drops_local_values(self) -> bool {
        // SAFETY: no foreign code runs here.
        unsafe { self.try_cold() }.is_some_and(|cold| cold.locals.is_ending())
    }

    /// Drops the greenlet's local values, in its own context: destructors may park it.
    #[inline]
    pub(crate) fn drop_locals(self) {
        if !self.cold.is_empty() {
            self.end_locals();
        }
    }

    #[cold]
    pub(super) fn end_locals(self) {
        // SAFETY: the reference ends before the value is dropped, which is foreign code.
        while let Some(value) = unsafe { self.try_cold() }.and_then(|cold| cold.locals.end_one()) {
            drop_contained(value);
        }
        // Pending exits concerned the destructors.
        self.clear_exits();
    }

    /// Returns the cold state, made at first use.
    ///
    /// # Safety
    ///
    /// While the reference is used, no foreign code runs and greenlets do not switch: either may end the greenlet.
    #[inline]
    unsafe fn cold<'a>(self) -> &'a ColdState {
        let cold = self.cold.0.get().unwrap_or_else(|| self.cold.make());
        // SAFETY: leaked by `make` and freed only by `drop_cold`, when the greenlet has ended, which it does not
        // meanwhile.
        unsafe { cold.as_ref() }
    }

    /// Like [`cold`](ControlRef::cold), but returns `None` if there is no cold state.
    ///
    /// # Safety
    ///
    /// The same as for [`cold`](ControlRef::cold).
    #[inline]
    unsafe fn try_cold<'a>(self) -> Option<&'a ColdState> {
        // SAFETY: as in `cold`.
        self.cold.0.get().map(|cold| unsafe { cold.as_ref() })
    }

    /// Takes the cold state of a greenlet that has ended, and marks the node of a plain greenlet as dead.
    ///
    /// # Safety
    ///
    /// No reference to the state is in use.
    pub(super) unsafe fn take_cold(self) -> Option<Box<ColdState>> {
        // SAFETY: leaked in `make`, just taken out of the only cell that refers to it, and not in use by the contract.
        let cold = unsafe { Box::from_raw(self.cold.0.take()?.as_ptr()) };
        cold.switching.end();
        Some(cold)
    }
}

#[cfg(feature = "tracing")]
impl ControlRef {
    /// Returns whether the greenlet has spans, entered or not.
    pub(super) fn has_spans(self) -> bool {
        // SAFETY: no foreign code runs here.
        unsafe { self.try_cold() }.is_some_and(|cold| cold.spans.has_any())
    }

    /// Takes the greenlet's spans out, from the outermost one inwards.
    pub(super) fn take_spans(self) -> Vec<Span> {
        // SAFETY: no foreign code runs here.
        unsafe { self.try_cold() }.map_or_else(Vec::new, |cold| cold.spans.take())
    }

    /// Puts back what [`take_spans`](ControlRef::take_spans) has taken out. Spans that were added meanwhile are lost.
    pub(super) fn put_spans(self, stack: Vec<Span>) {
        // SAFETY: the reference ends before the spans are dropped, which calls a subscriber.
        let lost = unsafe { self.cold() }.spans.put(stack);
        drop(lost);
    }

    /// Adds an innermost span.
    pub(super) fn push_span(self, span: Span) {
        // SAFETY: no foreign code runs here.
        unsafe { self.cold() }.spans.push(span);
    }

    /// Removes the innermost span.
    pub(super) fn pop_span(self) -> Option<Span> {
        // SAFETY: no foreign code runs here.
        unsafe { self.try_cold() }?.spans.pop()
    }

    /// Sets whether the spans are exited, if there were any, and returns whether they were.
    pub(super) fn set_away(self, away: bool) -> bool {
        // SAFETY: no foreign code runs here.
        unsafe { self.try_cold() }.is_some_and(|cold| cold.spans.set_away(away))
    }
}

impl Pending {
    fn is_kill(&self) -> bool {
        matches!(self.exit, Exit::Kill(_))
    }
}
