//! `sync::Notify`: a permit for one waiter, or a wake-up of all.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::support::green::{LONG, Log, SHORT, call_on_main_loop, held};
use crate::support::run;
use greenhub::hub::LoopErrorKind;
use greenhub::park::{Deadline, ReadyList, Waitable};
use greenhub::sync::{Notify, WaitError};
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn, with_timeout};

/// Spawns waiters that log their numbers when they are notified, and lets them wait.
fn waiters(notify: &Arc<Notify>, count: usize) -> Log {
    let log = Log::new();
    for number in 0..count {
        let (notify, log) = (notify.clone(), log.clone());
        spawn(move || {
            notify.wait().unwrap();
            log.add(number.to_string());
        });
    }
    yield_now();
    log
}

#[test]
fn a_notification_without_a_waiter_is_kept_once() {
    run("a_notification_without_a_waiter_is_kept_once", || {
        let notify = Notify::new();
        assert!(!notify.try_wait());
        notify.notify_one();
        notify.notify_one();
        notify.wait().unwrap();
        assert!(!notify.try_wait());
        assert!(matches!(notify.wait_timeout(SHORT), Err(WaitError::TimedOut)));
        notify.notify_one();
        assert!(notify.try_wait());
    });
}

#[test]
fn each_notification_of_one_wakes_the_first_waiter() {
    run("each_notification_of_one_wakes_the_first_waiter", || {
        let notify = Arc::new(Notify::new());
        let log = waiters(&notify, 3);
        notify.notify_one();
        log.is(&[]);
        yield_now();
        log.is(&["0"]);
        notify.notify_one();
        notify.notify_one();
        assert!(!notify.try_wait(), "a newcomer takes no notification of a waiter");
        yield_now();
        log.is(&["0", "1", "2"]);
        assert!(!notify.try_wait());
    });
}

#[test]
fn a_notification_of_all_wakes_the_present_waiters_only() {
    run("a_notification_of_all_wakes_the_present_waiters_only", || {
        let notify = Arc::new(Notify::new());
        let log = waiters(&notify, 3);
        notify.notify_waiters();
        let late = waiters(&notify, 1);
        log.is(&["0", "1", "2"]);
        yield_now();
        late.is(&[]);
        notify.notify_one();
        yield_now();
        late.is(&["0"]);
        notify.notify_waiters();
        assert!(!notify.try_wait(), "no permit is stored");
    });
}

#[test]
fn a_notification_of_all_leaves_the_permit() {
    let notify = Notify::new();
    notify.notify_one();
    notify.notify_waiters();
    assert!(notify.try_wait());
}

#[test]
fn a_waiter_that_left_takes_no_notification() {
    run("a_waiter_that_left_takes_no_notification", || {
        let (notify, before) = (Arc::new(Notify::new()), held());
        let own = notify.clone();
        let killed = spawn(move || own.wait());
        yield_now();
        assert!(with_timeout(SHORT, || notify.wait()).is_err());
        assert!(matches!(notify.wait_timeout(SHORT), Err(WaitError::TimedOut)));
        killed.kill();
        notify.notify_one();
        assert!(notify.try_wait());
        drop(killed);
        assert_eq!(held(), before);
    });
}

#[test]
fn a_waiter_that_is_killed_after_its_notification_keeps_it() {
    run("a_waiter_that_is_killed_after_its_notification_keeps_it", || {
        let notify = Arc::new(Notify::new());
        let (own, notified) = (notify.clone(), Rc::new(Cell::new(false)));
        let sets = notified.clone();
        let killed = spawn(move || {
            own.wait().unwrap();
            sets.set(true);
            sleep(LONG);
        });
        yield_now();
        notify.notify_one();
        killed.kill();
        assert!(killed.join().unwrap_err().is_kill());
        assert!(notified.get());
        assert!(!notify.try_wait());
    });
}

/// Lets the wait of main fail after it was granted by `grant`, and before it runs.
fn refuse_a_grant(notify: &Arc<Notify>, grant: fn(&Notify)) {
    let own = notify.clone();
    call_on_main_loop(move || {
        get_hub().abort();
        let own = own.clone();
        // From another OS thread, so that main does not see the wake-up before the loop ends.
        std::thread::spawn(move || grant(&own)).join().unwrap();
    });
    assert_eq!(notify.wait().unwrap_err().kind(), LoopErrorKind::Aborted);
}

#[test]
fn a_notification_of_one_that_its_waiter_refused_goes_to_the_next() {
    run("a_notification_of_one_that_its_waiter_refused_goes_to_the_next", || {
        let notify = Arc::new(Notify::new());
        let next = Rc::new(Cell::new(None));
        let (own, sets) = (notify.clone(), next.clone());
        spawn(move || sets.set(Some(spawn(move || own.wait()))));
        refuse_a_grant(&notify, Notify::notify_one);
        assert!(!notify.try_wait(), "the notification was stored, not granted");
        next.take().unwrap().join().unwrap().unwrap();
    });
}

#[test]
fn a_notification_of_one_that_its_only_waiter_refused_is_stored() {
    run("a_notification_of_one_that_its_only_waiter_refused_is_stored", || {
        let notify = Arc::new(Notify::new());
        refuse_a_grant(&notify, Notify::notify_one);
        assert!(notify.try_wait());
    });
}

#[test]
fn a_notification_of_all_that_a_waiter_refused_is_over() {
    run("a_notification_of_all_that_a_waiter_refused_is_over", || {
        let notify = Arc::new(Notify::new());
        refuse_a_grant(&notify, Notify::notify_waiters);
        assert!(!notify.try_wait());
    });
}

#[test]
fn a_notification_of_one_is_passed_on_although_all_are_notified_after_it() {
    run("a_notification_of_one_is_passed_on_although_all_are_notified_after_it", || {
        let notify = Arc::new(Notify::new());
        refuse_a_grant(&notify, |notify| {
            notify.notify_one();
            notify.notify_waiters();
        });
        assert!(notify.try_wait());
    });
}

#[test]
fn a_notify_wakes_green_threads_of_other_os_threads() {
    run("a_notify_wakes_green_threads_of_other_os_threads", || {
        let (there, back) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (own_there, own_back) = (there.clone(), back.clone());
        let other = std::thread::spawn(move || {
            for _ in 0..100 {
                own_there.wait().unwrap();
                own_back.notify_one();
            }
        });
        for _ in 0..100 {
            there.notify_one();
            back.wait().unwrap();
        }
        other.join().unwrap();
        assert!(!there.try_wait() && !back.try_wait());
    });
}

#[test]
fn a_loop_of_stored_permits_lets_others_run() {
    run("a_loop_of_stored_permits_lets_others_run", || {
        let notify = Notify::new();
        let other = spawn(|| ());
        for _ in 0..1000 {
            notify.notify_one();
            notify.wait().unwrap();
        }
        assert!(other.is_finished());
    });
}

#[test]
fn a_notify_is_ready_for_a_wait_for_several_objects_while_it_has_a_permit() {
    run("a_notify_is_ready_for_a_wait_for_several_objects_while_it_has_a_permit", || {
        let (notify, list) = (Arc::new(Notify::new()), ReadyList::new());
        let left = notify.leave(list.mark(0));
        let own = notify.clone();
        spawn(move || own.notify_one());
        assert_eq!(list.next(&mut Deadline::none()).unwrap(), Some(0));
        notify.take_back(left);
        assert!(notify.is_ready(), "a mark takes no permit");
        let _set = notify.leave(list.mark(1));
        assert_eq!(list.next(&mut Deadline::none()).unwrap(), Some(1));
        assert!(notify.try_wait());
        let left = notify.leave(list.mark(2));
        notify.notify_waiters();
        assert!(!notify.is_ready() && format!("{list:?}").contains("ready: 0"), "{list:?}");
        notify.take_back(left);
    });
}

#[test]
fn the_main_loop_cannot_wait_for_a_notification() {
    run("the_main_loop_cannot_wait_for_a_notification", || {
        let notify = Arc::new(Notify::new());
        let own = notify.clone();
        call_on_main_loop(move || {
            assert!(own.wait().is_err());
            own.notify_one();
        });
        notify.wait().unwrap();
    });
}
