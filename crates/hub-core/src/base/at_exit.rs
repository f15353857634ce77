//! Functions that run when the process exits.
//!
//! Ground rule: such a function takes no lock that the code around a call of `exit` may hold, and does not block.

use std::io;

/// Calls `f` when the process exits: when `main` returns, or at a call of [`exit`](std::process::exit).
///
/// # Errors
///
/// Returns an error if the system has no memory for it.
pub(crate) fn at_exit(f: extern "C" fn()) -> io::Result<()> {
    // SAFETY: the function is safe and does not unwind out of `extern "C"`. It is mapped when it is called: `atexit`
    // ties it to the object that contains the call, and an object that is unloaded runs its functions before.
    let refused = unsafe { libc::atexit(f) };
    if refused == 0 { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
}
