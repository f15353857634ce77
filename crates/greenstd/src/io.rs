//! std's `io`, with pipes and standard streams that are green: its traits are what all of them implement.

mod pipe;
mod stdio;

// What follows takes the place of std's own under the same name.
pub use std::io::*;

pub use pipe::{PipeReader, PipeWriter, pipe};
pub use stdio::{Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock, stderr, stdin, stdout};
