//! The numbers of OS threads and jobs of all pools of the process.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fork::PerProcess;

static USAGE: PerProcess<PoolUsage> = PerProcess::new();

/// The numbers of OS threads and jobs of all pools.
#[derive(Default)]
pub(crate) struct PoolUsage {
    pub(crate) threads: AtomicUsize,
    /// The jobs that are queued or running.
    pub(crate) jobs: AtomicUsize,
    /// The jobs that no OS thread has begun.
    pub(crate) queued: AtomicUsize,
}

impl PoolUsage {
    /// Returns the numbers of this process, for the pools to change.
    ///
    /// # Errors
    ///
    /// Returns an error if the hook that detects forks cannot be installed.
    pub(crate) fn of_process() -> io::Result<&'static PoolUsage> {
        USAGE.get_or_make(PoolUsage::default)
    }
}

/// Returns one of the numbers. It is zero before the first job.
pub(crate) fn count(which: fn(&PoolUsage) -> &AtomicUsize) -> usize {
    USAGE.get().map_or(0, |usage| which(usage).load(Ordering::Relaxed))
}
