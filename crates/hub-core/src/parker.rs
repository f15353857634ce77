//! Waits that any thread may end: what locks, queues and events are built on.
//!
//! A [`Parker`] is one wait of its caller: of a green thread, which parks, or of a plain OS thread, which blocks
//! itself. Its [`Unparker`] names that wait and no other, is a few numbers, and may be left anywhere; so a
//! primitive keeps unparkers under a lock of its own, and nothing has to be taken back before it goes away.
//!
//! Whoever unparks a green thread of the same OS thread only queues it. For all others there is a table of the
//! process, from the number of an OS thread to its mailbox.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

pub use crate::greenlet::control::Doing;

use crate::error::LoopError;
use crate::fork::{self, PerProcess};
use crate::greenlet::local;
use crate::greenlet::run::Waiter;
use crate::limit::Limit;
use crate::remote::{Letter, Mailbox};

/// One wait of the calling green thread, or of the OS thread if it has no green threads.
///
/// The order that loses no wake-up: take a lock, find that there is nothing to be had, make a parker, leave its
/// [`unparker`](Parker::unparker) where others find it, let go of the lock, [`park`](Parker::park), look again.
/// Parking may end early, and an unparker that was left behind does nothing.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use hub_core::{Doing, Limit, Parker};
/// let parker = Parker::new(Doing::Event)?;
/// let unparker = parker.unparker();
/// let other = std::thread::spawn(move || unparker.unpark());
/// assert!(parker.park(&mut Limit::none())?);
/// other.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Parker {
    who: Who,
    /// It is a wait of this thread.
    not_send: PhantomData<*mut ()>,
}

#[derive(Debug)]
enum Who {
    Green(Waiter),
    Thread(Arc<Plain>, u64),
}

/// Ends the wait of one [`Parker`], once.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Unparker {
    thread: u64,
    /// The number of the greenlet, or [`PLAIN`].
    greenlet: u32,
    ticket: u64,
}

/// Instead of a greenlet: the OS thread itself.
const PLAIN: u32 = u32::MAX;

impl Parker {
    /// Begins a wait, in which the caller does what `doing` says; reports tell of it. Does not switch.
    ///
    /// # Errors
    ///
    /// Where nobody may wait: in the main loop, while panicking, in an ending thread. What the main loop has to
    /// tell the main greenlet. If no hub can be built.
    pub fn new(doing: Doing) -> Result<Parker, LoopError> {
        let who = match local::try_get() {
            None => plain()?,
            Some(local) => {
                let waiter = Waiter::current(doing).map_err(|error| *error)?;
                local.main_loop.be_reachable()?;
                Who::Green(waiter)
            }
        };
        Ok(Parker { who, not_send: PhantomData })
    }

    /// What ends this wait.
    #[must_use]
    pub fn unparker(&self) -> Unparker {
        let thread = fork::this_thread();
        match &self.who {
            Who::Green(waiter) => Unparker { thread, greenlet: waiter.control().number(), ticket: waiter.ticket() },
            Who::Thread(_, ticket) => Unparker { thread, greenlet: PLAIN, ticket: *ticket },
        }
    }

    /// Waits until it is unparked, which may have happened before, or `limit` is reached: then false. May return
    /// early. Switches.
    ///
    /// # Errors
    ///
    /// What the main loop has to tell the main greenlet.
    pub fn park(self, limit: &mut Limit) -> Result<bool, LoopError> {
        match self.who {
            Who::Green(waiter) => local::get().main_loop.park_until(waiter, limit).map_err(|error| *error),
            Who::Thread(plain, ticket) => Ok(plain.park(ticket, limit)),
        }
    }
}

impl Unparker {
    /// Ends the wait, if it lasts still. Never switches, and does not wait for anybody.
    pub fn unpark(self) {
        if self.greenlet != PLAIN && self.thread == fork::this_thread() {
            let Some(local) = local::try_get() else { return };
            if let Some(control) = local.controls.get(self.greenlet) {
                Waiter::new(control, self.ticket).wake();
            }
        } else if let Ok(threads) = threads() {
            threads.unpark(self);
        }
    }
}

/// How an OS thread waits that has no green threads.
struct Plain {
    thread: thread::Thread,
    /// Names the present wait.
    ticket: AtomicU64,
}

impl Plain {
    fn park(&self, ticket: u64, limit: &mut Limit) -> bool {
        while self.ticket.load(Ordering::Acquire) == ticket {
            match limit.begin() {
                None => thread::park(),
                Some(left) if left.is_zero() => return !self.end(ticket),
                Some(left) => thread::park_timeout(left),
            }
        }
        true
    }

    /// Ends the wait with that ticket. False if it was over.
    fn end(&self, ticket: u64) -> bool {
        self.ticket.compare_exchange(ticket, ticket + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").field("thread", &self.thread.id()).finish_non_exhaustive()
    }
}

/// How an OS thread is reached.
#[derive(Default)]
struct Reach {
    mailbox: Option<Arc<Mailbox>>,
    plain: Option<Arc<Plain>>,
}

/// The OS threads of a process that somebody may want to unpark, by their numbers.
#[derive(Default)]
struct Threads {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reach: HashMap<u64, Reach>,
    /// In a forked child: for its first thread, which has not told yet how it is reached now.
    early: Vec<Unparker>,
}

static THREADS: PerProcess<Threads> = PerProcess::new();

fn threads() -> io::Result<&'static Threads> {
    THREADS.get_or_make(Threads::default)
}

impl Threads {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unpark(&self, whom: Unparker) {
        let mut state = self.lock();
        match state.reach.get(&whom.thread) {
            Some(reach) => reach.unpark(whom),
            None if whom.thread == fork::survivor() && whom.greenlet != PLAIN => state.early.push(whom),
            // Its thread has ended.
            None => {}
        }
    }

    fn register(&self, thread: u64, change: impl FnOnce(&mut Reach)) {
        let mut state = self.lock();
        let State { reach, early } = &mut *state;
        let reach = reach.entry(thread).or_default();
        change(reach);
        // They are all for the first thread of a child, whoever registers before it.
        if thread == fork::survivor() && reach.mailbox.is_some() {
            early.drain(..).for_each(|whom| reach.unpark(whom));
        }
    }
}

impl Reach {
    fn unpark(&self, whom: Unparker) {
        match (&self.mailbox, &self.plain) {
            (_, Some(plain)) if whom.greenlet == PLAIN && plain.end(whom.ticket) => plain.thread.unpark(),
            // A thread that has ended has nobody who waits.
            (Some(mailbox), _) if whom.greenlet != PLAIN => {
                drop(mailbox.post(Letter::Wake { greenlet: whom.greenlet, ticket: whom.ticket }));
            }
            _ => {}
        }
    }
}

/// Takes the thread out of the table when it ends.
struct Registered {
    /// The generation of forks in which it was entered, plus one; 0: not at all.
    generation: Cell<u32>,
    plain: Cell<Option<Arc<Plain>>>,
}

thread_local! {
    static REGISTERED: Registered = const { Registered { generation: Cell::new(0), plain: Cell::new(None) } };
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(threads) = THREADS.get() {
            let left = threads.lock().reach.remove(&fork::this_thread());
            drop(left);
        }
    }
}

/// Makes this thread reachable by `mailbox`. Cheap when done before.
pub(crate) fn register(mailbox: impl FnOnce() -> Option<Arc<Mailbox>>) -> io::Result<()> {
    let now = fork::generation() + 1;
    let known = REGISTERED.try_with(|registered| registered.generation.get() == now).unwrap_or(false);
    if !known && let Some(mailbox) = mailbox() {
        threads()?.register(fork::this_thread(), |reach| reach.mailbox = Some(mailbox));
        let _ = REGISTERED.try_with(|registered| registered.generation.set(now));
    }
    Ok(())
}

/// After a fork, in the child's first thread: those who were left early are told.
pub(crate) fn register_again(mailbox: impl FnOnce() -> Option<Arc<Mailbox>>) -> io::Result<()> {
    let before = REGISTERED.try_with(|registered| registered.generation.get()).unwrap_or(0);
    if before == 0 { Ok(()) } else { register(mailbox) }
}

/// A wait of this OS thread as a whole.
fn plain() -> Result<Who, LoopError> {
    let here = || Arc::new(Plain { thread: thread::current(), ticket: AtomicU64::new(0) });
    let kept = REGISTERED.try_with(|registered| registered.plain.take()).unwrap_or_default();
    let plain = kept.unwrap_or_else(here);
    let _ = REGISTERED.try_with(|registered| registered.plain.set(Some(Arc::clone(&plain))));
    let entered = threads().map(|threads| {
        threads.register(fork::this_thread(), |reach| reach.plain = Some(Arc::clone(&plain)));
    });
    entered.map_err(|error| LoopError::Wait { hub: "none", error: Arc::new(error) })?;
    let ticket = plain.ticket.load(Ordering::Relaxed);
    Ok(Who::Thread(plain, ticket))
}
