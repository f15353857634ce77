//! `sync::oneshot`: one value from one sender to one receiver.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::support::green::{Drops, LONG, Log, OnDrop, SHORT, call_on_main_loop};
use crate::support::run;
use greenhub::hub::LoopErrorKind;
use greenhub::park::{Deadline, ReadyList, Waitable};
use greenhub::sync::oneshot::{RecvError, RecvTimeoutError, TryRecvError, channel};
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn, with_timeout};

#[test]
fn a_channel_is_closed_after_its_value() {
    run("a_channel_is_closed_after_its_value", || {
        let (sender, receiver) = channel();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        sender.send(1).unwrap();
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
        assert!(matches!(receiver.recv(), Err(RecvError::Closed)));
        assert!(matches!(receiver.recv_timeout(LONG), Err(RecvTimeoutError::Closed)));
    });
}

#[test]
fn a_dropped_sender_ends_all_waits() {
    run("a_dropped_sender_ends_all_waits", || {
        let (sender, receiver) = channel::<u8>();
        let receiver = Rc::new(receiver);
        let waits = [(); 3].map(|()| receiver.clone()).map(|own| spawn(move || own.recv()));
        yield_now();
        drop(sender);
        for wait in waits {
            assert!(matches!(wait.join().unwrap(), Err(RecvError::Closed)));
        }
    });
}

#[test]
fn the_first_waiter_gets_the_value_and_the_others_the_end() {
    run("the_first_waiter_gets_the_value_and_the_others_the_end", || {
        let (sender, receiver) = channel();
        let (receiver, log) = (Rc::new(receiver), Log::new());
        for number in 0..3 {
            let (receiver, log) = (receiver.clone(), log.clone());
            spawn(move || log.add(format!("{number}: {}", receiver.recv().is_ok())));
        }
        yield_now();
        sender.send(()).unwrap();
        yield_now();
        yield_now();
        log.is(&["0: true", "1: false", "2: false"]);
    });
}

#[test]
fn a_newcomer_does_not_get_a_granted_value() {
    run("a_newcomer_does_not_get_a_granted_value", || {
        let (sender, receiver) = channel();
        let receiver = Rc::new(receiver);
        let own = receiver.clone();
        let first = spawn(move || own.recv());
        yield_now();
        sender.send(1).unwrap();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert!(!receiver.is_ready());
        assert!(matches!(receiver.recv(), Err(RecvError::Closed)));
        assert_eq!(first.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn a_value_outlives_the_waits_that_an_exit_ends() {
    run("a_value_outlives_the_waits_that_an_exit_ends", || {
        let (sender, receiver) = channel();
        let receiver = Rc::new(receiver);
        let own = receiver.clone();
        let killed = spawn(move || own.recv());
        assert!(with_timeout(SHORT, || receiver.recv()).is_err());
        killed.kill();
        assert!(killed.join().unwrap_err().is_kill());
        sender.send(1).unwrap();
        assert_eq!(receiver.try_recv(), Ok(1));
    });
}

#[test]
fn a_value_refused_by_its_waiter_goes_to_the_next() {
    run("a_value_refused_by_its_waiter_goes_to_the_next", || {
        let (sender, receiver) = channel();
        let receiver = Rc::new(receiver);
        let own = receiver.clone();
        let next = spawn(move || {
            call_on_main_loop(move || {
                get_hub().abort();
                // From another OS thread, so that main does not see the wake-up before the loop ends.
                std::thread::spawn(move || sender.send(7).unwrap()).join().unwrap();
            });
            own.recv()
        });
        match receiver.recv() {
            Err(RecvError::Loop(error)) => assert_eq!(error.kind(), LoopErrorKind::Aborted),
            received => panic!("{received:?}"),
        }
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty), "the value was freed, not granted");
        assert_eq!(next.join().unwrap().unwrap(), 7);
    });
}

#[test]
fn a_send_without_a_receiver_returns_the_value() {
    let (sender, receiver) = channel();
    drop(receiver);
    assert!(sender.is_closed());
    assert_eq!(sender.send(1), Err(1));
}

#[test]
fn a_closed_receiver_keeps_a_sent_value_and_refuses_later_ones() {
    let (sender, receiver) = channel();
    receiver.close();
    assert_eq!(sender.send(1), Err(1));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    let (sender, receiver) = channel();
    sender.send(1).unwrap();
    receiver.close();
    assert_eq!(receiver.try_recv(), Ok(1));
}

#[test]
fn a_close_ends_the_waits_of_the_receiver_and_of_the_sender() {
    run("a_close_ends_the_waits_of_the_receiver_and_of_the_sender", || {
        let (sender, receiver) = channel::<u8>();
        let receiver = Rc::new(receiver);
        let own = receiver.clone();
        let (receives, sends) = (spawn(move || own.recv()), spawn(move || sender.closed()));
        yield_now();
        receiver.close();
        assert!(matches!(receives.join().unwrap(), Err(RecvError::Closed)));
        sends.join().unwrap().unwrap();
    });
}

#[test]
fn an_unreceived_value_is_dropped_with_the_receiver() {
    run("an_unreceived_value_is_dropped_with_the_receiver", || {
        let drops = Drops::default();
        let (sender, receiver) = channel();
        assert!(sender.send(drops.one()).is_ok());
        let killed = spawn(move || {
            sleep(LONG);
            receiver.recv()
        });
        yield_now();
        assert_eq!(drops.count(), 0);
        killed.kill();
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn the_destructor_of_a_value_may_use_the_channel_and_switch() {
    run("the_destructor_of_a_value_may_use_the_channel_and_switch", || {
        let (sender, receiver) = channel();
        let (other, waits) = channel::<u8>();
        let other = RefCell::new(Some(other));
        assert!(
            sender
                .send(OnDrop(move || {
                    yield_now();
                    assert_eq!(other.take().map(|other| other.send(1)), Some(Ok(())));
                }))
                .is_ok()
        );
        let green = spawn(move || waits.recv().unwrap());
        drop(receiver);
        assert_eq!(green.join().unwrap(), 1);
    });
}

#[test]
fn a_mark_is_not_set_by_a_value_for_a_waiter() {
    run("a_mark_is_not_set_by_a_value_for_a_waiter", || {
        let list = ReadyList::new();
        let (sender, receiver) = channel();
        let receiver = Rc::new(receiver);
        let own = receiver.clone();
        let waits = spawn(move || own.recv());
        yield_now();
        let left = receiver.leave(list.mark(0));
        sender.send(1).unwrap();
        assert!(format!("{list:?}").contains("ready: 0"), "{list:?}");
        assert_eq!(list.next(&mut Deadline::none()).unwrap(), Some(0), "the channel is over");
        receiver.take_back(left);
        assert_eq!(waits.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn os_threads_share_a_receiver() {
    run("os_threads_share_a_receiver", || {
        let (sender, receiver) = channel();
        let receiver = Arc::new(receiver);
        let others = [(); 4].map(|()| receiver.clone()).map(|own| std::thread::spawn(move || own.recv().is_ok()));
        sender.send(()).unwrap();
        let got = others.into_iter().map(|other| other.join().unwrap()).filter(|got| *got).count();
        assert_eq!(got, 1);
    });
}
