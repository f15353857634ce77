//! The two unchecked steps: a runtime context without a lifetime, and the registration of a descriptor with Tokio.
//!
//! Ground rules:
//! - A [`Context`] owns the handle that its guard borrows. The handle has an address of its own, and is freed only
//!   after the guard was dropped or forgotten. No other code gets the guard.
//! - A [`Readable`] owns the descriptor that Tokio watches. No other code gets it, so its number stays open and names
//!   the same open file until Tokio has removed it.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::task::{Context as TaskContext, Poll, ready};

use hub_core::hub::warn;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{EnterGuard, Handle};

/// The context of a runtime, entered until this is dropped.
///
/// Contexts of one OS thread must be left in reverse order. If the program has entered another one since, Tokio panics.
/// That is reported as a warning.
pub(crate) struct Context {
    // In the order of the drop.
    _guard: Guard,
    _handle: HandleBox,
}

impl Context {
    /// Enters the context of a runtime.
    pub(crate) fn enter(handle: &Handle) -> Context {
        let handle = HandleBox(NonNull::from(Box::leak(Box::new(handle.clone()))));
        // SAFETY: the handle was just allocated and is never changed. `_handle` frees it after `_guard`, the only
        // borrower, is gone: fields are dropped in the order of their declaration, also if the drop of the first one
        // panics.
        let guard = unsafe { handle.0.as_ref() }.enter();
        Context { _guard: Guard(Some(guard)), _handle: handle }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

struct Guard(Option<EnterGuard<'static>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let guard = self.0.take();
        // The destructors of an ending OS thread may drop Tokio's state before this. The drop of the guard would panic.
        if Handle::try_current().is_err_and(|error| error.is_thread_local_destroyed()) {
            return mem::forget(guard);
        }
        if catch_unwind(AssertUnwindSafe(|| drop(guard))).is_err() {
            warn("hub tokio ended while the program held a guard of `Handle::enter` that is younger than the hub");
        }
    }
}

struct HandleBox(NonNull<Handle>);

impl Drop for HandleBox {
    fn drop(&mut self) {
        // SAFETY: the pointer is that of a leaked box, and this is the only owner. The guard that borrows the handle is
        // gone: a `HandleBox` is dropped as the last field of a `Context`.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// A descriptor of which Tokio reports that it becomes readable.
#[derive(Debug)]
pub(crate) struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Registers `fd` with the runtime whose context is entered.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Readable> {
        // SAFETY: the descriptor is open, since an `OwnedFd` is. It is never closed or replaced while it is registered:
        // only the `AsyncFd` owns it, and this type never passes it on.
        Ok(Readable(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?))
    }

    /// Takes the readiness, if there is some. A later edge of the descriptor makes it ready again.
    ///
    /// If it is not ready, the task is woken when it is.
    pub(crate) fn poll_take(&self, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(context))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}
