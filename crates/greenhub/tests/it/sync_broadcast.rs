//! `sync::broadcast`: every receiver gets every value, or learns how many it has missed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::green::{Drops, LONG, quiet_panic};
use crate::support::run;
use greenhub::spawn;
use greenhub::sync::broadcast::{Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError, channel};
use greenhub::thread::yield_now;

/// Receives all values that are there, and counts the missed ones as negative numbers.
fn received(receiver: &mut Receiver<i64>) -> Vec<i64> {
    std::iter::from_fn(|| match receiver.try_recv() {
        Ok(value) => Some(value),
        Err(TryRecvError::Lagged(missed)) => Some(-(missed as i64)),
        Err(_) => None,
    })
    .collect()
}

#[test]
fn every_receiver_gets_every_value_in_order() {
    run("every_receiver_gets_every_value_in_order", || {
        let (sender, first) = channel(8);
        let greens = [first, sender.subscribe(), sender.subscribe()].map(|mut receiver| {
            spawn(move || {
                let mut got = Vec::new();
                while let Ok(value) = receiver.recv() {
                    got.push(value);
                }
                got
            })
        });
        for n in 1..=20 {
            assert_eq!(sender.send(n).unwrap(), 3);
            if n % 5 == 0 {
                yield_now();
            }
        }
        drop(sender);
        for green in greens {
            assert_eq!(green.join().unwrap(), (1..=20).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_receiver_that_lags_learns_how_many_it_missed_and_loses_no_more() {
    let (sender, mut receiver) = channel(3);
    for n in 1..=10 {
        sender.send(n).unwrap();
    }
    assert_eq!(receiver.len(), 10);
    assert_eq!(received(&mut receiver), [-7, 8, 9, 10]);
    for n in 11..=13 {
        sender.send(n).unwrap();
    }
    assert_eq!(received(&mut receiver), [11, 12, 13]);
}

#[test]
fn a_receiver_that_lags_again_before_its_next_call_learns_the_rest() {
    let (sender, mut receiver) = channel(2);
    (1..=5).for_each(|n| _ = sender.send(n).unwrap());
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Lagged(3)));
    sender.send(6).unwrap();
    assert_eq!(received(&mut receiver), [-1, 5, 6]);
}

#[test]
fn every_receiver_has_its_own_lag() {
    let (sender, mut slow) = channel(2);
    let mut quick = sender.subscribe();
    for n in 1..=6 {
        sender.send(n).unwrap();
        assert_eq!(received(&mut quick), [n]);
    }
    let mut late = sender.subscribe();
    sender.send(7).unwrap();
    assert_eq!(received(&mut slow), [-5, 6, 7]);
    assert_eq!(received(&mut late), [7]);
    assert_eq!(received(&mut quick), [7]);
}

#[test]
fn the_ring_wraps_around_many_times() {
    let (sender, mut receiver) = channel(7);
    let mut lagging = sender.subscribe();
    for n in 0..10_000 {
        sender.send(n).unwrap();
        if n % 3 == 0 {
            assert_eq!(received(&mut receiver), ((n - 2).max(0)..=n).collect::<Vec<_>>());
        }
    }
    assert_eq!(received(&mut lagging), [-9_993, 9_993, 9_994, 9_995, 9_996, 9_997, 9_998, 9_999]);
}

#[test]
fn a_value_is_dropped_when_the_last_receiver_has_it() {
    run("a_value_is_dropped_when_the_last_receiver_has_it", || {
        let drops = Drops::default();
        let (sender, mut first) = channel(8);
        let mut second = sender.subscribe();
        let value = || Rc::new(drops.one());
        (0..3).for_each(|_| _ = sender.send(value()).unwrap());
        assert_eq!((sender.len(), sender.is_empty()), (3, false));
        drop(first.recv().unwrap());
        assert_eq!((drops.count(), sender.len()), (0, 3));
        drop(second.recv().unwrap());
        assert_eq!((drops.count(), sender.len()), (1, 2));
        // The first receiver alone has not received the two others.
        drop((second.recv().unwrap(), second.recv().unwrap()));
        assert_eq!((drops.count(), second.is_empty()), (1, true));
        drop(first);
        assert_eq!((drops.count(), sender.is_empty()), (3, true));
        sender.send(value()).unwrap();
        drop(second);
        assert_eq!(drops.count(), 4);
        assert!(sender.send(value()).is_err());
        assert_eq!(drops.count(), 5);
    });
}

#[test]
fn the_last_receiver_gets_the_value_itself() {
    #[derive(Debug)]
    struct Counted(Rc<Cell<usize>>);
    impl Clone for Counted {
        fn clone(&self) -> Counted {
            self.0.set(self.0.get() + 1);
            Counted(self.0.clone())
        }
    }
    let clones = Rc::new(Cell::new(0));
    let (sender, mut first) = channel(2);
    let mut second = sender.subscribe();
    sender.send(Counted(clones.clone())).unwrap();
    let _first = first.try_recv().unwrap();
    let _second = second.try_recv().unwrap();
    assert_eq!(clones.get(), 1);
}

#[test]
fn a_send_without_a_receiver_returns_the_value() {
    let (sender, receiver) = channel(2);
    assert_eq!(sender.receiver_count(), 1);
    drop(receiver);
    assert_eq!(sender.send(1).unwrap_err().0, 1);
    let mut late = sender.subscribe();
    assert_eq!(sender.send(2).unwrap(), 1);
    assert_eq!(received(&mut late), [2]);
}

#[test]
fn the_end_of_the_last_sender_comes_after_its_values() {
    run("the_end_of_the_last_sender_comes_after_its_values", || {
        let (sender, mut receiver) = channel(2);
        let other = sender.clone();
        sender.send(1).unwrap();
        drop(sender);
        other.send(2).unwrap();
        let mut late = receiver.resubscribe();
        let waits = spawn(move || late.recv());
        yield_now();
        drop(other);
        assert!(matches!(waits.join().unwrap(), Err(RecvError::Closed)));
        assert_eq!((receiver.recv().unwrap(), receiver.recv().unwrap()), (1, 2));
        assert!(matches!(receiver.recv(), Err(RecvError::Closed)));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
        assert!(matches!(receiver.recv_timeout(LONG), Err(RecvTimeoutError::Closed)));
        assert!(matches!(receiver.resubscribe().recv(), Err(RecvError::Closed)));
    });
}

#[test]
fn a_killed_receiver_needs_no_values_any_more() {
    run("a_killed_receiver_needs_no_values_any_more", || {
        let (sender, mut receiver) = channel(4);
        let killed = spawn(move || receiver.recv());
        let mut kept = sender.subscribe();
        yield_now();
        killed.kill();
        assert_eq!(sender.receiver_count(), 1);
        sender.send(1).unwrap();
        assert_eq!(received(&mut kept), [1]);
        assert!(sender.is_empty());
    });
}

#[test]
#[should_panic(expected = "a broadcast channel keeps at least one value")]
fn a_channel_without_capacity_is_refused() {
    let _ = channel::<u8>(0);
}

/// A value whose clone and destructor use its own channel, and switch.
struct Reentrant(Rc<RefCell<Option<Sender<Reentrant>>>>);

impl Reentrant {
    fn use_channel(&self) {
        let sender = self.0.borrow().clone();
        if let Some(sender) = sender {
            assert!(sender.len() <= 2);
            drop(sender.subscribe());
        }
        yield_now();
    }
}

impl Clone for Reentrant {
    fn clone(&self) -> Reentrant {
        self.use_channel();
        Reentrant(self.0.clone())
    }
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        self.use_channel();
    }
}

#[test]
fn the_clone_and_the_destructor_of_a_value_may_use_the_channel() {
    run("the_clone_and_the_destructor_of_a_value_may_use_the_channel", || {
        let own = Rc::default();
        let value = || Reentrant(Rc::clone(&own));
        let (sender, mut first) = channel(2);
        let second = sender.subscribe();
        *own.borrow_mut() = Some(sender.clone());
        for _ in 0..4 {
            assert!(sender.send(value()).is_ok());
        }
        assert!(matches!(first.try_recv(), Err(TryRecvError::Lagged(2))));
        assert!(first.try_recv().is_ok());
        drop(second);
        assert!(first.try_recv().is_ok());
        assert!(sender.send(value()).is_ok());
        own.take();
        drop(first);
        assert!(sender.is_empty());
    });
}

#[test]
fn a_clone_that_panics_takes_one_value_of_one_receiver() {
    run("a_clone_that_panics_takes_one_value_of_one_receiver", || {
        struct Fragile(Rc<Cell<bool>>, u8);
        impl Clone for Fragile {
            fn clone(&self) -> Fragile {
                if self.0.replace(false) {
                    quiet_panic("it breaks");
                }
                Fragile(self.0.clone(), self.1)
            }
        }
        let (sender, mut first) = channel(4);
        let mut second = sender.subscribe();
        let breaks = Rc::new(Cell::new(true));
        for n in 1..=2 {
            assert!(sender.send(Fragile(breaks.clone(), n)).is_ok());
        }
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| first.recv().map(|value| value.1)));
        assert!(caught.is_err());
        assert_eq!(first.recv().unwrap().1, 2);
        assert_eq!((second.recv().unwrap().1, second.recv().unwrap().1), (1, 2));
    });
}

#[test]
fn many_receivers_on_several_os_threads_get_all_values() {
    run("many_receivers_on_several_os_threads_get_all_values", || {
        const VALUES: usize = 200;
        let (sender, _receiver) = channel(VALUES);
        let sum = Arc::new(AtomicUsize::new(0));
        let others: Vec<_> = (0..3)
            .map(|_| {
                let (receivers, sum) = ((0..50).map(|_| sender.subscribe()).collect::<Vec<_>>(), sum.clone());
                std::thread::spawn(move || {
                    let count = |mut receiver: Receiver<usize>| {
                        let sum = sum.clone();
                        spawn(move || {
                            while let Ok(value) = receiver.recv() {
                                sum.fetch_add(value, SeqCst);
                            }
                        })
                    };
                    let greens: Vec<_> = receivers.into_iter().map(count).collect();
                    greens.into_iter().for_each(|green| green.join().unwrap());
                })
            })
            .collect();
        for value in 1..=VALUES {
            assert_eq!(sender.send(value).unwrap(), 151);
        }
        drop(sender);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(sum.load(SeqCst), 150 * VALUES * (VALUES + 1) / 2);
    });
}
