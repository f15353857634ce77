//! The word of a source: its operations in progress, and the end of its number.
//!
//! Ground rules:
//! - An [`Entered`] counts one operation, from its making to its drop, also while it is suspended. The number stays
//!   open meanwhile, if it was not `GONE` when the operation was counted.
//! - The drop of exactly one `Entered` closes the number, once the source is marked closed, no operation is counted,
//!   and the number is not lent. It sets `GONE` first.
//! - [`claim_alone`](Entered::claim_alone) sets `GONE` as well. It is for the owner of a source that was open and that
//!   nothing has borrowed: it checks neither `LENT` nor an earlier close.

use std::sync::Arc;
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

/// The closed source has released its file, and only operations that never end keep the number open.
const RELEASED: u64 = 32;

/// One operation in progress. The upper 58 bits of the word count the operations. No program can use up 58 bits.
const ENTERED: u64 = 64;

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
    fn enter(&self) -> Flags {
        Flags(self.0.fetch_add(ENTERED, Acquire))
    }

    /// Ends an operation. Returns the word of a closed source, for [`claim`](Word::claim).
    #[inline]
    #[must_use]
    fn leave(&self) -> Option<u64> {
        let left = self.0.fetch_sub(ENTERED, AcqRel) - ENTERED;
        (left & CLOSED != 0).then_some(left)
    }

    /// Returns whether the operation whose end has left `word` has to close the number.
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

    /// Marks the source as closed. Returns false if it was closed before.
    ///
    /// All OS threads see the same order of this call, of [`is_closed`](Word::is_closed) and of the accesses of a
    /// [`Home`](super::home::Home).
    pub(super) fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, SeqCst) & CLOSED == 0
    }

    /// Returns whether the source is marked as closed.
    pub(super) fn is_closed(&self) -> bool {
        order_for_model();
        self.0.load(SeqCst) & CLOSED != 0
    }

    /// Ends the loan of the number by [`Entered::lend`].
    ///
    /// # Safety
    ///
    /// No borrow of the lent number is left, and none is made afterwards.
    pub(super) unsafe fn take_back(&self) {
        self.0.fetch_and(!LENT, AcqRel);
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

/// The owner of a number, whose operations a [`Word`] counts.
///
/// # Safety
///
/// `word` always returns the same word, for all references to the same owner. Nothing but the code that the word has
/// chosen, and the drop of the owner, closes the number.
pub(super) unsafe trait Numbered {
    fn word(&self) -> &Word;

    /// Closes the number.
    ///
    /// # Safety
    ///
    /// The word has chosen the caller: the number is `GONE`, and was open until now.
    unsafe fn close_number(&self);

    /// Called after an operation has left a closed source on which `others` are in progress.
    fn left_to(&self, others: u64);
}

// SAFETY: both methods are those of the same owner.
unsafe impl<T: Numbered> Numbered for &T {
    #[inline]
    fn word(&self) -> &Word {
        T::word(self)
    }

    unsafe fn close_number(&self) {
        // SAFETY: by the contract.
        unsafe { T::close_number(self) }
    }

    fn left_to(&self, others: u64) {
        T::left_to(self, others);
    }
}

// SAFETY: both methods are those of the same owner.
unsafe impl<T: Numbered> Numbered for Arc<T> {
    #[inline]
    fn word(&self) -> &Word {
        T::word(self)
    }

    unsafe fn close_number(&self) {
        // SAFETY: by the contract.
        unsafe { T::close_number(self) }
    }

    fn left_to(&self, others: u64) {
        T::left_to(self, others);
    }
}

/// An operation in progress on the source that `R` owns or refers to. It keeps the number open.
pub(super) struct Entered<R: Numbered>(R);

impl<R: Numbered> Entered<R> {
    /// Begins an operation.
    ///
    /// # Errors
    ///
    /// Returns an error if the source was closed.
    #[inline]
    pub(super) fn open(source: R) -> Result<Entered<R>, Closed> {
        let flags = source.word().enter();
        let entered = Entered(source);
        if flags.is_closed() { Err(Closed) } else { Ok(entered) }
    }

    /// Begins an operation that a closed source allows. Returns `None` if the number is gone.
    pub(super) fn unless_gone(source: R) -> Option<Entered<R>> {
        let flags = source.word().enter();
        let entered = Entered(source);
        (!flags.is_gone()).then_some(entered)
    }

    /// Returns the owner of the number.
    #[inline]
    pub(super) fn source(&self) -> &R {
        &self.0
    }

    /// Keeps the number open for the same file after this operation, until [`Word::take_back`].
    ///
    /// # Errors
    ///
    /// Returns an error if the source was closed: the number may be led to another file then.
    pub(super) fn lend(&self) -> Result<(), Closed> {
        let unless_closed = |word| (word & CLOSED == 0).then_some(word | LENT);
        self.0.word().0.fetch_update(AcqRel, Acquire, unless_closed).map(drop).map_err(|_| Closed)
    }

    /// Returns the number of other operations, or `None` if the number is lent or gone.
    pub(super) fn others(&self) -> Option<u64> {
        let word = self.0.word().0.load(Acquire);
        (word & (LENT | GONE) == 0).then(|| word / ENTERED - 1)
    }

    /// Keeps the operation in progress without this value, until [`Entered::resume`].
    pub(super) fn suspend(self) {
        std::mem::forget(self);
    }

    /// Returns a suspended operation.
    ///
    /// # Safety
    ///
    /// An operation on the owner was [suspended](Entered::suspend), and is resumed this once.
    pub(super) unsafe fn resume(source: R) -> Entered<R> {
        Entered(source)
    }

    /// Takes the number for the caller if this operation is the only one. Nothing else closes the number then.
    ///
    /// Returns false if there is another operation.
    ///
    /// # Safety
    ///
    /// This operation began on an open source, and no other code has closed the source. Nothing borrows the number from
    /// the source.
    pub(super) unsafe fn claim_alone(&self) -> bool {
        let alone = |word| (word < 2 * ENTERED).then_some(word | CLOSED | GONE);
        self.0.word().0.fetch_update(AcqRel, Acquire, alone).is_ok()
    }
}

impl<R: Numbered> Drop for Entered<R> {
    #[inline]
    fn drop(&mut self) {
        if let Some(word) = self.0.word().leave() {
            self.leave_closed(word);
        }
    }
}

impl<R: Numbered> Entered<R> {
    /// Ends an operation on a closed source, whose end has left `word`.
    #[cold]
    fn leave_closed(&self, word: u64) {
        if self.0.word().claim(word) {
            // SAFETY: the word has just chosen this call, and the number was open until now, by the ground rules.
            unsafe { self.0.close_number() };
        } else if word & (LENT | GONE | RELEASED) == 0 && word >= ENTERED {
            self.0.left_to(word / ENTERED);
        }
    }

    /// Marks the file of a closed source as released. Returns false if it was released before.
    pub(super) fn set_released(&self) -> bool {
        self.0.word().0.fetch_or(RELEASED, AcqRel) & RELEASED == 0
    }
}

/// The source was closed before.
#[derive(Debug)]
pub(super) struct Closed;
