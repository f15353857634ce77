//! The allocations of watchers that have been used before: there are none.

use std::cell::Cell;
use std::io::{Read, Write, pipe};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use crate::support::counting::allocations;
use crate::support::run;
use crate::{LONG, SHORT};
use greenhub::gevent::{Run, Watcher, event_loop};
use greenhub::{Interest, get_hub};

/// Fills each place of the hub's timer queue once. The queue keeps the memory, which lasts for any later time.
///
/// A round leaves out the place of the tick before it, which is an earlier one in the second round.
fn warm_timers() {
    for _ in 0..2 {
        let timers: Vec<_> =
            (0..2048).map(|tick| get_hub().schedule_once(Duration::from_nanos(tick << 19), || ())).collect();
        event_loop().run(Run::NoWait).unwrap();
        for timer in timers {
            timer.cancel();
        }
        std::thread::sleep(3 * SHORT);
    }
}

/// Asserts that `operation` allocates nothing once it is warm.
///
/// Tables and queues may grow in the first rounds.
#[track_caller]
fn assert_allocates_nothing(mut operation: impl FnMut()) {
    warm_timers();
    (0..50).for_each(|_| operation());
    let before = allocations();
    (0..50).for_each(|_| operation());
    assert_eq!(allocations() - before, 0);
}

#[test]
fn start_and_stop_of_a_warm_watcher_allocate_nothing() {
    run("start_and_stop_of_a_warm_watcher_allocate_nothing", || {
        fn check(watcher: &impl Watcher) {
            watcher.start(|_, _| ()).unwrap();
            watcher.stop();
            assert_allocates_nothing(|| {
                watcher.resume().unwrap();
                watcher.stop();
            });
        }
        let (reader, _writer) = pipe().unwrap();
        check(&event_loop().io(reader, Interest::READ).unwrap());
        check(&event_loop().timer(LONG));
        check(&event_loop().repeating(LONG, LONG));
        check(&event_loop().prepare());
        check(&event_loop().check());
        check(&event_loop().idle());
        check(&event_loop().fork());
        check(&event_loop().async_());
        check(&event_loop().signal(nix::sys::signal::Signal::SIGUSR2 as i32).unwrap());
        let mut process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        check(&event_loop().child(process.id()).unwrap());
        drop(process.stdin.take());
        process.wait().unwrap();
        // A `Stat` is not among them: each of its looks is a job of the pool.
    });
}

#[test]
fn an_event_of_a_timer_allocates_nothing() {
    run("an_event_of_a_timer_allocates_nothing", || {
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let timer = event_loop().timer(SHORT);
        timer.start(move |_, ()| count.set(count.get() + 1)).unwrap();
        timer.stop();
        assert_allocates_nothing(|| {
            timer.resume().unwrap();
            event_loop().run(Run::UntilIdle).unwrap();
        });
        assert_eq!(calls.get(), 100);
    });
}

#[test]
fn a_repeat_of_a_timer_allocates_nothing() {
    run("a_repeat_of_a_timer_allocates_nothing", || {
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let timer = event_loop().repeating(SHORT, SHORT);
        timer.start(move |_, ()| count.set(count.get() + 1)).unwrap();
        assert_allocates_nothing(|| {
            let before = calls.get();
            while calls.get() == before {
                event_loop().run(Run::Once).unwrap();
            }
        });
    });
}

#[test]
fn an_event_of_a_descriptor_allocates_nothing() {
    run("an_event_of_a_descriptor_allocates_nothing", || {
        let (reader, mut writer) = pipe().unwrap();
        let reader = Rc::new(reader);
        let watcher = event_loop().io(Rc::clone(&reader), Interest::READ).unwrap();
        let read = Rc::clone(&reader);
        watcher
            .start(move |watcher, _| {
                assert_eq!((&*read).read(&mut [0; 8]).unwrap(), 1);
                watcher.stop();
            })
            .unwrap();
        assert_allocates_nothing(|| {
            writer.write_all(b"x").unwrap();
            watcher.resume().unwrap();
            event_loop().run(Run::UntilIdle).unwrap();
        });
    });
}

#[test]
fn a_fed_event_allocates_nothing() {
    run("a_fed_event_allocates_nothing", || {
        let timer = event_loop().timer(LONG);
        timer.start(|_, ()| ()).unwrap();
        assert_allocates_nothing(|| {
            timer.feed(());
            while timer.is_pending() {
                event_loop().run(Run::NoWait).unwrap();
            }
        });
    });
}

#[test]
fn a_restart_of_a_timer_allocates_nothing() {
    run("a_restart_of_a_timer_allocates_nothing", || {
        let timer = event_loop().repeating(LONG, LONG);
        timer.start(|_, ()| ()).unwrap();
        assert_allocates_nothing(|| timer.restart().unwrap());
    });
}

#[test]
fn a_wait_for_a_watcher_allocates_nothing() {
    run("a_wait_for_a_watcher_allocates_nothing", || {
        let (watcher, timer) = (event_loop().async_(), event_loop().timer(SHORT));
        let handle = watcher.handle();
        assert_allocates_nothing(|| {
            handle.send();
            watcher.wait(None).unwrap();
            timer.wait(None).unwrap();
        });
    });
}
