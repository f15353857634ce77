//! The directions that a waiter asks for, and the readiness that a hub reports.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

/// The directions in which a descriptor is to be used. Eventlet's `READ` and `WRITE`.
///
/// ```
/// use greenhub::Interest;
/// let both = Interest::READ | Interest::WRITE;
/// assert!(both.contains(Interest::READ));
/// assert_eq!(both.without(Interest::READ), Interest::WRITE);
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Interest(u8);

/// The readiness that a hub reports of a descriptor.
///
/// ```
/// use greenhub::Interest;
/// use greenhub::hub::Readiness;
/// let half_close = Readiness::READ | Readiness::END;
/// assert_eq!(half_close.directions(), Interest::READ);
/// assert!(Readiness::HANGUP.contains(half_close));
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Readiness(u8);

const READ: u8 = 1;
const WRITE: u8 = 2;
const END: u8 = 4;
const INVALID: u8 = 8;

impl Interest {
    /// No direction. Never passed to [`Hub::watch`](crate::hub::Hub::watch).
    pub const NONE: Interest = Interest(0);
    /// Data, a connection to accept, or the end of the stream.
    pub const READ: Interest = Interest(READ);
    /// Room to write, or the end of a connection attempt.
    pub const WRITE: Interest = Interest(WRITE);
    /// Both directions.
    pub const BOTH: Interest = Interest(READ | WRITE);

    /// Returns whether every direction of `other` is part of `self`.
    #[must_use]
    #[inline]
    pub const fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether `self` and `other` share a direction.
    #[must_use]
    #[inline]
    pub const fn intersects(self, other: Interest) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns whether no direction is asked for.
    #[must_use]
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the directions of `self` that are not in `other`.
    #[must_use]
    #[inline]
    pub const fn without(self, other: Interest) -> Interest {
        Interest(self.0 & !other.0)
    }
}

impl Readiness {
    /// Nothing is ready.
    pub const NONE: Readiness = Readiness(0);
    /// A read would not block.
    pub const READ: Readiness = Readiness(READ);
    /// A write would not block.
    pub const WRITE: Readiness = Readiness(WRITE);
    /// No more data will arrive after the data that is there.
    ///
    /// The cause is a half close, a hang-up or an error. The flag is sticky: a short read does not make the descriptor
    /// unready once END was reported.
    pub const END: Readiness = Readiness(END);
    /// The number is no descriptor any more, and the hub has dropped it.
    pub const INVALID: Readiness = Readiness(INVALID);
    /// A hang-up or an error, which concerns both directions.
    pub const HANGUP: Readiness = Readiness(READ | WRITE | END);
    /// A dead descriptor: all its waiters are notified at once.
    pub const GONE: Readiness = Readiness(READ | WRITE | END | INVALID);

    /// Returns whether everything in `other` is part of `self`.
    #[must_use]
    #[inline]
    pub const fn contains(self, other: Readiness) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether nothing was reported.
    #[must_use]
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the directions that are ready.
    #[must_use]
    #[inline]
    pub const fn directions(self) -> Interest {
        Interest(self.0 & (READ | WRITE))
    }
}

impl From<Interest> for Readiness {
    #[inline]
    fn from(interest: Interest) -> Readiness {
        Readiness(interest.0)
    }
}

macro_rules! set_operators {
    ($($set:ident),*) => {$(
        impl BitOr for $set {
            type Output = $set;
            #[inline]
            fn bitor(self, other: $set) -> $set { $set(self.0 | other.0) }
        }
        impl BitOrAssign for $set {
            #[inline]
            fn bitor_assign(&mut self, other: $set) { self.0 |= other.0; }
        }
        impl BitAnd for $set {
            type Output = $set;
            #[inline]
            fn bitand(self, other: $set) -> $set { $set(self.0 & other.0) }
        }
        impl Not for $set {
            type Output = $set;
            #[inline]
            fn not(self) -> $set { $set(!self.0 & (READ | WRITE | END | INVALID)) }
        }
        impl fmt::Debug for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { flag_names(self.0, f) }
        }
    )*};
}
set_operators!(Interest, Readiness);

fn flag_names(bits: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut separator = "";
    for (bit, name) in [(READ, "READ"), (WRITE, "WRITE"), (END, "END"), (INVALID, "INVALID")] {
        if bits & bit != 0 {
            f.write_str(separator)?;
            f.write_str(name)?;
            separator = "|";
        }
    }
    if separator.is_empty() { f.write_str("NONE") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_flag_names() {
        assert_eq!(format!("{:?}", Readiness::HANGUP), "READ|WRITE|END");
        assert_eq!(format!("{:?}", Interest::NONE), "NONE");
    }

    #[test]
    fn directions_of_a_half_close_are_read_alone() {
        assert_eq!((Readiness::READ | Readiness::END).directions(), Interest::READ);
    }
}
