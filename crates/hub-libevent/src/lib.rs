//! The libevent hub: the event loop of a C library, for programs that have to wait by the system call that it chooses.
//!
//! The quirks of the library, and their consequences for this hub:
//!
//! a) An event for both directions can only be enabled or reported as a whole. So each direction of a descriptor has an
//!    event of its own. It is created at its first use and reused for the next file under that number.
//! b) The library registers numbers and has no generations. A descriptor that is lent for life is deregistered before
//!    it is closed, so the hub registers it level-triggered, once, as with epoll. A descriptor that is lent for one
//!    wait may be closed and its number reused without a call of `forget`. If a copy of the old file lives on, its
//!    registration can no longer be removed. A level-triggered one would keep the library busy inside one call. So the
//!    hub registers such a descriptor edge-triggered, anew for each wait.
//! c) The library reports that a number is ready, not why: a hang-up looks like data, and the old file of a reused
//!    number like the new one. So the hub takes its reports as hints, and one poll(2) over the reported numbers finds
//!    their state.
//! d) By default its timers have the resolution of the kernel's coarse clock: 200 microseconds became 4 milliseconds.
//!    `EVENT_BASE_FLAG_PRECISE_TIMER` uses a timerfd, which costs a system call in each wait.
//! e) Some of its backends do not fit this hub: select fails as a whole because of one bad descriptor, poll looks at
//!    every descriptor, and epoll with `EVENT_EPOLL_USE_CHANGELIST` reports errors late. So the hub requires the
//!    features of epoll and kqueue, and ignores the environment variables `EVENT_…`.
//! f) The library continues to sleep when a signal interrupts its wait.
//! g) The library prints warnings to standard error. The only way to redirect them is one log callback per process. The
//!    hub sets that callback and turns the messages into [warnings](hub_core::hub::warn), except those about an error
//!    that the call also returns.
//! h) The library ends the process if it cannot open two descriptors for its signals while it creates a base. So the
//!    hub first checks that eight are available, twice as many as a base takes, and creates one base at a time. If
//!    another OS thread takes them all in between, a warning reports why the process ends.
//! i) A forked child shares the kernel's set with its parent. Freeing the base in the child would remove the parent's
//!    descriptors from the set. `event_reinit` would close the four numbers of the child's copy, but these may belong
//!    to files that the child has opened, and the hub cannot tell. So the child leaks the copy and its numbers.
//! j) With `evthread_use_pthreads` every call takes a lock. A hub belongs to one OS thread and creates its base without
//!    locks.

#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout))]

#[cfg(unix)]
mod base;
#[cfg(unix)]
mod convert;
#[cfg(unix)]
mod hub;
#[cfg(unix)]
mod sys;

// Links the library that `libevent-sys` builds.
#[cfg(all(unix, feature = "bundled"))]
use libevent_sys as _;

#[cfg(unix)]
use std::io::ErrorKind;

use hub_core::hub::HubDescriptor;

#[cfg(unix)]
pub use hub::LibeventHub;

/// The descriptor of the libevent hub, for `use_hub` and `GREENHUB_HUB`.
#[cfg(unix)]
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: hub::NAME,
    aliases: &["pyevent"],
    // A lack of descriptors or memory does not make the hub unavailable: `build` reports that error.
    available: || {
        LibeventHub::new()
            .err()
            .is_none_or(|error| !matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied))
    },
    build: || Ok(Box::new(LibeventHub::new()?)),
};

/// The descriptor of the libevent hub, which is not available on this system.
#[cfg(not(unix))]
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: "libevent",
    aliases: &["pyevent"],
    available: || false,
    build: || Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "the libevent hub is for Unix")),
};

/// Compiles the program of the README as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
