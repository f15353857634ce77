//! Waits that another OS thread may end: this OS thread is reachable, and the loop knows whether a wake-up can come.

use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;

use super::MainLoop;
use super::deadline::Deadline;
use super::parked::Parked;
use super::reach;
use super::remote::Mailbox;
use super::signal_wait::Moment;
use super::standstill::WakeSource;
use crate::base::wait_reason::WaitReason;
use crate::error::{HubError, LoopError, LoopErrorKind};
use crate::greenlet::control::{ControlRef, Kind, State, Wake};
use crate::greenlet::driver::Driver;
use crate::greenlet::local::Local;
use crate::greenlet::patience;
use crate::greenlet::run::{self, Park};
use crate::greenlet::target::Target;
use crate::timer_queue::TimerId;

impl MainLoop {
    /// Returns whether other OS threads can end the waits of this OS thread, which has a hub.
    #[inline]
    pub(crate) fn is_reachable(&self) -> bool {
        self.standstill.is_reachable() && !self.slot.is_empty()
    }

    /// Makes this OS thread reachable for other OS threads that end its waits, and builds its hub if there is none.
    #[cold]
    pub(crate) fn be_reachable(&self) -> Result<(), LoopError> {
        self.ensure_hub()?;
        reach::register(|| self.mailbox()).map_err(|error| LoopError::wait_failed(self.slot.name(), error))?;
        self.standstill.set_reachable();
        Ok(())
    }

    /// Like [`be_reachable`](MainLoop::be_reachable), but an OS thread that needs no hub may do without one that cannot
    /// be built: its next wait blocks the OS thread.
    #[cold]
    pub(crate) fn prepare_wait(&self, local: &Local) -> Result<(), LoopError> {
        match self.be_reachable() {
            Err(error) if may_block_without_hub(&error) && self.waits_alone(local) => {
                self.standstill.block_next_wait();
                Ok(())
            }
            reachable => reachable,
        }
    }

    /// Returns whether this wait, for which no hub could be built, blocks the OS thread. Asked once for each such wait,
    /// so that the next wait tries to build the hub again.
    #[cold]
    pub(crate) fn takes_blocking(&self, local: &Local) -> bool {
        self.standstill.take_block() && self.waits_alone(local)
    }

    /// Returns whether only the calling main greenlet could need a turn of the loop.
    fn waits_alone(&self, local: &Local) -> bool {
        let needs_none = |one: &ControlRef| matches!(one.kind(), Kind::Main | Kind::MainLoop);
        run::current() == local.main
            && self.timers.borrow().is_empty()
            && self.registered() == 0
            && local.controls.in_use().iter().all(needs_none)
    }

    /// Parks until a wake-up, the deadline, or an exit, which is not thrown. Switches.
    #[inline(always)]
    pub(crate) fn park_until(&self, park: Park, deadline: &mut Deadline) -> Result<Parked, LoopError> {
        let waiting = self.standstill.count_park();
        let wake = if deadline.is_none() { park.park_deferring_exit()? } else { self.park_limited(park, deadline)? };
        drop(waiting);
        if park.control().has_exit() {
            patience::end(park.control());
        }
        Ok(match wake {
            Wake::Event => Parked::Unparked,
            Wake::Deadline => Parked::TimedOut,
            _ => Parked::Exit,
        })
    }

    /// Makes handlers of `signals` notify this loop, after those that were registered by `flagged`. Builds its hub if
    /// there is none.
    ///
    /// The caller removes the signal from the returned mailbox at the end of its wait.
    pub(crate) fn watch_signals(
        &self,
        signals: impl IntoIterator<Item = c_int>,
        flagged: Moment,
    ) -> Result<Arc<Mailbox>, LoopError> {
        self.ensure_hub()?;
        let mailbox = self.mailbox().ok_or(LoopErrorKind::Hub)?;
        for signal in signals {
            let watched = self.signal_waits.watch(signal, flagged, &mailbox);
            watched.map_err(|error| LoopError::wait_failed(self.slot.name(), error))?;
        }
        mailbox.add_signal();
        Ok(mailbox)
    }

    /// Parks until a signal handler has notified this loop, or until the deadline. Returns false at the deadline.
    /// Switches.
    ///
    /// The caller watches its signals, and checks before and afterwards whether one of them has arrived.
    pub(crate) fn wait_for_signal(&self, deadline: &mut Deadline) -> Result<bool, LoopError> {
        let park = Park::current(WaitReason::Signal)?;
        let waiting = self.signal_waits.begin(park.waiter());
        let wake = self.park_limited(park, deadline)?;
        drop(waiting);
        if wake == Wake::Exit {
            run::throw_exit();
        }
        Ok(wake != Wake::Deadline)
    }

    /// Calls `callback` after each signal of which a handler notifies this loop, until
    /// [`remove_signal_callback`](MainLoop::remove_signal_callback). It must not switch or panic.
    pub(crate) fn add_signal_callback(&self, callback: Rc<dyn Fn()>) -> Moment {
        self.signal_waits.add(callback)
    }

    pub(crate) fn remove_signal_callback(&self, added: Moment) {
        self.signal_waits.remove(added);
    }

    fn park_limited(&self, park: Park, deadline: &mut Deadline) -> Result<Wake, LoopError> {
        let timer = deadline.arm(&mut self.timers.borrow_mut(), Target::park(park.waiter()));
        let armed = timer.map(|timer| ParkTimer { main_loop: self, timer });
        let wake = park.park_deferring_exit()?;
        if let Some(ParkTimer { timer, .. }) = &armed {
            deadline.fix(&self.timers.borrow(), *timer);
        }
        Ok(wake)
    }

    /// Returns the source of a wake-up of the main greenlet, for which no timer is armed.
    #[inline(never)]
    pub(super) fn wake_source(&self, local: &Local) -> WakeSource {
        let waits = matches!(local.main.state(), State::Parked | State::Switched);
        if !waits || self.is_kept_by_descriptors() || self.phases.any_counted() || self.signal_waits.any() {
            return WakeSource::Here;
        }
        if let Some(inbox) = self.inbox.get() {
            // In this order: the last handle may have been used and dropped in between.
            let (held, only_jobs) = (inbox.mailbox().users() != 0, inbox.mailbox().only_jobs_hold());
            if inbox.has_mail() || !only_jobs {
                return WakeSource::Here;
            }
            if held {
                return WakeSource::Job;
            }
        }
        let is_lost = self.standstill.is_empty() || self.liveness.is_joining();
        if is_lost { WakeSource::Lost } else { WakeSource::Elsewhere }
    }
}

/// Returns whether the error is that of a hub that could not be built, in an OS thread that goes on.
fn may_block_without_hub(error: &LoopError) -> bool {
    error.hub_error().is_some_and(|error| !matches!(error, HubError::ThreadEnding))
}

/// The timer of a wait. `Drop` disarms it, however the park ends.
struct ParkTimer<'a> {
    main_loop: &'a MainLoop,
    timer: TimerId,
}

impl Drop for ParkTimer<'_> {
    fn drop(&mut self) {
        self.main_loop.disarm(self.timer);
    }
}
