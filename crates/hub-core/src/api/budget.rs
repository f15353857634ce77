//! The budget of operations.

use crate::error::LoopError;
use crate::greenlet::run;

/// Counts one operation, and yields after many in a row without a wait. Switches then.
///
/// A loop over operations that never wait would starve all other green threads of its OS thread. Sockets, pipes,
/// channels and queues therefore call this before each operation. A primitive of your own should do the same. A green
/// thread that waits or yields gets a new budget, of at least 16 operations. Where nothing may switch, as in the main
/// loop, in a poll of a future and while panicking, this returns at once. Tokio's `consume_budget`.
///
/// Call it before the operation and without a lock: an exit may strike here, and the result of an operation that was
/// already done would be lost.
///
/// ```
/// let other = greenhub::spawn(|| ());
/// while !other.is_finished() {
///     greenhub::park::consume_budget()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// In the main greenlet, returns the error that the main loop has for it.
#[inline]
pub fn consume_budget() -> Result<(), LoopError> {
    if run::charge() { Ok(()) } else { run::operations_used_up() }
}
