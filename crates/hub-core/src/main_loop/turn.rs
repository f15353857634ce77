//! A turn of the loop, from the mail to the reports of the hub.

use std::io;
use std::time::Duration;

use super::MainLoop;
use super::meter;
use super::standstill::WakeSource;
use super::waker_table::WakerId;
use crate::error::LoopError;
use crate::greenlet::control::{Waiter, Wake};
use crate::greenlet::driver::FutureWaits;
use crate::greenlet::exit::Exit;
use crate::greenlet::local::{self, Local};
use crate::greenlet::run;
use crate::greenlet::target::Target;
use crate::greenlet::trace;

/// The number of cut turns that may follow each other without a look at the descriptors, unless a timer is due. A look
/// costs more than itself: a descriptor whose greenlet has not run yet is reported once more, and is then taken out and
/// put back by calls of the hub.
const MAX_CUTS: usize = 4;

/// How many stacks are prefetched one after the other, before their greenlets are woken. Each is on a page of its own,
/// and the processor looks for several pages at once only if nothing else comes in between.
const TOGETHER: usize = 16;

/// The next wait of the hub.
struct Sleep {
    timeout: Option<Duration>,
    /// The time that counts as a standstill if nothing has come by the end of the wait. Only `source`, outside of this
    /// OS thread, can wake the main greenlet then.
    idle: Option<Duration>,
    source: WakeSource,
}

impl MainLoop {
    /// Runs the main loop in its greenlet. Returns when the loop ends. Never unwinds.
    ///
    /// Returns true if another loop has to go on at once, on a larger stack.
    pub(super) fn take_turns(&self, local: &Local) -> bool {
        trace::loop_began(self.slot.name());
        let (mut had_mail, mut reported, mut cuts) = (false, false, 0);
        loop {
            self.heartbeat.begin_turn();
            local.watch_for_end();
            had_mail |= self.read_mail();
            self.fire();
            let cut = run::run_ready(local);
            if self.ending.is_closing() {
                return false;
            }
            if self.end_is_due() {
                trace::loop_ended(self.slot.name());
                return false;
            }
            if cut && cuts < MAX_CUTS && !self.timer_is_due() {
                cuts += 1;
                continue;
            }
            cuts = 0;
            let noticed = std::mem::take(&mut had_mail);
            self.wait(local, noticed, reported);
            if self.slot.outgrows(|| local.main_loop_stack_size()) {
                // A caller of `run_once` must not sleep over the notice, which the loop that follows does not find.
                if noticed {
                    self.embedding.forbid_wait();
                }
                trace::loop_ended(self.slot.name());
                return true;
            }
            reported = self.dispatch();
            if let Some(waiter) = self.embedding.end_single_turn(reported) {
                self.read_mail();
                self.fire();
                run::run_ready(local);
                if self.phases.any() {
                    self.call_hooks_after_wait(reported);
                }
                // Has no effect if the main greenlet has left that park in the meantime.
                if waiter.wake() && self.phases.any() {
                    self.phases.expect_switch();
                }
            }
        }
    }

    /// Fires the timers that were due when the last wait ended.
    fn fire(&self) {
        let Some(now) = self.clock.take_due() else { return };
        let controls = &local::get().controls;
        let mut due = [Target::Vacant; TOGETHER];
        run::fire(|| {
            loop {
                let mut count = 0;
                {
                    let mut timers = self.timers.borrow_mut();
                    while count < TOGETHER
                        && let Some((_, _, target)) = timers.pop_due(now, |target| target.prefetch(controls))
                    {
                        due[count] = target;
                        count += 1;
                        // Only a park is known by a ticket. A hub that is called for another target may cancel timers.
                        if !matches!(target, Target::Parked { .. }) {
                            break;
                        }
                    }
                }
                if count == 0 {
                    return;
                }
                due[..count].iter().for_each(|target| target.prefetch_stack(controls));
                due[..count].iter().for_each(|&target| self.tell(target, Wake::Deadline));
            }
        });
    }

    /// Returns whether a timer is due by the last sample of the clock.
    pub(super) fn timer_is_due(&self) -> bool {
        let now = self.clock.last();
        let mut timers = self.timers.borrow_mut();
        timers.absorb(now);
        timers.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Waits on the hub, then samples the clock for the timers. `had_mail`: the turn has found mail. `reported`: the
    /// last wait has reported a descriptor.
    fn wait(&self, local: &Local, had_mail: bool, reported: bool) {
        // In a child it wakes the greenlets that wait for the parent's pool jobs, which never finish here.
        if let Err(error) = self.notice_fork() {
            return self.stop_with(error);
        }
        if meter::is_on()
            && let Err(error) = self.measure_turn(local)
        {
            return self.stop_with(error);
        }
        if self.phases.any() {
            self.call_hooks(reported);
            if self.ending.is_requested() {
                return;
            }
        }
        let timeout = match self.time_to_sleep() {
            Ok(timeout) => self.embedding.limited(timeout, had_mail),
            Err(error) => return self.stop_with(error),
        };
        let Some(sleep) = self.plan_sleep(local, timeout, had_mail) else { return };
        self.sleep(local, sleep);
    }

    /// Measures the turn that is over but for the wait. The clock of the hub is foreign code.
    #[cold]
    fn measure_turn(&self, local: &Local) -> Result<(), LoopError> {
        if self.embedding.is_embedded() {
            // The outer loop has waited between this loop's turns.
            self.meter.forget_turn();
        }
        let now = self.sample_clock()?;
        let hub = (self.id(), self.name());
        self.meter.end_turn(self.counters.waits(), hub, now, || self.stats(local));
        Ok(())
    }

    /// Publishes the numbers of this loop before they are due.
    #[cfg(feature = "metrics")]
    pub(crate) fn publish_now(&self, local: &Local) {
        self.meter.publish_now(|| self.stats(local));
    }

    /// Decides how long the hub waits.
    ///
    /// Returns `None` for no wait, because the main greenlet has become ready, mail has come or the loop ends.
    #[inline(always)]
    fn plan_sleep(&self, local: &Local, mut timeout: Option<Duration>, had_mail: bool) -> Option<Sleep> {
        let mut idle = None;
        let source =
            if timeout.is_some() && self.is_kept_by_timeout() { WakeSource::Here } else { self.wake_source(local) };
        match source {
            WakeSource::Here => {}
            // The hub runs tasks or timers of its own, which may wake a green thread.
            _ if self.hub_may_wake(local) => {}
            WakeSource::Job | WakeSource::Elsewhere => {
                let look = self.standstill.idle_timeout(source);
                // The timer of this timeout does not keep the loop alive.
                idle = Some(timeout.map_or(look, |timeout| timeout.min(look)));
                timeout = idle;
            }
            WakeSource::Lost if self.phases.is_due() => {}
            WakeSource::Lost => {
                self.report_deadlock(local);
                if run::ready() != 0 {
                    return None;
                }
            }
        }
        // Once more: the clock of the hub and the report are foreign code, which may have forked.
        if let Err(error) = self.ensure_hub() {
            self.stop_with(error);
            return None;
        }
        if self.slot.outgrows(|| local.main_loop_stack_size()) {
            return None;
        }
        if self.phases.is_due() {
            timeout = Some(Duration::ZERO);
            idle = None;
        } else if self.phases.forbid_sleep() {
            timeout = Some(Duration::ZERO);
            // The loop spins for hooks that do not keep it alive.
            idle = idle.map(|_| self.standstill.count_spin());
        }
        if had_mail && timeout != Some(Duration::ZERO) {
            if self.finds_mail(local, timeout) {
                if self.timers.borrow().is_empty() && self.busy_poll.spares_wait() {
                    // Neither a timer nor a descriptor is to be looked at.
                    self.clock.set_old(true);
                    return None;
                }
                timeout = Some(Duration::ZERO);
                idle = None;
            }
            if self.slot.is_empty() {
                // The hub has failed when it was asked. The next turn builds another one.
                return None;
            }
        }
        if timeout != Some(Duration::ZERO) && self.inbox.get().is_some_and(|inbox| !inbox.prepare_sleep()) {
            timeout = Some(Duration::ZERO);
            idle = None;
        }
        if let Some(longest) = self.longest_deaf_wait() {
            timeout = Some(timeout.map_or(longest, |timeout| timeout.min(longest)));
            idle = idle.map(|idle| idle.min(longest));
        }
        if let Some(longest) = self.meter.longest_wait(self.clock.last()) {
            timeout = Some(timeout.map_or(longest, |timeout| timeout.min(longest)));
            idle = idle.map(|idle| idle.min(longest));
        }
        if idle.is_none() && self.standstill.counts() {
            self.standstill.end_count();
        }
        Some(Sleep { timeout, idle, source })
    }

    /// Asks the hub whether it may wake a greenlet by itself, or complete the future of one.
    #[cold]
    pub(super) fn hub_may_wake(&self, local: &Local) -> bool {
        let asked = self.with_hub("asking whether it may wake", |hub| (hub.may_wake(), hub.completes_futures()));
        let (may_wake, completes_futures) = asked.unwrap_or_default();
        may_wake || completes_futures && local.futures.any()
    }

    /// Waits on the hub.
    #[inline(always)]
    fn sleep(&self, local: &Local, sleep: Sleep) {
        let mut ready = self.reports.take_ready();
        // Borrowed within, so that the table is free again when a hub that panics is dropped.
        let waited = self.call_hub("waiting", |hub| {
            let descriptors = self.descriptors.borrow();
            descriptors.watched.begin_wait();
            run::set_asleep(true);
            hub.wait(&descriptors.watched, sleep.timeout, &mut ready)
        });
        run::set_asleep(false);
        self.reports.put_ready(ready);
        self.counters.count_wait();
        self.clock.set_old(true);
        if let Ok(Ok(())) = waited {
            self.note_time();
        }
        if let Some(inbox) = self.inbox.get() {
            inbox.woke();
            if let Some(idle) = sleep.idle {
                let is_still = self.reports.is_empty() && run::ready() == 0 && !inbox.has_mail();
                if is_still
                    && self.standstill.is_hopeless(local, inbox.mailbox(), idle, sleep.source)
                    // In this order: the last of the other OS threads may have sent mail when it ended.
                    && !inbox.has_mail()
                {
                    self.report_deadlock(local);
                }
                // The callbacks of this turn do not keep the loop alive, but may do anything.
                if !is_still
                    || sleep.timeout == Some(Duration::ZERO)
                    || self.phases.any()
                    || self.embedding.longest_wait().is_some()
                    || self.timer_is_due()
                {
                    self.standstill.stay_awake();
                }
            }
        }
        match waited {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.wait_failed(error),
            Err(error) => self.stop_with(error),
        }
    }

    /// Drops a hub whose wait has failed, and ends the loop with the error.
    #[cold]
    fn wait_failed(&self, error: io::Error) {
        let hub = self.slot.name();
        self.drop_failed_hub();
        self.stop_with(LoopError::wait_failed(hub, error));
    }

    /// Returns how long the loop may sleep for its ready greenlets and its timers.
    #[inline(always)]
    fn time_to_sleep(&self) -> Result<Option<Duration>, LoopError> {
        if run::ready() != 0 {
            return Ok(Some(Duration::ZERO));
        }
        if self.timers.borrow().is_empty() {
            return Ok(None);
        }
        let now = self.sample_clock()?;
        let mut timers = self.timers.borrow_mut();
        timers.absorb(now);
        Ok(timers.next_wake().map(|wake| wake - now))
    }

    /// Samples the clock at the end of a wait. A timer fires only if it was due by then. So all readiness and mail from
    /// before its deadline has been taken in when it fires, even if greenlets have computed for long.
    fn note_time(&self) {
        if self.timers.borrow().is_empty() && !meter::is_on() {
            return;
        }
        match self.sample_clock() {
            Ok(now) => {
                self.meter.begin_turn(self.counters.waits(), now);
                self.timers.borrow_mut().absorb(now);
                self.clock.make_due(now);
            }
            Err(error) => self.stop_with(error),
        }
    }

    /// Takes in all reports of the wait, then wakes waiters and calls listeners. Returns whether there were reports.
    fn dispatch(&self) -> bool {
        let controls = &local::get().controls;
        let (reports, any) = self.reports.collect(&mut self.descriptors.borrow_mut(), controls, self.slot.rearm());
        for (index, &(one, reported, key, direction)) in reports.iter().enumerate() {
            if index % TOGETHER == 0 {
                reports[index..].iter().take(TOGETHER).for_each(|(soon, ..)| soon.prefetch_stack(controls));
            }
            match one {
                // First, because it is the most frequent.
                Target::Parked { .. } => self.tell(one, Wake::Ready(reported)),
                Target::Call(number) => self.call_listener(number, key, direction, reported.readiness()),
                Target::Waker { number, serial } => {
                    // The waker may poll again at once, and then takes its place behind the others.
                    self.promote_next_waiter(key, direction);
                    self.wake_waker(WakerId::new(number, serial));
                    continue;
                }
                _ => self.tell(one, Wake::Ready(reported)),
            }
            self.promote_next_waiter(key, direction);
        }
        self.reports.put_collected(reports);
        any
    }

    #[inline]
    pub(super) fn tell(&self, target: Target, why: Wake) {
        match target {
            Target::Vacant => {}
            Target::Parked { greenlet, ticket } => {
                if let Some(control) = local::get().controls.get(greenlet) {
                    Waiter::new(control, ticket).wake_with(why);
                }
            }
            Target::Start { greenlet, ticket } => {
                if let Some(control) = local::get().controls.get(greenlet)
                    && control.ticket() == ticket
                {
                    run::start_delayed(control);
                }
            }
            Target::Timeout { greenlet, shields, timeout } => {
                if let Some(control) = local::get().controls.get(greenlet) {
                    // A wake-up never switches.
                    run::request_exit(control, Exit::Timeout { scope: timeout, shields }, false);
                }
            }
            Target::Patience { greenlet, ticket } => {
                if let Some(control) = local::get().controls.get(greenlet) {
                    Waiter::new(control, ticket).wake_with(Wake::Exit);
                }
            }
            Target::Call(number) => self.queue_expired(number),
            Target::Waker { number, serial } => self.queue_waker(WakerId::new(number, serial)),
        }
    }
}
