//! Control blocks: one cache line per greenlet, in an [`arena`] that outlives every handle.
//!
//! Ground rules:
//! - A block never moves and is never unmapped while its OS thread lives, so a [`ControlRef`] may always be read.
//!   Blocks are recycled; the ticket distinguishes two uses of a block. It only grows within one life of the arena.
//!   After [`release`](arena::Controls::release) new chunks begin at number 0 and the first ticket again, but no
//!   greenlet parks any more.
//! - Everything in a block is a `Cell`: blocks are shared freely, but never leave their OS thread.

pub(crate) mod arena;

use std::cell::Cell;
use std::mem::offset_of;
use std::ops::{Deref, Range};
use std::ptr::NonNull;

use super::cold::ColdSlot;
use super::stack::StackRef;
use super::task::cell::TaskSlot;
use crate::base::id::GreenletId;
use crate::base::prefetch::prefetch;
use crate::base::wait_reason::WaitReason;
use crate::hub::Readiness;
use crate::hub::Stamp;

/// The state of a greenlet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// On the free list.
    Free = 0,
    /// In the run queue, with a body that has not begun and no stack.
    Unstarted,
    /// In the run queue, suspended.
    Ready,
    /// The running greenlet.
    Running,
    /// Suspended until its ticket is woken.
    Parked,
    /// Suspended in a raw switch, until another greenlet switches back.
    Switched,
    /// In the run queue with nothing left to run, because it was killed before it began.
    Cancelled,
    /// Waits for its start time; in no queue.
    Delayed,
    /// In the run queue, as the entry of a callback of the main loop. Not a greenlet.
    Callback,
    /// Suspended for good, because its OS thread was shut down without unwinding it. In no queue, and never entered
    /// again.
    Abandoned,
}

/// The reason why a park ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Wake {
    /// A wake-up: an event, a result, a notice.
    #[default]
    Event,
    /// The deadline of this park passed.
    Deadline,
    /// Its descriptor is ready.
    Ready(Reported),
    /// Its descriptor was closed.
    Closed,
    /// The main loop has an error for the main greenlet.
    Failed,
    /// An exit is pending.
    Exit,
}

/// The readiness for a waiter that has left its place in the table of descriptors.
///
/// A waiter with one place is in the table no more when it is woken with the value, and its descriptor may be closed at
/// once. A waiter with several places has left only one of them, and removes itself from the others.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Reported(Readiness);

impl Reported {
    /// # Safety
    ///
    /// The waiter that is woken with the value has left a place in the table of descriptors, and is not put there
    /// again.
    #[inline]
    pub(crate) unsafe fn new(readiness: Readiness) -> Reported {
        Reported(readiness)
    }

    #[inline]
    pub(crate) fn readiness(self) -> Readiness {
        self.0
    }
}

/// The number of cache lines on a stack that a read which was parked goes through.
const FRAMES: usize = 12;

/// The control block of a greenlet, for switching and waking.
#[repr(C, align(64))]
pub(crate) struct Control {
    /// Link of the run queue or of the free list.
    next: Cell<Option<ControlRef>>,
    /// The context in which it is suspended; 0 if it runs or has not begun.
    context: Cell<usize>,
    /// Identifies the current park. Grows with each park that ends, and is never reset.
    ticket: Cell<u64>,
    stack: Cell<Option<StackRef>>,
    pub(super) task: TaskSlot,
    /// The state that most greenlets never need: pending exits, the node of a plain greenlet.
    pub(super) cold: ColdSlot,
    number: Cell<u32>,
    /// The time of the loop's turn in which it was made.
    born: Cell<Stamp>,
    /// The number of masks in force. Exits are deferred until there is none.
    masks: Cell<u8>,
    /// The number of shields in force. A kill is deferred, and so is the exit of a scope opened under fewer shields.
    pub(super) shields: Cell<u8>,
    state: Cell<State>,
    /// Bits that send a wait of this greenlet to the checked path: [`EXIT`], [`POLL`], [`GIVEN`].
    flags: Cell<u8>,
    wake: Cell<Wake>,
    /// The reason of the last park.
    pub(super) reason: Cell<WaitReason>,
    kind: Cell<Kind>,
}

/// An exit is pending, thrown soon or held back.
const EXIT: u8 = 1;

/// The greenlet polls a future, and must not be left.
const POLL: u8 = 2;

/// The present ticket was given to a parker, which may be forgotten. No other park may use that ticket.
const GIVEN: u8 = 4;

/// The kind of greenlet that a block is used for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A green thread. Its parent is the hub.
    Thread = 0,
    /// The main greenlet, on the OS thread's own stack.
    Main,
    /// The main loop.
    MainLoop,
    /// A plain greenlet with a parent.
    Raw,
}

/// Refers to a control block of this OS thread.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct ControlRef(NonNull<Control>);

impl ControlRef {
    /// Returns the place for the context of the greenlet, which is left.
    #[inline]
    pub(super) fn context_place(self) -> *const Cell<usize> {
        // SAFETY: a block is mapped, see `deref`.
        unsafe { &raw const (*self.0.as_ptr()).context }
    }

    /// Returns the address of the block, for comparisons only.
    #[inline]
    pub(crate) fn address(self) -> usize {
        self.0.as_ptr().addr()
    }
}

impl Deref for ControlRef {
    type Target = Control;
    #[inline]
    fn deref(&self) -> &Control {
        // SAFETY: blocks are never moved or unmapped while their OS thread lives, a reference cannot leave the OS
        // thread (it is !Send through the pointer), and all fields are cells.
        unsafe { self.0.as_ref() }
    }
}

impl Control {
    /// The offsets of the fields that a debugger reads: context, stack, task, number, state, reason, kind.
    pub(super) const OFFSETS: [u32; 7] = [
        offset_of!(Control, context) as u32,
        offset_of!(Control, stack) as u32,
        offset_of!(Control, task) as u32,
        offset_of!(Control, number) as u32,
        offset_of!(Control, state) as u32,
        offset_of!(Control, reason) as u32,
        offset_of!(Control, kind) as u32,
    ];

    /// Returns the number by which descriptor slots and timers refer to this greenlet.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.number.get()
    }

    /// Returns the public form of the number.
    #[inline]
    pub(crate) fn id(&self) -> GreenletId {
        GreenletId::new(self.number())
    }

    #[inline]
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket.get()
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        self.kind.get()
    }

    /// Returns whether it is a green thread whose body has not returned.
    pub(crate) fn has_task(&self) -> bool {
        !self.task.is_empty()
    }

    /// Returns how many bytes of its stack were touched.
    pub(crate) fn stack_high_water(&self) -> Option<usize> {
        let stack = self.stack.get()?;
        // SAFETY: a stack that is lent to a greenlet is mapped, and so is its header.
        unsafe { stack.as_ref() }.high_water().ok()
    }

    /// Returns the stack that is lent to the greenlet, from its lowest byte on. May be called in a signal handler.
    ///
    /// Returns `None` for the main greenlet, which uses the OS thread's stack.
    pub(crate) fn stack_bounds(&self) -> Option<Range<usize>> {
        let stack = self.stack.get()?;
        // SAFETY: a stack that is lent to a greenlet is mapped, and so is its header.
        let stack = unsafe { stack.as_ref() };
        Some(stack.bottom().addr()..stack.top().addr())
    }

    pub(crate) fn born(&self) -> Stamp {
        self.born.get()
    }

    /// Returns whether this is a green thread or a plain greenlet that has neither ended nor was abandoned.
    pub(crate) fn is_alive(&self) -> bool {
        let ended = matches!(self.state.get(), State::Free | State::Cancelled | State::Callback | State::Abandoned);
        !ended && matches!(self.kind.get(), Kind::Thread | Kind::Raw)
    }

    /// Returns whether its body has begun.
    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self.state.get(), State::Unstarted | State::Delayed)
    }

    /// Returns whether it has begun and is ready, parked or switched away.
    pub(crate) fn is_suspended(&self) -> bool {
        matches!(self.state.get(), State::Ready | State::Parked | State::Switched)
    }

    pub(crate) fn reason(&self) -> WaitReason {
        self.reason.get()
    }

    /// Returns whether an exit is pending, thrown soon or held back.
    #[inline]
    pub(crate) fn has_exit(&self) -> bool {
        self.flags.get() & EXIT != 0
    }

    /// Records whether an exit is pending.
    #[inline]
    pub(super) fn note_exit(&self, pending: bool) {
        self.set_flag(EXIT, pending);
    }

    /// Returns whether it polls a future, and must not be left.
    #[inline]
    pub(crate) fn is_polling(&self) -> bool {
        self.flags.get() & POLL != 0
    }

    /// Records whether it polls a future. Returns the former value.
    #[inline]
    pub(super) fn set_polling(&self, polling: bool) -> bool {
        let before = self.is_polling();
        self.set_flag(POLL, polling);
        before
    }

    /// Records that the present ticket was given to a parker.
    #[inline]
    pub(super) fn note_given(&self) {
        self.set_flag(GIVEN, true);
    }

    /// Takes the record that the present ticket was given to a parker, which parks now.
    ///
    /// Returns true if there is no such record or another flag is set: the park must be checked then.
    #[inline]
    pub(super) fn take_given(&self) -> bool {
        let flags = self.flags.get() ^ GIVEN;
        self.flags.set(flags);
        flags != 0
    }

    /// Removes the record that the present ticket was given to a parker.
    pub(super) fn forget_given(&self) {
        self.set_flag(GIVEN, false);
    }

    /// Retires the present ticket if it was given to a parker, so that its unparker ends no other park.
    pub(super) fn retire_given(&self) {
        if self.flags.get() & GIVEN != 0 {
            self.retire_ticket();
        }
    }

    /// Retires the present ticket, which ends no park any more.
    pub(super) fn retire_ticket(&self) {
        self.forget_given();
        self.advance_ticket();
        self.set_wake(Wake::Event);
    }

    /// Returns whether an exit is pending, a poll is under way or a parker has the ticket, so that a wait has to check
    /// before it begins.
    #[inline]
    pub(super) fn is_flagged(&self) -> bool {
        self.flags.get() != 0
    }

    #[inline]
    fn set_flag(&self, flag: u8, set: bool) {
        let others = self.flags.get() & !flag;
        self.flags.set(if set { others | flag } else { others });
    }

    #[inline]
    pub(crate) fn is_masked(&self) -> bool {
        self.masks.get() != 0
    }

    #[inline]
    pub(crate) fn shields(&self) -> u8 {
        self.shields.get()
    }
}

/// The right to end one park of one greenlet, and no other. Its `wake` queues the greenlet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Waiter {
    control: ControlRef,
    ticket: u64,
}

impl Waiter {
    #[inline]
    pub(crate) fn new(control: ControlRef, ticket: u64) -> Waiter {
        Waiter { control, ticket }
    }

    #[inline]
    pub(crate) fn control(self) -> ControlRef {
        self.control
    }

    #[inline]
    pub(crate) fn ticket(self) -> u64 {
        self.ticket
    }
}

/// The parts on which the safety of switches rests. Each change of them is an unsafe function.
impl Control {
    /// Returns the next block in the run queue.
    #[inline]
    pub(super) fn next(&self) -> Option<ControlRef> {
        self.next.get()
    }

    /// Sets the next block in the run queue, and returns the former one.
    ///
    /// # Safety
    ///
    /// The caller changes the run queue. It may leave out no block and have none twice.
    #[inline]
    pub(super) unsafe fn set_next(&self, next: Option<ControlRef>) -> Option<ControlRef> {
        self.next.replace(next)
    }

    /// # Safety
    ///
    /// The state is the true one: see [`State`] and the ground rules of the [run queue](super::run).
    #[inline]
    pub(super) unsafe fn set_state(&self, state: State) {
        self.state.set(state);
    }

    /// Returns the stack that is lent to the greenlet.
    #[inline]
    pub(super) fn stack(&self) -> Option<StackRef> {
        self.stack.get()
    }

    /// Lends the greenlet a stack.
    ///
    /// # Safety
    ///
    /// The stack was taken from its pool and has no other user. The greenlet is about to run on it.
    #[inline]
    pub(super) unsafe fn set_stack(&self, stack: StackRef) {
        self.stack.set(Some(stack));
    }

    /// Sets the context by which the greenlet is entered.
    ///
    /// # Safety
    ///
    /// The greenlet was lent a stack, and only this greenlet enters it by this context.
    #[inline]
    pub(super) unsafe fn set_context(&self, context: usize) {
        self.context.set(context);
    }

    /// Takes the stack of the greenlet away.
    ///
    /// # Safety
    ///
    /// The greenlet has ended, and the caller is the user of the stack from now on.
    #[inline]
    pub(super) unsafe fn take_stack(&self) -> Option<StackRef> {
        self.stack.take()
    }

    /// Prefetches the frames through which the suspended greenlet will return.
    #[inline]
    pub(crate) fn prefetch_stack(&self) {
        prefetch::<FRAMES>(self.context());
    }

    /// Returns the context in which the greenlet is suspended, or 0.
    pub(super) fn context(&self) -> usize {
        self.context.get()
    }

    /// Takes the context of the greenlet.
    ///
    /// # Safety
    ///
    /// The greenlet is suspended or fresh, and the caller jumps to the context.
    #[inline]
    pub(super) unsafe fn take_context(&self) -> usize {
        let context = self.context.replace(0);
        debug_assert_ne!(context, 0, "entered twice");
        context
    }

    /// Returns the number of masks in force.
    #[inline]
    pub(super) fn masks(&self) -> u8 {
        self.masks.get()
    }

    /// # Safety
    ///
    /// `masks` is the number of [`Mask`](super::run::Mask)s that exist for the greenlet.
    #[inline]
    pub(super) unsafe fn set_masks(&self, masks: u8) {
        self.masks.set(masks);
    }
}

/// The parts that parks and wake-ups change.
impl Control {
    /// Ends the park with the present ticket. Returns the next ticket.
    ///
    /// The caller also sets the reason, by [`set_wake`](Control::set_wake), unless the greenlet never runs again or is
    /// suspended in a raw switch, which has set it.
    #[inline]
    pub(super) fn advance_ticket(&self) -> u64 {
        let ticket = self.ticket.get() + 1;
        self.ticket.set(ticket);
        ticket
    }

    #[inline]
    pub(super) fn wake(&self) -> Wake {
        self.wake.get()
    }

    #[inline]
    pub(super) fn set_wake(&self, wake: Wake) {
        self.wake.set(wake);
    }

    /// Marks the greenlet as a main greenlet.
    pub(crate) fn become_main(&self) {
        self.kind.set(Kind::Main);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_block_is_one_cache_line() {
        assert_eq!((size_of::<Control>(), align_of::<Control>()), (64, 64));
    }
}
