//! Open file descriptions whose blocking mode only this process decides about.
//!
//! `O_NONBLOCK` belongs to the open file description, which clones and other processes share. A description that was
//! made here is non-blocking until one of its descriptors is given away; from then on others may make it block. An
//! operation that relies on the mode therefore holds [`Entered`], and the descriptor is given away only when no
//! operation of another OS thread does.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Shared by all handles of a description. At first no other process has it.
#[derive(Default)]
pub(crate) struct Exclusive(AtomicU32);

const SHARED: u32 = 1;
/// One operation under way; the rest of the word counts them.
const ENTERED: u32 = 2;

/// How long an operation that does not wait may take on another OS thread. In a forked child such an operation of the
/// parent never ends.
const LONGEST: Duration = Duration::from_secs(5);

impl Exclusive {
    /// Of a description that others may have.
    pub(crate) fn shared() -> Exclusive {
        Exclusive(AtomicU32::new(SHARED))
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.0.load(Ordering::SeqCst) & SHARED != 0
    }

    /// Keeps the description non-blocking for one operation, which must not switch. `None` if it is shared.
    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        let state = self.0.fetch_add(ENTERED, Ordering::SeqCst);
        let entered = Entered(self);
        (state & SHARED == 0).then_some(entered)
    }

    /// Marks the description as shared, and waits for the operations of other OS threads that have entered.
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

/// See [`Exclusive::enter`].
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
            let entered = exclusive.enter().expect("not shared");
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
            sharer.join().expect("the operation had ended");
        });
        assert!(exclusive.enter().is_none());
    }
}
