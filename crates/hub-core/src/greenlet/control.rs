//! Control blocks: one cache line per greenlet, in an arena that outlives every handle.
//!
//! Ground rules:
//! - A block never moves and is never unmapped while its thread lives, so a [`ControlRef`] may always
//!   be read. Blocks are recycled; what tells two uses apart is the ticket, which only grows.
//! - Everything in a block is a `Cell`: blocks are shared freely, but never leave their thread.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::{Cell, UnsafeCell};
use std::ops::Deref;
use std::ptr::{self, NonNull};

use super::stack::StackRef;
use super::task::TaskRef;
use super::unwind::ColdState;
use crate::base::wait_reason::WaitReason;
use crate::hub::Readiness;
use crate::hub::Stamp;

/// What a greenlet is doing.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// On the free list.
    Free = 0,
    /// In the run queue, with a body that has not begun and no stack.
    Unstarted,
    /// In the run queue, suspended.
    Ready,
    /// The one that runs.
    Running,
    /// Suspended until its ticket is woken.
    Parked,
    /// Suspended in a raw switch, until somebody switches back.
    Switched,
    /// In the run queue with nothing left to run: killed before it began.
    Cancelled,
    /// Waits for its time to begin; in no queue.
    Delayed,
    /// In the run queue: a callback for the main loop, not a greenlet.
    Callback,
    /// Suspended for good: its thread shut down without it. In no queue, and never entered again.
    Abandoned,
}

/// Why a park ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Wake {
    /// Somebody woke it: an event, a result, a notice.
    #[default]
    Event,
    /// The deadline of this very park passed.
    Deadline,
    /// Its descriptor is ready.
    Ready(Readiness),
    /// Its descriptor was closed.
    Closed,
    /// The main loop has an error for the main greenlet.
    Failed,
    /// A kill or a timeout is pending and this park is masked.
    Exit,
}

/// A greenlet, as switching and waking see it.
#[repr(C, align(64))]
pub(crate) struct Control {
    /// Link of the run queue or of the free list.
    pub(super) next: Cell<Option<ControlRef>>,
    /// Where it is suspended; 0 if it runs or has not begun.
    pub(super) context: Cell<usize>,
    /// Names the present park. Grows with each park that ends, for ever.
    pub(super) ticket: Cell<u64>,
    pub(super) stack: Cell<Option<StackRef>>,
    pub(super) task: Cell<Option<TaskRef>>,
    /// What most greenlets never need: pending exits, raw greenlets' parents.
    pub(super) cold: Cell<Option<NonNull<ColdState>>>,
    number: Cell<u32>,
    /// The time of the turn of the loop in which it was made.
    born: Cell<Stamp>,
    /// How many masks are in force; exits wait until there is none.
    pub(super) masks: Cell<u8>,
    /// How many shields are in force: exits of scopes that were opened under fewer wait, and so do kills.
    pub(super) shields: Cell<u8>,
    pub(super) state: Cell<State>,
    /// An exit is pending.
    pub(super) exit: Cell<bool>,
    pub(super) wake: Cell<Wake>,
    /// What it did when it parked last.
    pub(super) doing: Cell<WaitReason>,
    pub(super) kind: Cell<Kind>,
}

/// What sort of greenlet a block is for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A green thread: its parent is the hub.
    Thread = 0,
    /// The thread's own stack.
    Main,
    /// The main loop.
    Mainloop,
    /// A plain greenlet with a parent.
    Raw,
}

/// Refers to a control block of this thread.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct ControlRef(NonNull<Control>);

impl ControlRef {
    pub(super) fn as_ptr(self) -> *const Control {
        self.0.as_ptr()
    }

    /// To be compared only.
    #[inline]
    pub(crate) fn address(self) -> usize {
        self.0.as_ptr().addr()
    }
}

impl Deref for ControlRef {
    type Target = Control;
    #[inline]
    fn deref(&self) -> &Control {
        // SAFETY: blocks are never moved or unmapped while their thread lives, a reference cannot
        // leave the thread (it is !Send through the pointer), and all fields are cells.
        unsafe { self.0.as_ref() }
    }
}

impl Control {
    /// The number under which descriptor slots and timers know this greenlet.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.number.get()
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

    #[inline]
    pub(crate) fn task(&self) -> Option<TaskRef> {
        self.task.get()
    }

    /// It begins when its time has come.
    pub(crate) fn set_delayed(&self) {
        self.state.set(State::Delayed);
    }

    /// Suspended in a raw switch, it can be woken now.
    pub(crate) fn set_parked(&self) {
        debug_assert_eq!(self.state.get(), State::Switched);
        self.state.set(State::Parked);
    }

    /// How much of its stack was touched, in bytes.
    pub(crate) fn stack_high_water(&self) -> Option<usize> {
        let stack = self.stack.get()?;
        // SAFETY: a stack that is lent to a greenlet is mapped, and so is its header.
        unsafe { stack.as_ref() }.high_water().ok()
    }

    pub(crate) fn born(&self) -> Stamp {
        self.born.get()
    }

    /// It is a green thread or a plain greenlet that has not ended and was not given up.
    pub(crate) fn is_alive(&self) -> bool {
        let ended = matches!(self.state.get(), State::Free | State::Cancelled | State::Callback | State::Abandoned);
        !ended && matches!(self.kind.get(), Kind::Thread | Kind::Raw)
    }

    /// Whether its body has begun.
    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self.state.get(), State::Unstarted | State::Delayed)
    }

    /// Gives it up: nothing wakes it or enters it again. It is suspended, and was taken out of the run queue.
    pub(crate) fn abandon(&self) {
        debug_assert!(matches!(self.state.get(), State::Ready | State::Parked | State::Switched));
        self.state.set(State::Abandoned);
        self.ticket.set(self.ticket.get() + 1);
    }

    /// It has begun, and waits for its turn or for somebody.
    pub(crate) fn is_suspended(&self) -> bool {
        matches!(self.state.get(), State::Ready | State::Parked | State::Switched)
    }

    pub(crate) fn doing(&self) -> WaitReason {
        self.doing.get()
    }

    /// Whether an exit is pending, thrown soon or held back.
    #[inline]
    pub(crate) fn has_exit(&self) -> bool {
        self.exit.get()
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

const CHUNK: usize = 512;

/// The first ticket of every block.
const FIRST_TICKET: u64 = 1;

/// All control blocks of a thread.
pub(crate) struct Controls {
    chunks: UnsafeCell<Vec<NonNull<Control>>>,
    /// Chunks of an ended thread with blocks in use, in no order: nothing finds them by number any more.
    kept: UnsafeCell<Vec<NonNull<Control>>>,
    free: Cell<Option<ControlRef>>,
    /// How many blocks were ever taken, and given back: counted apart, so that neither costs more than one sum.
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

    /// A block for a new greenlet, with a ticket nobody holds.
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

    /// The block of a greenlet that has ended. Its ticket moves on, so nothing finds it any more.
    #[inline]
    pub(crate) fn give(&self, control: ControlRef) {
        debug_assert!(control.cold.get().is_none() && control.stack.get().is_none());
        control.ticket.set(control.ticket.get() + 1);
        control.context.set(0);
        control.task.set(None);
        control.state.set(State::Free);
        control.exit.set(false);
        control.masks.set(0);
        control.shields.set(0);
        control.next.set(self.free.get());
        self.free.set(Some(control));
        self.given.set(self.given.get() + 1);
    }

    /// The block with that number.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<ControlRef> {
        let number = number as usize;
        // SAFETY: the vector is only changed by `grow`, which runs no foreign code; no reference into
        // it outlives a call of this module.
        let chunk = *unsafe { &*self.chunks.get() }.get(number / CHUNK)?;
        // SAFETY: a chunk has CHUNK blocks.
        Some(ControlRef(unsafe { chunk.add(number % CHUNK) }))
    }

    /// How many greenlets exist, ended ones not counted.
    pub(crate) fn live(&self) -> usize {
        (self.taken.get() - self.given.get()) as usize
    }

    /// How many parks have ended, in whatever way: every end of one moves a ticket on, as the end of a greenlet does.
    pub(crate) fn ended_parks(&self) -> u64 {
        let moves: u64 = self.blocks().map(|control| control.ticket.get() - FIRST_TICKET).sum();
        moves - self.given.get()
    }

    /// Every block that is in use.
    pub(crate) fn in_use(&self) -> Vec<ControlRef> {
        self.blocks().filter(|control| control.state.get() != State::Free).collect()
    }

    /// Every block, those of the free list included. New ones that come meanwhile are left out.
    fn blocks(&self) -> impl Iterator<Item = ControlRef> {
        // SAFETY: as in `get`.
        let chunks = unsafe { &*self.chunks.get() }.len();
        (0..(chunks * CHUNK) as u32).filter_map(|number| self.get(number))
    }

    /// How many greenlets are parked.
    pub(crate) fn parked(&self) -> usize {
        self.blocks().filter(|control| control.state.get() == State::Parked).count()
    }

    #[cold]
    #[inline(never)]
    fn grow(&self) -> ControlRef {
        let layout = Self::layout();
        // SAFETY: the layout is not empty. Zero is a valid value of every field: `None`, 0, `false`,
        // `WaitReason::Yield`, `State::Free`, `Kind::Thread`, `Stamp::NONE`; `wake` is written below.
        let chunk = unsafe { alloc_zeroed(layout) }.cast::<Control>();
        let Some(chunk) = NonNull::new(chunk) else { handle_alloc_error(layout) };
        // SAFETY: nobody else refers to the vector, see `get`.
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

    /// Frees the chunks in which no block is in use. From now on no block is found by its number.
    ///
    /// # Safety
    ///
    /// No `ControlRef` of a block that is not in use is used afterwards, and none is handed out from the free list.
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
                // SAFETY: allocated in `grow` with this layout; the caller vouches for references to its blocks.
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
            // SAFETY: allocated in `grow` with this layout; the caller vouches for the references.
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
        controls.give(first);
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
        blocks.iter().filter(|&&block| block != kept).for_each(|&block| controls.give(block));
        // SAFETY: of all references only the one to `kept` is used afterwards, which is in use.
        unsafe { controls.release() };
        assert_eq!((kept.number() as usize, kept.state()), (CHUNK + 7, State::Parked));
        assert_eq!(controls.get(kept.number()), None, "nothing is found by its number any more");
        // SAFETY: only one chunk is left.
        assert_eq!(unsafe { (*controls.kept.get()).len() }, 1);
        let new = controls.take(Kind::Thread, Stamp::NONE);
        assert_ne!(new, kept);
        // SAFETY: none is used afterwards.
        unsafe { controls.unmap() };
    }
}
