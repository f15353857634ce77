//! An allocator that counts.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

/// Every call goes to the system's allocator unchanged.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

static BLOCKS: AtomicIsize = AtomicIsize::new(0);
static BYTES: AtomicIsize = AtomicIsize::new(0);

/// How often this thread asked for memory so far.
pub(crate) fn allocations() -> usize {
    CALLS.get()
}

/// The blocks that the process holds, and their bytes.
pub(crate) fn allocated() -> (isize, isize) {
    (BLOCKS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed))
}

fn count(calls: usize, blocks: isize, bytes: isize) {
    CALLS.set(CALLS.get() + calls);
    BLOCKS.fetch_add(blocks, Ordering::Relaxed);
    BYTES.fetch_add(bytes, Ordering::Relaxed);
}

// SAFETY: each method is the system allocator's; the counters are atomics and a thread-local that needs neither
// memory nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 1, layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, -1, -(layout.size() as isize));
        // SAFETY: the caller's promise is passed on; the memory came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, 0, size as isize - layout.size() as isize);
        // SAFETY: the caller's promise is passed on; the memory came from the system's allocator.
        unsafe { System.realloc(memory, layout, size) }
    }
}
