//! A hub with a virtual clock: it polls descriptors through another hub and never sleeps.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Key, Lease, Ready, Rearm, Time, Watched};
use hub_core::internal::DEFAULT_HUB;

/// More turns than any program needs: a spinning loop ends with an error.
const TURNS: u32 = 100_000;

/// The virtual clock, in nanoseconds.
#[derive(Clone, Default)]
pub(crate) struct Clock(Rc<Cell<u64>>);

impl Clock {
    pub(crate) fn millis(&self) -> u64 {
        self.0.get() / 1_000_000
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.set(self.0.get() + by.as_nanos() as u64);
    }
}

pub(crate) struct VirtualHub {
    inner: Box<dyn Hub>,
    clock: Clock,
    found: Ready,
    turns: u32,
}

impl VirtualHub {
    pub(crate) fn new(clock: Clock) -> io::Result<VirtualHub> {
        let choose = DEFAULT_HUB.first().expect("the facade puts its choice in");
        let inner = (choose().map_err(io::Error::other)?.build)()?;
        Ok(VirtualHub { inner, clock, found: Ready::new(), turns: 0 })
    }
}

impl Hub for VirtualHub {
    fn name(&self) -> &'static str {
        "virtual"
    }

    fn rearm(&self) -> Rearm {
        self.inner.rearm()
    }

    fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
        self.inner.watch(key, fd, interest, lease)
    }

    fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) {
        self.inner.forget(key, fd);
    }

    fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
        self.turns += 1;
        if self.turns > TURNS {
            return Err(io::Error::other("the loop spins"));
        }
        self.inner.wait(watched, Some(Duration::ZERO), &mut self.found)?;
        // The order of reports is unspecified; this hub sorts them by number.
        let mut reports = self.found.reports().to_vec();
        reports.sort_by_key(|(key, _)| key.fd());
        self.found.clear();
        match timeout {
            _ if !reports.is_empty() => reports.into_iter().for_each(|(key, what)| ready.push(key, what)),
            Some(timeout) => self.clock.advance(timeout),
            None => return Err(io::Error::other("nothing will ever happen")),
        }
        Ok(())
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.inner.after_fork()
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.clock.0.get())
    }
}
