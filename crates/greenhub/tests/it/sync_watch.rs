//! `sync::watch`: the last value, and the notice that it has changed.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::support::green::{Drops, LONG, Log, OnDrop, SHORT, call_on_main_loop, quiet_panic};
use crate::support::run;
use greenhub::sync::watch::{RecvError, RecvTimeoutError, Sender, channel};
use greenhub::thread::yield_now;
use greenhub::{sleep, spawn};

#[test]
fn the_first_value_counts_as_seen() {
    let (_sender, receiver) = channel(1);
    assert_eq!(*receiver.borrow(), 1);
    assert!(!receiver.has_changed().unwrap() && !receiver.borrow().has_changed());
}

#[test]
fn a_change_is_seen_once_and_only_the_last_value_remains() {
    run("a_change_is_seen_once_and_only_the_last_value_remains", || {
        let (sender, mut receiver) = channel(0);
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert!(receiver.has_changed().unwrap());
        assert!(receiver.borrow().has_changed(), "a borrow marks nothing as seen");
        receiver.changed().unwrap();
        assert_eq!(*receiver.borrow(), 2);
        assert!(!receiver.has_changed().unwrap());
        sender.send(3).unwrap();
        let value = receiver.borrow_and_update();
        assert_eq!((*value, value.has_changed()), (3, true));
        assert!(!receiver.has_changed().unwrap());
        sender.send(4).unwrap();
        receiver.mark_unchanged();
        assert!(matches!(receiver.changed_timeout(Duration::ZERO), Err(RecvTimeoutError::TimedOut)));
    });
}

#[test]
fn a_clone_has_seen_as_much_as_its_original() {
    run("a_clone_has_seen_as_much_as_its_original", || {
        let (sender, mut receiver) = channel(0);
        sender.send(1).unwrap();
        let mut clone = receiver.clone();
        receiver.changed().unwrap();
        clone.changed().unwrap();
        assert!(!sender.subscribe().has_changed().unwrap(), "a new receiver has seen the present value");
    });
}

#[test]
fn a_receiver_sees_the_last_value_of_senders_that_ended() {
    run("a_receiver_sees_the_last_value_of_senders_that_ended", || {
        let (sender, mut receiver) = channel(0);
        let other = sender.clone();
        drop(sender);
        other.send(1).unwrap();
        drop(other);
        assert!(receiver.has_changed().unwrap());
        receiver.changed().unwrap();
        assert!(matches!(receiver.has_changed(), Err(RecvError::Closed)));
        assert!(matches!(receiver.changed(), Err(RecvError::Closed)));
        assert_eq!(*receiver.borrow(), 1);
    });
}

#[test]
fn a_borrow_is_a_snapshot_that_no_send_waits_for() {
    run("a_borrow_is_a_snapshot_that_no_send_waits_for", || {
        let (sender, receiver) = channel(String::from("old"));
        let before = receiver.borrow();
        sender.send("new".to_owned()).unwrap();
        sender.send_modify(|text| text.push('!'));
        yield_now();
        assert_eq!((&**before, &**receiver.borrow(), &**sender.borrow()), ("old", "new!", "new!"));
    });
}

#[test]
fn a_value_waits_for_its_condition() {
    run("a_value_waits_for_its_condition", || {
        let (sender, mut receiver) = channel(0);
        let asked = Rc::new(RefCell::new(Vec::new()));
        let asks = asked.clone();
        let green = spawn(move || {
            let value = receiver.wait_for(|&n| {
                asks.borrow_mut().push(n);
                // The condition may switch.
                yield_now();
                n >= 3
            });
            (*value.unwrap(), receiver.has_changed().unwrap())
        });
        for n in 0..=3 {
            sender.send(n).unwrap();
            for _ in 0..4 {
                yield_now();
            }
        }
        assert_eq!(green.join().unwrap(), (3, false));
        assert_eq!(*asked.borrow(), [0, 1, 2, 3]);
    });
}

#[test]
fn a_condition_sees_the_last_value_before_the_end() {
    run("a_condition_sees_the_last_value_before_the_end", || {
        let (sender, mut receiver) = channel(0);
        sender.send(1).unwrap();
        drop(sender);
        assert_eq!(*receiver.wait_for(|&n| n == 1).unwrap(), 1);
        assert!(matches!(receiver.wait_for(|&n| n == 2), Err(RecvError::Closed)));
    });
}

#[test]
fn the_limit_of_a_condition_counts_over_several_changes() {
    run("the_limit_of_a_condition_counts_over_several_changes", || {
        let (sender, mut receiver) = channel(0);
        let ticker = spawn(move || {
            loop {
                sleep(SHORT);
                sender.send(1).unwrap();
            }
        });
        let waited = receiver.wait_for_timeout(SHORT * 4, |&n| n == 2);
        assert!(matches!(waited, Err(RecvTimeoutError::TimedOut)));
        ticker.kill();
    });
}

#[test]
fn a_send_without_a_receiver_returns_the_value_and_changes_nothing() {
    let (sender, receiver) = channel(0);
    assert_eq!((sender.receiver_count(), sender.is_closed()), (1, false));
    drop(receiver);
    assert_eq!(sender.send(1).unwrap_err().0, 1);
    assert!(sender.is_closed());
    assert_eq!(*sender.borrow(), 0);
    assert_eq!(sender.send_replace(2), 0);
    sender.send_modify(|n| *n += 1);
    assert_eq!(*sender.subscribe().borrow(), 3);
}

#[test]
fn a_conditional_change_is_sent_or_discarded() {
    run("a_conditional_change_is_sent_or_discarded", || {
        let (sender, mut receiver) = channel(vec![1]);
        let push = |keep: bool| {
            sender.send_if_modified(|list| {
                list.push(2);
                keep
            })
        };
        assert!(!push(false));
        assert!(!receiver.has_changed().unwrap());
        assert_eq!(*receiver.borrow(), [1]);
        assert!(push(true));
        receiver.changed().unwrap();
        assert_eq!(*receiver.borrow(), [1, 2]);
    });
}

#[test]
fn a_panic_or_an_exit_in_a_modification_changes_nothing() {
    run("a_panic_or_an_exit_in_a_modification_changes_nothing", || {
        let (sender, receiver) = channel(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            sender.send_modify(|n| {
                *n = 1;
                quiet_panic("it fails");
            });
        }));
        assert!(caught.is_err());
        let own = sender.clone();
        let killed = spawn(move || {
            own.send_modify(|n| {
                *n = 2;
                sleep(LONG);
            });
        });
        yield_now();
        killed.kill();
        assert_eq!((*receiver.borrow(), receiver.has_changed().unwrap()), (0, false));
        sender.send_modify(|n| *n = 3);
        assert_eq!(*receiver.borrow(), 3);
    });
}

#[test]
fn modifications_that_switch_lose_none_of_each_other() {
    run("modifications_that_switch_lose_none_of_each_other", || {
        let (sender, receiver) = channel(0);
        let greens = [(); 10].map(|()| sender.clone()).map(|sender| {
            spawn(move || {
                sender.send_modify(|n| {
                    yield_now();
                    *n += 1;
                });
            })
        });
        yield_now();
        assert_eq!(*receiver.borrow(), 0, "a borrow does not wait for a modification");
        greens.into_iter().for_each(|green| green.join().unwrap());
        assert_eq!(*receiver.borrow(), 10);
    });
}

#[test]
fn a_send_during_a_modification_replaces_it() {
    run("a_send_during_a_modification_replaces_it", || {
        let (sender, receiver) = channel(0);
        let own = sender.clone();
        let green = spawn(move || {
            own.send_modify(|n| {
                yield_now();
                *n += 1;
            });
        });
        yield_now();
        sender.send(10).unwrap();
        green.join().unwrap();
        assert_eq!(*receiver.borrow(), 10);
    });
}

#[test]
fn a_replaced_value_comes_back_in_the_order_of_modifications() {
    run("a_replaced_value_comes_back_in_the_order_of_modifications", || {
        let (sender, receiver) = channel(0);
        let own = sender.clone();
        let green = spawn(move || {
            own.send_modify(|n| {
                yield_now();
                *n += 1;
            });
        });
        yield_now();
        assert_eq!(sender.send_replace(10), 1);
        green.join().unwrap();
        assert_eq!(*receiver.borrow(), 10);
    });
}

/// A value whose clone and destructor use its own channel, and switch.
struct Reentrant(Rc<RefCell<Option<Sender<Reentrant>>>>, Drops);

impl Reentrant {
    fn use_channel(&self) {
        let sender = self.0.borrow().clone();
        if let Some(sender) = sender {
            assert!(sender.receiver_count() < 10);
            drop(sender.borrow());
            drop(sender.subscribe());
        }
        yield_now();
    }
}

impl Clone for Reentrant {
    fn clone(&self) -> Reentrant {
        self.use_channel();
        Reentrant(self.0.clone(), self.1.clone())
    }
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        self.use_channel();
        drop(self.1.one());
    }
}

#[test]
fn the_clone_and_the_destructor_of_a_value_may_use_the_channel() {
    run("the_clone_and_the_destructor_of_a_value_may_use_the_channel", || {
        let (own, drops) = (Rc::default(), Drops::default());
        let value = || Reentrant(Rc::clone(&own), drops.clone());
        let (sender, mut receiver) = channel(value());
        *own.borrow_mut() = Some(sender.clone());
        assert!(sender.send(value()).is_ok());
        assert_eq!(drops.count(), 1);
        let held = receiver.borrow();
        drop(sender.send_replace(value()));
        assert_eq!(drops.count(), 2, "the returned clone");
        drop(held);
        assert_eq!(drops.count(), 3);
        sender.send_modify(|_| ());
        assert_eq!(drops.count(), 4);
        assert!(!sender.send_if_modified(|_| false));
        assert_eq!(drops.count(), 5);
        receiver.changed().unwrap();
        own.take();
        drop((sender, receiver));
        assert_eq!(drops.count(), 6);
    });
}

/// A value that calls a closure when it is dropped.
#[derive(Clone)]
struct CallsOnDrop(Option<Rc<dyn Fn()>>);

impl Drop for CallsOnDrop {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call();
        }
    }
}

/// Sends a value that modifies the channel when it is dropped. Returns the count of these drops.
fn send_modifying(sender: &Sender<CallsOnDrop>) -> Rc<Cell<usize>> {
    let (own, calls) = (sender.clone(), Rc::new(Cell::new(0)));
    let counts = calls.clone();
    let call = move || {
        counts.set(counts.get() + 1);
        own.send_modify(|_| ());
    };
    sender.send(CallsOnDrop(Some(Rc::new(call)))).ok().unwrap();
    calls
}

#[test]
fn the_destructor_of_a_replaced_value_may_modify_the_channel() {
    run("the_destructor_of_a_replaced_value_may_modify_the_channel", || {
        let (sender, receiver) = channel(CallsOnDrop(None));
        let calls = send_modifying(&sender);
        // The modification has the last reference to the value that is replaced meanwhile.
        sender.send_modify(|value| {
            value.0 = None;
            sender.send(CallsOnDrop(None)).ok().unwrap();
        });
        assert_eq!(calls.get(), 1);
        assert!(receiver.borrow().0.is_none());
    });
}

#[test]
fn the_destructor_of_a_value_may_modify_the_channel_while_a_modification_unwinds() {
    run("the_destructor_of_a_value_may_modify_the_channel_while_a_modification_unwinds", || {
        let (sender, _receiver) = channel(CallsOnDrop(None));
        let calls = send_modifying(&sender);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            sender.send_modify(|value| {
                value.0 = None;
                sender.send(CallsOnDrop(None)).ok().unwrap();
                quiet_panic("it fails");
            });
        }));
        assert!(caught.is_err());
        assert_eq!(calls.get(), 1);
    });
}

#[test]
fn values_pass_between_os_threads() {
    run("values_pass_between_os_threads", || {
        let (sender, mut receiver) = channel(0);
        let (back, mut returned) = channel(0);
        let other = std::thread::spawn(move || {
            while receiver.changed().is_ok() {
                back.send(*receiver.borrow_and_update()).unwrap();
            }
        });
        for n in 1..100 {
            sender.send(n).unwrap();
            assert_eq!(*returned.wait_for(|&back| back == n).unwrap(), n);
        }
        drop(sender);
        other.join().unwrap();
    });
}

#[test]
fn a_callback_of_the_main_loop_sends_and_borrows_but_does_not_wait() {
    run("a_callback_of_the_main_loop_sends_and_borrows_but_does_not_wait", || {
        let (sender, mut receiver) = channel(0);
        let mut own = receiver.clone();
        call_on_main_loop(move || {
            assert!(matches!(own.changed(), Err(RecvError::Loop(_))));
            sender.send(1).unwrap();
            sender.send_modify(|n| *n += 1);
            assert_eq!(*own.borrow_and_update(), 2);
        });
        receiver.changed().unwrap();
        assert_eq!(*receiver.borrow(), 2);
    });
}

#[test]
fn a_guard_moves_to_another_os_thread() {
    let (sender, receiver) = channel(Arc::new(1));
    let value = receiver.borrow();
    sender.send(Arc::new(2)).unwrap();
    assert_eq!(std::thread::spawn(move || **value).join().unwrap(), 1);
}

#[test]
fn an_old_value_is_dropped_with_its_last_guard() {
    run("an_old_value_is_dropped_with_its_last_guard", || {
        let log = Log::new();
        let logged = |text: &'static str| {
            let log = log.clone();
            OnDrop(move || log.add(text))
        };
        let (sender, receiver) = channel(logged("first"));
        let guard = receiver.borrow();
        assert!(sender.send(logged("second")).is_ok());
        log.is(&[]);
        drop(guard);
        log.is(&["first"]);
        drop((sender, receiver));
        log.is(&["first", "second"]);
    });
}
