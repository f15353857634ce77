//! std's `process` for green threads.
//!
//! Talking to a child and waiting for its end park only the calling green thread. Starting a child is the system's
//! `fork` and `exec`, for which the OS thread waits.
//!
//! # How the end of a child is noticed
//!
//! On Linux the hub waits for a descriptor of the process (pidfd, since 5.3). Without pidfds the end is noticed by the
//! signal `SIGCHLD`, which other parts of the program may use as well; in case they consume it, the child is also
//! checked every quarter of a second. Where no descriptor is free, or the hub refuses it, the child is checked in
//! pauses of at most 32 ms. So it is where no hub can be built; then the OS thread sleeps in the pauses. No other child
//! is reaped. Code that waits for any child, such as `waitpid(-1)`, takes the status of a child away from this module,
//! as from std.
//!
//! A child whose last waiter was unwound is reaped by an OS thread, which exists as long as there are such children.

mod child;
mod command;
mod ending;
mod orphans;

pub use std::process::{CommandArgs, CommandEnvs, ExitCode, ExitStatus, Output, Stdio, Termination, abort, exit, id};

pub use child::{Child, ChildStderr, ChildStdin, ChildStdout};
pub use command::Command;
