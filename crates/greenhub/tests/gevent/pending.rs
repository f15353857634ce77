//! Watchers whose event has come and was not delivered.

use std::cell::RefCell;
use std::io::{PipeReader, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{alone, open_descriptors, run};
use crate::{LONG, Log, SHORT};
use greenhub::gevent::{Io, Priority, Timer, Watcher, event_loop};
use greenhub::hub::Readiness;
use greenhub::thread::yield_now;
use greenhub::{Interest, get_hub, sleep, spawn, trampoline, use_hub};

/// Returns a timer that writes `name` when it is called.
fn named(name: &'static str, log: &Log<&'static str>) -> Timer {
    let (timer, log) = (event_loop().timer(LONG), log.clone());
    timer.start(move |_, ()| log.push(name)).unwrap();
    timer
}

/// Returns a started watcher of a pipe, and the other end.
fn started() -> (Io, std::io::PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let io = event_loop().io(reader, Interest::READ).unwrap();
    io.start(|_, _| ()).unwrap();
    (io, writer)
}

#[test]
fn a_drop_of_a_pending_watcher_closes_its_descriptor() {
    run("a_drop_of_a_pending_watcher_closes_its_descriptor", || {
        let (io, mut writer) = started();
        io.feed(Readiness::READ);
        drop(io);
        writer.write_all(b"x").expect_err("the reader was dropped with its watcher");
    });
}

#[test]
fn a_drop_between_the_report_and_the_call_closes_the_descriptor() {
    run("a_drop_between_the_report_and_the_call_closes_the_descriptor", || {
        let (io, mut writer) = started();
        let kept = Rc::new(RefCell::new(Some(io)));
        let (reader, mut other) = pipe().unwrap();
        let taken = Rc::clone(&kept);
        // The same wait reports both descriptors, and the green thread runs before the callback.
        let green = spawn(move || {
            trampoline(&reader, Interest::READ, None).unwrap();
            drop(taken.take());
        });
        yield_now();
        sleep(SHORT);
        other.write_all(b"x").unwrap();
        writer.write_all(b"x").unwrap();
        green.join().unwrap();
        writer.write_all(b"x").expect_err("the reader was dropped with its watcher");
    });
}

#[test]
fn dropped_pending_watchers_leave_no_descriptor_open() {
    alone("dropped_pending_watchers_leave_no_descriptor_open", || {
        sleep(SHORT);
        let before = open_descriptors();
        for _ in 0..100 {
            let (io, _writer) = started();
            io.feed(Readiness::READ);
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_pending_watcher_that_was_dropped_is_freed() {
    run("a_pending_watcher_that_was_dropped_is_freed", || {
        struct Owner(PipeReader, #[allow(dead_code)] Arc<()>);
        impl AsFd for Owner {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
        let owned = Arc::new(());
        for is_stopped in [false, true] {
            let (reader, _writer) = pipe().unwrap();
            let io = event_loop().io(Owner(reader, Arc::clone(&owned)), Interest::READ).unwrap();
            io.start(|_, _| ()).unwrap();
            io.feed(Readiness::READ);
            if is_stopped {
                io.stop();
            }
            drop(io);
            assert_eq!(Arc::strong_count(&owned), 1);
        }
    });
}

#[test]
fn a_pending_watcher_of_a_replaced_hub_is_freed() {
    run("a_pending_watcher_of_a_replaced_hub_is_freed", || {
        let (io, mut writer) = started();
        io.feed(Readiness::READ);
        use_hub(get_hub().name()).unwrap();
        assert!(!io.is_pending(), "its hub is gone");
        io.feed(Readiness::READ);
        assert!(!io.is_pending(), "its hub is gone");
        drop(io);
        writer.write_all(b"x").expect_err("the reader was dropped with its watcher");
    });
}

#[test]
fn a_stopped_watcher_loses_its_place_to_its_new_priority() {
    run("a_stopped_watcher_loses_its_place_to_its_new_priority", || {
        let log = Log::new();
        let (first, second) = (named("lowest", &log), named("normal", &log));
        first.feed(());
        first.stop();
        first.set_priority(Priority::Lowest).unwrap();
        first.resume().unwrap();
        second.feed(());
        first.feed(());
        sleep(SHORT);
        assert_eq!(log.take(), ["normal", "lowest"]);
    });
}

#[test]
fn a_stopped_watcher_loses_its_place_in_the_order() {
    run("a_stopped_watcher_loses_its_place_in_the_order", || {
        let log = Log::new();
        for pause in [Duration::ZERO, 5 * SHORT] {
            let (first, second) = (named("first", &log), named("second", &log));
            first.feed(());
            first.stop();
            sleep(pause);
            first.resume().unwrap();
            second.feed(());
            first.feed(());
            sleep(SHORT);
            assert_eq!(log.take(), ["second", "first"]);
        }
    });
}

#[test]
fn a_priority_that_is_set_while_pending_takes_effect() {
    run("a_priority_that_is_set_while_pending_takes_effect", || {
        let log = Log::new();
        let (first, second) = (named("lowest", &log), named("normal", &log));
        first.stop();
        first.feed(());
        second.feed(());
        first.set_priority(Priority::Lowest).unwrap();
        sleep(SHORT);
        assert_eq!(log.take(), ["normal", "lowest"]);
    });
}

#[test]
fn the_order_of_pending_watchers_is_that_of_a_list() {
    run("the_order_of_pending_watchers_is_that_of_a_list", || {
        const PRIORITIES: [Priority; 3] = [Priority::Lowest, Priority::Normal, Priority::Highest];
        let log = Log::new();
        for seed in 0..30 {
            let mut random = fastrand::Rng::with_seed(seed);
            let watchers: Vec<Timer> = (0..12)
                .map(|number| {
                    let (timer, log) = (event_loop().timer(LONG), log.clone());
                    timer.start(move |_, ()| log.push(number)).unwrap();
                    timer.stop();
                    timer
                })
                .collect();
            let mut listed: Vec<usize> = Vec::new();
            for _ in 0..200 {
                let number = random.usize(..watchers.len());
                match random.u8(..4) {
                    0 => {
                        watchers[number].stop();
                        listed.retain(|other| *other != number);
                    }
                    1 => {
                        watchers[number].set_priority(PRIORITIES[random.usize(..3)]).unwrap();
                        if listed.contains(&number) {
                            listed.retain(|other| *other != number);
                            listed.push(number);
                        }
                    }
                    _ => {
                        watchers[number].feed(());
                        if !listed.contains(&number) {
                            listed.push(number);
                        }
                    }
                }
            }
            listed.sort_by_key(|number| std::cmp::Reverse(watchers[*number].priority()));
            sleep(SHORT);
            assert_eq!(log.take(), listed, "seed {seed}");
        }
    });
}

/// An owner of a descriptor whose destructor panics.
struct Fragile(PipeReader);

impl AsFd for Fragile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        crate::support::green::quiet_panic("the owner of the descriptor");
    }
}

#[test]
fn panicking_destructors_of_descriptors_leave_the_other_watchers_alone() {
    run("panicking_destructors_of_descriptors_leave_the_other_watchers_alone", || {
        let log = Log::new();
        let (prepares, checks) = (log.clone(), log.clone());
        let (prepare, check) = (event_loop().prepare(), event_loop().check());
        prepare.start(move |_, ()| prepares.push("prepare")).unwrap();
        check.start(move |_, ()| checks.push("check")).unwrap();
        for _ in 0..3 {
            let (reader, mut writer) = pipe().unwrap();
            let own: Rc<RefCell<Option<Io>>> = Rc::default();
            let io = event_loop().io(Fragile(reader), Interest::READ).unwrap();
            let slot = Rc::clone(&own);
            io.start(move |_, _| drop(slot.take())).unwrap();
            own.replace(Some(io));
            writer.write_all(b"x").unwrap();
            while own.borrow().is_some() {
                sleep(SHORT);
            }
            sleep(SHORT);
            log.take();
            sleep(2 * SHORT);
            let calls = log.take();
            assert!(calls.contains(&"prepare") && calls.contains(&"check"), "{calls:?}");
        }
        let async_ = event_loop().async_();
        async_.start(|_, ()| ()).unwrap();
        drop((prepare, check));
        assert!(event_loop().run(greenhub::gevent::Run::NoWait).unwrap(), "it keeps the loop alive");
    });
}

#[test]
fn a_watcher_is_called_once_between_two_waits_of_the_hub() {
    run("a_watcher_is_called_once_between_two_waits_of_the_hub", || {
        let log = Log::new();
        let calls = log.clone();
        let timer = event_loop().timer(LONG);
        timer
            .start(move |timer, ()| {
                calls.push(get_hub().stats().waits);
                if calls.len() < 6 {
                    timer.feed(());
                }
            })
            .unwrap();
        timer.feed(());
        while log.len() < 6 {
            sleep(SHORT);
        }
        let waits = log.take();
        assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
    });
}
