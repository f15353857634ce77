//! A snapshot of what a loop has done and what it holds.

use std::fmt;

/// A snapshot of a hub's counters, from [`HubRef::stats`](crate::HubRef::stats).
///
/// The running totals belong to the OS thread, and go on when its hub is replaced. A snapshot visits each greenlet
/// once; the counters cost nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Turns of the main loop.
    pub turns: u64,
    /// Greenlets that were resumed from the run queue.
    ///
    /// New, woken and yielded greenlets count.
    ///
    /// Switches by hand, and switches to the main loop, do not count.
    pub switches: u64,
    /// Calls of [`Hub::wait`](crate::hub::Hub::wait).
    pub waits: u64,
    /// Calls of [`Hub::watch`](crate::hub::Hub::watch).
    pub watches: u64,
    /// Operations on owned descriptors that were tried.
    ///
    /// Operations that would have blocked count, too.
    ///
    /// Together with `waits` and `watches` these are nearly all system calls of a program that does network I/O.
    pub operations: u64,
    /// Armed timers, and callbacks that are due.
    ///
    /// Sleeping green threads have timers, too.
    pub timers: usize,
    /// Green threads, listeners and futures that wait for reading.
    ///
    /// Queued ones behind the first do not count.
    pub readers: usize,
    /// Green threads, listeners and futures that wait for writing.
    ///
    /// Queued ones behind the first do not count.
    pub writers: usize,
    /// Greenlets in the run queue.
    pub ready: usize,
    /// Parked greenlets: they wait for a descriptor, a timer, a lock, another greenlet…
    pub parked: usize,
    /// Waits of greenlets that have ended so far.
    ///
    /// The end was the awaited event, a deadline or an exit. A yield is no wait.
    pub wakeups: u64,
    /// Timers that were armed so far.
    ///
    /// A timer that was disarmed within the same turn, like that of most timeouts, does not count.
    pub timers_armed: u64,
    /// Greenlets that have not ended, including the main greenlet and the main loop.
    pub greenlets: usize,
    /// Green threads that have not ended or whose handle still exists.
    pub green_threads: usize,
    /// Green threads that were spawned so far.
    pub spawned: u64,
    /// Address space reserved for stacks, in bytes.
    pub stack_bytes_mapped: usize,
    /// The minimum of memory that stacks take, in bytes.
    ///
    /// It is one touched page for each stack in use or idle.
    pub stack_bytes_resident: usize,
    /// Stacks in use by greenlets.
    pub stacks_in_use: usize,
    /// Idle stacks, which wait for reuse.
    pub stacks_idle: usize,
    /// Stacks that were ever in use.
    ///
    /// For each size these are the most that were in use at the same time.
    pub stacks_most: usize,
    /// OS threads of the process's pools. One number for all hubs.
    pub pool_threads: usize,
    /// Jobs of the pools, queued or running. One number for all hubs.
    pub pool_jobs: usize,
    /// Jobs of the pools that wait for an OS thread. One number for all hubs.
    pub pool_queued: usize,
}

impl fmt::Display for Stats {
    /// Writes one line for each number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: [(&str, u64); 23] = [
            ("turns", self.turns),
            ("switches", self.switches),
            ("waits", self.waits),
            ("watches", self.watches),
            ("operations", self.operations),
            ("timers", self.timers as u64),
            ("readers", self.readers as u64),
            ("writers", self.writers as u64),
            ("ready", self.ready as u64),
            ("parked", self.parked as u64),
            ("wakeups", self.wakeups),
            ("timers_armed", self.timers_armed),
            ("greenlets", self.greenlets as u64),
            ("green_threads", self.green_threads as u64),
            ("spawned", self.spawned),
            ("stack_bytes_mapped", self.stack_bytes_mapped as u64),
            ("stack_bytes_resident", self.stack_bytes_resident as u64),
            ("stacks_in_use", self.stacks_in_use as u64),
            ("stacks_idle", self.stacks_idle as u64),
            ("stacks_most", self.stacks_most as u64),
            ("pool_threads", self.pool_threads as u64),
            ("pool_jobs", self.pool_jobs as u64),
            ("pool_queued", self.pool_queued as u64),
        ];
        lines.iter().try_for_each(|(name, number)| writeln!(f, "{name:<22}{number}"))
    }
}
