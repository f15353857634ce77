//! `green_local!`: values of which each greenlet has its own.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::ptr;
use std::rc::Rc;

use crate::greenlet::local;
use crate::greenlet::run;

/// A value of which each green thread has its own, std's `LocalKey`; declared by `green_local!`.
///
/// It is made when a green thread first uses it, and dropped when that ends, however that comes about: in its
/// own context, before those who wait for it go on. The destructor may block. The main greenlet of an OS thread has a
/// value too, which is dropped with the thread; so has an OS thread without green threads.
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
}

/// The green thread is ending: its value is gone, or is not made any more. std's `AccessError`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct AccessError;

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the green thread is ending: it has this value no more")
    }
}

impl Error for AccessError {}

impl<T: 'static> LocalKey<T> {
    /// What `green_local!` expands to.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(init: fn() -> T) -> LocalKey<T> {
        LocalKey { init }
    }

    /// Lends the value of the running green thread to `f`; makes it before, if this is the first use. Does not switch
    /// by itself.
    ///
    /// # Panics
    ///
    /// If the green thread is ending and the value is gone: see [`try_with`](LocalKey::try_with).
    #[track_caller]
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        granted(self.try_with(f))
    }

    /// As [`with`](LocalKey::with), where a destructor may ask that runs when the green thread ends.
    ///
    /// # Errors
    ///
    /// If the green thread is ending and has the value no more.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        self.value_or(self.init).map(|value| f(&value))
    }

    /// The value of the running green thread. `init` runs while nothing is borrowed, and may use the same key.
    fn value_or(&'static self, init: impl FnOnce() -> T) -> Result<Rc<T>, AccessError> {
        let key = ptr::from_ref(self).addr();
        // It is that of the running greenlet, which does not end before its values: no reference is kept over what
        // is foreign.
        let find = || run::current().locals().find(key);
        let value = match find() {
            Some(value) => value,
            None if local::has_ended() || run::current().locals().is_ending() => return Err(AccessError),
            None => {
                let made: Rc<dyn Any> = Rc::new(init());
                // The first stays, if making it has made one.
                find().unwrap_or_else(|| {
                    run::current().locals().insert(key, Rc::clone(&made));
                    made
                })
            }
        };
        value.downcast().map_err(|_| AccessError)
    }

    /// Makes the first value of `value`, without the initial one. Gives it back with the value that there is already.
    fn begin_with<V>(&'static self, value: V, make: fn(V) -> T) -> Result<Option<(Rc<T>, V)>, AccessError> {
        let mut value = Some(value);
        let there = self.value_or(|| value.take().map_or_else(self.init, make))?;
        Ok(value.map(|value| (there, value)))
    }
}

/// Names the failure as `with` does.
#[track_caller]
fn granted<R>(result: Result<R, AccessError>) -> R {
    match result {
        Ok(result) => result,
        Err(error) => panic!("{error}"),
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the value; the initial one is not made for that. Does not switch.
    ///
    /// # Panics
    ///
    /// As [`with`](LocalKey::with).
    #[track_caller]
    pub fn set(&'static self, value: T) {
        if let Some((cell, value)) = granted(self.begin_with(value, Cell::new)) {
            cell.set(value);
        }
    }

    /// A copy of the value. Does not switch.
    ///
    /// # Panics
    ///
    /// As [`with`](LocalKey::with).
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// The value, and leaves the default. Does not switch.
    ///
    /// # Panics
    ///
    /// As [`with`](LocalKey::with).
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Sets the value, and returns the one before. Does not switch.
    ///
    /// # Panics
    ///
    /// As [`with`](LocalKey::with).
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Lends the value to `f`. Does not switch by itself.
    ///
    /// # Panics
    ///
    /// As [`with`](LocalKey::with), and if it is lent to be changed.
    pub fn with_borrow<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Lends the value to `f`, to be changed. Does not switch by itself.
    ///
    /// # Panics
    ///
    /// As [`with`](LocalKey::with), and if it is lent.
    pub fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets the value; the initial one is not made for that. Does not switch.
    ///
    /// # Panics
    ///
    /// As [`with`](LocalKey::with), and if it is lent.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        if let Some((cell, value)) = granted(self.begin_with(value, RefCell::new)) {
            cell.replace(value);
        }
    }

    /// The value, and leaves the default. Does not switch.
    ///
    /// # Panics
    ///
    /// As [`with`](LocalKey::with), and if it is lent.
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Sets the value, and returns the one before. Does not switch.
    ///
    /// # Panics
    ///
    /// As [`with`](LocalKey::with), and if it is lent.
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}
