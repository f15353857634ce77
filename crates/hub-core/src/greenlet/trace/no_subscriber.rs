//! No subscriber: the feature `tracing` is off, and nothing of this module is left after compilation.

/// Returns false.
#[inline(always)]
pub(crate) fn in_subscriber() -> bool {
    false
}
