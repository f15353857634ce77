//! std's `LazyLock`: a green [`OnceLock`] with the closure that initializes it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync;

use super::once_lock::OnceLock;

/// A value which is initialized on the first access, std's `LazyLock`.
///
/// It serves green threads of one or more hubs and plain OS threads. A closure that unwinds, also by an
/// [exit](hub_core::is_exit), poisons the value for good: there is no other closure.
///
/// ```
/// use greenhub::thread;
/// use greenhub::sync::LazyLock;
/// static ANSWER: LazyLock<i32> = LazyLock::new(|| {
///     thread::yield_now();
///     42
/// });
/// let other = thread::spawn(|| *ANSWER);
/// assert_eq!(*ANSWER, 42);
/// assert_eq!(other.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LazyLock<T, F = fn() -> T> {
    value: OnceLock<T>,
    /// Taken by the run of the closure. Locked while it is taken, not while it runs.
    make: sync::Mutex<Option<F>>,
}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// Creates a new lazy value with the given initializing function.
    #[must_use]
    pub const fn new(make: F) -> LazyLock<T, F> {
        LazyLock { value: OnceLock::new(), make: sync::Mutex::new(Some(make)) }
    }

    /// Forces the evaluation of this lazy value and returns a reference to the result.
    ///
    /// Dereferencing does the same. Switches if the closure does, or if another initialization is under way, and waits
    /// for it. A closure that forces its own lazy value deadlocks.
    ///
    /// # Panics
    ///
    /// Panics if the closure panics, if it was unwound before, and where [`Mutex::lock`](super::Mutex::lock) does.
    #[track_caller]
    pub fn force(this: &LazyLock<T, F>) -> &T {
        this.value.get_or_init(|| {
            let make = this.make.lock().unwrap_or_else(sync::PoisonError::into_inner).take();
            let Some(make) = make else { panic!("LazyLock instance has previously been poisoned") };
            make()
        })
    }

    /// Forces the evaluation and returns a mutable reference to the result.
    ///
    /// # Panics
    ///
    /// Like [`force`](LazyLock::force).
    #[track_caller]
    pub fn force_mut(this: &mut LazyLock<T, F>) -> &mut T {
        LazyLock::force(this);
        this.value.get_mut().expect("the value was forced")
    }
}

impl<T, F> LazyLock<T, F> {
    /// Returns a reference to the value if initialized. Does not switch.
    pub fn get(this: &LazyLock<T, F>) -> Option<&T> {
        this.value.get()
    }

    /// Returns a mutable reference to the value if initialized.
    pub fn get_mut(this: &mut LazyLock<T, F>) -> Option<&mut T> {
        this.value.get_mut()
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    #[track_caller]
    fn deref(&self) -> &T {
        LazyLock::force(self)
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        LazyLock::force_mut(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    fn default() -> LazyLock<T> {
        LazyLock::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_tuple("LazyLock");
        match LazyLock::get(self) {
            Some(value) => shown.field(value),
            None => shown.field(&format_args!("<uninit>")),
        };
        shown.finish()
    }
}

// As in std: a closure that unwound is never called again, and a value is there whole or not at all.
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}
