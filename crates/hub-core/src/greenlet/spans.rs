//! Spans of the crate `tracing`: a greenlet is in its spans while it runs, and in none of another.
//!
//! A subscriber knows OS threads: for each it keeps a stack of the spans that are entered. So whoever is left exits its
//! spans first, the innermost first, and enters them again before anything else when it runs again. The outermost span
//! of a green thread is its own, which ends with it; the others are those of [`in_span`].
//!
//! Rules:
//! - Spans are exited before a greenlet marks itself as parked or queued, and entered before an exit is thrown. Between
//!   the two the greenlet is *away*, and no foreign code runs in it.
//! - Subscribers are foreign code. They are called through [`tell`], with nothing borrowed, and what was known of
//!   greenlets before is asked again after. Who has the greenlet exit that is about to park, or wakes it, has ended
//!   that park.

use std::cell::{Cell, RefCell};

use tracing::{Level, Span};

use super::control::{ControlRef, Wake};
use super::local;
use super::run::{self, Waiter};
use super::task::TaskRef;
use super::trace::{is_heard, is_telling, tell};

/// The part of a control block's use that spans need.
#[derive(Default)]
pub(super) struct Spans {
    /// From the outermost inwards. Taken out while they are told of.
    stack: RefCell<Vec<Span>>,
    /// They are not entered.
    away: Cell<bool>,
}

impl Spans {
    fn exit(&self) {
        let stack = self.stack.take();
        stack.iter().rev().for_each(exit);
        self.stack.replace(stack);
    }

    fn enter(&self) {
        let stack = self.stack.take();
        stack.iter().for_each(enter);
        self.stack.replace(stack);
    }
}

fn enter(span: &Span) {
    tell(|| span.with_subscriber(|(id, subscriber)| subscriber.enter(id)));
}

fn exit(span: &Span) {
    tell(|| span.with_subscriber(|(id, subscriber)| subscriber.exit(id)));
}

/// Makes the span of a green thread that has not begun, within those of whoever spawns it.
#[inline]
pub(crate) fn open(task: TaskRef) {
    if is_heard(Level::DEBUG) {
        make(task);
    }
}

#[cold]
fn make(task: TaskRef) {
    let Some(control) = task.control() else { return };
    let span = tell(|| {
        tracing::debug_span!(
            target: "greenhub",
            "green_thread",
            number = control.number(),
            name = task.name().as_deref(),
            spawned_at = %task.spawned_at(),
        )
    });
    if let Some(span) = span.filter(|span| !span.is_disabled()) {
        let spans = control.spans();
        spans.stack.borrow_mut().push(span);
        spans.away.set(true);
    }
}

/// Exits the spans of the running greenlet, which is about to be left. False if it is away already, or has none:
/// then nobody was told.
pub(super) fn exited(me: ControlRef) -> bool {
    let Some(spans) = me.try_spans() else { return false };
    if spans.stack.borrow().is_empty() || spans.away.replace(true) {
        return false;
    }
    let had_to_exit = me.has_pending_exit();
    spans.exit();
    if !had_to_exit && me.has_pending_exit() {
        // Nobody wakes it for that: it was running.
        Waiter::new(me, me.ticket()).wake_with(Wake::Exit);
    }
    true
}

/// As [`exited`], for a park. False if that has ended.
#[inline]
pub(super) fn exited_for(park: Waiter) -> bool {
    exited(park.control());
    park.control().ticket() == park.ticket()
}

/// Enters the spans of the greenlet that runs again, unless it has.
#[inline]
pub(super) fn entered(me: ControlRef) {
    if let Some(spans) = me.try_spans()
        && spans.away.replace(false)
    {
        spans.enter();
    }
}

/// As [`entered`], for whoever runs.
pub(super) fn back() {
    entered(run::current());
}

/// Enters the spans of the running greenlet when it is dropped, if that is away.
pub(super) struct Away(ControlRef);

impl Away {
    /// Exits them.
    pub(super) fn new() -> Away {
        let me = run::current();
        exited(me);
        Away(me)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        entered(self.0);
    }
}

/// The running greenlet has ended, and with it its span.
pub(super) fn ended(me: ControlRef) {
    let Some(spans) = me.try_spans() else { return };
    let stack = spans.stack.take();
    for span in stack.into_iter().rev() {
        exit(&span);
        tell(|| drop(span));
    }
}

/// The span of a green thread that never begins, which ends when this is dropped.
pub(super) struct Unentered(Option<Span>);

/// Takes what a green thread that never begins has for spans; nothing else is left of it.
pub(super) fn unentered(target: ControlRef) -> Unentered {
    let span = target.try_spans().and_then(|spans| spans.stack.borrow_mut().pop());
    target.drop_cold();
    Unentered(span)
}

impl Drop for Unentered {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            tell(|| drop(span));
        }
    }
}

/// Runs `f` in a span that may last across calls which switch: it is exited whenever the greenlet that calls this is
/// left, and entered when that runs again. Switches if `f` does. With the feature `tracing`.
///
/// The guard of [`Span::enter`], and [`Span::in_scope`], are for what does not switch: a subscriber notes for the OS
/// thread that the span is entered. The green threads that run while this one waits would be in it with all that they
/// tell, and the span be exited in the midst of theirs. It is the same with a guard that is held across an `.await`.
///
/// Calls nest, and `f` may be left in any way: by a panic, a kill or a timeout. Green threads that are spawned in it have
/// spans of their own, as children of this one.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{in_span, sleep, spawn};
/// use std::time::Duration;
/// let serve = |id: u32| {
///     in_span(tracing::info_span!("request", id), || {
///         tracing::info!("begins"); // in the span of this request
///         sleep(Duration::from_millis(1)); // meanwhile the other begins, in its own
///         tracing::info!("ends");
///         id
///     })
/// };
/// let (one, other) = (spawn(move || serve(1)), spawn(move || serve(2)));
/// assert_eq!((one.join()?, other.join()?), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Panics
///
/// If `f` does. What a subscriber panics with when it is told goes no further.
pub fn in_span<R>(span: Span, f: impl FnOnce() -> R) -> R {
    if span.is_disabled() {
        return f();
    }
    // A subscriber is not left, and an ended thread has nobody to switch to.
    if is_telling() || local::get_unless_ended().is_err() {
        return span.in_scope(f);
    }
    let inside = Inside::new(span);
    let result = f();
    drop(inside);
    result
}

/// The running greenlet is in one more span while it exists.
struct Inside(ControlRef);

impl Inside {
    fn new(span: Span) -> Inside {
        let me = run::current();
        entered(me);
        enter(&span);
        me.spans().stack.borrow_mut().push(span);
        Inside(me)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let span = self.0.try_spans().and_then(|spans| spans.stack.borrow_mut().pop());
        if let Some(span) = span {
            exit(&span);
            tell(|| drop(span));
        }
    }
}
