//! Nobody to tell: the feature `tracing` is off, and nothing of this is left in what is compiled.

/// Never.
#[inline(always)]
pub(crate) fn is_telling() -> bool {
    false
}
