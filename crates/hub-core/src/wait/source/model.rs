//! The interleavings of operations, closes and moves of a source, by loom: `RUSTFLAGS="--cfg loom" cargo test -p
//! hub-core --release --lib model`.
//!
//! Ground rule: the number is used during an [`Entered`] only, or while it is lent, and closed where the word says so.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::home::{Home, Mover, Resident};
use super::word::{Entered, Numbered, Word};

/// A number by which loom finds a close during a use. It counts its closes.
struct Number {
    word: Word,
    closes: UnsafeCell<u32>,
}

// SAFETY: loom's cell reports two threads that use it at once.
unsafe impl Sync for Number {}
// SAFETY: as above.
unsafe impl Send for Number {}

// SAFETY: a number has one word, and counts a close instead of closing anything.
unsafe impl Numbered for Number {
    fn word(&self) -> &Word {
        &self.word
    }

    unsafe fn close_number(&self) {
        self.count_close();
    }

    fn left_to(&self, _: u64) {}
}

// SAFETY: both methods are those of the shared number.
unsafe impl Numbered for Arc<Number> {
    fn word(&self) -> &Word {
        &self.word
    }

    unsafe fn close_number(&self) {
        self.count_close();
    }

    fn left_to(&self, _: u64) {}
}

impl Number {
    fn new() -> Arc<Number> {
        Arc::new(Number { word: Word::new(), closes: UnsafeCell::new(0) })
    }

    /// Performs an operation, which needs the open number.
    fn operate(&self) {
        if let Ok(_entered) = Entered::open(self) {
            self.check_open();
        }
    }

    fn check_open(&self) {
        // SAFETY: loom reports a close at the same time.
        self.closes.with(|closes| assert_eq!(unsafe { *closes }, 0, "used after its close"));
    }

    fn count_close(&self) {
        // SAFETY: loom reports a use at the same time.
        self.closes.with_mut(|closes| unsafe { *closes += 1 });
    }

    fn close(&self) {
        if let Some(_entered) = Entered::unless_gone(self) {
            self.word.close();
        }
    }

    /// Returns the number of closes, when no thread uses the descriptor number any more.
    fn closes(&self) -> u32 {
        // SAFETY: the other threads have ended.
        self.closes.with(|closes| unsafe { *closes })
    }
}

fn spawn(number: &Arc<Number>, run: impl FnOnce(&Number) + 'static) -> thread::JoinHandle<()> {
    let number = Arc::clone(number);
    thread::spawn(move || run(&number))
}

#[test]
fn a_number_is_closed_once_and_during_no_operation() {
    loom::model(|| {
        let number = Number::new();
        let others = [spawn(&number, Number::operate), spawn(&number, Number::close)];
        number.operate();
        number.close();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(number.closes(), 1);
    });
}

#[test]
fn a_lent_number_is_closed_after_it_is_taken_back() {
    loom::model(|| {
        let number = Number::new();
        let other = spawn(&number, Number::close);
        if Entered::open(&*number).and_then(|entered| entered.lend()).is_ok() {
            number.check_open();
        }
        // SAFETY: nothing uses the lent number after this.
        unsafe { number.word.take_back() };
        number.close();
        other.join().unwrap();
        assert_eq!(number.closes(), 1);
    });
}

#[test]
fn a_number_is_taken_during_no_other_operation() {
    loom::model(|| {
        let number = Number::new();
        // A request for another thread, in progress.
        let request = Entered::unless_gone(Arc::clone(&number)).expect("the number is open");
        let other = thread::spawn(move || {
            request.source().check_open();
            drop(request);
        });
        let entered = Entered::unless_gone(&*number).expect("the number is open");
        // SAFETY: the source was open until now, and nothing has borrowed the number.
        if unsafe { entered.claim_alone() } {
            // The caller may close what it has taken.
            number.count_close();
        } else {
            number.word.close();
        }
        drop(entered);
        other.join().unwrap();
        assert_eq!(number.closes(), 1);
    });
}

/// An OS thread with a hub.
struct Here;

impl Resident for Here {
    fn is_gone(&self) -> bool {
        false
    }

    fn is_left_behind(&self) -> bool {
        false
    }
}

/// Waits at `hub` for as long as `park` runs, unless the source waits elsewhere.
fn wait(home: &Home<Here>, hub: u64, here: &std::sync::Arc<Here>, park: impl FnOnce()) {
    let mut waiting = home.count();
    let here = std::sync::Arc::clone(here);
    if home.hub() == hub || home.move_to(hub, here, Mover::Greenlet, waiting.era()).is_ok() {
        park();
    }
}

#[test]
fn a_source_waits_at_one_hub_at_a_time() {
    loom::model(|| {
        let source = Arc::new((Home::new(), AtomicU32::new(0)));
        let wait_at = |hub: u64, source: &(Home<Here>, AtomicU32)| {
            let here = std::sync::Arc::new(Here);
            for _ in 0..2 {
                wait(&source.0, hub, &here, || {
                    assert_eq!(source.1.fetch_add(1, Ordering::Relaxed), 0, "two hubs at once");
                    source.1.fetch_sub(1, Ordering::Relaxed);
                });
            }
        };
        let shared = Arc::clone(&source);
        let other = thread::spawn(move || wait_at(2, &shared));
        wait_at(1, &source);
        other.join().unwrap();
    });
}

#[test]
fn a_close_is_seen_by_a_waiter_or_by_its_hub() {
    loom::model(|| {
        let source = Arc::new((Home::<Here>::new(), Word::new()));
        let shared = Arc::clone(&source);
        let closer = thread::spawn(move || {
            shared.1.close();
            shared.0.hub() != 0
        });
        let mut parks = false;
        wait(&source.0, 1, &std::sync::Arc::new(Here), || parks = !source.1.is_closed());
        let is_notified = closer.join().unwrap();
        assert!(!parks || is_notified, "parked on a closed source");
    });
}
