//! std's `LazyLock`: a green [`OnceLock`], and the closure that makes its value.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync;

use super::once_lock::OnceLock;

/// std's `LazyLock`, for green threads of one or more hubs and for plain OS threads.
///
/// A closure that is left by unwinding, also by a kill or a timeout, poisons it for good: there is no other one.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::{sync::LazyLock, thread};
/// static ANSWER: LazyLock<i32> = LazyLock::new(|| {
///     thread::yield_now();
///     42
/// });
/// let other = thread::spawn(|| *ANSWER);
/// assert_eq!(*ANSWER, 42);
/// assert_eq!(other.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct LazyLock<T, F = fn() -> T> {
    value: OnceLock<T>,
    /// Gone when it runs. Locked to take it, not while it runs.
    make: sync::Mutex<Option<F>>,
}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// One whose value `make` makes when it is first asked for.
    #[must_use]
    pub const fn new(make: F) -> LazyLock<T, F> {
        LazyLock { value: OnceLock::new(), make: sync::Mutex::new(Some(make)) }
    }

    /// The value, made if it is not there, as dereferencing does. Switches if somebody is about to make it, and waits
    /// for them, and if the closure does. A closure that asks for the value waits for ever.
    ///
    /// # Panics
    ///
    /// If the closure does or was left by unwinding before; as [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn force(this: &LazyLock<T, F>) -> &T {
        this.value.get_or_init(|| {
            let make = this.make.lock().unwrap_or_else(sync::PoisonError::into_inner).take();
            let Some(make) = make else { panic!("LazyLock instance has previously been poisoned") };
            make()
        })
    }

    /// As [`force`](LazyLock::force), to change it.
    ///
    /// # Panics
    ///
    /// As there.
    #[track_caller]
    pub fn force_mut(this: &mut LazyLock<T, F>) -> &mut T {
        LazyLock::force(this);
        this.value.get_mut().expect("it was forced")
    }
}

impl<T, F> LazyLock<T, F> {
    /// The value, if it was made. Does not switch.
    pub fn get(this: &LazyLock<T, F>) -> Option<&T> {
        this.value.get()
    }

    /// The value, if it was made.
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

// As std's: a closure that was left is never called again, and a value is there whole or not at all.
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}
