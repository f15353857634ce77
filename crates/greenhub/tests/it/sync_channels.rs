//! The promises that the channels of `sync` share: `mpsc`, `oneshot`, `watch` and `broadcast`.

mod kinds;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use self::kinds::{Kind, Received, SharedKind, TokioKind};
use crate::support::green::{LONG, Log, SHORT, call_on_main_loop, held};
use crate::support::run;
use greenhub::hub::LoopErrorKind;
use greenhub::park::{Deadline, ReadyList, Waitable};
use greenhub::sync::WaitError;
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn, with_timeout};

/// Makes each function a test of each kind of channel.
macro_rules! tests_of_each_kind {
    ([$($module:ident: $kind:ident),+] $tests:tt) => {
        $(tests_of_each_kind!(@ $module $kind $tests);)+
    };
    (@ $module:ident $kind:ident { $($test:ident)+ }) => {
        mod $module {
            use super::super::{kinds::$kind, run};
            $(
                #[test]
                fn $test() {
                    run(concat!(stringify!($module), "::", stringify!($test)), super::super::$test::<$kind>);
                }
            )+
        }
    };
}

mod each {
    tests_of_each_kind!([mpsc: Mpsc, oneshot: Oneshot, watch: Watch, broadcast: Broadcast] {
        a_value_ends_the_wait_of_the_receiver
        a_value_that_was_sent_before_is_received_without_a_switch
        a_loop_of_values_that_are_there_lets_others_run
        a_dropped_sender_ends_the_wait_of_the_receiver
        a_channel_is_closed_after_the_last_value_of_its_sender
        a_wait_that_a_limit_ends_loses_no_value
        a_wait_that_an_exit_ends_loses_no_value
        a_receiver_that_is_killed_after_the_send_gets_the_value
        a_value_passes_between_os_threads_in_both_directions
        a_receiver_is_ready_for_a_wait_for_several_objects
        a_mark_that_was_taken_back_is_not_set
    });
}

mod tokio {
    tests_of_each_kind!([oneshot: Oneshot, watch: Watch, broadcast: Broadcast] {
        a_wait_that_the_loop_ends_loses_no_value
        the_main_loop_receives_but_does_not_wait
        a_sender_waits_for_the_end_of_its_receiver
        a_sender_is_ready_for_a_wait_for_several_objects
    });
}

mod shared {
    tests_of_each_kind!([watch: Watch, broadcast: Broadcast] {
        receivers_wake_in_order_and_run_later
        the_end_of_the_last_sender_ends_the_waits
        a_sender_waits_for_the_end_of_all_receivers
        a_receiver_is_not_ready_after_the_present_value
    });
}

fn a_value_ends_the_wait_of_the_receiver<K: Kind>() {
    let (sender, mut receiver) = K::channel();
    let green = spawn(move || K::recv(&mut receiver));
    yield_now();
    assert!(!green.is_finished());
    K::send_last(sender, 1);
    assert!(!green.is_finished(), "sending does not switch");
    assert_eq!(green.join().unwrap(), Received::Value(1));
}

fn a_value_that_was_sent_before_is_received_without_a_switch<K: Kind>() {
    let (sender, mut receiver) = K::channel();
    K::send_last(sender, 1);
    let other = spawn(|| ());
    assert_eq!(K::recv(&mut receiver), Received::Value(1));
    assert!(!other.is_finished());
}

fn a_loop_of_values_that_are_there_lets_others_run<K: Kind>() {
    let other = spawn(|| ());
    for value in 0..1000 {
        let (sender, mut receiver) = K::channel();
        K::send_last(sender, value);
        assert_eq!(K::recv(&mut receiver), Received::Value(value));
    }
    assert!(other.is_finished());
}

fn a_dropped_sender_ends_the_wait_of_the_receiver<K: Kind>() {
    let (sender, mut receiver) = K::channel();
    let green = spawn(move || K::recv(&mut receiver));
    yield_now();
    drop(sender);
    assert_eq!(green.join().unwrap(), Received::Closed);
}

fn a_channel_is_closed_after_the_last_value_of_its_sender<K: Kind>() {
    let (sender, mut receiver) = K::channel();
    K::send_last(sender, 1);
    assert_eq!(K::recv(&mut receiver), Received::Value(1));
    assert_eq!(K::recv(&mut receiver), Received::Closed);
    assert_eq!(K::recv_timeout(&mut receiver, LONG), Received::Closed);
}

fn a_wait_that_a_limit_ends_loses_no_value<K: Kind>() {
    let before = held();
    let (sender, mut receiver) = K::channel();
    assert_eq!(K::recv_timeout(&mut receiver, SHORT), Received::TimedOut);
    let other = spawn(|| ());
    assert_eq!(K::recv_timeout(&mut receiver, Duration::ZERO), Received::TimedOut);
    assert!(other.is_finished(), "a timeout of zero lets other green threads run");
    drop(other);
    spawn(move || K::send_last(sender, 1));
    assert_eq!(K::recv_timeout(&mut receiver, LONG), Received::Value(1));
    assert_eq!(held(), before);
}

fn a_wait_that_an_exit_ends_loses_no_value<K: Kind>() {
    let before = held();
    let (sender, mut receiver) = K::channel();
    assert!(with_timeout(SHORT, || K::recv(&mut receiver)).is_err());
    K::send_last(sender, 1);
    assert_eq!(K::recv(&mut receiver), Received::Value(1));
    assert_eq!(held(), before);
}

fn a_receiver_that_is_killed_after_the_send_gets_the_value<K: Kind>() {
    let (sender, mut receiver) = K::channel();
    let got = Rc::new(RefCell::new(None));
    let gets = got.clone();
    let green = spawn(move || {
        *gets.borrow_mut() = Some(K::recv(&mut receiver));
        sleep(LONG);
    });
    yield_now();
    K::send_last(sender, 7);
    green.kill();
    assert!(green.join().unwrap_err().is_kill());
    assert_eq!(got.take(), Some(Received::Value(7)));
}

fn a_value_passes_between_os_threads_in_both_directions<K: Kind>() {
    let (ask, mut asked) = K::channel();
    let (answer, mut answered) = K::channel();
    let other = std::thread::spawn(move || match K::recv(&mut asked) {
        Received::Value(value) => K::send_last(answer, value + 1),
        none => panic!("{none:?}"),
    });
    let green = spawn(move || K::recv(&mut answered));
    yield_now();
    K::send_last(ask, 1);
    assert_eq!(green.join().unwrap(), Received::Value(2));
    other.join().unwrap();
}

fn a_receiver_is_ready_for_a_wait_for_several_objects<K: Kind>() {
    let list = ReadyList::new();
    let (sender, mut receiver) = K::channel();
    let (other, closed) = K::channel();
    let left = [receiver.leave(list.mark(0)), closed.leave(list.mark(1))];
    assert!(!receiver.is_ready() && !closed.is_ready());
    spawn(move || {
        K::send_last(sender, 1);
        drop(other);
    });
    assert_eq!(list.next(&mut Deadline::none()).unwrap(), Some(0), "a value has come");
    assert_eq!(list.next(&mut Deadline::none()).unwrap(), Some(1), "the sender is gone");
    let [value, end] = left;
    receiver.take_back(value);
    closed.take_back(end);
    assert!(receiver.is_ready() && closed.is_ready());
    assert_eq!(K::recv(&mut receiver), Received::Value(1), "a mark takes no value");
    let _set = receiver.leave(list.mark(2));
    assert_eq!(list.next(&mut Deadline::none()).unwrap(), Some(2), "the channel is closed");
}

fn a_mark_that_was_taken_back_is_not_set<K: Kind>() {
    let list = ReadyList::new();
    let (sender, receiver) = K::channel();
    let left = receiver.leave(list.mark(0));
    receiver.take_back(left);
    K::send_last(sender, 1);
    assert_eq!(list.next(&mut Deadline::from(Some(Duration::ZERO))).unwrap(), None);
}

fn a_wait_that_the_loop_ends_loses_no_value<K: TokioKind>() {
    let (sender, mut receiver) = K::channel();
    call_on_main_loop(move || {
        get_hub().abort();
        // From another OS thread, so that main does not see the wake-up before the loop ends.
        std::thread::spawn(move || K::send_last(sender, 7)).join().unwrap();
    });
    assert_eq!(K::recv(&mut receiver), Received::Failed(LoopErrorKind::Aborted));
    assert_eq!(K::recv(&mut receiver), Received::Value(7));
}

fn the_main_loop_receives_but_does_not_wait<K: TokioKind>() {
    let (sender, mut receiver) = K::channel();
    let (tell, mut told) = K::channel();
    call_on_main_loop(move || {
        let waited = K::recv(&mut receiver);
        K::send_last(sender, 1);
        let received = K::recv(&mut receiver);
        K::send_last(tell, u32::from(matches!(waited, Received::Failed(_)) && received == Received::Value(1)));
    });
    assert_eq!(K::recv(&mut told), Received::Value(1));
}

fn a_sender_waits_for_the_end_of_its_receiver<K: TokioKind>() {
    let (sender, receiver) = K::channel();
    assert!(matches!(K::closed_timeout(&sender, SHORT), Err(WaitError::TimedOut)));
    let green = spawn(move || {
        K::closed(&sender).unwrap();
        K::closed_timeout(&sender, LONG).unwrap();
    });
    yield_now();
    assert!(!green.is_finished());
    drop(receiver);
    green.join().unwrap();
}

fn a_sender_is_ready_for_a_wait_for_several_objects<K: TokioKind>() {
    let list = ReadyList::new();
    let (sender, receiver) = K::channel();
    let left = sender.leave(list.mark(0));
    assert!(!sender.is_ready());
    spawn(move || drop(receiver));
    assert_eq!(list.next(&mut Deadline::none()).unwrap(), Some(0));
    sender.take_back(left);
    assert!(sender.is_ready());
    let _set = sender.leave(list.mark(1));
    assert_eq!(list.next(&mut Deadline::none()).unwrap(), Some(1), "the receiver is gone");
}

fn receivers_wake_in_order_and_run_later<K: SharedKind>() {
    let (sender, _first) = K::channel();
    let log = Log::new();
    for number in 0..3 {
        let (mut receiver, log) = (K::subscribe(&sender), log.clone());
        spawn(move || log.add(format!("{number}: {:?}", K::recv(&mut receiver))));
    }
    yield_now();
    K::send(&sender, 7);
    log.is(&[]);
    yield_now();
    log.is(&["0: Value(7)", "1: Value(7)", "2: Value(7)"]);
}

fn the_end_of_the_last_sender_ends_the_waits<K: SharedKind>() {
    let (sender, receiver) = K::channel();
    let other = sender.clone();
    let receivers = [receiver, K::subscribe(&sender), K::subscribe(&sender)];
    let waits = receivers.map(|mut receiver| spawn(move || K::recv(&mut receiver)));
    yield_now();
    drop(sender);
    yield_now();
    assert!(!waits[0].is_finished());
    drop(other);
    for wait in waits {
        assert_eq!(wait.join().unwrap(), Received::Closed);
    }
}

fn a_sender_waits_for_the_end_of_all_receivers<K: SharedKind>() {
    let (sender, receiver) = K::channel();
    let (own, other) = (sender.clone(), K::subscribe(&sender));
    let green = spawn(move || K::closed(&own));
    yield_now();
    drop(receiver);
    yield_now();
    assert!(!green.is_finished());
    drop(other);
    // A receiver that subscribes now does not undo the end that was granted.
    let _late = K::subscribe(&sender);
    green.join().unwrap().unwrap();
    assert!(matches!(K::closed_timeout(&sender, SHORT), Err(WaitError::TimedOut)));
}

fn a_receiver_is_not_ready_after_the_present_value<K: SharedKind>() {
    let list = ReadyList::new();
    let (sender, mut receiver) = K::channel();
    K::send(&sender, 1);
    assert!(receiver.is_ready());
    assert_eq!(K::recv(&mut receiver), Received::Value(1));
    assert!(!receiver.is_ready());
    let left = receiver.leave(list.mark(0));
    drop(sender);
    assert_eq!(list.next(&mut Deadline::none()).unwrap(), Some(0), "the channel is closed");
    receiver.take_back(left);
}
