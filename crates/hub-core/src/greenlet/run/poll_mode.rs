//! Polls of futures, which no greenlet leaves.
//!
//! A poll is a call of foreign code that may set a thread-local on its way in and reset it on its way out. If another
//! greenlet ran in between, such values would be reset in another order than that in which they were set. So a wait
//! inside a poll is refused.

use super::super::control::ControlRef;
use super::queue::thread;

/// Marks the running greenlet as inside of a poll, or as outside of any, while it exists.
#[must_use = "the former mode returns when this is dropped"]
pub(crate) struct PollMode {
    /// `None` if the OS thread had no greenlets yet.
    me: Option<ControlRef>,
    before: bool,
}

impl PollMode {
    /// Begins a poll: nothing switches.
    #[inline]
    pub(crate) fn inside() -> PollMode {
        PollMode::begin(true)
    }

    /// Lifts the restrictions of the surrounding polls.
    pub(crate) fn outside() -> PollMode {
        PollMode::begin(false)
    }

    #[inline]
    fn begin(polling: bool) -> PollMode {
        let thread = thread();
        let me = thread.running();
        let before = match me {
            Some(me) => me.set_polling(polling),
            None => thread.set_polling(polling),
        };
        PollMode { me, before }
    }
}

impl Drop for PollMode {
    #[inline]
    fn drop(&mut self) {
        match self.me {
            Some(me) => _ = me.set_polling(self.before),
            None => end_early(self.before),
        }
    }
}

/// Ends the mode of an OS thread that had no greenlets when it began. The main greenlet may have been made since.
#[cold]
fn end_early(before: bool) {
    let thread = thread();
    thread.set_polling(before);
    if let Some(main) = thread.running() {
        main.set_polling(before);
    }
}
