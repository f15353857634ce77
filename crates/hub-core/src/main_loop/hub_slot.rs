//! The loop's hub: built at first use, never called by two callers at once, replaced on request.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::MainLoop;
use super::builder::{HubBuilder, default_builder};
use super::callback_table::Callback;
use super::descriptors::Descriptors;
use super::listener::Listener;
use super::reach;
use super::remote::{Bell, Inbox, Mailbox, Message};
use super::wakeup::{Wakeup, WakeupKind};
use crate::base::fork;
use crate::base::wait_reason::WaitReason;
use crate::error::{GreenError, HubError, LoopError};
use crate::greenlet::control::{State, Wake};
use crate::greenlet::run::{self, Waiter};
use crate::greenlet::target::Target;
use crate::greenlet::task::Task;
use crate::greenlet::unwind::{Exit, drop_contained, error_of};
use crate::greenlet::{local, trace};
use crate::hub::{Hub, Interest, Readiness, Rearm};
use crate::timer_queue::TimerId;

/// The hub of a thread, and the choice of the next one.
pub(super) struct HubSlot {
    id: Cell<u64>,
    /// Empty while there is no hub to call.
    name: Cell<&'static str>,
    rearm: Cell<Rearm>,
    /// Taken out for the time of a call.
    hub: RefCell<Option<Box<dyn Hub>>>,
    choice: RefCell<Option<HubBuilder>>,
}

impl Default for HubSlot {
    fn default() -> HubSlot {
        HubSlot {
            id: Cell::new(0),
            name: Cell::new(""),
            rearm: Cell::new(Rearm::Explicit),
            hub: RefCell::new(None),
            choice: RefCell::new(None),
        }
    }
}

impl HubSlot {
    /// The number of this hub, different for every hub of the process.
    fn id(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.id.get() == 0 {
            self.id.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        self.id.get()
    }

    /// The next hub gets another number.
    fn forget_id(&self) {
        self.id.set(0);
    }

    #[inline]
    pub(super) fn name(&self) -> &'static str {
        self.name.get()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.name.get().is_empty()
    }

    #[inline]
    pub(super) fn rearm(&self) -> Rearm {
        self.rearm.get()
    }

    fn fill(&self, name: &'static str, rearm: Rearm, hub: Box<dyn Hub>) {
        self.name.set(name);
        self.rearm.set(rearm);
        self.put_back(hub);
    }

    /// Marks the slot as empty. A hub that is still in it is dropped later.
    fn set_empty(&self) {
        self.name.set("");
    }

    #[inline(always)]
    fn take(&self) -> Option<Box<dyn Hub>> {
        self.hub.take()
    }

    #[inline(always)]
    fn put_back(&self, hub: Box<dyn Hub>) {
        *self.hub.borrow_mut() = Some(hub);
    }

    pub(super) fn take_choice(&self) -> Option<HubBuilder> {
        self.choice.take()
    }

    /// Chooses the next hub. Returns the former choice.
    fn set_choice(&self, choice: Option<HubBuilder>) -> Option<HubBuilder> {
        self.choice.replace(choice)
    }
}

impl MainLoop {
    /// The number of this hub, different for every hub of the process.
    pub(crate) fn id(&self) -> u64 {
        self.slot.id()
    }

    /// The name of the hub, empty before it is built.
    pub(crate) fn name(&self) -> &'static str {
        self.slot.name()
    }

    /// Builds the hub if there is none.
    pub(crate) fn ensure_hub(&self) -> Result<(), LoopError> {
        self.notice_fork()?;
        if self.slot.is_empty() { self.build() } else { Ok(()) }
    }

    /// Resets the hub after a fork. Called before every use of a hub: in a child it shares kernel objects with the
    /// parent's.
    #[inline]
    pub(super) fn notice_fork(&self) -> Result<(), LoopError> {
        if fork::take_forked() { self.after_fork() } else { Ok(()) }
    }

    #[cold]
    pub(super) fn build(&self) -> Result<(), LoopError> {
        if self.ending.is_closing() {
            return Err(HubError::ThreadEnding.into());
        }
        if self.pulse.is_in_hub() {
            return Err(LoopError::InMainloop { doing: "building a hub" });
        }
        let (name, rearm, built) = {
            let choice = self.slot.take_choice();
            let mut builder = match choice {
                Some(builder) => builder,
                None => default_builder()?,
            };
            let build = || (builder.build)().map(|hub| (hub.name(), hub.rearm(), hub));
            let built = self.call_guarded(build).map_err(error_of);
            let name = builder.name.clone();
            self.slot.set_choice(Some(builder));
            match built {
                Ok(built) => built.map_err(|error| HubError::Build { name, error: Arc::new(error) })?,
                Err(error) => {
                    let error = Arc::new(io::Error::other(error));
                    return Err(HubError::Build { name, error }.into());
                }
            }
        };
        self.id();
        self.slot.fill(name, rearm, built);
        // Waiters of an earlier hub that failed.
        let waiting = self.descriptors.borrow_mut().unwatch_all();
        if let Err(error) = self.make_bell() {
            self.drop_failed_hub();
            return Err(HubError::Build { name: name.to_owned(), error: Arc::new(error) }.into());
        }
        trace::hub_built(name, self.id());
        waiting.into_iter().try_for_each(|(key, interest)| self.watch_again(key, interest))
    }

    /// Drops a hub that has failed. Its waiters stay, and are registered with the next hub.
    #[cold]
    pub(super) fn drop_failed_hub(&self) {
        self.slot.set_empty();
        self.drop_guarded(self.slot.take());
        self.clock.reset();
        if let Some(wakeup) = self.wakeup.take() {
            self.unlisten(wakeup);
        }
    }

    /// Drops a hub. Its destructor must not build another one.
    fn drop_guarded(&self, hub: Option<Box<dyn Hub>>) {
        if let Err(payload) = self.call_guarded(|| drop(hub)) {
            drop_contained(payload);
        }
    }

    /// Runs code of a hub, or other code that must not switch. Meanwhile no hub can be called and no greenlet left.
    pub(crate) fn call_guarded<R>(&self, call: impl FnOnce() -> R) -> std::thread::Result<R> {
        let outer = self.pulse.enter_hub();
        let budget = run::stop_hand_off();
        let result = catch_unwind(AssertUnwindSafe(call));
        run::resume_hand_off(budget);
        self.pulse.leave_hub(outer);
        result
    }

    /// Calls the hub. A nested call is an error.
    pub(super) fn with_hub<R>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&mut dyn Hub) -> R,
    ) -> Result<R, LoopError> {
        self.ensure_hub()?;
        self.call_hub(doing, call)
    }

    /// Calls the hub that [`ensure_hub`](MainLoop::ensure_hub) has found.
    #[inline]
    pub(super) fn call_hub<R>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&mut dyn Hub) -> R,
    ) -> Result<R, LoopError> {
        let Some(mut hub) = self.slot.take() else { return Err(LoopError::InMainloop { doing }) };
        match self.call_guarded(|| call(&mut *hub)) {
            Ok(result) => {
                self.slot.put_back(hub);
                Ok(result)
            }
            Err(payload) => {
                let message = match error_of(payload) {
                    GreenError::Panic(message) => message,
                    error => Arc::from(error.to_string()),
                };
                let name = self.slot.name();
                self.slot.put_back(hub);
                self.drop_failed_hub();
                Err(LoopError::Panicked { hub: name, doing, message })
            }
        }
    }

    /// Sets how other OS threads wake the loop: by a descriptor that the hub watches, or by the notifier of a hub that
    /// refuses descriptors.
    fn make_bell(&self) -> io::Result<()> {
        let Err(refused) = self.make_wakeup().and_then(|wakeup| self.watch_wakeup(wakeup)) else { return Ok(()) };
        // A hub that was dropped has no notifier.
        if self.slot.is_empty() {
            return Err(refused);
        }
        match self.with_hub("asking for its notifier", |hub| hub.notifier()).map_err(io::Error::from)? {
            Some(notifier) => self.wake_by(Bell::Notifier(notifier)),
            None => Err(refused),
        }
    }

    /// Creates the loop's wake-up descriptor, and makes other OS threads use it.
    fn make_wakeup(&self) -> io::Result<Arc<Wakeup>> {
        let wakeup = Wakeup::new(WakeupKind::from_env()?)?;
        self.wake_by(Bell::Descriptor(wakeup.clone()))?;
        Ok(wakeup)
    }

    /// Registers the wake-up descriptor with the hub.
    fn watch_wakeup(&self, wakeup: Arc<Wakeup>) -> io::Result<()> {
        let held = Rc::new(HeldWakeup(wakeup.clone()));
        self.wakeup.set(Some(self.listen(held, Interest::READ, Rc::new(DrainWakeup(wakeup)))?));
        Ok(())
    }

    /// Makes other OS threads wake the loop by `bell`.
    fn wake_by(&self, bell: Bell) -> io::Result<()> {
        let inbox = self.inbox.get_or_init(|| Inbox::new(self.id()));
        inbox.renumber(self.id());
        inbox.replace_bell(bell)
    }

    /// The longest wait, if a signal that interrupts the loop cannot end the wait.
    pub(super) fn longest_deaf_wait(&self) -> Option<Duration> {
        const LONGEST: Duration = Duration::from_millis(50);

        let is_deaf = self.wakeup.get().is_none() && self.inbox.get().is_some_and(Inbox::has_signals);
        is_deaf.then_some(LONGEST)
    }

    /// Drops the present hub and sets the one to be built next.
    ///
    /// Timers and descriptors are forgotten. Greenlets parked on them are unwound, except the main greenlet, which gets
    /// an error.
    pub(crate) fn replace_hub(&self, builder: Option<HubBuilder>) -> Result<(), HubError> {
        if run::in_mainloop() || self.pulse.is_in_hub() {
            return Err(HubError::InMainloop);
        }
        if self.ending.is_closing() {
            return Err(HubError::ThreadEnding);
        }
        // The hub is dropped in any case.
        let _ = self.notice_fork();
        let choice = self.slot.set_choice(builder);
        let waiters = self.take_waiters();
        let callbacks = self.drop_hub();
        // The next hub has another number. Other OS threads reach it as they did the old one.
        self.slot.forget_id();
        // From here on foreign code runs. Its waits belong to the next hub.
        for waiter in waiters {
            self.end_waiter(waiter, &LoopError::HubReplaced);
        }
        callbacks.for_each(drop_contained);
        drop_contained(choice);
        Ok(())
    }

    /// Drops the hub and the wake-up descriptor, and forgets all registrations. Returns the callbacks, whose
    /// destructors may
    /// block.
    pub(crate) fn drop_hub(&self) -> impl Iterator<Item = Callback> + use<> {
        self.slot.set_empty();
        let hub = self.slot.take();
        if fork::take_forked() {
            // It shares kernel objects with the parent's, which dropping it could disturb.
            std::mem::forget(hub);
        } else {
            self.drop_guarded(hub);
        }
        self.wakeup.set(None);
        self.clock.reset();
        *self.descriptors.borrow_mut() = Descriptors::default();
        self.callbacks.borrow_mut().take_all()
    }

    /// Forgets the timers, drops the hub and the wake-up descriptor, and returns the callbacks, for the caller to drop.
    pub(crate) fn shut_down(&self) -> impl Iterator<Item = Callback> + use<> {
        drop(self.take_waiters());
        self.immediate.take();
        run::clear_queue(local::get());
        let callbacks = self.drop_hub();
        if let Some(inbox) = self.inbox.get() {
            inbox.remove_notifier();
        }
        self.slot.forget_id();
        callbacks
    }

    /// Cancels the timers, except those of exits, whose greenlets may live on. Returns the waits that a timer or a
    /// descriptor would have ended.
    fn take_waiters(&self) -> Vec<Target> {
        let mut timers = self.timers.borrow_mut();
        let armed: Vec<(TimerId, Target)> =
            timers.iter().filter(|(_, _, target)| !target.is_for_exits()).map(|(id, _, target)| (id, target)).collect();
        let mut waiters: Vec<Target> = Vec::new();
        for (id, target) in armed {
            timers.cancel(id);
            waiters.push(target);
        }
        waiters.extend(self.descriptors.borrow().waiting().map(|(_, _, target)| target));
        waiters
    }

    pub(super) fn end_waiter(&self, target: Target, error: &LoopError) {
        let (Target::Parked { greenlet, ticket } | Target::Start { greenlet, ticket }) = target else { return };
        let Some(control) = local::get().controls.get(greenlet) else { return };
        if control.ticket() != ticket {
            return;
        }
        if control == local::get().main {
            self.tell_main(error.clone());
        } else {
            let exit = Exit::Kill(GreenError::Loop(error.clone()));
            // Queued, not switched to. Under a shield the exit waits, but nothing is left that could end this park.
            run::interrupt(control, exit, false);
            // A greenlet that cannot be unwound must not see its wait as granted.
            if cfg!(panic = "unwind") {
                Waiter::new(control, ticket).wake_with(Wake::Exit);
            }
        }
    }

    /// The mailbox of this loop, once a hub was built.
    pub(crate) fn mailbox(&self) -> Option<Arc<Mailbox>> {
        self.inbox.get().map(|inbox| Arc::clone(inbox.mailbox()))
    }

    /// Carries out the messages of other OS threads. Returns false if there was no mail, not even a notice.
    #[inline]
    pub(super) fn read_mail(&self) -> bool {
        match self.inbox.get() {
            Some(inbox) if inbox.has_mail() => {
                self.carry_out_mail(inbox);
                true
            }
            _ => false,
        }
    }

    #[inline(never)]
    fn carry_out_mail(&self, inbox: &Inbox) {
        // A callback may have forked: the child must not carry out the parent's messages as well.
        if let Err(error) = self.notice_fork() {
            self.stop_with(error);
        }
        self.standstill.stir();
        let mut letters = self.letters.take();
        inbox.take(&mut letters);
        if inbox.take_interrupt() {
            self.interrupt();
        }
        for letter in letters.drain(..) {
            match letter {
                Message::Spawn(place, run) => Task::new(local::get(), run, false, place).begin(),
                Message::Wake { greenlet, ticket } => self.tell(Target::Parked { greenlet, ticket }, Wake::Event),
                Message::Run(request) => request(),
                Message::Stop => self.abort(),
            }
        }
        *self.letters.borrow_mut() = letters;
    }

    /// In a child, replaces the wake-up descriptor and resets the hub, then registers all waiters again. Pool jobs are
    /// the parent's.
    #[cold]
    fn after_fork(&self) -> Result<(), LoopError> {
        if self.slot.is_empty() {
            return Ok(());
        }
        let hub = self.slot.name();
        let parents = self.take_parents_wakeup();
        let afresh = self.reset_after_fork(parents.is_some());
        if afresh.is_err() {
            // Its kernel objects are the parent's, all or some of them. The next call that blocks builds another hub.
            self.slot.set_empty();
            std::mem::forget(self.slot.take());
            self.clock.reset();
            if let Some(wakeup) = self.wakeup.take() {
                self.unlisten(wakeup);
            }
        }
        drop_contained(parents);
        self.retain_mail_after_fork();
        wake_all(WaitReason::Offload);
        let reachable = reach::register_again(|| self.mailbox());
        // Also after a failure: the registrations are the parent's.
        let waiting = self.descriptors.borrow_mut().unwatch_all();
        afresh.and(reachable).map_err(|error| LoopError::Wait { hub, error: Arc::new(error) })?;
        waiting.into_iter().try_for_each(|(key, interest)| self.watch_again(key, interest))
    }

    /// Removes the parent's wake-up descriptor from the tables. The hub is not notified: by now the number may name any
    /// file of the child.
    fn take_parents_wakeup(&self) -> Option<Callback> {
        let callback = self.wakeup.take().and_then(|id| self.callbacks.borrow_mut().remove(id));
        if let Some(Callback::Listener { key, .. }) = &callback {
            let mut descriptors = self.descriptors.borrow_mut();
            if descriptors.watched.is_current(*key) {
                descriptors.retire(key.fd());
            }
        }
        callback
    }

    fn reset_after_fork(&self, had_wakeup: bool) -> io::Result<()> {
        // Before the hub is called: a shared wake-up descriptor would wake the parent.
        let own = if had_wakeup { Some(self.make_wakeup()?) } else { None };
        self.with_hub("starting afresh in a child process", |hub| hub.after_fork()).map_err(io::Error::from)??;
        own.map_or_else(|| self.make_bell(), |wakeup| self.watch_wakeup(wakeup))
    }

    /// Sorts the mail from before a fork: wake-ups hold in both processes, all other messages are the parent's.
    fn retain_mail_after_fork(&self) {
        let Some(inbox) = self.inbox.get() else { return };
        let mut letters = Vec::new();
        inbox.take(&mut letters);
        if inbox.take_interrupt() {
            self.interrupt();
        }
        for letter in letters {
            match letter {
                Message::Wake { greenlet, ticket } => self.tell(Target::Parked { greenlet, ticket }, Wake::Event),
                Message::Run(request) => request(),
                letter @ (Message::Spawn(..) | Message::Stop) => drop_contained(letter),
            }
        }
    }
}

struct DrainWakeup(Arc<Wakeup>);

impl Listener for DrainWakeup {
    fn ready(&self, _fd: RawFd, _what: Readiness) {
        self.0.drain();
    }
}

/// Keeps the wake-up descriptor open.
struct HeldWakeup(Arc<Wakeup>);

impl AsFd for HeldWakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Wakes all greenlets that wait for `doing`, so that they check again.
fn wake_all(doing: WaitReason) {
    for control in local::get().controls.in_use() {
        if control.state() == State::Parked && control.doing() == doing {
            Waiter::new(control, control.ticket()).wake();
        }
    }
}
