//! The hub of the calling thread: choosing it, finding it, asking it.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use crate::base::wait_reason::WaitReason;
use crate::error::{HubError, LoopError, TrampolineError};
use crate::greenlet::control::Kind;
use crate::greenlet::local;
use crate::greenlet::run;
use crate::hub::Interest;
use crate::hub::Time;
use crate::main_loop::listener::{Listener, Timer};
use crate::main_loop::remote::Remote;
use crate::main_loop::{CallbackId, Stats};
use crate::wait::pool;
use crate::wait::shutdown::{self, Ended};

/// This thread's hub, built now if it is the first use. Eventlet's `get_hub`. Does not switch.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let hub = hub_core::get_hub();
/// assert_eq!(hub.id(), hub_core::get_hub().id());
/// assert!(!hub.is_running()); // nothing has blocked yet
/// # });
/// ```
///
/// After the end of the thread's green threads, in a destructor of a thread-local, it refers to a hub that does nothing.
///
/// # Panics
///
/// If the hub cannot be built, with the message that [`try_get_hub`] returns.
#[must_use]
pub fn get_hub() -> HubRef {
    match try_get_hub() {
        Ok(hub) => hub,
        // A destructor of a thread-local must not panic.
        Err(HubError::ThreadEnding) => HubRef::present(),
        Err(error) => panic!("{error}"),
    }
}

/// This thread's hub, built now if it is the first use. Does not switch.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// match hub_core::try_get_hub() {
///     Ok(hub) => println!("this thread waits by {}", hub.name()),
///     Err(error) => println!("no hub: {error}"),
/// }
/// # });
/// ```
///
/// # Errors
///
/// Why the hub could not be chosen or built.
pub fn try_get_hub() -> Result<HubRef, HubError> {
    let main_loop = &local::get().main_loop;
    if local::has_ended() {
        return Err(HubError::ThreadEnding);
    }
    match main_loop.ensure_hub() {
        Ok(()) => Ok(HubRef::present()),
        Err(LoopError::Hub(error)) => Err(error),
        Err(LoopError::InMainloop { .. }) => Err(HubError::InMainloop),
        Err(error) => Err(HubError::Build {
            name: main_loop.name().to_owned(),
            error: std::sync::Arc::new(io::Error::other(error)),
        }),
    }
}

/// Whether this thread has a hub. Never makes one.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// assert!(!hub_core::has_hub());
/// hub_core::get_hub();
/// assert!(hub_core::has_hub());
/// # });
/// ```
#[must_use]
pub fn has_hub() -> bool {
    local::try_get().is_some_and(|local| !local.main_loop.name().is_empty())
}

/// Refers to a hub of this thread: what can be asked of Eventlet's hub object.
///
/// A reference to a hub that was replaced stays valid: it names the old one, which is no longer
/// [current](HubRef::is_current), does not run and counts nothing. What can still be asked for, as a callback or a
/// turn, the thread's present hub does.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// let hub = hub_core::get_hub();
/// hub_core::spawn(|| ()).join()?;
/// assert!(hub.is_current());
/// assert!(hub.stats().turns > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct HubRef {
    id: u64,
    name: &'static str,
    here: PhantomData<*const ()>,
}

impl fmt::Debug for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubRef").field("name", &self.name).field("id", &self.id).finish()
    }
}

impl HubRef {
    /// The hub that this thread has now or, if it was just replaced, will have.
    fn present() -> HubRef {
        let main_loop = &local::get().main_loop;
        HubRef { id: main_loop.id(), name: main_loop.name(), here: PhantomData }
    }

    /// The canonical name: `"epoll"`, `"poll"`…
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A number that no other hub of this process has or had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether this is still the hub of its thread.
    #[must_use]
    pub fn is_current(&self) -> bool {
        local::try_get().is_some_and(|local| local.main_loop.id() == self.id)
    }

    /// Whether its main loop was launched and has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.is_current() && local::get().mainloop.get().is_some()
    }

    /// A handle for other threads: to spawn on this hub, wake it, stop it.
    ///
    /// While one exists the loop never takes the main greenlet's wait for hopeless. It leads to this thread
    /// for as long as that lives, whatever hub is used.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{Interest, get_hub, trampoline};
    /// use std::io::Write;
    /// let remote = get_hub().remote();
    /// let (reader, mut writer) = std::io::pipe()?;
    /// // Another thread has this one run something in a green thread.
    /// std::thread::spawn(move || remote.spawn(move || writer.write_all(b"!").unwrap()));
    /// trampoline(&reader, Interest::READ, None)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Panics
    ///
    /// If the hub was replaced and the next one cannot be built.
    #[must_use]
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

    /// What it has done and holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        if self.is_current() { local::get().main_loop.stats(local::get(), pool::usage()) } else { Stats::default() }
    }

    /// Calls `timer` from the main loop, not before `delay` has passed. Eventlet's
    /// `schedule_call_global`. Does not switch.
    ///
    /// The callback runs even if the greenlet that scheduled it has ended. Callbacks without delay, ready
    /// green threads and woken ones run in the order in which they became due; one that a callback
    /// schedules runs in a later turn, after descriptors were looked at.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{get_hub, sleep};
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
    /// # });
    /// ```
    #[track_caller]
    pub fn schedule(&self, delay: Duration, timer: impl Timer + 'static) -> TimerHandle {
        let main_loop = &local::get().main_loop;
        let id = main_loop.schedule(delay, Rc::new(timer));
        if local::has_ended() {
            main_loop.unschedule(id);
        }
        TimerHandle { id, hub: HubRef::present() }
    }

    /// Calls `listener` from the main loop whenever `fd` is ready in one direction, until the
    /// registration is dropped. The registration owns `fd`. Eventlet's `hub.add`. Does not switch.
    ///
    /// Both are dropped in a [shutdown](HubRef::shutdown); in an OS thread that ends without one they are leaked.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{Interest, Readiness, get_hub, sleep};
    /// use std::cell::Cell;
    /// use std::io::Write;
    /// use std::rc::Rc;
    /// use std::time::Duration;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// let told = Rc::new(Cell::new(Readiness::NONE));
    /// let seen = Rc::clone(&told);
    /// let registration = get_hub().listen(reader, Interest::READ, move |what| seen.set(what))?;
    /// writer.write_all(b"x")?;
    /// sleep(Duration::from_millis(5));
    /// assert!(told.get().contains(Readiness::READ));
    /// drop(registration); // closes the reader, too
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// If both directions or none are asked for, if somebody else waits for the same, or if the hub
    /// refuses the descriptor; nothing is registered then.
    #[track_caller]
    pub fn listen<F: AsFd + 'static>(
        &self,
        fd: F,
        interest: Interest,
        listener: impl Listener + 'static,
    ) -> Result<Registration, TrampolineError> {
        let id = local::get().main_loop.listen(Rc::new(fd), interest, Rc::new(listener))?;
        Ok(Registration { id, hub: HubRef::present() })
    }

    /// Asks the main loop to end with its present turn. Its timers are discarded, green threads that
    /// sleep end as killed by [`LoopError::Aborted`], and the main greenlet's wait ends with that error.
    /// The next blocking call launches a new loop. Does nothing if no loop runs. Eventlet's `abort`. Does not
    /// switch.
    pub fn abort(&self) {
        if self.is_running() {
            local::get().main_loop.abort();
        }
    }

    /// Like [`abort`](HubRef::abort), and waits until the loop has ended. Switches.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use std::time::Duration;
    /// let hub = hub_core::get_hub();
    /// hub_core::sleep(Duration::from_millis(1));
    /// assert!(hub.is_running());
    /// hub.abort_wait()?;
    /// assert!(!hub.is_running());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoopError::InMainloop`] from a callback, and for any greenlet but the main one.
    pub fn abort_wait(&self) -> Result<(), LoopError> {
        if run::current().kind() != Kind::Main {
            return Err(LoopError::InMainloop { doing: WaitReason::Abort.as_str() });
        }
        while self.is_running() {
            local::get().main_loop.abort();
            let parked = run::Waiter::current(WaitReason::Abort).and_then(run::Waiter::park);
            match parked.map_err(|error| *error) {
                Ok(_) | Err(LoopError::Aborted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the main loop with the system error: the main greenlet's wait ends with
    /// [`LoopError::Interrupted`], timers and descriptors stay, and the next blocking call launches a new
    /// loop. Does not switch.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use hub_core::{Interest, LoopError, TrampolineError, get_hub, trampoline};
    /// let (reader, _writer) = std::io::pipe()?;
    /// let hub = get_hub();
    /// hub_core::spawn_n(move || hub.interrupt());
    /// let waited = trampoline(&reader, Interest::READ, None);
    /// assert!(matches!(waited, Err(TrampolineError::Loop(LoopError::Interrupted))));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn interrupt(&self) {
        if self.is_current() {
            local::get().main_loop.interrupt();
        }
    }

    /// Ends all green threads and plain greenlets of this OS thread while its thread-locals are alive, then closes the
    /// hub. Switches.
    ///
    /// Each is made to exit as by [`kill`](crate::GreenThread::kill), with [`LoopError::ThreadEnding`]; one that has not
    /// begun never does. Their destructors may block, since the loop goes on meanwhile. It waits for them for `limit` at
    /// most (`None`: for ever), but not for those that [refuse](crate::KillOutcome::Refused) to exit. Then [shields](crate::shield()) are lifted. What lives on after that, because it is in a
    /// wait that must not be left early or catches its exit, is abandoned: it never runs again, its memory stays as it is, its handle gives
    /// [`LoopError::ThreadEnding`], and it is [reported](crate::set_report_stream) once. While this runs nothing begins:
    /// what is spawned is dropped.
    ///
    /// Timers and listeners are dropped, the descriptors of the hub closed, unused stacks unmapped. The next use builds a
    /// new hub.
    ///
    /// An OS thread that ends without this abandons all its green threads, because its thread-locals are destroyed
    /// before: see [`run_and_shutdown`](crate::run_and_shutdown), which does this at the right moment. Takes the place
    /// of `Hub.destroy` of gevent.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use std::time::Duration;
    /// hub_core::spawn_n(|| hub_core::sleep(Duration::from_secs(3600)));
    /// hub_core::yield_now();
    /// let ended = hub_core::get_hub().shutdown(Some(Duration::from_secs(10)))?;
    /// assert_eq!((ended.unwound, ended.cancelled, ended.abandoned), (1, 0, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoopError::InMainloop`] from a callback; [`LoopError::ShutdownRefused`] for any greenlet but the main one, and
    /// within a [`scope`](crate::scope()) of the main one; [`LoopError::Panicking`] while panicking; [`LoopError::ThreadEnding`]
    /// when the thread has ended. Nothing happens then.
    pub fn shutdown(&self, limit: Option<Duration>) -> Result<Ended, LoopError> {
        shutdown::shut_down(limit)
    }

    /// Runs one turn of the loop, which sleeps for `limit` at most (`None`: until something happens), for
    /// programs that have a loop of their own. gevent's `loop.run(once=True)`. Switches.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use std::time::Duration;
    /// let hub = hub_core::get_hub();
    /// let green = hub_core::spawn(|| 7);
    /// while !green.is_finished() {
    ///     hub.run_once(Some(Duration::from_millis(10)))?; // a turn of ours in a loop of the program's
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// What the main loop has to tell the main greenlet, and [`LoopError::InMainloop`] for any other.
    pub fn run_once(&self, limit: Option<Duration>) -> Result<(), LoopError> {
        local::get().main_loop.run_once(limit)
    }

    /// When [`run_once`](HubRef::run_once) has something to do by the hub's clock, [`now`](HubRef::now), apart from
    /// descriptors: at once if a green thread is ready, else when the next timer is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        local::get().main_loop.next_deadline()
    }

    /// The hub's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        local::get().main_loop.now()
    }

    /// The number of a descriptor that is readable, after a call of [`run_once`](HubRef::run_once), when the next
    /// one would find a ready descriptor or something from another thread; if the hub has one. It belongs to
    /// the hub.
    #[must_use]
    pub fn pollable(&self) -> Option<RawFd> {
        local::get().main_loop.pollable()
    }

    /// Lets timers be late by `delay / fraction`, `at_most` in the longest case, so that several share
    /// one wait. By default a sixteenth, and 1 ms; `fraction` 0 means not at all. Less than 8 µs counts as nothing, so
    /// short delays are exact by default. It concerns timers that are armed from now on. Does not switch.
    pub fn set_timer_slack(&self, fraction: u32, at_most: Duration) {
        local::get().main_loop.set_slack(fraction, at_most);
    }

    /// Gives memory of stacks that nobody uses back to the system, but for the 64 of each size that were used last.
    /// Returns how many stacks that were. The loop never does this by itself. Does not switch.
    pub fn trim_stacks(&self) -> usize {
        local::get().stacks.trim()
    }
}

/// A callback scheduled by [`HubRef::schedule`], Eventlet's `Timer`. Dropping it changes nothing.
#[derive(Debug)]
pub struct TimerHandle {
    id: CallbackId,
    hub: HubRef,
}

impl TimerHandle {
    /// Takes the callback back; it is dropped at once. False if it has run or was taken back before.
    pub fn cancel(&self) -> bool {
        self.hub.is_current() && local::get().main_loop.unschedule(self.id)
    }
}

/// A listener registered by [`HubRef::listen`]. Dropping it takes the listener back and drops the descriptor, as
/// Eventlet's `hub.remove`.
#[derive(Debug)]
pub struct Registration {
    id: CallbackId,
    hub: HubRef,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.hub.is_current() {
            local::get().main_loop.unlisten(self.id);
        }
    }
}
