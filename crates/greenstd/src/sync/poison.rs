//! Poisoning by std's own types.

use std::fmt;
use std::ops::Deref;
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

/// Maps the guard inside a result, poisoned or not.
pub(super) fn map<G, R>(result: LockResult<G>, make: impl FnOnce(G) -> R) -> LockResult<R> {
    match result {
        Ok(guard) => Ok(make(guard)),
        Err(poisoned) => Err(PoisonError::new(make(poisoned.into_inner()))),
    }
}

/// Unwraps the attempt on std's lock by the holder of the green lock, which cannot be contended.
pub(super) fn uncontended<G>(result: TryLockResult<G>) -> LockResult<G> {
    match result {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
        Err(TryLockError::WouldBlock) => unreachable!("std's lock is contended under the green lock"),
    }
}

/// Formats a lock as std does.
pub(super) fn debug<G: Deref<Target: fmt::Debug>>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    locked: TryLockResult<G>,
    poisoned: bool,
) -> fmt::Result {
    let mut shown = f.debug_struct(name);
    match locked {
        Ok(guard) => shown.field("data", &&*guard),
        Err(TryLockError::Poisoned(error)) => shown.field("data", &&**error.get_ref()),
        Err(TryLockError::WouldBlock) => shown.field("data", &format_args!("<locked>")),
    };
    shown.field("poisoned", &poisoned).finish_non_exhaustive()
}

/// Implements the traits that all guards of std have: they deref to the value and are shown as it.
macro_rules! guard {
    ($guard:ident, mut) => {
        $crate::sync::poison::guard!($guard);

        impl<T: ?Sized> std::ops::DerefMut for $guard<'_, T> {
            fn deref_mut(&mut self) -> &mut T {
                &mut self.data
            }
        }
    };
    ($guard:ident) => {
        impl<T: ?Sized> std::ops::Deref for $guard<'_, T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.data
            }
        }

        impl<T: ?Sized + fmt::Debug> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<T: ?Sized + fmt::Display> fmt::Display for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    };
}
pub(super) use guard;
