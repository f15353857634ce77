//! Exits, which end a greenlet from outside, and the handling of panics.
//!
//! An exit is a flag on the control block and a reason in the cold state. The target reads the flag when it next
//! arrives from a park, and starts to unwind its own frames. No panic hook runs. If a `catch_unwind` on the way
//! swallows the exit, it is thrown again at the next park: a kill as long as the greenlet lives, the exit of a scope as
//! long as the scope is open. Between two throws the main loop takes a turn. After
//! [`MAX_THROWS`](crate::error::MAX_THROWS) throws the exit is given up.
//!
//! Ground rules:
//! - [`ColdState`] belongs to one use of a control block. It is made when it is first needed. Only `drop_cold` frees
//!   it, when the greenlet has ended. No `RefCell` in it is borrowed, and no reference to it is kept, while foreign
//!   code runs or greenlets switch. So all methods take and return values.
//! - Payloads of panics are foreign: dropping one may panic again, and is contained.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::rc::Rc;

#[cfg(feature = "tracing")]
use tracing::Span;

use super::control::{ControlRef, State};
use super::locals::Locals;
use super::raw::Switching;
use super::spans;
pub(crate) use crate::base::contain::drop_contained;
use crate::error::{ExitKind, GreenError, Linked, Panic, Timeout};
use crate::timer_queue::TimerId;

/// The reason why a greenlet has to end.
#[derive(Clone, Debug)]
pub(crate) enum Exit {
    /// Ends the whole greenlet. The error is its result.
    Kill(GreenError),
    /// Ends the scope of the timeout with this number. `shields` is the number of shields under which it was opened.
    Timeout { scope: u64, shields: u8 },
    /// Ends the scope with this number, because its linked green thread has ended. `shields` is the number of shields
    /// under which it was opened.
    Linked { scope: u64, shields: u8, linked: Linked },
}

impl Exit {
    /// Returns the scope that the exit ends.
    pub(crate) fn scope(&self) -> Option<u64> {
        match self {
            Exit::Kill(_) => None,
            Exit::Timeout { scope, .. } | Exit::Linked { scope, .. } => Some(*scope),
        }
    }

    fn kind(&self) -> ExitKind {
        match self {
            Exit::Kill(_) => ExitKind::Kill,
            Exit::Timeout { .. } => ExitKind::Timeout,
            Exit::Linked { .. } => ExitKind::Link,
        }
    }

    /// Returns the number of shields that the exit passes: those inside which its scope was opened.
    fn shields(&self) -> u8 {
        match self {
            Exit::Kill(_) => 0,
            Exit::Timeout { shields, .. } | Exit::Linked { shields, .. } => *shields,
        }
    }
}

/// The panic payload of an exit.
pub(crate) struct Payload(pub(crate) Exit);

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
    spans: spans::Spans,
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

impl From<Exit> for GreenError {
    fn from(exit: Exit) -> GreenError {
        match exit {
            Exit::Kill(error) => error,
            Exit::Timeout { scope, .. } => GreenError::Timeout(Timeout::orphan(scope)),
            Exit::Linked { linked, .. } => GreenError::Linked(linked),
        }
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
    pub(super) fn drop_locals(self) {
        if !self.cold.is_empty() {
            self.end_locals();
        }
    }

    #[cold]
    fn end_locals(self) {
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

    /// Frees the state that only this use of the block needed.
    #[inline]
    pub(super) fn drop_cold(self) {
        if !self.cold.is_empty() {
            self.free_cold();
        }
    }

    #[cold]
    fn free_cold(self) {
        // Drops values made after the body had ended, by a link, for instance.
        self.end_locals();
        spans::ended(self);
        // A pending exit may contain an error of the program, whose destructor is foreign code. The destructor may make
        // a new cold state.
        while let Some(cold) = self.cold.0.take() {
            // SAFETY: leaked in `cold`, and just taken out of the only cell that refers to it.
            let cold = unsafe { Box::from_raw(cold.as_ptr()) };
            cold.switching.end();
            drop_contained(cold);
        }
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

/// The progress of the kill of a green thread that has not ended.
///
/// It is for code that waits for the ends of many green threads.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KillProgress {
    /// The green thread was not killed.
    None,
    /// A mask, a shield or a wait for a lock holds the kill back.
    HeldBack,
    /// The kill is thrown in the next turn, for the first time or again.
    Striking,
    /// The green thread has swallowed the kill too often and lives on.
    Refused,
}

impl Pending {
    fn is_kill(&self) -> bool {
        matches!(self.exit, Exit::Kill(_))
    }
}

/// Returns whether a caught payload is an exit: a kill, a timeout or a link. Never switches.
///
/// A payload from [`catch_unwind`] is that of a panic, or an exit on its way out of the green thread or up to its
/// scope. Pass an exit to [`resume_unwind`], so that it continues. A swallowed exit is thrown again at the next wait,
/// after the main loop has taken a turn. After a hundred times it is given up and [reported](crate::Report::Refused).
/// The green thread then lives on, and [`kill`](crate::GreenThread::kill) returns
/// [`KillOutcome::Refused`](crate::KillOutcome::Refused).
///
/// # Examples
///
/// A worker that survives the panics of its jobs, and can be killed:
///
/// ```
/// use greenhub::greenthread::{KillOutcome, is_exit};
/// use greenhub::{sleep, spawn};
/// use greenhub::thread::yield_now;
/// use std::panic::{catch_unwind, resume_unwind};
/// use std::time::Duration;
/// let worker = spawn(|| {
///     loop {
///         let job = catch_unwind(|| sleep(Duration::from_secs(60)));
///         if let Err(payload) = job {
///             if is_exit(&payload) {
///                 resume_unwind(payload); // this green thread has to end
///             }
///             // The job panicked: log it, and go on with the next one.
///         }
///     }
/// });
/// yield_now();
/// assert_eq!(worker.kill(), KillOutcome::Ended);
/// ```
#[doc(alias = "GreenletExit")]
#[must_use]
pub fn is_exit(payload: &(dyn Any + Send)) -> bool {
    exit_kind(payload).is_some()
}

/// Returns the kind of exit of a caught payload, or `None` for a panic. Never switches.
///
/// See [`is_exit`].
///
/// ```
/// use greenhub::{sleep, with_timeout};
/// use greenhub::greenthread::{ExitKind, exit_kind};
/// use std::panic::{catch_unwind, resume_unwind};
/// use std::time::Duration;
/// let late = with_timeout(Duration::from_millis(1), || {
///     let payload = catch_unwind(|| sleep(Duration::from_secs(60))).unwrap_err();
///     assert_eq!(exit_kind(&payload), Some(ExitKind::Timeout));
///     resume_unwind(payload)
/// });
/// assert!(late.is_err());
/// ```
#[doc(alias = "GreenletExit")]
#[must_use]
pub fn exit_kind(payload: &(dyn Any + Send)) -> Option<ExitKind> {
    if let Some(Payload(exit)) = payload.downcast_ref() {
        return Some(exit.kind());
    }
    // A reference to the box of `catch_unwind` coerces to a reference to the box itself, instead of to its content.
    payload.downcast_ref::<Box<dyn Any + Send>>().and_then(|payload| exit_kind(payload.as_ref()))
}

/// Runs `f` within the scope `number`, which `open` keeps open.
///
/// Returns an exit of that scope as the error. All other unwinding goes through.
#[inline]
pub(crate) fn in_scope<S, R>(number: u64, open: S, f: impl FnOnce() -> R) -> Result<R, Exit> {
    let result = catch_unwind(AssertUnwindSafe(f));
    drop(open);
    match result {
        Ok(value) => Ok(value),
        Err(payload) => match payload.downcast::<Payload>() {
            Ok(payload) if payload.0.scope() == Some(number) => Err(payload.0),
            Ok(payload) => resume_unwind(payload),
            Err(payload) => resume_unwind(payload),
        },
    }
}

/// Starts the unwinding of the running greenlet. No panic hook runs.
pub(crate) fn throw(exit: Exit) -> ! {
    spans::back();
    resume_unwind(Box::new(Payload(exit)))
}

/// Converts a caught payload to the result for the waiters of the greenlet.
pub(crate) fn error_of(payload: Box<dyn Any + Send>) -> GreenError {
    match payload.downcast::<Payload>() {
        Ok(exit) => exit.0.into(),
        Err(payload) => GreenError::Panic(Panic::new(payload)),
    }
}

/// Runs foreign code in a place where nothing may unwind. Returns a panic as an error.
pub(crate) fn contained<R>(foreign: impl FnOnce() -> R) -> Result<R, GreenError> {
    catch_unwind(AssertUnwindSafe(foreign)).map_err(error_of)
}
