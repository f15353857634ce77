//! Masks and shields, under which exits wait.

use super::super::control::ControlRef;
use super::current;

/// While it exists, exits of the running greenlet wait.
pub(crate) struct Mask {
    pub(super) me: ControlRef,
}

impl Mask {
    pub(crate) fn new() -> Mask {
        let me = current();
        let masks = me.masks.get().checked_add(1).expect("masks are nested 255 deep");
        me.masks.set(masks);
        Mask { me }
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        self.me.masks.set(self.me.masks.get() - 1);
    }
}

/// While it exists, exits of the running greenlet wait, except those of scopes opened inside.
///
/// Unlike under a mask, an exit that waits does not end a park.
pub(crate) struct Shield {
    pub(super) me: ControlRef,
}

impl Shield {
    /// `None` at the greatest depth: the shields around it hold back all that strikes from outside of them.
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

/// Lifts the shields of a greenlet. True if there were some.
pub(crate) fn lift_shields(target: ControlRef) -> bool {
    target.shields.replace(0) != 0
}
