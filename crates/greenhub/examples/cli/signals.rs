//! Ctrl-C, as a descriptor.

use std::io::{self, PipeReader};
use std::time::Duration;

use greenhub::{Interest, TrampolineError, trampoline};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe::register;

pub(crate) struct Signals {
    pipe: PipeReader,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Signals> {
        let (reader, writer) = io::pipe()?;
        register(SIGTERM, writer.try_clone()?)?;
        register(SIGINT, writer)?;
        Ok(Signals { pipe: reader })
    }

    /// Waits until a signal comes or the time is over.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> Result<(), TrampolineError> {
        match trampoline(&self.pipe, Interest::READ, limit) {
            Ok(_) | Err(TrampolineError::TimedOut(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
