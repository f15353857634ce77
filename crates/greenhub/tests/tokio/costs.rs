//! The costs of both modes: waits and wake-ups allocate nothing once warm.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use greenhub::future::{block_on, defer_to_green_thread};
use greenhub::os::unix::net::UnixStream;
use greenhub::sync::mpsc as green_mpsc;
use greenhub::{sleep, spawn, use_hub};
use hub_tokio::run_until;
use tokio::sync::{Notify, mpsc};

use crate::runtime;
use crate::support::counting::allocations as allocations_so_far;
use crate::support::run;

const ROUNDS: usize = 500;

/// Asserts that `operation` allocates nothing on this OS thread, after some calls that fill the pools.
fn allocates_nothing(mut operation: impl FnMut()) {
    (0..ROUNDS).for_each(|_| operation());
    let before = allocations_so_far();
    (0..ROUNDS).for_each(|_| operation());
    assert_eq!(allocations_so_far() - before, 0);
}

/// Runs a test in a green thread of each mode.
fn in_both_modes(name: &'static str, test: fn()) {
    run(name, move || {
        use_hub("tokio").unwrap();
        spawn(test).join().unwrap();
        use_hub("epoll").unwrap();
        runtime().block_on(run_until(defer_to_green_thread(test))).unwrap().unwrap();
    });
}

#[test]
fn green_threads_wait_for_each_other_without_allocations() {
    in_both_modes("green_threads_wait_for_each_other_without_allocations", || {
        let ((there, arrived), (back, returned)) = (green_mpsc::channel(), green_mpsc::channel());
        let bounce = spawn(move || arrived.iter().try_for_each(|number: usize| back.send(number)));
        allocates_nothing(|| {
            there.send(7).unwrap();
            assert_eq!(returned.recv(), Ok(7));
        });
        drop(there);
        bounce.join().unwrap().unwrap();
    });
}

#[test]
fn sleeps_allocate_nothing() {
    in_both_modes("sleeps_allocate_nothing", || allocates_nothing(|| sleep(Duration::from_nanos(1))));
}

#[test]
fn an_echo_over_green_sockets_allocates_nothing() {
    in_both_modes("an_echo_over_green_sockets_allocates_nothing", || {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let echo = spawn(move || {
            let mut byte = [0];
            while far.read(&mut byte).unwrap() != 0 {
                far.write_all(&byte).unwrap();
            }
        });
        allocates_nothing(|| {
            near.write_all(b"x").unwrap();
            near.read_exact(&mut [0]).unwrap();
        });
        drop(near);
        echo.join().unwrap();
    });
}

#[test]
fn a_task_and_a_green_thread_wake_each_other_by_notify_without_allocations() {
    in_both_modes("a_task_and_a_green_thread_wake_each_other_by_notify_without_allocations", || {
        let (ask, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (asked, answering) = (Arc::clone(&ask), Arc::clone(&answer));
        let task = tokio::spawn(async move {
            loop {
                asked.notified().await;
                answering.notify_one();
            }
        });
        allocates_nothing(|| {
            ask.notify_one();
            block_on(answer.notified());
        });
        task.abort();
    });
}

#[test]
fn a_task_and_a_green_thread_wake_each_other_by_messages_without_allocations() {
    in_both_modes("a_task_and_a_green_thread_wake_each_other_by_messages_without_allocations", || {
        let ((there, mut arrived), (back, mut returned)) = (mpsc::channel(1), mpsc::channel(1));
        let task = tokio::spawn(async move {
            while let Some(number) = arrived.recv().await {
                back.send(number).await.unwrap();
            }
        });
        allocates_nothing(|| {
            block_on(there.send(7)).unwrap();
            assert_eq!(block_on(returned.recv()), Some(7));
        });
        drop(there);
        block_on(task).unwrap();
    });
}

#[test]
fn a_task_waits_for_a_green_thread_that_sends_without_allocations() {
    in_both_modes("a_task_waits_for_a_green_thread_that_sends_without_allocations", || {
        // The channel is full after each message, so that the green thread waits for the task, which waits for it.
        let (sender, mut receiver) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut count = 0;
            while receiver.recv().await.is_some() {
                count += 1;
            }
            count
        });
        allocates_nothing(|| (0..4).for_each(|number| block_on(sender.send(number)).unwrap()));
        drop(sender);
        assert_eq!(block_on(task).unwrap(), 8 * ROUNDS);
    });
}
