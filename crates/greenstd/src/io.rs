//! std's `io`, with pipes and standard streams that are green: its traits are what all of them implement.
//!
//! The standard streams here park the green thread that waits for them. What writes by std itself blocks the OS thread while
//! a pipe is full: `print!`, `eprint!` and `dbg!`, the message of a panic, and the reports of this library as long as
//! [`set_report_stream`](hub_core::set_report_stream) has set no other stream than standard error. A program whose standard
//! error is a pipe that may fill up sets a stream that hands the reports to another OS thread. See [`stdout`] for the part
//! of a line that `print!` has kept.

mod pipe;
mod stdio;

// What follows takes the place of std's own under the same name.
pub use std::io::*;

pub use pipe::{PipeReader, PipeWriter, pipe};
pub use stdio::{Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock, stderr, stdin, stdout};
