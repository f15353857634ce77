//! Conversion between directions and epoll's flags.

use hub_core::hub::{Interest, Readiness};
use rustix::event::epoll::EventFlags;

/// Returns the flags to register for `interest`.
pub(crate) fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    if interest.contains(Interest::READ) {
        flags |= EventFlags::IN | EventFlags::RDHUP;
    }
    if interest.contains(Interest::WRITE) {
        flags |= EventFlags::OUT;
    }
    flags
}

/// Returns the readiness that reported `flags` mean.
pub(crate) fn readiness(flags: EventFlags) -> Readiness {
    let mut found = Readiness::NONE;
    if flags.contains(EventFlags::IN) {
        found |= Readiness::READ;
    }
    if flags.contains(EventFlags::OUT) {
        found |= Readiness::WRITE;
    }
    if flags.contains(EventFlags::RDHUP) {
        found |= Readiness::READ | Readiness::END;
    }
    if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
        found |= Readiness::HANGUP;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_asks_for_the_half_close_and_a_writer_does_not() {
        assert_eq!(flags(Interest::READ), EventFlags::IN | EventFlags::RDHUP);
        assert_eq!(flags(Interest::WRITE), EventFlags::OUT);
    }

    #[test]
    fn a_half_close_does_not_make_the_socket_writable() {
        assert_eq!(readiness(EventFlags::IN | EventFlags::RDHUP), Readiness::READ | Readiness::END);
    }

    #[test]
    fn a_hang_up_and_an_error_make_both_directions_ready() {
        assert_eq!(readiness(EventFlags::HUP), Readiness::HANGUP);
        assert_eq!(readiness(EventFlags::ERR), Readiness::HANGUP);
    }
}
