//! Drops of foreign values where nothing may unwind.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Drops a value whose destructor may panic. The panic hook has printed the panic, and no caller can receive it.
pub fn drop_contained<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // A payload whose own destructor panics again is leaked.
        std::mem::forget(payload);
    }
}
