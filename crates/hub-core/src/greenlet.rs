//! Greenlets: stacks, switches, exits, and the run queue.
//!
//! The main modules, in reading order:
//!
//! - [`control`]: the control block of a greenlet, and its [`cold`] state;
//! - [`run`]: parking, waking, and the hand-off to the next greenlet;
//! - [`switch`]: all calls into the crate `context`;
//! - [`exit`]: exits and panics;
//! - [`task`]: the cell of a green thread, with its body and its result;
//! - [`raw`]: greenlets that are switched by hand, with a [`payload`];
//! - [`stack`] and [`overflow`]: the memory of stacks;
//! - [`target`] and [`patience`]: the targets of timers, and the limit up to which a wait for a lock holds exits back;
//! - [`local`]: the state of an OS thread: its control blocks, stacks and main loop;
//! - [`driver`]: the main loop as greenlets see it;
//! - [`debugger`]: the table by which a debugger finds greenlets;
//! - [`backtrace`]: the calls in progress of a suspended greenlet;
//! - [`ask_owner`]: the question to the owner of a descriptor, which may be closed;
//! - [`spans`]: the spans of each greenlet, for the crate `tracing`.

pub(crate) mod ask_owner;
#[cfg_attr(
    not(all(feature = "backtrace", target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "greenlet/no_backtrace.rs"
)]
pub(crate) mod backtrace;
mod cold;
pub(crate) mod control;
pub(crate) mod debugger;
pub(crate) mod describe;
pub(crate) mod driver;
pub(crate) mod exit;
pub(crate) mod local;
pub(crate) mod locals;
mod overflow;
pub(crate) mod patience;
pub(crate) mod payload;
pub(crate) mod raw;
pub(crate) mod run;
#[cfg_attr(not(feature = "tracing"), path = "greenlet/no_spans.rs")]
pub(crate) mod spans;
pub(crate) mod stack;
mod switch;
pub(crate) mod target;
pub(crate) mod task;
pub(crate) mod trace;
pub(crate) mod unhandled;
