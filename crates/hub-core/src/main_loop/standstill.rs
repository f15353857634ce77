//! Waits that other OS threads may end, so that the loop does not take them for hopeless while there are any.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::MainLoop;
use super::deadline::Deadline;
use super::reach::{self, Parked};
use super::remote::Mailbox;
use crate::base::dormant::{Dormant, FIRST_LOOK, LONGEST_LOOK, Others, Sleep, Waits};
use crate::base::fork;
use crate::error::{HubError, LoopError};
use crate::greenlet::control::{ControlRef, Kind, Wake};
use crate::greenlet::describe;
use crate::greenlet::driver::Driver;
use crate::greenlet::local::Local;
use crate::greenlet::patience;
use crate::greenlet::run::{self, Refused, Waiter};
use crate::greenlet::target::Target;
use crate::report::{self, Report};
use crate::timer_queue::TimerId;

/// In nanoseconds; the largest value: never.
static QUIET_TIME: AtomicU64 = AtomicU64::new(u64::MAX);

/// After what time without anything to do a loop reports, once, that all its green threads wait for locks, queues
/// or events which only another OS thread could still serve. `None`, as it is at first: never. For the whole process.
///
/// If there is no other OS thread, but for those of this library that wait for work, the main greenlet gets
/// [`LoopError::LoopExit`] instead. If there are others that all wait for each other in this way, or in a pool job, that is
/// reported once as a [`Report::Deadlock`]: which of the waits should fail is not for this library to choose. Both come
/// whatever is set here, where the system lists its threads (Linux): after a second, or, if an OS thread has ended in the
/// meantime, when the loop looks next, at most 16 seconds later.
pub fn set_quiet_time(quiet: Option<Duration>) {
    let nanos = quiet.map_or(u64::MAX, |quiet| u64::try_from(quiet.as_nanos()).unwrap_or(u64::MAX));
    QUIET_TIME.store(nanos, Ordering::Relaxed);
}

fn quiet_time() -> Option<Duration> {
    match QUIET_TIME.load(Ordering::Relaxed) {
        u64::MAX => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}

/// The source from which a wake-up could still come for a main greenlet without a timer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum WakeSource {
    /// A descriptor or a letter of this thread, or a handle that the program holds.
    Here,
    /// A pending job, which keeps the loop alive.
    Job,
    /// Another OS thread that serves a lock, a queue or an event.
    Elsewhere,
    /// Nothing.
    Lost,
}

/// How many wait so, and for how long the loop has stood still.
#[derive(Default)]
pub(super) struct Standstill {
    /// The generation of forks in which this thread was made reachable, plus one; 0: not yet.
    reachable: Cell<u32>,
    /// No hub could be built for the next wait, which needs none: it blocks the OS thread.
    blocks: Cell<bool>,
    waiting: Cell<usize>,
    /// For how long no greenlet has run, and how many switches there were before.
    silent: Cell<Duration>,
    ran: Cell<u64>,
    /// After how much silence the loop looks next for other OS threads; zero: after the first time.
    next_look: Cell<Duration>,
    /// While nothing but another OS thread can wake the loop, and a first look has found that.
    dormant: RefCell<Option<Dormant>>,
}

impl Standstill {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.get() == 0
    }

    /// How long the loop may stand still before it looks why. A wait for a job is never called quiet.
    pub(super) fn idle_timeout(&self, hope: WakeSource) -> Duration {
        let ran = run::switches();
        if self.ran.replace(ran) != ran {
            self.silent.set(Duration::ZERO);
            self.next_look.set(Duration::ZERO);
        }
        let silent = self.silent.get();
        let look = self.next_look.get().max(FIRST_LOOK) - silent;
        let quiet = quiet_time().filter(|quiet| hope == WakeSource::Elsewhere && *quiet > silent);
        quiet.map_or(look, |quiet| look.min(quiet - silent))
    }

    /// Looks why the loop has stood still for that time. True if there is neither a job nor an OS thread that could wake
    /// it.
    pub(super) fn is_hopeless(
        &self,
        local: &Local,
        mailbox: &Arc<Mailbox>,
        stood_still: Duration,
        hope: WakeSource,
    ) -> bool {
        let (before, now) = (self.silent.get(), self.silent.get() + stood_still);
        self.silent.set(now);
        if now >= self.next_look.get().max(FIRST_LOOK) {
            self.next_look.set(now + now.min(LONGEST_LOOK));
            match self.fall_dormant(local, mailbox) {
                Others::Idle if hope == WakeSource::Job => {}
                Others::Idle => return true,
                Others::Deadlocked(threads) => self.tell(Report::Deadlock { threads }),
                Others::Awake => {}
            }
        }
        if hope == WakeSource::Elsewhere && quiet_time().is_some_and(|quiet| before < quiet && quiet <= now) {
            self.tell(Report::Quiet { parked: waits(local) });
        }
        false
    }

    /// The stream is foreign code, which may wake greenlets of this thread and of others.
    fn tell(&self, report: Report) {
        let dormant = self.dormant.take();
        if let Some(dormant) = &dormant {
            dormant.set_awake(true);
        }
        report::tell(report);
        if let Some(dormant) = dormant
            && run::ready() == 0
        {
            dormant.set_awake(false);
            self.dormant.replace(Some(dormant));
        }
    }

    /// Counts the calling thread as dormant, and looks for others.
    fn fall_dormant(&self, local: &Local, mailbox: &Arc<Mailbox>) -> Others {
        let enter = || Dormant::waiter(Waits::Greenlets(waits(local)), Arc::clone(mailbox) as Arc<dyn Sleep>, 0);
        self.dormant.borrow_mut().get_or_insert_with(enter).others()
    }

    /// To be called before the loop takes in anything that may have been sent to it.
    #[inline]
    pub(super) fn stir(&self) {
        drop(self.dormant.take());
    }
}

/// The wait of each greenlet of this thread, in words.
fn waits(local: &Local) -> Vec<String> {
    let main = format!("the main greenlet, {}", local.main.doing().as_str());
    std::iter::once(main).chain(describe::parked(local)).collect()
}

impl MainLoop {
    /// Whether others can end the waits of this thread, which has a hub.
    #[inline]
    pub(crate) fn is_reachable(&self) -> bool {
        self.standstill.reachable.get() == fork::generation() + 1 && !self.name.get().is_empty()
    }

    /// Makes this thread reachable for others that may end its waits, and builds its hub if there is none.
    #[cold]
    pub(crate) fn be_reachable(&self) -> Result<(), LoopError> {
        self.ensure_hub()?;
        reach::register(|| self.mailbox())
            .map_err(|error| LoopError::Wait { hub: self.name.get(), error: Arc::new(error) })?;
        self.standstill.reachable.set(fork::generation() + 1);
        Ok(())
    }

    /// Like [`be_reachable`](MainLoop::be_reachable), but a thread that needs no hub may do without one that cannot be
    /// built: its next wait blocks the OS thread.
    #[cold]
    pub(crate) fn prepare_wait(&self, local: &Local) -> Result<(), LoopError> {
        match self.be_reachable() {
            Err(LoopError::Hub(error)) if !matches!(error, HubError::ThreadEnding) && self.waits_alone(local) => {
                self.standstill.blocks.set(true);
                Ok(())
            }
            reachable => reachable,
        }
    }

    /// Whether this wait, for which no hub could be built, blocks the OS thread. Asked once for each such wait, so that the
    /// next one tries to build the hub again.
    #[cold]
    pub(crate) fn takes_blocking(&self, local: &Local) -> bool {
        self.standstill.blocks.take() && self.waits_alone(local)
    }

    /// Whether nothing on this thread but its main greenlet, which asks, could need a turn of the loop.
    fn waits_alone(&self, local: &Local) -> bool {
        let needs_none = |one: &ControlRef| matches!(one.kind(), Kind::Main | Kind::Mainloop);
        run::current() == local.main
            && self.timers.borrow().is_empty()
            && self.registered() == 0
            && local.controls.in_use().iter().all(needs_none)
    }

    /// Parks until the waiter is woken, the limit is reached, or an exit ends the wait, which is not thrown. Switches.
    #[inline(always)]
    pub(crate) fn park_until(&self, waiter: Waiter, limit: &mut Deadline) -> Result<Parked, Refused> {
        let waiting = Waiting::begin(&self.standstill);
        let wake = if limit.is_none() { waiter.park_deferring_exit()? } else { self.park_limited(waiter, limit)? };
        drop(waiting);
        if waiter.control().has_exit() {
            patience::end(waiter.control());
        }
        Ok(match wake {
            Wake::Event => Parked::Unparked,
            Wake::Deadline => Parked::Late,
            _ => Parked::Early,
        })
    }

    fn park_limited(&self, waiter: Waiter, limit: &mut Deadline) -> Result<Wake, Refused> {
        let timer = limit.arm(&mut self.timers.borrow_mut(), Target::park(waiter));
        let armed = timer.map(|timer| Armed { main_loop: self, timer });
        let wake = waiter.park_deferring_exit()?;
        if let Some(Armed { timer, .. }) = &armed {
            limit.fix(&self.timers.borrow(), *timer);
        }
        Ok(wake)
    }
}

/// Somebody waits; over however the park ends.
struct Waiting<'a>(&'a Cell<usize>);

impl Waiting<'_> {
    #[inline]
    fn begin(standstill: &Standstill) -> Waiting<'_> {
        standstill.waiting.set(standstill.waiting.get() + 1);
        Waiting(&standstill.waiting)
    }
}

impl Drop for Waiting<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A timer of somebody's wait; disarmed however the park ends.
struct Armed<'a> {
    main_loop: &'a MainLoop,
    timer: TimerId,
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.main_loop.disarm(self.timer);
    }
}
