//! Slabs: one mapping each, cut into stacks of one class.
//!
//! ```text
//! low                                                                          high
//! | Slab, headers | guard 0 | stack 0 | guard 1 | stack 1 | … | guard n | stack n |
//!                 | <---- stride ---> |
//! ```
//!
//! Ground rules:
//! - A slab and its headers lie at the front of its own mapping; they live until [`Slab::unmap`].
//! - Pointers into a slab are derived from the pointer of the mapping, so that they may reach all of it. No `&mut` to
//!   any of it exists; its mutable fields are cells, and belong to one OS thread.
//! - A header is written when its stack is cut, before its number counts as cut.
//! - The slabs of an OS thread form a list that a signal handler may walk at any time: a slab is complete before it is
//!   linked, and unlinked before it is unmapped.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, compiler_fence};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::param::page_size;

use super::error::StackError;
use super::guard::{self, GuardKind, Guards};
use super::{Stack, StackRef, size_of_class};

/// The least size of a guard. A C frame of this size may touch its far end first.
const GUARD: usize = 64 << 10;

/// The number of colours: tops differ by up to this many cache lines.
const COLOURS: usize = 32;
/// The distance between two colours, and the alignment of a header.
const LINE: usize = 64;

/// The largest address space of a slab, unless a single stack takes more.
const SLAB_BYTES: usize = if cfg!(target_pointer_width = "64") { 4 << 30 } else { 32 << 20 };

/// The number of stacks in the first slab of a class.
const FIRST: usize = 16;
/// The number of stacks in the largest slab of a class.
const LARGEST: usize = 8_192;

/// The measures of a class.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    /// The distance between two stacks, in bytes: an odd number of pages. With a power of two, the hot pages of
    /// neighbours would share a few sets of the cache and of the TLB.
    pub(super) stride: usize,
    /// The guard at the low end, in bytes.
    pub(super) guard: usize,
}

impl Geometry {
    pub(super) fn of_class(class: usize) -> Geometry {
        let page = page_size();
        // One page more than the size, because the colour reduces the stack at the top.
        let usable = size_of_class(class).next_multiple_of(page) + page;
        let guard = GUARD.next_multiple_of(page);
        let even = ((guard + usable) / page).is_multiple_of(2);
        let guard = guard + if even { page } else { 0 };
        Geometry { stride: guard + usable, guard }
    }

    /// Returns the number of stacks of the next slab after one of `before`.
    ///
    /// Few at first, so that a process with three greenlets does not reserve gigabytes. Then more, so that a million
    /// stacks take few mappings.
    fn count_after(self, before: usize) -> usize {
        (before * 2).clamp(FIRST, LARGEST).min(SLAB_BYTES / self.stride).max(1)
    }
}

thread_local! {
    /// All slabs of the OS thread, newest first. A plain cell without a destructor, because a signal handler reads it.
    static SLABS: Cell<*const Slab> = const { Cell::new(ptr::null()) };
}

/// One mapping, cut into stacks.
#[repr(C, align(64))]
pub(super) struct Slab {
    /// The next older slab of the same owner.
    pub(super) next: Cell<*const Slab>,
    next_of_thread: Cell<*const Slab>,
    class: usize,
    geometry: Geometry,
    /// The length of the mapping.
    len: usize,
    headers: *mut Stack,
    /// The low end of the first guard.
    first: *mut u8,
    count: usize,
    /// The number of stacks that were cut. They have headers.
    cut: Cell<usize>,
    /// The number of stacks that may be cut before the next guards are due.
    guarded: Cell<usize>,
    /// The number of guards that take mappings.
    protected: Cell<usize>,
    /// The number of stacks without a guard.
    unguarded: Cell<usize>,
    /// The number of stacks found idle, counted while the owner searches for unused slabs.
    pub(super) idle: Cell<usize>,
}

impl Slab {
    /// Maps a slab, and links it into the OS thread's list and in front of `next`.
    ///
    /// The former slab of the class has `before` stacks. The new one has fewer than planned if address space is short.
    ///
    /// # Safety
    ///
    /// `next` is null or leads to a slab of the same owner, which follows the link only while that slab is mapped.
    pub(super) unsafe fn map(class: usize, before: usize, next: *const Slab) -> Result<NonNull<Slab>, StackError> {
        let geometry = Geometry::of_class(class);
        let mut count = geometry.count_after(before);
        let (base, front, len) = loop {
            let front = (size_of::<Slab>() + count * size_of::<Stack>()).next_multiple_of(page_size());
            let len = front + count * geometry.stride;
            // SAFETY: a new mapping at an address of the system's choice.
            match unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, map_flags()) } {
                Ok(base) => break (base.cast::<u8>(), front, len),
                Err(_) if count > 1 => count /= 2,
                Err(source) => {
                    return Err(StackError::Map { size: size_of_class(class), bytes: len, source: source.into() });
                }
            }
        };
        never_huge(base, len);

        let slab = base.cast::<Slab>();
        let new = Slab {
            next: Cell::new(next),
            next_of_thread: Cell::new(SLABS.get()),
            class,
            geometry,
            len,
            headers: base.wrapping_add(size_of::<Slab>()).cast(),
            first: base.wrapping_add(front),
            count,
            cut: Cell::new(0),
            guarded: Cell::new(0),
            protected: Cell::new(0),
            unguarded: Cell::new(0),
            idle: Cell::new(0),
        };
        // SAFETY: the front of the mapping is writable, aligned to a page, and large enough. No other code refers to
        // it.
        unsafe { slab.write(new) };
        compiler_fence(Ordering::SeqCst);
        SLABS.set(slab);
        // SAFETY: a mapping is not at address zero.
        Ok(unsafe { NonNull::new_unchecked(slab) })
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn cut(&self) -> usize {
        self.cut.get()
    }

    pub(super) fn unguarded(&self) -> usize {
        self.unguarded.get()
    }

    pub(super) fn bytes(&self) -> usize {
        self.len
    }

    /// Returns whether every stack was cut.
    pub(super) fn is_used_up(&self) -> bool {
        self.cut.get() == self.count
    }

    /// Returns whether every stack that was cut was counted as idle.
    pub(super) fn is_unused(&self) -> bool {
        self.idle.get() == self.cut.get()
    }

    /// Cuts the next stack.
    ///
    /// # Safety
    ///
    /// The slab must not be used up, and not be unmapped.
    pub(super) unsafe fn cut_next(&self, kind: GuardKind) -> Result<StackRef, StackError> {
        let index = self.cut.get();
        if index == self.guarded.get() {
            self.guard_some(kind)?;
        }
        let low = self.first.wrapping_add(index * self.geometry.stride);
        let colour = (index * 5 % COLOURS) * LINE;
        let header = self.headers.wrapping_add(index);
        // SAFETY: by the contract there is a stack of this number, hence room for its header in the mapping, which only
        // this OS thread writes.
        unsafe {
            header.write(Stack {
                next: Cell::new(ptr::null_mut()),
                context: Cell::new(0),
                top: low.wrapping_add(self.geometry.stride - colour),
                bottom: low.wrapping_add(self.geometry.guard),
                guard: self.geometry.guard,
                slab: self,
                class: self.class,
            });
        }
        compiler_fence(Ordering::SeqCst);
        self.cut.set(index + 1);
        // SAFETY: the pointer is within a mapping, which is not at address zero.
        Ok(unsafe { NonNull::new_unchecked(header) })
    }

    /// Guards the next few stacks: more at once in a larger slab, never more than one batch ahead.
    fn guard_some(&self, kind: GuardKind) -> Result<(), StackError> {
        let done = self.guarded.get();
        let guards = Guards {
            first: self.first.wrapping_add(done * self.geometry.stride),
            stride: self.geometry.stride,
            len: self.geometry.guard,
            count: (self.count / 16).clamp(16, 512).min(self.count - done),
        };
        // SAFETY: these guards lie in this slab, below stacks that were not cut, and hold nothing.
        let installed = unsafe { guard::install(kind, guards) }?;
        self.guarded.set(done + installed.count);
        self.protected.set(self.protected.get() + installed.protected);
        self.unguarded.set(self.unguarded.get() + installed.unguarded);
        Ok(())
    }

    /// Unlinks the slab from the OS thread's list and unmaps it.
    ///
    /// # Safety
    ///
    /// No stack of this slab and no header may be used afterwards. `slab` must have been mapped by this OS thread, and
    /// still be mapped.
    pub(super) unsafe fn unmap(slab: *const Slab) {
        // SAFETY: the slab is still mapped, by the contract.
        let (next, len, protected) = unsafe { ((*slab).next_of_thread.get(), (*slab).len, (*slab).protected.get()) };
        if SLABS.get() == slab {
            SLABS.set(next);
        } else if let Some(previous) = of_thread().find(|other| other.next_of_thread.get() == slab) {
            previous.next_of_thread.set(next);
        }
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the slab is at the front of its mapping, whose length it records, and is no longer used, by the
        // contract. It cannot fail: the range is a whole mapping. If it did, the address space would be leaked.
        let _ = unsafe { munmap(slab.cast_mut().cast(), len) };
        guard::release(protected);
    }
}

/// Iterates over the slabs of this OS thread.
fn of_thread() -> impl Iterator<Item = &'static Slab> {
    // SAFETY: slabs in the list are complete and mapped. No caller keeps the reference: it would have to end before the
    // slab is unmapped.
    std::iter::successors(unsafe { SLABS.get().as_ref() }, |slab| unsafe { slab.next_of_thread.get().as_ref() })
}

/// Returns the stack of this OS thread whose guard contains `address`.
///
/// For a signal handler: it only reads cells, allocates nothing and takes no lock.
pub(in crate::greenlet) fn stack_guarded_at(address: usize) -> Option<StackRef> {
    of_thread().find_map(|slab| {
        let index = address.checked_sub(slab.first.addr())? / slab.geometry.stride;
        // SAFETY: headers of cut stacks are written, and lie in the mapping.
        let stack = (index < slab.cut.get()).then(|| unsafe { NonNull::new_unchecked(slab.headers.add(index)) })?;
        // SAFETY: as above.
        unsafe { stack.as_ref() }.guard_contains(address).then_some(stack)
    })
}

/// Returns flags for private memory that is not accounted for before it is touched, where the system supports this.
fn map_flags() -> MapFlags {
    let flags = MapFlags::PRIVATE;
    // FreeBSD and DragonFly do not account for it anyway.
    #[cfg(not(any(target_os = "freebsd", target_os = "dragonfly")))]
    let flags = flags | MapFlags::NORESERVE;
    // OpenBSD kills a process whose stack pointer is outside such a mapping. On FreeBSD the flag would mean a mapping
    // that grows.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "openbsd", target_os = "netbsd"))]
    let flags = flags | MapFlags::STACK;
    flags
}

/// Disables huge pages, so that one touched page of a stack stays one page.
fn never_huge(base: *mut u8, len: usize) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::mm::{Advice, madvise};
        // A kernel without huge pages refuses the advice, which is fine.
        // SAFETY: a new mapping, and the advice changes no content.
        let _ = unsafe { madvise(base.cast(), len, Advice::LinuxNoHugepage) };
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (base, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_has_twice_the_stacks_of_the_one_before_within_its_bounds() {
        let geometry = Geometry { stride: SLAB_BYTES / 100, guard: GUARD };
        let counts = [0, 16, 40, 99, usize::MAX / 2].map(|before| geometry.count_after(before));
        assert_eq!(counts, [16, 32, 80, 100, 100]);
        assert_eq!(Geometry { stride: 2 * SLAB_BYTES, ..geometry }.count_after(16), 1);
        assert_eq!(Geometry { stride: 1, ..geometry }.count_after(LARGEST), LARGEST);
    }

    #[test]
    fn a_slab_takes_its_headers_and_its_stacks() {
        // SAFETY: there is no next slab.
        let slab = unsafe { Slab::map(0, 0, ptr::null()) }.expect("address space");
        // SAFETY: just mapped by this OS thread.
        let (front, len) = unsafe { (slab.as_ref().first.addr() - slab.addr().get(), slab.as_ref().len) };
        let headers = size_of::<Slab>() + FIRST * size_of::<Stack>();
        assert_eq!(front, headers.next_multiple_of(page_size()));
        assert_eq!(len, front + FIRST * Geometry::of_class(0).stride);
        // SAFETY: no stack was cut.
        unsafe { Slab::unmap(slab.as_ptr()) };
    }

    /// Returns the flags of the mapping that contains `address`, as the system lists them.
    #[cfg(target_os = "linux")]
    fn flags_of(address: usize) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let range = |line: &str| {
            let (low, high) = line.split_once(' ')?.0.split_once('-')?;
            Some(usize::from_str_radix(low, 16).ok()?..usize::from_str_radix(high, 16).ok()?)
        };
        let mut lines = maps.lines().skip_while(|line| !range(line).is_some_and(|range| range.contains(&address)));
        lines.find_map(|line| line.strip_prefix("VmFlags:").map(str::to_owned))
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_slab_has_no_huge_pages() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return eprintln!("this system has no huge pages");
        }
        // SAFETY: there is no next slab.
        let slab = unsafe { Slab::map(0, 0, ptr::null()) }.expect("address space");
        let flags = flags_of(slab.addr().get()).expect("the system lists its mappings");
        // SAFETY: just mapped by this OS thread, and no stack was cut.
        unsafe { Slab::unmap(slab.as_ptr()) };
        assert!(flags.split(' ').any(|flag| flag == "nh"), "{flags}");
    }
}
