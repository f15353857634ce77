//! The select(2) hub. It works like `hub-epoll`, with these differences:
//!
//! a) The system keeps no registrations: each call takes every descriptor, and looks at every number up to the largest.
//!    So there is nothing to forget or to inherit in a child. The hub passes the armed descriptors of the main loop's
//!    table; a descriptor without a waiter is not among them.
//! b) A set holds the numbers below `FD_SETSIZE`. `watch` refuses other numbers. Linux and the BSDs would take larger
//!    sets, but only through unsafe code, since no safe wrapper of the call takes them; poll(2) has no such limit.
//! c) select reports data, a half close and a hang-up alike as "readable", and an error as "readable and writable". The
//!    hub passes the reported descriptors to a poll(2) that does not sleep, and that tells them apart. Where poll(2)
//!    does not support a kind of file, the answer of select stands. On Linux a hang-up without an error, of a Unix
//!    socket or a terminal whose buffer is full, is "readable" and not "writable". So a descriptor with only a writer
//!    is in the set of readers as well. If that set reports only unread data, which the writer has not asked for, the
//!    hub removes the descriptor from the set for the rest of the wait, and poll(2) looks at it every 50 ms.
//! d) The third set is for urgent data only. No direction of the hub contract corresponds to it.
//! e) One number that is not open makes the whole call fail with EBADF, which does not name the number. The hub then
//!    checks each descriptor and reports the dead ones as INVALID. The others stay armed.
//! f) Linux ignores numbers beyond the largest that the process has ever opened. So `watch` checks that the number is
//!    open.
//! g) A regular file or a directory is always ready.
//! h) `select` counts microseconds, and some systems refuse more than 10^8 seconds, so the hub caps timeouts there.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout))]

mod convert;
mod hub;

use hub_core::hub::HubDescriptor;

pub use hub::SelectHub;

/// The descriptor of the select hub, for `use_hub` and `GREENHUB_HUB`.
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: hub::NAME,
    aliases: &["selects"],
    available: || true,
    build: || Ok(Box::new(SelectHub::new()?)),
};

/// Compiles the program of the README as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
