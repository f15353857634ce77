//! A clock that a program moves by hand, for tests of sleeps and timeouts.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::contract::{Hub, Notify};
use super::interest::Interest;
use super::lease::{Lease, Rearm};
use super::ready::Ready;
use super::time::Time;
use super::watched::{Key, Watched};

/// A clock that stands still until the program moves it.
///
/// Clones share one clock. [`use_default_hub`](ManualClock::use_default_hub) chooses a hub with this clock, and
/// [`drive`](ManualClock::drive) gives the clock to any hub. Sleeps and timeouts then take no real time, and end in the
/// same order in each run.
///
/// ```
/// use greenhub::hub::ManualClock;
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// clock.use_default_hub()?;
/// greenhub::sleep(Duration::from_secs(3600));
/// assert!(clock.now().as_nanos() >= 3600 * 1_000_000_000);
/// # Ok::<(), greenhub::hub::HubError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now: Rc<Cell<Time>>,
}

impl ManualClock {
    /// Creates a clock that shows zero.
    #[must_use]
    pub fn new() -> ManualClock {
        ManualClock::default()
    }

    /// Returns the time that the clock shows.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now.get()
    }

    /// Moves the clock forward. Timers that become due fire when the main loop runs next.
    pub fn advance(&self, by: Duration) {
        self.now.set(self.now.get() + by);
    }

    /// Wraps `hub`, so that it uses this clock.
    pub fn drive<H: Hub>(&self, hub: H) -> Clocked<H> {
        Clocked { hub, clock: self.clone() }
    }
}

/// A hub on a [`ManualClock`].
///
/// A wait with a timeout does not sleep. If no descriptor is ready and no notice has arrived, the wait moves the clock
/// forward by the timeout instead. Time therefore passes only while the loop has nothing to do: a listener that leaves
/// its descriptor ready stops the clock. A wait without a timeout sleeps as usual. The tasks of a hub that runs a
/// runtime do not stop the clock: a timeout may elapse before a task that could end the wait has run.
///
/// The turns of an [embedded](crate::HubRef::embed) loop do not wait, so there the clock stands until the program moves
/// it. Timers that become due then fire in the next turn, which the program has to run: nothing wakes it.
#[derive(Debug)]
pub struct Clocked<H> {
    hub: H,
    clock: ManualClock,
}

impl<H: Hub> Hub for Clocked<H> {
    fn name(&self) -> &'static str {
        self.hub.name()
    }

    fn rearm(&self) -> Rearm {
        self.hub.rearm()
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        self.hub.watch(key, fd, interest, lease)
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        self.hub.forget(key, fd);
    }

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        let Some(timeout) = timeout else { return self.hub.wait(watched, None, ready) };
        self.hub.wait(watched, Some(Duration::ZERO), ready)?;
        if ready.reports().is_empty() {
            self.clock.advance(timeout);
        }
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.hub.after_fork()
    }

    fn notifier(&mut self) -> Option<Arc<dyn Notify>> {
        self.hub.notifier()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.hub.pollable()
    }

    fn may_wake(&self) -> bool {
        self.hub.may_wake()
    }

    fn completes_futures(&self) -> bool {
        self.hub.completes_futures()
    }

    fn stack_size(&self) -> usize {
        self.hub.stack_size()
    }

    fn now(&self) -> Time {
        self.clock.now()
    }
}
