//! Notices of the program about numbers: a number is about to be closed, or names a new file.

use std::os::fd::RawFd;

use crate::greenlet::local;

/// Notifies this OS thread's hub that the number `fd` is about to be closed. Does not switch.
///
/// It is for a close by other means than the drop of the owner. Eventlet's `notify_close`. The waiters of the number
/// are woken with an error, and a new descriptor with the same number never wakes them. Without waiters, nothing
/// happens. A bare number does not prove that a file is open, so the hub gets no descriptor from it, and a live
/// [`Source`](crate::Source) keeps its registration.
///
/// ```
/// use greenhub::{Interest, TrampolineError, trampoline};
/// use greenhub::park::notify_close;
/// use std::os::fd::AsRawFd;
/// use std::rc::Rc;
/// let (reader, _writer) = std::io::pipe()?;
/// let reader = Rc::new(reader);
/// let waiting = Rc::clone(&reader);
/// let green = greenhub::spawn(move || trampoline(&*waiting, Interest::READ, None));
/// greenhub::thread::yield_now();
/// notify_close(reader.as_raw_fd());
/// assert!(matches!(green.join()?, Err(TrampolineError::Closed { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// Panics inside the `wait` of a hub, which may be using the number.
#[doc(alias = "cancel_wait")]
#[doc(alias = "closing_fd")]
#[track_caller]
pub fn notify_close(fd: RawFd) {
    number_changed(fd);
}

/// Notifies this OS thread's hub that the number `fd` names a new file. Does not switch.
///
/// Waiters for the old file are woken with an error, and the new owner may wait at once. Eventlet's `notify_opened`.
///
/// # Panics
///
/// The same as [`notify_close`].
#[track_caller]
pub fn notify_opened(fd: RawFd) {
    number_changed(fd);
}

fn number_changed(fd: RawFd) {
    if fd < 0 {
        return;
    }
    if let Some(local) = local::try_get() {
        local.main_loop.given_up(fd);
    }
}
