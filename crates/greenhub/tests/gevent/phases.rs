//! Watchers of the phases of a turn, and queued callbacks.

use std::io::{Write, pipe};
use std::rc::Rc;
use std::time::Duration;

use crate::support::fork::{ends_well, forked};
use crate::support::{in_child, run};
use crate::{Log, SHORT, unexpected};
use greenhub::gevent::{Loop, Priority, Run, Watcher, event_loop};
use greenhub::{Interest, get_hub, sleep, spawn};

#[test]
fn prepare_comes_before_the_wait_and_check_after_it() {
    run("prepare_comes_before_the_wait_and_check_after_it", || {
        let log = Log::new();
        let (prepare, check) = (event_loop().prepare(), event_loop().check());
        let (prepared, checked) = (log.clone(), log.clone());
        prepare.start(move |_, ()| prepared.push(("prepare", get_hub().stats().waits))).unwrap();
        check.start(move |_, ()| checked.push(("check", get_hub().stats().waits))).unwrap();
        // The green thread that the wait has made ready runs before the check of that wait.
        sleep(SHORT);
        sleep(SHORT);
        drop((prepare, check));
        let log = log.take();
        assert_eq!((log[0].0, log[1].0), ("prepare", "check"), "{log:?}");
        assert_eq!(log[1].1, log[0].1 + 1, "one wait lies between them");
    });
}

#[test]
fn an_event_is_delivered_with_the_check_of_its_turn_by_priority() {
    run("an_event_is_delivered_with_the_check_of_its_turn_by_priority", || {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let log = Log::new();
        let (io, check) = (event_loop().io(reader, Interest::READ).unwrap(), event_loop().check());
        check.set_priority(greenhub::gevent::Priority::Low).unwrap();
        let (read, checked) = (log.clone(), log.clone());
        check.start(move |_, ()| checked.push("check")).unwrap();
        io.start(move |io, _| {
            read.push("io");
            io.stop();
        })
        .unwrap();
        get_hub().run_once(None).unwrap();
        assert_eq!(log.take(), ["io", "check"]);
    });
}

#[test]
fn an_idle_watcher_is_called_when_nothing_else_happens() {
    run("an_idle_watcher_is_called_when_nothing_else_happens", || {
        let log = Log::new();
        let (idle, busy) = (event_loop().idle(), event_loop().timer(Duration::ZERO));
        let (idled, fed) = (log.clone(), log.clone());
        idle.start(move |idle, ()| {
            idled.push("idle");
            idle.stop();
        })
        .unwrap();
        busy.start(move |busy, ()| {
            fed.push("busy");
            if fed.len() < 5 {
                busy.feed(());
            }
        })
        .unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), ["busy", "busy", "busy", "busy", "busy", "idle"]);
    });
}

#[test]
fn watchers_of_phases_do_not_keep_a_turn_from_being_idle() {
    run("watchers_of_phases_do_not_keep_a_turn_from_being_idle", || {
        let (prepare, check, other) = (event_loop().prepare(), event_loop().check(), event_loop().idle());
        prepare.start(|_, ()| ()).unwrap();
        check.start(|_, ()| ()).unwrap();
        other.start(|_, ()| ()).unwrap();
        event_loop().idle().wait(None).unwrap();
    });
}

#[test]
fn an_idle_watcher_is_called_between_single_turns() {
    run("an_idle_watcher_is_called_between_single_turns", || {
        let log = Log::new();
        let idle = event_loop().idle();
        let calls = log.clone();
        idle.start(move |_, ()| calls.push(())).unwrap();
        // One turn finds the loop idle, and the next one calls the watcher.
        for _ in 0..10 {
            get_hub().run_once(Duration::ZERO).unwrap();
        }
        assert!(log.len() >= 5, "{}", log.len());
    });
}

#[test]
fn a_green_thread_waits_for_an_idle_turn() {
    run("a_green_thread_waits_for_an_idle_turn", || {
        let log = Log::new();
        for number in 0..3 {
            let log = log.clone();
            event_loop().run_callback(move || log.push(number));
        }
        let idled = log.clone();
        let waiting = spawn(move || {
            event_loop().idle().wait(None).unwrap();
            idled.push(3);
        });
        waiting.join().unwrap();
        assert_eq!(log.take(), [0, 1, 2, 3]);
    });
}

#[test]
fn a_fork_watcher_is_called_once_in_the_child_before_others() {
    in_child(|| {
        let log = Log::new();
        let (fork, prepare) = (event_loop().fork(), event_loop().prepare());
        let (forked_here, prepared) = (log.clone(), log.clone());
        fork.start(move |_, ()| forked_here.push("fork")).unwrap();
        sleep(SHORT);
        prepare.start(move |_, ()| prepared.push("prepare")).unwrap();
        let child = forked(|| {
            sleep(SHORT);
            let log = log.take();
            assert_eq!(log[0], "fork");
            assert_eq!(log.iter().filter(|entry| **entry == "fork").count(), 1, "{log:?}");
        });
        ends_well(child);
        sleep(SHORT);
        assert!(!log.take().contains(&"fork"));
        drop((fork, prepare));
    });
}

#[test]
fn watchers_work_in_a_forked_child() {
    in_child(|| {
        let (reader, mut writer) = pipe().unwrap();
        let log = Log::new();
        let io = event_loop().io(reader, Interest::READ).unwrap();
        let calls = log.clone();
        io.start(move |io, _| {
            calls.push(());
            io.stop();
        })
        .unwrap();
        sleep(SHORT);
        let child = forked(|| {
            writer.try_clone().unwrap().write_all(b"x").unwrap();
            event_loop().run(Run::UntilIdle).unwrap();
            assert_eq!(log.len(), 1);
        });
        ends_well(child);
        writer.write_all(b"x").unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn queued_callbacks_are_called_in_order() {
    run("queued_callbacks_are_called_in_order", || {
        let log = Log::new();
        for number in 0..3 {
            let log = log.clone();
            event_loop().run_callback(move || log.push(number));
        }
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert_eq!(log.take(), [0, 1, 2]);
    });
}

#[test]
fn a_queued_callback_can_be_taken_back() {
    run("a_queued_callback_can_be_taken_back", || {
        let callback = event_loop().run_callback(|| unexpected("it was taken back"));
        assert!(callback.is_pending());
        assert!(callback.stop());
        assert!(!callback.stop() && !callback.is_pending());
        let called = event_loop().run_callback(|| ());
        event_loop().run(Run::UntilIdle).unwrap();
        assert!(!called.is_pending() && !called.stop());
    });
}

#[test]
fn a_callback_that_queues_itself_again_does_not_stop_a_timer() {
    run("a_callback_that_queues_itself_again_does_not_stop_a_timer", || {
        fn queue(log: Log<()>) {
            event_loop().run_callback(move || {
                log.push(());
                queue(log);
            });
        }
        let log = Log::new();
        queue(log.clone());
        event_loop().timer(5 * SHORT).wait(None).unwrap();
        assert!(log.len() > 1);
    });
}

#[test]
fn a_callback_comes_from_another_os_thread() {
    run("a_callback_comes_from_another_os_thread", || {
        let remote = get_hub().remote();
        let (sender, receiver) = greenhub::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            Loop::run_callback_threadsafe(&remote, move || sender.send(std::thread::current().id()).unwrap())
        });
        assert_eq!(receiver.recv().unwrap(), std::thread::current().id());
        other.join().unwrap().unwrap();
    });
}

#[test]
fn the_counters_count() {
    run("the_counters_count", || {
        let depth = Log::new();
        let timer = Rc::new(event_loop().timer(SHORT));
        let counts = event_loop().counts();
        assert_eq!((counts.depth, counts.pending, counts.active), (0, 0, 0));
        let depths = depth.clone();
        timer
            .start(move |timer, ()| {
                depths.push(event_loop().counts().depth);
                timer.stop();
            })
            .unwrap();
        assert_eq!(event_loop().counts().active, 1);
        timer.feed(());
        assert_eq!(event_loop().counts().pending, 1);
        sleep(3 * SHORT);
        assert_eq!(depth.take(), [1]);
        let after = event_loop().counts();
        assert_eq!((after.pending, after.active), (0, 0));
        assert!(after.iteration > counts.iteration);
    });
}

#[test]
fn a_fork_watcher_is_called_before_watchers_of_a_higher_priority() {
    in_child(|| {
        let log = Log::new();
        let (timer, fork) = (event_loop().timer(crate::LONG), event_loop().fork());
        timer.set_priority(Priority::Highest).unwrap();
        let (timed, forked_here) = (log.clone(), log.clone());
        timer.start(move |_, ()| timed.push("timer")).unwrap();
        fork.start(move |_, ()| forked_here.push("fork")).unwrap();
        sleep(SHORT);
        let child = forked(|| {
            timer.feed(());
            sleep(SHORT);
            assert_eq!(log.take(), ["fork", "timer"]);
        });
        ends_well(child);
    });
}
