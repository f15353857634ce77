//! Plain greenlets.
#![allow(missing_docs, missing_debug_implementations)]
pub struct Greenlet;
pub struct Payload;
pub struct RawError;
pub(super) fn run(_me: super::control::ControlRef) -> Option<super::control::ControlRef> {
    None
}
