//! The kqueue(2) hub.
//!
//! The quirks of the system call, and their consequences for this hub:
//!
//! a) A registration belongs to a *number and a filter*, one for each direction. It ends when the number is closed,
//!    even if copies of the file are left. So an event always concerns the file that has the number now. The event
//!    carries the generation in `udata`, so number and generation form the key of the registration.
//! b) Adding a filter twice changes the first, but not every implementation then polls the file again. `watch` deletes
//!    and adds, in one call. Each change requests a receipt, so each change has its own answer, and the call takes no
//!    event out of the queue.
//! c) Deleting a filter that does not exist fails with ENOENT, and a filter of a closed number with EBADF. Both count
//!    as success.
//! d) EV_CLEAR makes a filter report each arrival once. The hub uses it for both leases, so no report comes twice.
//! e) The filter for writing sets EV_EOF when nothing can be sent any more, which is a hang-up. The filter for reading
//!    sets it for a half close, too. Only the filter for writing tells the two apart. If only a reader watches, the hub
//!    reports a hang-up at once: no writer could be woken by mistake.
//! f) The filter for writing also sets EV_EOF for a socket whose own sending side was shut down. Its reader may be
//!    woken once without data.
//! g) Some systems refuse a filter for writing to a pipe without a reader with EPIPE, so no event would be reported. A
//!    one-shot timer of the queue with the same number reports that hang-up.
//! h) A regular file is readable until its end and silent from there on. Events of a directory are useless. The hub
//!    refuses both with EPERM, as epoll does, and turns other refusals of a kind of file into EPERM.
//! i) A closed number fails with EBADF and is never reported.
//! j) A forked child does not inherit the queue: its number is not open there, and another file may have it before
//!    `after_fork` runs. So the hub must not close it.
//! k) Timeouts above 10^8 seconds fail with EINVAL on some systems, so the hub caps timeouts there.
//! l) On NetBSD kqueue-sys declares the old `kevent` with a 32-bit clock, so this hub is not available there.
//! m) Events that do not fit in a batch stay at the head of the queue, so a full batch starves no descriptor. If the
//!    whole batch is dropped (quirk g), `wait` looks again: an outer loop takes a wait without a report for an empty
//!    queue.

#![deny(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout))]

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

    /// Returns an error: this system has no kqueue.
    pub(crate) fn calls() -> io::Result<Box<dyn Kevent>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "kqueue exists on BSD and macOS only"))
    }
}

use std::io::ErrorKind;

use hub_core::hub::HubDescriptor;

pub use convert::{Event, Filter};
pub use hub::{Kevent, KqueueHub};

/// The descriptor of the kqueue hub, for `use_hub` and `GREENHUB_HUB`.
///
/// The hub is not available on systems without kqueue.
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: hub::NAME,
    aliases: &[],
    // A lack of descriptors or memory does not make the hub unavailable: `build` reports that error.
    available: || {
        KqueueHub::new()
            .err()
            .is_none_or(|error| !matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied))
    },
    build: || Ok(Box::new(KqueueHub::new()?)),
};

/// Compiles the program of the README as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
