//! Ctrl-C as a readable descriptor.

use std::io::{self, PipeReader};
use std::time::Duration;

use greenhub::{Interest, TrampolineError, trampoline};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe::register;

/// A pipe into which the handlers of SIGINT and SIGTERM write.
pub(crate) struct Signals {
    pipe: PipeReader,
}

impl Signals {
    /// Installs the signal handlers.
    pub(crate) fn new() -> io::Result<Signals> {
        let (reader, writer) = io::pipe()?;
        register(SIGTERM, writer.try_clone()?)?;
        register(SIGINT, writer)?;
        Ok(Signals { pipe: reader })
    }

    /// Waits for a signal or until the time limit is over. Switches.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> Result<(), TrampolineError> {
        match trampoline(&self.pipe, Interest::READ, limit) {
            Ok(_) | Err(TrampolineError::TimedOut { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
