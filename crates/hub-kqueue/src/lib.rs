//! The kqueue(2) hub.
//!
//! What the system call does, and what that makes of this hub:
//!
//! a) A registration belongs to a *number and a filter*, one for each direction, and dies when the number is
//!    closed, whatever copies of the file are left. So a report is always of the file that has the number now;
//!    it carries the generation in `udata`, which makes it the key of the registration.
//! b) Adding a filter that is there already changes it, but not every implementation looks at the file again.
//!    `watch` deletes and adds, in one call. Each change asks for a receipt: then each is answered by itself,
//!    and no event is taken out of the queue along with the answers.
//! c) Deleting what is gone already is ENOENT, and of a closed number EBADF. Both are what was wanted.
//! d) EV_CLEAR makes a filter report each arrival once. It goes for both leases, so no report comes twice.
//! e) The filter for writing says EV_EOF when nothing can be sent any more, which is a hang-up. The filter for
//!    reading says it for a half close too; the two differ only by what the filter for writing says. A reader
//!    who watches alone is told of a hang-up at once, since nobody waits for the other direction.
//! f) A socket whose own sending side was shut down says EV_EOF for writing as well. Its reader may be woken once
//!    for nothing.
//! g) Adding a filter for writing to a pipe that nobody reads any more is EPIPE on some systems, so nothing would
//!    ever be reported. A timer of the queue with the same number, for one shot, reports that hang-up.
//! h) A regular file is readable until its end and silent from there on; a directory is readable in no way that
//!    helps. Both are refused with EPERM, as epoll does, and so is what the system refuses in other words.
//! i) A closed number is EBADF and is never reported.
//! j) A forked child does not inherit the queue: its number is not open there, and may be given to something else
//!    before the hub hears of the fork. It must not be closed.
//! k) Timeouts above 10^8 seconds are EINVAL on some systems.
//! l) On NetBSD kqueue-sys names the `kevent` that takes a 32-bit clock: this hub is not available there.
//! m) What does not fit in a batch stays at the head of the queue, so a full batch starves nobody.

#![deny(unsafe_code)]

mod convert;
mod hub;
#[cfg(any(
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
mod sys;
#[cfg(not(any(
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly"
)))]
mod sys {
    use std::io;

    use crate::hub::Kevent;

    /// This system has no such calls.
    pub(crate) fn calls() -> io::Result<Box<dyn Kevent>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "kqueue exists on BSD and macOS only"))
    }
}

use std::io::ErrorKind;

use hub_core::HubDescriptor;

pub use convert::{Event, Filter};
pub use hub::{Kevent, KqueueHub};

/// The kqueue hub, as `use_hub` and `EVENTLET_HUB` find it. Where there is no kqueue it is not available.
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: hub::NAME,
    aliases: &[],
    // One that only lacks descriptors or memory is there: building it says what it lacks.
    available: || {
        KqueueHub::new()
            .err()
            .is_none_or(|error| !matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied))
    },
    build: || Ok(Box::new(KqueueHub::new()?)),
};

/// The program of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
