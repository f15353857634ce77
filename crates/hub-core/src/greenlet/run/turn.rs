//! Fairness: how long a turn of the main loop lasts, and how many operations a greenlet has served at once before it
//! lets others run.
//!
//! A turn is granted a number of hand-offs in slices. Between two slices the greenlet that is about to be left looks at
//! the system's clock: a turn that has lasted for the [turn time](set_turn_time) is over. A slice that took long is
//! followed by a shorter one, so slow hand-offs are timed one by one and fast ones rarely. Operations that are served at
//! once use a slice up as well.
//!
//! The system's clock proposes and the hub's clock decides: the main loop goes on with a turn in which no time has
//! passed for its timers. A program on a [`ManualClock`](crate::ManualClock) therefore runs in the same order each time.
//!
//! Ground rules:
//! - A turn that is cut leaves ready greenlets behind. The timers that had expired in it and were not reached, and those
//!   that expire until no turn is cut, run before them; but one of those left behind runs in each turn, too, so that
//!   neither group keeps the other waiting for ever.
//! - While a turn lasts, greenlets leave the queue only at its head and each one is charged to the turn. How many have
//!   left says which of the others are still in their places.
//! - `RunQueue::ready` counts the due ones too.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::super::control::{ControlRef, Kind};
use super::super::driver::Driver;
use super::super::local::{self, Local};
use super::{Refused, RunQueue, current, thread, yield_now};
use crate::error::LoopError;
use crate::hub::Time;

/// At least so many hand-offs are granted to a turn.
const HAND_OFFS: usize = 256;

/// A turn that has lasted for so many nanoseconds is over. A quarter of it is long for a slice.
static TURN_TIME: AtomicU64 = AtomicU64::new(2_000_000);

/// The longest slice, in hand-offs.
const SLICE: usize = 64;

/// The longest second slice after the loop may have slept: the time of the first one is not known then.
const SLICE_AFTER_SLEEP: usize = 16;

/// How many operations are served at once before the next one looks whether others have run meanwhile.
pub(super) const OPERATIONS: u32 = 16;

/// How long a turn of the main loop lasts at most before timers are looked at again, and descriptors if one has expired
/// or after five such turns; what runs at the end of it is not interrupted. 2 ms by default, for the whole process. Does not switch.
///
/// A shorter time makes timers more exact while many green threads compute, and costs looks at the clock. A program that
/// counts what it does, under a tool that slows it down, takes a long one.
///
/// ```
/// use std::time::Duration;
/// hub_core::set_turn_time(Duration::from_millis(5));
/// ```
pub fn set_turn_time(time: Duration) {
    TURN_TIME.store(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The part of a thread's state that only the borders of slices and turns touch.
pub(super) struct Turn {
    /// The hand-offs of this turn after the present slice.
    left: Cell<usize>,
    slice: Cell<usize>,
    /// In nanoseconds of the system's monotonic clock.
    began: Cell<u64>,
    looked: Cell<u64>,
    since: Cell<Since>,
    /// The time of this turn is up.
    over: Cell<bool>,
    /// The turn before this one was cut.
    cut: Cell<bool>,
    /// The number of hand-offs at the last look at the budget of operations.
    charged_at: Cell<u64>,
    /// How many greenlets the timers have queued in this turn, and their place in the queue.
    fired: Cell<usize>,
    place: Cell<Fired>,
    due_head: Cell<Option<ControlRef>>,
    due_tail: Cell<Option<ControlRef>>,
}

/// Since when the time of a slice counts.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Since {
    /// The last look, in this turn.
    Look,
    /// The last look, which was in the turn before.
    EarlierLook,
    /// Nothing was ready at the end of the turn before, so that the loop may have slept.
    Sleep,
}

/// The place in the queue of the greenlets that one look at the timers has queued.
#[derive(Copy, Clone)]
struct Fired {
    /// The last greenlet before them, and how many there are up to it.
    before: Option<ControlRef>,
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

    /// Looks at the clock. True if the time of this turn is up.
    fn look(&self) -> bool {
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

    /// Asks the hub's clock whether this turn, which is over by the system's, has lasted for long. If not, it begins anew.
    fn is_cut(&self, local: &Local) -> bool {
        self.over.set(false);
        self.began.set(self.looked.get());
        let half = Duration::from_nanos(TURN_TIME.load(Ordering::Relaxed) / 2);
        self.cut.set(local.main_loop.turn_has_lasted(half));
        self.cut.get()
    }
}

/// Fires timers. What they queue goes behind the ready greenlets, or before them if the last turn was cut.
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
        // At the head of the queue they are in any case if nothing is older.
        if older != 0 {
            turn.fired.set(thread.ready.get() - older);
            turn.place.set(Fired { before: tail, older, last: thread.tail.get() });
        }
    }
}

/// For the main loop: runs what is ready, up to the end of the turn. True if the turn was cut, so that ready greenlets are
/// left over. Switches.
pub(crate) fn run_ready(local: &Local) -> bool {
    let thread = thread();
    let turn = &thread.turn;
    thread.operations.set(OPERATIONS);
    if !turn.cut.get() || thread.run_due(local) {
        thread.run_turn(local);
    }
    turn.since.set(if thread.ready.get() == 0 { Since::Sleep } else { Since::EarlierLook });
    turn.cut.get()
}

/// Charges an operation to the budget of operations that are served at once. False if it is used up: then
/// [`operations_used_up`] is to be called before the operation is performed.
#[inline(always)]
pub(crate) fn charge() -> bool {
    let thread = thread();
    let (left, used_up) = thread.operations.get().overflowing_sub(1);
    thread.operations.set(left);
    !used_up
}

/// Grants operations anew, after letting others run if none have run since that was done last. Switches then.
///
/// Throws the exit that is pending then, if one is: nothing was done yet that could be lost.
///
/// # Errors
///
/// For the main greenlet: what the main loop has to tell it.
#[cold]
#[inline(never)]
pub(crate) fn operations_used_up() -> Result<(), Refused> {
    let thread = thread();
    let turn = &thread.turn;
    thread.operations.set(OPERATIONS - 1);
    // Operations take time as hand-offs do, and bring the next look at the clock nearer.
    let budget = thread.budget.get();
    let charged = budget.min(OPERATIONS as usize);
    thread.budget.set(budget - charged);
    thread.granted.set(thread.granted.get() - charged);
    turn.left.set(turn.left.get() + charged);
    if turn.charged_at.replace(thread.hand_offs()) != thread.hand_offs() {
        return Ok(());
    }
    // The next greenlet has a whole budget, too.
    turn.charged_at.set(thread.hand_offs() + 1);
    let yielded = thread.let_others_run();
    thread.operations.set(OPERATIONS - 1);
    turn.charged_at.set(thread.hand_offs());
    yielded
}

impl RunQueue {
    /// How many hand-offs there were.
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

    /// Grants a slice of what is left of the turn.
    #[inline]
    fn grant_slice(&self, left: usize) {
        let turn = &self.turn;
        let slice = turn.slice.get().min(left);
        turn.left.set(left - slice);
        self.grant(slice);
    }

    /// Nothing more is granted to this turn: the next hand-off goes to the main loop.
    pub(super) fn end_turn(&self) {
        self.grant(0);
        self.turn.left.set(0);
    }

    /// No turn follows, and what was due is ready like everything else.
    pub(super) fn end_turns(&self) {
        let turn = &self.turn;
        self.end_turn();
        turn.cut.set(false);
        if let (Some(head), Some(tail)) = (turn.due_head.take(), turn.due_tail.take()) {
            self.push_front(head, tail);
        }
    }

    /// Yields where that is possible; elsewhere the operation is performed all the same.
    fn let_others_run(&self) -> Result<(), Refused> {
        let Some(local) = local::try_get() else { return Ok(()) };
        // A program that never waits needs no loop.
        let needless = self.ready.get() == 0 && local.mainloop.get().is_none() && local.main_loop.is_untouched();
        if needless {
            return Ok(());
        }
        let Err(refused) = yield_now() else { return Ok(()) };
        let told_to_main = current().kind() == Kind::Main
            && !matches!(*refused, LoopError::InMainloop { .. } | LoopError::Panicking | LoopError::ThreadEnding);
        if told_to_main { Err(refused) } else { Ok(()) }
    }

    /// Runs what is ready until the hand-offs of the turn are used up or its time is.
    #[inline]
    fn run_turn(&self, local: &Local) {
        let granted = HAND_OFFS.max(self.ready.get());
        self.grant_slice(granted);
        self.run_queue(local);
        if self.turn.over.get() {
            self.end_in_time(local, granted);
        }
        self.turn.fired.set(0);
    }

    #[inline(always)]
    fn run_queue(&self, local: &Local) {
        while let Some(next) = self.head.get()
            && (self.budget.get() != 0 || self.renew())
            && self.run_head(local, next)
        {}
    }

    /// The turn is over by the system's clock.
    #[cold]
    fn end_in_time(&self, local: &Local, granted: usize) {
        let turn = &self.turn;
        while turn.over.get() {
            let left = turn.left.get() + self.budget.get();
            if turn.is_cut(local) {
                return self.set_due_aside(granted - left);
            }
            // No time has passed for the timers, so nothing is late.
            self.grant_slice(left);
            self.run_queue(local);
        }
    }

    /// Runs what is due, and then one of those that a cut turn has left behind. False if this turn is cut as well.
    #[cold]
    fn run_due(&self, local: &Local) -> bool {
        let turn = &self.turn;
        turn.left.set(0);
        turn.cut.set(false);
        while let Some(next) = turn.due_head.get()
            && !turn.cut.get()
        {
            turn.due_head.set(next.next.get());
            if turn.due_head.get().is_none() {
                turn.due_tail.set(None);
            }
            self.push_front(next, next);
            self.run_one(local);
            if turn.look() {
                turn.is_cut(local);
            }
        }
        self.run_one(local);
        !turn.cut.get()
    }

    /// Runs the first in the queue, and nobody after it.
    fn run_one(&self, local: &Local) {
        self.grant(1);
        if let Some(next) = self.head.get() {
            self.run_head(local, next);
        }
        self.grant(0);
    }

    /// Keeps apart what timers have queued and the turn has not reached, after so many hand-offs.
    fn set_due_aside(&self, handed_off: usize) {
        let (fired, count) = (self.turn.place.get(), self.turn.fired.get());
        let Some(last) = fired.last else { return };
        if count == 0 || handed_off >= fired.older + count {
            return;
        }
        let after = last.next.take();
        let first = match fired.before {
            // Still in its place, and so is everything between it and `last`.
            Some(before) if handed_off < fired.older => before.next.replace(after),
            _ => self.head.replace(after),
        };
        if after.is_none() {
            self.tail.set(fired.before.filter(|_| handed_off < fired.older));
        }
        self.append_due(first, Some(last));
    }

    /// Puts what is linked from `head` to `tail`, and counted already, before the queue.
    fn push_front(&self, head: ControlRef, tail: ControlRef) {
        tail.next.set(self.head.replace(Some(head)));
        if self.tail.get().is_none() {
            self.tail.set(Some(tail));
        }
    }

    fn append_due(&self, head: Option<ControlRef>, tail: Option<ControlRef>) {
        let turn = &self.turn;
        let (Some(head), Some(tail)) = (head, tail) else { return };
        match turn.due_tail.replace(Some(tail)) {
            Some(before) => before.next.set(Some(head)),
            None => turn.due_head.set(Some(head)),
        }
    }
}
