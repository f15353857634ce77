//! Control blocks: one cache line per greenlet, in an arena that outlives every handle.
//!
//! Ground rules:
//! - A block never moves and is never unmapped while its OS thread lives, so a [`ControlRef`] may always be read.
//!   Blocks are recycled; the ticket distinguishes two uses of a block. It only grows within one life of the arena.
//!   After [`release`](Controls::release) new chunks begin at number 0 and the first ticket again, but no greenlet
//!   parks any more.
//! - Everything in a block is a `Cell`: blocks are shared freely, but never leave their OS thread.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::{Cell, UnsafeCell};
use std::ops::Deref;
use std::ptr::{self, NonNull};

use super::stack::StackRef;
use super::task::{TaskRef, TaskSlot};
use super::unwind::ColdSlot;
use crate::base::id::GreenletId;
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
    Ready(Readiness),
    /// Its descriptor was closed.
    Closed,
    /// The main loop has an error for the main greenlet.
    Failed,
    /// An exit is pending.
    Exit,
}

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
    Mainloop,
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
        // SAFETY: blocks are never moved or unmapped while their OS thread lives, a reference cannot leave the thread
        // (it is !Send through the pointer), and all fields are cells.
        unsafe { self.0.as_ref() }
    }
}

impl Control {
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

    /// Calls `f` with the cell of the green thread. Returns `None` if its body has returned.
    pub(crate) fn with_task<R>(&self, f: impl FnOnce(&TaskRef) -> R) -> Option<R> {
        self.task.with(f)
    }

    /// Returns how many bytes of its stack were touched.
    pub(crate) fn stack_high_water(&self) -> Option<usize> {
        let stack = self.stack.get()?;
        // SAFETY: a stack that is lent to a greenlet is mapped, and so is its header.
        unsafe { stack.as_ref() }.high_water().ok()
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
    pub(super) fn become_main(&self) {
        self.kind.set(Kind::Main);
    }
}

const CHUNK: usize = 512;

/// The first ticket of every block.
const FIRST_TICKET: u64 = 1;

/// All control blocks of an OS thread.
pub(crate) struct Controls {
    chunks: UnsafeCell<Vec<NonNull<Control>>>,
    /// The chunks of an ended OS thread that have blocks in use, in no order. No block of them is found by its number.
    kept: UnsafeCell<Vec<NonNull<Control>>>,
    free: Cell<Option<ControlRef>>,
    /// The numbers of blocks taken and given back so far. Two counters, so that each operation costs one addition.
    taken: Cell<u64>,
    given: Cell<u64>,
}

impl Controls {
    pub(crate) const fn new() -> Controls {
        Controls {
            chunks: UnsafeCell::new(Vec::new()),
            kept: UnsafeCell::new(Vec::new()),
            free: Cell::new(None),
            taken: Cell::new(0),
            given: Cell::new(0),
        }
    }

    /// Takes a block for a new greenlet, with a fresh ticket.
    #[inline]
    pub(crate) fn take(&self, kind: Kind, born: Stamp) -> ControlRef {
        let control = match self.free.get() {
            Some(control) => control,
            None => self.grow(),
        };
        self.free.set(control.next.get());
        control.next.set(None);
        control.kind.set(kind);
        control.born.set(born);
        self.taken.set(self.taken.get() + 1);
        control
    }

    /// Gives back the block of an ended greenlet. Its ticket is advanced, so old tickets are stale.
    ///
    /// # Safety
    ///
    /// The block was taken and not given back since. It is in no queue, and nothing runs or is suspended in it.
    #[inline]
    pub(crate) unsafe fn give(&self, control: ControlRef) {
        debug_assert!(control.cold.is_empty() && control.stack.get().is_none());
        control.ticket.set(control.ticket.get() + 1);
        control.context.set(0);
        control.task.clear();
        control.state.set(State::Free);
        control.flags.set(0);
        control.masks.set(0);
        control.shields.set(0);
        control.next.set(self.free.get());
        self.free.set(Some(control));
        self.given.set(self.given.get() + 1);
    }

    /// Returns the block with that number.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<ControlRef> {
        let number = number as usize;
        // SAFETY: the vector is only changed by `grow`, which runs no foreign code; no reference into it outlives a
        // call of this module.
        let chunk = *unsafe { &*self.chunks.get() }.get(number / CHUNK)?;
        // SAFETY: a chunk has CHUNK blocks.
        Some(ControlRef(unsafe { chunk.add(number % CHUNK) }))
    }

    /// Returns the number of greenlets that have not ended.
    pub(crate) fn live(&self) -> usize {
        (self.taken.get() - self.given.get()) as usize
    }

    /// Returns how many parks have ended so far. Every end of a park advances a ticket, as the end of a greenlet does.
    pub(crate) fn ended_parks(&self) -> u64 {
        let moves: u64 = self.blocks().map(|control| control.ticket.get() - FIRST_TICKET).sum();
        moves - self.given.get()
    }

    /// Returns every block that is in use.
    pub(crate) fn in_use(&self) -> Vec<ControlRef> {
        self.blocks().filter(|control| control.state.get() != State::Free).collect()
    }

    /// Iterates over every block, including the free list. Blocks made during the iteration are left out.
    fn blocks(&self) -> impl Iterator<Item = ControlRef> {
        // SAFETY: as in `get`.
        let chunks = unsafe { &*self.chunks.get() }.len();
        (0..(chunks * CHUNK) as u32).filter_map(|number| self.get(number))
    }

    /// Returns the number of parked greenlets.
    pub(crate) fn parked(&self) -> usize {
        self.blocks().filter(|control| control.state.get() == State::Parked).count()
    }

    #[cold]
    #[inline(never)]
    fn grow(&self) -> ControlRef {
        let layout = Self::layout();
        // SAFETY: the layout is not empty. Zero is a valid value of every field: 0, `WaitReason::Yield`, `State::Free`,
        // `Kind::Thread`, `Stamp::NONE`, and the `None` of a `NonNull` or of a transparent wrapper of one. `wake` is
        // written below.
        let chunk = unsafe { alloc_zeroed(layout) }.cast::<Control>();
        let Some(chunk) = NonNull::new(chunk) else { handle_alloc_error(layout) };
        // SAFETY: no other reference to the vector exists, see `get`.
        let chunks = unsafe { &mut *self.chunks.get() };
        let first = chunks.len() * CHUNK;
        chunks.push(chunk);
        for index in (0..CHUNK).rev() {
            // SAFETY: index < CHUNK, and the field is written before the block is read.
            let control = unsafe {
                let control = chunk.add(index);
                ptr::addr_of_mut!((*control.as_ptr()).wake).write(Cell::new(Wake::Event));
                ControlRef(control)
            };
            control.number.set((first + index) as u32);
            control.ticket.set(FIRST_TICKET);
            control.next.set(self.free.get());
            self.free.set(Some(control));
        }
        ControlRef(chunk)
    }

    fn layout() -> Layout {
        Layout::array::<Control>(CHUNK).expect("a chunk of control blocks has a size that fits")
    }

    /// Frees the chunks in which no block is in use. Afterwards no block is found by its number.
    ///
    /// # Safety
    ///
    /// No `ControlRef` of an unused block may be used afterwards.
    pub(crate) unsafe fn release(&self) {
        self.free.set(None);
        // SAFETY: no other reference to the vectors exists, see `get`.
        let (chunks, kept) = unsafe { (std::mem::take(&mut *self.chunks.get()), &mut *self.kept.get()) };
        for chunk in chunks {
            // SAFETY: a chunk has CHUNK blocks, which are initialised.
            let in_use = (0..CHUNK).any(|index| unsafe { chunk.add(index).as_ref() }.state.get() != State::Free);
            if in_use {
                kept.push(chunk);
            } else {
                // SAFETY: allocated in `grow` with this layout. By the contract, no references to its blocks are used.
                unsafe { std::alloc::dealloc(chunk.as_ptr().cast(), Self::layout()) };
            }
        }
    }

    /// Unmaps every block.
    ///
    /// # Safety
    ///
    /// No `ControlRef` of this arena is used afterwards.
    pub(crate) unsafe fn unmap(&self) {
        self.free.set(None);
        // SAFETY: no other reference to the vectors exists, see `get`.
        let (chunks, kept) =
            unsafe { (std::mem::take(&mut *self.chunks.get()), std::mem::take(&mut *self.kept.get())) };
        for chunk in chunks.into_iter().chain(kept) {
            // SAFETY: allocated in `grow` with this layout. By the contract, no references to its blocks are used.
            unsafe { std::alloc::dealloc(chunk.as_ptr().cast(), Self::layout()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_block_is_one_cache_line() {
        assert_eq!((size_of::<Control>(), align_of::<Control>()), (64, 64));
    }

    #[test]
    fn recycling_never_resets_a_ticket() {
        let controls = Controls::new();
        let first = controls.take(Kind::Thread, Stamp::NONE);
        let ticket = first.ticket();
        // SAFETY: taken above.
        unsafe { controls.give(first) };
        let again = controls.take(Kind::Thread, Stamp::NONE);
        assert_eq!(again, first);
        assert!(again.ticket() > ticket);
        assert_eq!(controls.live(), 1);
    }

    #[test]
    fn a_block_is_found_by_its_number() {
        let controls = Controls::new();
        let blocks: Vec<_> = (0..2 * CHUNK).map(|_| controls.take(Kind::Thread, Stamp::NONE)).collect();
        for block in blocks {
            assert_eq!(controls.get(block.number()), Some(block));
        }
        assert_eq!(controls.get(u32::MAX), None);
    }

    #[test]
    fn releasing_keeps_the_chunks_with_a_block_in_use() {
        let controls = Controls::new();
        let blocks: Vec<_> = (0..3 * CHUNK).map(|_| controls.take(Kind::Thread, Stamp::NONE)).collect();
        let kept = blocks[CHUNK + 7];
        kept.state.set(State::Parked);
        // SAFETY: each was taken above.
        blocks.iter().filter(|&&block| block != kept).for_each(|&block| unsafe { controls.give(block) });
        // SAFETY: only the reference to `kept` is used afterwards, and that block is in use.
        unsafe { controls.release() };
        assert_eq!((kept.number() as usize, kept.state()), (CHUNK + 7, State::Parked));
        assert_eq!(controls.get(kept.number()), None, "a former number still finds a block");
        // SAFETY: only one chunk is left.
        assert_eq!(unsafe { (*controls.kept.get()).len() }, 1);
        let new = controls.take(Kind::Thread, Stamp::NONE);
        assert_ne!(new, kept);
        // SAFETY: no reference is used afterwards.
        unsafe { controls.unmap() };
    }
}
