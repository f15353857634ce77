//! std's `process`, green: talking to a child and waiting for its end parks the calling green thread only.
//!
//! Starting a child is the system's `fork` and `exec`, for which the OS thread waits.
//!
//! # How the end of a child is noticed
//!
//! On Linux by a descriptor of the process, for which the hub waits (pidfd, since 5.3). Where there is none, by the
//! signal `SIGCHLD`, which other parts of the program may use as well; the child is looked at every quarter of a
//! second besides, in case they took it for themselves. Where no descriptor is free, or the hub can take none, the child is
//! looked at in pauses of 32 ms at most; so it is where no hub can be built, and the OS thread sleeps in the pauses.
//! No other child is reaped. Code that waits for any child at all, such as
//! `waitpid(-1)`, takes the end of a child away from here as from std.
//!
//! A child whose last waiter was killed or has timed out is reaped by an OS thread, which exists as long as there are such
//! children.

mod child;
mod command;
mod ending;
mod orphans;

pub use std::process::{CommandArgs, CommandEnvs, ExitCode, ExitStatus, Output, Stdio, Termination, abort, exit, id};

pub use child::{Child, ChildStderr, ChildStdin, ChildStdout};
pub use command::Command;
