//! The counters of a hub, and the objects it holds.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::support::green::{LONG, SHORT};
use crate::support::run;
use greenhub::hub::Stats;
use greenhub::sync::Event;
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn, spawn_after, spawn_n, tpool, with_timeout};

fn stats() -> Stats {
    get_hub().stats()
}

#[test]
fn waiting_green_threads_are_counted_as_parked() {
    run("waiting_green_threads_are_counted_as_parked", || {
        let before = stats().parked;
        let sleepers: Vec<_> = (0..3).map(|_| spawn(|| sleep(LONG))).collect();
        let busy = spawn(|| (0..10).for_each(|_| yield_now()));
        assert_eq!(stats().parked, before, "the green threads have not begun");
        yield_now();
        assert_eq!(stats().parked, before + 3, "the fourth only yields");
        for sleeper in sleepers {
            sleeper.kill();
        }
        busy.join().unwrap();
        assert_eq!(stats().parked, before);
    });
}

#[test]
fn each_wait_that_ends_is_a_wake_up() {
    run("each_wait_that_ends_is_a_wake_up", || {
        sleep(SHORT);
        let before = stats().wakeups;
        (0..5).for_each(|_| sleep(Duration::from_micros(10)));
        assert_eq!(stats().wakeups, before + 5);
        (0..5).for_each(|_| yield_now());
        assert_eq!(stats().wakeups, before + 5, "a yield was counted as a wait");
        let killed = spawn(|| sleep(LONG));
        yield_now();
        killed.kill();
        assert_eq!(stats().wakeups, before + 6);
        // A green thread that ends without a wait, and one that never begins, cause no wake-up.
        spawn_n(|| ());
        spawn(|| ()).kill();
        yield_now();
        assert_eq!(stats().wakeups, before + 6);
    });
}

#[test]
fn a_thread_that_has_not_waited_has_no_wake_ups() {
    run("a_thread_that_has_not_waited_has_no_wake_ups", || {
        let green = spawn(|| ());
        assert_eq!(stats().wakeups, 0);
        drop(green);
    });
}

#[test]
fn an_idle_hub_is_in_one_wait_until_another_thread_ends_it() {
    run("an_idle_hub_is_in_one_wait_until_another_thread_ends_it", || {
        let sleeper = spawn(|| sleep(LONG));
        sleep(SHORT);
        let (event, remote, before) = (Arc::new(Event::new()), get_hub().remote(), stats().waits);
        let sender = event.clone();
        let other = std::thread::spawn(move || {
            std::thread::sleep(SHORT * 10);
            remote.spawn(move || sender.send("awake").unwrap())
        });
        assert_eq!(event.wait().unwrap(), "awake");
        let waits = stats().waits - before;
        // The second wait polls for further events.
        assert!((1..=2).contains(&waits), "{waits} waits");
        other.join().unwrap().unwrap();
        sleeper.kill();
    });
}

#[test]
fn each_turn_of_a_greenlet_is_a_switch() {
    run("each_turn_of_a_greenlet_is_a_switch", || {
        let since = |before: u64| stats().switches - before;
        let before = stats().switches;
        (0..5).for_each(|_| yield_now());
        assert_eq!(since(before), 5, "a yield without another greenlet does not count");
        let other = spawn(|| (0..1000).for_each(|_| yield_now()));
        (0..10).for_each(|_| yield_now());
        assert_eq!(
            since(before),
            5 + 10 + 10,
            "the other green thread has begun, and was
resumed nine times"
        );
        other.join().unwrap();
        assert_eq!(
            since(before),
            5 + 10 + 1001 + 1,
            "the other green thread has
run to its end, and has woken this one"
        );
        let before = stats().switches;
        get_hub().schedule(Duration::ZERO, || ());
        sleep(Duration::ZERO);
        sleep(SHORT);
        assert_eq!(since(before), 2, "a callback counts as a greenlet");
    });
}

#[test]
fn spawned_green_threads_are_counted() {
    run("spawned_green_threads_are_counted", || {
        let before = stats();
        (0..10).for_each(|_| spawn_n(|| ()));
        let one = spawn(|| ());
        let later = spawn_after(LONG, || ());
        assert_eq!(stats().spawned - before.spawned, 12);
        assert_eq!(stats().green_threads - before.green_threads, 12);
        one.join().unwrap();
        later.kill();
        drop(later);
        assert_eq!(stats().spawned - before.spawned, 12);
        assert_eq!(stats().green_threads, before.green_threads);
    });
}

#[test]
fn timers_that_outlive_their_turn_are_counted() {
    run("timers_that_outlive_their_turn_are_counted", || {
        sleep(SHORT);
        let before = stats().timers_armed;
        (0..4).for_each(|_| sleep(Duration::from_micros(10)));
        assert_eq!(stats().timers_armed, before + 4);
        (0..4).for_each(|_| with_timeout(LONG, || ()).unwrap());
        sleep(Duration::from_micros(10));
        assert_eq!(stats().timers_armed, before + 5, "a timeout that ends at once is counted");
    });
}

#[test]
fn allocated_stacks_stay_counted() {
    run("allocated_stacks_stay_counted", || {
        sleep(SHORT);
        let before = stats();
        let event = Rc::new(Event::<()>::new());
        let waiting: Vec<_> = (0..40)
            .map(|_| {
                let event = Rc::clone(&event);
                spawn(move || event.wait().map(drop))
            })
            .collect();
        yield_now();
        let during = stats();
        assert_eq!(during.stacks_in_use, before.stacks_in_use + 40);
        assert!(during.stacks_most >= during.stacks_in_use);
        assert!(during.stack_bytes_resident > before.stack_bytes_resident);
        assert!(during.stack_bytes_mapped >= during.stacks_most * greenhub::greenthread::default_stack_size());
        for one in waiting {
            one.kill();
        }
        let after = stats();
        assert_eq!(after.stacks_in_use, before.stacks_in_use);
        assert_eq!(after.stacks_most, during.stacks_most);
        assert_eq!(after.stacks_most, after.stacks_in_use + after.stacks_idle);
    });
}

#[test]
fn threads_of_the_pool_are_counted() {
    run("threads_of_the_pool_are_counted", || {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let job = spawn(move || tpool::execute(move || held.recv().is_err()));
        yield_now();
        let during = stats();
        assert!(during.pool_threads >= 1 && during.pool_jobs >= 1, "{during:?}");
        drop(hold);
        assert!(job.join().unwrap().unwrap());
    });
}

#[test]
fn a_replaced_hub_counts_nothing() {
    run("a_replaced_hub_counts_nothing", || {
        let old = get_hub();
        sleep(SHORT);
        greenhub::use_hub(None).unwrap();
        assert_eq!(old.stats(), greenhub::hub::Stats::default());
        assert!(stats().turns > 0, "the OS thread counts on");
    });
}
