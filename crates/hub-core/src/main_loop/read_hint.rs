//! The hint of a read about the data that it has left.

use crate::hub::Rearm;

/// A hint about the data that a read has left, as far as the reader can tell.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ReadHint {
    /// No data is left.
    ///
    /// A short read of a socket does not prove that: it may have stopped at an urgent mark, or at passed descriptors.
    Nothing,
    /// Data may be left. The next read tries at once only if the hub would not report it.
    Perhaps,
    /// Data is probably left: a large buffer was filled, a connection accepted, a datagram received.
    ///
    /// The next operation tries at once.
    Likely,
}

impl ReadHint {
    /// Returns whether the next operation should try at once.
    #[inline]
    pub(crate) fn keeps_readiness(self, rearm: Rearm) -> bool {
        match self {
            ReadHint::Nothing => false,
            // A level-triggered hub reports the rest again, so a probe would waste a system call. A hub that reports
            // each arrival once does not.
            ReadHint::Perhaps => rearm == Rearm::Automatic,
            ReadHint::Likely => true,
        }
    }
}
