//! The setting that makes a second simultaneous waiter an error.

use std::sync::atomic::{AtomicBool, Ordering};

static PREVENT_MULTIPLE_READERS: AtomicBool = AtomicBool::new(true);

/// Sets whether a second simultaneous waiter of a direction is an error.
///
/// Applies to the whole process. Eventlet's `hub_prevent_multiple_readers`. If it is off, the waiters of a direction
/// queue in order. A waiter behind a listener waits until the listener is deregistered. A listener for a direction that
/// has a waiter is refused in any case.
///
/// ```
/// use greenhub::{Interest, TrampolineError, trampoline};
/// use greenhub::debug::hub_prevent_multiple_readers;
/// use std::rc::Rc;
/// let (reader, writer) = std::io::pipe()?;
/// let (reader, other) = (Rc::new(reader), writer);
/// let wait = |reader: &Rc<std::io::PipeReader>| {
///     let reader = Rc::clone(reader);
///     greenhub::spawn(move || trampoline(&*reader, Interest::READ, None))
/// };
/// let (first, second) = (wait(&reader), wait(&reader));
/// assert!(matches!(second.join()?, Err(TrampolineError::SecondSimultaneous { .. })));
/// hub_prevent_multiple_readers(false);
/// let third = wait(&reader);
/// drop(other);
/// assert!(first.join()?.is_ok() && third.join()?.is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn hub_prevent_multiple_readers(prevent: bool) {
    PREVENT_MULTIPLE_READERS.store(prevent, Ordering::Relaxed);
}

/// Returns whether a second simultaneous waiter of a direction is an error.
pub fn prevents_multiple_readers() -> bool {
    PREVENT_MULTIPLE_READERS.load(Ordering::Relaxed)
}
