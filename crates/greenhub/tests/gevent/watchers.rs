//! The methods of every watcher: start, stop, close, feed, priority, errors.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc::channel;

use crate::support::green::quiet_panic;
use crate::support::{alone, run};
use crate::{LONG, Log, SHORT, settle, unexpected};
use greenhub::debug::{Report, set_report_stream};
use greenhub::gevent::{Priority, Run, Timer, Watcher, WatcherError, event_loop};
use greenhub::{get_hub, sleep, use_hub};

#[test]
fn a_second_start_replaces_the_callback_and_keeps_the_schedule() {
    run("a_second_start_replaces_the_callback_and_keeps_the_schedule", || {
        let log = Log::new();
        let timer = event_loop().timer(SHORT);
        for name in ["first", "second"] {
            let log = log.clone();
            timer.start(move |_, ()| log.push(name)).unwrap();
        }
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), ["second"]);
    });
}

#[test]
fn pending_watchers_are_called_by_priority_and_then_in_order() {
    run("pending_watchers_are_called_by_priority_and_then_in_order", || {
        let log = Log::new();
        let names = [
            (Priority::Normal, "first"),
            (Priority::Lowest, "last"),
            (Priority::High, "high"),
            (Priority::Normal, "second"),
            (Priority::Highest, "highest"),
        ];
        let watchers = names.map(|(priority, name)| {
            let watcher = event_loop().timer(LONG);
            watcher.set_priority(priority).unwrap();
            let log = log.clone();
            watcher.start(move |_, ()| log.push(name)).unwrap();
            watcher
        });
        watchers.iter().for_each(|watcher| watcher.feed(()));
        sleep(SHORT);
        assert_eq!(log.take(), ["highest", "high", "first", "second", "last"]);
    });
}

#[test]
fn a_priority_stays_while_its_watcher_is_active() {
    run("a_priority_stays_while_its_watcher_is_active", || {
        let watcher = event_loop().timer(LONG);
        watcher.start(|_, ()| ()).unwrap();
        let refused = watcher.set_priority(Priority::High).unwrap_err();
        assert!(matches!(refused, WatcherError::Active { setting: "priority" }), "{refused}");
        watcher.stop();
        watcher.set_priority(Priority::High).unwrap();
        assert_eq!(watcher.priority(), Priority::High);
    });
}

#[test]
fn of_two_pending_watchers_that_stop_each_other_one_is_called() {
    run("of_two_pending_watchers_that_stop_each_other_one_is_called", || {
        let timers: Rc<[Timer; 2]> = Rc::new([event_loop().timer(SHORT), event_loop().timer(SHORT)]);
        let calls = Rc::new(Cell::new(0));
        for (index, timer) in timers.iter().enumerate() {
            let (other, calls) = (Rc::downgrade(&timers), Rc::clone(&calls));
            timer
                .start(move |_, ()| {
                    calls.set(calls.get() + 1);
                    other.upgrade().unwrap()[1 - index].stop();
                })
                .unwrap();
        }
        std::thread::sleep(2 * SHORT); // both are due in the same turn
        settle();
        assert_eq!(calls.get(), 1);
    });
}

#[test]
fn a_stop_is_idempotent_and_drops_a_pending_event() {
    run("a_stop_is_idempotent_and_drops_a_pending_event", || {
        let watcher = event_loop().timer(LONG);
        watcher.start(|_, ()| unexpected("called after its stop")).unwrap();
        watcher.feed(());
        assert!(watcher.is_pending() && watcher.is_active());
        watcher.stop();
        watcher.stop();
        assert!(!watcher.is_pending() && !watcher.is_active());
        sleep(SHORT);
    });
}

#[test]
fn a_fed_watcher_that_was_never_active_is_called_once() {
    run("a_fed_watcher_that_was_never_active_is_called_once", || {
        let log = Log::new();
        let watcher = event_loop().timer(LONG);
        let calls = log.clone();
        watcher.start(move |_, ()| calls.push(())).unwrap();
        watcher.stop();
        watcher.feed(());
        watcher.feed(());
        assert!(watcher.is_pending() && !watcher.is_active());
        sleep(SHORT);
        sleep(SHORT);
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn a_watcher_that_feeds_itself_lets_others_run() {
    run("a_watcher_that_feeds_itself_lets_others_run", || {
        let watcher = event_loop().timer(LONG);
        watcher.start(|watcher, ()| watcher.feed(())).unwrap();
        watcher.feed(());
        sleep(SHORT);
        assert!(watcher.is_pending());
    });
}

#[test]
fn a_closed_watcher_stays_closed() {
    run("a_closed_watcher_stays_closed", || {
        let dropped = Rc::new(());
        let inside = Rc::clone(&dropped);
        let watcher = event_loop().timer(SHORT);
        watcher.start(move |_, ()| drop(Rc::clone(&inside))).unwrap();
        watcher.close();
        watcher.close();
        assert_eq!(Rc::strong_count(&dropped), 1, "the callback is dropped");
        assert!(matches!(watcher.start(|_, ()| ()), Err(WatcherError::Closed)));
        assert!(matches!(watcher.resume(), Err(WatcherError::Closed | WatcherError::NoCallback)));
        watcher.feed(());
        assert!(!watcher.is_pending());
    });
}

#[test]
fn a_drop_closes_the_watcher() {
    run("a_drop_closes_the_watcher", || {
        let watcher = event_loop().timer(SHORT);
        watcher.start(|_, ()| unexpected("called after the drop")).unwrap();
        drop(watcher);
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert_eq!(event_loop().counts().active, 0);
    });
}

#[test]
fn a_watcher_starts_itself_anew_in_its_callback() {
    run("a_watcher_starts_itself_anew_in_its_callback", || {
        let log = Log::new();
        let (first, second) = (log.clone(), log.clone());
        let timer = event_loop().timer(SHORT);
        timer
            .start(move |timer, ()| {
                first.push("first");
                let second = second.clone();
                timer.start(move |_, ()| second.push("second")).unwrap();
            })
            .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), ["first", "second"]);
    });
}

#[test]
fn a_watcher_resumes_with_the_callback_that_it_has() {
    run("a_watcher_resumes_with_the_callback_that_it_has", || {
        let log = Log::new();
        let timer = event_loop().timer(SHORT);
        assert!(matches!(timer.resume(), Err(WatcherError::NoCallback)));
        let calls = log.clone();
        timer.start(move |_, ()| calls.push(())).unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        timer.resume().unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 2);
    });
}

#[test]
fn a_watcher_resumes_in_its_own_callback() {
    run("a_watcher_resumes_in_its_own_callback", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = event_loop().timer(SHORT);
        timer
            .start(move |timer, ()| {
                calls.push(());
                if calls.len() < 3 {
                    timer.resume().unwrap();
                }
            })
            .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 3);
    });
}

#[test]
fn a_callback_closes_its_own_watcher_and_others() {
    run("a_callback_closes_its_own_watcher_and_others", || {
        let other = Rc::new(event_loop().timer(2 * SHORT));
        other.start(|_, ()| unexpected("called after its close")).unwrap();
        let closed = Rc::clone(&other);
        let timer = event_loop().timer(SHORT);
        timer
            .start(move |timer, ()| {
                closed.close();
                timer.close();
            })
            .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert!(matches!(timer.resume(), Err(WatcherError::Closed | WatcherError::NoCallback)));
    });
}

#[test]
fn the_handle_may_be_dropped_in_its_own_callback() {
    run("the_handle_may_be_dropped_in_its_own_callback", || {
        let own: Rc<RefCell<Option<Timer>>> = Rc::default();
        let slot = Rc::clone(&own);
        let timer = event_loop().repeating(SHORT, SHORT);
        timer.start(move |_, ()| drop(slot.take())).unwrap();
        own.replace(Some(timer));
        event_loop().run(Run::UntilIdle).unwrap();
        assert!(own.take().is_none());
    });
}

#[test]
fn a_panic_is_reported_with_the_watcher_and_the_place_of_its_start() {
    alone("a_panic_is_reported_with_the_watcher_and_the_place_of_its_start", || {
        let (sender, reports) = channel();
        set_report_stream(move |report| {
            if let Report::CallbackFailed { operation, made_at: Some(at), error } = report {
                sender.send((operation.to_string(), at.file().to_owned(), error.to_string())).unwrap();
            }
        });
        let timer = event_loop().timer(SHORT);
        timer.start(|_, ()| quiet_panic("the callback")).unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        let (operation, file, error) = reports.try_recv().unwrap();
        assert!(operation.starts_with("Timer {") && file.ends_with("watchers.rs"), "{operation} {file}");
        assert!(error.contains("the callback"), "{error}");
        sleep(SHORT);
    });
}

#[test]
fn a_blocking_call_in_a_callback_is_refused() {
    run("a_blocking_call_in_a_callback_is_refused", || {
        let refused = Rc::new(Cell::new(None));
        let found = Rc::clone(&refused);
        let timer = event_loop().timer(SHORT);
        timer.start(move |_, ()| found.set(get_hub().run_once(None).err().map(|error| error.kind()))).unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(refused.get(), Some(greenhub::hub::LoopErrorKind::InMainloop));
    });
}

#[test]
fn a_watcher_of_a_replaced_hub_says_so() {
    run("a_watcher_of_a_replaced_hub_says_so", || {
        let watcher = event_loop().timer(LONG);
        watcher.start(|_, ()| ()).unwrap();
        let former = event_loop();
        use_hub(get_hub().name()).unwrap();
        let hub = get_hub();
        assert!(!watcher.is_active());
        assert!(matches!(watcher.resume(), Err(WatcherError::HubDestroyed)));
        assert_eq!(hub.stats().timers, 0);
        assert!(format!("{former:?}").contains("destroyed"), "{former:?}");
        // A watcher of the new loop works, and the drop of the old one disturbs nothing.
        drop(watcher);
        event_loop().timer(SHORT).wait(None).unwrap();
    });
}

#[test]
fn a_callback_is_called_before_the_drop_of_what_it_holds() {
    run("a_callback_is_called_before_the_drop_of_what_it_holds", || {
        // The destructor of a callback may stop and start watchers.
        struct Restart(Rc<Timer>);
        impl Drop for Restart {
            fn drop(&mut self) {
                self.0.stop();
                self.0.resume().unwrap();
            }
        }
        let log = Log::new();
        let other = Rc::new(event_loop().timer(SHORT));
        let calls = log.clone();
        other.start(move |_, ()| calls.push(())).unwrap();
        let timer = event_loop().timer(SHORT);
        let restart = Restart(Rc::clone(&other));
        timer.start(move |_, ()| _ = &restart).unwrap();
        timer.close();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn a_destructor_during_an_unwinding_may_use_watchers() {
    alone("a_destructor_during_an_unwinding_may_use_watchers", || {
        greenhub::debug::hub_exceptions(false);
        struct All {
            other: Rc<Timer>,
            dropped: Option<Timer>,
            waited: Rc<Timer>,
        }
        impl Drop for All {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                self.other.stop();
                self.other.resume().unwrap();
                self.other.feed(());
                self.dropped.take();
                self.waited.close();
            }
        }
        let log = Log::new();
        let calls = log.clone();
        let other = Rc::new(event_loop().timer(SHORT));
        other.start(move |_, ()| calls.push(())).unwrap();
        let dropped = event_loop().timer(LONG);
        dropped.start(|_, ()| unexpected("it was dropped")).unwrap();
        dropped.feed(());
        let waited = Rc::new(event_loop().timer(LONG));
        let waits = Rc::clone(&waited);
        let green = greenhub::spawn(move || waits.wait(None));
        greenhub::thread::yield_now();
        let mut all = Some(All { other: Rc::clone(&other), dropped: Some(dropped), waited });
        let timer = event_loop().timer(SHORT);
        timer.set_priority(Priority::Highest).unwrap();
        timer
            .start(move |_, ()| {
                let _all = all.take();
                quiet_panic("the callback");
            })
            .unwrap();
        timer.feed(());
        assert!(matches!(green.join().unwrap(), Err(greenhub::gevent::WaitError::Closed)));
        while other.is_active() {
            sleep(SHORT);
        }
        assert!(log.len() > 0);
        drop(timer);
        assert_eq!(event_loop().counts().active, 0);
    });
}
