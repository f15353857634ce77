//! Conversion of select's sets, and of the poll flags that refine them, to readiness.

use std::time::Duration;

use hub_core::hub::{Interest, Readiness, round};
use nix::sys::time::{TimeVal, TimeValLike};
use rustix::event::PollFlags;

/// The flag that requests half closes, where the system can tell them from data.
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

/// Returns the readiness that membership in the two sets means.
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

/// Returns the poll flags that find the end of the stream for a descriptor that select has `found` ready.
pub(crate) fn flags(found: Readiness) -> PollFlags {
    if found.directions().contains(Interest::READ) { HALF_CLOSE } else { PollFlags::empty() }
}

/// Returns what reported `flags` say about the end of the stream. NVAL is ignored: poll does not support every kind of
/// file that select does.
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

/// Converts a timeout into the type of the system call.
pub(crate) fn limit(timeout: Duration) -> TimeVal {
    let (secs, micros) = round::micros(timeout);
    TimeVal::microseconds(secs * 1_000_000 + i64::from(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_asks_for_the_half_close_and_a_writer_does_not() {
        assert_eq!(flags(readiness(true, true)), HALF_CLOSE);
        assert_eq!(flags(readiness(false, true)), PollFlags::empty());
    }

    #[test]
    fn a_half_close_does_not_make_the_socket_writable() {
        assert!(!end(HALF_CLOSE).contains(Readiness::WRITE));
    }

    #[test]
    fn a_hang_up_and_an_error_make_both_directions_ready() {
        assert_eq!(end(PollFlags::HUP), Readiness::HANGUP);
        assert_eq!(end(PollFlags::ERR), Readiness::HANGUP);
    }

    #[test]
    fn nval_from_poll_does_not_make_a_descriptor_invalid() {
        assert_eq!(end(PollFlags::NVAL), Readiness::NONE);
    }

    #[test]
    fn timeouts_round_up_and_the_longest_is_capped() {
        assert_eq!(limit(Duration::from_nanos(1)), TimeVal::microseconds(1));
        assert_eq!(limit(Duration::MAX), TimeVal::seconds(100_000_000));
    }
}
