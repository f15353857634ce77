//! Spans of the crate `tracing`: a greenlet is in its own spans while it runs, and in none of another greenlet.
//!
//! A subscriber knows OS threads: for each it keeps a stack of the entered spans. A greenlet that is left therefore
//! exits its spans first, from the innermost on. When it runs again, it enters them before anything else. The outermost
//! span of a green thread is its own, and ends with it. The others are those of [`in_span`].
//!
//! Ground rules:
//! - Spans are exited before a greenlet marks itself as parked or queued, and entered before an exit is thrown. Between
//!   the two the greenlet is *away*, and no foreign code runs in it.
//! - Subscribers are foreign code. They are called through [`call_subscriber`], with no borrow held. State of greenlets
//!   that was read before is read again after the call. If a subscriber makes the greenlet exit that is about to park,
//!   or wakes it, that park has ended.

use tracing::{Level, Span};

use super::control::{ControlRef, Waiter, Wake};
use super::local;
use super::run::queue::current;
use super::task::cell::TaskRef;
use super::trace::{call_subscriber, in_subscriber, is_enabled};

fn enter(span: &Span) {
    call_subscriber(|| span.with_subscriber(|(id, subscriber)| subscriber.enter(id)));
}

fn exit(span: &Span) {
    call_subscriber(|| span.with_subscriber(|(id, subscriber)| subscriber.exit(id)));
}

/// Creates the span of a green thread that has not begun, within the spans of the spawning greenlet.
#[inline]
pub(crate) fn open(task: &TaskRef) {
    if is_enabled(Level::DEBUG) {
        make(task);
    }
}

#[cold]
fn make(task: &TaskRef) {
    let Some(control) = task.control() else { return };
    let span = call_subscriber(|| {
        tracing::debug_span!(
            target: "greenhub",
            "green_thread",
            number = control.number(),
            name = task.name().as_deref(),
            spawned_at = %task.spawned_at(),
        )
    });
    if let Some(span) = span.filter(|span| !span.is_disabled()) {
        control.push_span(span);
        control.set_away(true);
    }
}

/// Exits the spans of the running greenlet, which is about to be left.
///
/// Returns false if it is away already, or has none: no subscriber was called then.
pub(super) fn exited(me: ControlRef) -> bool {
    if !me.has_spans() || me.set_away(true) {
        return false;
    }
    let had_to_exit = me.has_pending_exit();
    let stack = me.take_spans();
    stack.iter().rev().for_each(exit);
    me.put_spans(stack);
    if !had_to_exit && me.has_pending_exit() {
        // A subscriber does not wake the greenlet for the exit, because the greenlet was running.
        Waiter::new(me, me.ticket()).wake_with(Wake::Exit);
    }
    true
}

/// Like [`exited`], for a park. Returns false if that park has ended.
#[inline]
pub(super) fn exited_for(park: Waiter) -> bool {
    exited(park.control());
    park.control().ticket() == park.ticket()
}

/// Enters the spans of the greenlet that runs again, unless they are entered.
#[inline]
pub(super) fn entered(me: ControlRef) {
    if me.set_away(false) {
        let stack = me.take_spans();
        stack.iter().for_each(enter);
        me.put_spans(stack);
    }
}

/// Like [`entered`], for the running greenlet.
pub(super) fn back() {
    entered(current());
}

/// Exits the spans of the running greenlet, and enters them when it is dropped, if the greenlet is away then.
pub(super) struct Away(ControlRef);

impl Away {
    /// Exits the spans.
    pub(super) fn new() -> Away {
        let me = current();
        exited(me);
        Away(me)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        entered(self.0);
    }
}

/// Ends the span of the running greenlet, because the greenlet has ended.
pub(super) fn ended(me: ControlRef) {
    for span in me.take_spans().into_iter().rev() {
        exit(&span);
        call_subscriber(|| drop(span));
    }
}

/// The span of a green thread that never begins. The span ends when this is dropped.
pub(super) struct Unentered(Option<Span>);

/// Takes the spans of a green thread that never begins.
pub(super) fn unentered(target: ControlRef) -> Unentered {
    let span = target.pop_span();
    Unentered(span)
}

impl Drop for Unentered {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            call_subscriber(|| drop(span));
        }
    }
}

/// Runs `f` in a span that may last across calls which switch. Switches if `f` does.
///
/// The span is exited whenever the calling greenlet is left, and entered when the greenlet runs again. Needs the
/// feature `tracing`.
///
/// The guard of [`Span::enter`], and [`Span::in_scope`], are only for code that does not switch. A subscriber records
/// for the OS thread that the span is entered. Events of green threads that run meanwhile would belong to the span, and
/// the span would be exited in the midst of theirs. A guard that is held across an `.await` has the same problem.
///
/// Calls nest, and `f` may be left in any way: by a panic or an exit. Green threads that are spawned in it have spans
/// of their own, as children of this one.
///
/// ```
/// use greenhub::{sleep, spawn};
/// use greenhub::debug::in_span;
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
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// Panics if `f` panics. A panic of a subscriber is contained.
pub fn in_span<R>(span: Span, f: impl FnOnce() -> R) -> R {
    if span.is_disabled() {
        return f();
    }
    // A subscriber is not left, and an ended OS thread does not switch.
    if in_subscriber() || local::get_unless_ended().is_err() {
        return span.in_scope(f);
    }
    let inside = Inside::new(span);
    let result = f();
    drop(inside);
    result
}

/// Keeps the running greenlet in one more span while it exists.
struct Inside(ControlRef);

impl Inside {
    fn new(span: Span) -> Inside {
        let me = current();
        entered(me);
        enter(&span);
        me.push_span(span);
        Inside(me)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(span) = self.0.pop_span() {
            exit(&span);
            call_subscriber(|| drop(span));
        }
    }
}
