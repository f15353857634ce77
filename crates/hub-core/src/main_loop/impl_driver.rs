//! The methods of the main loop that greenlets call.

use std::cell::{Cell, OnceCell, RefCell};
use std::panic::Location;
use std::time::Duration;

use super::MainLoop;
use super::blocking::Heartbeat;
use super::busy_poll::BusyPoll;
use super::calls::Calls;
use super::clock::Clock;
use super::counters::Counters;
use super::embedding::Embedding;
use super::end_requests::Ending;
use super::foreign_futures::ForeignFutures;
use super::hub_slot::HubSlot;
use super::liveness::Liveness;
use super::marks::Marks;
use super::meter::Meter;
use super::phases::Phases;
use super::remote::{Inbox, Message};
use super::reports::Reports;
use super::signal_wait::SignalWaits;
use super::standstill::Standstill;
use super::thread_end;
use super::waker_table::Wakers;
use crate::error::LoopError;
use crate::greenlet::driver::{Driver, Install, Installed};
use crate::greenlet::exit::drop_contained;
use crate::greenlet::local;
use crate::greenlet::target::Target;
use crate::hub::Stamp;
use crate::timer_queue::{TimerId, TimerQueue};

impl Install for Installed {
    type MainLoop = MainLoop;
}

impl Driver for MainLoop {
    fn new() -> MainLoop {
        MainLoop {
            slot: HubSlot::default(),
            heartbeat: Heartbeat::default(),
            detector: Cell::default(),
            detection_decided: Cell::default(),
            descriptors: RefCell::default(),
            timers: RefCell::new(TimerQueue::new()),
            callbacks: RefCell::default(),
            calls: Calls::default(),
            marks: Marks::default(),
            reports: Reports::default(),
            inbox: OnceCell::new(),
            foreign_futures: ForeignFutures::default(),
            messages: RefCell::default(),
            clock: Clock::new(),
            counters: Counters::default(),
            meter: Meter::new(),
            ending: Ending::default(),
            embedding: Embedding::default(),
            standstill: Standstill::default(),
            signal_waits: SignalWaits::default(),
            busy_poll: BusyPoll::new(),
            wakeup: Cell::new(None),
            wakers: Wakers::default(),
            liveness: Liveness::default(),
            phases: Phases::default(),
        }
    }

    #[inline(always)]
    fn arm(&self, delay: Duration, target: Target) -> TimerId {
        self.timers.borrow_mut().arm(delay, target)
    }

    #[inline(always)]
    fn disarm(&self, id: TimerId) -> bool {
        self.timers.borrow_mut().cancel(id).is_some()
    }

    fn is_untouched(&self) -> bool {
        self.slot.is_empty() && self.timers.borrow().is_empty()
    }

    #[inline]
    fn stamp(&self) -> Stamp {
        if self.clock.is_old() {
            self.time_if_built();
        }
        self.clock.stamp()
    }

    fn last_stamp(&self) -> Stamp {
        self.clock.stamp()
    }

    fn run(&self) -> bool {
        self.take_turns(local::get())
    }

    fn turn_has_lasted(&self, time: Duration) -> bool {
        self.now() - self.clock.fired_at() >= time
    }

    fn take_main_error(&self) -> Result<(), LoopError> {
        self.ending.take_main_error().map_or(Ok(()), Err)
    }

    fn close(&self) -> usize {
        self.ending.close();
        let mut leaked = 0;
        for message in self.inbox.get().map(Inbox::close).into_iter().flatten() {
            match message {
                Message::Spawn(_, body, future) => {
                    std::mem::forget(body);
                    if let Some(future) = future {
                        self.foreign_futures.add(future);
                    }
                    leaked += 1;
                }
                // A request of another OS thread may hold a descriptor, which is closed here.
                message => drop_contained(message),
            }
        }
        drop_contained(self.slot.take_choice());
        leaked
    }

    fn end_with_thread_locals() {
        thread_end::end_with_thread_locals();
    }

    fn in_hub(&self) -> bool {
        self.heartbeat.is_in_hub()
    }

    #[cold]
    fn wake_by_waker(&self) {
        self.call_waker(|waker| waker.wake());
    }

    fn stack_size(&self) -> Option<usize> {
        self.slot.stack_size()
    }

    fn fail_main(&self, error: LoopError) {
        self.tell_main(error);
    }

    fn callback_is_due(&self) -> bool {
        self.calls.next_is_from_before(self.heartbeat.turn())
    }

    fn calling(&self) -> Option<&'static Location<'static>> {
        self.calls.calling()
    }

    fn run_callback(&self) {
        if let Some(id) = self.calls.take_next() {
            self.expire(id);
        }
    }
}
