//! The main loop: one turn after another, until nothing is left or somebody asks it to end.
//!
//! ```text
//! mail → fire what was due when the wait ended → run ready greenlets (FIFO, up to 256 or 2 ms)
//!   → wait (0 if anything is ready, else until the next deadline) and sample the clock, once
//!   → take in all reports → tell callbacks
//! ```
//!
//! The loop is a greenlet of its own, launched by the first call that blocks. What it knows lives in
//! [`MainLoop`] and outlives it: a loop that ended is launched again by the next call that blocks.
//!
//! No cell is borrowed while foreign code runs (hubs, callbacks, destructors) and when a greenlet is
//! left. The hub is taken out of its cell for the time of a call, so that one that re-enters finds it gone
//! and gets an error.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use self::blocking::{Detector, Heartbeat};
use self::descriptors::Descriptors;
use self::remote::{Inbox, Message};
use crate::base::wait_reason::WaitReason;
use crate::error::{LoopError, LoopExit};
use crate::greenlet::control::{State, Wake};
use crate::greenlet::describe;
use crate::greenlet::driver::Driver;
use crate::greenlet::local::{self, Local};
use crate::greenlet::run::{self, Waiter};
use crate::greenlet::target::Target;
use crate::greenlet::trace;
use crate::greenlet::unwind::{Exit, drop_contained};
use crate::hub::Key;
use crate::hub::Ready;
use crate::hub::{Hub, Rearm};
use crate::hub::{Interest, Readiness};
use crate::hub::{Stamp, Time};
use crate::timer_queue::{TimerId, TimerQueue};

pub(crate) mod blocking;
mod builder;
mod callback_table;
mod callbacks;
pub(crate) mod deadline;
pub(crate) mod descriptors;
mod driver;
mod hub_slot;
mod inventory;
pub(crate) mod listener;
mod origin;
pub(crate) mod reach;
pub(crate) mod remote;
mod standstill;
mod stats;
pub(crate) mod wakeup;
mod watching;

use self::callback_table::Callbacks;
use self::standstill::{Standstill, WakeSource};

pub use self::builder::DEFAULT_HUB;
pub(crate) use self::builder::HubBuilder;
pub(crate) use self::callback_table::CallbackId;
pub(crate) use self::inventory::DescriptorWait;
pub(crate) use self::origin::Origin;
pub use self::origin::{hub_listener_stacks, hub_timer_stacks};
pub use self::standstill::set_quiet_time;
pub use self::stats::Stats;

/// Why a loop ends.
#[derive(Clone, Debug)]
enum Stop {
    Abort,
    Error(LoopError),
}

/// What is called if the descriptor of a park goes away, with the number of the greenlet.
type Mark = (u32, Box<dyn FnOnce()>);

/// What the loop of one thread knows.
pub(crate) struct MainLoop {
    id: Cell<u64>,
    hub: RefCell<Option<Box<dyn Hub>>>,
    name: Cell<&'static str>,
    rearm: Cell<Rearm>,
    pub(crate) pulse: Heartbeat,
    /// The callback that runs, by where it was made.
    calling: Cell<Option<&'static Location<'static>>>,
    pub(crate) detector: Cell<Option<Box<Detector>>>,
    choice: RefCell<Option<HubBuilder>>,
    descriptors: RefCell<Descriptors>,
    timers: RefCell<TimerQueue<Target>>,
    callbacks: RefCell<Callbacks>,
    /// Callbacks that are due, with the turn in which they were scheduled, those that were taken back
    /// included. Each has a stand-in in the run queue.
    immediate: RefCell<VecDeque<(u64, CallbackId)>>,
    /// What is called for a parked greenlet if its descriptor is closed under it, by number.
    marks: RefCell<Vec<Mark>>,
    ready: RefCell<Ready>,
    reports: RefCell<Vec<(Target, Readiness, Key, Interest)>>,
    inbox: OnceCell<Inbox>,
    letters: RefCell<Vec<Message>>,
    /// The last sample of the clock.
    now: Cell<Time>,
    /// The same, and the first one, for ages.
    stamp: Cell<Stamp>,
    first_stamp: Cell<Stamp>,
    /// The sample of the clock by which timers were fired last.
    turn_began: Cell<Time>,
    /// Time has passed since the last sample.
    clock_is_old: Cell<bool>,
    /// When the last wait ended, until the timers that were due then have fired.
    due: Cell<Option<Time>>,
    waits: Cell<u64>,
    watches: Cell<u64>,
    operations: Cell<u64>,
    stop: RefCell<Option<Stop>>,
    main_error: RefCell<Option<LoopError>>,
    /// Leave after one turn, which waits at most so long, and end that wait of the main greenlet.
    once: Cell<Option<(Option<Duration>, Waiter)>>,
    closing: Cell<bool>,
    standstill: Standstill,
    /// The registration of the loop's own wake-up descriptor.
    wakeup: Cell<Option<CallbackId>>,
}

/// So many turns that are cut may follow each other without a look at the descriptors, unless a timer is due. A look costs
/// more than itself: what is ready for greenlets that have not run yet is reported once more, and is then taken out and put
/// back by calls of the hub.
const MOST_CUTS: usize = 4;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static PREVENT_MULTIPLE_READERS: AtomicBool = AtomicBool::new(true);

/// Whether a second simultaneous reader (or writer) of a descriptor is an error, for the whole process.
/// Eventlet's `hub_prevent_multiple_readers`. Off, the waiters queue in order.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{Interest, TrampolineError, hub_prevent_multiple_readers, trampoline};
/// use std::rc::Rc;
/// let (reader, writer) = std::io::pipe()?;
/// let (reader, other) = (Rc::new(reader), writer);
/// let wait = |reader: &Rc<std::io::PipeReader>| {
///     let reader = Rc::clone(reader);
///     hub_core::spawn(move || trampoline(&*reader, Interest::READ, None))
/// };
/// let (first, second) = (wait(&reader), wait(&reader));
/// assert!(matches!(second.join()?, Err(TrampolineError::SecondSimultaneous(..))));
/// hub_prevent_multiple_readers(false);
/// let third = wait(&reader);
/// drop(other);
/// assert!(first.join()?.is_ok() && third.join()?.is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub fn hub_prevent_multiple_readers(prevent: bool) {
    PREVENT_MULTIPLE_READERS.store(prevent, Ordering::Relaxed);
}

impl MainLoop {
    pub(crate) fn set_slack(&self, fraction: u32, at_most: Duration) {
        self.timers.borrow_mut().set_slack(crate::timer_queue::Slack { fraction, at_most });
    }

    /// Tells somebody now what a timer would tell, unless it has.
    pub(crate) fn fire_now(&self, id: TimerId, target: Target) {
        if self.disarm(id) {
            self.tell(target, Wake::Deadline);
        }
    }

    /// When the loop has something to do, apart from descriptors.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let now = self.now();
        if run::ready() != 0 {
            return Some(now);
        }
        let mut timers = self.timers.borrow_mut();
        timers.absorb(now);
        timers.next_deadline()
    }

    /// The hub's clock, or the system's if there can be no hub. Never goes back, whatever the hub says.
    pub(crate) fn now(&self) -> Time {
        self.clock().unwrap_or_else(|error| {
            if matches!(error, LoopError::Panicked { .. }) {
                self.stop_with(error);
            }
            Time::monotonic()
        })
    }

    fn clock(&self) -> Result<Time, LoopError> {
        let now = match self.with_hub("telling the time", |hub| hub.now()) {
            // Asked from within the hub.
            Err(LoopError::InMainloop { .. }) => self.now.get(),
            other => other?.max(self.now.get()),
        };
        self.now.set(now);
        self.stamp.set(Stamp::of(now));
        self.clock_is_old.set(false);
        if self.first_stamp.get() == Stamp::NONE {
            self.first_stamp.set(self.stamp.get());
        }
        Ok(now)
    }

    /// The time by the hub's clock, if there is a hub to ask.
    #[cold]
    fn time_if_built(&self) -> Option<Time> {
        self.clock_is_old.set(false);
        (!self.name.get().is_empty()).then(|| self.now())
    }

    #[inline]
    fn tell(&self, target: Target, why: Wake) {
        match target {
            Target::Nobody => {}
            Target::Parked { greenlet, ticket } => {
                if let Some(control) = local::get().controls.get(greenlet) {
                    Waiter::new(control, ticket).wake_with(why);
                }
            }
            Target::Start { greenlet, ticket } => {
                if let Some(control) = local::get().controls.get(greenlet)
                    && control.ticket() == ticket
                    && control.state() == State::Delayed
                {
                    run::start(control);
                }
            }
            Target::Timeout { greenlet, shields, timeout } => {
                if let Some(control) = local::get().controls.get(greenlet) {
                    // Only woken, never switched to.
                    run::interrupt(control, Exit::Timeout { scope: timeout, shields }, false);
                }
            }
            Target::Patience { greenlet, ticket } => {
                if let Some(control) = local::get().controls.get(greenlet) {
                    Waiter::new(control, ticket).wake_with(Wake::Exit);
                }
            }
            Target::Call(number) => self.queue_expired(number),
        }
    }

    /// The number of the present turn.
    pub(crate) fn turn(&self) -> u64 {
        self.pulse.turn()
    }

    /// The body of the main loop's greenlet. Returns when the loop ends. Never unwinds.
    fn take_turns(&self, local: &Local) {
        trace::loop_began(self.name.get());
        let (mut was_told, mut cuts) = (false, 0);
        loop {
            self.pulse.begin_turn();
            local.watch_for_end();
            was_told |= self.read_mail();
            self.fire();
            let cut = run::run_ready(local);
            if self.closing.get() {
                return;
            }
            if self.end_is_due() {
                trace::loop_ended(self.name.get());
                return;
            }
            if cut && cuts < MOST_CUTS && !self.timer_is_due() {
                cuts += 1;
                continue;
            }
            cuts = 0;
            self.wait(local, std::mem::take(&mut was_told));
            self.dispatch();
            if let Some((_, waiter)) = self.once.take() {
                self.read_mail();
                self.fire();
                run::run_ready(local);
                // It may have been given up, and the main greenlet wait for something else.
                waiter.wake();
            }
        }
    }

    /// Samples the clock at the end of a wait. A timer fires only if it was due by then: whatever came before its
    /// deadline, from the system or by mail, has been taken in when it fires, however long others have computed.
    fn note_time(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        match self.clock() {
            Ok(now) => {
                self.turn_began.set(now);
                self.timers.borrow_mut().absorb(now);
                self.due.set(Some(now));
            }
            Err(error) => self.stop_with(error),
        }
    }

    /// Fires what was due when the last wait ended.
    fn fire(&self) {
        let Some(now) = self.due.take() else { return };
        run::fire(|| {
            loop {
                let due = self.timers.borrow_mut().pop_due(now);
                match due {
                    Some((_, _, target)) => self.tell(target, Wake::Deadline),
                    None => return,
                }
            }
        });
    }

    /// Whether a timer is due by the last sample of the clock.
    fn timer_is_due(&self) -> bool {
        let now = self.now.get();
        let mut timers = self.timers.borrow_mut();
        timers.absorb(now);
        timers.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// `was_told`: the turn has found mail.
    fn wait(&self, local: &Local, was_told: bool) {
        // In a child it makes those ready who wait for what only the parent has.
        if let Err(error) = self.notice_fork() {
            return self.stop_with(error);
        }
        let mut timeout = if run::ready() != 0 {
            Some(Duration::ZERO)
        } else {
            match self.time_to_sleep() {
                Ok(timeout) => timeout,
                Err(error) => return self.stop_with(error),
            }
        };
        if let Some((limit, _)) = self.once.get() {
            // Who runs single turns asks between them for what it was told of: it may have been just before this one.
            let limit = if was_told { Some(Duration::ZERO) } else { limit };
            timeout = match (timeout, limit) {
                (Some(timeout), Some(limit)) => Some(timeout.min(limit)),
                (timeout, limit) => timeout.or(limit),
            };
        }
        // How long it stands still if only another OS thread can change that.
        let mut quiet = None;
        let hope = if timeout.is_none() { self.hope(local) } else { WakeSource::Here };
        match hope {
            WakeSource::Here => {}
            WakeSource::Job | WakeSource::Elsewhere => {
                quiet = Some(self.standstill.idle_timeout(hope));
                timeout = quiet;
            }
            WakeSource::Lost => {
                self.report_deadlock(local);
                if run::ready() != 0 {
                    return;
                }
            }
        }
        if let Err(error) = self.build_if_missing() {
            return self.stop_with(error);
        }
        if timeout != Some(Duration::ZERO) && self.inbox.get().is_some_and(|inbox| !inbox.prepare_sleep()) {
            timeout = Some(Duration::ZERO);
            quiet = None;
        }
        if let Some(longest) = self.longest_deaf_wait() {
            timeout = Some(timeout.map_or(longest, |timeout| timeout.min(longest)));
            quiet = quiet.map(|quiet| quiet.min(longest));
        }
        let mut ready = self.ready.take();
        // Borrowed within, so that the table is free again when a hub that panics is dropped.
        let waited = self.call_hub("waiting", |hub| {
            let descriptors = self.descriptors.borrow();
            hub.wait(&descriptors.watched, timeout, &mut ready)
        });
        *self.ready.borrow_mut() = ready;
        self.waits.set(self.waits.get() + 1);
        self.clock_is_old.set(true);
        if let Ok(Ok(())) = waited {
            self.note_time();
        }
        if let Some(inbox) = self.inbox.get() {
            inbox.woke();
            if let Some(stood_still) = quiet
                && self.ready.borrow().reports().is_empty()
                && !inbox.has_mail()
                && self.standstill.is_hopeless(local, inbox.mailbox(), stood_still, hope)
                // In this order: the last of the others may have left it when it ended.
                && !inbox.has_mail()
            {
                self.report_deadlock(local);
            }
        }
        match waited {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let hub = self.name.get();
                self.drop_failed_hub();
                self.stop_with(LoopError::Wait { hub, error: Arc::new(error) });
            }
            Err(error) => self.stop_with(error),
        }
    }

    /// How long the loop may sleep for its timers.
    fn time_to_sleep(&self) -> Result<Option<Duration>, LoopError> {
        if self.timers.borrow().is_empty() {
            return Ok(None);
        }
        let now = self.clock()?;
        let mut timers = self.timers.borrow_mut();
        timers.absorb(now);
        Ok(timers.next_wake().map(|wake| wake - now))
    }

    /// Takes in everything that the wait collected, then tells the callbacks.
    fn dispatch(&self) {
        let mut reports = self.reports.take();
        {
            let mut ready = self.ready.borrow_mut();
            let mut descriptors = self.descriptors.borrow_mut();
            for &(key, what) in ready.reports() {
                descriptors.report(key, what, self.rearm.get(), &mut reports);
            }
            ready.clear();
        }
        for &(one, what, key, direction) in &reports {
            match one {
                Target::Call(number) => self.call_listener(number, key, direction, what),
                _ => self.tell(one, Wake::Ready(what)),
            }
            self.promote_next_waiter(key, direction);
        }
        reports.clear();
        *self.reports.borrow_mut() = reports;
    }

    /// Asks the loop to end. The first request stands.
    pub(crate) fn abort(&self) {
        self.stop.borrow_mut().get_or_insert(Stop::Abort);
    }

    fn stop_with(&self, error: LoopError) {
        if matches!(*self.stop.borrow(), Some(Stop::Error(_))) {
            // The first says what is wrong; what fails after it mostly follows from it. Either may be a hub's.
            return drop_contained(error);
        }
        self.stop.replace(Some(Stop::Error(error)));
    }

    /// Ends the loop with the system error.
    pub(crate) fn interrupt(&self) {
        drop_contained(self.stop.replace(Some(Stop::Error(LoopError::Interrupted))));
    }

    /// Carries out a request to end. True if the loop ends now.
    fn end_is_due(&self) -> bool {
        let Some(stop) = self.stop.take() else { return false };
        let error = match stop {
            Stop::Abort => {
                self.forget_timers();
                LoopError::Aborted
            }
            Stop::Error(error) => error,
        };
        self.tell_main(error);
        true
    }

    /// Forgets the timers; greenlets that sleep end as aborted. Scopes of timeouts belong to greenlets that
    /// may live on.
    fn forget_timers(&self) {
        let armed: Vec<(TimerId, Target)> = {
            let timers = self.timers.borrow();
            let armed = timers.iter().filter(|(_, _, target)| !target.is_for_exits());
            armed.map(|(id, _, target)| (id, target)).collect()
        };
        for (timer, target) in armed {
            match target {
                Target::Call(number) => {
                    let id = self.callbacks.borrow().id(number);
                    id.map(|id| self.unschedule(id));
                }
                target => {
                    self.timers.borrow_mut().cancel(timer);
                    if !matches!(target, Target::Parked { greenlet, .. } if greenlet == local::get().main.number()) {
                        self.end_waiter(target, &LoopError::Aborted);
                    }
                }
            }
        }
        let immediate: Vec<CallbackId> = self.callbacks.borrow().immediate().collect();
        for id in immediate {
            self.unschedule(id);
        }
    }

    /// Gives the main greenlet an error: its park or its switch to another greenlet ends with it, or the
    /// next park does.
    fn report_deadlock(&self, local: &Local) {
        self.tell_main(LoopError::LoopExit(Arc::new(LoopExit { parked: describe::parked(local) })));
    }

    fn tell_main(&self, error: LoopError) {
        trace::main_failed(&error);
        self.standstill.stir();
        drop_contained(self.main_error.replace(Some(error)));
        let main = local::get().main;
        match main.state() {
            // Whom it waits for may be parked for ever.
            State::Switched => main.set_parked(),
            State::Parked => {}
            _ => return,
        }
        Waiter::new(main, main.ticket()).wake_with(Wake::Failed);
    }

    /// Forgets a request to end the loop, and what the loop has for the main greenlet.
    pub(crate) fn forget_errors(&self) {
        drop_contained((self.stop.take(), self.main_error.take()));
    }

    /// The hope that the main greenlet is woken, for which no timer is armed.
    fn hope(&self, local: &Local) -> WakeSource {
        let own = usize::from(self.wakeup.get().is_some());
        let waits = matches!(local.main.state(), State::Parked | State::Switched);
        if !waits || self.descriptors.borrow().watched.len() > own {
            return WakeSource::Here;
        }
        if let Some(inbox) = self.inbox.get() {
            // In this order: the last handle may have been dropped after it was used.
            let (held, only_jobs) = (inbox.mailbox().users() != 0, inbox.mailbox().only_jobs_hold());
            if inbox.has_mail() || !only_jobs {
                return WakeSource::Here;
            }
            if held {
                return WakeSource::Job;
            }
        }
        if self.standstill.is_empty() { WakeSource::Lost } else { WakeSource::Elsewhere }
    }

    /// Runs one turn, which sleeps at most `limit`, then returns to the main greenlet. Switches.
    pub(crate) fn run_once(&self, limit: Option<Duration>) -> Result<(), LoopError> {
        let waiter = Waiter::current(WaitReason::RunOnce).map_err(|error| *error)?;
        if waiter.control() != local::get().main {
            return Err(LoopError::InMainloop { doing: WaitReason::RunOnce.as_str() });
        }
        self.ensure_hub()?;
        self.once.set(Some((limit, waiter)));
        let once = Once(&self.once);
        let parked = waiter.park();
        drop(once);
        // Whoever waits in place of the loop is woken like the loop.
        if let Some(inbox) = self.inbox.get()
            && !inbox.prepare_sleep()
        {
            inbox.ring();
        }
        parked.map(drop).map_err(|error| *error)
    }

    /// A descriptor that is readable when a turn would find something.
    pub(crate) fn pollable(&self) -> Option<RawFd> {
        self.with_hub("asking for its descriptor", |hub| hub.pollable().map(|fd| fd.as_raw_fd())).ok()?
    }
}

/// A turn that somebody asked for; forgotten however the wait for it ends.
struct Once<'a>(&'a Cell<Option<(Option<Duration>, Waiter)>>);

impl Drop for Once<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}
