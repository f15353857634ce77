//! The ends of loops, and of all their work.

use std::cell::RefCell;
use std::io::{Write, pipe};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::{alone, run};
use crate::{LONG, Log, SHORT};
use greenhub::debug::set_report_stream;
use greenhub::gevent::{
    Run, WaitError, Watcher, WatcherError, cancel_waits_close_and_then, event_loop, iwait, spawn_later,
};
use greenhub::hub::LoopErrorKind;
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, Interest, get_hub, sleep, spawn, use_hub};

/// Returns two green threads that wait for each other.
fn deadlock() -> [Rc<GreenThread<()>>; 2] {
    let (sender, receiver) = channel::<Rc<GreenThread<()>>>();
    let left = Rc::new(spawn(move || drop(receiver.recv().unwrap().wait_for_end())));
    let waits = Rc::clone(&left);
    let right = Rc::new(spawn(move || waits.wait_for_end().unwrap()));
    sender.send(Rc::clone(&right)).unwrap();
    yield_now();
    [left, right]
}

#[test]
fn main_gets_the_loop_exit_and_the_other_waiter_can_still_be_woken() {
    run("main_gets_the_loop_exit_and_the_other_waiter_can_still_be_woken", || {
        let [left, right] = deadlock();
        for _ in 0..2 {
            let waited = left.wait_for_end();
            assert!(matches!(waited, Err(GreenError::Loop(error)) if error.kind() == LoopErrorKind::LoopExit));
            assert!(!left.is_finished() && !right.is_finished());
        }
        right.kill();
        left.wait_for_end().unwrap();
    });
}

#[test]
fn a_loop_works_again_after_each_join() {
    run("a_loop_works_again_after_each_join", || {
        for _ in 0..3 {
            assert!(get_hub().join(None).unwrap());
            sleep(SHORT);
            event_loop().timer(SHORT).wait(None).unwrap();
        }
    });
}

#[test]
fn a_join_after_the_end_of_a_hub_returns_at_once() {
    run("a_join_after_the_end_of_a_hub_returns_at_once", || {
        let timer = event_loop().timer(LONG);
        timer.start(|_, ()| ()).unwrap();
        assert!(!get_hub().join(Duration::ZERO).unwrap());
        let former = get_hub();
        use_hub(former.name()).unwrap();
        let green = spawn(|| sleep(LONG));
        assert!(former.join(None).unwrap());
        assert!(!green.is_started(), "the work of the next hub is not run");
        assert!(!get_hub().join(Duration::ZERO).unwrap());
        green.kill();
    });
}

#[test]
fn the_end_of_a_hub_calls_and_reports_nothing() {
    alone("the_end_of_a_hub_calls_and_reports_nothing", || {
        let (sender, reports) = channel();
        set_report_stream(move |report| sender.send(report.to_string()).unwrap());
        sleep(SHORT);
        event_loop().run_callback(|| panic!("called after the end of its hub"));
        let timer = event_loop().timer(Duration::ZERO);
        timer.start(|_, ()| panic!("called after the end of its hub")).unwrap();
        use_hub(get_hub().name()).unwrap();
        sleep(SHORT);
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), [""; 0]);
    });
}

#[test]
fn a_wait_for_an_uncounted_timer_does_not_keep_the_loop_alive() {
    run("a_wait_for_an_uncounted_timer_does_not_keep_the_loop_alive", || {
        let timer = event_loop().timer(LONG);
        timer.set_counted(false);
        let sleeper = spawn(move || timer.wait(None).map(drop));
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert!(!sleeper.is_finished());
        sleeper.kill();
    });
}

#[test]
fn a_delayed_start_keeps_the_loop_alive() {
    run("a_delayed_start_keeps_the_loop_alive", || {
        let green = spawn_later(SHORT, || 7);
        assert!(!green.is_started());
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert!(green.is_finished());
        assert_eq!(green.join().unwrap(), 7);
        let later = spawn_later(LONG, || ());
        assert!(event_loop().run(Run::NoWait).unwrap());
        assert!(later.cancel());
        assert!(!event_loop().run(Run::NoWait).unwrap());
    });
}

#[test]
fn the_body_of_a_green_thread_is_dropped_at_its_end() {
    run("the_body_of_a_green_thread_is_dropped_at_its_end", || {
        let argument = Rc::new(());
        let inside = Rc::clone(&argument);
        let green = spawn(move || drop(Rc::clone(&inside)));
        assert_eq!(Rc::strong_count(&argument), 2);
        green.wait_for_end().unwrap();
        assert_eq!(Rc::strong_count(&argument), 1, "the handle keeps the result alone");
        green.join().unwrap();
    });
}

#[test]
fn an_abort_stops_timers_and_ends_the_waits_for_them() {
    run("an_abort_stops_timers_and_ends_the_waits_for_them", || {
        let timer = event_loop().repeating(LONG, LONG);
        timer.start(|_, ()| ()).unwrap();
        let waited = Rc::new(event_loop().timer(LONG));
        let listed = Rc::new(event_loop().timer(LONG));
        let (waits, waits_for_several) = (Rc::clone(&waited), Rc::clone(&listed));
        let one = spawn(move || waits.wait(None));
        let several = spawn(move || iwait([&*waits_for_several], None).next().map(|ready| ready.is_ok()));
        sleep(SHORT);
        get_hub().abort_wait().unwrap();
        let ended = one.join().unwrap();
        assert!(matches!(&ended, Err(WaitError::Loop(error)) if error.kind() == LoopErrorKind::Aborted), "{ended:?}");
        assert_eq!(several.join().unwrap(), Some(true));
        assert!(!timer.is_active() && !waited.is_active() && !listed.is_active());
        assert_eq!(event_loop().counts().active, 0);
        assert!(!event_loop().run(Run::NoWait).unwrap());
    });
}

#[test]
fn a_timer_starts_again_after_an_abort() {
    run("a_timer_starts_again_after_an_abort", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = event_loop().timer(5 * SHORT);
        timer.start(move |_, ()| calls.push(())).unwrap();
        sleep(SHORT);
        get_hub().abort_wait().unwrap();
        timer.resume().unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert!(log.len() > 0);
    });
}

#[test]
fn a_watcher_of_a_file_keeps_its_period_across_an_abort() {
    run("a_watcher_of_a_file_keeps_its_period_across_an_abort", || {
        let stat = event_loop().stat("/", LONG);
        stat.start(|_, _| ()).unwrap();
        sleep(SHORT);
        get_hub().abort_wait().unwrap();
        assert!(stat.is_active());
        assert_eq!(get_hub().stats().timers, 1);
    });
}

#[test]
fn an_abort_does_not_discard_cancellations() {
    run("an_abort_does_not_discard_cancellations", || {
        let (reader, _writer) = pipe().unwrap();
        let watcher = Rc::new(event_loop().io(reader, Interest::READ).unwrap());
        let log = Log::new();
        for closes in [false, true] {
            let waits = Rc::clone(&watcher);
            let waiting = spawn(move || waits.wait(None));
            sleep(SHORT);
            let called = log.clone();
            if closes {
                cancel_waits_close_and_then([&*watcher as _], GreenError::Kill, move || called.push(()));
            } else {
                assert!(watcher.cancel_wait(GreenError::Kill));
            }
            get_hub().abort_wait().unwrap();
            assert!(matches!(waiting.join().unwrap(), Err(WaitError::Cancelled(GreenError::Kill))));
        }
        sleep(SHORT);
        assert_eq!(log.len(), 1, "the function is called by the next loop");
    });
}

#[test]
fn a_queued_callback_that_an_abort_discards_is_not_pending() {
    run("a_queued_callback_that_an_abort_discards_is_not_pending", || {
        sleep(SHORT);
        let discarded = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&discarded);
        event_loop().run_callback(move || {
            slot.replace(Some(event_loop().run_callback(|| crate::unexpected("the loop was aborted"))));
            get_hub().abort();
        });
        event_loop().timer(LONG).wait(None).unwrap_err();
        let discarded = discarded.take().unwrap();
        assert!(!discarded.is_pending() && !discarded.stop());
    });
}

#[test]
fn the_loop_of_a_replaced_hub_touches_nothing_of_the_next_one() {
    run("the_loop_of_a_replaced_hub_touches_nothing_of_the_next_one", || {
        let (reader, mut writer) = pipe().unwrap();
        let fd = reader.as_raw_fd();
        let io = event_loop().io(reader, Interest::READ).unwrap();
        io.start(|_, _| ()).unwrap();
        let former = event_loop();
        use_hub(get_hub().name()).unwrap();
        let dropped = Rc::new(());
        let inside = Rc::clone(&dropped);
        let callback = former.run_callback(move || crate::unexpected(&format!("the hub of {inside:?} is gone")));
        assert_eq!(Rc::strong_count(&dropped), 1, "the closure is dropped");
        assert!(!callback.is_pending() && !callback.stop());
        let green = spawn(|| sleep(LONG));
        for how in [Run::UntilIdle, Run::Once, Run::NoWait] {
            assert_eq!(former.run(how).unwrap_err().kind(), LoopErrorKind::HubReplaced);
        }
        assert!(!green.is_started());
        assert_eq!((former.now(), former.update_now()), Default::default());
        assert!(!former.closing_fd(fd) && !io.is_pending());
        writer.write_all(b"x").unwrap();
        sleep(SHORT);
        assert!(!io.is_pending() && !io.is_active());
        assert!(matches!(io.resume(), Err(WatcherError::HubDestroyed)));
        assert!(matches!(io.wait(None), Err(WaitError::Watcher(WatcherError::HubDestroyed))));
        let timer = former.timer(SHORT);
        assert!(matches!(timer.start(|_, ()| ()), Err(WatcherError::HubDestroyed)));
        assert!(matches!(timer.again(|_, ()| ()), Err(WatcherError::HubDestroyed)));
        assert_eq!((former.counts().iteration, event_loop().counts().active), (0, 0));
        assert!(format!("{former:?}").contains("destroyed"));
        green.kill();
    });
}

#[test]
fn a_hub_has_a_label_and_a_debug_text_also_when_it_is_gone() {
    run("a_hub_has_a_label_and_a_debug_text_also_when_it_is_gone", || {
        let hub = get_hub();
        assert_eq!(hub.label(), "");
        hub.set_label("requests");
        let timer = event_loop().timer(LONG);
        timer.start(|_, ()| ()).unwrap();
        assert_eq!(hub.label(), "requests");
        let shown = format!("{hub:?} {:?}", event_loop());
        for part in [hub.name(), "requests", "timers: 1", "pending: 0", "active: 1"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        let former = event_loop();
        use_hub(hub.name()).unwrap();
        let shown = format!("{hub:?} {former:?}");
        assert!(shown.contains("current: false") && shown.contains("destroyed"), "{shown}");
        assert_eq!((hub.label(), get_hub().label()), Default::default());
    });
}
