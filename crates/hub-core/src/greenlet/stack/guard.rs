//! Guards: memory below each stack that traps.
//!
//! The best guard is made by advice (`MADV_GUARD_INSTALL`, Linux 6.13): it costs no mapping, for any number of stacks.
//! Otherwise the guard is protected memory, which splits the slab's mapping in two for each stack, until the process is
//! near its mapping limit. Beyond the limit there is no stack, unless the policy allows unguarded ones.
//!
//! Ground rules:
//! - The callers pass ranges of whole pages that lie in one of their slabs and contain nothing alive: guards below
//!   stacks, or stacks that are not in use. Advice on them changes no memory that a reference points to.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use libc::{c_int, c_void};
use rustix::io::Errno;
use rustix::mm::{MprotectFlags, mprotect};

use super::error::StackError;

/// The way in which a guard is made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum GuardKind {
    /// By advice, which takes no mapping; by protection where the system lacks that advice.
    Advice,
    /// By protection, which takes two mappings for each stack.
    Protect,
}

impl GuardKind {
    /// Returns the kind that `GREENHUB_GUARD` names, or advice.
    ///
    /// The variable is read once. `GREENHUB_GUARD=mprotect` runs a whole program, or its tests, as
    /// it would run on a system without guards by advice.
    pub(super) fn preferred() -> Result<GuardKind, StackError> {
        static PREFERRED: OnceLock<Result<GuardKind, OsString>> = OnceLock::new();
        let preferred = PREFERRED.get_or_init(|| match env::var_os("GREENHUB_GUARD") {
            None => Ok(GuardKind::Advice),
            Some(value) if value == "advice" => Ok(GuardKind::Advice),
            Some(value) if value == "mprotect" => Ok(GuardKind::Protect),
            Some(value) => Err(value),
        });
        preferred.clone().map_err(|value| StackError::UnknownGuard { value })
    }
}

/// The policy for stacks beyond the number of guards that the system allows.
///
/// See [`set_stack_policy`](crate::set_stack_policy).
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum StackPolicy {
    /// No guard, no stack: the green thread ends with [`LoopErrorKind::Stack`](crate::LoopErrorKind::Stack).
    #[default]
    Guarded,
    /// Stacks without a guard.
    Unguarded,
}

static UNGUARDED: AtomicBool = AtomicBool::new(false);

/// Sets the policy of the process for stacks that are mapped from now on.
///
/// # Safety
///
/// With [`StackPolicy::Unguarded`], no greenlet may need more stack than it has. It would write into the stack of
/// another greenlet.
pub(crate) unsafe fn set_policy(policy: StackPolicy) {
    UNGUARDED.store(policy == StackPolicy::Unguarded, Relaxed);
}

/// Returns the policy of the process.
pub(crate) fn policy() -> StackPolicy {
    if UNGUARDED.load(Relaxed) { StackPolicy::Unguarded } else { StackPolicy::Guarded }
}

/// The number of stacks of the process whose guard takes mappings.
static PROTECTED: AtomicUsize = AtomicUsize::new(0);

/// Gives back the mappings of `stacks` guards, whose slab is gone.
pub(super) fn release(stacks: usize) {
    PROTECTED.fetch_sub(stacks, Relaxed);
}

/// A row of guards, `stride` bytes apart.
#[derive(Copy, Clone)]
pub(super) struct Guards {
    pub(super) first: *mut u8,
    pub(super) stride: usize,
    pub(super) len: usize,
    pub(super) count: usize,
}

impl Guards {
    fn ranges(self) -> impl Iterator<Item = (*mut u8, usize)> {
        (0..self.count).map(move |index| (self.first.wrapping_add(index * self.stride), self.len))
    }
}

/// The result of [`install`].
#[derive(Copy, Clone, Default)]
pub(super) struct Installed {
    /// The number of stacks of the row that may be used; at least one.
    pub(super) count: usize,
    /// The number of these whose guard takes mappings.
    pub(super) protected: usize,
    /// The number of these without a guard.
    pub(super) unguarded: usize,
}

/// Installs guards from the front of the row, as many as the system allows.
///
/// # Safety
///
/// The guards must be whole pages of one slab, and contain nothing.
pub(super) unsafe fn install(kind: GuardKind, guards: Guards) -> Result<Installed, StackError> {
    // SAFETY: the contract is the same.
    if kind == GuardKind::Advice && unsafe { install_by_advice(guards) } {
        return Ok(Installed { count: guards.count, ..Installed::default() });
    }
    // SAFETY: the contract is the same.
    match unsafe { install_by_protection(guards) } {
        Ok(count) => Ok(Installed { count, protected: count, unguarded: 0 }),
        Err(StackError::MappingLimit { .. }) if UNGUARDED.load(Relaxed) => {
            Ok(Installed { count: guards.count, protected: 0, unguarded: guards.count })
        }
        Err(error) => Err(error),
    }
}

/// Installs all guards by advice. Returns false if one failed. A guard that is protected in addition does no harm.
///
/// # Safety
///
/// As [`install`].
#[cfg(any(target_os = "linux", target_os = "android"))]
unsafe fn install_by_advice(guards: Guards) -> bool {
    /// Whether the kernel lacks the advice.
    static UNKNOWN: AtomicBool = AtomicBool::new(false);
    /// Not in `libc` yet.
    const MADV_GUARD_INSTALL: c_int = 102;

    if UNKNOWN.load(Relaxed) {
        return false;
    }
    // SAFETY: guards contain nothing, so their content may be discarded.
    let installed = unsafe { advise(guards.ranges(), MADV_GUARD_INSTALL) };
    if installed.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
        UNKNOWN.store(true, Relaxed);
    }
    installed.is_ok()
}

/// Returns false: this system has no such advice.
///
/// # Safety
///
/// As [`install`].
#[cfg(not(any(target_os = "linux", target_os = "android")))]
unsafe fn install_by_advice(_: Guards) -> bool {
    false
}

/// Protects guards from the front of the row. Returns how many were protected; at least one.
///
/// # Safety
///
/// As [`install`].
unsafe fn install_by_protection(guards: Guards) -> Result<usize, StackError> {
    let allowed = mapping_limit().map_or(usize::MAX, protected_at_most);
    let granted = |before: usize| guards.count.min(allowed.saturating_sub(before));
    let before = match PROTECTED.fetch_update(Relaxed, Relaxed, |before| Some(before + granted(before))) {
        Ok(before) | Err(before) => before,
    };
    let granted = granted(before);

    let mut refused = None;
    let mut done = 0;
    for (guard, len) in guards.ranges().take(granted) {
        // SAFETY: the range lies in a slab of the caller and contains nothing in use.
        match unsafe { mprotect(guard.cast::<c_void>(), len, MprotectFlags::empty()) } {
            Ok(()) => done += 1,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    release(granted - done);

    match (done, refused, mapping_limit()) {
        (1.., _, _) => Ok(done),
        (0, None | Some(Errno::NOMEM), Some(limit)) => Err(StackError::MappingLimit { limit, stacks: before }),
        (0, Some(error), _) => Err(StackError::Guard { source: error.into() }),
        (0, None, None) => Err(StackError::Guard { source: io::ErrorKind::OutOfMemory.into() }),
    }
}

/// Returns the largest number of protected stacks.
///
/// Each takes two mappings. A sixteenth of the limit is left to the rest of the process, because a process at its limit
/// cannot even load a library or start an OS thread.
fn protected_at_most(limit: usize) -> usize {
    (limit - limit / 16) / 2
}

/// Returns the mapping limit of the process, where the system has such a limit.
fn mapping_limit() -> Option<usize> {
    static LIMIT: OnceLock<Option<usize>> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            return None;
        }
        /// The default of the kernel, for a process without access to `/proc`.
        const USUAL: usize = 65_530;
        let limit = fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok());
        Some(limit.unwrap_or(USUAL))
    })
}

/// Gives the system the same advice for many ranges, in few calls where the system accepts that.
///
/// # Safety
///
/// The ranges must be whole pages of the caller's slabs, and the advice must not discard content that is in use.
pub(super) unsafe fn advise(mut ranges: impl Iterator<Item = (*mut u8, usize)>, advice: c_int) -> io::Result<()> {
    /// One KiB of the running stack, which may be a small one. A larger batch is not faster.
    const BATCH: usize = 64;

    let mut batch = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
    loop {
        let mut len = 0;
        for (entry, (start, bytes)) in batch.iter_mut().zip(ranges.by_ref()) {
            *entry = libc::iovec { iov_base: start.cast(), iov_len: bytes };
            len += 1;
        }
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the contract is the same.
        if unsafe { advise_batch(&batch[..len], advice) } {
            continue;
        }
        for range in &batch[..len] {
            // SAFETY: the caller owns these pages, and the advice discards no content in use.
            if unsafe { libc::madvise(range.iov_base, range.iov_len, advice) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
}

/// Gives the advice for a batch in one call. Returns false if the call did not take the whole batch.
///
/// Parts of the batch may be done then. Advice may be given twice.
///
/// # Safety
///
/// As [`advise`].
#[cfg(any(target_os = "linux", target_os = "android"))]
unsafe fn advise_batch(batch: &[libc::iovec], advice: c_int) -> bool {
    /// Refers to the calling process, in a child after fork too (Linux 6.14; not in `libc` yet). A real descriptor
    /// would refer to the parent there, and guards would be installed in the parent's memory.
    const PIDFD_SELF: c_int = -10_000;
    /// Whether the kernel refuses batches for the process itself.
    static UNKNOWN: AtomicBool = AtomicBool::new(false);

    if batch.len() == 1 || UNKNOWN.load(Relaxed) {
        return false;
    }
    // SAFETY: the vectors refer to pages of the caller, and the advice discards no content in use.
    let done =
        unsafe { libc::syscall(libc::SYS_process_madvise, PIDFD_SELF, batch.as_ptr(), batch.len(), advice, 0usize) };
    if done < 0 {
        UNKNOWN.store(true, Relaxed);
    }
    usize::try_from(done).is_ok_and(|done| done == batch.iter().map(|range| range.iov_len).sum())
}

/// Returns false: this system takes no batches.
///
/// # Safety
///
/// As [`advise`].
#[cfg(not(any(target_os = "linux", target_os = "android")))]
unsafe fn advise_batch(_: &[libc::iovec], _: c_int) -> bool {
    false
}
