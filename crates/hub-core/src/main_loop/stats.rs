//! What a loop has done and holds, in numbers.

use std::fmt;

use super::MainLoop;
use crate::greenlet::local::Local;
use crate::greenlet::run;
use crate::hub::Interest;

/// A snapshot of what a hub has done and holds, from [`HubRef::stats`](crate::HubRef::stats).
///
/// What is counted so far belongs to the OS thread, and goes on when its hub is replaced. Taking a snapshot looks at
/// each greenlet once; nothing else costs anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Turns of the main loop.
    pub turns: u64,
    /// How often a greenlet ran from the queue of those that are ready: a new one, one that was woken, one that gave
    /// way. Neither switches by hand nor those to the main loop are among them.
    pub switches: u64,
    /// Calls of [`Hub::wait`](crate::Hub::wait).
    pub waits: u64,
    /// Calls of [`Hub::watch`](crate::Hub::watch).
    pub watches: u64,
    /// Operations on owned descriptors that were tried, those that would have blocked included. With
    /// `waits` and `watches` these are nearly all the system calls of a program that does network I/O.
    pub operations: u64,
    /// Timers that are armed, those of sleeping green threads included.
    pub timers: usize,
    /// Green threads and callbacks that wait for reading, without those that queue behind another.
    pub readers: usize,
    /// Green threads and callbacks that wait for writing, without those that queue behind another.
    pub writers: usize,
    /// Greenlets that run next.
    pub ready: usize,
    /// Greenlets that wait to be woken: for a descriptor, a timer, a lock, each other…
    pub parked: usize,
    /// Waits of greenlets that have ended so far: what was waited for has come, or a timeout, or a kill. Giving way
    /// to others is no wait.
    pub wakeups: u64,
    /// Timers that were armed so far and not taken back within the turn that armed them, as those of most timeouts are.
    pub timers_armed: u64,
    /// Greenlets that have not ended, the main one and the main loop included.
    pub greenlets: usize,
    /// Green threads that have not ended or whose handle is held.
    pub green_threads: usize,
    /// Green threads that were spawned so far.
    pub spawned: u64,
    /// Address space reserved for stacks, in bytes.
    pub stack_bytes_mapped: usize,
    /// Memory that stacks take at least, in bytes: one touched page for each that is in use or idle.
    pub stack_bytes_resident: usize,
    /// Stacks that greenlets run on.
    pub stacks_in_use: usize,
    /// Stacks that wait to be used again.
    pub stacks_idle: usize,
    /// Stacks that were ever made: as many as were in use at the same time, at most, in each size.
    pub stacks_most: usize,
    /// OS threads that the process has for what can only block. One number for all hubs.
    pub pool_threads: usize,
    /// Jobs that wait for such a thread or run on one. One number for all hubs.
    pub pool_jobs: usize,
}

impl fmt::Display for Stats {
    /// One line for each number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: [(&str, u64); 22] = [
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
        ];
        lines.iter().try_for_each(|(name, number)| writeln!(f, "{name:<22}{number}"))
    }
}

impl MainLoop {
    /// `pool`: the OS threads and the jobs of the pools.
    pub(crate) fn stats(&self, local: &Local, pool: (usize, usize)) -> Stats {
        let descriptors = self.descriptors.borrow();
        let own = usize::from(self.wakeup.get().is_some());
        let readers = descriptors.first_in_line().filter(|(_, direction, _)| *direction == Interest::READ).count();
        let writers = descriptors.first_in_line().filter(|(_, direction, _)| *direction == Interest::WRITE).count();
        let stacks = local.stacks.stats();
        let timers = self.timers.borrow();
        let (pool_threads, pool_jobs) = pool;
        Stats {
            turns: self.pulse.turn(),
            switches: run::switches(),
            waits: self.waits.get(),
            watches: self.watches.get(),
            operations: self.operations.get(),
            timers: timers.len() + self.callbacks.borrow().immediate().count(),
            readers: readers.saturating_sub(own),
            writers,
            ready: run::ready(),
            parked: local.controls.parked(),
            wakeups: local.controls.ended_parks(),
            timers_armed: timers.absorbed(),
            greenlets: local.controls.live(),
            green_threads: local.tasks.live(),
            spawned: local.tasks.taken(),
            stack_bytes_mapped: stacks.reserved,
            stack_bytes_resident: stacks.resident,
            stacks_in_use: stacks.in_use,
            stacks_idle: stacks.idle,
            stacks_most: stacks.most,
            pool_threads,
            pool_jobs,
        }
    }
}
