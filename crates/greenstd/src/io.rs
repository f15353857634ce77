//! std's `io`, with green pipes and standard streams, which implement std's own traits.
//!
//! The standard streams here park the waiting green thread. A write by std itself blocks the OS thread while a pipe is
//! full. Such writes are `print!`, `eprint!` and `dbg!`, the message of a panic, and the reports of this library,
//! unless [`set_report_stream`](hub_core::set_report_stream) sets another stream than standard error. A program whose
//! standard error is a pipe that may fill up should set a stream that passes the reports to another OS thread. See
//! [`stdout`] for the part of a line that `print!` has buffered.

mod pipe;
mod stdio;

// The items below replace std's own of the same names.
pub use std::io::*;

pub use pipe::{PipeReader, PipeWriter, pipe};
pub use stdio::{Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock, stderr, stdin, stdout};
