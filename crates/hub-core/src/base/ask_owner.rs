//! The question to the owner of a descriptor for its number, which a closed owner answers with an error.
//!
//! [`AsFd`] has no way to say that there is no descriptor any more, so a closed owner panics. While a function asks
//! that can return an error, the owner unwinds to it instead, without a message.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    /// Whether a function asks that can return an error.
    static ASKS: Cell<bool> = const { Cell::new(false) };
}

/// The payload of a closed owner, and the error of the question.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ClosedOwner {
    /// The number that the owner had.
    pub fd: RawFd,
}

/// Borrows the descriptor of an owner.
///
/// # Errors
///
/// Returns an error if the owner has called [`refuse`].
///
/// # Panics
///
/// Panics if the owner panics otherwise.
pub fn ask_owner<F: AsFd + ?Sized>(owner: &F) -> Result<BorrowedFd<'_>, ClosedOwner> {
    struct Restored(bool);

    impl Drop for Restored {
        fn drop(&mut self) {
            _ = ASKS.try_with(|asks| asks.set(self.0));
        }
    }

    // An owner that panics with `panic = "abort"` says why.
    let asks = cfg!(panic = "unwind");
    let restored = Restored(ASKS.try_with(|cell| cell.replace(asks)).unwrap_or_default());
    let answer = catch_unwind(AssertUnwindSafe(|| owner.as_fd()));
    drop(restored);
    answer.map_err(|payload| match payload.downcast::<ClosedOwner>() {
        Ok(closed) => *closed,
        Err(payload) => resume_unwind(payload),
    })
}

/// Answers for a closed owner: unwinds to [`ask_owner`], or panics where another function asks.
#[cold]
#[track_caller]
pub(crate) fn refuse(closed: ClosedOwner) -> ! {
    if ASKS.try_with(Cell::take).unwrap_or_default() {
        resume_unwind(Box::new(closed));
    }
    panic!("descriptor {} cannot be borrowed: its owner was closed", closed.fd);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Closed;

    impl AsFd for Closed {
        fn as_fd(&self) -> BorrowedFd<'_> {
            refuse(ClosedOwner { fd: 7 })
        }
    }

    /// An owner that asks another one.
    struct Asking;

    impl AsFd for Asking {
        fn as_fd(&self) -> BorrowedFd<'_> {
            assert!(ask_owner(&Closed).is_err());
            Closed.as_fd()
        }
    }

    #[test]
    fn the_error_has_the_number() {
        assert_eq!(ask_owner(&Closed).map(drop), Err(ClosedOwner { fd: 7 }));
    }

    #[test]
    fn a_question_within_another_one_leaves_it_as_it_is() {
        assert_eq!(ask_owner(&Asking).map(drop), Err(ClosedOwner { fd: 7 }));
    }

    #[test]
    fn a_closed_owner_panics_where_nobody_can_return_an_error() {
        _ = ask_owner(&Closed);
        let payload = catch_unwind(|| _ = Closed.as_fd()).expect_err("the owner is closed");
        assert_eq!(
            payload.downcast_ref::<String>().expect("a message"),
            "descriptor 7 cannot be borrowed: its owner was closed"
        );
    }
}
