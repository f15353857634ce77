//! Masks and shields, which defer exits.
//!
//! Ground rule: the masks of a greenlet are counted by the [`Mask`]s that exist for it. A masked wait is not left
//! early, so the code under a mask may lend its frame.

use super::super::control::ControlRef;
use super::queue::current;

/// Defers exits of the running greenlet while it exists.
#[must_use = "the mask is lifted when this is dropped"]
pub(crate) struct Mask {
    me: ControlRef,
}

impl Mask {
    /// Returns whether another mask fits. Masks end in reverse order, so one fits as well after a call that began here.
    pub(crate) fn fits() -> bool {
        current().masks() < u8::MAX
    }

    /// # Panics
    ///
    /// Panics if the greenlet has 255 masks. They nest where green threads run in place, at the end of the OS thread,
    /// and open scopes. A scope checks [`fits`](Mask::fits) first. The other masks begin no body.
    pub(crate) fn new() -> Mask {
        let me = current();
        let masks = me.masks().checked_add(1).expect("masks are nested 255 deep");
        // SAFETY: one more mask exists from now on.
        unsafe { me.set_masks(masks) };
        Mask { me }
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        // SAFETY: this mask was counted, and exists no more.
        unsafe { self.me.set_masks(self.me.masks() - 1) };
    }
}

/// Defers exits of the running greenlet while it exists, except those of scopes opened inside.
///
/// Unlike under a mask, a deferred exit does not end a park.
pub(crate) struct Shield {
    me: ControlRef,
}

impl Shield {
    /// Returns `None` at the greatest depth. The outer shields then defer every exit from outside of them.
    pub(crate) fn new() -> Option<Shield> {
        let me = current();
        me.shields.set(me.shields.get().checked_add(1)?);
        Some(Shield { me })
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        // A shutdown may have lifted it.
        self.me.shields.set(self.me.shields.get().saturating_sub(1));
    }
}

/// Lifts the shields of a greenlet. Returns true if there were some.
pub(crate) fn lift_shields(target: ControlRef) -> bool {
    target.shields.replace(0) != 0
}
