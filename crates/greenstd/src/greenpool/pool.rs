//! A pool with a bounded number of green threads.
//!
//! A permit is counted from the moment of its grant. A granted spawner owns its permit before it runs again, and passes
//! it to its green thread. So no permit is ever both free and promised.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use hub_core::{BiasedMutex, BiasedMutexGuard, Deadline, GreenError, GreenThread, GreenletId, LoopError, WaitReason};

use super::in_order::Imap;
use crate::killed::wait_for_killed;
use crate::sync::difference;
use crate::sync::wait_queue::{Unserved, Wait, WaitQueue};

/// A pool of which at most a given number of green threads runs at once. Eventlet's `GreenPool`.
///
/// Clones are handles of the same pool, which belongs to its OS thread. Dropping them ends no green thread.
///
/// ```
/// use greenhub::GreenPool;
/// use std::time::Duration;
/// let pool = GreenPool::new(2);
/// let slow = pool.spawn(|| greenhub::thread::sleep(Duration::from_millis(5)))?;
/// let quick = pool.spawn(|| 6 * 7)?;
/// assert_eq!(pool.free(), 0);
/// pool.spawn_n(|| ())?; // waits until one of them has ended
/// pool.wait_all()?;
/// assert_eq!((pool.running(), pool.free()), (0, 2));
/// slow.join()?;
/// assert_eq!(quick.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Pool")]
#[derive(Clone)]
#[doc(alias = "CoroutinePool")]
pub struct GreenPool {
    shared: Rc<BiasedMutex<State>>,
}

#[derive(Debug)]
struct State {
    size: usize,
    /// The number of permits in use: by workers, and by spawners that are about to spawn.
    taken: usize,
    /// The workers, in slots that are reused.
    workers: Vec<Option<Worker>>,
    free_slots: Vec<usize>,
    next_serial: u64,
    spawners: WaitQueue,
    all: WaitQueue,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Worker {
    greenlet: GreenletId,
    serial: u64,
}

impl State {
    /// Grants free permits to spawners. Wakes the joiners if no permit is in use.
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

    fn is_worker(&self, greenlet: GreenletId) -> bool {
        self.workers.iter().flatten().any(|worker| worker.greenlet == greenlet)
    }
}

/// The wait for a permit.
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

/// The wait until all green threads have ended.
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

/// A permit of the pool, released when dropped.
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

/// The place for the work of a spawn.
pub(crate) enum Admission {
    /// In a green thread of its own.
    Permit(Permit),
    /// In the caller, which is a worker of a full pool.
    InPlace,
}

impl Admission {
    /// Spawns `f`. `spawned_at` is the location in the code of the pool's user. A call in place has no name.
    pub(crate) fn spawn<T: 'static>(
        self,
        spawned_at: &'static Location<'static>,
        name: Option<&str>,
        f: impl FnOnce() -> T + 'static,
    ) -> GreenThread<T> {
        match self {
            Admission::InPlace => hub_core::internal::run_in_place_at(spawned_at, f),
            Admission::Permit(mut permit) => {
                let (pool, slot, serial) = permit.take_slot();
                let green = hub_core::internal::spawn_named_at(spawned_at, name, move || {
                    // Released after the captures of `f` are dropped.
                    let _permit = permit;
                    f()
                });
                // A refused green thread has dropped its permit.
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
    /// Creates a pool in which at most `size` green threads run at once. Does not switch.
    ///
    /// In a pool of size zero nothing runs until it is [resized](GreenPool::resize).
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

    /// Runs `f` in a green thread of the pool, like [`thread::spawn`](crate::thread::spawn). Switches if the pool is
    /// full.
    ///
    /// It waits while the pool is full. Spawners are served in FIFO order.
    ///
    /// A green thread of the pool that finds it full runs `f` itself, at once, because it would wait for itself. A
    /// panic of `f` goes to the handle as usual. It runs on the stack of the caller: for deeply nested spawns set a
    /// [larger stack](hub_core::set_default_stack_size), or bound the depth.
    ///
    /// The permit is released when `f` has returned or was unwound, or was dropped before it began. A caller that an
    /// exit unwinds from the wait takes no permit.
    ///
    /// ```
    /// let pool = greenhub::GreenPool::new(10);
    /// let green = pool.spawn(|| "result")?;
    /// assert_eq!(green.join()?, "result");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the pool is full and the caller cannot wait: in the main loop, while panicking, after the
    /// end of its OS thread; the errors that the main loop sends to the main greenlet.
    #[track_caller]
    #[doc(alias = "apply_async")]
    pub fn spawn<F, T>(&self, f: F) -> Result<GreenThread<T>, LoopError>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let spawned_at = Location::caller();
        Ok(self.admit()?.spawn(spawned_at, None, f))
    }

    /// Like [`spawn`](GreenPool::spawn), without a handle: a failure is reported. Switches if the pool is full.
    ///
    /// ```
    /// let pool = greenhub::GreenPool::new(10);
    /// pool.spawn_n(|| ())?;
    /// pool.wait_all()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Like [`spawn`](GreenPool::spawn).
    #[track_caller]
    pub fn spawn_n<F, T>(&self, f: F) -> Result<(), LoopError>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.spawn(f).map(drop)
    }

    /// Waits until no green thread of the pool runs, Eventlet's `waitall`. Switches, unless none runs.
    ///
    /// ```
    /// use greenhub::{GreenError, GreenPool};
    /// let pool = GreenPool::new(2);
    /// let own = pool.clone();
    /// let inside = pool.spawn(move || own.wait_all())?;
    /// pool.wait_all()?;
    /// assert!(matches!(inside.join()?, Err(GreenError::Deadlock)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`GreenError::Deadlock`] in a green thread of the pool, which would wait for its own end. Returns
    /// [`GreenError::Loop`] if the caller cannot wait.
    #[doc(alias = "join")]
    #[doc(alias = "joinall")]
    #[doc(alias = "waitall")]
    pub fn wait_all(&self) -> Result<(), GreenError> {
        self.wait_within(&mut Deadline::none()).map(drop)
    }

    /// Waits for the ends of all. Returns false at the deadline.
    fn wait_within(&self, deadline: &mut Deadline) -> Result<bool, GreenError> {
        let me = hub_core::current_id();
        let ended = PoolJoinWait::wait(&self.shared, deadline, (), |state, _| {
            if state.is_worker(me) {
                Ok(Err(GreenError::Deadlock))
            } else if state.taken == 0 {
                Ok(Ok(()))
            } else {
                Err(())
            }
        });
        match ended {
            Ok(ended) => ended.map(|()| true),
            Err(Unserved::TimedOut(())) => Ok(false),
            Err(Unserved::Failed(error, _)) => Err(error.into()),
        }
    }

    /// Kills every green thread of the pool: each exits when it runs next. Never switches by itself.
    ///
    /// Eventlet's `killall`, for sets of green threads. A green thread that has not begun never begins. Spawners that
    /// wait for a permit get one. [`wait_all`](GreenPool::wait_all) waits for the ends. A green thread of the pool that
    /// calls this exits too, at its next wait.
    ///
    /// ```
    /// use std::time::Duration;
    /// let pool = greenhub::GreenPool::new(10);
    /// let green = pool.spawn(|| greenhub::thread::sleep(Duration::from_secs(3600)))?;
    /// pool.kill_all();
    /// pool.wait_all()?;
    /// assert!(green.join().unwrap_err().is_kill());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "killall")]
    pub fn kill_all(&self) {
        let workers: Vec<_> = self.lock().workers.iter().copied().enumerate().collect();
        for (slot, worker) in workers {
            // The values that an earlier kill dropped may have run other green threads, so this worker may be gone.
            let still = self.lock().workers[slot];
            if let Some(worker) = worker.filter(|worker| still == Some(*worker)) {
                hub_core::internal::request_exit(worker.greenlet);
            }
        }
    }

    /// Kills all like [`kill_all`](GreenPool::kill_all), and waits for at most `timeout`. Returns how many are left.
    /// Switches, unless none runs.
    ///
    /// A limit that was reached is no error here: the result says how many are left. It returns early if all that are
    /// left [refuse](hub_core::KillOutcome::Refused) the kill: those live on. Others that are left end later: they are
    /// in a [`shield`](hub_core::shield()), or in a wait that must not be left early.
    ///
    /// ```
    /// use std::time::Duration;
    /// let pool = greenhub::GreenPool::new(10);
    /// pool.spawn_n(|| greenhub::thread::sleep(Duration::from_secs(3600)))?;
    /// assert_eq!(pool.kill_all_timeout(Duration::from_secs(1))?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Like [`wait_all`](GreenPool::wait_all).
    pub fn kill_all_timeout(&self, timeout: Duration) -> Result<usize, GreenError> {
        self.kill_all();
        let left = || self.lock().workers.iter().flatten().map(|worker| worker.greenlet).collect();
        wait_for_killed(timeout, left, |deadline| self.wait_within(deadline))
    }

    /// Changes how many green threads may run at once, Eventlet's `resize`. Does not switch.
    ///
    /// It kills none: after shrinking, released permits are withheld until few enough run. Growing grants permits to
    /// waiting spawners.
    ///
    /// ```
    /// let pool = greenhub::GreenPool::new(1);
    /// pool.resize(3);
    /// assert_eq!((pool.size(), pool.free()), (3, 3));
    /// ```
    pub fn resize(&self, size: usize) {
        let mut state = self.lock();
        state.size = size;
        state.settle();
    }

    /// Returns how many green threads may run at once.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lock().size
    }

    /// Returns how many green threads run, begun or not. Eventlet's `running`.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lock().taken
    }

    /// Returns how many more green threads may run, Eventlet's `free`.
    ///
    /// It is negative while too many run after a [`resize`](GreenPool::resize).
    ///
    /// ```
    /// let pool = greenhub::GreenPool::new(2);
    /// pool.spawn_n(|| ())?;
    /// pool.spawn_n(|| ())?;
    /// pool.resize(1);
    /// assert_eq!(pool.free(), -1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn free(&self) -> isize {
        let state = self.lock();
        difference(state.size, state.taken)
    }

    /// Returns the number of spawners that wait for a permit, Eventlet's `waiting`.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().spawners.len()
    }

    /// Returns true if the running green thread belongs to the pool.
    #[must_use]
    pub fn contains_current(&self) -> bool {
        self.lock().is_worker(hub_core::current_id())
    }

    /// Maps the items of `source` in green threads of the pool, Eventlet's `imap`. Never switches: the iterator does.
    ///
    /// The results come in the order of the items. Eventlet's `starmap` is this with an `f` that takes a tuple, and
    /// several sources are `zip`ped.
    ///
    /// The iterator reads `source` itself, when its next result is asked for, and only as far ahead as the pool is
    /// large and has permits. Results wait in the iterator for earlier results. A panic of `f` is the result of its
    /// item, and the following items go on. A panic of `source` is propagated. Dropping the iterator leaves running
    /// green threads alone.
    ///
    /// ```
    /// let pool = greenhub::GreenPool::new(3);
    /// let sums = pool.imap((1..).zip([10, 20, 30]), |(a, b)| a + b);
    /// assert_eq!(sums.collect::<Result<Vec<_>, _>>()?, [11, 22, 33]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "map")]
    #[doc(alias = "starmap")]
    #[doc(alias = "imap_unordered")]
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

    /// Waits for a permit, or lets a worker run in place. Switches if the pool is full.
    pub(crate) fn admit(&self) -> Result<Admission, LoopError> {
        let me = hub_core::current_id();
        let admitted = PermitWait::wait(&self.shared, &mut Deadline::none(), (), |state, ungranted| match ungranted {
            Some(()) if state.taken < state.size => {
                state.taken += 1;
                Ok(true)
            }
            Some(()) if state.is_worker(me) => Ok(false),
            Some(()) => Err(()),
            // A granted spawner has its permit.
            None => Ok(true),
        });
        match admitted {
            Ok(true) => Ok(self.permit()),
            Ok(false) | Err(Unserved::TimedOut(())) => Ok(Admission::InPlace),
            Err(Unserved::Failed(error, _)) => Err(error),
        }
    }

    /// Takes a permit if one is free. Does not switch.
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
        // The formatter is user code and may switch: hold no lock while calling it.
        drop(state);
        f.debug_struct("GreenPool").field("size", &size).field("running", &running).field("waiting", &waiting).finish()
    }
}
