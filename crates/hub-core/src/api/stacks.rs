//! Settings of the process for the stacks of green threads.
//!
//! Ground rule: the unsafe function here has a contract only, which is passed on to [`stack`] unchanged.

use std::io;

use crate::greenlet::stack;

pub use crate::greenlet::stack::StackPolicy;

/// Returns the default stack size in bytes.
///
/// It is 256 KiB, unless [`set_default_stack_size`] changed it.
#[must_use]
pub fn default_stack_size() -> usize {
    stack::default_size()
}

/// Sets the default stack size in bytes, for all OS threads of the process. Does not switch.
///
/// It applies to green threads that begin from now on without a [`Builder::stack_size`](crate::Builder::stack_size). It
/// is rounded up to a power of two, at least 64 KiB. A stack takes address space of that size, but memory only for the
/// pages that were touched.
///
/// A panic runs its hook on the panicking stack before it unwinds. std's hook takes 20 KiB of stack when it prints a
/// backtrace.
///
/// ```
/// greenhub::greenthread::set_default_stack_size(100_000)?;
/// assert_eq!(greenhub::greenthread::default_stack_size(), 128 * 1024);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) if no stack can be that large; then nothing changes.
pub fn set_default_stack_size(size: usize) -> io::Result<()> {
    stack::set_default_size(size).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Sets the policy for stacks when the system allows no more guards. Does not switch.
///
/// It applies to stacks that are mapped from now on, in the whole process. By default every stack has a guard: an
/// access beyond the end of the stack ends the process with a message.
///
/// Only systems where a guard takes memory mappings (Linux before 6.13, others) have such a limit, of some ten thousand
/// green threads.
///
/// ```
/// use greenhub::greenthread::StackPolicy;
/// // SAFETY: asks for guards, as without the call.
/// unsafe { greenhub::greenthread::set_stack_policy(StackPolicy::Guarded) };
/// ```
///
/// # Safety
///
/// With [`StackPolicy::Unguarded`] no green thread of the process may ever need more stack than it has: it would
/// silently write into the stack of another one.
pub unsafe fn set_stack_policy(policy: StackPolicy) {
    // SAFETY: the caller upholds the same contract.
    unsafe { stack::set_policy(policy) };
}

/// Returns the policy that [`set_stack_policy`] has set. Does not switch.
///
/// ```
/// use greenhub::greenthread::{StackPolicy, stack_policy};
/// assert_eq!(stack_policy(), StackPolicy::Guarded);
/// ```
#[must_use]
pub fn stack_policy() -> StackPolicy {
    stack::policy()
}
