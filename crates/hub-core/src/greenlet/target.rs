//! The target of a readiness report or of a timer, as 16 bytes that own nothing.

use super::control::Waiter;
use super::control::arena::Controls;

/// The target of a descriptor's slot or of a timer's entry.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Target {
    /// No target: a slot without a waiter.
    #[default]
    Vacant,
    /// The park with this ticket, of the greenlet with this number.
    Parked { greenlet: u32, ticket: u64 },
    /// A delayed green thread that begins at the deadline.
    Start { greenlet: u32, ticket: u64 },
    /// The scope of a timeout of that greenlet, opened at that depth of shields.
    Timeout { greenlet: u32, shields: u8, timeout: u64 },
    /// The park for a lock with this ticket. It stops holding an exit back.
    Patience { greenlet: u32, ticket: u64 },
    /// A callback, by the number of its registration.
    Call(u32),
    /// The waker of a future, by its number in the loop's table of wakers.
    Waker { number: u32, serial: u64 },
}

impl Target {
    /// Returns the park of `waiter` as a target.
    #[inline]
    pub(crate) fn park(waiter: Waiter) -> Target {
        Target::Parked { greenlet: waiter.control().number(), ticket: waiter.ticket() }
    }

    /// Prefetches the block of the greenlet.
    #[inline]
    pub(crate) fn prefetch(self, controls: &Controls) {
        if let Target::Parked { greenlet, .. } = self {
            controls.prefetch(greenlet);
        }
    }

    /// Prefetches the stack of the greenlet.
    #[inline]
    pub(crate) fn prefetch_stack(self, controls: &Controls) {
        if let Target::Parked { greenlet, .. } = self
            && let Some(control) = controls.get(greenlet)
        {
            control.prefetch_stack();
        }
    }

    /// Returns whether this is the target of a timer that makes an exit.
    pub(crate) fn is_for_exits(self) -> bool {
        matches!(self, Target::Timeout { .. } | Target::Patience { .. })
    }
}
