//! The libevent hub: the loop of a C library, where a program has to share its choice of system call.
//!
//! What the library does, and what that makes of this hub:
//!
//! a) One event for both directions falls silent as a whole, or reports as a whole. So each direction of a descriptor
//!    has an event of its own, made at its first use and kept for the next file under that number.
//! b) It counts registrations by number and has no generations. What is lent for life is forgotten before it is closed:
//!    it is registered level-triggered, once, as with epoll. What is lent for one wait may be closed and reused behind
//!    its back, and a copy of the old file may live on, which nothing can remove any more; level-triggered, it would
//!    keep the library busy inside one call. So that is registered edge-triggered, anew for each wait.
//! c) It says that a number may be read or written, not why: a hang-up looks like data, the old file of a reused number
//!    like the new one. So it only says where to look, and one poll(2) for all that it named finds what is there.
//! d) By default its timers are as coarse as the clock of the kernel's tick: 200 microseconds became 4 milliseconds.
//!    `EVENT_BASE_FLAG_PRECISE_TIMER` takes a timerfd, which costs a system call in each wait.
//! e) Methods that fail or go deaf as a whole for one bad descriptor (select), that look at every descriptor (poll), or
//!    that tell errors late (epoll with `EVENT_EPOLL_USE_CHANGELIST`) are not for this hub: it demands what epoll and
//!    kqueue have, and does not let `EVENT_…` variables choose.
//! f) It sleeps on when a signal interrupts its wait.
//! g) It prints warnings to standard error. There is one place for the whole process that they can be sent to, which
//!    this hub takes: they become [warnings](hub_core::warn). What a caller learns as an error is not told twice.
//! h) It ends the process if it finds no two descriptors for its signals while it makes a base. So the hub first looks
//!    whether there are eight, twice as many as a base takes, and makes one base at a time. Where another OS thread still
//!    takes them all in between, a warning says why the process ends.
//! i) A forked child shares the kernel's set with its parent: even freeing a base there takes the parent's descriptors
//!    out of it. `event_reinit` closes the four numbers of the child's copy, which by then may be those of files that the
//!    child has opened, and there is no way to learn whether. So the copy is left as it is, with its numbers.
//! j) With `evthread_use_pthreads` every call takes a lock. A hub belongs to one thread and makes its base without.

#[cfg(unix)]
mod base;
#[cfg(unix)]
mod convert;
#[cfg(unix)]
mod hub;
#[cfg(unix)]
mod sys;

// Links the library that this crate builds.
#[cfg(all(unix, feature = "bundled"))]
use libevent_sys as _;

#[cfg(unix)]
use std::io::ErrorKind;

use hub_core::HubDescriptor;

#[cfg(unix)]
pub use hub::LibeventHub;

/// The libevent hub, as `use_hub` and `EVENTLET_HUB` find it.
#[cfg(unix)]
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: hub::NAME,
    aliases: &["pyevent"],
    // One that only lacks descriptors or memory is there: building it says what it lacks.
    available: || {
        LibeventHub::new()
            .err()
            .is_none_or(|error| !matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied))
    },
    build: || Ok(Box::new(LibeventHub::new()?)),
};

/// The libevent hub, which this system does not have.
#[cfg(not(unix))]
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: "libevent",
    aliases: &["pyevent"],
    available: || false,
    build: || Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "the libevent hub is for Unix")),
};

/// The program of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
