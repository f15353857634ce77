//! std's `OnceLock`: std's own for the value, and a green [`Once`] for those who wait.

use std::fmt;
use std::sync;

use super::once::Once;

/// std's `OnceLock`, for green threads of one or more hubs and for plain OS threads.
///
/// A closure that is left by unwinding, also by a kill or a timeout, leaves it empty: the next one runs.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::{sync::OnceLock, thread};
/// static ANSWER: OnceLock<i32> = OnceLock::new();
/// let other = thread::spawn(|| *ANSWER.wait());
/// assert_eq!(*ANSWER.get_or_init(|| 42), 42);
/// assert_eq!(other.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct OnceLock<T> {
    once: Once,
    value: sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> OnceLock<T> {
        OnceLock { once: Once::new(), value: sync::OnceLock::new() }
    }

    /// The value, if it is there. Does not switch.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, if it is there.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }

    /// Waits for the value. Switches if it has to wait.
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn wait(&self) -> &T {
        self.once.wait_force();
        self.there()
    }

    /// Puts a value there. Switches if somebody is about to do so, and waits for them.
    ///
    /// # Errors
    ///
    /// The value, if there was one already.
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.once.call_once_force(|_| drop(value.take().map(|value| self.value.set(value))));
        value.map_or(Ok(()), Err)
    }

    /// The value, made by `f` if there is none. Switches if somebody is about to make it, and waits for them, and
    /// if `f` does. An `f` that asks for the value waits for ever.
    ///
    /// # Panics
    ///
    /// If `f` does; as [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn get_or_init<F: FnOnce() -> T>(&self, f: F) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        self.once.call_once_force(|_| {
            // Nobody else sets it: this is the one closure that runs.
            let _ = self.value.set(f());
        });
        self.there()
    }

    /// The value.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Takes the value out; then it is empty.
    pub fn take(&mut self) -> Option<T> {
        std::mem::take(self).into_inner()
    }

    fn there(&self) -> &T {
        self.get().expect("set before the closure returned")
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
