//! A hub with a virtual clock: it polls descriptors through another hub and never sleeps.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::support::hubs::{Tap, Tapped, Wait};
use greenhub::hub::{Hub, Ready, Time};

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
    clock: Clock,
    found: Ready,
    turns: u32,
}

impl VirtualHub {
    pub(crate) fn new(clock: Clock) -> io::Result<Tapped<VirtualHub>> {
        Tapped::new(VirtualHub { clock, found: Ready::new(), turns: 0 })
    }
}

impl Tap for VirtualHub {
    fn name(&self, _: &dyn Hub) -> &'static str {
        "virtual"
    }

    fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
        self.turns += 1;
        if self.turns > TURNS {
            return Err(io::Error::other("the loop spins"));
        }
        hub.wait(call.watched, Some(Duration::ZERO), &mut self.found)?;
        // The order of reports is unspecified; this hub sorts them by number.
        let mut reports = self.found.reports().to_vec();
        reports.sort_by_key(|(key, _)| key.fd());
        self.found.clear();
        match call.timeout {
            _ if !reports.is_empty() => {
                reports.into_iter().for_each(|(key, readiness)| call.ready.push(key, readiness))
            }
            Some(timeout) => self.clock.advance(timeout),
            None => return Err(io::Error::other("nothing will ever happen")),
        }
        Ok(())
    }

    fn now(&self, _: &dyn Hub) -> Time {
        Time::from_nanos(self.clock.0.get())
    }
}
