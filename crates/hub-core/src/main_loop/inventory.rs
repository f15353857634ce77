//! The contents of a loop as data, for listings and counters.

use std::os::fd::RawFd;
use std::time::Duration;

use super::MainLoop;
use super::callback_table::Callback;
use super::origin::Origin;
use super::stats::Stats;
use crate::base::pool_usage;
use crate::greenlet::local::Local;
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::hub::{Interest, Stamp};

/// One wait for a descriptor.
pub(crate) struct DescriptorWait {
    pub(crate) fd: RawFd,
    pub(crate) interest: Interest,
    pub(crate) target: Target,
    /// Whether it waits behind another waiter.
    pub(crate) queued: bool,
}

impl MainLoop {
    /// Calls `each` for each wait for a descriptor, queued ones last, without the loop's own wake-up descriptor.
    pub(crate) fn for_each_descriptor_wait(&self, mut each: impl FnMut(DescriptorWait)) {
        let own = self.wakeup.get().map(|wakeup| Target::Call(wakeup.number()));
        let descriptors = self.descriptors.borrow();
        let first = descriptors.first_waiters().map(|wait| (wait, false));
        let all = first.chain(descriptors.queued().map(|wait| (wait, true)));
        all.map(|((fd, interest, target), queued)| DescriptorWait { fd, interest, target, queued })
            .filter(|wait| Some(wait.target) != own)
            .for_each(&mut each);
    }

    /// Calls `each` for each timer with the time left, as far as it is known. Callbacks without a delay come first.
    pub(crate) fn for_each_timer(&self, mut each: impl FnMut(Option<Duration>, Target)) {
        let now = self.time_if_built();
        self.callbacks.borrow().immediate().for_each(|id| each(Some(Duration::ZERO), Target::Call(id.number())));
        let timers = self.timers.borrow();
        timers.iter().for_each(|(_, deadline, target)| each(deadline.zip(now).map(|(at, now)| at - now), target));
    }

    /// Returns where the callback with that number was made. Returns `None` for callbacks of the loop itself.
    pub(crate) fn origin_of(&self, number: u32) -> Option<Origin> {
        let callbacks = self.callbacks.borrow();
        match callbacks.get(callbacks.id(number)?)? {
            Callback::Listener { origin, .. } | Callback::Timer { origin, .. } => Some(origin.clone()),
            Callback::Closed { .. } | Callback::Wake(_) | Callback::Leftover { .. } => None,
        }
    }

    /// Returns the age of an object that was made at `born`, if there is a clock.
    pub(crate) fn age(&self, born: Stamp) -> Option<Duration> {
        self.time_if_built()?;
        Some(self.clock.age(born))
    }

    /// Returns a snapshot.
    pub(crate) fn stats(&self, local: &Local) -> Stats {
        let descriptors = self.descriptors.borrow();
        let own = usize::from(self.wakeup.get().is_some());
        let readers = descriptors.first_waiters().filter(|(_, direction, _)| *direction == Interest::READ).count();
        let writers = descriptors.first_waiters().filter(|(_, direction, _)| *direction == Interest::WRITE).count();
        let stacks = local.stacks.stats();
        let timers = self.timers.borrow();
        Stats {
            turns: self.heartbeat.turn(),
            switches: run::switches(),
            waits: self.counters.waits(),
            watches: self.counters.watches(),
            operations: self.counters.operations(),
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
            pool_threads: pool_usage::count(|usage| &usage.threads),
            pool_jobs: pool_usage::count(|usage| &usage.jobs),
            pool_queued: pool_usage::count(|usage| &usage.queued),
        }
    }
}
