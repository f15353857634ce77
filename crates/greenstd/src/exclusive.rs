//! Open file descriptions whose blocking mode only this process controls.
//!
//! `O_NONBLOCK` belongs to the open file description, which clones and other processes share. A description that was
//! created here is non-blocking until one of its descriptors is given away; from then on other processes may make it
//! block. An operation that relies on the mode therefore holds [`Entered`]. A descriptor is given away only when no
//! operation of another OS thread holds it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Shared by all handles of a description. A default value belongs to a description that no other process has.
#[derive(Default)]
pub(crate) struct Exclusive(AtomicU32);

const SHARED: u32 = 1;
/// One operation under way; the bits above `SHARED` count the operations.
const ENTERED: u32 = 2;

/// The longest time to wait for an operation of another OS thread, which itself never waits. In a forked child an
/// operation that the parent had begun never ends.
const LONGEST: Duration = Duration::from_secs(5);

impl Exclusive {
    /// Creates the value of a description that other processes may have.
    pub(crate) fn shared() -> Exclusive {
        Exclusive(AtomicU32::new(SHARED))
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.0.load(Ordering::SeqCst) & SHARED != 0
    }

    /// Keeps the description non-blocking for one operation, which must not switch. `None` if the description is
    /// shared.
    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        let state = self.0.fetch_add(ENTERED, Ordering::SeqCst);
        let entered = Entered(self);
        (state & SHARED == 0).then_some(entered)
    }

    /// Marks the description as shared, and waits for the operations of other OS threads that hold [`Entered`].
    pub(crate) fn share(&self) {
        if self.0.fetch_or(SHARED, Ordering::SeqCst) & SHARED != 0 {
            return;
        }
        let begun = Instant::now();
        while self.0.load(Ordering::SeqCst) >= ENTERED && begun.elapsed() < LONGEST {
            thread::yield_now();
        }
    }
}

/// An operation that relies on the non-blocking mode: see [`Exclusive::enter`].
pub(crate) struct Entered<'a>(&'a Exclusive);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(ENTERED, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn sharing_waits_for_operations_of_other_threads() {
        let exclusive = Exclusive::default();
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let entered = exclusive.enter().expect("the description is not shared");
            let sharer = scope.spawn(|| {
                exclusive.share();
                assert!(ended.load(Ordering::SeqCst));
            });
            while !exclusive.is_shared() {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(5));
            ended.store(true, Ordering::SeqCst);
            drop(entered);
            sharer.join().expect("the operation has ended");
        });
        assert!(exclusive.enter().is_none());
    }
}
