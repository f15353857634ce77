//! The epoll(7) hub: the commented reference of all backends.
//!
//! The quirks of the system call, and their consequences for this hub:
//!
//! a) A registration belongs to the pair of *open file and number*. It ends with the last copy of the open file, not
//!    with the number. If a number is closed and reused while a copy lives on (`dup`, `fork`), the old file is still
//!    reported, with the data of the old registration, and the registration can no longer be removed. Therefore a
//!    descriptor that is lent for one wait is registered edge-triggered: each arrival of the old file costs one report,
//!    under a stale key that the main loop drops.
//! b) `EPOLL_CTL_MOD` polls the file again and reports what is ready, edge-triggered or not. `watch` uses it to look
//!    again. It fails with ENOENT if the number belongs to a new file; `watch` then adds the file.
//! c) Level-triggered registrations save the probing read that edge-triggered ones need, but a ready direction without
//!    a waiter would be reported forever. `wait` removes such directions from the registration; `watch` adds them
//!    again.
//! d) EPOLLHUP and EPOLLERR cannot be masked. A registration without directions becomes edge-triggered with an empty
//!    mask. Both are then reported once more, and the hub drops that report. A full batch of such reports may
//!    hide others: `wait` looks again, since an outer loop takes a wait without a report for an empty set.
//! e) Data and the end of the stream may arrive as one edge. EPOLLRDHUP is always requested together with EPOLLIN, so
//!    that a reader does not park after a short read although the end was reported.
//! f) A regular file or a directory fails with EPERM. A closed number fails with EBADF and is never reported.
//! g) `epoll_wait` counts milliseconds. `epoll_pwait2` (Linux 5.11) takes nanoseconds, but may be missing (ENOSYS) or
//!    forbidden by an older sandbox (EPERM). The hub remembers the first such error.
//! h) A forked child shares the set with its parent. Changes in the child would change what the parent sees. Closing
//!    the child's number is harmless as long as the number still belongs to the set.
//! i) The kernel rotates its list of ready files, so a full batch starves no descriptor.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout))]

#[cfg(any(target_os = "linux", target_os = "android"))]
mod convert;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod hub;

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::io::ErrorKind;

use hub_core::hub::HubDescriptor;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub use hub::{EpollHub, Paths, Trigger};

/// The descriptor of the epoll hub, for `use_hub` and `GREENHUB_HUB`.
///
/// The environment variable `GREENHUB_EPOLL` is a comma-separated list of [`Paths`] to force: `edge`
/// ([`Trigger::Edge`]) and `millis` (no [`precise_wait`](Paths::precise_wait)). Test suites run over these paths with
/// it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: hub::NAME,
    aliases: &["epolls"],
    // A lack of descriptors or memory does not make the hub unavailable: `build` reports that error.
    available: || {
        EpollHub::new()
            .err()
            .is_none_or(|error| !matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied))
    },
    build: || Ok(Box::new(EpollHub::with(Paths::from_env()?)?)),
};

/// The descriptor of the epoll hub, which is not available on this system.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: "epoll",
    aliases: &["epolls"],
    available: || false,
    build: || Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "epoll exists on Linux and Android only")),
};

/// Compiles the program of the README as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
