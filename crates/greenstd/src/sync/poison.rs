//! std's poisoning: the types are its own.

use std::fmt;
use std::ops::Deref;
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

/// Makes a guard of ours from one of std, poisoned or not.
pub(super) fn map<G, R>(result: LockResult<G>, make: impl FnOnce(G) -> R) -> LockResult<R> {
    match result {
        Ok(guard) => Ok(make(guard)),
        Err(poisoned) => Err(PoisonError::new(make(poisoned.into_inner()))),
    }
}

/// What the attempt on std's lock has brought to those who hold the green one, so that nobody else has it.
pub(super) fn held<G>(result: TryLockResult<G>) -> LockResult<G> {
    match result {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
        Err(TryLockError::WouldBlock) => unreachable!("who holds the green lock is alone"),
    }
}

/// Shows a lock as std does.
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

/// What every guard of std can do: it is used, and shown, as the value.
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
