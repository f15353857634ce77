//! The system calls: the only file that uses kqueue-sys.
//!
//! Ground rules:
//! - `kqueue_sys::kevent` has an enum field that the kernel writes. The kernel reports registered filters only, and
//!   this file registers the filters of [`Filter`] only. So the kernel writes valid values of the enum.
//! - The buffers outlive each call, and the kernel keeps no pointer to them. `udata` is a number and is never
//!   dereferenced.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use kqueue_sys::{EventFilter, EventFlag, FilterFlag, kevent};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::convert::{Event, Filter};
use crate::hub::Kevent;

// EV_RECEIPT comes from libc, because kqueue-sys lacks it on OpenBSD.
const _: () = assert!(
    EventFlag::EV_ADD.bits() == Event::ADD
        && EventFlag::EV_DELETE.bits() == Event::DELETE
        && EventFlag::EV_ONESHOT.bits() == Event::ONESHOT
        && EventFlag::EV_CLEAR.bits() == Event::CLEAR
        && libc::EV_RECEIPT == Event::RECEIPT
        && EventFlag::EV_ERROR.bits() == Event::ERROR
        && EventFlag::EV_EOF.bits() == Event::EOF,
    "the flags of `Event` equal those of this system"
);

/// Returns the calls of this system.
pub(crate) fn calls() -> io::Result<Box<dyn Kevent>> {
    Ok(Box::new(System::default()))
}

#[derive(Default)]
struct System {
    /// The buffers of the calls, kept to reuse their allocations.
    changes: Vec<kevent>,
    events: Vec<kevent>,
}

impl Kevent for System {
    fn kqueue(&mut self) -> io::Result<OwnedFd> {
        // SAFETY: the call has no arguments and no preconditions.
        let number = unsafe { kqueue_sys::kqueue() };
        if number == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and open, and nothing else owns it.
        let queue = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl_setfd(&queue, FdFlags::CLOEXEC)?;
        Ok(queue)
    }

    fn kevent(
        &mut self,
        queue: BorrowedFd<'_>,
        changes: &[Event],
        events: &mut [Event],
        timeout: Option<(i64, i32)>,
    ) -> io::Result<usize> {
        self.changes.clear();
        self.changes.extend(changes.iter().map(to_system));
        self.events.clear();
        self.events.reserve(events.len());
        let timeout = timeout.map(|(secs, nanos)| libc::timespec { tv_sec: secs as _, tv_nsec: nanos.into() });
        // SAFETY: `changes` has the given length. `events` has reserved capacity for the given number of events. The
        // timeout, if any, lives until the call returns.
        let count = unsafe {
            kqueue_sys::kevent(
                queue.as_raw_fd(),
                self.changes.as_ptr(),
                self.changes.len() as i32,
                self.events.as_mut_ptr(),
                events.len() as i32,
                timeout.as_ref().map_or(ptr::null(), ptr::from_ref),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel has initialized the first `count` events, which is at most `events.len()`, with filters
        // that were registered (see the ground rules).
        unsafe { self.events.set_len(count) };
        for (event, from) in events.iter_mut().zip(&self.events) {
            *event = from_system(from);
        }
        Ok(count)
    }
}

fn to_system(event: &Event) -> kevent {
    let filter = match event.filter {
        Filter::Read => EventFilter::EVFILT_READ,
        Filter::Write => EventFilter::EVFILT_WRITE,
        Filter::Timer => EventFilter::EVFILT_TIMER,
    };
    let flags = EventFlag::from_bits_retain(event.flags);
    let mut to = kevent::new(event.number as usize, filter, flags, FilterFlag::from_bits_retain(event.fflags));
    to.data = event.data;
    to.udata = ptr::without_provenance_mut(event.generation as usize);
    to
}

fn from_system(from: &kevent) -> Event {
    let filter = match from.filter {
        EventFilter::EVFILT_WRITE => Filter::Write,
        EventFilter::EVFILT_TIMER => Filter::Timer,
        _ => Filter::Read,
    };
    Event {
        number: from.ident as RawFd,
        filter,
        flags: from.flags.bits(),
        fflags: from.fflags.bits(),
        data: from.data,
        generation: from.udata.addr() as u32,
    }
}
