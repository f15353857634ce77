//! `green_local!`: values of which each greenlet has its own.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::ptr;
use std::rc::Rc;

use crate::greenlet::local;
use crate::greenlet::run;

/// A key to a value of which each green thread has its own. std's `LocalKey`.
///
/// `green_local!` declares it.
///
/// The value is made on a green thread's first use. It is dropped when the green thread ends in any way, in the context
/// of that green thread and before its waiters resume. The destructor may block. The main greenlet of an OS thread has
/// a value too, which is dropped with the OS thread. So has an OS thread without green threads.
#[doc(alias = "corolocal")]
#[doc(alias = "threadlocal")]
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
}

/// An error of [`LocalKey::try_with`]: the green thread is ending.
///
/// It is std's `AccessError`.
///
/// Its value is destroyed, or is not made any more.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct AccessError;

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the green thread is ending and no longer has this value")
    }
}

impl Error for AccessError {}

impl<T: 'static> LocalKey<T> {
    /// Creates a key. `green_local!` expands to a call of this.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(init: fn() -> T) -> LocalKey<T> {
        LocalKey { init }
    }

    /// Calls `f` with the value of the running green thread. Does not switch by itself.
    ///
    /// The value is made first if this is its first use.
    ///
    /// # Panics
    ///
    /// Panics if the green thread is ending and its value is destroyed: see [`try_with`](LocalKey::try_with).
    #[track_caller]
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        granted(self.try_with(f))
    }

    /// Like [`with`](LocalKey::with), but returns an error for a destroyed value. Does not switch by itself.
    ///
    /// It is for destructors that run when the green thread ends.
    ///
    /// # Errors
    ///
    /// Returns [`AccessError`] if the green thread is ending and its value is destroyed.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        self.value_or(self.init).map(|value| f(&value))
    }

    /// Returns the value of the running green thread, or panics as [`with`](LocalKey::with) does.
    #[track_caller]
    fn here(&'static self) -> Rc<T> {
        granted(self.value_or(self.init))
    }

    /// Returns the value of the running green thread. `init` runs while nothing is borrowed, and may use the same key.
    fn value_or(&'static self, init: impl FnOnce() -> T) -> Result<Rc<T>, AccessError> {
        let key = ptr::from_ref(self).addr();
        let find = || run::current().local_value(key);
        let value = match find() {
            Some(value) => value,
            None if local::has_ended() || run::current().drops_local_values() => return Err(AccessError),
            None => {
                let made: Rc<dyn Any> = Rc::new(init());
                // If `init` has made a value of the same key, that value stays.
                find().unwrap_or_else(|| {
                    run::current().add_local_value(key, Rc::clone(&made));
                    made
                })
            }
        };
        value.downcast().map_err(|_| AccessError)
    }

    /// Makes the first value from `value` instead of `init`. If there is a value already, returns it with `value`.
    fn begin_with<V>(&'static self, value: V, make: fn(V) -> T) -> Result<Option<(Rc<T>, V)>, AccessError> {
        let mut value = Some(value);
        let there = self.value_or(|| value.take().map_or_else(self.init, make))?;
        Ok(value.map(|value| (there, value)))
    }
}

/// Returns the result, or panics with the error as `with` does.
#[track_caller]
fn granted<R>(result: Result<R, AccessError>) -> R {
    match result {
        Ok(result) => result,
        Err(error) => panic!("{error}"),
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the value, without making the initial one. Does not switch.
    ///
    /// # Panics
    ///
    /// The same as [`with`](LocalKey::with).
    #[track_caller]
    pub fn set(&'static self, value: T) {
        if let Some((cell, value)) = granted(self.begin_with(value, Cell::new)) {
            cell.set(value);
        }
    }

    /// Returns a copy of the value. Does not switch.
    ///
    /// # Panics
    ///
    /// The same as [`with`](LocalKey::with).
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.here().get()
    }

    /// Takes the value, leaving `Default::default()` in its place. Does not switch.
    ///
    /// # Panics
    ///
    /// The same as [`with`](LocalKey::with).
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.here().take()
    }

    /// Replaces the value, and returns the old one. Does not switch.
    ///
    /// # Panics
    ///
    /// The same as [`with`](LocalKey::with).
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.here().replace(value)
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Calls `f` with a shared borrow of the value. Does not switch by itself.
    ///
    /// # Panics
    ///
    /// The same as [`with`](LocalKey::with). Also panics if the value is mutably borrowed.
    #[track_caller]
    pub fn with_borrow<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.here().borrow())
    }

    /// Calls `f` with a mutable borrow of the value. Does not switch by itself.
    ///
    /// # Panics
    ///
    /// The same as [`with`](LocalKey::with). Also panics if the value is borrowed.
    #[track_caller]
    pub fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.here().borrow_mut())
    }

    /// Sets the value, without making the initial one. Does not switch.
    ///
    /// # Panics
    ///
    /// The same as [`with`](LocalKey::with). Also panics if the value is borrowed.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        if let Some((cell, value)) = granted(self.begin_with(value, RefCell::new)) {
            cell.replace(value);
        }
    }

    /// Takes the value, leaving `Default::default()` in its place. Does not switch.
    ///
    /// # Panics
    ///
    /// The same as [`with`](LocalKey::with). Also panics if the value is borrowed.
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.here().replace(T::default())
    }

    /// Replaces the value, and returns the old one. Does not switch.
    ///
    /// # Panics
    ///
    /// The same as [`with`](LocalKey::with). Also panics if the value is borrowed.
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.here().replace(value)
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}
