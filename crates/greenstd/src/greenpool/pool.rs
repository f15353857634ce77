//! A bounded number of green threads.
//!
//! A place is counted from the moment when somebody has it: a spawner that was let in owns one before it runs
//! again, and what it spawns takes it over. So there is no moment at which a place is both free and promised.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use hub_core::{BiasedMutex, BiasedMutexGuard, Deadline, GreenThread, LoopError, WaitReason};

use super::in_order::Imap;
use crate::killed::wait_for_killed;
use crate::sync::difference;
use crate::sync::wait_queue::{Wait, WaitError, WaitQueue};

/// Green threads of which at most a given number runs at once. Eventlet's `GreenPool`. Clones are handles of the same
/// pool, which belongs to its OS thread; dropping them ends nobody.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::greenpool::GreenPool;
/// use std::time::Duration;
/// let pool = GreenPool::new(2);
/// let slow = pool.spawn(|| greenstd::thread::sleep(Duration::from_millis(5)))?;
/// let quick = pool.spawn(|| 6 * 7)?;
/// assert_eq!(pool.free(), 0);
/// pool.spawn_n(|| ())?; // waits until one of them has ended
/// pool.wait_all()?;
/// assert_eq!((pool.running(), pool.free()), (0, 2));
/// slow.join()?;
/// assert_eq!(quick.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct GreenPool {
    shared: Rc<BiasedMutex<State>>,
}

/// Why [`wait_all`](GreenPool::wait_all) did not wait.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitallError {
    /// A green thread of the pool waits for the end of all of them, itself included.
    #[error("calling wait_all from within one of the pool's own green threads will never terminate")]
    Inside,
    /// The caller cannot wait.
    #[error(transparent)]
    Loop(#[from] LoopError),
}

impl From<WaitallError> for std::io::Error {
    fn from(error: WaitallError) -> std::io::Error {
        match error {
            WaitallError::Inside => std::io::Error::new(std::io::ErrorKind::Deadlock, error),
            WaitallError::Loop(error) => error.into(),
        }
    }
}

#[derive(Debug)]
struct State {
    size: usize,
    /// Places that somebody has: a worker, or a spawner that is about to make one.
    taken: usize,
    /// The workers, in slots that are used again.
    workers: Vec<Option<Worker>>,
    free_slots: Vec<usize>,
    next_serial: u64,
    spawners: WaitQueue,
    all: WaitQueue,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Worker {
    greenlet: u32,
    serial: u64,
}

impl State {
    /// Lets spawners in for whom there is room now; if nobody has a place, all has ended.
    fn settle(&mut self) {
        while self.taken < self.size && self.spawners.grant() {
            self.taken += 1;
        }
        if self.taken == 0 {
            self.all.grant_all();
        }
    }

    fn release_permit(&mut self) {
        self.taken -= 1;
        self.settle();
    }

    fn is_worker(&self, greenlet: u32) -> bool {
        self.workers.iter().flatten().any(|worker| worker.greenlet == greenlet)
    }
}

/// For a place.
struct PermitWait;

impl Wait for PermitWait {
    type State = State;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Semaphore;

    fn queue(state: &mut State) -> &mut WaitQueue {
        &mut state.spawners
    }

    fn regrant(state: &mut State) {
        state.release_permit();
    }
}

/// Until all have ended.
struct PoolJoinWait;

impl Wait for PoolJoinWait {
    type State = State;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Join;

    fn queue(state: &mut State) -> &mut WaitQueue {
        &mut state.all
    }

    fn regrant(_: &mut State) {}
}

/// A place in the pool, which is free again when this is dropped.
pub(crate) struct Permit {
    pool: GreenPool,
    slot: Option<usize>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        if let Some(slot) = self.slot {
            state.workers[slot] = None;
            state.free_slots.push(slot);
        }
        state.release_permit();
    }
}

/// Where work that is spawned may run.
pub(crate) enum Admission {
    /// In a green thread of its own.
    Permit(Permit),
    /// In the caller, which is a worker of a full pool.
    InPlace,
}

impl Admission {
    /// `spawned_at`: where the user of the pool asked for it.
    pub(crate) fn spawn<T: 'static>(
        self,
        spawned_at: &'static Location<'static>,
        f: impl FnOnce() -> T + 'static,
    ) -> GreenThread<T> {
        match self {
            Admission::InPlace => hub_core::run_in_place_at(spawned_at, f),
            Admission::Permit(mut permit) => {
                let (pool, slot, serial) = permit.take_slot();
                let green = hub_core::spawn_at(spawned_at, move || {
                    // Free again when what `f` had is gone.
                    let _permit = permit;
                    f()
                });
                // One that was refused has given its place back.
                if let Some(greenlet) = green.id() {
                    pool.lock().workers[slot] = Some(Worker { greenlet, serial });
                }
                green
            }
        }
    }
}

impl Permit {
    fn take_slot(&mut self) -> (GreenPool, usize, u64) {
        let mut guard = self.pool.lock();
        let state = &mut *guard;
        let slot = state.free_slots.pop().unwrap_or_else(|| {
            state.workers.push(None);
            state.workers.len() - 1
        });
        state.next_serial += 1;
        let serial = state.next_serial;
        drop(guard);
        self.slot = Some(slot);
        (self.pool.clone(), slot, serial)
    }
}

impl GreenPool {
    /// A pool in which at most `size` green threads run at once. In one of size zero nobody runs until it is
    /// [resized](GreenPool::resize). Does not switch.
    #[must_use]
    pub fn new(size: usize) -> GreenPool {
        let state = State {
            size,
            taken: 0,
            workers: Vec::new(),
            free_slots: Vec::new(),
            next_serial: 0,
            spawners: WaitQueue::default(),
            all: WaitQueue::default(),
        };
        GreenPool { shared: Rc::new(BiasedMutex::new(state)) }
    }

    /// Runs `f` in a green thread of the pool, as [`thread::spawn`](crate::thread::spawn) does. Waits while the pool
    /// is full: switches then. Those who wait are let in in the order in which they came.
    ///
    /// A green thread of the pool that finds it full runs `f` itself, at once, since it would wait for itself; what
    /// `f` panics with is in the handle as ever. It does so on its own stack: work that spawns work that spawns work
    /// needs a [larger one](hub_core::set_default_stack_size), or a bound to how deep that goes.
    ///
    /// The place is free again when `f` has returned, panicked or was killed, begun or not. A caller that is killed or
    /// times out while it waits takes none.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let pool = greenstd::greenpool::GreenPool::new(10);
    /// let green = pool.spawn(|| "result")?;
    /// assert_eq!(green.join()?, "result");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// If the pool is full and the caller cannot wait: in the main loop, while panicking, after the end of its thread; what
    /// the main loop has to tell the main greenlet.
    #[track_caller]
    pub fn spawn<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> Result<GreenThread<T>, LoopError> {
        let spawned_at = Location::caller();
        Ok(self.admit()?.spawn(spawned_at, f))
    }

    /// As [`spawn`](GreenPool::spawn), without a handle: a failure is reported. Switches if the pool is full.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let pool = greenstd::greenpool::GreenPool::new(10);
    /// pool.spawn_n(|| ())?;
    /// pool.wait_all()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`spawn`](GreenPool::spawn).
    #[track_caller]
    pub fn spawn_n<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> Result<(), LoopError> {
        self.spawn(f).map(drop)
    }

    /// Waits until no green thread of the pool runs. Eventlet's `wait_all`. Switches, unless none does.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use greenstd::greenpool::{GreenPool, WaitallError};
    /// let pool = GreenPool::new(2);
    /// let own = pool.clone();
    /// let inside = pool.spawn(move || own.wait_all())?;
    /// pool.wait_all()?;
    /// assert!(matches!(inside.join()?, Err(WaitallError::Inside)));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Inside`](WaitallError::Inside) from a green thread of the pool; if the caller cannot wait.
    #[doc(alias = "waitall")]
    pub fn wait_all(&self) -> Result<(), WaitallError> {
        self.wait_within(&mut Deadline::none()).map(drop)
    }

    /// Whether all have ended within the limit.
    fn wait_within(&self, limit: &mut Deadline) -> Result<bool, WaitallError> {
        let me = hub_core::current_id();
        let ended = PoolJoinWait::wait(&self.shared, limit, (), |state, _| {
            if state.is_worker(me) {
                Ok(Err(WaitallError::Inside))
            } else if state.taken == 0 {
                Ok(Ok(()))
            } else {
                Err(())
            }
        });
        match ended {
            Ok(ended) => ended.map(|()| true),
            Err(WaitError::TimedOut(())) => Ok(false),
            Err(WaitError::Failed(error, _)) => Err((*error).into()),
        }
    }

    /// Has every green thread of the pool exit when it runs next; one that has not begun never does. Eventlet's
    /// `kill_all`, for sets of green threads. Those who wait for a place are let in. Never switches by itself:
    /// [`wait_all`](GreenPool::wait_all) waits for their ends. A green thread of the pool that calls this exits too, at its
    /// next wait.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use std::time::Duration;
    /// let pool = greenstd::greenpool::GreenPool::new(10);
    /// let green = pool.spawn(|| greenstd::thread::sleep(Duration::from_secs(3600)))?;
    /// pool.kill_all();
    /// pool.wait_all()?;
    /// assert!(green.join().unwrap_err().is_exit());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[doc(alias = "killall")]
    pub fn kill_all(&self) {
        let workers: Vec<_> = self.lock().workers.iter().copied().enumerate().collect();
        for (slot, worker) in workers {
            // What those before had may have run others when it was dropped.
            let still = self.lock().workers[slot];
            if let Some(worker) = worker.filter(|worker| still == Some(*worker)) {
                hub_core::interrupt(worker.greenlet);
            }
        }
    }

    /// As [`kill_all`](GreenPool::kill_all), and waits for their ends, for `limit` at most. Returns how many are left.
    /// Switches, unless none runs.
    ///
    /// It returns early if all that are left [refuse](hub_core::KillOutcome::Refused) the kill: those live on. Others that are left
    /// end later: they are in a [`shield`](hub_core::shield()), or in a wait that must not be left early.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// use std::time::Duration;
    /// let pool = greenstd::greenpool::GreenPool::new(10);
    /// pool.spawn_n(|| greenstd::thread::sleep(Duration::from_secs(3600)))?;
    /// assert_eq!(pool.kill_all_within(Duration::from_secs(1))?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`wait_all`](GreenPool::wait_all).
    pub fn kill_all_within(&self, limit: Duration) -> Result<usize, WaitallError> {
        self.kill_all();
        let left = || self.lock().workers.iter().flatten().map(|worker| worker.greenlet).collect();
        wait_for_killed(limit, left, |limit| self.wait_within(limit))
    }

    /// Changes how many may run at once. Nobody is killed: after shrinking, places that become free are not given
    /// away until few enough run. Growing lets in who waits. Eventlet's `resize`. Never switches.
    ///
    /// ```
    /// let pool = greenstd::greenpool::GreenPool::new(1);
    /// pool.resize(3);
    /// assert_eq!((pool.size(), pool.free()), (3, 3));
    /// ```
    pub fn resize(&self, size: usize) {
        let mut state = self.lock();
        state.size = size;
        state.settle();
    }

    /// How many may run at once.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lock().size
    }

    /// How many run, begun or not. Eventlet's `running`.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lock().taken
    }

    /// How many more may run; negative while more run than may after [`resize`](GreenPool::resize). Eventlet's `free`.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let pool = greenstd::greenpool::GreenPool::new(2);
    /// pool.spawn_n(|| ())?;
    /// pool.spawn_n(|| ())?;
    /// pool.resize(1);
    /// assert_eq!(pool.free(), -1);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn free(&self) -> isize {
        let state = self.lock();
        difference(state.size, state.taken)
    }

    /// How many wait for a place. Eventlet's `waiting`.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().spawners.len()
    }

    /// Whether the running green thread is one of the pool.
    #[must_use]
    pub fn contains_current(&self) -> bool {
        self.lock().is_worker(hub_core::current_id())
    }

    /// Calls `f` with each item of `source` in green threads of the pool, and gives the results in the order of the
    /// items. Eventlet's `imap`; `starmap` is this with an `f` that takes a tuple, several sources are `zip`ped. Never
    /// switches: all is done by the iterator.
    ///
    /// The iterator reads `source` itself, when its next result is asked for, and only as far ahead as the pool is large
    /// and has room; results wait in it for those before them. What `f` panics with is the result of that item, and
    /// the following items are done all the same. A panic of `source` goes through. Dropping the iterator leaves
    /// what has begun running.
    ///
    /// ```
    /// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # doctest::run(|| {
    /// let pool = greenstd::greenpool::GreenPool::new(3);
    /// let sums = pool.imap((1..).zip([10, 20, 30]), |(a, b)| a + b);
    /// assert_eq!(sums.collect::<Result<Vec<_>, _>>()?, [11, 22, 33]);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[doc(alias = "starmap")]
    #[track_caller]
    pub fn imap<I, F, T>(&self, source: I, f: F) -> Imap<I::IntoIter, F, T>
    where
        I: IntoIterator,
        I::Item: 'static,
        F: Fn(I::Item) -> T + 'static,
        T: 'static,
    {
        Imap::new(self.clone(), source.into_iter(), f, Location::caller())
    }

    /// A place, or leave to work in place. Switches if the pool is full.
    pub(crate) fn admit(&self) -> Result<Admission, LoopError> {
        let me = hub_core::current_id();
        let admitted = PermitWait::wait(&self.shared, &mut Deadline::none(), (), |state, ungranted| match ungranted {
            Some(()) if state.taken < state.size => {
                state.taken += 1;
                Ok(true)
            }
            Some(()) if state.is_worker(me) => Ok(false),
            Some(()) => Err(()),
            // Who was chosen has a place.
            None => Ok(true),
        });
        match admitted {
            Ok(true) => Ok(self.permit()),
            Ok(false) | Err(WaitError::TimedOut(())) => Ok(Admission::InPlace),
            Err(WaitError::Failed(error, _)) => Err(*error),
        }
    }

    /// A place, if one is free. Never switches.
    pub(crate) fn try_admit(&self) -> Option<Admission> {
        let mut state = self.lock();
        if state.taken >= state.size {
            return None;
        }
        state.taken += 1;
        drop(state);
        Some(self.permit())
    }

    fn permit(&self) -> Admission {
        Admission::Permit(Permit { pool: self.clone(), slot: None })
    }

    fn lock(&self) -> BiasedMutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl fmt::Debug for GreenPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let (size, running, waiting) = (state.size, state.taken, state.spawners.len());
        // What is written to may be anybody's, and switch.
        drop(state);
        f.debug_struct("GreenPool").field("size", &size).field("running", &running).field("waiting", &waiting).finish()
    }
}
