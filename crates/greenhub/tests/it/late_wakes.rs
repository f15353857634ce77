//! An OS thread that waits for a primitive is woken when the lock of the primitive is free.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::support::bare_hub::{Bare, Counts};
use crate::support::{alone, run};
use greenhub::park::BiasedMutex;
use greenhub::sync::{Event, Queue};
use greenhub::{spawn, use_hub_with};

const SHORT: Duration = Duration::from_millis(20);

/// Makes this OS thread use a hub without descriptors, whose notifier calls `uses`.
fn use_bare_hub(counts: &Arc<Counts>, uses: impl Fn() + Send + Sync + 'static) {
    let counts = Arc::clone(counts);
    use_hub_with(move || Ok(Bare::using(&counts, uses))).unwrap();
}

#[test]
fn the_notifier_of_a_waiters_hub_may_use_the_queue_that_it_waits_for() {
    run("the_notifier_of_a_waiters_hub_may_use_the_queue_that_it_waits_for", || {
        let queue = Arc::new(Queue::new());
        let (lengths, seen) = mpsc::sync_channel(8);
        let used = Arc::clone(&queue);
        let counts = Arc::default();
        use_bare_hub(&counts, move || lengths.send(used.len()).unwrap());
        let items = Arc::clone(&queue);
        let waiter = spawn(move || items.get().expect("an item"));
        let other = std::thread::spawn(move || {
            counts.until_waits(1);
            queue.put(7).expect("the queue has room");
        });
        assert_eq!(waiter.join().unwrap(), 7);
        other.join().unwrap();
        assert!(seen.try_recv().is_ok(), "the notifier was not called");
    });
}

#[test]
fn the_notifiers_of_several_waiters_may_use_the_event_that_they_wait_for() {
    run("the_notifiers_of_several_waiters_may_use_the_event_that_they_wait_for", || {
        let (event, counts) = (Arc::new(Event::new()), Arc::<Counts>::default());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (event, counts) = (Arc::clone(&event), Arc::clone(&counts));
                std::thread::spawn(move || {
                    let used = Arc::clone(&event);
                    use_bare_hub(&counts, move || assert!(used.ready()));
                    spawn(move || event.wait()).join().unwrap().unwrap();
                })
            })
            .collect();
        counts.until_waits(3);
        event.send(()).unwrap();
        waiting.into_iter().for_each(|one| one.join().unwrap());
        assert_eq!(counts.called.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn a_notifier_that_panics_is_reported_and_holds_no_other_wake_up_back() {
    alone("a_notifier_that_panics_is_reported_and_holds_no_other_wake_up_back", || {
        let (event, counts) = (Arc::new(Event::new()), Arc::<Counts>::default());
        let panics = Arc::new(AtomicBool::new(false));
        let waiting: Vec<_> = [false, true]
            .into_iter()
            .map(|is_first| {
                let (event, panics, counts) = (Arc::clone(&event), Arc::clone(&panics), Arc::clone(&counts));
                std::thread::spawn(move || {
                    if is_first {
                        use_bare_hub(&counts, move || assert!(!panics.load(Ordering::SeqCst), "as the test demands"));
                    }
                    // The first one is not woken by its notifier.
                    let waited = move || event.wait_timeout(10 * SHORT).is_ok() || is_first;
                    assert!(spawn(waited).join().unwrap());
                })
            })
            .collect();
        counts.until_waits(1);
        // The other OS thread has no such hub.
        std::thread::sleep(SHORT);
        panics.store(true, Ordering::SeqCst);
        event.send(()).unwrap();
        panics.store(false, Ordering::SeqCst);
        waiting.into_iter().for_each(|one| one.join().unwrap());
    });
}

#[test]
fn a_lock_that_is_never_released_holds_no_wake_up_back() {
    run("a_lock_that_is_never_released_holds_no_wake_up_back", || {
        let (event, answer) = (Arc::new(Event::new()), Arc::new(Event::new()));
        let (set, answered) = (Arc::clone(&event), Arc::clone(&answer));
        let other = std::thread::spawn(move || {
            let lock = Arc::new(BiasedMutex::new(()));
            let shared = Arc::clone(&lock);
            std::thread::spawn(move || drop(shared.lock())).join().unwrap();
            std::mem::forget(lock.lock());
            set.send(()).unwrap();
            answered.wait().unwrap();
        });
        spawn(move || event.wait()).join().unwrap().unwrap();
        answer.send(()).unwrap();
        other.join().unwrap();
    });
}

#[test]
fn one_call_wakes_the_waiters_of_several_threads() {
    run("one_call_wakes_the_waiters_of_several_threads", || {
        let event = Arc::new(Event::new());
        let waiting: Vec<_> = (0..4)
            .map(|number| {
                let event = Arc::clone(&event);
                // Two OS threads wait in green threads, and two as a whole.
                std::thread::spawn(move || match number % 2 {
                    0 => spawn(move || event.wait()).join().unwrap().unwrap(),
                    _ => event.wait().unwrap(),
                })
            })
            .collect();
        std::thread::sleep(SHORT);
        event.send(()).unwrap();
        waiting.into_iter().for_each(|one| one.join().unwrap());
    });
}
