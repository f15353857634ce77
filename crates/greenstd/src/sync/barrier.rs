//! std's `Barrier`.

use std::fmt;

use hub_core::{BiasedMutex, WaitReason};

use super::attempt::until;
use super::line::{Line, Wait};

/// std's `Barrier`, for green threads of one or more hubs and for plain OS threads.
///
/// One that is killed or timed out while it waits takes its arrival back: the others wait for one more.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # doctest::run(|| {
/// use greenstd::{sync::{Arc, Barrier}, thread};
/// let barrier = Arc::new(Barrier::new(2));
/// let other = Arc::clone(&barrier);
/// let other = thread::spawn(move || other.wait().is_leader());
/// let leads = barrier.wait().is_leader();
/// assert_ne!(other.join()?, leads);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Barrier {
    /// Those who have arrived, but for the last.
    waiting: BiasedMutex<Line>,
    count: usize,
}

/// For as many as are missing.
struct Others;

impl Wait for Others {
    type State = Line;
    type Brought = ();

    const DOING: WaitReason = WaitReason::Barrier;
    const FOR_ALL: bool = true;

    fn line(waiting: &mut Line) -> &mut Line {
        waiting
    }

    fn pass_on(_: &mut Line) {}
}

impl Barrier {
    /// A barrier for `count` green threads or OS threads at a time; 0 is as 1.
    #[must_use]
    pub const fn new(count: usize) -> Barrier {
        Barrier { waiting: BiasedMutex::new(Line::new()), count }
    }

    /// Waits until so many wait that it opens, which the last one does for all. Switches if it has to wait.
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn wait(&self) -> BarrierWaitResult {
        let arrive = |waiting: &mut Line, chosen: bool| {
            let opens = !chosen && waiting.len() + 1 >= self.count;
            if opens {
                waiting.choose_all();
            }
            (chosen || opens).then_some(opens)
        };
        let missing = |waiting: &Line| format!("a barrier while panicking: {} others have arrived", waiting.len());
        BarrierWaitResult(until::<Others, _>(&self.waiting, arrive, missing))
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}

/// Whether a wait has opened the [`Barrier`], std's `BarrierWaitResult`.
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// True for one of those whom the barrier let through together.
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
