//! The main loop: one turn after another, until it is asked to end.
//!
//! ```text
//! mail → fire the timers that were due when the wait ended → run ready greenlets (FIFO, up to 256 or 2 ms)
//!   → wait on the hub (not at all if a greenlet is ready, else until the next deadline) and sample the clock, once
//!   → take all reports in → wake waiters and call listeners
//! ```
//!
//! The loop is a greenlet of its own, launched by the first call that blocks. Its state is [`MainLoop`], which outlives
//! it: the next call that blocks launches an ended loop again. The parts of the state have files of their own, with
//! private fields: [`clock`], [`hub_slot`], [`descriptors`], [`callback_table`], [`calls`], [`waker_table`], [`marks`],
//! [`reports`], [`embedding`], [`end_requests`], [`standstill`], [`signal_wait`], [`liveness`], [`phases`],
//! [`counters`], [`meter`]. They do not depend on the loop. A turn is in [`turn`].
//!
//! No cell is borrowed while foreign code runs (hubs, callbacks, destructors), nor when a greenlet is left; except the
//! table of descriptors, which the hub's `wait` reads. The hub is taken out of its cell for the time of a call, so a
//! nested call finds no hub and returns an error.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use self::blocking::{Detector, Heartbeat};
use self::descriptors::Descriptors;
use self::remote::{Inbox, Message};
use crate::base::id::HubId;
use crate::base::os_thread;
use crate::error::{LoopError, LoopErrorKind};
use crate::greenlet::control::Wake;
use crate::greenlet::driver::Driver;
use crate::greenlet::local;
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::hub::{Rearm, Time};
use crate::timer_queue::{Slack, TimerId, TimerQueue};

mod after_fork;
mod bell;
pub(crate) mod blocking;
mod busy_poll;
mod callback_table;
pub(crate) mod callbacks;
mod calls;
mod clock;
mod closing;
mod counters;
pub(crate) mod deadline;
pub(crate) mod descriptors;
pub(crate) mod doubt;
pub(crate) mod dump_request;
mod embedding;
mod end_requests;
pub(crate) mod foreign_futures;
mod hooks;
mod hub_builder;
mod hub_calls;
pub(crate) mod hub_prevent_multiple_readers;
mod hub_slot;
mod impl_driver;
pub(crate) mod inventory;
pub(crate) mod latch;
pub(crate) mod late_wake;
pub(crate) mod listener;
mod listening;
mod liveness;
mod loop_end;
mod loop_join;
pub(crate) mod loops;
mod mail;
mod marks;
#[cfg_attr(not(feature = "metrics"), path = "main_loop/no_meter.rs")]
pub(crate) mod meter;
mod origin;
mod outside_waits;
pub(crate) mod parked;
mod phases;
pub(crate) mod reach;
pub(crate) mod read_hint;
pub(crate) mod remote;
mod replace_hub;
mod reports;
pub(crate) mod signal_wait;
mod single_turns;
mod standstill;
pub(crate) mod stats;
pub(crate) mod thread_end;
mod turn;
pub(crate) mod waker_table;
mod wakers;
pub(crate) mod wakeup;
mod watching;

use self::busy_poll::BusyPoll;
use self::callback_table::Callbacks;
use self::calls::Calls;
use self::clock::Clock;
use self::counters::Counters;
use self::embedding::Embedding;
use self::end_requests::Ending;
use self::foreign_futures::ForeignFutures;
use self::hub_slot::HubSlot;
use self::liveness::Liveness;
use self::marks::Marks;
use self::meter::Meter;
use self::phases::Phases;
use self::reports::Reports;
use self::signal_wait::SignalWaits;
use self::standstill::Standstill;
use self::waker_table::Wakers;

pub use self::busy_poll::{busy_poll_time, set_busy_poll_time};
pub(crate) use self::callback_table::CallbackId;
pub use self::hub_builder::DEFAULT_HUB;
pub(crate) use self::hub_builder::{HubBuilder, default_builder};
pub(crate) use self::origin::Origin;
pub use self::origin::{hub_listener_stacks, hub_timer_stacks};
pub(crate) use self::phases::HookId;
pub use self::phases::Phase;
pub use self::standstill::{quiet_time, set_quiet_time};
pub use self::stats::Stats;

/// The state of the loop of one OS thread.
pub(crate) struct MainLoop {
    slot: HubSlot,
    descriptors: RefCell<Descriptors>,
    timers: RefCell<TimerQueue<Target>>,
    callbacks: RefCell<Callbacks>,
    calls: Calls,
    pub(crate) wakers: Wakers,
    pub(crate) marks: Marks,
    clock: Clock,
    reports: Reports,
    inbox: OnceCell<Inbox>,
    foreign_futures: ForeignFutures,
    /// The buffer for the messages of one turn.
    messages: RefCell<Vec<Message>>,
    /// The registration of the loop's own wake-up descriptor.
    wakeup: Cell<Option<CallbackId>>,
    embedding: Embedding,
    ending: Ending,
    standstill: Standstill,
    signal_waits: SignalWaits,
    busy_poll: BusyPoll,
    liveness: Liveness,
    phases: Phases,
    heartbeat: Heartbeat,
    detector: Cell<Option<Box<Detector>>>,
    /// Whether the program or the environment has decided about the detector.
    detection_decided: Cell<bool>,
    pub(crate) counters: Counters,
    meter: Meter,
}

/// Returns the loop of this OS thread if `hub` is its present hub.
pub(crate) fn of_hub(hub: HubId) -> Option<&'static MainLoop> {
    local::try_get().map(|local| &local.main_loop).filter(|main_loop| main_loop.id() == hub)
}

impl MainLoop {
    pub(crate) fn slack(&self) -> (u32, Duration) {
        let Slack { divisor, at_most } = self.timers.borrow().slack();
        (divisor, at_most)
    }

    pub(crate) fn set_slack(&self, divisor: u32, at_most: Duration) {
        self.timers.borrow_mut().set_slack(Slack { divisor, at_most });
    }

    pub(crate) fn set_label(&self, label: String) {
        self.slot.set_label(label);
    }

    pub(crate) fn with_label<R>(&self, read: impl FnOnce(&str) -> R) -> R {
        self.slot.with_label(read)
    }

    /// Calls `access` with the table of descriptors. Returns `None` inside the hub's `wait`, which reads the table.
    #[inline]
    pub(crate) fn with_table<R>(&self, access: impl FnOnce(&mut Descriptors) -> R) -> Option<R> {
        self.descriptors.try_borrow_mut().ok().map(|mut table| access(&mut table))
    }

    /// Returns how the hub reports a descriptor that stays ready.
    #[inline]
    pub(crate) fn rearm(&self) -> Rearm {
        self.slot.rearm()
    }

    /// Fires a timer now, unless it has fired or was disarmed.
    pub(crate) fn fire_now(&self, id: TimerId, target: Target) {
        if self.disarm(id) {
            self.tell(target, Wake::Deadline);
        }
    }

    /// Returns the next instant at which the loop has work, apart from descriptors.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let now = self.now();
        if run::ready() != 0 {
            return Some(now);
        }
        let mut timers = self.timers.borrow_mut();
        timers.absorb(now);
        timers.next_deadline()
    }

    /// Returns the time by the hub's clock, or by the system's if no hub can be built.
    ///
    /// The time of one hub never goes back, even if its clock does. The next hub may have an earlier time.
    pub(crate) fn now(&self) -> Time {
        self.sample_clock().unwrap_or_else(|error| {
            if error.kind() == LoopErrorKind::Panic {
                self.stop_with(error);
            }
            Time::monotonic()
        })
    }

    /// Returns the last sample of the hub's clock; takes the first one.
    pub(crate) fn cached_now(&self) -> Time {
        match self.clock.last() {
            last if last == Time::default() => self.now(),
            last => last,
        }
    }

    /// Takes a sample of the hub's clock. Returns the last one if the hub itself asks.
    fn sample_clock(&self) -> Result<Time, LoopError> {
        match self.with_hub("telling the time", |hub| hub.now()) {
            Err(error) if error.kind() == LoopErrorKind::InMainloop => Ok(self.clock.take(self.clock.last())),
            sample => Ok(self.clock.take(sample?)),
        }
    }

    /// Returns the time by the hub's clock, if there is a hub.
    #[cold]
    fn time_if_built(&self) -> Option<Time> {
        self.clock.set_old(false);
        (!self.slot.is_empty()).then(|| self.now())
    }

    /// Replaces the blocking detector of this OS thread. Waits for the end of the former one.
    pub(crate) fn detect_blocking(&'static self, resolution: Option<Duration>) -> io::Result<()> {
        let new =
            resolution.map(|resolution| Detector::start(&self.heartbeat, resolution).map(Box::new)).transpose()?;
        self.detection_decided.set(true);
        // The drop waits for the old detector's watchdog.
        drop(self.detector.replace(new));
        Ok(())
    }

    /// Starts the detector if the environment asks for it and the program has decided nothing.
    ///
    /// Called for each hub that is built, and takes effect for the first. An OS thread of the library blocks all
    /// signals, so its greenlets cannot be sampled.
    fn detect_blocking_by_environment(&self) {
        if self.detection_decided.replace(true) || os_thread::is_of_library() {
            return;
        }
        let Some(resolution) = blocking::resolution() else { return };
        let Some(local) = local::try_get() else { return };
        if let Err(error) = local.main_loop.detect_blocking(Some(resolution)) {
            blocking::report_failure(&error);
        }
    }

    /// Returns the number of the present turn.
    pub(crate) fn turn(&self) -> u64 {
        self.heartbeat.turn()
    }

    /// Returns a descriptor that is readable when a turn would have work.
    pub(crate) fn pollable(&self) -> Option<RawFd> {
        self.with_hub("asking for its descriptor", |hub| hub.pollable().map(|fd| fd.as_raw_fd())).ok()?
    }

    /// Duplicates that descriptor.
    pub(crate) fn clone_pollable(&self) -> io::Result<OwnedFd> {
        self.with_hub("asking for its descriptor", |hub| match hub.pollable() {
            Some(fd) => fd.try_clone_to_owned(),
            None => {
                let text = format!("hub {:?} has no descriptor for outer loops: use epoll or kqueue", hub.name());
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
        })?
    }
}
