//! std's `OnceLock`: a std `OnceLock` for the value, and a green [`Once`] for the waiters.

use std::fmt;
use std::sync;

use super::once::Once;

/// A synchronization primitive which can nominally be written to only once. std's `OnceLock`.
///
/// It serves green threads of one or more hubs and plain OS threads. A closure that unwinds, also by an
/// [exit](hub_core::is_exit), leaves it empty: the next closure runs.
///
/// ```
/// use greenhub::thread;
/// use greenhub::sync::OnceLock;
/// static ANSWER: OnceLock<i32> = OnceLock::new();
/// let other = thread::spawn(|| *ANSWER.wait());
/// assert_eq!(*ANSWER.get_or_init(|| 42), 42);
/// assert_eq!(other.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OnceLock<T> {
    once: Once,
    value: sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    /// Creates a new uninitialized cell.
    #[must_use]
    pub const fn new() -> OnceLock<T> {
        OnceLock { once: Once::new(), value: sync::OnceLock::new() }
    }

    /// Gets the reference to the underlying value, if it is set. Does not switch.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Gets the mutable reference to the underlying value, if it is set.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }

    /// Waits until the cell is initialized. Switches if it has to wait.
    ///
    /// # Panics
    ///
    /// Like [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn wait(&self) -> &T {
        self.once.wait_force();
        self.expect_value()
    }

    /// Initializes the contents of the cell to `value`. Switches if an initialization is under way, and waits for it.
    ///
    /// # Errors
    ///
    /// Returns the value, if the cell was initialized before.
    ///
    /// # Panics
    ///
    /// Like [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.once.call_once_force(|_| drop(value.take().map(|value| self.value.set(value))));
        value.map_or(Ok(()), Err)
    }

    /// Gets the contents of the cell, initializing it to `f()` if it is empty.
    ///
    /// Switches if `f` does, or if another initialization is under way, and waits for it. An `f` that initializes the
    /// same cell deadlocks.
    ///
    /// # Panics
    ///
    /// Panics if `f` panics, and where [`Mutex::lock`](super::Mutex::lock) does.
    #[track_caller]
    pub fn get_or_init<F: FnOnce() -> T>(&self, f: F) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        self.once.call_once_force(|_| {
            // Cannot fail: `Once` runs one closure at a time, and only until one succeeds.
            let _ = self.value.set(f());
        });
        self.expect_value()
    }

    /// Consumes the `OnceLock`, returning the wrapped value.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Takes the value out of this `OnceLock`, moving it back to an uninitialized state.
    pub fn take(&mut self) -> Option<T> {
        std::mem::take(self).into_inner()
    }

    fn expect_value(&self) -> &T {
        self.get().expect("the value is set before the closure returns")
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> OnceLock<T> {
        OnceLock::new()
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> OnceLock<T> {
        let lock = OnceLock::new();
        let _ = lock.set(value);
        lock
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> OnceLock<T> {
        self.get().map_or_else(OnceLock::new, |value| OnceLock::from(value.clone()))
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &OnceLock<T>) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
