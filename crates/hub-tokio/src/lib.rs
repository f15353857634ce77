//! Tokio and green threads on one OS thread: futures in straight-line code, and straight-line code beside futures.
//!
//! There are three modes:
//!
//! | the program | the runtime | the mode |
//! |---|---|---|
//! | green threads that use asynchronous libraries | the hub's, on the same OS thread | [`TokioHub`] |
//! | a Tokio `main` with green threads | the program's, on the same OS thread | [`join`], [`run_until`] |
//! | green threads, and a runtime with worker threads | the program's, on other OS threads | [`block_on_in`] |
//!
//! [`TokioHub`] is the hub `tokio` of greenhub. In the first two modes, each green thread may call `tokio::spawn`, and
//! wait for any future of Tokio with [`block_on`](hub_core::future::block_on). In the first mode, the context is
//! entered when the hub is built: by `greenhub::use_hub("tokio")`, by [`get_hub`](hub_core::get_hub), or by the first
//! wait.
//!
//! [`GreenTransport`] makes a blocking stream of any stream of Tokio, and [`LineTransport`] one of lines. [`net`] has
//! clients and servers over them. They need none of the modes if the stream needs no runtime.
//!
//! The quirks of the runtime, and their consequences for this hub:
//!
//! a) The runtime waits by a set of descriptors of its own, whose descriptor is not public. So this hub lies over
//!    another hub, whose pollable descriptor the runtime watches. A wait that a descriptor ends looks at both sets.
//! b) The runtime watches descriptors edge-triggered, and the other hub may be level-triggered. A set that still has
//!    something to report makes no new edge. So this hub looks at the set of the other one before each sleep,
//!    until that set has nothing more to report.
//! c) Tasks run only in `block_on`, on the stack of the main loop, for which the hub asks for 2 MiB. A call that blocks
//!    is refused there with [`InMainloop`](hub_core::LoopErrorKind::InMainloop): a task starts a green thread for it by
//!    [`defer_to_green_thread`](hub_core::future::defer_to_green_thread).
//! d) A task that makes a green thread ready does not end the runtime's wait. The loop's own wake-up does (clause 19 of
//!    [`Hub`](hub_core::hub::Hub)). Beside green threads that are always ready, the runtime gets a turn in every eighth
//!    wait.
//! e) Runtime contexts are entered and left in stack order on each OS thread, which a switch in between would break. So
//!    the context is entered once, for the life of the hub. If the hub ends while the program holds a younger guard,
//!    Tokio panics: the panic is contained, and reported as a warning. Guards of the program itself must not be held
//!    over a wait in a green thread.
//! f) A forked child shares the runtime's set with its parent, and a drop would remove the parent's descriptors. So the
//!    child leaks the copy, with four close-on-exec descriptors, and begins with a new runtime. The parent's tasks do
//!    not run in it. A fork in a task itself cannot be intercepted: the child must not return to the runtime.
//! g) Timers count milliseconds. A timeout is rounded up to the next one. A timerfd for short delays would be precise,
//!    and take two system calls more for each: one arms it, and one reads it.
//! h) The runtime's descriptor for waking it is written by each wake-up of a task that comes from a green thread: a
//!    system call.
//! i) The runtime restarts a wait that a signal has interrupted. It installs no signal handlers.
//! j) Dropping a runtime waits for its blocking threads. The hub uses `shutdown_background` instead.
//! k) The destructors of an ending OS thread may drop Tokio's thread-locals before the hub. The hub then forgets its
//!    guard.
//! l) A runtime cannot run inside of another one on the same OS thread. In a program whose main greenlet runs a
//!    runtime, the hub cannot be built: [`join`] is for such programs. If a green thread waits in a future under the
//!    `block_on` of another runtime, Tokio panics in the hub's next wait. That is contained and reported as a warning.
//!    The other hub then waits alone until that `block_on` returns, so green threads go on, and tasks stand still.
//! m) The runtime panics if its own wait fails. The hub makes an error of it, and the loop builds another hub.

#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout))]

mod engine;
mod hub;
mod join;
mod line;
pub mod net;
mod raw;
mod transport;

pub use engine::handle;
pub use hub::TokioHub;
pub use join::{Join, block_on_in, join, run_until};
pub use line::LineTransport;
pub use transport::{GreenTransport, TransportRef};

/// Compiles the programs of the README as doctests. One of them names hub-epoll.
#[cfg(all(doctest, any(target_os = "linux", target_os = "android")))]
#[doc = include_str!("../README.md")]
struct Readme;
