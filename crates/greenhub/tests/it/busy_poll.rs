//! The look for wake-ups before a sleep: it costs little where nothing comes.

use std::time::{Duration, Instant};

use greenhub::hub::{busy_poll_time, set_busy_poll_time};
use greenhub::sync::mpsc;
use greenhub::{sleep, spawn};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::support::in_child;

const MESSAGES: u32 = 50;

/// How often this OS thread has slept, and its processor time.
fn used() -> (i64, Duration) {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("the system counts");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    (usage.voluntary_context_switches(), Duration::from_micros(micros.cast_unsigned()))
}

/// Gets a message each 10 ms, and asserts that this OS thread sleeps in between.
fn gets_rare_messages() {
    let (sender, receiver) = mpsc::channel();
    let other = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            std::thread::sleep(Duration::from_millis(10));
            sender.send(number).expect("the receiver lives");
        }
    });
    let (before, begin) = (used(), Instant::now());
    assert_eq!(receiver.iter().count(), MESSAGES as usize);
    let (after, elapsed) = (used(), begin.elapsed());
    other.join().expect("no panic");
    let (sleeps, time) = (after.0 - before.0, after.1 - before.1);
    assert!(sleeps >= i64::from(MESSAGES / 2), "{sleeps} sleeps");
    assert!(time < elapsed / 4, "{time:?} of processor time in {elapsed:?}");
}

#[test]
fn a_green_thread_that_gets_rare_messages_lets_its_os_thread_sleep() {
    in_child(|| spawn(gets_rare_messages).join().expect("no panic"));
}

#[test]
fn an_os_thread_without_green_threads_that_gets_rare_messages_sleeps() {
    in_child(gets_rare_messages);
}

#[test]
fn a_program_that_waits_does_not_look() {
    in_child(|| {
        // Messages without a pause, so that looks are allowed at the end.
        let (sender, receiver) = mpsc::channel();
        let other = std::thread::spawn(move || (0..1000).for_each(|number| sender.send(number).expect("it lives")));
        spawn(move || assert_eq!(receiver.iter().count(), 1000)).join().expect("no panic");
        other.join().expect("no panic");
        let before = used();
        sleep(Duration::from_secs(1));
        let after = used();
        assert!(after.0 - before.0 < 10, "{} sleeps", after.0 - before.0);
        assert!(after.1 - before.1 < Duration::from_millis(100), "{:?}", after.1 - before.1);
    });
}

#[test]
fn messages_come_with_and_without_looks() {
    in_child(|| {
        assert_eq!(busy_poll_time(), Some(Duration::from_micros(20)));
        for time in [None, Some(Duration::ZERO), Some(Duration::from_micros(1)), Some(Duration::from_millis(1))] {
            set_busy_poll_time(time);
            assert_eq!(busy_poll_time(), time.filter(|time| !time.is_zero()));
            let ((there, arrived), (back, returned)) = (mpsc::channel(), mpsc::channel());
            let other = std::thread::spawn(move || {
                spawn(move || arrived.iter().for_each(|number: u32| back.send(number).expect("the receiver lives")))
                    .join()
                    .expect("no panic");
            });
            for number in 0..1000 {
                there.send(number).expect("the receiver lives");
                assert_eq!(returned.recv(), Ok(number));
            }
            drop(there);
            other.join().expect("no panic");
        }
    });
}
