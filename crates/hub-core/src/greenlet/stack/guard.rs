//! Guards: memory below each stack that traps.
//!
//! Best is advice (`MADV_GUARD_INSTALL`, Linux 6.13): it costs no mapping, whatever the number of
//! stacks. Else the guard is protected, which splits the slab's mapping in two for each stack, until
//! the mapping limit of the process nears. Beyond it there is no stack, unless the policy allows
//! unguarded ones.
//!
//! Ground rules:
//! - The callers pass ranges of whole pages that lie in one of their slabs and hold nothing alive:
//!   guards below stacks, or stacks that nobody uses. Advice on them changes no memory that a
//!   reference points to.

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

/// How a guard is made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum GuardKind {
    /// By advice, which takes no mapping; by protection where the system does not know that advice.
    Advice,
    /// By protection, which takes two mappings for each stack.
    Protect,
}

impl GuardKind {
    /// What `GREENHUB_GUARD` asks for, else advice.
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

/// What to do when the system allows the process no more guards below stacks. See
/// [`set_stack_policy`](crate::set_stack_policy).
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum StackPolicy {
    /// No guard, no stack: the green thread ends with [`LoopError::Stack`](crate::LoopError::Stack).
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
/// With [`StackPolicy::Unguarded`], no greenlet may need more stack than it has: it would write into
/// the stack of another one.
pub(crate) unsafe fn set_policy(policy: StackPolicy) {
    UNGUARDED.store(policy == StackPolicy::Unguarded, Relaxed);
}

/// The stacks of the process whose guard takes mappings.
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

/// How far [`install`] came.
#[derive(Copy, Clone, Default)]
pub(super) struct Installed {
    /// How many stacks of the row may be used; at least one.
    pub(super) count: usize,
    /// How many of these have a guard that takes mappings.
    pub(super) protected: usize,
    /// How many of these have no guard.
    pub(super) unguarded: usize,
}

/// Makes guards, from the front of the row, as many as may be had.
///
/// # Safety
///
/// The guards are whole pages of one slab, and hold nothing.
pub(super) unsafe fn install(kind: GuardKind, guards: Guards) -> Result<Installed, StackError> {
    // SAFETY: the caller's promise is the one that is asked for.
    if kind == GuardKind::Advice && unsafe { install_by_advice(guards) } {
        return Ok(Installed { count: guards.count, ..Installed::default() });
    }
    // SAFETY: the caller's promise is the one that is asked for.
    match unsafe { install_by_protection(guards) } {
        Ok(count) => Ok(Installed { count, protected: count, unguarded: 0 }),
        Err(StackError::MappingLimit { .. }) if UNGUARDED.load(Relaxed) => {
            Ok(Installed { count: guards.count, protected: 0, unguarded: guards.count })
        }
        Err(error) => Err(error),
    }
}

/// Whether all guards were installed; one that was and is protected in addition does no harm.
///
/// # Safety
///
/// As [`install`].
#[cfg(any(target_os = "linux", target_os = "android"))]
unsafe fn install_by_advice(guards: Guards) -> bool {
    /// The kernel does not know the advice.
    static UNKNOWN: AtomicBool = AtomicBool::new(false);
    /// Not in `libc` yet.
    const MADV_GUARD_INSTALL: c_int = 102;

    if UNKNOWN.load(Relaxed) {
        return false;
    }
    // SAFETY: guards hold nothing, so that what they held may go.
    let installed = unsafe { advise(guards.ranges(), MADV_GUARD_INSTALL) };
    if installed.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
        UNKNOWN.store(true, Relaxed);
    }
    installed.is_ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
unsafe fn install_by_advice(_: Guards) -> bool {
    false
}

/// How many guards, from the front, were protected; at least one.
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
        // SAFETY: the range lies in a slab of the caller's and holds nothing, so nobody misses it.
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

/// Each protected stack takes two mappings; a sixteenth is left to the rest of the process, because a
/// process at its limit cannot even load a library or start a thread.
fn protected_at_most(limit: usize) -> usize {
    (limit - limit / 16) / 2
}

/// How many mappings the process may have, where the system has such a limit.
fn mapping_limit() -> Option<usize> {
    static LIMIT: OnceLock<Option<usize>> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            return None;
        }
        /// What the kernel starts with; for a process that may not see `/proc`.
        const USUAL: usize = 65_530;
        let limit = fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok());
        Some(limit.unwrap_or(USUAL))
    })
}

/// Gives the system the same advice for many ranges, in few calls where it takes them.
///
/// # Safety
///
/// The ranges are whole pages of the caller's slabs, and nobody misses what the advice takes away.
pub(super) unsafe fn advise(mut ranges: impl Iterator<Item = (*mut u8, usize)>, advice: c_int) -> io::Result<()> {
    /// One KiB of the running stack, which may be a small one; more at once is not faster.
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
        // SAFETY: the caller's promise is the one that is asked for.
        if unsafe { advise_batch(&batch[..len], advice) } {
            continue;
        }
        for range in &batch[..len] {
            // SAFETY: the caller owns these pages and does not miss what the advice takes away.
            if unsafe { libc::madvise(range.iov_base, range.iov_len, advice) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
}

/// Whether one call took the whole batch. If not, parts of it may be done; advice may be given twice.
///
/// # Safety
///
/// As [`advise`].
#[cfg(any(target_os = "linux", target_os = "android"))]
unsafe fn advise_batch(batch: &[libc::iovec], advice: c_int) -> bool {
    /// Names the calling process, in a child after fork too (Linux 6.14; not in `libc` yet). A real
    /// descriptor would name the parent there, and guards would go into its memory.
    const PIDFD_SELF: c_int = -10_000;
    /// The kernel does not take batches for the process itself.
    static UNKNOWN: AtomicBool = AtomicBool::new(false);

    if batch.len() == 1 || UNKNOWN.load(Relaxed) {
        return false;
    }
    // SAFETY: the vectors name pages of the caller's, which does not miss what the advice takes away.
    let done =
        unsafe { libc::syscall(libc::SYS_process_madvise, PIDFD_SELF, batch.as_ptr(), batch.len(), advice, 0usize) };
    if done < 0 {
        UNKNOWN.store(true, Relaxed);
    }
    usize::try_from(done).is_ok_and(|done| done == batch.iter().map(|range| range.iov_len).sum())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
unsafe fn advise_batch(_: &[libc::iovec], _: c_int) -> bool {
    false
}
