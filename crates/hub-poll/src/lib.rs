//! The poll(2) hub. As `hub-epoll`; differences are:
//!
//! a) The system keeps nothing: each call is told every descriptor, and looks at every one. So there is
//!    nothing to register, to forget or to inherit in a child; what is asked is the loop's table of what
//!    is armed, and who stopped waiting is not in it. A wait costs in proportion to that table.
//! b) The array is filled anew for each call: a descriptor is lent to a hub by a borrow of the table,
//!    which ends with `wait`. Only its room is kept. That is a twentieth of what the call itself costs.
//! c) POLLHUP, POLLERR and POLLNVAL cannot be masked; they come with a descriptor that is armed, and
//!    with no other.
//! d) A number that is no descriptor is POLLNVAL, at every call and at once. It is told as INVALID;
//!    the loop then gives the number up. Nothing is found out before `wait`.
//! e) POLLRDHUP tells a half close from data, but not every system has it: elsewhere the end is found
//!    by the read that returns nothing.
//! f) A regular file or a directory is always ready.
//! g) `poll` counts milliseconds, `ppoll` nanoseconds; rustix takes the latter where it exists and
//!    rounds up elsewhere. The former refuses what does not fit its number, so nothing sleeps longer.
//! h) More entries than `RLIMIT_NOFILE` allows are EINVAL, even if they were opened before the limit was
//!    lowered.

#![forbid(unsafe_code)]

mod convert;
mod hub;

use hub_core::HubDescriptor;

pub use hub::PollHub;

/// The poll hub, as `use_hub` and `EVENTLET_HUB` find it.
pub const DESCRIPTOR: HubDescriptor =
    HubDescriptor { name: hub::NAME, aliases: &[], available: || true, build: || Ok(Box::new(PollHub::new()?)) };

/// The program of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
