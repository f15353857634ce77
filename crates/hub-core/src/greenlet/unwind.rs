//! How a greenlet is made to end from outside: exits, and what becomes of panics.
//!
//! An exit is a flag on the control block and a reason beside it. The target reads it when it next
//! arrives from a park and starts to unwind in its own frames, with a payload that prints nothing.
//! Swallowed by a `catch_unwind` on the way, a kill is thrown again at the next park; what goes up to a scope only
//! as long as that is open.
//!
//! Ground rules:
//! - [`Cold`] belongs to one use of a control block: made when it is first needed, freed by `drop_cold`
//!   when the greenlet has ended, by nobody else. Nothing of it is borrowed while foreign code runs.
//! - Payloads of panics are foreign: dropping one may panic again, and is contained.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::Arc;

use super::control::ControlRef;
use super::raw::Switching;
use super::spans;
use crate::error::GreenError;
use crate::green_local::Locals;
use crate::link::Linked;

/// Why a greenlet has to end.
#[derive(Clone, Debug)]
pub(crate) enum Exit {
    /// For good; this is how it ends for those who wait for it.
    Kill(GreenError),
    /// Up to the scope of the timeout with this number, opened under so many shields.
    Timeout { scope: u64, shields: u8 },
    /// Up to the scope with this number, opened under so many shields, whose green thread has ended.
    Linked { scope: u64, shields: u8, linked: Linked },
}

impl Exit {
    /// The scope up to which it goes.
    pub(crate) fn scope(&self) -> Option<u64> {
        match self {
            Exit::Kill(_) => None,
            Exit::Timeout { scope, .. } | Exit::Linked { scope, .. } => Some(*scope),
        }
    }

    /// Under how many shields it still strikes: under those inside which its scope was opened.
    fn shields(&self) -> u8 {
        match self {
            Exit::Kill(_) => 0,
            Exit::Timeout { shields, .. } | Exit::Linked { shields, .. } => *shields,
        }
    }
}

/// The payload of the unwinding that an exit starts.
pub(crate) struct Payload(pub(crate) Exit);

/// The part of a control block that most greenlets never need.
#[derive(Default)]
pub(crate) struct Cold {
    /// In the order in which they are thrown.
    pending: RefCell<Vec<Exit>>,
    switching: Switching,
    locals: Locals,
    #[cfg(feature = "tracing")]
    spans: spans::Spans,
}

impl From<Exit> for GreenError {
    fn from(exit: Exit) -> GreenError {
        match exit {
            Exit::Kill(error) => error,
            Exit::Timeout { scope, .. } => GreenError::Timeout(crate::timeout::Timeout::orphan(scope)),
            Exit::Linked { linked, .. } => GreenError::Linked(linked),
        }
    }
}

impl ControlRef {
    /// Adds an exit. It takes effect when the greenlet next arrives from a park without a mask.
    ///
    /// The first kill stands, and a second one comes back: dropping its error is foreign code, after which the
    /// caller knows nothing of the greenlet any more.
    pub(crate) fn set_exit(self, exit: Exit) -> Option<Exit> {
        let mut pending = self.cold().pending.borrow_mut();
        match exit {
            Exit::Kill(_) if matches!(pending.first(), Some(Exit::Kill(_))) => return Some(exit),
            // A kill goes before all that ends with a scope.
            Exit::Kill(_) => pending.insert(0, exit),
            Exit::Timeout { .. } | Exit::Linked { .. } => pending.push(exit),
        }
        self.exit.set(true);
        None
    }

    /// Takes back what was to go up to a scope: that has ended, or has caught it.
    pub(crate) fn clear_scope(self, number: u64) {
        let Some(cold) = self.cold.get() else { return };
        // SAFETY: see `cold`.
        let mut pending = unsafe { cold.as_ref() }.pending.borrow_mut();
        let place = pending.iter().position(|exit| exit.scope() == Some(number));
        let cleared = place.map(|place| pending.remove(place));
        self.exit.set(!pending.is_empty());
        drop(pending);
        // It may hold an error of the program's.
        drop_contained(cleared);
    }

    /// The exit that is thrown as soon as no mask is in force: the first that no shield holds back.
    pub(crate) fn pending_exit(self) -> Option<Exit> {
        if !self.exit.get() {
            return None;
        }
        self.cold().pending.borrow().iter().find(|exit| !self.is_shielded_from(exit)).cloned()
    }

    /// The exit that comes first of those that are pending, held back or not.
    pub(super) fn held_exit(self) -> Option<Exit> {
        if !self.exit.get() {
            return None;
        }
        self.cold().pending.borrow().first().cloned()
    }

    /// Whether an exit is pending that no shield holds back.
    pub(crate) fn has_pending_exit(self) -> bool {
        self.exit.get() && self.cold().pending.borrow().iter().any(|exit| !self.is_shielded_from(exit))
    }

    /// Whether a shield holds that exit back.
    pub(crate) fn is_shielded_from(self, exit: &Exit) -> bool {
        exit.shields() < self.shields()
    }

    /// Forgets every exit that is pending.
    #[inline]
    pub(super) fn clear_exits(self) {
        self.exit.set(false);
        if self.cold.get().is_some() {
            self.forget_pending();
        }
    }

    #[cold]
    fn forget_pending(self) {
        drop_contained(self.cold().pending.take());
    }

    /// What raw switches know of it. Not to be kept beyond the end of the greenlet.
    pub(super) fn switching(self) -> &'static Switching {
        &self.cold().switching
    }

    /// As `switching`, if there is anything.
    pub(super) fn try_switching(self) -> Option<&'static Switching> {
        // SAFETY: see `cold`.
        self.cold.get().map(|cold| unsafe { &cold.as_ref().switching })
    }

    /// The values of its own. Not to be kept beyond foreign code.
    pub(crate) fn locals(self) -> &'static Locals {
        &self.cold().locals
    }

    /// The spans that it is in. Not to be kept beyond the end of the greenlet.
    #[cfg(feature = "tracing")]
    pub(super) fn spans(self) -> &'static spans::Spans {
        &self.cold().spans
    }

    /// As `spans`, if there are any.
    #[cfg(feature = "tracing")]
    pub(super) fn try_spans(self) -> Option<&'static spans::Spans> {
        // SAFETY: see `cold`.
        self.cold.get().map(|cold| unsafe { &cold.as_ref().spans })
    }

    /// Drops the values of its own, in its own context: destructors may park it.
    #[inline]
    pub(super) fn drop_locals(self) {
        if self.cold.get().is_some() {
            self.end_locals();
        }
    }

    #[cold]
    fn end_locals(self) {
        while let Some(value) = self.locals().end_one() {
            drop_contained(value);
        }
        // What was pending concerned the destructors.
        self.clear_exits();
    }

    fn cold(self) -> &'static Cold {
        let cold = self.cold.get().unwrap_or_else(|| {
            let cold = NonNull::from(Box::leak(Box::new(Cold::default())));
            self.cold.set(Some(cold));
            cold
        });
        // SAFETY: leaked above and freed only by `drop_cold`, when the greenlet has ended. Neither this
        // module nor `raw` nor `green_local` keeps the reference over foreign code or a switch; `spans` keeps it while
        // subscribers are told of the greenlet that runs, which does not end in there.
        unsafe { cold.as_ref() }
    }

    /// Frees what only this use of the block needed.
    #[inline]
    pub(super) fn drop_cold(self) {
        if self.cold.get().is_some() {
            self.free_cold();
        }
    }

    #[cold]
    fn free_cold(self) {
        // Those that were made after its body had ended: by a link, for instance.
        self.end_locals();
        spans::ended(self);
        // What was pending may hold an error of the program's, whose destructor is foreign code: this greenlet may
        // need such a part again.
        while let Some(cold) = self.cold.take() {
            // SAFETY: leaked in `cold`, taken out of the cell just now, so nobody finds it again.
            let cold = unsafe { Box::from_raw(cold.as_ptr()) };
            cold.switching.end();
            drop_contained(cold);
        }
    }
}

/// Runs `f` within the scope with that number, which `open` keeps open. What goes up to that scope ends here and is
/// the error; all else goes through.
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

/// What a caught payload means to those who wait for the greenlet. Drops the payload, whose
/// destructor is foreign code.
pub(crate) fn error_of(payload: Box<dyn Any + Send>) -> GreenError {
    let payload = match payload.downcast::<Payload>() {
        Ok(payload) => {
            return payload.0.into();
        }
        Err(payload) => payload,
    };
    let message = Arc::from(message(payload.as_ref()));
    drop_contained(payload);
    GreenError::Panic(message)
}

/// The text of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "a payload that is not text"
    }
}

/// Runs foreign code in a place where nothing may unwind. A panic's message is returned.
pub(crate) fn contained<R>(foreign: impl FnOnce() -> R) -> Result<R, GreenError> {
    catch_unwind(AssertUnwindSafe(foreign)).map_err(error_of)
}

/// Drops a value whose destructor may panic. The panic was printed by its hook; there is nobody to
/// give it to.
pub(crate) fn drop_contained<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // A payload whose own destructor panics again is given up.
        std::mem::forget(payload);
    }
}
