//! Conversion of directions and errors to kqueue's events and back.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use hub_core::hub::{Interest, Key, Readiness};
use rustix::fs::FileType;
use rustix::io::Errno;

/// The filter of a change or an event.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Filter {
    /// `EVFILT_READ`.
    Read,
    /// `EVFILT_WRITE`.
    Write,
    /// `EVFILT_TIMER`. Its number is chosen freely.
    Timer,
}

/// The fields of `struct kevent`, with the same types on every system.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// `ident`: the number of a descriptor, or of a timer.
    pub number: RawFd,
    /// `filter`.
    pub filter: Filter,
    /// `flags`: a combination of the constants of this type.
    pub flags: u16,
    /// `fflags`: the error of a socket.
    pub fflags: u32,
    /// `data`: the error in the answer to a change, or the milliseconds of a timer.
    pub data: i64,
    /// `udata`: the generation of the number.
    pub generation: u32,
}

impl Event {
    /// `EV_ADD`.
    pub const ADD: u16 = 0x0001;
    /// `EV_DELETE`.
    pub const DELETE: u16 = 0x0002;
    /// `EV_ONESHOT`.
    pub const ONESHOT: u16 = 0x0010;
    /// `EV_CLEAR`.
    pub const CLEAR: u16 = 0x0020;
    /// `EV_RECEIPT`.
    pub const RECEIPT: u16 = 0x0040;
    /// `EV_ERROR`.
    pub const ERROR: u16 = 0x4000;
    /// `EV_EOF`.
    pub const EOF: u16 = 0x8000;

    /// A placeholder in buffers for events.
    pub(crate) const NONE: Event =
        Event { number: -1, filter: Filter::Read, flags: 0, fflags: 0, data: 0, generation: 0 };

    /// Creates the change that makes the queue report each arrival under `key`.
    pub(crate) fn add(key: Key, filter: Filter) -> Event {
        let flags = Self::ADD | Self::CLEAR | Self::RECEIPT;
        Event { number: key.fd(), filter, flags, generation: key.generation(), ..Self::NONE }
    }

    /// Creates the change that removes a filter.
    pub(crate) fn delete(number: RawFd, filter: Filter) -> Event {
        Event { number, filter, flags: Self::DELETE | Self::RECEIPT, ..Self::NONE }
    }

    /// Creates the change that makes the queue report a hang-up under `key`, for a filter that the system refuses with
    /// EPIPE (quirk g).
    pub(crate) fn hang_up(key: Key) -> Event {
        let flags = Self::ADD | Self::ONESHOT | Self::RECEIPT;
        Event { number: key.fd(), filter: Filter::Timer, flags, data: 1, generation: key.generation(), ..Self::NONE }
    }

    /// Returns the key of the reported registration.
    pub(crate) fn key(&self) -> Key {
        Key::new(self.number, self.generation)
    }
}

/// Returns the filters for `interest`.
pub(crate) fn filters(interest: Interest) -> impl Iterator<Item = Filter> {
    let filters = [(Interest::READ, Filter::Read), (Interest::WRITE, Filter::Write)];
    filters.into_iter().filter(move |&(direction, _)| interest.contains(direction)).map(|(_, filter)| filter)
}

/// Returns the readiness that `event` means if the directions in `asked` are watched (quirks e, g).
pub(crate) fn readiness(event: &Event, asked: Interest) -> Readiness {
    let ended = event.flags & Event::EOF != 0;
    match event.filter {
        _ if event.flags & Event::ERROR != 0 => Readiness::GONE,
        Filter::Read if ended && (event.fflags != 0 || !asked.contains(Interest::WRITE)) => Readiness::HANGUP,
        Filter::Read if ended => Readiness::READ | Readiness::END,
        Filter::Read => Readiness::READ,
        Filter::Write if ended => Readiness::HANGUP,
        Filter::Write => Readiness::WRITE,
        Filter::Timer => Readiness::HANGUP,
    }
}

/// Returns the result of `change` according to its `answer` (quirks c, h).
pub(crate) fn verdict(change: &Event, answer: &Event) -> Result<(), Errno> {
    if change.flags & Event::DELETE != 0 || answer.data == 0 {
        return Ok(());
    }
    Err(match i32::try_from(answer.data).map_or(Errno::INVAL, Errno::from_raw_os_error) {
        Errno::INVAL | Errno::NODEV | Errno::OPNOTSUPP => Errno::PERM,
        other => other,
    })
}

/// Refuses kinds of files that kqueue reports incompletely or never (quirk h).
pub(crate) fn must_be_waitable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
        FileType::RegularFile | FileType::Directory => Err(Errno::PERM.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(filter: Filter, flags: u16) -> Event {
        Event { filter, flags, ..Event::NONE }
    }

    #[test]
    fn each_direction_has_a_filter() {
        assert_eq!(filters(Interest::READ).collect::<Vec<_>>(), [Filter::Read]);
        assert_eq!(filters(Interest::WRITE).collect::<Vec<_>>(), [Filter::Write]);
        assert_eq!(filters(Interest::BOTH).collect::<Vec<_>>(), [Filter::Read, Filter::Write]);
    }

    #[test]
    fn an_event_without_flags_makes_its_direction_ready() {
        assert_eq!(readiness(&event(Filter::Read, Event::CLEAR), Interest::BOTH), Readiness::READ);
        assert_eq!(readiness(&event(Filter::Write, Event::CLEAR), Interest::BOTH), Readiness::WRITE);
    }

    #[test]
    fn the_end_of_reading_does_not_make_the_socket_writable() {
        let end = event(Filter::Read, Event::EOF);
        assert_eq!(readiness(&end, Interest::BOTH), Readiness::READ | Readiness::END);
    }

    #[test]
    fn the_end_of_reading_is_a_hang_up_without_a_writer() {
        assert_eq!(readiness(&event(Filter::Read, Event::EOF), Interest::READ), Readiness::HANGUP);
    }

    #[test]
    fn the_end_of_writing_and_an_error_are_hang_ups() {
        assert_eq!(readiness(&event(Filter::Write, Event::EOF), Interest::BOTH), Readiness::HANGUP);
        let reset = Event { fflags: 104, ..event(Filter::Read, Event::EOF) };
        assert_eq!(readiness(&reset, Interest::BOTH), Readiness::HANGUP);
    }

    #[test]
    fn an_error_event_is_reported_as_gone() {
        assert_eq!(readiness(&event(Filter::Read, Event::ERROR), Interest::READ), Readiness::GONE);
    }

    #[test]
    fn an_event_returns_the_key_of_its_change() {
        let key = Key::new(7, u32::MAX);
        assert_eq!(Event::add(key, Filter::Read).key(), key);
    }

    #[test]
    fn every_refusal_of_a_kind_of_file_becomes_eperm() {
        let add = Event::add(Key::new(3, 1), Filter::Read);
        let answer = |errno: Errno| Event { flags: Event::ERROR, data: errno.raw_os_error().into(), ..add };
        for errno in [Errno::INVAL, Errno::NODEV, Errno::OPNOTSUPP, Errno::PERM] {
            assert_eq!(verdict(&add, &answer(errno)), Err(Errno::PERM));
        }
        assert_eq!(verdict(&add, &answer(Errno::BADF)), Err(Errno::BADF));
        assert_eq!(verdict(&add, &answer(Errno::NOMEM)), Err(Errno::NOMEM));
        assert_eq!(verdict(&add, &Event { flags: Event::ERROR, ..add }), Ok(()));
    }
}
