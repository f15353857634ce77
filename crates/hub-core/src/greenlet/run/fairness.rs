//! Fairness: the length of a turn of the main loop, and the number of operations without a switch.
//!
//! A turn is granted a number of hand-offs in slices. Between two slices the greenlet that is about to be left reads
//! the system's clock. A turn that has lasted for the [turn time](set_turn_time) is over. A slow slice is followed by a
//! shorter one, so slow hand-offs are timed one by one and fast ones rarely. Operations that complete without a switch
//! are charged to the slice as well.
//!
//! The system's clock proposes and the hub's clock decides: the main loop continues a turn in which no time has passed
//! for its timers. A program on a [`ManualClock`](crate::hub::ManualClock) therefore runs in the same order each time.
//!
//! Ground rules:
//! - A turn that is cut leaves ready greenlets behind. Two groups of timers run before these greenlets: those that had
//!   expired in the cut turn and were not reached, and those that expire until no turn is cut. One of the greenlets
//!   left behind runs in each turn, too, so that neither group keeps the other waiting forever.
//! - While a turn lasts, greenlets leave the queue only at its head, and each one is charged to the turn. The number
//!   that have left tells which of the others are still in their places. `clear_queue` charges nothing: it ends the
//!   turn, and with it the places of the greenlets that timers have queued.
//! - `RunQueue::ready` counts the due ones too.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::super::control::ControlRef;
use super::super::driver::Driver;
use super::super::local::{self, Local};
use super::queue::{RunQueue, thread};
use crate::hub::Time;

/// The nanoseconds after which a turn is over. A slice that takes a quarter of it is a long one.
static TURN_TIME: AtomicU64 = AtomicU64::new(2_000_000);

/// The longest slice, in hand-offs.
const SLICE: usize = 64;

/// The longest second slice after the loop may have slept: the time of the first one is not known then.
const SLICE_AFTER_SLEEP: usize = 16;

/// The number of operations that may complete without a switch before the next one checks whether other greenlets have
/// run meanwhile.
pub(super) const OPERATIONS: u32 = 16;

/// Sets the longest time of a turn of the main loop. Does not switch.
///
/// Timers are checked after each turn. Descriptors are checked if a timer has expired, or after five such turns. The
/// code that runs at the end of a turn is not interrupted. The default is 2 ms, and applies to the whole process.
///
/// A shorter time makes timers more exact while many green threads compute, and costs reads of the clock. A program
/// that counts its operations, under a tool that slows it down, should set a long time.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(greenhub::hub::turn_time(), Duration::from_millis(2));
/// greenhub::hub::set_turn_time(Duration::from_millis(5));
/// ```
pub fn set_turn_time(time: Duration) {
    TURN_TIME.store(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Returns the longest time of a turn of the main loop, see [`set_turn_time`]. Does not switch.
#[must_use]
pub fn turn_time() -> Duration {
    Duration::from_nanos(TURN_TIME.load(Ordering::Relaxed))
}

/// The part of an OS thread's state that only the ends of slices and turns touch.
pub(super) struct Turn {
    /// The hand-offs of this turn after the current slice.
    pub(super) left: Cell<usize>,
    slice: Cell<usize>,
    /// In nanoseconds of the system's monotonic clock.
    began: Cell<u64>,
    looked: Cell<u64>,
    since: Cell<Since>,
    /// Whether the time of this turn is up.
    pub(super) over: Cell<bool>,
    /// Whether the turn before this one was cut.
    pub(super) cut: Cell<bool>,
    /// The number of hand-offs at the last check of the budget of operations.
    pub(super) charged_at: Cell<u64>,
    /// The number of greenlets that the timers have queued in this turn.
    pub(super) fired: Cell<usize>,
    /// The place of these greenlets in the queue.
    place: Cell<Fired>,
    due_head: Cell<Option<ControlRef>>,
    due_tail: Cell<Option<ControlRef>>,
}

/// The beginning of a slice's time.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Since {
    /// The last read of the clock, in this turn.
    Look,
    /// The last read of the clock, in the turn before.
    EarlierLook,
    /// Unknown: nothing was ready at the end of the turn before, so the loop may have slept.
    Sleep,
}

/// The place in the queue of the greenlets that timers have queued at one time.
#[derive(Copy, Clone)]
struct Fired {
    /// The last greenlet before them.
    before: Option<ControlRef>,
    /// The number of greenlets up to `before`.
    older: usize,
    last: Option<ControlRef>,
}

impl Turn {
    pub(super) const fn new() -> Turn {
        Turn {
            left: Cell::new(0),
            slice: Cell::new(SLICE_AFTER_SLEEP),
            began: Cell::new(0),
            looked: Cell::new(0),
            since: Cell::new(Since::Sleep),
            over: Cell::new(false),
            cut: Cell::new(false),
            charged_at: Cell::new(u64::MAX),
            fired: Cell::new(0),
            place: Cell::new(Fired { before: None, older: 0, last: None }),
            due_head: Cell::new(None),
            due_tail: Cell::new(None),
        }
    }

    /// Reads the clock. Returns true if the time of this turn is up.
    pub(super) fn look(&self) -> bool {
        let now = Time::monotonic().as_nanos();
        let last = self.looked.replace(now);
        match self.since.replace(Since::Look) {
            Since::Look => {}
            Since::EarlierLook => self.began.set(last),
            Since::Sleep => {
                self.began.set(now);
                self.slice.set(self.slice.get().min(SLICE_AFTER_SLEEP));
                return false;
            }
        }
        let (slice, turn_time) = (self.slice.get(), TURN_TIME.load(Ordering::Relaxed));
        self.slice.set(if now - last >= turn_time / 4 { (slice / 4).max(1) } else { (2 * slice).min(SLICE) });
        now - self.began.get() >= turn_time
    }

    /// Asks the hub's clock whether this turn, which is over by the system's clock, has lasted long. If not, it begins
    /// anew.
    pub(super) fn is_cut(&self, local: &Local) -> bool {
        self.over.set(false);
        self.began.set(self.looked.get());
        let half = Duration::from_nanos(TURN_TIME.load(Ordering::Relaxed) / 2);
        self.cut.set(local.main_loop.turn_has_lasted(half));
        self.cut.get()
    }

    /// Notes whether greenlets are ready after the turn. If none is, the loop may sleep before the next one.
    #[inline]
    pub(super) fn end(&self, ready: usize) {
        self.since.set(if ready == 0 { Since::Sleep } else { Since::EarlierLook });
    }

    /// Takes the first of the due greenlets.
    pub(super) fn pop_due(&self) -> Option<ControlRef> {
        let next = self.due_head.get()?;
        self.due_head.set(next.next());
        if self.due_head.get().is_none() {
            self.due_tail.set(None);
        }
        Some(next)
    }
}

/// Fires timers. The greenlets they queue go behind the ready ones, or before them if the last turn was cut.
pub(crate) fn fire(fire: impl FnOnce()) {
    let thread = thread();
    let turn = &thread.turn;
    let (head, tail, older) = (thread.head.get(), thread.tail.get(), thread.ready.get());
    if turn.cut.get() {
        thread.head.set(None);
        thread.tail.set(None);
        fire();
        thread.append_due(thread.head.replace(head), thread.tail.replace(tail));
    } else {
        fire();
        // If nothing is older, they are at the head of the queue anyway.
        if older != 0 {
            turn.fired.set(thread.ready.get() - older);
            turn.place.set(Fired { before: tail, older, last: thread.tail.get() });
        }
    }
}

/// Charges one operation that completes without a switch.
///
/// Returns false if the budget is used up. The caller must then call [`operations_used_up`](super::operations_used_up)
/// before it performs the operation.
#[inline(always)]
pub(crate) fn charge() -> bool {
    let thread = thread();
    let (left, used_up) = thread.operations.get().overflowing_sub(1);
    thread.operations.set(left);
    !used_up
}

/// Grants operations anew. Returns true if no other greenlet has run since the last grant, so that the caller must let
/// others run first. A future does so by returning.
#[cold]
#[inline(never)]
pub(crate) fn is_yield_due() -> bool {
    let thread = thread();
    let turn = &thread.turn;
    thread.operations.set(OPERATIONS - 1);
    // Operations take time as hand-offs do, so they bring the next read of the clock nearer.
    let budget = thread.budget.get();
    let charged = budget.min(OPERATIONS as usize);
    thread.budget.set(budget - charged);
    thread.granted.set(thread.granted.get() - charged);
    turn.left.set(turn.left.get() + charged);
    if turn.charged_at.replace(thread.hand_offs()) != thread.hand_offs() {
        return false;
    }
    // The next greenlet has a full budget, too.
    turn.charged_at.set(thread.hand_offs() + 1);
    true
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

/// Returns how often a greenlet was run from the queue.
pub(crate) fn switches() -> u64 {
    let thread = thread();
    thread.grant(thread.budget.get());
    thread.switches.get()
}

impl RunQueue {
    /// Grants a new budget, and adds the used part of the former one to the count of switches.
    #[inline]
    pub(super) fn grant(&self, budget: usize) {
        let ran = self.granted.get() - self.budget.get();
        self.switches.set(self.switches.get() + ran as u64);
        self.granted.set(budget);
        self.budget.set(budget);
    }

    /// Returns the number of hand-offs so far.
    #[inline]
    pub(super) fn hand_offs(&self) -> u64 {
        self.switches.get().wrapping_add(self.granted.get().wrapping_sub(self.budget.get()) as u64)
    }

    /// Grants the next slice of the turn, if there is one. Called when a slice is used up, or hand-offs are stopped.
    #[cold]
    #[inline(never)]
    pub(super) fn renew(&self) -> bool {
        let turn = &self.turn;
        let left = turn.left.get();
        if left == 0 || turn.over.get() || local::get().main_loop.in_hub() {
            return false;
        }
        if turn.look() {
            turn.over.set(true);
            return false;
        }
        self.grant_slice(left);
        true
    }

    /// Grants a slice of the remaining hand-offs of the turn.
    #[inline]
    pub(super) fn grant_slice(&self, left: usize) {
        let turn = &self.turn;
        let slice = turn.slice.get().min(left);
        turn.left.set(left - slice);
        self.grant(slice);
    }

    /// Ends the turn: nothing more is granted, and the next hand-off goes to the main loop.
    pub(super) fn end_turn(&self) {
        self.grant(0);
        self.turn.left.set(0);
    }

    /// Ends the last turn. Due greenlets become ready like all others.
    pub(super) fn end_turns(&self) {
        let turn = &self.turn;
        self.end_turn();
        turn.cut.set(false);
        turn.fired.set(0);
        if let (Some(head), Some(tail)) = (turn.due_head.take(), turn.due_tail.take()) {
            self.push_front(head, tail);
        }
    }

    /// Puts the greenlets linked from `head` to `tail`, which are counted already, before the queue.
    pub(super) fn push_front(&self, head: ControlRef, tail: ControlRef) {
        // SAFETY: the blocks from `head` to `tail` have just left the list of due ones. All others follow them.
        unsafe { tail.set_next(self.head.replace(Some(head))) };
        if self.tail.get().is_none() {
            self.tail.set(Some(tail));
        }
    }

    fn append_due(&self, head: Option<ControlRef>, tail: Option<ControlRef>) {
        let turn = &self.turn;
        let (Some(head), Some(tail)) = (head, tail) else { return };
        match turn.due_tail.replace(Some(tail)) {
            // SAFETY: the blocks from `head` to `tail` have just left the queue, and follow the due ones.
            Some(before) => _ = unsafe { before.set_next(Some(head)) },
            None => turn.due_head.set(Some(head)),
        }
    }

    /// Keeps apart the greenlets that timers have queued and the turn has not reached, after so many hand-offs.
    pub(super) fn set_due_aside(&self, handed_off: usize) {
        let (fired, count) = (self.turn.place.get(), self.turn.fired.get());
        let Some(last) = fired.last else { return };
        if count == 0 || handed_off >= fired.older + count {
            return;
        }
        // SAFETY: the blocks up to `last` leave the queue for the list of due ones. The rest stays linked.
        let after = unsafe { last.set_next(None) };
        let first = match fired.before {
            // SAFETY: `before` is still in its place, and so is everything between it and `last`.
            Some(before) if handed_off < fired.older => unsafe { before.set_next(after) },
            _ => self.head.replace(after),
        };
        if after.is_none() {
            self.tail.set(fired.before.filter(|_| handed_off < fired.older));
        }
        self.append_due(first, Some(last));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::fork::tests::in_own_process;

    /// Longer than an OS thread is held up, and shorter than any system has been running.
    const TURN: Duration = Duration::from_secs(20);

    /// Returns a turn that has begun so long ago, and whose clock was last read after the rest of the time.
    fn turn(slice: usize, began: Duration, looked: Duration) -> Turn {
        let (turn, now) = (Turn::new(), Time::monotonic().as_nanos());
        let ago = |time: Duration| now.saturating_sub(time.as_nanos() as u64);
        turn.since.set(Since::Look);
        turn.slice.set(slice);
        turn.began.set(ago(began));
        turn.looked.set(ago(looked));
        turn
    }

    #[test]
    fn slices_follow_the_speed_of_hand_offs_and_a_turn_ends_in_time() {
        in_own_process(
            "greenlet::run::fairness::tests::slices_follow_the_speed_of_hand_offs_and_a_turn_ends_in_time",
            || {
                set_turn_time(TURN);
                for (slice, looked, next) in
                    [(16, Duration::ZERO, 32), (64, Duration::ZERO, 64), (16, TURN / 2, 4), (2, TURN / 2, 1)]
                {
                    let turn = turn(slice, looked, looked);
                    assert!(!turn.look(), "{looked:?}");
                    assert_eq!(turn.slice.get(), next, "{slice} hand-offs in {looked:?}");
                }
                assert!(turn(16, TURN, Duration::ZERO).look());
            },
        );
    }
}
