//! The question to the owner of a descriptor for its number, which a closed owner answers with an error.
//!
//! [`AsFd`] has no way to say that there is no descriptor any more, so a closed owner panics. While a function asks
//! that can return an error, the owner unwinds to it instead, without a message.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::run;
use crate::error::TrampolineError;

thread_local! {
    /// The greenlets that ask, by the addresses by which they are known while they live. An owner is foreign code and
    /// may switch, so several can ask at once.
    static ASKING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The payload of a closed owner, and the error of the question.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ClosedOwner {
    /// The number that the owner had.
    pub fd: RawFd,
}

impl From<ClosedOwner> for TrampolineError {
    fn from(closed: ClosedOwner) -> TrampolineError {
        TrampolineError::Closed { fd: closed.fd }
    }
}

/// The question of a greenlet. `Drop` ends it.
struct Question(usize);

impl Question {
    fn begin() -> Question {
        let asker = run::running_address();
        // At the end of the OS thread, an owner that is closed says why.
        _ = ASKING.try_with(|asking| asking.borrow_mut().push(asker));
        Question(asker)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        _ = ASKING.try_with(|asking| {
            let mut asking = asking.borrow_mut();
            if let Some(place) = asking.iter().rposition(|asker| *asker == self.0) {
                asking.remove(place);
            }
        });
    }
}

/// Returns whether the running greenlet asks by a function that can return an error.
fn is_asked() -> bool {
    // An unwinding would not get there with `panic = "abort"`.
    cfg!(panic = "unwind")
        && ASKING.try_with(|asking| asking.borrow().contains(&run::running_address())).unwrap_or(false)
}

/// Borrows the descriptor of an owner.
///
/// # Errors
///
/// Returns an error if the owner says that it is closed.
///
/// # Panics
///
/// Panics if the owner panics otherwise.
pub fn ask_owner<F: AsFd + ?Sized>(owner: &F) -> Result<BorrowedFd<'_>, ClosedOwner> {
    let question = Question::begin();
    let answer = catch_unwind(AssertUnwindSafe(|| owner.as_fd()));
    drop(question);
    answer.map_err(|payload| match payload.downcast::<ClosedOwner>() {
        Ok(closed) => *closed,
        Err(payload) => resume_unwind(payload),
    })
}

/// Answers for a closed owner: unwinds to [`ask_owner`], or panics where another function asks.
#[cold]
#[track_caller]
pub(crate) fn refuse(closed: ClosedOwner) -> ! {
    if is_asked() {
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

    /// An owner that has another one, too.
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
