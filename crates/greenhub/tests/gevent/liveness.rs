//! Watchers that keep the loop alive, and the ways to run it.

use std::io::pipe;
use std::process::{Command, Stdio};
use std::rc::Rc;

use crate::support::descriptors::until;
use crate::support::hubs::use_manual_clock;
use crate::support::run;
use crate::support::web_server::Directory;
use crate::{LONG, Log, SHORT, unexpected};
use greenhub::gevent::{Async, Check, Child, Fork, Idle, Io, Prepare, Run, Signal, Stat, Timer, Watcher, event_loop};
use greenhub::hub::{LoopErrorKind, Time};
use greenhub::{Interest, get_hub, spawn};
use nix::sys::signal::Signal as Kill;

#[test]
fn a_run_with_nothing_active_returns_at_once() {
    run("a_run_with_nothing_active_returns_at_once", || {
        for how in [Run::UntilIdle, Run::Once, Run::NoWait, Run::UntilIdle] {
            assert!(!event_loop().run(how).unwrap(), "{how:?}");
        }
    });
}

#[test]
fn a_watcher_that_is_not_counted_does_not_keep_the_loop_alive() {
    run("a_watcher_that_is_not_counted_does_not_keep_the_loop_alive", || {
        let (reader, _writer) = pipe().unwrap();
        let io = event_loop().io(reader, Interest::READ).unwrap();
        let timer = event_loop().timer(LONG);
        let check = event_loop().check();
        io.set_counted(false);
        io.start(|_, _| ()).unwrap();
        timer.start(|_, ()| ()).unwrap();
        check.start(|_, ()| ()).unwrap();
        assert_eq!(event_loop().counts().active, 2);
        assert!(event_loop().run(Run::NoWait).unwrap());
        for _ in 0..2 {
            timer.set_counted(false);
            check.set_counted(false);
        }
        assert_eq!(event_loop().counts().active, 0);
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        io.set_counted(true);
        assert!(event_loop().run(Run::NoWait).unwrap());
        assert_eq!(event_loop().counts().active, 1);
        assert!(io.is_active() && timer.is_active() && check.is_active());
    });
}

#[test]
fn each_kind_of_watcher_keeps_the_loop_alive() {
    run("each_kind_of_watcher_keeps_the_loop_alive", || {
        fn check(watcher: &impl Watcher) {
            assert!(event_loop().run(Run::NoWait).unwrap(), "{watcher:?}");
            watcher.stop();
            assert!(!event_loop().run(Run::NoWait).unwrap(), "{watcher:?}");
        }
        let (reader, _writer) = pipe().unwrap();
        let io = event_loop().io(reader, Interest::READ).unwrap();
        io.start(|_, _| ()).unwrap();
        check(&io);
        let timer = event_loop().timer(LONG);
        timer.start(|_, ()| ()).unwrap();
        check(&timer);
        let prepare = event_loop().prepare();
        prepare.start(|_, ()| ()).unwrap();
        check(&prepare);
        let idle = event_loop().idle();
        idle.start(|_, ()| ()).unwrap();
        check(&idle);
        let fork = event_loop().fork();
        fork.start(|_, ()| ()).unwrap();
        check(&fork);
    });
}

#[test]
fn one_counted_watcher_of_a_direction_is_enough() {
    run("one_counted_watcher_of_a_direction_is_enough", || {
        let (reader, _writer) = pipe().unwrap();
        let reader = Rc::new(reader);
        let watchers = [(), ()].map(|()| event_loop().io(Rc::clone(&reader), Interest::READ).unwrap());
        watchers.iter().for_each(|watcher| watcher.start(|_, _| ()).unwrap());
        watchers[0].set_counted(false);
        assert!(event_loop().run(Run::NoWait).unwrap());
        watchers[1].stop();
        assert!(!event_loop().run(Run::NoWait).unwrap());
        watchers[0].set_counted(true);
        assert!(event_loop().run(Run::NoWait).unwrap());
    });
}

#[test]
fn a_single_run_waits_for_one_batch() {
    run("a_single_run_waits_for_one_batch", || {
        let log = Log::new();
        let timers = [SHORT, LONG].map(|after| {
            let timer = event_loop().timer(after);
            let log = log.clone();
            timer.start(move |_, ()| log.push(after)).unwrap();
            timer
        });
        assert!(event_loop().run(Run::Once).unwrap());
        while log.len() == 0 {
            assert!(event_loop().run(Run::Once).unwrap());
        }
        assert_eq!(log.take(), [SHORT]);
        drop(timers);
    });
}

#[test]
fn a_single_run_does_not_wait_beyond_an_event_that_has_come() {
    run("a_single_run_does_not_wait_beyond_an_event_that_has_come", || {
        let (log, clock) = (Log::new(), use_manual_clock());
        let timers = [SHORT, LONG].map(|after| {
            let timer = event_loop().timer(after);
            let log = log.clone();
            timer.start(move |_, ()| log.push(after)).unwrap();
            timer
        });
        // The first turn of the run wakes main before it delivers the event.
        clock.advance(SHORT);
        assert!(event_loop().run(Run::Once).unwrap());
        assert_eq!(log.take(), [SHORT]);
        assert_eq!(clock.now(), Time::from_nanos(SHORT.as_nanos() as u64));
        drop(timers);
    });
}

#[test]
fn a_run_without_a_wait_does_not_wait() {
    run("a_run_without_a_wait_does_not_wait", || {
        let timer = event_loop().timer(LONG);
        timer.start(|_, ()| unexpected("an hour has passed")).unwrap();
        assert!(event_loop().run(Run::NoWait).unwrap());
    });
}

#[test]
fn green_threads_run_beside_watchers() {
    run("green_threads_run_beside_watchers", || {
        let log = Log::new();
        let timer = event_loop().repeating(SHORT, SHORT);
        let ticks = log.clone();
        timer.start(move |_, ()| ticks.push(())).unwrap();
        timer.set_counted(false);
        let calls = log.clone();
        spawn(move || {
            while calls.len() < 3 {
                greenhub::sleep(SHORT);
            }
        });
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert!(log.len() >= 3);
    });
}

#[test]
fn only_the_main_greenlet_runs_the_loop() {
    run("only_the_main_greenlet_runs_the_loop", || {
        let refused = spawn(|| event_loop().run(Run::UntilIdle).unwrap_err().kind());
        assert_eq!(refused.join().unwrap(), LoopErrorKind::InMainloop);
    });
}

#[test]
fn each_os_thread_has_a_loop_of_its_own() {
    run("each_os_thread_has_a_loop_of_its_own", || {
        let timer = event_loop().timer(LONG);
        timer.start(|_, ()| ()).unwrap();
        let other = std::thread::spawn(|| event_loop().counts().active);
        assert_eq!(other.join().unwrap(), 0);
        assert_eq!(event_loop().backend(), get_hub().name());
    });
}

#[test]
fn a_change_of_the_count_after_the_end_of_the_hub_does_nothing() {
    run("a_change_of_the_count_after_the_end_of_the_hub_does_nothing", || {
        for counted in [false, true] {
            let timer = event_loop().timer(LONG);
            let prepare = event_loop().prepare();
            timer.set_counted(counted);
            timer.start(|_, ()| ()).unwrap();
            prepare.start(|_, ()| ()).unwrap();
            let former = event_loop();
            greenhub::use_hub(get_hub().name()).unwrap();
            for watcher_is_counted in [!counted, counted, !counted] {
                timer.set_counted(watcher_is_counted);
                prepare.set_counted(watcher_is_counted);
            }
            drop((timer, prepare));
            assert_eq!(former.counts().active, 0);
        }
    });
}

/// Applies an expression to a watcher of any kind.
macro_rules! on {
    ($any:expr, $watcher:ident => $value:expr) => {
        match $any {
            Any::Io($watcher) => $value,
            Any::Timer($watcher) => $value,
            Any::Prepare($watcher) => $value,
            Any::Check($watcher) => $value,
            Any::Idle($watcher) => $value,
            Any::Fork($watcher) => $value,
            Any::Async($watcher) => $value,
            Any::Signal($watcher) => $value,
            Any::Child($watcher) => $value,
            Any::Stat($watcher) => $value,
        }
    };
}

enum Any {
    Io(Io),
    Timer(Timer),
    Prepare(Prepare),
    Check(Check),
    Idle(Idle),
    Fork(Fork),
    Async(Async),
    Signal(Signal),
    Child(Child),
    Stat(Stat),
}

#[test]
fn the_loop_lives_as_long_as_a_counted_watcher_of_any_kind_is_active() {
    run("the_loop_lives_as_long_as_a_counted_watcher_of_any_kind_is_active", || {
        let (reader, _writer) = pipe().unwrap();
        let reader = Rc::new(reader);
        let mut process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (number, directory) = (process.id(), Directory::new());
        let make = |kind: usize| match kind {
            0 | 1 => Any::Io(event_loop().io(Rc::clone(&reader), Interest::READ).unwrap()),
            2 => Any::Timer(event_loop().timer(LONG)),
            3 => Any::Timer(event_loop().repeating(LONG, LONG)),
            4 => Any::Prepare(event_loop().prepare()),
            5 => Any::Check(event_loop().check()),
            6 => Any::Idle(event_loop().idle()),
            7 => Any::Fork(event_loop().fork()),
            8 => Any::Async(event_loop().async_()),
            9 => Any::Signal(event_loop().signal(Kill::SIGUSR2 as i32).unwrap()),
            10 => Any::Child(event_loop().child(number).unwrap()),
            _ => Any::Stat(event_loop().stat(directory.path(), LONG)),
        };
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut all: Vec<Any> = (0..12).map(make).collect();
            for step in 0..100 {
                let index = random.usize(..all.len());
                match random.u8(..6) {
                    0 | 1 => on!(&all[index], watcher => watcher.start(|_, _| ()).unwrap()),
                    2 | 3 => on!(&all[index], watcher => watcher.stop()),
                    4 => on!(&all[index], watcher => watcher.set_counted(random.bool())),
                    _ => all[index] = make(index),
                }
                let counts = |any: &&Any| on!(any, watcher => watcher.is_active() && watcher.is_counted());
                let expected = all.iter().filter(counts).count();
                assert_eq!(event_loop().counts().active, expected, "seed {seed}, step {step}");
                if expected == 0 {
                    // A look at a file keeps the loop alive until it ends.
                    until(|| !event_loop().run(Run::NoWait).unwrap());
                }
                assert_eq!(event_loop().run(Run::NoWait).unwrap(), expected != 0, "seed {seed}, step {step}");
            }
        }
        drop(process.stdin.take());
        process.wait().unwrap();
    });
}
