//! The reasons why a [`Parker`](crate::Parker)'s wait ends.

/// The reason why a wait ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Parked {
    /// Its [`Unparker`](crate::Unparker) ended it.
    Unparked,
    /// Its deadline has passed.
    TimedOut,
    /// An exit ended it. A mask holds the exit back, or the caller has to throw it.
    Exit,
}
