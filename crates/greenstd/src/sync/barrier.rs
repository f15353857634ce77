//! std's `Barrier`.

use std::fmt;

use hub_core::{BiasedMutex, Doing};

use super::attempt::until;
use super::line::{Line, Wait};

/// std's `Barrier`, for green threads of one or more hubs and for plain OS threads.
///
/// One that is killed or timed out while it waits takes its arrival back: the others wait for one more.
///
/// ```
/// # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hub-core/tests/support/doctest.rs")); }
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
    arrived: BiasedMutex<Arrived>,
    count: usize,
}

struct Arrived {
    waiting: Line,
    /// How often the barrier has opened.
    opened: u64,
}

/// For as many as are missing.
struct Others;

impl Wait for Others {
    type State = Arrived;
    type Brought = ();

    const DOING: Doing = Doing::Barrier;

    fn line(arrived: &mut Arrived) -> &mut Line {
        &mut arrived.waiting
    }

    fn pass_on(_: &mut Arrived) {
        // Who was let through and called away from the wait sees it by `opened`.
    }
}

impl Barrier {
    /// A barrier for `count` green threads or OS threads at a time; 0 is as 1.
    #[must_use]
    pub const fn new(count: usize) -> Barrier {
        Barrier { arrived: BiasedMutex::new(Arrived { waiting: Line::new(), opened: 0 }), count }
    }

    /// Waits until so many wait that it opens, which the last one does for all. Switches if it has to wait.
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn wait(&self) -> BarrierWaitResult {
        // While panicking one does not wait in the line, and so is not counted.
        let counted = !std::thread::panicking();
        let mut before = None;
        BarrierWaitResult(until::<Others, _>(&self.arrived, |arrived, chosen| {
            let before = *before.get_or_insert(arrived.opened);
            if chosen || counted && arrived.opened != before {
                return Some(false);
            }
            let last = arrived.waiting.len() + 1 >= self.count;
            last.then(|| {
                arrived.opened += 1;
                arrived.waiting.choose_all();
                true
            })
        }))
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
