//! A global allocator that counts calls, blocks and bytes.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

/// Forwards every call unchanged to the system allocator.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

static BLOCKS: AtomicIsize = AtomicIsize::new(0);
static BYTES: AtomicIsize = AtomicIsize::new(0);

/// Returns the number of allocations and reallocations of this thread so far.
pub(crate) fn allocations() -> usize {
    CALLS.get()
}

/// Returns the number of blocks that the process holds, and their total size in bytes.
pub(crate) fn allocated() -> (isize, isize) {
    (BLOCKS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed))
}

fn count(calls: usize, blocks: isize, bytes: isize) {
    CALLS.set(CALLS.get() + calls);
    BLOCKS.fetch_add(blocks, Ordering::Relaxed);
    BYTES.fetch_add(bytes, Ordering::Relaxed);
}

// SAFETY: each method forwards to the system allocator. The counters are atomics and a const-initialized thread-local
// without a destructor, so that counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 1, layout.size() as isize);
        // SAFETY: the caller upholds the contract of the same method of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, -1, -(layout.size() as isize));
        // SAFETY: the caller upholds the contract of the same method of `System`, which allocated `memory`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, 0, size as isize - layout.size() as isize);
        // SAFETY: the caller upholds the contract of the same method of `System`, which allocated `memory`.
        unsafe { System.realloc(memory, layout, size) }
    }
}
