//! The main loop: one turn after another, until nothing is left or somebody asks it to end.
//!
//! ```text
//! mail and fork notices → fire what is due at one clock sample → run ready greenlets (FIFO, bounded)
//!   → wait (0 if anything is ready, else until the next deadline) → take in all reports → tell callbacks
//! ```
//!
//! The loop is a greenlet of its own, launched by the first call that blocks. What it knows lives in
//! [`MainLoop`] and outlives it: a loop that ended is launched again by the next call that blocks.
//!
//! Ground rules:
//! - No cell is borrowed while foreign code runs (hubs, callbacks, destructors) and when a greenlet is
//!   left. The hub is taken out of its cell for the time of a call, so that one that re-enters finds it
//!   gone and gets an error.
//! - A descriptor is armed only under a promise that it stays open: a trampoline borrows it, a callback's
//!   registration owns it, a socket is forgotten before it is closed.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::current::{Builder, default_builder};
use crate::descriptors::{Descriptors, Owner, Place, Told};
use crate::error::{GreenError, HubError, LoopError, LoopExit, TrampolineError};
use crate::fork;
use crate::greenlet::control::{State, Wake};
use crate::greenlet::local::{self, Local};
use crate::greenlet::run::{self, Waiter};
use crate::greenlet::unwind::{Exit, contained, drop_contained, error_of};
use crate::hub::{Hub, Lease, Notify, Rearm};
use crate::interest::{Interest, Readiness};
use crate::listener::{Listener, Timer};
use crate::ready::Ready;
use crate::remote::{Inbox, Letter, Mailbox};
use crate::time::Time;
use crate::timer_queue::{TimerId, TimerQueue};
use crate::wakeup::{Wakeup, WakeupKind};
use crate::watched::Key;

/// Why a loop ends.
#[derive(Clone, Debug)]
enum Stop {
    Abort,
    Error(LoopError),
}

/// A callback, by number in [`Told::Call`].
enum Callback {
    Listener { key: Key, interest: Interest, listener: Rc<dyn Listener>, fd: Rc<dyn AsFd> },
    Timer { timer: Rc<dyn Timer>, armed: Option<TimerId> },
}

/// What the loop of one thread knows.
pub(crate) struct MainLoop {
    id: Cell<u64>,
    hub: RefCell<Option<Box<dyn Hub>>>,
    name: Cell<&'static str>,
    rearm: Cell<Rearm>,
    /// A call into the hub is under way.
    in_hub: Cell<bool>,
    choice: RefCell<Option<Builder>>,
    descriptors: RefCell<Descriptors>,
    timers: RefCell<TimerQueue<Told>>,
    callbacks: RefCell<slab::Slab<Callback>>,
    /// Callbacks without delay, with the turn in which they were scheduled. Each has a stand-in in the
    /// run queue.
    immediate: RefCell<VecDeque<(u64, Option<u32>)>>,
    /// What is called for a parked greenlet if its descriptor is closed under it, by number.
    marks: RefCell<Vec<(u32, Box<dyn FnOnce()>)>>,
    ready: RefCell<Ready>,
    told: RefCell<Vec<(Told, Readiness, Key, Interest)>>,
    inbox: OnceCell<Inbox>,
    letters: RefCell<Vec<Letter>>,
    turn: Cell<u64>,
    waits: Cell<u64>,
    stop: RefCell<Option<Stop>>,
    main_error: RefCell<Option<LoopError>>,
    /// Leave after one turn, which waits at most so long.
    once: Cell<Option<Option<Duration>>>,
    closing: Cell<bool>,
    /// The registration of the loop's own wake-up descriptor.
    wakeup: Cell<Option<u32>>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static PREVENT_MULTIPLE_READERS: AtomicBool = AtomicBool::new(true);

/// Whether a second simultaneous reader (or writer) of a descriptor is an error, for the whole process.
/// Eventlet's `hub_prevent_multiple_readers`. Off, the waiters queue in order.
pub fn hub_prevent_multiple_readers(prevent: bool) {
    PREVENT_MULTIPLE_READERS.store(prevent, Ordering::Relaxed);
}

/// A snapshot of what a hub has done and holds, from [`HubRef::stats`](crate::HubRef::stats).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Turns of the main loop.
    pub turns: u64,
    /// Calls of [`Hub::wait`].
    pub waits: u64,
    /// Timers that are armed, those of sleeping green threads included.
    pub timers: usize,
    /// Green threads and callbacks that wait for reading, without those that queue behind another.
    pub readers: usize,
    /// Green threads and callbacks that wait for writing, without those that queue behind another.
    pub writers: usize,
    /// Greenlets that run next.
    pub ready: usize,
    /// Greenlets that have not ended, the main one and the main loop included.
    pub greenlets: usize,
    /// Green threads that have not ended or whose handle is held.
    pub green_threads: usize,
    /// Address space reserved for stacks, in bytes.
    pub stack_bytes_mapped: usize,
    /// Stacks that greenlets run on.
    pub stacks_in_use: usize,
    /// Stacks that wait to be used again.
    pub stacks_idle: usize,
}

impl MainLoop {
    pub(crate) fn new() -> MainLoop {
        MainLoop {
            id: Cell::new(0),
            hub: RefCell::new(None),
            name: Cell::new(""),
            rearm: Cell::new(Rearm::Explicit),
            in_hub: Cell::new(false),
            choice: RefCell::new(None),
            descriptors: RefCell::default(),
            timers: RefCell::new(TimerQueue::new()),
            callbacks: RefCell::new(slab::Slab::new()),
            immediate: RefCell::default(),
            marks: RefCell::default(),
            ready: RefCell::default(),
            told: RefCell::default(),
            inbox: OnceCell::new(),
            letters: RefCell::default(),
            turn: Cell::new(0),
            waits: Cell::new(0),
            stop: RefCell::new(None),
            main_error: RefCell::new(None),
            once: Cell::new(None),
            closing: Cell::new(false),
            wakeup: Cell::new(None),
        }
    }

    // ---- the hub ------------------------------------------------------------------------------

    /// The number of this hub, different for every hub of the process.
    pub(crate) fn id(&self) -> u64 {
        if self.id.get() == 0 {
            self.id.set(NEXT_ID.fetch_add(1, Ordering::Relaxed));
        }
        self.id.get()
    }

    /// The name of the hub, empty before it is built.
    pub(crate) fn name(&self) -> &'static str {
        self.name.get()
    }

    /// Builds the hub if there is none.
    pub(crate) fn ensure_hub(&self) -> Result<(), LoopError> {
        self.notice_fork();
        if self.name.get().is_empty() { self.build() } else { Ok(()) }
    }

    /// Before anything is asked of a hub: in a child it is the parent's until it has started afresh.
    #[inline]
    fn notice_fork(&self) {
        if fork::take_forked() {
            self.after_fork();
        }
    }

    #[cold]
    fn build(&self) -> Result<(), LoopError> {
        if self.closing.get() {
            return Err(HubError::ThreadEnding.into());
        }
        if self.in_hub.get() {
            return Err(LoopError::InMainloop { doing: "building a hub" });
        }
        let built = {
            let choice = self.choice.borrow_mut().take();
            let mut builder = match choice {
                Some(builder) => builder,
                None => default_builder()?,
            };
            self.in_hub.set(true);
            let built = contained(|| (builder.build)());
            self.in_hub.set(false);
            let name = builder.name.clone();
            *self.choice.borrow_mut() = Some(builder);
            match built {
                Ok(built) => built.map_err(|error| HubError::Build { name, error: Arc::new(error) })?,
                Err(error) => {
                    let error = Arc::new(io::Error::other(error));
                    return Err(HubError::Build { name, error }.into());
                }
            }
        };
        self.id();
        self.name.set(built.name());
        self.rearm.set(built.rearm());
        *self.hub.borrow_mut() = Some(built);
        let woken = self.make_wakeup().and_then(|wakeup| wakeup.map_or(Ok(()), |wakeup| self.watch_wakeup(wakeup)));
        if let Err(error) = woken {
            let name = self.name.replace("").to_owned();
            drop_contained(self.hub.take());
            return Err(HubError::Build { name, error: Arc::new(error) }.into());
        }
        Ok(())
    }

    /// Calls the hub, which must not be called by anybody else meanwhile.
    fn with_hub<R>(&self, doing: &'static str, call: impl FnOnce(&mut dyn Hub) -> R) -> Result<R, LoopError> {
        self.ensure_hub()?;
        let Some(mut hub) = self.hub.take() else { return Err(LoopError::InMainloop { doing }) };
        self.in_hub.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| call(&mut *hub)));
        self.in_hub.set(false);
        match result {
            Ok(result) => {
                *self.hub.borrow_mut() = Some(hub);
                Ok(result)
            }
            Err(payload) => {
                let message = match error_of(payload) {
                    GreenError::Panic(message) => message,
                    error => Arc::from(error.to_string()),
                };
                let name = self.name.replace("");
                drop_contained(hub);
                // Whoever waits is registered with the hub that is built next.
                self.descriptors.borrow_mut().unwatch_all();
                Err(LoopError::Panicked { hub: name, doing, message })
            }
        }
    }

    /// Makes the wake-up descriptor, or takes the hub's own, and has other threads use it.
    fn make_wakeup(&self) -> io::Result<Option<Arc<Wakeup>>> {
        let own = self.with_hub("asking for its notifier", |hub| hub.notifier()).map_err(io::Error::from)?;
        match own {
            Some(notifier) => self.ring(notifier).map(|()| None),
            None => self.own_wakeup().map(Some),
        }
    }

    /// Makes the loop's own wake-up descriptor, and has other threads use it.
    fn own_wakeup(&self) -> io::Result<Arc<Wakeup>> {
        let wakeup = Wakeup::new(WakeupKind::from_env()?)?;
        self.ring(wakeup.clone())?;
        Ok(wakeup)
    }

    /// Has the hub watch the wake-up descriptor.
    fn watch_wakeup(&self, wakeup: Arc<Wakeup>) -> io::Result<()> {
        let held = Rc::new(HeldWakeup(wakeup.clone()));
        self.wakeup.set(Some(self.listen(held, Interest::READ, Rc::new(DrainWakeup(wakeup)))?));
        Ok(())
    }

    /// Has other threads wake the loop by `bell` from now on.
    fn ring(&self, bell: Arc<dyn Notify>) -> io::Result<()> {
        let inbox = self.inbox.get_or_init(|| Inbox::new(self.id()));
        inbox.renumber(self.id());
        inbox.replace_notifier(bell)
    }

    /// Sets the hub to be built next and lets go of the present one.
    ///
    /// Its timers and descriptors are forgotten, and greenlets parked on them are unwound, except the
    /// main one, which gets an error.
    pub(crate) fn replace_hub(&self, builder: Option<Builder>) -> Result<(), HubError> {
        if run::in_mainloop() || self.in_hub.get() {
            return Err(HubError::InMainloop);
        }
        if self.closing.get() {
            return Err(HubError::ThreadEnding);
        }
        drop_contained(self.choice.replace(builder));
        self.forget_waiters(&LoopError::HubReplaced);
        self.drop_hub();
        // The next hub is another one. Other threads reach it as they did the old one.
        self.id.set(0);
        Ok(())
    }

    /// Drops hub and wake-up descriptor.
    pub(crate) fn drop_hub(&self) {
        self.name.set("");
        drop_contained(self.hub.take());
        self.wakeup.set(None);
        let callbacks = self.callbacks.replace(slab::Slab::new());
        for (_, callback) in callbacks {
            drop_contained(callback);
        }
        *self.descriptors.borrow_mut() = Descriptors::default();
    }

    /// Forgets every timer and descriptor; those who wait on them end with `error`.
    fn forget_waiters(&self, error: &LoopError) {
        let mut told: Vec<Told> = Vec::new();
        {
            let mut timers = self.timers.borrow_mut();
            // Scopes of timeouts belong to greenlets that may live on.
            let armed: Vec<(TimerId, Told)> = timers
                .iter()
                .filter(|(_, _, told)| !matches!(told, Told::Timeout { .. }))
                .map(|(id, _, told)| (id, told))
                .collect();
            for (id, one) in armed {
                timers.cancel(id);
                told.push(one);
            }
        }
        told.extend(self.descriptors.borrow().waiting().map(|(_, _, told)| told));
        self.immediate.borrow_mut().iter_mut().for_each(|(_, callback)| *callback = None);
        for one in told {
            self.end_waiter(one, error);
        }
    }

    fn end_waiter(&self, told: Told, error: &LoopError) {
        let (Told::Parked { greenlet, ticket } | Told::Start { greenlet, ticket }) = told else { return };
        let Some(control) = local::get().controls.get(greenlet) else { return };
        if control.ticket() != ticket {
            return;
        }
        if control == local::get().main {
            self.tell_main(error.clone());
        } else {
            let exit = Exit::Kill(GreenError::Loop(error.clone()));
            // Queued, not switched to: errors are impossible.
            let _ = run::interrupt(control, exit, false);
        }
    }

    // ---- waiting for descriptors --------------------------------------------------------------

    /// Parks the running greenlet until `direction` of `fd` is ready. Switches.
    ///
    /// # Safety
    ///
    /// `fd` stays open until this returns or unwinds, or its number is given up by [`closed`]. For an
    /// owned descriptor it stays open until then even after this.
    ///
    /// [`closed`]: MainLoop::closed
    pub(crate) unsafe fn wait_for(
        &self,
        fd: RawFd,
        owner: Owner,
        direction: Interest,
        limit: &mut Limit,
    ) -> Result<Wake, TrampolineError> {
        let waiter = Waiter::current("waiting for a descriptor")?;
        self.ensure_hub()?;
        let told = told_of(waiter);
        if self.descriptors.borrow().is_stale_for(fd, owner) {
            self.closed(fd, None);
        }
        let place = self.descriptors.borrow_mut().prepare(fd, owner, direction, self.rearm.get());
        let key = match place {
            Place::Taken if PREVENT_MULTIPLE_READERS.load(Ordering::Relaxed) => {
                return Err(TrampolineError::SecondSimultaneous(direction, fd));
            }
            Place::Taken => {
                let mut descriptors = self.descriptors.borrow_mut();
                descriptors.queue(fd, direction, told);
                descriptors.watched.key(fd).expect("a taken place has a key")
            }
            Place::Watched(key) => {
                // SAFETY: by the contract of this function.
                unsafe { self.descriptors.borrow_mut().arm(key, direction, told) };
                key
            }
            Place::Watch(key, interest) => {
                // SAFETY: by the contract of this function.
                unsafe { self.watch(key, interest, direction, told) }?;
                key
            }
        };
        let place = Waiting { main_loop: self, key, direction, told, timer: Cell::new(None) };
        place.timer.set(limit.arm(&mut self.timers.borrow_mut(), told));
        if let Some(task) = waiter.control().task() {
            task.set_waits_for(crate::greenlet::task::WaitsFor::Descriptor(fd, direction));
        }
        let wake = waiter.park()?;
        if let Some(timer) = place.timer.get() {
            limit.fix(&self.timers.borrow(), timer);
        }
        drop(place);
        match wake {
            Wake::Deadline => Err(TrampolineError::TimedOut(fd)),
            Wake::Closed => Err(TrampolineError::Closed(fd)),
            Wake::Ready(what) if what.contains(Readiness::INVALID) => Err(TrampolineError::InvalidFd(fd)),
            wake => Ok(wake),
        }
    }

    /// Has the hub watch, then arms. On error nothing is armed.
    ///
    /// # Safety
    ///
    /// As for [`wait_for`](MainLoop::wait_for).
    unsafe fn watch(
        &self,
        key: Key,
        interest: Interest,
        direction: Interest,
        told: Told,
    ) -> Result<(), TrampolineError> {
        let lease = self.descriptors.borrow().lease(key);
        // SAFETY: open, by the contract.
        let fd = unsafe { BorrowedFd::borrow_raw(key.fd()) };
        match self.with_hub("watching a descriptor", |hub| hub.watch(key, fd, interest, lease))? {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
                return Err(TrampolineError::InvalidFd(key.fd()));
            }
            Err(error) => return Err(TrampolineError::Register(key.fd(), Arc::new(error))),
        }
        let mut descriptors = self.descriptors.borrow_mut();
        // SAFETY: by the contract.
        unsafe {
            descriptors.arm(key, direction, told);
            if lease == Lease::Life {
                let lasting = if self.rearm.get() == Rearm::Explicit { Interest::NONE } else { interest };
                descriptors.lend(key, lasting);
            }
        }
        Ok(())
    }

    /// The waiter that was told has gone: the next one moves up.
    fn move_up(&self, key: Key, direction: Interest) {
        let Some(told) = self.descriptors.borrow_mut().next_queued(key, direction) else { return };
        let interest = self.descriptors.borrow().watched.armed(key) | direction;
        // SAFETY: a queued waiter keeps the descriptor open like the one before it.
        if let Err(_error) = unsafe { self.watch(key, interest, direction, told) } {
            // It finds out what is wrong by trying.
            self.tell(told, Wake::Ready(Readiness::HANGUP));
        }
    }

    /// The number `fd` is closed, or about to be, or given to another file: whoever waits is woken with
    /// an error, and the hub lets go of it. `open`: the descriptor, while it is still the old file.
    pub(crate) fn closed(&self, fd: RawFd, open: Option<BorrowedFd<'_>>) {
        let Some((key, waited)) = self.descriptors.borrow_mut().retire(fd) else { return };
        if !self.name.get().is_empty() {
            // A hub that fails here has nothing left to forget.
            let _ = self.with_hub("forgetting a descriptor", |hub| hub.forget(key, open));
        }
        for told in waited {
            if let Told::Call(number) = told {
                let listener = match self.callbacks.borrow().get(number as usize) {
                    Some(Callback::Listener { listener, .. }) => listener.clone(),
                    _ => continue,
                };
                if let Err(error) = contained(|| listener.closed(fd)) {
                    run::report_callback("a closed descriptor", error);
                }
            } else {
                if let Told::Parked { greenlet, .. } = told
                    && let Some(mark) = self.take_mark(greenlet)
                    && let Err(error) = contained(mark)
                {
                    run::report_callback("a closed descriptor", error);
                }
                self.tell(told, Wake::Closed);
            }
        }
    }

    /// Has `mark` called if a descriptor is closed while the running greenlet waits for it; until
    /// [`take_mark`](MainLoop::take_mark).
    pub(crate) fn put_mark(&self, mark: Box<dyn FnOnce()>) {
        self.marks.borrow_mut().push((run::current().number(), mark));
    }

    /// Takes back what was to be called for a greenlet.
    pub(crate) fn take_mark(&self, greenlet: u32) -> Option<Box<dyn FnOnce()>> {
        let mut marks = self.marks.borrow_mut();
        let index = marks.iter().position(|(number, _)| *number == greenlet)?;
        Some(marks.swap_remove(index).1)
    }

    /// What is known of a socket's direction, see [`Descriptors::may_succeed`].
    #[inline]
    pub(crate) fn may_succeed(&self, fd: RawFd, socket: u64, direction: Interest) -> bool {
        self.descriptors.borrow().may_succeed(fd, socket, direction)
    }

    /// An operation on a socket has succeeded (`more`: and may succeed again at once) or would block.
    #[inline]
    pub(crate) fn operated(&self, fd: RawFd, socket: u64, direction: Interest, more: bool, blocked: bool) {
        // On hubs that report each arrival once, what a full read leaves behind is not reported again;
        // on the others it is, so that probing would cost a call for nothing.
        let keep = !blocked && (more || direction == Interest::WRITE);
        if !keep {
            self.descriptors.borrow_mut().used_up(fd, socket, direction, blocked);
        }
    }

    /// Somebody has found out by other means that a socket is ready.
    pub(crate) fn make_ready(&self, fd: RawFd, socket: u64, direction: Interest) {
        self.descriptors.borrow_mut().make_ready(fd, socket, direction);
    }

    /// See [`Descriptors::adopt`].
    pub(crate) fn adopt(&self, fd: RawFd, socket: u64) {
        self.descriptors.borrow_mut().adopt(fd, socket);
    }

    /// Whether a socket is registered here.
    pub(crate) fn knows(&self, fd: RawFd, socket: u64) -> bool {
        self.descriptors.borrow().key_of(fd, socket).is_some()
    }

    // ---- callbacks ----------------------------------------------------------------------------

    /// Registers a listener that owns its descriptor. Returns its number.
    pub(crate) fn listen(
        &self,
        fd: Rc<dyn AsFd>,
        interest: Interest,
        listener: Rc<dyn Listener>,
    ) -> Result<u32, TrampolineError> {
        let number = fd.as_fd().as_raw_fd();
        if interest != Interest::READ && interest != Interest::WRITE {
            return Err(TrampolineError::Interest(interest, number));
        }
        let callback =
            self.callbacks.borrow_mut().insert(Callback::Listener { key: Key::new(number, 0), interest, listener, fd });
        self.start_listening(callback as u32, number, interest).inspect_err(|_| {
            self.callbacks.borrow_mut().remove(callback);
        })?;
        Ok(callback as u32)
    }

    fn start_listening(&self, callback: u32, fd: RawFd, direction: Interest) -> Result<(), TrampolineError> {
        self.ensure_hub()?;
        let place = self.descriptors.borrow_mut().prepare(fd, Owner::Raw, direction, self.rearm.get());
        let (key, interest) = match place {
            Place::Taken => return Err(TrampolineError::SecondSimultaneous(direction, fd)),
            Place::Watch(key, interest) => (key, interest),
            Place::Watched(key) => (key, direction),
        };
        if let Some(Callback::Listener { key: known, .. }) = self.callbacks.borrow_mut().get_mut(callback as usize) {
            *known = key;
        }
        // SAFETY: the registration owns the descriptor, and leaves the table before it lets go of it.
        unsafe { self.watch(key, interest, direction, Told::Call(callback)) }
    }

    /// Takes a listener back. Its descriptor is let go of.
    pub(crate) fn unlisten(&self, callback: u32) {
        let Some(Callback::Listener { key, interest, .. }) =
            self.callbacks.borrow().get(callback as usize).map(|callback| match callback {
                Callback::Listener { key, interest, listener, fd } => {
                    Callback::Listener { key: *key, interest: *interest, listener: listener.clone(), fd: fd.clone() }
                }
                Callback::Timer { timer, armed } => Callback::Timer { timer: timer.clone(), armed: *armed },
            })
        else {
            return;
        };
        let left = self.descriptors.borrow_mut().leave(key, interest, Told::Call(callback));
        if left {
            self.move_up(key, interest);
        }
        let callback = self.callbacks.borrow_mut().remove(callback as usize);
        if let Callback::Listener { fd, .. } = &callback
            && self.descriptors.borrow().may_be_forgotten(key)
            && !self.name.get().is_empty()
        {
            let _ = self.with_hub("forgetting a descriptor", |hub| hub.forget(key, Some(fd.as_fd())));
        }
        drop_contained(callback);
    }

    /// Schedules a callback; without delay it keeps its place among the greenlets that are ready.
    pub(crate) fn schedule(&self, delay: Duration, timer: Rc<dyn Timer>) -> u32 {
        let number = self.callbacks.borrow_mut().insert(Callback::Timer { timer, armed: None }) as u32;
        if delay.is_zero() {
            self.immediate.borrow_mut().push_back((self.turn.get(), Some(number)));
            let stand_in = local::get().controls.take(crate::greenlet::control::Kind::Thread);
            run::queue_callback(stand_in);
        } else {
            let id = self.timers.borrow_mut().arm(delay, Told::Call(number));
            if let Some(Callback::Timer { armed, .. }) = self.callbacks.borrow_mut().get_mut(number as usize) {
                *armed = Some(id);
            }
        }
        number
    }

    /// Takes a scheduled callback back. False if it has run.
    pub(crate) fn unschedule(&self, number: u32) -> bool {
        let callback = match self.callbacks.borrow_mut().try_remove(number as usize) {
            Some(callback) => callback,
            None => return false,
        };
        if let Callback::Timer { armed, .. } = &callback {
            match armed {
                Some(id) => drop(self.timers.borrow_mut().cancel(*id)),
                None => {
                    for (_, immediate) in self.immediate.borrow_mut().iter_mut() {
                        if *immediate == Some(number) {
                            *immediate = None;
                        }
                    }
                }
            }
        }
        drop_contained(callback);
        true
    }

    /// Whether the next callback without delay was scheduled in an earlier turn: between the two,
    /// descriptors were looked at.
    pub(crate) fn callback_is_due(&self) -> bool {
        self.immediate.borrow().front().is_none_or(|(turn, _)| *turn != self.turn.get())
    }

    /// Runs the next callback without delay.
    pub(crate) fn run_callback(&self) {
        let next = self.immediate.borrow_mut().pop_front();
        if let Some((_, Some(number))) = next {
            self.expire(number);
        }
    }

    fn expire(&self, number: u32) {
        let Some(Callback::Timer { timer, .. }) = self.callbacks.borrow_mut().try_remove(number as usize) else {
            return;
        };
        if let Err(error) = contained(|| timer.expired()) {
            run::report_callback("a timer", error);
        }
        drop_contained(timer);
    }

    // ---- timers -------------------------------------------------------------------------------

    #[inline]
    pub(crate) fn arm(&self, delay: Duration, told: Told) -> TimerId {
        self.timers.borrow_mut().arm(delay, told)
    }

    #[inline]
    pub(crate) fn disarm(&self, id: TimerId) -> bool {
        self.timers.borrow_mut().cancel(id).is_some()
    }

    pub(crate) fn set_slack(&self, fraction: u32, at_most: Duration) {
        self.timers.borrow_mut().set_slack(crate::timer_queue::Slack { fraction, at_most });
    }

    /// The deadline that the loop sleeps until at most.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.absorb();
        self.timers.borrow().next_deadline()
    }

    fn absorb(&self) {
        let now = self.now();
        self.timers.borrow_mut().absorb(now);
    }

    /// The hub's clock.
    pub(crate) fn now(&self) -> Time {
        match &*self.hub.borrow() {
            Some(hub) => contained(|| hub.now()).unwrap_or_else(|_| Time::monotonic()),
            None => Time::monotonic(),
        }
    }

    #[inline]
    fn tell(&self, told: Told, why: Wake) {
        match told {
            Told::Nobody => {}
            Told::Parked { greenlet, ticket } => {
                if let Some(control) = local::get().controls.get(greenlet) {
                    Waiter::new(control, ticket).wake_with(why);
                }
            }
            Told::Start { greenlet, ticket } => {
                if let Some(control) = local::get().controls.get(greenlet)
                    && control.ticket() == ticket
                    && control.state() == State::Delayed
                {
                    run::start(control);
                }
            }
            Told::Timeout { greenlet, timeout } => {
                if let Some(control) = local::get().controls.get(greenlet) {
                    // Only woken, never switched to: errors are impossible.
                    let _ = run::interrupt(control, Exit::Timeout(timeout), false);
                }
            }
            Told::Call(number) => self.expire(number),
        }
    }

    // ---- the turn -----------------------------------------------------------------------------

    /// The body of the main loop's greenlet. Returns when the loop ends. Never unwinds.
    pub(crate) fn run(&self, local: &Local) {
        loop {
            self.turn.set(self.turn.get() + 1);
            self.notice_fork();
            self.read_mail();
            self.fire();
            run::run_ready(local);
            if self.closing.get() || self.end_is_due(local) {
                return;
            }
            self.wait(local);
            self.dispatch();
            if self.once.take().is_some() {
                self.read_mail();
                self.fire();
                run::run_ready(local);
                self.wake_main(Wake::Event);
            }
        }
    }

    /// Fires what is due at one sample of the clock.
    fn fire(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let now = self.now();
        self.timers.borrow_mut().absorb(now);
        loop {
            let due = self.timers.borrow_mut().pop_due(now);
            match due {
                Some((_, _, told)) => self.tell(told, Wake::Deadline),
                None => return,
            }
        }
    }

    fn wait(&self, local: &Local) {
        let mut timeout = if run::ready() != 0 { Some(Duration::ZERO) } else { self.time_to_sleep() };
        if let Some(limit) = self.once.get() {
            timeout = match (timeout, limit) {
                (Some(timeout), Some(limit)) => Some(timeout.min(limit)),
                (timeout, limit) => timeout.or(limit),
            };
        }
        if timeout.is_none() && self.nothing_left(local) {
            let error = LoopError::LoopExit(Arc::new(LoopExit { parked: parked(local) }));
            self.tell_main(error);
            if run::ready() != 0 {
                return;
            }
        }
        if let Err(error) = self.ensure_hub() {
            return self.stop_with(error);
        }
        if timeout != Some(Duration::ZERO) && self.inbox.get().is_some_and(|inbox| !inbox.prepare_sleep()) {
            timeout = Some(Duration::ZERO);
        }
        let mut ready = self.ready.take();
        let descriptors = self.descriptors.borrow();
        let waited = self.with_hub("waiting", |hub| {
            hub.wait(&descriptors.watched, timeout, &mut ready).map_err(|e| (hub.name(), e))
        });
        drop(descriptors);
        *self.ready.borrow_mut() = ready;
        self.waits.set(self.waits.get() + 1);
        if let Some(inbox) = self.inbox.get() {
            inbox.woke();
        }
        match waited {
            Ok(Ok(())) => {}
            Ok(Err((hub, error))) => {
                self.stop_with(LoopError::Wait { hub, error: Arc::new(error) });
            }
            Err(error) => self.stop_with(error),
        }
    }

    /// How long the loop may sleep for its timers.
    fn time_to_sleep(&self) -> Option<Duration> {
        let mut timers = self.timers.borrow_mut();
        if timers.is_empty() {
            return None;
        }
        let now = self.now();
        timers.absorb(now);
        timers.next_wake().map(|wake| wake - now)
    }

    /// Takes in everything that the wait collected, then tells the callbacks.
    fn dispatch(&self) {
        let mut told = self.told.take();
        {
            let mut ready = self.ready.borrow_mut();
            let mut descriptors = self.descriptors.borrow_mut();
            for &(key, what) in ready.reports() {
                descriptors.report(key, what, self.rearm.get(), &mut told);
            }
            ready.clear();
        }
        for &(one, what, key, direction) in &told {
            match one {
                Told::Call(number) => self.call_listener(number, key, what),
                _ => self.tell(one, Wake::Ready(what)),
            }
            self.move_up(key, direction);
        }
        told.clear();
        *self.told.borrow_mut() = told;
    }

    fn call_listener(&self, number: u32, key: Key, what: Readiness) {
        let (interest, listener) = match self.callbacks.borrow().get(number as usize) {
            // One that was taken back in this batch, or whose number was reused, is not called.
            Some(Callback::Listener { key: known, interest, listener, .. }) if *known == key => {
                (*interest, listener.clone())
            }
            _ => return,
        };
        if let Err(error) = contained(|| listener.ready(key.fd(), what)) {
            run::report_callback("a ready descriptor", error);
        }
        drop_contained(listener);
        // Still registered: look again, so that what was left is reported again.
        let still = matches!(
            self.callbacks.borrow().get(number as usize),
            Some(Callback::Listener { key: known, .. }) if *known == key
        );
        if still && self.descriptors.borrow().watched.is_current(key) {
            let armed = self.descriptors.borrow().watched.armed(key);
            // SAFETY: the registration owns the descriptor.
            if unsafe { self.watch(key, armed | interest, interest, Told::Call(number)) }.is_err() {
                self.closed(key.fd(), None);
            }
        }
    }

    // ---- ends ---------------------------------------------------------------------------------

    /// Asks the loop to end. The first request stands.
    pub(crate) fn abort(&self) {
        self.stop.borrow_mut().get_or_insert(Stop::Abort);
    }

    fn stop_with(&self, error: LoopError) {
        *self.stop.borrow_mut() = Some(Stop::Error(error));
    }

    /// Ends the loop with the system error.
    pub(crate) fn interrupt(&self) {
        self.stop_with(LoopError::Interrupted);
    }

    /// Carries out a request to end. True if the loop ends now.
    fn end_is_due(&self, local: &Local) -> bool {
        let Some(stop) = self.stop.take() else { return false };
        let error = match stop {
            Stop::Abort => {
                self.forget_timers();
                LoopError::Aborted
            }
            Stop::Error(error) => error,
        };
        self.tell_main(error);
        // If the main greenlet is suspended in a switch of its own, the loop goes on until it parks.
        local.main.state() != State::Switched
    }

    /// Forgets every timer; greenlets that sleep end as aborted.
    fn forget_timers(&self) {
        let told: Vec<Told> = {
            let mut timers = self.timers.borrow_mut();
            let told = timers.iter().map(|(_, _, told)| told).collect();
            timers.clear();
            told
        };
        for one in told {
            match one {
                Told::Call(number) => drop(self.unschedule(number)),
                one => {
                    let (Told::Parked { greenlet, .. } | Told::Start { greenlet, .. }) = one else { continue };
                    if greenlet != local::get().main.number() {
                        self.end_waiter(one, &LoopError::Aborted);
                    }
                }
            }
        }
    }

    /// Gives the main greenlet an error: its park ends with it, or the next one does.
    fn tell_main(&self, error: LoopError) {
        *self.main_error.borrow_mut() = Some(error);
        self.wake_main(Wake::Failed);
    }

    fn wake_main(&self, why: Wake) {
        let main = local::get().main;
        if main.state() == State::Parked {
            Waiter::new(main, main.ticket()).wake_with(why);
        }
    }

    /// What the main loop has for the main greenlet, once.
    pub(crate) fn take_main_error(&self) -> Result<(), LoopError> {
        self.main_error.take().map_or(Ok(()), Err)
    }

    /// Whether nothing could ever wake the main greenlet.
    fn nothing_left(&self, local: &Local) -> bool {
        let own = usize::from(self.wakeup.get().is_some());
        local.main.state() == State::Parked
            && self.descriptors.borrow().watched.len() <= own
            && self.inbox.get().is_none_or(|inbox| inbox.mailbox().users() == 0)
    }

    // ---- other threads, other processes -------------------------------------------------------

    /// Where other threads leave letters, once a hub was built.
    pub(crate) fn mailbox(&self) -> Option<Arc<Mailbox>> {
        self.inbox.get().map(|inbox| Arc::clone(inbox.mailbox()))
    }

    fn read_mail(&self) {
        let Some(inbox) = self.inbox.get() else { return };
        if !inbox.has_mail() {
            return;
        }
        let mut letters = self.letters.take();
        inbox.take(&mut letters);
        if inbox.take_interrupt() {
            self.interrupt();
        }
        for letter in letters.drain(..) {
            match letter {
                Letter::Spawn(run) => drop(crate::spawn(run)),
                Letter::Wake { greenlet, ticket } => self.tell(Told::Parked { greenlet, ticket }, Wake::Event),
                Letter::Socket(notice) => notice.carry_out(self),
                Letter::Stop => self.abort(),
            }
        }
        *self.letters.borrow_mut() = letters;
    }

    /// In a child: the wake-up descriptor first, then the hub, then everybody who waits.
    #[cold]
    fn after_fork(&self) {
        if self.name.get().is_empty() {
            return;
        }
        if let Err(error) = self.start_afresh() {
            return self.stop_with(LoopError::Wait { hub: self.name.get(), error: Arc::new(error) });
        }
        self.sort_mail();
        let waiting = self.descriptors.borrow_mut().unwatch_all();
        for (key, interest) in waiting {
            let (fd, lease) = {
                let descriptors = self.descriptors.borrow();
                if !descriptors.watched.is_current(key) || descriptors.watched.armed(key).is_empty() {
                    continue;
                }
                (key.fd(), descriptors.lease(key))
            };
            // SAFETY: armed, so whoever waits keeps it open.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            let watched = self.with_hub("watching a descriptor", |hub| hub.watch(key, borrowed, interest, lease));
            if !matches!(watched, Ok(Ok(()))) {
                self.closed(fd, None);
            } else if lease == Lease::Life && self.rearm.get() != Rearm::Explicit {
                // SAFETY: lent for life before, under the same promise.
                unsafe { self.descriptors.borrow_mut().lend(key, interest) };
            }
        }
    }

    fn start_afresh(&self) -> io::Result<()> {
        let old = self.wakeup.take();
        let own = match old {
            Some(_) => Some(self.own_wakeup()?),
            None => None,
        };
        self.with_hub("starting afresh in a child process", |hub| hub.after_fork()).map_err(io::Error::from)??;
        // The hub is empty, so nothing of the parent's is touched.
        if let Some(old) = old {
            self.unlisten(old);
        }
        let wakeup = if own.is_some() { own } else { self.make_wakeup()? };
        wakeup.map_or(Ok(()), |wakeup| self.watch_wakeup(wakeup))
    }

    /// Mail from before a fork: what was asked of the parent is done by the parent alone; who was woken was
    /// woken in both.
    fn sort_mail(&self) {
        let Some(inbox) = self.inbox.get() else { return };
        let mut letters = Vec::new();
        inbox.take(&mut letters);
        if inbox.take_interrupt() {
            self.interrupt();
        }
        for letter in letters {
            match letter {
                Letter::Wake { greenlet, ticket } => self.tell(Told::Parked { greenlet, ticket }, Wake::Event),
                Letter::Socket(notice) => notice.carry_out(self),
                letter @ (Letter::Spawn(_) | Letter::Stop) => drop_contained(letter),
            }
        }
    }

    // ---- from outside -------------------------------------------------------------------------

    /// Runs one turn, which sleeps at most `limit`, then returns to the main greenlet. Switches.
    pub(crate) fn run_once(&self, limit: Option<Duration>) -> Result<(), LoopError> {
        let waiter = Waiter::current("running the loop").map_err(|error| *error)?;
        if waiter.control() != local::get().main {
            return Err(LoopError::InMainloop { doing: "running the loop, which the main greenlet does" });
        }
        self.ensure_hub()?;
        self.once.set(Some(limit));
        let parked = waiter.park();
        self.once.set(None);
        parked.map(drop).map_err(|error| *error)
    }

    /// The thread ends: the loop's greenlet returns when it is entered next, nothing more is taken in.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        if let Some(inbox) = self.inbox.get() {
            for letter in inbox.close() {
                drop_contained(letter);
            }
        }
    }

    /// A descriptor that is readable when a turn would find something.
    pub(crate) fn pollable(&self) -> Option<RawFd> {
        self.ensure_hub().ok()?;
        self.hub.borrow().as_ref()?.pollable().map(|fd| fd.as_raw_fd())
    }

    pub(crate) fn stats(&self, local: &Local) -> Stats {
        let descriptors = self.descriptors.borrow();
        let own = usize::from(self.wakeup.get().is_some());
        let readers = descriptors.first_in_line().filter(|(_, direction, _)| *direction == Interest::READ).count();
        let writers = descriptors.first_in_line().filter(|(_, direction, _)| *direction == Interest::WRITE).count();
        let stacks = local.stacks.stats();
        Stats {
            turns: self.turn.get(),
            waits: self.waits.get(),
            timers: self.timers.borrow().len() + self.immediate.borrow().len(),
            readers: readers.saturating_sub(own),
            writers,
            ready: run::ready(),
            greenlets: local.controls.live(),
            green_threads: local.tasks.live(),
            stack_bytes_mapped: stacks.mapped,
            stacks_in_use: stacks.in_use,
            stacks_idle: stacks.idle,
        }
    }
}

/// How long somebody is ready to wait for a descriptor, over several parks.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Limit {
    None,
    /// From the first park on.
    After(Duration),
    Until(Time),
}

impl From<Option<Duration>> for Limit {
    fn from(timeout: Option<Duration>) -> Limit {
        timeout.map_or(Limit::None, Limit::After)
    }
}

impl Limit {
    #[inline]
    fn arm(self, timers: &mut TimerQueue<Told>, told: Told) -> Option<TimerId> {
        match self {
            Limit::None => None,
            Limit::After(delay) => Some(timers.arm(delay, told)),
            Limit::Until(deadline) => Some(timers.arm_at(deadline, told)),
        }
    }

    /// The first park is over: what follows ends when its timer would have fired.
    #[inline]
    fn fix(&mut self, timers: &TimerQueue<Told>, timer: TimerId) {
        if let Some(deadline) = timers.deadline(timer) {
            *self = Limit::Until(deadline);
        }
    }

    /// What is left of it at least, for those who wait without the loop.
    pub(crate) fn duration(self) -> Option<Duration> {
        match self {
            Limit::None => None,
            Limit::After(delay) => Some(delay),
            Limit::Until(deadline) => Some(deadline - Time::monotonic()),
        }
    }
}

/// Somebody's place in the table; leaves it however the park ends.
struct Waiting<'a> {
    main_loop: &'a MainLoop,
    key: Key,
    direction: Interest,
    told: Told,
    timer: Cell<Option<TimerId>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.get() {
            self.main_loop.disarm(timer);
        }
        let left = self.main_loop.descriptors.borrow_mut().leave(self.key, self.direction, self.told);
        if left {
            self.main_loop.move_up(self.key, self.direction);
        }
    }
}

/// How a park is known to slots and timers.
#[inline]
pub(crate) fn told_of(waiter: Waiter) -> Told {
    Told::Parked { greenlet: waiter.control().number(), ticket: waiter.ticket() }
}

/// Who is parked, for the report of a loop with nothing left.
fn parked(local: &Local) -> Vec<String> {
    local
        .controls
        .in_use()
        .into_iter()
        .filter(|control| control.state() == State::Parked)
        .filter_map(|control| control.task())
        .map(|task| format!("{} waits for {}", task.describe(), task.waits_for()))
        .collect()
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
