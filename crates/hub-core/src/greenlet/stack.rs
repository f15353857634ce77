//! Stacks: cut from slabs, recycled last in first out, one pool per OS thread.
//!
//! A stack costs address space. It costs memory only where it was touched: one page for a parked greenlet with few
//! frames. The stack given back last is the first to be taken, because it is hot.
//!
//! Ground rules:
//! - A [`Stack`] is the header of a stack. It lies at the front of the slab, apart from the stack, never moves, and
//!   lives as long as the slab. It is shared by [`StackRef`]; its mutable fields are cells.
//! - `Stacks` and all its headers belong to one OS thread: they are `!Send` and `!Sync` by their pointers.
//! - A stack is in at most one list, and only while it is not in use. A stack that was taken has one user.
//! - A stack is recycled, trimmed or unmapped only when its root loop is at rest: it has returned, or it is suspended
//!   where it owns nothing. A suspended root loop is never resumed once `context` is zero. That is the promise of
//!   [`Stacks::give`]. A stack that was never given back is never unmapped, nor is its slab.

mod error;
mod guard;
mod slab;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::iter;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::param::page_size;

pub(crate) use self::error::StackError;
pub use self::guard::StackPolicy;
pub(crate) use self::guard::{GuardKind, policy, set_policy};
use self::slab::Slab;
pub(super) use self::slab::stack_guarded_at;
#[cfg(test)]
pub(super) use self::tests::{in_child, role};

/// The size of the smallest class, in bytes. Each class has twice the size of the previous one.
///
/// A panic fits: std's hook runs on the stack that panics, and needs 20 KiB to print a backtrace.
const SMALLEST: usize = 64 << 10;
/// The number of classes. The largest class has 512 MiB on a 64-bit system.
const CLASSES: usize = if cfg!(target_pointer_width = "64") { 14 } else { 8 };

/// Returns the class whose stacks hold `size` bytes. The class exists if the number is less than [`CLASSES`].
#[inline]
const fn class_of(size: usize) -> usize {
    ((size.saturating_sub(1) | (SMALLEST - 1)).ilog2() - (SMALLEST - 1).ilog2()) as usize
}

/// Returns the number of bytes that a stack of a class holds.
#[inline]
const fn size_of_class(class: usize) -> usize {
    SMALLEST << class
}

static DEFAULT_SIZE: AtomicUsize = AtomicUsize::new(256 << 10);

/// Returns the default size of stacks, in bytes: 256 KiB, unless it was set.
#[inline]
pub(crate) fn default_size() -> usize {
    DEFAULT_SIZE.load(Relaxed)
}

/// Sets the default size of stacks, in bytes, for all OS threads.
///
/// Applies to stacks that are taken from now on. The size is rounded up to a power of two, and to 64 KiB at least.
pub(crate) fn set_default_size(size: usize) -> Result<(), StackError> {
    let class = existing_class(size)?;
    DEFAULT_SIZE.store(size_of_class(class), Relaxed);
    Ok(())
}

/// Returns the real size of a stack for `size` bytes.
pub(crate) fn round_up(size: usize) -> io::Result<usize> {
    let class = existing_class(size).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(size_of_class(class))
}

fn existing_class(size: usize) -> Result<usize, StackError> {
    let class = class_of(size);
    if class < CLASSES { Ok(class) } else { Err(StackError::TooLarge { size, max: size_of_class(CLASSES - 1) }) }
}

/// The header of a stack.
#[repr(C, align(64))]
pub(crate) struct Stack {
    /// The next idle stack, while this one is idle.
    next: Cell<*mut Stack>,
    /// The context of the root loop that is suspended on this stack; zero if there is none.
    pub(super) context: Cell<usize>,
    top: *mut u8,
    bottom: *mut u8,
    /// The length of the guard below `bottom`.
    guard: usize,
    slab: *const Slab,
    class: usize,
}

const _: () = assert!(size_of::<Stack>() == 64);

/// Refers to a stack of this OS thread.
pub(crate) type StackRef = NonNull<Stack>;

impl Stack {
    /// The offsets of the fields that a debugger reads: top and bottom.
    pub(super) const OFFSETS: [u32; 2] =
        [std::mem::offset_of!(Stack, top) as u32, std::mem::offset_of!(Stack, bottom) as u32];

    /// Returns the top of the stack: the address just above its highest byte, aligned to a cache line.
    #[inline]
    pub(crate) fn top(&self) -> *mut u8 {
        self.top
    }

    /// Returns the lowest byte of the stack, just above the guard.
    #[inline]
    pub(crate) fn bottom(&self) -> *mut u8 {
        self.bottom
    }

    /// Returns the least number of bytes that the stack holds.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        size_of_class(self.class)
    }

    /// Returns whether `address` is in the guard below this stack.
    pub(crate) fn guard_contains(&self, address: usize) -> bool {
        let end = self.bottom.addr();
        (end - self.guard..end).contains(&address)
    }

    /// Returns the largest use of the stack since it was mapped or trimmed, in bytes, to the page.
    ///
    /// The use reaches from the top down to the lowest page that is in memory. Swapped-out pages are not counted.
    ///
    /// # Errors
    ///
    /// Returns the error of the system, or [`Unsupported`](io::ErrorKind::Unsupported) where the system cannot tell.
    pub(crate) fn high_water(&self) -> io::Result<usize> {
        let page = page_size();
        let end = self.top.addr().next_multiple_of(page);
        let mut pages = vec![0u8; (end - self.bottom.addr()) / page];
        resident(self.bottom, &mut pages)?;
        let untouched = pages.iter().take_while(|&&page| page & 1 == 0).count();
        Ok((self.top.addr()).saturating_sub(self.bottom.addr() + untouched * page))
    }
}

/// Fills `pages` with one byte for each page from `start`. Its lowest bit tells whether the page is in memory.
#[cfg(not(target_os = "openbsd"))]
fn resident(start: *mut u8, pages: &mut [u8]) -> io::Result<()> {
    // SAFETY: the system checks the range, touches nothing of it, and writes a byte for each page.
    let result = unsafe { libc::mincore(start.cast(), pages.len() * page_size(), pages.as_mut_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(target_os = "openbsd")]
fn resident(_: *mut u8, _: &mut [u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Idle stacks, last in first out.
struct List {
    head: Cell<*mut Stack>,
}

impl List {
    const fn new() -> List {
        List { head: Cell::new(ptr::null_mut()) }
    }

    #[inline]
    fn pop(&self) -> Option<StackRef> {
        let stack = NonNull::new(self.head.get())?;
        // SAFETY: a list contains idle stacks, whose slabs are mapped.
        self.head.set(unsafe { stack.as_ref() }.next.get());
        Some(stack)
    }

    /// # Safety
    ///
    /// The stack must be in no list, and its slab must stay mapped while it is in this one.
    #[inline]
    unsafe fn push(&self, stack: StackRef) {
        // SAFETY: its slab is mapped, by the contract.
        unsafe { stack.as_ref() }.next.set(self.head.get());
        self.head.set(stack.as_ptr());
    }

    /// Keeps the stacks for which `stays` returns true, in the same order.
    fn retain(&self, stays: impl Fn(&Stack) -> bool) {
        let mut next = self.head.get();
        let mut link = &self.head;
        // SAFETY: a list contains idle stacks, whose slabs are mapped.
        while let Some(stack) = unsafe { next.as_ref() } {
            if stays(stack) {
                link.set(next);
                link = &stack.next;
            }
            next = stack.next.get();
        }
        link.set(ptr::null_mut());
    }

    fn iter(&self) -> impl Iterator<Item = &Stack> {
        // SAFETY: a list contains idle stacks, whose slabs are mapped. No caller changes the list during the walk.
        iter::successors(unsafe { self.head.get().as_ref() }, |stack| unsafe { stack.next.get().as_ref() })
    }
}

/// The stacks of one size.
struct Class {
    /// Idle stacks with the memory that they touched.
    idle: List,
    /// Idle stacks whose memory was returned to the system.
    trimmed: List,
    /// The slab to cut from.
    slab: Cell<*const Slab>,
}

impl Class {
    const fn new() -> Class {
        Class { idle: List::new(), trimmed: List::new(), slab: Cell::new(ptr::null()) }
    }
}

/// The stacks of an OS thread.
///
/// The drop unmaps every slab without a stack in use. The other slabs are leaked.
pub(crate) struct Stacks {
    classes: [Class; CLASSES],
    /// All slabs, newest first.
    slabs: Cell<*const Slab>,
    guard: Option<GuardKind>,
}

impl Stacks {
    /// Creates an empty pool. The first stack taken maps a slab.
    pub(crate) const fn new() -> Stacks {
        Stacks { classes: [const { Class::new() }; CLASSES], slabs: Cell::new(ptr::null()), guard: None }
    }

    /// Like [`new`](Stacks::new), with this kind of guard, whatever `GREENHUB_GUARD` says.
    #[cfg(test)]
    pub(crate) const fn with_guard(guard: GuardKind) -> Stacks {
        let mut stacks = Stacks::new();
        stacks.guard = Some(guard);
        stacks
    }

    /// Takes the hottest idle stack that holds `size` bytes, or a new one.
    ///
    /// Sizes are rounded up to a power of two, and to 64 KiB at least. If the `context` is not zero, the root loop of
    /// the former use is still suspended on the stack.
    #[inline]
    pub(crate) fn take(&self, size: usize) -> Result<StackRef, StackError> {
        if let Some(class) = self.classes.get(class_of(size))
            && let Some(stack) = class.idle.pop()
        {
            return Ok(stack);
        }
        self.take_cold(size)
    }

    #[cold]
    fn take_cold(&self, size: usize) -> Result<StackRef, StackError> {
        let number = existing_class(size)?;
        let class = &self.classes[number];
        if let Some(stack) = class.trimmed.pop() {
            return Ok(stack);
        }
        // The setting is read before the first slab is mapped, so that a wrong setting fails before anything is mapped.
        let guard = self.guard.map_or_else(GuardKind::preferred, Ok)?;
        // SAFETY: the class refers to a mapped slab, because `release` clears the reference to a slab that it unmaps.
        let mut slab = unsafe { class.slab.get().as_ref() };
        if slab.is_none_or(Slab::is_used_up) {
            // SAFETY: `slabs` leads to the newest slab of `self`. `release` removes the links to a slab that it unmaps.
            let new = unsafe { Slab::map(number, slab.map_or(0, Slab::count), self.slabs.get()) }?;
            self.slabs.set(new.as_ptr());
            class.slab.set(new.as_ptr());
            super::overflow::watch();
            // SAFETY: the slab was mapped just now.
            slab = Some(unsafe { new.as_ref() });
        }
        match slab {
            // SAFETY: the slab is mapped, and not used up: an old one was checked, a new one has a stack.
            Some(slab) => unsafe { slab.cut_next(guard) },
            None => unreachable!("a slab was mapped"),
        }
    }

    /// Gives a stack back. It will be the next one taken of its class.
    ///
    /// # Safety
    ///
    /// The stack must have been taken from this pool and not given back since. Its root loop must have returned, or be
    /// suspended where it owns nothing. A suspended root loop may be resumed through `context`, or it may vanish. After
    /// it has vanished, `context` is zero. Code may run on the stack up to its next switch, if nothing takes or trims
    /// stacks on this OS thread before that.
    #[inline]
    pub(crate) unsafe fn give(&self, stack: StackRef) {
        // SAFETY: stacks in use are mapped.
        let class = unsafe { stack.as_ref() }.class;
        // SAFETY: the stack is in no list, because it was in use. `release` removes it from the list before it unmaps
        // its slab.
        unsafe { self.classes[class].idle.push(stack) };
    }

    /// Returns the memory of idle stacks to the system, except for the hottest few of each class.
    ///
    /// Returns the number of trimmed stacks. A root loop that was suspended on a trimmed stack is gone, and the
    /// `context` is zero. If the system refuses, as it does for locked memory, the stacks stay idle and do not count.
    pub(crate) fn trim(&self) -> usize {
        /// The number of stacks that a batch of greenlets may use at once when it wakes and finishes together.
        const HOT: usize = 64;

        self.classes.iter().map(|class| Self::trim_class(class, HOT)).sum()
    }

    fn trim_class(class: &Class, hot: usize) -> usize {
        let cold = || class.idle.iter().skip(hot);
        let Some(first) = cold().next() else { return 0 };
        cold().for_each(|stack| stack.context.set(0));
        let ranges = cold().map(|stack| {
            let end = stack.top.addr().next_multiple_of(page_size());
            (stack.bottom, end - stack.bottom.addr())
        });
        // SAFETY: these are whole pages of idle stacks. A root that was suspended there may vanish, as `give` promised,
        // and cannot be resumed any more.
        if unsafe { guard::advise(ranges, DISCARD) }.is_err() {
            return 0;
        }
        let count = cold().count();
        let first = ptr::from_ref(first).cast_mut();
        if let Some(last) = cold().last() {
            last.next.set(class.trimmed.head.replace(first));
        }
        match hot.checked_sub(1).and_then(|last| class.idle.iter().nth(last)) {
            Some(last_hot) => last_hot.next.set(ptr::null_mut()),
            None => class.idle.head.set(ptr::null_mut()),
        }
        count
    }

    /// Unmaps the slabs without a stack in use, and returns the memory of all other idle stacks to the system.
    pub(crate) fn release(&self) {
        for class in &self.classes {
            for stack in class.idle.iter().chain(class.trimmed.iter()) {
                // SAFETY: the slab of an idle stack is mapped.
                let idle = unsafe { &(*stack.slab).idle };
                idle.set(idle.get() + 1);
            }
        }
        for class in &self.classes {
            // SAFETY: as above; nothing was unmapped yet.
            let stays = |stack: &Stack| !unsafe { &*stack.slab }.is_unused();
            class.idle.retain(stays);
            class.trimmed.retain(stays);
            // SAFETY: the class refers to a mapped slab. The slabs are unmapped only below.
            if unsafe { class.slab.get().as_ref() }.is_some_and(Slab::is_unused) {
                class.slab.set(ptr::null());
            }
        }
        let mut slab = self.slabs.get();
        let mut link = &self.slabs;
        // SAFETY: all slabs of `self` are mapped up to here, and each is visited once.
        while let Some(current) = unsafe { slab.as_ref() } {
            let next = current.next.get();
            if current.is_unused() {
                // SAFETY: all of its stacks are idle, and their roots at rest, as `give` promised. No list and no class
                // refers to one of them any more. This is the OS thread that mapped the slab, because `Stacks` does not
                // leave its OS thread.
                unsafe { Slab::unmap(slab) };
            } else {
                current.idle.set(0);
                link.set(slab);
                link = &current.next;
            }
            slab = next;
        }
        link.set(ptr::null());
        for class in &self.classes {
            Self::trim_class(class, 0);
        }
    }

    /// Returns the numbers of stacks and their cost.
    pub(crate) fn stats(&self) -> StackStats {
        let mut stats = StackStats::default();
        for slab in self.slabs() {
            stats.slabs += 1;
            stats.reserved += slab.bytes();
            stats.mapped += slab.count();
            stats.in_use += slab.cut();
            stats.unguarded += slab.unguarded();
        }
        for class in &self.classes {
            stats.idle += class.idle.iter().count();
            stats.trimmed += class.trimmed.iter().count();
        }
        // Nothing is cut while a stack of that size is idle, so the stacks that were cut were once in use together.
        stats.most = stats.in_use;
        stats.in_use -= stats.idle + stats.trimmed;
        stats.resident = (stats.in_use + stats.idle) * page_size();
        stats
    }

    fn slabs(&self) -> impl Iterator<Item = &Slab> {
        // SAFETY: the links lead to mapped slabs only, because `release` removes the link to a slab that it unmaps. No
        // caller releases during the walk.
        iter::successors(unsafe { self.slabs.get().as_ref() }, |slab| unsafe { slab.next.get().as_ref() })
    }
}

/// Advice that releases the memory of a page. A later read returns zero or the former content.
#[cfg(any(target_os = "linux", target_os = "android"))]
const DISCARD: libc::c_int = libc::MADV_DONTNEED;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const DISCARD: libc::c_int = libc::MADV_FREE;

impl Drop for Stacks {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Stacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("top", &self.top).field("size", &self.size()).finish_non_exhaustive()
    }
}

/// The statistics of the stacks of an OS thread.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub(crate) struct StackStats {
    /// The mappings that stacks are cut from.
    pub(crate) slabs: usize,
    /// Address space reserved for stacks, in bytes.
    pub(crate) reserved: usize,
    /// Stacks that have address space.
    pub(crate) mapped: usize,
    /// The stacks that were cut. All stacks of one size were once in use at the same time.
    pub(crate) most: usize,
    /// Stacks in use.
    pub(crate) in_use: usize,
    /// Stacks given back, with the memory that they touched.
    pub(crate) idle: usize,
    /// Stacks given back whose memory was returned to the system.
    pub(crate) trimmed: usize,
    /// Stacks without a guard.
    pub(crate) unguarded: usize,
    /// The least memory of the stacks in use and idle, in bytes: one touched page each.
    pub(crate) resident: usize,
}
