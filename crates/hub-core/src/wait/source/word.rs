//! The word of a source: its operations in progress, and the end of its number.
//!
//! Ground rules:
//! - [`enter`](Word::enter) counts an operation. The number is open while it is counted, if it was not `GONE` before.
//! - Exactly one of the calls that return whether the caller [has to close](Word::leave) the number returns true, once
//!   the source is marked closed, no operation is counted, and the number is not lent. That call sets `GONE`.
//! - [`claim_alone`](Word::claim_alone) sets `GONE` as well. It is for the owner of a source that was open and that
//!   nothing has borrowed: it checks neither `LENT` nor an earlier close.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

use crate::base::sync::{AtomicU64, order_for_model};

/// The source was closed.
pub(super) const CLOSED: u64 = 1;

/// `as_fd` has lent the number for the life of the source.
pub(super) const LENT: u64 = 2;

/// Operations return `WouldBlock` instead of waiting.
pub(super) const NONBLOCKING: u64 = 4;

/// The number is closed, or about to be closed by the caller that has set this.
pub(super) const GONE: u64 = 8;

/// Waiting writes also try again after pauses.
pub(super) const RETRYING: u64 = 16;

/// One operation in progress. The upper bits of the word count them: 59 bits, which no program can use up.
const ENTERED: u64 = 32;

/// Flags, and the number of operations in progress.
pub(super) struct Word(AtomicU64);

impl Word {
    pub(super) fn new() -> Word {
        Word(AtomicU64::new(0))
    }

    /// Counts an operation in progress. Returns the flags from before.
    #[inline]
    pub(super) fn enter(&self) -> u64 {
        self.0.fetch_add(ENTERED, Acquire)
    }

    /// Ends an operation. Returns true if the caller has to close the number.
    #[inline]
    #[must_use]
    pub(super) fn leave(&self) -> bool {
        let left = self.0.fetch_sub(ENTERED, AcqRel) - ENTERED;
        left & CLOSED != 0 && self.claim(left)
    }

    #[cold]
    fn claim(&self, mut word: u64) -> bool {
        while word & (CLOSED | LENT | GONE) == CLOSED && word < ENTERED {
            match self.0.compare_exchange_weak(word, word | GONE, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Takes the number for its only operation in progress: nothing else closes it. Returns false if there is another.
    pub(super) fn claim_alone(&self) -> bool {
        let alone = |word| (word < 2 * ENTERED).then_some(word | CLOSED | GONE);
        self.0.fetch_update(AcqRel, Acquire, alone).is_ok()
    }

    /// Marks the source as closed. Returns false if it was closed before.
    ///
    /// All threads see the same order of this call, of [`is_closed`](Word::is_closed) and of the accesses of a
    /// [`Home`](super::home::Home).
    pub(super) fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, SeqCst) & CLOSED == 0
    }

    /// Returns whether the source is marked as closed.
    pub(super) fn is_closed(&self) -> bool {
        order_for_model();
        self.0.load(SeqCst) & CLOSED != 0
    }

    /// Lends the number until [`take_back`](Word::take_back). Returns the flags from before.
    pub(super) fn lend(&self) -> u64 {
        self.0.fetch_or(LENT, AcqRel)
    }

    pub(super) fn take_back(&self) {
        self.0.fetch_and(!LENT, AcqRel);
    }

    /// Returns the number of operations other than the caller's, or `None` if the number is lent or gone.
    pub(super) fn others(&self) -> Option<u64> {
        let word = self.0.load(Acquire);
        (word & (LENT | GONE) == 0).then(|| word / ENTERED - 1)
    }

    #[inline]
    pub(super) fn has(&self, flag: u64) -> bool {
        self.flags() & flag != 0
    }

    #[inline]
    pub(super) fn flags(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn set(&self, flag: u64, on: bool) {
        if on {
            self.0.fetch_or(flag, Relaxed);
        } else {
            self.0.fetch_and(!flag, Relaxed);
        }
    }
}
