//! The interleavings of waiters and unparkers, by loom: `RUSTFLAGS="--cfg loom" cargo test -p hub-core --release --lib
//! model`.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use super::{PLAIN, Plain, Threads, WaitId};
use crate::base::dormant::Sleep;
use crate::main_loop::deadline::Deadline;
use crate::main_loop::parked::Parked;

/// Returns an OS thread that waits as a whole, entered under the number 1.
fn waiter(threads: &Threads) -> Arc<Plain> {
    let plain = Arc::new(Plain::default());
    threads.register(1, |reach| reach.plain = Some(Arc::clone(&plain)));
    plain
}

fn wait(ticket: u64) -> WaitId {
    WaitId { thread: 1, greenlet: PLAIN, ticket }
}

/// The core of a primitive: an item and its waiter.
#[derive(Default)]
struct Shelf {
    available: bool,
    waiting: Option<WaitId>,
}

impl Shelf {
    /// Puts an item, and wakes the waiter.
    fn put(shelf: &Mutex<Shelf>, threads: &Threads) {
        let mut shelf = shelf.lock().unwrap();
        shelf.available = true;
        if let Some(waiting) = shelf.waiting.take() {
            threads.unpark(waiting);
        }
    }

    /// Waits for an item and takes it. A lost wake-up is a deadlock.
    fn take(shelf: &Mutex<Shelf>, plain: &Plain) {
        loop {
            let mut guard = shelf.lock().unwrap();
            if std::mem::take(&mut guard.available) {
                return;
            }
            let ticket = plain.begin();
            guard.waiting = Some(wait(ticket));
            drop(guard);
            assert_eq!(plain.park(ticket, &mut Deadline::none()), Parked::Unparked);
        }
    }
}

#[test]
fn a_put_during_the_start_of_a_wait_wakes_the_waiter() {
    loom::model(|| {
        let shared = Arc::new((Mutex::new(Shelf::default()), Threads::default()));
        let plain = waiter(&shared.1);
        let putter = Arc::clone(&shared);
        let putter = thread::spawn(move || Shelf::put(&putter.0, &putter.1));
        Shelf::take(&shared.0, &plain);
        putter.join().unwrap();
    });
}

#[test]
fn an_unparker_ends_its_own_wait_and_no_later_one() {
    loom::model(|| {
        let threads = Arc::new(Threads::default());
        let plain = waiter(&threads);
        let first = plain.begin();
        let others = Arc::clone(&threads);
        let others = thread::spawn(move || {
            others.unpark(wait(first));
            others.unpark(wait(first));
        });
        plain.park(first, &mut Deadline::none());
        let second = plain.begin();
        others.join().unwrap();
        assert!(plain.lasts(second), "ended by an unparker of the first");
        threads.unpark(wait(second));
        plain.park(second, &mut Deadline::none());
    });
}

#[test]
fn two_unparks_end_a_wait_once() {
    loom::model(|| {
        let threads = Arc::new(Threads::default());
        let plain = waiter(&threads);
        let ticket = plain.begin();
        let both = [(); 2].map(|()| {
            let threads = Arc::clone(&threads);
            thread::spawn(move || threads.unpark(wait(ticket)))
        });
        plain.park(ticket, &mut Deadline::none());
        both.into_iter().for_each(|one| _ = one.join().unwrap());
        assert_eq!(plain.begin(), ticket + 2, "ended twice");
    });
}

#[test]
fn an_ending_thread_is_unparked_or_not_found() {
    loom::model(|| {
        let threads = Arc::new(Threads::default());
        let ticket = waiter(&threads).begin();
        let other = Arc::clone(&threads);
        let other = thread::spawn(move || other.unpark(wait(ticket)));
        threads.forget(1);
        other.join().unwrap();
    });
}
