//! Conversion between directions and poll's flags.

use std::time::Duration;

use hub_core::hub::{Interest, Readiness, round};
use rustix::event::{PollFlags, Timespec};

/// The flag that requests half closes, where the system has it (quirk e).
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

/// The longest timeout that `poll` can take: an `i32` of milliseconds (quirk g).
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// Returns the flags to poll for `interest`.
pub(crate) fn flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    if interest.contains(Interest::READ) {
        flags |= PollFlags::IN | HALF_CLOSE;
    }
    if interest.contains(Interest::WRITE) {
        flags |= PollFlags::OUT;
    }
    flags
}

/// Returns the readiness that reported `flags` mean.
pub(crate) fn readiness(flags: PollFlags) -> Readiness {
    let mut found = Readiness::NONE;
    if flags.contains(PollFlags::IN) {
        found |= Readiness::READ;
    }
    if flags.contains(PollFlags::OUT) {
        found |= Readiness::WRITE;
    }
    if flags.intersects(HALF_CLOSE) {
        found |= Readiness::READ | Readiness::END;
    }
    if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
        found |= Readiness::HANGUP;
    }
    if flags.contains(PollFlags::NVAL) {
        found |= Readiness::GONE;
    }
    found
}

/// Converts a timeout into the type of the system call.
pub(crate) fn limit(timeout: Duration) -> Timespec {
    let (secs, nanos) = round::nanos(timeout.min(LONGEST));
    Timespec { tv_sec: secs, tv_nsec: nanos.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_asks_for_the_half_close_and_a_writer_does_not() {
        assert_eq!(flags(Interest::READ), PollFlags::IN | HALF_CLOSE);
        assert_eq!(flags(Interest::WRITE), PollFlags::OUT);
    }

    #[test]
    fn a_half_close_does_not_make_the_socket_writable() {
        assert!(!readiness(PollFlags::IN | HALF_CLOSE).contains(Readiness::WRITE));
    }

    #[test]
    fn a_hang_up_and_an_error_make_both_directions_ready() {
        assert_eq!(readiness(PollFlags::HUP), Readiness::HANGUP);
        assert_eq!(readiness(PollFlags::ERR), Readiness::HANGUP);
    }

    #[test]
    fn a_dead_number_is_gone() {
        assert_eq!(readiness(PollFlags::NVAL), Readiness::GONE);
    }

    #[test]
    fn the_longest_timeout_fits_a_count_of_milliseconds() {
        let longest = limit(Duration::MAX);
        assert_eq!((longest.tv_sec, longest.tv_nsec), (2_147_483, 647_000_000));
        assert_eq!(limit(Duration::from_micros(200)), Timespec { tv_sec: 0, tv_nsec: 200_000 });
    }
}
