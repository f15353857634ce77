//! The poll(2) hub. It works like `hub-epoll`, with these differences:
//!
//! a) The system keeps no registrations: each call takes every descriptor, and looks at every one. So there is nothing
//!    to register, to forget or to inherit in a child. The hub passes the armed descriptors of the main loop's table; a
//!    descriptor without a waiter is not among them. The cost of a wait is proportional to their number.
//! b) The array is filled anew for each call, because the table lends its descriptors only until `wait` returns. The
//!    hub keeps the allocation. Filling costs a twentieth of the call itself.
//! c) POLLHUP, POLLERR and POLLNVAL cannot be masked. They are reported for armed descriptors only.
//! d) A number that is not open is POLLNVAL, at every call and at once. The hub reports it as INVALID, and the main
//!    loop drops the number. The hub cannot detect it before `wait`.
//! e) POLLRDHUP tells a half close from data, but not every system has it. Elsewhere a read of zero bytes finds the
//!    end.
//! f) A regular file or a directory is always ready.
//! g) `poll` counts milliseconds, `ppoll` nanoseconds. rustix uses `ppoll` where it exists; elsewhere it rounds up.
//!    `poll` refuses a timeout that does not fit an `i32` of milliseconds, so the hub caps timeouts there.
//! h) More entries than `RLIMIT_NOFILE` allows fail with EINVAL, even if they were opened before the limit was lowered.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout))]

mod convert;
mod hub;

use hub_core::hub::HubDescriptor;

pub use hub::PollHub;

/// The descriptor of the poll hub, for `use_hub` and `GREENHUB_HUB`.
pub const DESCRIPTOR: HubDescriptor =
    HubDescriptor { name: hub::NAME, aliases: &[], available: || true, build: || Ok(Box::new(PollHub::new()?)) };

/// Compiles the program of the README as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
