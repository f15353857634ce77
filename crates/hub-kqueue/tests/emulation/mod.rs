//! The part of `kqueue` and `kevent` that the hub uses, emulated over an epoll set, so that the hub can be tested on
//! Linux. Like kqueue, the emulation drops a registration when the number is closed, as far as epoll reveals that.
//!
//! The emulation differs from a kernel in one way: an arrival for one filter may report the other filter again. Then
//! the new room to write is reported before the old unread data.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use hub_kqueue::{Event, Filter, Kevent};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

/// Generations by filter.
type Filters = [Option<u32>; 2];

#[derive(Copy, Clone, Default)]
struct Registered {
    filters: Filters,
    /// Distinguishes the successive files under the number.
    file: u32,
}

#[derive(Default)]
pub(crate) struct Emulation {
    numbers: HashMap<RawFd, Registered>,
    files: u32,
    found: Vec<epoll::Event>,
    /// The events that did not fit into the caller's buffer.
    left: Vec<Event>,
}

impl Kevent for Emulation {
    fn kqueue(&mut self) -> io::Result<OwnedFd> {
        self.numbers.clear();
        self.left.clear();
        self.found.reserve(1024);
        self.left.reserve(1024);
        Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?)
    }

    fn kevent(
        &mut self,
        queue: BorrowedFd<'_>,
        changes: &[Event],
        events: &mut [Event],
        timeout: Option<(i64, i32)>,
    ) -> io::Result<usize> {
        for (change, answer) in changes.iter().zip(events.iter_mut()) {
            assert_ne!(change.flags & Event::RECEIPT, 0, "a change without a receipt would return events");
            let data = self.change(queue, change).err().map_or(0, |errno| errno.raw_os_error().into());
            *answer = Event { flags: Event::ERROR, data, ..*change };
        }
        if !changes.is_empty() {
            return Ok(changes.len());
        }
        let mut timeout = timeout;
        // A kernel reports no registration that it has dropped, so it never returns early because of a batch of those.
        while self.left.is_empty() && self.collect(queue, timeout)? {
            timeout = Some((0, 0));
        }
        let count = self.left.len().min(events.len());
        events[..count].copy_from_slice(&self.left[..count]);
        self.left.drain(..count);
        Ok(count)
    }
}

impl Emulation {
    fn change(&mut self, queue: BorrowedFd<'_>, change: &Event) -> Result<(), Errno> {
        // SAFETY: the number of a change belongs to a descriptor that the hub's caller lends, or is closed. For a
        // closed number the system call returns EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(change.number) };
        rustix::io::fcntl_getfd(fd)?;
        let Registered { filters, mut file } = self.numbers.get(&change.number).copied().unwrap_or_default();
        if mask(&filters).is_empty() {
            self.files += 1;
            file = self.files;
        }
        let mut changed = filters;
        changed[index(change.filter)] = (change.flags & Event::ADD != 0).then_some(change.generation);
        let data = EventData::new_u64(u64::from(file) << 32 | change.number as u64);
        let flags = mask(&changed);
        let result = match (mask(&filters).is_empty(), flags.is_empty()) {
            (true, true) => Err(Errno::NOENT),
            (true, false) => epoll::add(queue, fd, data, flags),
            (false, true) => epoll::delete(queue, fd),
            (false, false) => epoll::modify(queue, fd, data, flags),
        };
        match result {
            Ok(()) if filters[index(change.filter)].is_none() && change.flags & Event::DELETE != 0 => Err(Errno::NOENT),
            Ok(()) => {
                self.numbers.insert(change.number, Registered { filters: changed, file });
                self.left.retain(|event| event.number != change.number || event.filter != change.filter);
                Ok(())
            }
            // The number belongs to another file now: its registration is gone.
            Err(Errno::NOENT) if self.numbers.remove(&change.number).is_some() => self.change(queue, change),
            Err(errno) => Err(errno),
        }
    }

    /// Fills `left`. Returns whether the set may have more.
    fn collect(&mut self, queue: BorrowedFd<'_>, timeout: Option<(i64, i32)>) -> Result<bool, Errno> {
        let timeout = timeout.map(|(secs, nanos)| Timespec { tv_sec: secs, tv_nsec: nanos.into() });
        self.found.clear();
        epoll::wait(queue, spare_capacity(&mut self.found), timeout.as_ref())?;
        for found in &self.found {
            let number = found.data.u64() as u32 as RawFd;
            let [reading, writing] = match self.numbers.get(&number) {
                Some(registered) if u64::from(registered.file) == found.data.u64() >> 32 => registered.filters,
                _ => continue,
            };
            let flags = found.flags;
            let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            let event = |filter, generation, ended| {
                let flags = Event::CLEAR | if ended { Event::EOF } else { 0 };
                Event { number, filter, flags, fflags: 0, data: 1, generation }
            };
            if let Some(generation) = writing
                && (hung_up || flags.contains(EventFlags::OUT))
            {
                self.left.push(event(Filter::Write, generation, hung_up));
            }
            if let Some(generation) = reading
                && (hung_up || flags.intersects(EventFlags::IN | EventFlags::RDHUP))
            {
                self.left.push(event(Filter::Read, generation, hung_up || flags.contains(EventFlags::RDHUP)));
            }
        }
        Ok(self.found.len() == self.found.capacity())
    }
}

fn index(filter: Filter) -> usize {
    match filter {
        Filter::Read => 0,
        Filter::Write => 1,
        Filter::Timer => unreachable!("this system refuses no filter because of a hang-up"),
    }
}

fn mask(filters: &Filters) -> EventFlags {
    let mut flags = EventFlags::empty();
    if filters[0].is_some() {
        flags |= EventFlags::ET | EventFlags::IN | EventFlags::RDHUP;
    }
    if filters[1].is_some() {
        flags |= EventFlags::ET | EventFlags::OUT;
    }
    flags
}
