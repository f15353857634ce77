//! Many watchers, started and stopped while the loop runs.

use std::cell::Cell;
use std::io::{Write, pipe};
use std::rc::Rc;
use std::time::Duration;

use crate::support::run;
use crate::{LONG, settle};
use greenhub::gevent::{Priority, Run, Timer, Watcher, event_loop};
use greenhub::{Interest, get_hub, sleep};

#[test]
fn the_count_of_active_watchers_is_the_naive_sum() {
    run("the_count_of_active_watchers_is_the_naive_sum", || {
        const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut watchers: Vec<Timer> = (0..8).map(|_| event_loop().timer(LONG)).collect();
            for _ in 0..200 {
                let index = random.usize(..watchers.len());
                let watcher = &watchers[index];
                match random.u8(..8) {
                    0 | 1 => watcher.start(|_, ()| ()).unwrap(),
                    2 => watcher.stop(),
                    3 => watcher.set_counted(random.bool()),
                    4 => watcher.feed(()),
                    5 => drop(watcher.set_priority(PRIORITIES[random.usize(..3)])),
                    6 => watchers[index] = event_loop().timer(LONG),
                    _ => sleep(Duration::ZERO),
                }
                let expected = watchers.iter().filter(|watcher| watcher.is_active() && watcher.is_counted()).count();
                assert_eq!(event_loop().counts().active, expected, "seed {seed}");
                let pending = watchers.iter().filter(|watcher| watcher.is_pending()).count();
                assert_eq!(event_loop().counts().pending, pending, "seed {seed}");
            }
        }
        assert_eq!(event_loop().counts().active, 0);
    });
}

#[test]
fn a_hundred_thousand_watchers_start_and_stop_while_the_loop_runs() {
    run("a_hundred_thousand_watchers_start_and_stop_while_the_loop_runs", || {
        let calls = Rc::new(Cell::new(0));
        let mut kept = Vec::new();
        for round in 0..1000 {
            for number in 0..100 {
                let timer = event_loop().timer(if number % 10 == 0 { Duration::ZERO } else { LONG });
                let count = Rc::clone(&calls);
                timer.start(move |_, ()| count.set(count.get() + 1)).unwrap();
                if number % 3 == 0 {
                    timer.stop();
                }
                kept.push(timer);
            }
            if round % 10 == 0 {
                settle();
                kept.clear();
            }
        }
        kept.clear();
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert!(calls.get() > 0);
        assert_eq!(get_hub().stats().timers, 0);
    });
}

#[test]
fn a_hundred_thousand_watchers_of_descriptors_start_and_stop_while_the_loop_runs() {
    run("a_hundred_thousand_watchers_of_descriptors_start_and_stop_while_the_loop_runs", || {
        let calls = Rc::new(Cell::new(0));
        let pipes: Vec<_> = (0..50)
            .map(|_| {
                let (reader, mut writer) = pipe().unwrap();
                writer.write_all(b"x").unwrap();
                (Rc::new(reader), writer)
            })
            .collect();
        let mut kept = Vec::new();
        for round in 0..1000 {
            for number in 0..100 {
                let reader = Rc::clone(&pipes[number % pipes.len()].0);
                let io = event_loop().io(reader, Interest::READ).unwrap();
                let count = Rc::clone(&calls);
                io.start(move |io, _| {
                    count.set(count.get() + 1);
                    io.stop();
                })
                .unwrap();
                if number % 3 == 0 {
                    io.stop();
                }
                kept.push(io);
            }
            if round % 10 == 0 {
                sleep(Duration::ZERO);
            }
            if round % 10 == 5 {
                settle();
                kept.clear();
            }
        }
        kept.clear();
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert!(calls.get() > 0);
        assert_eq!(get_hub().stats().readers, 0);
        assert!(pipes.iter().all(|(reader, _)| Rc::strong_count(reader) == 1));
    });
}
