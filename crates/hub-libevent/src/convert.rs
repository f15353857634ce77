//! Conversion between directions and the flags of libevent and poll.

use std::ffi::c_short;

use hub_core::hub::{Interest, Lease, Readiness};
use rustix::event::PollFlags;

use crate::sys;

/// The poll flag for a half close by the peer, where the system has one.
const HALF_CLOSE: PollFlags = if cfg!(any(target_os = "linux", target_os = "android")) {
    PollFlags::from_bits_retain(0x2000)
} else {
    PollFlags::empty()
};

/// Returns the flags of an event for one direction.
pub(crate) fn event_flags(direction: Interest, lease: Lease) -> c_short {
    let direction = if direction == Interest::READ { sys::EV_READ } else { sys::EV_WRITE };
    let trigger = if lease == Lease::Wait { sys::EV_ET } else { 0 };
    direction | trigger | sys::EV_PERSIST
}

/// Returns the flags to poll for `interest`.
pub(crate) fn poll_flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN | HALF_CLOSE, interest.contains(Interest::READ));
    flags.set(PollFlags::OUT, interest.contains(Interest::WRITE));
    flags
}

/// Returns the readiness that the flags reported by poll mean.
pub(crate) fn readiness(flags: PollFlags) -> Readiness {
    let meanings = [
        (PollFlags::IN, Readiness::READ),
        (PollFlags::OUT, Readiness::WRITE),
        (HALF_CLOSE, Readiness::READ | Readiness::END),
        (PollFlags::HUP | PollFlags::ERR, Readiness::HANGUP),
        (PollFlags::NVAL, Readiness::GONE),
    ];
    let set = meanings.iter().filter(|(flag, _)| flags.intersects(*flag));
    set.fold(Readiness::NONE, |found, &(_, meaning)| found | meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_for_one_wait_is_edge_triggered() {
        assert_eq!(event_flags(Interest::READ, Lease::Life), 0x12);
        assert_eq!(event_flags(Interest::WRITE, Lease::Wait), 0x34);
    }

    #[test]
    fn a_reader_asks_for_the_half_close_and_a_writer_does_not() {
        assert_eq!(poll_flags(Interest::READ), PollFlags::IN | HALF_CLOSE);
        assert_eq!(poll_flags(Interest::WRITE), PollFlags::OUT);
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn a_half_close_does_not_make_the_socket_writable() {
        assert_eq!(HALF_CLOSE, PollFlags::RDHUP);
        assert_eq!(readiness(PollFlags::IN | HALF_CLOSE), Readiness::READ | Readiness::END);
    }

    #[test]
    fn a_hang_up_an_error_and_a_dead_number_make_both_directions_ready() {
        assert_eq!(readiness(PollFlags::HUP), Readiness::HANGUP);
        assert_eq!(readiness(PollFlags::ERR), Readiness::HANGUP);
        assert_eq!(readiness(PollFlags::NVAL), Readiness::GONE);
    }
}
