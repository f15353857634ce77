//! std's `Barrier`.

use std::fmt;

use hub_core::{BiasedMutex, WaitReason};

use super::wait_infallible::until;
use super::wait_queue::{Wait, WaitQueue};

/// Lets several threads synchronize the beginning of a computation. std's `Barrier`.
///
/// It serves green threads of one or more hubs and plain OS threads. A waiter that an exit unwinds takes its arrival
/// back: the others wait for one more.
///
/// ```
/// use greenhub::thread;
/// use greenhub::sync::{Arc, Barrier};
/// let barrier = Arc::new(Barrier::new(2));
/// let other = Arc::clone(&barrier);
/// let other = thread::spawn(move || other.wait().is_leader());
/// let leads = barrier.wait().is_leader();
/// assert_ne!(other.join()?, leads);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Barrier {
    /// All arrivals but the last.
    waiting: BiasedMutex<WaitQueue>,
    count: usize,
}

/// The wait for the missing arrivals.
struct BarrierWait;

impl Wait for BarrierWait {
    type State = WaitQueue;
    type Payload = ();

    const REASON: WaitReason = WaitReason::Barrier;
    const GRANTS_ALL: bool = true;

    fn queue(waiting: &mut WaitQueue) -> &mut WaitQueue {
        waiting
    }

    fn regrant(_: &mut WaitQueue) {}
}

impl Barrier {
    /// Creates a new barrier that can block a given number of threads. A count of 0 is like 1.
    #[must_use]
    pub const fn new(count: usize) -> Barrier {
        Barrier { waiting: BiasedMutex::new(WaitQueue::new()), count }
    }

    /// Waits until `count` threads have arrived here. Switches if it has to wait.
    ///
    /// The last arrival opens the barrier for all.
    ///
    /// # Panics
    ///
    /// Like [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn wait(&self) -> BarrierWaitResult {
        let arrive = |waiting: &mut WaitQueue, granted: bool| {
            let opens = !granted && waiting.len() + 1 >= self.count;
            if opens {
                waiting.grant_all();
            }
            (granted || opens).then_some(opens)
        };
        let missing = |waiting: &WaitQueue| format!("a barrier while panicking: {} others have arrived", waiting.len());
        BarrierWaitResult(until::<BarrierWait, _>(&self.waiting, arrive, missing))
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}

/// Tells whether a wait was the leader of its [`Barrier`], std's `BarrierWaitResult`.
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// Returns `true` for exactly one of the threads that the barrier lets through.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl fmt::Debug for BarrierWaitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierWaitResult").field("is_leader", &self.0).finish()
    }
}
