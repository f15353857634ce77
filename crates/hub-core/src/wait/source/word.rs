//! The word of a source: its operations in progress, and the end of its number.
//!
//! Ground rules:
//! - [`enter`](Word::enter) counts an operation. The number stays open while the operation is counted, if the number
//!   was not `GONE` before.
//! - Exactly one of the calls that return whether the caller [has to close](Word::leave) the number returns true, once
//!   the source is marked closed, no operation is counted, and the number is not lent. That call sets `GONE`.
//! - [`claim_alone`](Word::claim_alone) sets `GONE` as well. It is for the owner of a source that was open and that
//!   nothing has borrowed: it checks neither `LENT` nor an earlier close.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

use crate::base::sync::{AtomicU64, order_for_model};

/// The source was closed.
const CLOSED: u64 = 1;

/// `as_fd` has lent the number for the life of the source.
const LENT: u64 = 2;

/// Operations return `WouldBlock` instead of waiting.
const NONBLOCKING: u64 = 4;

/// The number is closed, or about to be closed by the caller that has set this.
const GONE: u64 = 8;

/// Waiting writes also try again after pauses.
const RETRYING: u64 = 16;

/// One operation in progress. The upper 59 bits of the word count the operations. No program can use up 59 bits.
const ENTERED: u64 = 32;

/// The flags of a source at one moment.
#[derive(Copy, Clone)]
pub(super) struct Flags(u64);

impl Flags {
    /// Returns whether the source was closed.
    #[inline]
    pub(super) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// Returns whether the number was closed, or was about to be.
    #[inline]
    pub(super) fn is_gone(self) -> bool {
        self.0 & GONE != 0
    }

    /// Returns whether `as_fd` has lent the number.
    #[inline]
    pub(super) fn is_lent(self) -> bool {
        self.0 & LENT != 0
    }

    /// Returns whether operations return `WouldBlock` instead of waiting.
    #[inline]
    pub(super) fn is_nonblocking(self) -> bool {
        self.0 & NONBLOCKING != 0
    }

    /// Returns whether waiting writes also try again after pauses.
    #[inline]
    pub(super) fn is_retrying(self) -> bool {
        self.0 & RETRYING != 0
    }
}

/// Flags, and the number of operations in progress.
pub(super) struct Word(AtomicU64);

impl Word {
    pub(super) fn new() -> Word {
        Word(AtomicU64::new(0))
    }

    /// Counts an operation in progress. Returns the flags from before.
    #[inline]
    pub(super) fn enter(&self) -> Flags {
        Flags(self.0.fetch_add(ENTERED, Acquire))
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

    /// Lends the number until [`take_back`](Word::take_back). The caller is counted, and the number was not gone before.
    pub(super) fn lend(&self) {
        self.0.fetch_or(LENT, AcqRel);
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
    pub(super) fn flags(&self) -> Flags {
        Flags(self.0.load(Relaxed))
    }

    pub(super) fn set_nonblocking(&self, on: bool) {
        self.set(NONBLOCKING, on);
    }

    pub(super) fn set_retrying(&self, on: bool) {
        self.set(RETRYING, on);
    }

    fn set(&self, flag: u64, on: bool) {
        if on {
            self.0.fetch_or(flag, Relaxed);
        } else {
            self.0.fetch_and(!flag, Relaxed);
        }
    }
}
