//! The hub of the calling OS thread: `get_hub` and the handles that it gives out.

use std::error::Error;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::registration::{Registration, listen_shared};
use super::timer_handle::{OnceTimer, TimerHandle, schedule_shared};
use crate::base::id::HubId;
use crate::base::wait_reason::WaitReason;
use crate::error::{HubError, LoopError, LoopErrorKind, TrampolineError};
use crate::greenlet::control::Kind;
use crate::greenlet::local;
use crate::greenlet::run;
use crate::hub::Interest;
use crate::hub::Time;
use crate::main_loop::listener::{Listener, Timer};
use crate::main_loop::remote::Remote;
use crate::main_loop::{self, Stats};
use crate::wait::shutdown::{self, Ended};

/// Returns this OS thread's hub, built now on first use. Eventlet's `get_hub`. Does not switch.
///
/// ```
/// let hub = greenhub::get_hub();
/// assert_eq!(hub.id(), greenhub::get_hub().id());
/// assert!(!hub.is_running()); // nothing has blocked yet
/// ```
///
/// In a destructor of a thread-local that runs after the OS thread's green threads have ended, the returned hub does
/// nothing.
///
/// # Panics
///
/// Panics if the hub cannot be built, with the message of the error that [`try_get_hub`] returns.
#[doc(alias = "get_hub_noargs")]
#[doc(alias = "get_event_loop")]
#[must_use]
#[track_caller]
pub fn get_hub() -> HubRef {
    match try_get_hub() {
        Ok(hub) => hub,
        // A destructor of a thread-local must not panic.
        Err(HubError::ThreadEnding) => HubRef::present(),
        Err(error) => panic!("{error}"),
    }
}

/// Returns this OS thread's hub, built now on first use, or an error. Does not switch.
///
/// ```
/// match greenhub::try_get_hub() {
///     Ok(hub) => println!("this OS thread waits by {}", hub.name()),
///     Err(error) => println!("no hub: {error}"),
/// }
/// ```
///
/// # Errors
///
/// Returns an error if the hub cannot be chosen or built.
pub fn try_get_hub() -> Result<HubRef, HubError> {
    let main_loop = &local::get().main_loop;
    if local::has_ended() {
        return Err(HubError::ThreadEnding);
    }
    match main_loop.ensure_hub() {
        Ok(()) => Ok(HubRef::present()),
        Err(error) => Err(match (error.hub_error(), error.kind()) {
            (Some(error), _) => error.clone(),
            (None, LoopErrorKind::InMainloop) => HubError::InHub,
            (None, _) => {
                HubError::Build { name: main_loop.name().to_owned(), error: Arc::new(io::Error::other(error)) }
            }
        }),
    }
}

/// Returns the present time by the clock of this OS thread's hub.
///
/// An OS thread without green threads uses the system's clock, as its waits do.
pub fn present_time() -> Time {
    local::try_get().map_or_else(Time::monotonic, |local| local.main_loop.now())
}

/// Returns whether this OS thread has a hub. Never builds one.
///
/// ```
/// assert!(!greenhub::hub::has_hub());
/// greenhub::get_hub();
/// assert!(greenhub::hub::has_hub());
/// ```
#[doc(alias = "get_hub_if_exists")]
#[must_use]
pub fn has_hub() -> bool {
    local::try_get().is_some_and(|local| !local.main_loop.name().is_empty())
}

/// A reference to a hub of this OS thread. Eventlet's hub object.
///
/// A reference to a replaced hub stays valid. It keeps the name and the id of the old hub, which is no longer
/// [current](HubRef::is_current), does not run, counts nothing and has nothing to [wait for](HubRef::join). Requests
/// through it, such as a callback or a turn, go to the OS thread's present hub.
///
/// ```
/// let hub = greenhub::get_hub();
/// greenhub::spawn(|| ()).join()?;
/// assert!(hub.is_current());
/// assert!(hub.stats().turns > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "BaseHub")]
#[derive(Clone)]
pub struct HubRef {
    id: HubId,
    name: &'static str,
    here: PhantomData<*const ()>,
}

impl fmt::Debug for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("HubRef");
        shown.field("name", &self.name).field("id", &self.id);
        if !self.is_current() {
            return shown.field("current", &false).finish();
        }
        let main_loop = &local::get().main_loop;
        main_loop.with_label(|label| _ = shown.field("label", &label));
        let stats = self.stats();
        let descriptors = stats.readers + stats.writers;
        shown.field("ready", &stats.ready).field("timers", &stats.timers).field("descriptors", &descriptors).finish()
    }
}

impl HubRef {
    /// Returns a reference to the present hub of this OS thread or, if it was just replaced, to the next one.
    pub(super) fn present() -> HubRef {
        let main_loop = &local::get().main_loop;
        HubRef { id: main_loop.id(), name: main_loop.name(), here: PhantomData }
    }

    /// Returns the canonical name of the hub: `"epoll"`, `"poll"`…
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the label of this OS thread's hub. gevent's `hub.name`.
    ///
    /// It is empty unless [`set_label`](HubRef::set_label) has set it.
    #[must_use]
    pub fn label(&self) -> String {
        if self.is_current() { local::get().main_loop.with_label(str::to_owned) } else { String::new() }
    }

    /// Labels the hub of this OS thread, for its `Debug` output. Does not switch.
    ///
    /// A hub that replaces this one has no label.
    ///
    /// ```
    /// let hub = greenhub::get_hub();
    /// hub.set_label("requests");
    /// assert!(format!("{hub:?}").contains("requests"));
    /// ```
    pub fn set_label(&self, label: impl Into<String>) {
        if self.is_current() {
            local::get().main_loop.set_label(label.into());
        }
    }

    /// Returns the id of the hub.
    #[must_use]
    pub fn id(&self) -> HubId {
        self.id
    }

    /// Returns whether this is still the hub of its OS thread.
    #[must_use]
    pub fn is_current(&self) -> bool {
        main_loop::of_hub(self.id).is_some()
    }

    /// Returns whether the hub's main loop was launched and has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.is_current() && local::get().main_loop_greenlet.get().is_some()
    }

    /// Returns a handle for other OS threads: to spawn on this hub, wake it, stop it.
    ///
    /// While a handle exists, the loop never reports a wait of the main greenlet as hopeless. The handle refers to this
    /// OS thread, whichever hub it uses, for as long as the OS thread lives.
    ///
    /// ```
    /// use greenhub::{Interest, get_hub, trampoline};
    /// use std::io::Write;
    /// let remote = get_hub().remote();
    /// let (reader, mut writer) = std::io::pipe()?;
    /// // Another OS thread runs a closure in a green thread of this one.
    /// std::thread::spawn(move || remote.spawn(move || writer.write_all(b"!").unwrap()));
    /// trampoline(&reader, Interest::READ, None)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if the hub was replaced and the next one cannot be built.
    #[doc(alias = "run_callback_threadsafe")]
    #[doc(alias = "call_soon_threadsafe")]
    #[must_use]
    #[track_caller]
    pub fn remote(&self) -> Remote {
        match local::get().main_loop.mailbox() {
            Some(mailbox) => Remote::new(&mailbox),
            None if local::has_ended() => Remote::gone(self.id),
            None => match try_get_hub() {
                Ok(hub) => hub.remote(),
                Err(error) => panic!("{error}"),
            },
        }
    }

    /// Returns the hub's counters: what it has done and what it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        if self.is_current() { local::get().main_loop.stats(local::get()) } else { Stats::default() }
    }

    /// Calls `f` from the main loop after `delay`. Eventlet's `schedule_call_global`. Does not switch.
    ///
    /// It is [`schedule`](HubRef::schedule) for a closure that can be called only once.
    ///
    /// ```
    /// use greenhub::{get_hub, sleep};
    /// use std::time::Duration;
    /// let (sender, receiver) = greenhub::sync::mpsc::channel();
    /// let answer = String::from("moved into the callback, and out of it");
    /// get_hub().schedule_once(Duration::from_millis(1), move || drop(sender.send(answer)));
    /// assert!(receiver.recv()?.starts_with("moved"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "call_later")]
    #[doc(alias = "schedule_call_local")]
    #[doc(alias = "call_soon")]
    #[doc(alias = "schedule_call_global")]
    #[track_caller]
    pub fn schedule_once(&self, delay: Duration, f: impl FnOnce() + 'static) -> TimerHandle {
        self.schedule(delay, OnceTimer::new(f))
    }

    /// Calls `timer` from the main loop after `delay`. Eventlet's `schedule_call_global`. Does not switch.
    ///
    /// A [`Timer`] can be scheduled again. [`schedule_once`](HubRef::schedule_once) takes a closure that is called
    /// once.
    ///
    /// The callback runs even if the greenlet that scheduled it has ended. Callbacks without a delay, ready green
    /// threads and woken green threads run in the order in which they became due. A callback that is scheduled by a
    /// callback runs in a later turn, after the loop has polled the descriptors.
    ///
    /// ```
    /// use greenhub::{get_hub, sleep};
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use std::time::Duration;
    /// let rung = Rc::new(Cell::new(0));
    /// let bell = Rc::clone(&rung);
    /// get_hub().schedule(Duration::from_millis(1), move || bell.set(bell.get() + 1));
    /// let never = get_hub().schedule(Duration::from_millis(1), || unreachable!());
    /// assert!(never.cancel());
    /// sleep(Duration::from_millis(5));
    /// assert_eq!(rung.get(), 1);
    /// ```
    #[doc(alias = "call_later")]
    #[doc(alias = "schedule_call_global")]
    #[doc(alias = "schedule_call_local")]
    #[track_caller]
    pub fn schedule(&self, delay: Duration, timer: impl Timer + 'static) -> TimerHandle {
        let main_loop = &local::get().main_loop;
        TimerHandle::of(main_loop, main_loop.schedule(delay, Rc::new(timer)))
    }

    /// Calls `timer` from the main loop at `time` by the hub's clock. Does not switch.
    ///
    /// It is [`schedule`](HubRef::schedule) with a point in time instead of a delay. If `time` has passed, the callback
    /// is due at once. A series of calls that adds a period to the last `time`, not to the present one, does not drift.
    ///
    /// ```
    /// use greenhub::{get_hub, sleep};
    /// use std::time::Duration;
    /// let hub = get_hub();
    /// let (sender, receiver) = greenhub::sync::mpsc::channel();
    /// hub.schedule_at(hub.now() + Duration::from_millis(1), move || drop(sender.send(())));
    /// receiver.recv()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "call_at")]
    #[track_caller]
    pub fn schedule_at(&self, time: Time, timer: impl Timer + 'static) -> TimerHandle {
        schedule_shared(time, Rc::new(timer))
    }

    /// Calls `listener` whenever `fd` is ready in one direction. Eventlet's `hub.add`. Does not switch.
    ///
    /// The main loop makes the calls until the registration is dropped. The registration owns `fd`. A
    /// [shutdown](HubRef::shutdown) drops both `fd` and `listener`. An OS thread that ends without a shutdown leaks
    /// them.
    ///
    /// ```
    /// use greenhub::{Interest, get_hub, sleep};
    /// use greenhub::hub::Readiness;
    /// use std::cell::Cell;
    /// use std::io::Write;
    /// use std::rc::Rc;
    /// use std::time::Duration;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// let readiness = Rc::new(Cell::new(Readiness::NONE));
    /// let seen = Rc::clone(&readiness);
    /// let registration = get_hub().listen(reader, Interest::READ, move |readiness| seen.set(readiness))?;
    /// writer.write_all(b"x")?;
    /// sleep(Duration::from_millis(5));
    /// assert!(readiness.get().contains(Readiness::READ));
    /// drop(registration); // closes the reader, too
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error, and registers nothing, if `interest` is both directions or none, if the descriptor already has
    /// a waiter in that direction, or if the hub refuses the descriptor.
    #[doc(alias = "hub.add")]
    #[doc(alias = "add_reader")]
    #[doc(alias = "add_writer")]
    #[track_caller]
    pub fn listen<F: AsFd + 'static>(
        &self,
        fd: F,
        interest: Interest,
        listener: impl Listener + 'static,
    ) -> Result<Registration, TrampolineError> {
        listen_shared(Rc::new(fd), interest, Rc::new(listener))
    }

    /// Ends the main loop with its present turn. Eventlet's `abort`. Does not switch.
    ///
    /// The loop's timers and scheduled callbacks are discarded, after a call of [`Timer::aborted`]. Green threads that
    /// sleep, wait with a limit or have not begun because of a delay exit with [`LoopErrorKind::Aborted`], and the main
    /// greenlet's wait returns that error. The next blocking call launches a new loop. Does nothing if no loop runs.
    pub fn abort(&self) {
        if self.is_running() {
            local::get().main_loop.abort();
        }
    }

    /// Like [`abort`](HubRef::abort), but waits until the loop has ended. Switches.
    ///
    /// ```
    /// use std::time::Duration;
    /// let hub = greenhub::get_hub();
    /// greenhub::sleep(Duration::from_millis(1));
    /// assert!(hub.is_running());
    /// hub.abort_wait()?;
    /// assert!(!hub.is_running());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`LoopErrorKind::InMainloop`] from a callback and for any greenlet but the main one,
    /// [`LoopErrorKind::InPoll`] in a poll of a future, and the error with which the loop ends if that is not
    /// [`LoopErrorKind::Aborted`].
    pub fn abort_wait(&self) -> Result<(), LoopError> {
        if run::current().kind() != Kind::Main {
            return Err(LoopError::in_mainloop(WaitReason::Abort.as_str()));
        }
        while self.is_running() {
            local::get().main_loop.abort();
            let parked = run::Park::current(WaitReason::Abort).and_then(run::Park::park);
            match parked {
                Ok(_) => {}
                Err(error) if error.kind() == LoopErrorKind::Aborted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the main loop with an error for the main greenlet. Does not switch.
    ///
    /// The main greenlet's wait returns [`LoopErrorKind::Interrupted`]. Timers and descriptors stay. The next blocking
    /// call launches a new loop.
    ///
    /// ```
    /// use greenhub::{Interest, TrampolineError, get_hub, trampoline};
    /// use greenhub::hub::LoopErrorKind;
    /// let (reader, _writer) = std::io::pipe()?;
    /// let hub = get_hub();
    /// greenhub::spawn_n(move || hub.interrupt());
    /// let waited = trampoline(&reader, Interest::READ, None);
    /// let Err(TrampolineError::Loop(error)) = waited else { panic!("{waited:?}") };
    /// assert_eq!(error.kind(), LoopErrorKind::Interrupted);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn interrupt(&self) {
        if self.is_current() {
            local::get().main_loop.interrupt();
        }
    }

    /// Ends the main loop with an error of the program for the main greenlet. Does not switch.
    ///
    /// Like [`interrupt`](HubRef::interrupt), but the main greenlet's wait returns [`LoopErrorKind::System`] with
    /// `error`. It is for a failure that concerns the whole program but is found in a callback or a green thread.
    /// gevent's `hub.handle_system_error`.
    ///
    /// ```
    /// use greenhub::get_hub;
    /// use greenhub::hub::LoopErrorKind;
    /// use std::time::Duration;
    /// get_hub().schedule_once(Duration::ZERO, || get_hub().fail("the disk is full"));
    /// let error = get_hub().run_once(None).unwrap_err();
    /// assert_eq!(error.kind(), LoopErrorKind::System);
    /// assert_eq!(error.system_error().unwrap().to_string(), "the disk is full");
    /// ```
    #[doc(alias = "handle_system_error")]
    pub fn fail(&self, error: impl Into<Box<dyn Error + Send + Sync>>) {
        if self.is_current() {
            local::get().main_loop.fail(LoopError::system(error.into()));
        }
    }

    /// Ends every green thread and plain greenlet here, then closes the hub. Switches.
    ///
    /// Each greenlet exits as by [`kill`](crate::GreenThread::kill), with [`LoopErrorKind::ThreadEnding`]; a green
    /// thread that has not begun never runs. Their destructors may block, since the loop runs on and the thread-locals
    /// are still alive. The call waits for them for at most `limit` (`None`: without a limit), but not for greenlets
    /// that [refuse](crate::KillOutcome::Refused) to exit. Then [shields](crate::shield()) are lifted.
    ///
    /// A greenlet that lives on after that, because its wait must not be left early or because it catches its exit, is
    /// abandoned. It never runs again, its memory stays allocated, its handle returns [`LoopErrorKind::ThreadEnding`],
    /// and it is [reported](crate::set_report_stream) once. A limit that was reached is no error: [`Ended::abandoned`]
    /// counts what is left. During the shutdown no green thread begins: the closure of a new one is dropped.
    ///
    /// Timers and listeners are dropped, the hub's descriptors are closed, and unused stacks are unmapped. The next use
    /// builds a new hub.
    ///
    /// An OS thread that ends without a shutdown abandons all its green threads, because its thread-locals are
    /// destroyed first. `greenhub::thread::os::run_and_shutdown` calls this at the right moment. The counterpart
    /// in gevent is `Hub.destroy`.
    ///
    /// ```
    /// use std::time::Duration;
    /// greenhub::spawn_n(|| greenhub::sleep(Duration::from_secs(3600)));
    /// greenhub::thread::yield_now();
    /// let ended = greenhub::get_hub().shutdown(Duration::from_secs(10))?;
    /// assert_eq!((ended.unwound, ended.cancelled, ended.abandoned), (1, 0, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`LoopErrorKind::InMainloop`] from a callback, [`LoopErrorKind::InPoll`] in a poll of a future,
    /// [`LoopErrorKind::ShutdownRefused`] for any greenlet but the main one and within a [`scope`](crate::scope()) of
    /// the main one, [`LoopErrorKind::Panicking`] while panicking, and [`LoopErrorKind::ThreadEnding`] when the OS
    /// thread has ended. In all these cases nothing happens.
    #[doc(alias = "destroy")]
    pub fn shutdown(&self, limit: impl Into<Option<Duration>>) -> Result<Ended, LoopError> {
        shutdown::shut_down(limit.into())
    }

    /// Runs one turn of the loop, for programs with a loop of their own. Switches.
    ///
    /// The turn sleeps for at most `limit` (`None`: until an event). A turn that has reached the limit is like any
    /// other, and no error. gevent's `loop.run(once=True)`.
    ///
    /// ```
    /// use std::time::Duration;
    /// let hub = greenhub::get_hub();
    /// let green = greenhub::spawn(|| 7);
    /// while !green.is_finished() {
    ///     hub.run_once(Duration::from_millis(10))?; // one turn of the main loop, inside of the program's loop
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error that the main loop has for the main greenlet, [`LoopErrorKind::InPoll`] in a poll of a future,
    /// and [`LoopErrorKind::InMainloop`] for any other greenlet.
    #[doc(alias = "run_forever")]
    pub fn run_once(&self, limit: impl Into<Option<Duration>>) -> Result<(), LoopError> {
        local::get().main_loop.run_once(limit.into())
    }

    /// Waits until all work of this OS thread is done. Switches.
    ///
    /// Returns true when no green thread is ready, no timer is armed, no descriptor is waited for, no job of a pool is
    /// pending, and no [`Remote`] of this OS thread is held. A green thread that waits for a lock, a queue or an event
    /// is not waited for, since the loop cannot know whether it will be woken. The same holds for timers, listeners and
    /// hooks that are not [counted](TimerHandle::set_counted). Returns false if `limit` has elapsed before; nothing is
    /// cancelled then. Returns true at once if this hub was replaced or shut down. gevent's `hub.join`.
    ///
    /// ```
    /// use std::time::Duration;
    /// let hub = greenhub::get_hub();
    /// greenhub::spawn_after(Duration::from_millis(1), || println!("done"));
    /// assert!(!hub.join(Duration::ZERO)?);
    /// assert!(hub.join(None)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the error that the main loop has for the main greenlet, [`LoopErrorKind::InPoll`] in a poll of a future,
    /// and [`LoopErrorKind::InMainloop`] from a callback and for any other greenlet.
    #[doc(alias = "joinall")]
    pub fn join(&self, limit: impl Into<Option<Duration>>) -> Result<bool, LoopError> {
        if !self.is_current() {
            return Ok(true);
        }
        local::get().main_loop.join(limit.into())
    }

    /// Returns when [`run_once`](HubRef::run_once) next has work, apart from descriptors.
    ///
    /// The time is by the hub's clock, [`now`](HubRef::now). It is the present time if a green thread is ready, else
    /// the time of the next timer.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        local::get().main_loop.next_deadline()
    }

    /// Returns the present time by the hub's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        local::get().main_loop.now()
    }

    /// Returns the time of the present turn by the hub's clock, without a new sample. Does not switch.
    ///
    /// It is the last sample that the loop has taken, at the end of its last wait or for a timer armed since. All
    /// callbacks of a turn that arm no timer see the same time. gevent's `loop.now()`.
    #[doc(alias = "loop.now")]
    #[must_use]
    pub fn cached_now(&self) -> Time {
        local::get().main_loop.cached_now()
    }

    /// Returns a descriptor by which a foreign loop can wait for this one.
    ///
    /// `None` if the hub has none.
    ///
    /// After a call of [`run_once`](HubRef::run_once), the descriptor becomes readable when the next call would find a
    /// ready descriptor or a message of another OS thread. The hub owns the descriptor.
    #[must_use]
    pub fn pollable(&self) -> Option<RawFd> {
        local::get().main_loop.pollable()
    }

    /// Lets timers be late by `delay / divisor`, but by no more than `at_most`. Does not switch.
    ///
    /// Several timers can then share one wait. The default is a sixteenth, and 1 ms. A `divisor` of 0 switches the
    /// slack off. A slack of less than 8 µs counts as none, so short delays are exact by default. The setting applies
    /// to timers that are armed from now on.
    pub fn set_timer_slack(&self, divisor: u32, at_most: Duration) {
        local::get().main_loop.set_slack(divisor, at_most);
    }

    /// Returns the divisor and the limit that [`set_timer_slack`](HubRef::set_timer_slack) has set. Does not switch.
    ///
    /// ```
    /// use std::time::Duration;
    /// let hub = greenhub::get_hub();
    /// assert_eq!(hub.timer_slack(), (16, Duration::from_millis(1)));
    /// hub.set_timer_slack(0, Duration::ZERO);
    /// assert_eq!(hub.timer_slack(), (0, Duration::ZERO));
    /// ```
    #[must_use]
    pub fn timer_slack(&self) -> (u32, Duration) {
        local::get().main_loop.slack()
    }

    /// Releases the memory of unused stacks to the system. Does not switch.
    ///
    /// Returns the number of trimmed stacks. The 64 stacks of each size that were used last keep their memory. The loop
    /// never does this by itself.
    pub fn trim_stacks(&self) -> usize {
        local::get().stacks.trim()
    }
}
