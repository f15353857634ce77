//! Membership in select's sets to directions, and poll's flags to what select does not tell.

use std::time::Duration;

use hub_core::{Interest, Readiness, round};
use nix::sys::time::{TimeVal, TimeValLike};
use rustix::event::PollFlags;

/// What asks for a half close, where the system can tell it from data.
#[cfg(all(
    any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "illumos"),
    not(any(target_arch = "sparc", target_arch = "sparc64"))
))]
const HALF_CLOSE: PollFlags = PollFlags::RDHUP;
#[cfg(not(all(
    any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "illumos"),
    not(any(target_arch = "sparc", target_arch = "sparc64"))
)))]
const HALF_CLOSE: PollFlags = PollFlags::empty();

/// What a place in the sets means.
pub(crate) fn readiness(readable: bool, writable: bool) -> Readiness {
    let mut found = Readiness::NONE;
    if readable {
        found |= Readiness::READ;
    }
    if writable {
        found |= Readiness::WRITE;
    }
    found
}

/// The flags that ask for the end of what was `found`.
pub(crate) fn flags(found: Readiness) -> PollFlags {
    if found.directions().contains(Interest::READ) { HALF_CLOSE } else { PollFlags::empty() }
}

/// What reported `flags` say of the end. That poll cannot look at a kind of file (NVAL) says nothing.
pub(crate) fn end(flags: PollFlags) -> Readiness {
    let mut found = Readiness::NONE;
    if flags.intersects(HALF_CLOSE) {
        found |= Readiness::READ | Readiness::END;
    }
    if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
        found |= Readiness::HANGUP;
    }
    found
}

/// A timeout as the system takes it.
pub(crate) fn limit(timeout: Duration) -> TimeVal {
    let (secs, micros) = round::micros(timeout);
    TimeVal::microseconds(secs * 1_000_000 + i64::from(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_asked_about_the_half_close_and_a_writer_is_not() {
        assert_eq!(flags(readiness(true, true)), HALF_CLOSE);
        assert_eq!(flags(readiness(false, true)), PollFlags::empty());
    }

    #[test]
    fn a_half_close_is_no_news_for_a_writer() {
        assert!(!end(HALF_CLOSE).contains(Readiness::WRITE));
    }

    #[test]
    fn a_hang_up_and_an_error_concern_both_directions() {
        assert_eq!(end(PollFlags::HUP), Readiness::HANGUP);
        assert_eq!(end(PollFlags::ERR), Readiness::HANGUP);
    }

    #[test]
    fn a_file_that_poll_cannot_look_at_is_not_taken_for_dead() {
        assert_eq!(end(PollFlags::NVAL), Readiness::NONE);
    }

    #[test]
    fn timeouts_round_up_and_the_longest_is_capped() {
        assert_eq!(limit(Duration::from_nanos(1)), TimeVal::microseconds(1));
        assert_eq!(limit(Duration::MAX), TimeVal::seconds(100_000_000));
    }
}
