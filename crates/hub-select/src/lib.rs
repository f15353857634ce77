//! The select(2) hub. As `hub-epoll`; differences are:
//!
//! a) The system keeps nothing: each call is told every descriptor, and looks at every number up to the
//!    largest. So there is nothing to forget or to inherit in a child; what is asked is the loop's
//!    table of what is armed, and who stopped waiting is not in it.
//! b) A set holds the numbers below `FD_SETSIZE`; one at or above is refused by `watch`. Linux and the
//!    BSDs would take larger sets, but not through a call that proves its descriptors to be open: that
//!    needs unsafe code, and poll(2) has no such limit.
//! c) "Readable" is all that is said of data, of a half close and of a hang-up, and an error is
//!    "readable and writable". What was found is put to a poll(2) that does not sleep, which tells them
//!    apart; where it cannot look at a kind of file, the answer of select stands. On Linux a hang-up that is
//!    no error, of a Unix socket or a terminal whose buffer is full, is "readable" and not "writable". So what
//!    only a writer waits for is in the set of readers as well. If that says no more than that there is unread
//!    data, which the writer has not asked for, it is taken out for the rest of the wait, and that poll(2)
//!    looks at it every 50 ms.
//! d) The third set is for urgent data alone, which nobody can ask for.
//! e) One number that is no descriptor makes the whole call EBADF, which does not say which. Each is
//!    then looked at by itself; those that are dead are told as INVALID, the others wait on.
//! f) Linux passes over a number beyond what the process has ever opened, without a word. So `watch`
//!    asks whether the number is a descriptor.
//! g) A regular file or a directory is always ready.
//! h) `select` counts microseconds, and some systems refuse more than 10^8 seconds: nothing sleeps longer.

#![forbid(unsafe_code)]

mod convert;
mod hub;

use hub_core::HubDescriptor;

pub use hub::SelectHub;

/// The select hub, as `use_hub` and `EVENTLET_HUB` find it.
pub const DESCRIPTOR: HubDescriptor = HubDescriptor {
    name: hub::NAME,
    aliases: &["selects"],
    available: || true,
    build: || Ok(Box::new(SelectHub::new()?)),
};

/// The program of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
