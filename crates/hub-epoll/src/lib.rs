//! The epoll(7) hub: the commented reference of all backends.
//!
//! What the system call does, and what that makes of this hub:
//!
//! a) A registration belongs to the pair of *open file and number*, and dies with the last copy of
//!    the open file, not with the number. A number that was closed and reused while a copy lives on
//!    (`dup`, `fork`) is still reported, with the data of the old registration, and can no longer be
//!    removed. So what is lent for one wait is registered edge-triggered: the old file is reported
//!    once for each of its arrivals, under a key that the loop drops.
//! b) `EPOLL_CTL_MOD` looks at the file again and reports what is ready, edge-triggered or not. It is
//!    how `watch` looks again. It answers ENOENT if the number is a new file, which is then added.
//! c) Level-triggered registrations save the probing read that edge-triggered ones need, but one that
//!    nobody waits for would be reported for ever. `wait` takes such directions out of the
//!    registration; `watch` puts them in again.
//! d) EPOLLHUP and EPOLLERR cannot be masked. A registration of which no direction is left becomes
//!    edge-triggered with an empty mask: they are reported once more, and that is dropped.
//! e) Data and the end of the stream may arrive as one edge, so EPOLLRDHUP is always asked for
//!    together with EPOLLIN: a short read must not make a reader wait for an end that was announced.
//! f) A regular file or a directory is EPERM. A closed number is EBADF and is never reported.
//! g) `epoll_wait` counts milliseconds. `epoll_pwait2` (Linux 5.11) takes nanoseconds; it may be
//!    missing (ENOSYS) or forbidden by an older sandbox (EPERM). The first such answer is remembered.
//! h) A forked child shares the set with its parent: adding or removing there would change what the
//!    parent sees. Closing the child's number is harmless, if it still is that of the set.
//! i) Ready files rotate through the kernel's list, so a full batch starves nobody.

#![forbid(unsafe_code)]

#[cfg(any(target_os = "linux", target_os = "android"))]
mod convert;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod hub;

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::io::ErrorKind;

use hub_core::HubDescriptor;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub use hub::{EpollHub, Paths, Trigger};

/// The epoll hub, as `use_hub` and `EVENTLET_HUB` find it.
///
/// `GREENHUB_EPOLL`, a list with commas, forces ways through the system that it would not take by itself:
/// `edge` ([`Trigger::Edge`]), `millis` (no [`precise_wait`](Paths::precise_wait)). It exists so that a test suite
/// can be run again over them.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: hub::NAME,
    aliases: &["epolls"],
    // One that only lacks descriptors or memory is there: building it says what it lacks.
    available: || {
        EpollHub::new()
            .err()
            .is_none_or(|error| !matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied))
    },
    build: || Ok(Box::new(EpollHub::with(Paths::from_env()?)?)),
};

/// The epoll hub, which this system does not have.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: "epoll",
    aliases: &["epolls"],
    available: || false,
    build: || Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "epoll exists on Linux and Android only")),
};

/// The program of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
