//! The arena of an OS thread's control blocks.
//!
//! Ground rules: those of the [module above](super).

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, compiler_fence};

use super::{Control, ControlRef, Kind, State, Wake};
use crate::base::prefetch::prefetch;
use crate::hub::Stamp;

const CHUNK: usize = 512;

/// The first ticket of every block.
const FIRST_TICKET: u64 = 1;

/// The number of blocks of a chunk.
pub(in super::super) const BLOCKS: usize = CHUNK;

/// The chunks of an arena, for debuggers, which do not know where a `Vec` keeps them. This code never reads it.
#[repr(C)]
pub(crate) struct ChunkList {
    first: Cell<*const NonNull<Control>>,
    len: Cell<usize>,
}

impl ChunkList {
    /// The offsets of the fields.
    pub(in super::super) const OFFSETS: [u32; 2] =
        [std::mem::offset_of!(ChunkList, first) as u32, std::mem::offset_of!(ChunkList, len) as u32];

    const fn new() -> ChunkList {
        ChunkList { first: Cell::new(ptr::null()), len: Cell::new(0) }
    }

    /// Shows these chunks. Chunks that were shown before are in memory until this call, and may be freed after it.
    ///
    /// A debugger may stop the program at any instruction. The list is empty while its fields change.
    fn set(&self, chunks: &[NonNull<Control>]) {
        // The compiler must not move the stores over each other, nor over the changes of the memory around the call.
        // No fence of the processor is needed: a debugger reads what the OS thread has executed.
        compiler_fence(Ordering::SeqCst);
        self.len.set(0);
        compiler_fence(Ordering::SeqCst);
        self.first.set(chunks.as_ptr());
        compiler_fence(Ordering::SeqCst);
        self.len.set(chunks.len());
        compiler_fence(Ordering::SeqCst);
    }
}

/// All control blocks of an OS thread.
pub(crate) struct Controls {
    chunks: UnsafeCell<Vec<NonNull<Control>>>,
    list: ChunkList,
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
            list: ChunkList::new(),
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

    /// Prefetches the block with that number.
    #[inline]
    pub(crate) fn prefetch(&self, number: u32) {
        if let Some(control) = self.get(number) {
            prefetch::<1>(control.address());
        }
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
    pub(crate) fn blocks(&self) -> impl Iterator<Item = ControlRef> {
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
        // While the vector grows, its former memory is freed.
        self.list.set(&[]);
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
        self.list.set(chunks);
        ControlRef(chunk)
    }

    /// Returns the chunks for debuggers.
    pub(crate) fn list(&self) -> &ChunkList {
        &self.list
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
        self.list.set(&[]);
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
        self.list.set(&[]);
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
