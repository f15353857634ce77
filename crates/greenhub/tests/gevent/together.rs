//! Waits for several objects, and the ends of several green threads and waits.

use std::cell::Cell;
use std::io::pipe;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::support::green::quiet_panic;
use crate::support::run;
use crate::{LONG, Log, SHORT, unexpected};
use greenhub::gevent::{
    AnyWatcher, Run, Timer, WaitError, Waitable, Watcher, WatcherError, cancel_waits_close_and_then, event_loop, iwait,
    joinall, killall, killall_with, spawn_later, wait,
};
use greenhub::hub::LoopErrorKind;
use greenhub::park::{ReadyList, ReadyMarks};
use greenhub::sync::{Arc, BoundedSemaphore, Event, Semaphore};
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, Interest, get_hub, shield, sleep, spawn, with_timeout};

/// Returns the places of `found` in `all`.
fn places<W: ?Sized>(all: &[&W], found: &[&W]) -> Vec<usize> {
    let place = |object: &&W| all.iter().position(|other| std::ptr::addr_eq(*other, *object)).unwrap();
    found.iter().map(place).collect()
}

#[test]
fn objects_are_given_in_the_order_in_which_they_become_ready() {
    run("objects_are_given_in_the_order_in_which_they_become_ready", || {
        let events: Rc<[Event<()>; 3]> = Rc::default();
        let sender = Rc::clone(&events);
        // All are sent before the waiter runs.
        spawn(move || [2, 0, 1].map(|index: usize| sender[index].send(()).unwrap()));
        let all: Vec<_> = events.iter().collect();
        assert_eq!(places(&all, &wait(all.iter().copied(), None, None).unwrap()), [2, 0, 1]);
    });
}

#[test]
fn objects_of_different_kinds_are_waited_for_together() {
    run("objects_of_different_kinds_are_waited_for_together", || {
        let (event, semaphore, bounded) = (Event::new(), Semaphore::new(0), BoundedSemaphore::new(1));
        let timer = event_loop().timer(SHORT);
        let green = spawn(|| ());
        assert!(bounded.try_acquire());
        let all: [&dyn Waitable; 5] = [&event, &semaphore, &bounded, &timer, &green];
        let mut ready = iwait(all, None);
        let mut next = || places(&all, &[ready.next().unwrap().unwrap()])[0];
        assert_eq!(next(), 4);
        assert_eq!(next(), 3);
        bounded.release().unwrap();
        semaphore.release();
        event.send(()).unwrap();
        assert_eq!([next(), next(), next()], [2, 1, 0]);
        assert!(ready.next().is_none());
        assert!(semaphore.try_acquire() && bounded.try_acquire(), "the waiter has taken no permit");
    });
}

#[test]
fn a_wait_for_nothing_returns_at_once() {
    run("a_wait_for_nothing_returns_at_once", || {
        let nothing: [&dyn Waitable; 0] = [];
        let switches = get_hub().stats().switches;
        assert!(wait(nothing, None, None).unwrap().is_empty());
        assert_eq!(get_hub().stats().switches, switches);
    });
}

#[test]
fn objects_that_are_ready_are_given_without_a_switch_each_time() {
    run("objects_that_are_ready_are_given_without_a_switch_each_time", || {
        let (event, semaphore, green) = (Event::new(), Semaphore::new(1), spawn(|| ()));
        green.wait_for_end().unwrap();
        event.send(()).unwrap();
        let all: [&dyn Waitable; 3] = [&green, &event, &semaphore];
        let switches = get_hub().stats().switches;
        for _ in 0..2 {
            assert_eq!(places(&all, &wait(all, None, None).unwrap()), [0, 1, 2]);
        }
        assert_eq!(get_hub().stats().switches, switches);
    });
}

#[test]
fn a_limit_ends_the_wait_with_the_ready_objects() {
    run("a_limit_ends_the_wait_with_the_ready_objects", || {
        let (sent, never): (Event<()>, Event<()>) = (Event::new(), Event::new());
        sent.send(()).unwrap();
        let ready = wait([&never, &sent], SHORT, None).unwrap();
        assert_eq!(places(&[&never, &sent], &ready), [1]);
        assert!(wait([&never], Duration::ZERO, None).unwrap().is_empty());
        assert_eq!((never.waiting(), get_hub().stats().timers), (0, 0));
    });
}

#[test]
fn a_count_ends_the_wait_early_and_takes_the_marks_back() {
    run("a_count_ends_the_wait_early_and_takes_the_marks_back", || {
        let events: [Event<()>; 4] = Default::default();
        events[3].send(()).unwrap();
        events[1].send(()).unwrap();
        assert_eq!(wait(&events, None, 2).unwrap().len(), 2);
        assert!(wait(&events, None, 0).unwrap().is_empty());
        assert_eq!(events.each_ref().map(Event::waiting), [0; 4]);
    });
}

#[test]
fn a_wait_that_is_left_early_takes_back_each_mark() {
    run("a_wait_that_is_left_early_takes_back_each_mark", || {
        let (event, semaphore, timer): (Event<()>, _, _) = (Event::new(), Semaphore::new(0), event_loop().timer(LONG));
        let all: [&dyn Waitable; 3] = [&event, &semaphore, &timer];
        let ready = iwait(all, None);
        assert_eq!(event.waiting(), 1);
        assert!(timer.is_active());
        assert!(format!("{semaphore:?}").contains("marks: 1"), "{semaphore:?}");
        drop(ready);
        assert_eq!(event.waiting(), 0);
        assert!(!timer.is_active());
        assert!(format!("{semaphore:?}").contains("marks: 0"), "{semaphore:?}");
        assert!(!event_loop().run(Run::UntilIdle).unwrap(), "nothing is left of the wait");
    });
}

#[test]
fn a_killed_and_a_timed_out_wait_leave_nothing_behind() {
    run("a_killed_and_a_timed_out_wait_leave_nothing_behind", || {
        let event: Arc<Event<()>> = Arc::default();
        let timer = Rc::new(event_loop().timer(LONG));
        let waits = {
            let (event, timer) = (Arc::clone(&event), Rc::clone(&timer));
            move || wait([&event as &dyn Waitable, &timer], None, None).map(|ready| ready.len())
        };
        let waiting = spawn(waits.clone());
        yield_now();
        assert_eq!(event.waiting(), 1);
        assert!(timer.is_active());
        waiting.kill();
        assert!(event.waiting() == 0 && !timer.is_active());
        assert!(with_timeout(SHORT, waits).is_err());
        assert!(event.waiting() == 0 && !timer.is_active());
        assert_eq!((get_hub().stats().timers, event_loop().counts().active), (0, 0));
    });
}

#[test]
fn a_mark_is_given_back_by_a_green_thread() {
    run("a_mark_is_given_back_by_a_green_thread", || {
        let (list, green) = (ReadyList::new(), spawn(|| ()));
        let lefts = [0, 1].map(|number| green.leave(list.mark(number)));
        assert!(format!("{list:?}").contains("open: 2"), "{list:?}");
        let [first, _second] = lefts;
        green.take_back(first);
        assert!(format!("{list:?}").contains("open: 1"), "{list:?}");
        green.join().unwrap();
        assert_eq!(list.next(&mut None.into()).unwrap(), Some(1));
        assert!(format!("{list:?}").contains("open: 0"), "{list:?}");
    });
}

#[test]
fn a_mark_that_is_set_after_its_list_has_gone_does_nothing() {
    run("a_mark_that_is_set_after_its_list_has_gone_does_nothing", || {
        let mut marks = ReadyMarks::new();
        let _left = marks.leave(ReadyList::new().mark(0));
        assert_eq!(marks.len(), 1);
        marks.set_all();
        assert!(marks.is_empty());
    });
}

#[test]
fn a_caller_that_switches_between_items_loses_none() {
    run("a_caller_that_switches_between_items_loses_none", || {
        let threads = [3, 1, 2].map(|turns| spawn(move || (0..turns).for_each(|_| yield_now())));
        let all: Vec<_> = threads.iter().collect();
        let mut found = Vec::new();
        for ready in iwait(all.iter().copied(), None) {
            found.push(ready.unwrap());
            sleep(SHORT);
        }
        assert_eq!(places(&all, &found), [1, 2, 0]);
    });
}

#[test]
fn an_object_that_is_listed_twice_is_given_twice() {
    run("an_object_that_is_listed_twice_is_given_twice", || {
        let event = Arc::new(Event::new());
        let sender = Arc::clone(&event);
        spawn(move || sender.send(()).unwrap());
        assert_eq!(wait([&event, &event], None, None).unwrap().len(), 2);
        assert_eq!(wait([&event, &event], None, None).unwrap().len(), 2);
    });
}

#[test]
fn a_permit_of_a_waiter_that_has_gone_is_not_lost() {
    run("a_permit_of_a_waiter_that_has_gone_is_not_lost", || {
        let semaphore = Arc::new(Semaphore::new(0));
        let first = Arc::clone(&semaphore);
        let waiting = spawn(move || wait([&*first], None, None).unwrap().len());
        yield_now();
        semaphore.release();
        waiting.kill();
        assert_eq!(wait([&semaphore], LONG, None).unwrap().len(), 1);
        assert!(semaphore.try_acquire());
    });
}

#[test]
fn a_caller_that_waits_for_a_permit_comes_first() {
    run("a_caller_that_waits_for_a_permit_comes_first", || {
        let semaphore = Arc::new(Semaphore::new(0));
        let acquiring = Arc::clone(&semaphore);
        let mut ready = iwait([&*semaphore], SHORT);
        let acquirer = spawn(move || acquiring.acquire().unwrap());
        yield_now();
        semaphore.release();
        assert!(ready.next().is_none());
        acquirer.join().unwrap();
    });
}

#[test]
fn an_event_that_is_reset_at_once_is_still_given() {
    run("an_event_that_is_reset_at_once_is_still_given", || {
        let event = Event::new();
        let mut ready = iwait([&event], None);
        event.send(()).unwrap();
        event.reset().unwrap();
        assert!(ready.next().unwrap().is_ok());
    });
}

#[test]
fn another_os_thread_ends_the_wait() {
    run("another_os_thread_ends_the_wait", || {
        let events: Arc<[Event<()>; 2]> = Arc::default();
        let all: Vec<_> = events.iter().collect();
        let ready = iwait(all.iter().copied(), None);
        let sender = Arc::clone(&events);
        let other = std::thread::spawn(move || {
            sender[1].send(()).unwrap();
            sender[0].send(()).unwrap();
        });
        let found: Vec<_> = ready.map(Result::unwrap).collect();
        assert_eq!(places(&all, &found), [1, 0]);
        other.join().unwrap();
    });
}

#[test]
fn a_watcher_with_a_callback_stays_active_after_a_wait() {
    run("a_watcher_with_a_callback_stays_active_after_a_wait", || {
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let timer = event_loop().repeating(SHORT, SHORT);
        timer.start(move |_, ()| count.set(count.get() + 1)).unwrap();
        assert_eq!(wait([&timer], None, None).unwrap().len(), 1);
        assert!(timer.is_active() && calls.get() == 1);
        drop(iwait([&timer], None));
        assert!(timer.is_active());
    });
}

#[test]
fn a_watcher_that_is_started_during_a_wait_stays_active() {
    run("a_watcher_that_is_started_during_a_wait_stays_active", || {
        let timer = event_loop().timer(LONG);
        let ready = iwait([&timer], None);
        timer.start(|_, ()| ()).unwrap();
        drop(ready);
        assert!(timer.is_active());
        timer.stop();
        let ready = iwait([&timer], None);
        timer.resume().unwrap();
        drop(ready);
        assert!(timer.is_active());
    });
}

#[test]
fn a_watcher_outlives_a_wait_of_its_own_that_is_killed() {
    run("a_watcher_outlives_a_wait_of_its_own_that_is_killed", || {
        let timer = Rc::new(event_loop().timer(5 * SHORT));
        let watcher = Rc::clone(&timer);
        let waiting = spawn(move || watcher.wait(None));
        yield_now();
        let ready = iwait([&timer], None);
        waiting.kill();
        assert!(timer.is_active());
        assert_eq!(ready.count(), 1);
        assert!(!timer.is_active());
    });
}

#[test]
fn the_callback_of_a_stopped_watcher_is_not_called_for_a_wait() {
    run("the_callback_of_a_stopped_watcher_is_not_called_for_a_wait", || {
        for timer in [event_loop().timer(SHORT), event_loop().repeating(SHORT, SHORT)] {
            timer.start(|_, ()| unexpected("it was stopped")).unwrap();
            timer.stop();
            assert_eq!(wait([&timer], None, None).unwrap().len(), 1);
            sleep(2 * SHORT);
            assert!(!timer.is_active());
        }
    });
}

#[test]
fn a_closed_watcher_is_given_at_once() {
    run("a_closed_watcher_is_given_at_once", || {
        let (first, second) = (event_loop().timer(LONG), event_loop().timer(LONG));
        first.close();
        let mut ready = iwait([&first, &second], None);
        assert!(std::ptr::eq(ready.next().unwrap().unwrap(), &raw const first));
        second.close();
        assert!(std::ptr::eq(ready.next().unwrap().unwrap(), &raw const second));
    });
}

#[test]
fn an_io_watcher_is_given_in_each_wait_while_it_is_ready() {
    run("an_io_watcher_is_given_in_each_wait_while_it_is_ready", || {
        let (reader, writer) = pipe().unwrap();
        let (reads, writes) =
            (event_loop().io(reader, Interest::READ).unwrap(), event_loop().io(writer, Interest::WRITE).unwrap());
        for _ in 0..3 {
            assert_eq!(places(&[&reads, &writes], &wait([&reads, &writes], None, 1).unwrap()), [1]);
            assert!(!reads.is_active() && !writes.is_active());
        }
    });
}

#[test]
fn a_wait_on_the_main_loop_is_refused() {
    run("a_wait_on_the_main_loop_is_refused", || {
        let log = Log::new();
        let outcomes = log.clone();
        event_loop().run_callback(move || {
            let event: Event<()> = Event::new();
            let refused = wait([&event], None, None).unwrap_err();
            outcomes.push((refused.kind(), event.waiting()));
        });
        sleep(SHORT);
        assert_eq!(log.take(), [(LoopErrorKind::InMainloop, 0)]);
    });
}

#[test]
fn an_error_of_the_main_loop_ends_the_wait_of_main() {
    run("an_error_of_the_main_loop_ends_the_wait_of_main", || {
        let event: Event<()> = Event::new();
        let mut ready = iwait([&event], None);
        get_hub().schedule_once(Duration::ZERO, || get_hub().fail("the disk is full"));
        assert_eq!(ready.next().unwrap().unwrap_err().kind(), LoopErrorKind::System);
        assert_eq!(event.waiting(), 0);
        assert!(ready.next().is_none());
    });
}

#[test]
fn joining_all_returns_them_in_the_order_of_their_ends() {
    run("joining_all_returns_them_in_the_order_of_their_ends", || {
        let threads = [3, 1, 2].map(|turns| spawn(move || (0..turns).for_each(|_| yield_now())));
        let all: Vec<_> = threads.iter().collect();
        assert_eq!(places(&all, &joinall(&threads, None).unwrap()), [1, 2, 0]);
        let never = spawn(|| sleep(LONG));
        assert!(joinall([&never], SHORT).unwrap().is_empty());
        assert!(!never.is_finished());
        never.kill();
    });
}

#[test]
fn killing_all_kills_each_before_any_runs() {
    run("killing_all_kills_each_before_any_runs", || {
        let never = || -> () { panic!("killed before it began") };
        let hour = || sleep(LONG);
        let begun = [spawn(hour), spawn(hour)];
        yield_now();
        let [first, second] = begun;
        let threads = [first, spawn(never), spawn_later(LONG, never), second];
        assert_eq!(killall(&threads, None).unwrap(), 0);
        assert_eq!(get_hub().stats().timers, 0);
        assert!(threads.into_iter().all(|green| green.join().unwrap_err().is_kill()));
        assert_eq!(killall(&[] as &[GreenThread<()>], None).unwrap(), 0);
    });
}

#[test]
fn killing_all_with_an_error_gives_it_to_their_waiters() {
    run("killing_all_with_an_error_gives_it_to_their_waiters", || {
        let threads = [spawn(|| sleep(LONG)), spawn(|| sleep(LONG))];
        yield_now();
        assert_eq!(killall_with(&threads, GreenError::custom("shutting down"), None).unwrap(), 0);
        for green in threads {
            assert_eq!(green.join().unwrap_err().to_string(), "shutting down");
        }
    });
}

#[test]
fn killing_all_returns_the_number_of_survivors() {
    run("killing_all_returns_the_number_of_survivors", || {
        let go_on: Arc<Event<()>> = Arc::default();
        let gate = Arc::clone(&go_on);
        let shielded = spawn(move || shield(|| gate.wait().unwrap()));
        let plain = spawn(|| sleep(LONG));
        yield_now();
        let threads = [shielded, plain];
        assert_eq!(killall(&threads, SHORT).unwrap(), 1);
        assert!(!threads[0].is_finished() && threads[1].is_finished());
        go_on.send(()).unwrap();
        assert_eq!(killall(&threads, None).unwrap(), 0);
    });
}

/// Returns a timer, and a green thread that waits for it and writes the end of its wait to `log`.
fn waited_timer(log: &Log<String>) -> (Rc<Timer>, GreenThread<()>) {
    let timer = Rc::new(event_loop().timer(LONG));
    let (watcher, outcomes) = (Rc::clone(&timer), log.clone());
    let waiting = spawn(move || outcomes.push(watcher.wait(None).unwrap_err().to_string()));
    yield_now();
    (timer, waiting)
}

#[test]
fn the_function_runs_after_all_waiters_have_their_error() {
    run("the_function_runs_after_all_waiters_have_their_error", || {
        let log = Log::new();
        let idle = event_loop().timer(LONG);
        let (waited, waiting): (Vec<_>, Vec<_>) = [(), ()].map(|()| waited_timer(&log)).into_iter().unzip();
        let then = log.clone();
        let watchers = [&idle as &dyn AnyWatcher].into_iter().chain(waited.iter().map(|timer| &**timer as _));
        cancel_waits_close_and_then(watchers, GreenError::custom("closing"), move || then.push("then".to_owned()));
        log.push("returned".to_owned());
        assert!(matches!(idle.start(|_, ()| ()), Err(WatcherError::Closed)), "it is closed before the function runs");
        assert!(waited.iter().all(|timer| !timer.is_active()));
        joinall(&waiting, None).unwrap();
        sleep(SHORT);
        let cancelled = "the wait was cancelled: closing";
        assert_eq!(log.take(), ["returned", cancelled, cancelled, "then"]);
    });
}

#[test]
fn an_iterator_that_panics_closes_no_watcher() {
    run("an_iterator_that_panics_closes_no_watcher", || {
        let log = Log::new();
        let (waited, waiting) = waited_timer(&log);
        let watchers = (0..2).map(|number| if number == 0 { &*waited as &dyn AnyWatcher } else { quiet_panic("it") });
        let call = || cancel_waits_close_and_then(watchers, GreenError::Kill, || unexpected("the call has panicked"));
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        assert!(waited.is_active(), "its wait goes on");
        waited.close();
        waiting.join().unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn the_function_runs_at_once_if_there_is_no_waiter() {
    run("the_function_runs_at_once_if_there_is_no_waiter", || {
        let log = Log::new();
        let timer = event_loop().timer(LONG);
        let none: Option<&dyn AnyWatcher> = None;
        let then = log.clone();
        let watchers = [none, Some(&timer)].into_iter().flatten();
        cancel_waits_close_and_then(watchers, GreenError::Kill, move || then.push("then"));
        assert_eq!(log.take(), ["then"]);
        assert!(matches!(timer.wait(None), Err(WaitError::Watcher(WatcherError::Closed))));
    });
}

#[test]
fn a_wait_that_was_served_before_a_cancellation_keeps_its_event() {
    run("a_wait_that_was_served_before_a_cancellation_keeps_its_event", || {
        let log = Log::new();
        let timer = Rc::new(event_loop().timer(LONG));
        let (watcher, outcomes) = (Rc::clone(&timer), log.clone());
        let waiting = spawn(move || outcomes.push(watcher.wait(None).is_ok()));
        yield_now();
        // The callback runs in the turn that delivers the event, before the waiter runs.
        let check = event_loop().check();
        check.set_priority(greenhub::gevent::Priority::Lowest).unwrap();
        let closed = Rc::clone(&timer);
        check
            .start(move |check, ()| {
                check.stop();
                cancel_waits_close_and_then([&*closed as _], GreenError::Kill, || ());
            })
            .unwrap();
        timer.feed(());
        waiting.join().unwrap();
        assert_eq!(log.take(), [true]);
    });
}

#[test]
fn a_wait_that_is_killed_meanwhile_is_not_cancelled() {
    run("a_wait_that_is_killed_meanwhile_is_not_cancelled", || {
        let log = Log::new();
        let (timer, waiting) = waited_timer(&log);
        let then = log.clone();
        cancel_waits_close_and_then([&*timer as _], GreenError::Kill, move || then.push("then".to_owned()));
        waiting.kill();
        sleep(SHORT);
        assert_eq!(log.take(), ["then"]);
        assert!(waiting.join().unwrap_err().is_kill());
    });
}
