//! The memory of cells, in size classes of whole cache lines.
//!
//! Ground rules:
//! - Memory on a free list belongs to the pool alone and contains a link. Memory that was taken belongs to the taker
//!   until it is given back, once, with its class and layout.
//! - A batch is freed when all of its cells are free and on no list, or with the pool.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::iter;
use std::ptr::NonNull;

const STEP: usize = 64;

const CLASSES: usize = 8;

const BATCH: usize = 64;

const UNPOOLED: u8 = u8::MAX;

/// The free cells of an OS thread, in size classes of whole cache lines. Larger cells come from the allocator.
pub(crate) struct TaskPool {
    free: [Cell<Option<NonNull<FreeCell>>>; CLASSES],
    batches: RefCell<Vec<(NonNull<u8>, Layout)>>,
    /// The numbers of cells taken and freed so far.
    taken: Cell<u64>,
    given: Cell<u64>,
}

struct FreeCell {
    next: Option<NonNull<FreeCell>>,
}

impl TaskPool {
    pub(crate) const fn new() -> TaskPool {
        TaskPool {
            free: [const { Cell::new(None) }; CLASSES],
            batches: RefCell::new(Vec::new()),
            taken: Cell::new(0),
            given: Cell::new(0),
        }
    }

    /// Returns the number of cells that are not freed.
    pub(crate) fn live(&self) -> usize {
        (self.taken.get() - self.given.get()) as usize
    }

    /// Returns the number of cells taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    #[inline]
    pub(super) fn take(&self, layout: Layout) -> (NonNull<u8>, u8) {
        self.taken.set(self.taken.get() + 1);
        let class = (layout.size() - 1) / STEP;
        if class >= CLASSES || layout.align() > STEP {
            return (allocate(layout), UNPOOLED);
        }
        let cell = match self.free[class].get() {
            Some(cell) => cell,
            None => self.grow(class),
        };
        // SAFETY: cells on the list are free memory of this class with a link in it.
        self.free[class].set(unsafe { cell.as_ref() }.next);
        (cell.cast(), class as u8)
    }

    /// # Safety
    ///
    /// `memory` must come from `take` of this pool with that class and layout, and must not be used afterwards.
    #[inline]
    pub(in super::super) unsafe fn give(&self, memory: NonNull<u8>, class: u8, layout: Layout) {
        self.given.set(self.given.get() + 1);
        if class == UNPOOLED {
            // SAFETY: `take` allocated it with this layout.
            return unsafe { dealloc(memory.as_ptr(), layout) };
        }
        let free = &self.free[class as usize];
        let cell = memory.cast::<FreeCell>();
        // SAFETY: a cell is larger than a link and aligned to a cache line.
        unsafe { cell.write(FreeCell { next: free.get() }) };
        free.set(Some(cell));
    }

    #[cold]
    #[inline(never)]
    fn grow(&self, class: usize) -> NonNull<FreeCell> {
        let size = (class + 1) * STEP;
        let layout = Layout::from_size_align(size * BATCH, STEP).expect("a batch of cells has a size that fits");
        let batch = allocate(layout);
        self.batches.borrow_mut().push((batch, layout));
        let mut next = None;
        for index in (0..BATCH).rev() {
            // SAFETY: within the batch, aligned to a cache line.
            unsafe {
                let cell = batch.add(index * size).cast::<FreeCell>();
                cell.write(FreeCell { next });
                next = Some(cell);
            }
        }
        batch.cast()
    }

    /// Frees the batches in which no cell is in use.
    pub(crate) fn release(&self) {
        let mut batches = self.batches.take();
        batches.sort_unstable_by_key(|&(batch, _)| batch);
        let batch_of =
            |cell: NonNull<FreeCell>| batches.partition_point(|(batch, _)| batch.addr() <= cell.addr()).checked_sub(1);
        // SAFETY: cells on the lists are free memory with a link in it.
        let cells = |first: Option<NonNull<FreeCell>>| iter::successors(first, |cell| unsafe { cell.as_ref() }.next);
        let mut free = vec![0; batches.len()];
        for cell in self.free.iter().flat_map(|list| cells(list.get())) {
            batch_of(cell).into_iter().for_each(|batch| free[batch] += 1);
        }
        for list in &self.free {
            let kept: Vec<_> =
                cells(list.take()).filter(|&cell| batch_of(cell).is_some_and(|batch| free[batch] < BATCH)).collect();
            for &cell in kept.iter().rev() {
                // SAFETY: this is a free cell of a batch that stays, and the cell is on no list now.
                unsafe { cell.write(FreeCell { next: list.get() }) };
                list.set(Some(cell));
            }
        }
        let mut index = 0;
        batches.retain(|&(batch, layout)| {
            index += 1;
            let unused = free[index - 1] == BATCH;
            if unused {
                // SAFETY: allocated in `grow` with this layout. Each of its cells is free, and on no list any more.
                unsafe { dealloc(batch.as_ptr(), layout) };
            }
            !unused
        });
        *self.batches.borrow_mut() = batches;
    }

    /// Frees every pooled cell.
    ///
    /// # Safety
    ///
    /// No `TaskRef` of this pool may be used afterwards.
    pub(crate) unsafe fn unmap(&self) {
        for free in &self.free {
            free.set(None);
        }
        for (batch, layout) in self.batches.take() {
            // SAFETY: allocated in `grow` with this layout. By the contract, no references to its cells are used.
            unsafe { dealloc(batch.as_ptr(), layout) };
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: a cell has a header, so the layout is not empty.
    let memory = unsafe { alloc(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releasing_frees_the_batches_without_a_cell_in_use() {
        let pool = TaskPool::new();
        let layout = Layout::from_size_align(100, 8).unwrap();
        let cells: Vec<_> = (0..3 * BATCH + 5).map(|_| pool.take(layout)).collect();
        // One in the second batch, one in the last.
        let kept = [cells[BATCH + 3], cells[3 * BATCH + 1]];
        // SAFETY: from `take`, given back once, and not used afterwards.
        let give = |(memory, class): (NonNull<u8>, u8)| unsafe { pool.give(memory, class, layout) };
        cells.iter().filter(|cell| !kept.contains(cell)).for_each(|&cell| give(cell));
        pool.release();
        assert_eq!(pool.batches.borrow().len(), 2);
        // Free cells are taken again, each once, and no cell in use is among them.
        let mut again: Vec<_> = (0..2 * BATCH - 2).map(|_| pool.take(layout)).collect();
        assert_eq!(pool.batches.borrow().len(), 2);
        again.extend(kept);
        again.sort_unstable();
        again.dedup();
        assert_eq!(again.len(), 2 * BATCH);
        again.into_iter().for_each(give);
        pool.release();
        assert!(pool.batches.borrow().is_empty());
        assert_eq!(pool.live(), 0);
    }

    #[test]
    fn a_cell_with_larger_alignment_than_a_batch_bypasses_the_pool() {
        let pool = TaskPool::new();
        for (align, pooled) in [(STEP, true), (2 * STEP, false)] {
            let layout = Layout::from_size_align(2 * STEP, align).unwrap();
            let (memory, class) = pool.take(layout);
            assert_eq!(class != UNPOOLED, pooled);
            // SAFETY: from `take`, and not used afterwards.
            unsafe { pool.give(memory, class, layout) };
        }
    }
}
