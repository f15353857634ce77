//! The conformance suite for hubs.
//!
//! A hub in another workspace runs the suite with a dev-dependency on this crate and one line in
//! `tests/conformance.rs`. The argument is an expression that creates a hub when it is called:
//!
//! ```
//! hub_testkit::conformance!(hub_epoll::EpollHub::new);
//! # fn main() {}
//! ```
//!
//! A name before the expression puts the suite into a module, for a second configuration of the hub:
//!
//! ```
//! use hub_epoll::{EpollHub, Paths, Trigger};
//!
//! hub_testkit::conformance!(edge: || EpollHub::with(Paths { trigger: Trigger::Edge, precise_wait: true }));
//! # fn main() {}
//! ```
//!
//! Each case is a `#[test]` of its own and quotes the clause of [`hub_core::hub::Hub`] that it checks. Cases for
//! optional parts of the contract (a [`pollable`](hub_core::hub::Hub::pollable) descriptor, numbers above a limit) are
//! skipped with a printed line. A case that hangs ends the test program with the name of the case. Cases about forks,
//! signals, limits and reused numbers run in a new process of the test program each. The kit counts allocations with a
//! global allocator of its own.
//!
//! [`saboteurs`] holds hubs with one fault each, and the table of the cases that catch them.

mod allocations;
/// Called by the macros.
#[doc(hidden)]
pub mod cases;
pub mod fixture;
mod macros;
pub mod process;
pub mod saboteurs;

pub use process::run;

/// Compiles the programs of the README as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
