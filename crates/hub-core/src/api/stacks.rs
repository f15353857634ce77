//! Settings of the process for the stacks of green threads.
//!
//! Ground rule: what is unsafe here is so by its contract alone, which is handed on to [`stack`] as it is.

use std::io;

use crate::greenlet::stack;

pub use crate::greenlet::stack::StackPolicy;

/// The size of a stack for which nobody asked for another, in bytes: 256 KiB, or what was set.
#[must_use]
pub fn default_stack_size() -> usize {
    stack::default_size()
}

/// Sets the size of the stacks of green threads that begin from now on and were not given one by
/// [`Builder::stack_size`](crate::Builder::stack_size), in bytes, for all threads of the process. It is rounded
/// up to a power of two, 64 KiB at least. A stack takes address space in that size, but memory only where it
/// was touched. Does not switch.
///
/// A panic runs its hook on the stack that panics, before it unwinds: std's takes 20 KiB of it where it prints a
/// backtrace.
///
/// ```
/// hub_core::set_default_stack_size(100_000)?;
/// assert_eq!(hub_core::default_stack_size(), 128 * 1024);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if no stack can be that large; then nothing changes.
pub fn set_default_stack_size(size: usize) -> io::Result<()> {
    stack::set_default_size(size).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Sets what is done when the system allows no more guards, for stacks that are mapped from now on, in the
/// whole process. Without a call every stack has a guard: an access beyond the end of the stack ends the
/// process with a message.
///
/// Only systems where a guard takes memory mappings (Linux before 6.13, others) have such a limit, of some ten
/// thousand green threads. Does not switch.
///
/// ```
/// use hub_core::StackPolicy;
/// // SAFETY: asks for guards, as without the call.
/// unsafe { hub_core::set_stack_policy(StackPolicy::Guarded) };
/// ```
///
/// # Safety
///
/// With [`StackPolicy::Unguarded`] no green thread of the process may ever need more stack than it has: it would
/// write into the stack of another one, unnoticed.
pub unsafe fn set_stack_policy(policy: StackPolicy) {
    // SAFETY: by the contract, which is the same.
    unsafe { stack::set_policy(policy) };
}
