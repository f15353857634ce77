//! `notify_close` and `notify_opened` with raw numbers, whose owner the library cannot know.

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use crate::support::descriptors::{ms, pair, read, stats, write};
use crate::support::hubs::{Lent, use_recording_hub};
use crate::support::in_child;
use greenhub::park::{notify_close, notify_opened};
use greenhub::thread::yield_now;
use greenhub::{Interest, TrampolineError, get_hub, sleep, spawn, trampoline};

#[test]
fn a_number_of_another_owner_is_not_lent_to_the_hub() {
    for give_up in [notify_close, notify_opened] {
        std::thread::spawn(move || {
            let forgotten = use_recording_hub();
            let (reader, writer) = io::pipe().expect("a pipe");
            let number = reader.as_raw_fd();
            drop(writer);
            trampoline(&reader, Interest::READ, None).expect("the pipe ends");
            drop(reader);
            forgotten.take();
            give_up(number);
            assert!(!forgotten.borrow().iter().any(|&(forgotten, lent)| forgotten == number && lent != Lent::Nothing));
        })
        .join()
        .expect("no panic");
    }
}

#[test]
fn a_number_with_a_waiter_is_not_lent_to_the_hub() {
    for give_up in [notify_close, notify_opened] {
        std::thread::spawn(move || {
            let forgotten = use_recording_hub();
            let (reader, _writer) = io::pipe().expect("a pipe");
            let number = reader.as_raw_fd();
            let waiter = spawn(move || trampoline(&reader, Interest::READ, None));
            yield_now();
            give_up(number);
            let error = waiter.join().expect("no panic").expect_err("given up");
            assert!(matches!(error, TrampolineError::Closed { fd } if fd == number), "{error}");
            assert_eq!(*forgotten.borrow(), [(number, Lent::Nothing)]);
        })
        .join()
        .expect("no panic");
    }
}

#[test]
fn a_number_of_a_live_source_wakes_the_waiter_and_stays_registered() {
    for give_up in [notify_close, notify_opened] {
        std::thread::spawn(move || {
            let forgotten = use_recording_hub();
            let (here, there) = pair();
            let here = Rc::new(here);
            let waits = Rc::clone(&here);
            let waiter = spawn(move || waits.wait(Interest::READ, None));
            yield_now();
            sleep(ms(1));
            give_up(here.as_raw_fd());
            let error = waiter.join().expect("no panic").expect_err("given up");
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
            assert!(forgotten.borrow().is_empty());
            write(&there, b"x").expect("the buffer has room");
            assert_eq!(read(&here, 8).expect("the read succeeds"), b"x");
            let again = spawn(move || read(&here, 8));
            sleep(ms(1));
            write(&there, b"y").expect("the buffer has room");
            assert_eq!(again.join().expect("no panic").expect("the read succeeds"), b"y");
        })
        .join()
        .expect("no panic");
    }
}

#[test]
fn unread_data_of_a_given_up_number_does_not_spin() {
    in_child(|| {
        let (here, there) = pair();
        here.wait(Interest::READ, Some(ms(1))).expect_err("nothing yet");
        write(&there, b"x").expect("the buffer has room");
        notify_close(here.as_raw_fd());
        let (raw, mut raw_writer) = io::pipe().expect("a pipe");
        trampoline(&raw, Interest::READ, Some(ms(1))).expect_err("nothing yet");
        notify_close(raw.as_raw_fd());
        io::Write::write_all(&mut raw_writer, b"x").expect("the buffer has room");
        let turns = stats().turns;
        sleep(ms(100));
        let turns = stats().turns - turns;
        assert!(turns < 20, "{turns} turns for one sleep");
    });
}

#[test]
fn the_loop_is_still_woken_after_every_number_was_given_up() {
    in_child(|| {
        // Makes the descriptor that wakes the loop.
        sleep(ms(1));
        (0..1000).for_each(notify_close);
        // A hub may report a registration once more, before it finds that the loop has given it up.
        for item in 0..3 {
            let remote = get_hub().remote();
            let queue = std::sync::Arc::new(greenhub::sync::Queue::new());
            let puts = std::sync::Arc::clone(&queue);
            let other = std::thread::spawn(move || {
                std::thread::sleep(ms(20));
                remote
                    .spawn(move || puts.try_put(item).expect("the queue has room"))
                    .expect("the hub's OS thread lives");
            });
            assert_eq!(queue.get().expect("an item"), item);
            other.join().expect("no panic");
        }
    });
}

#[test]
fn deregistration_lends_the_hub_an_open_descriptor() {
    // In its own process, so that no other test gets the number in between.
    in_child(|| {
        let forgotten = use_recording_hub();
        let (reader, _writer) = io::pipe().expect("a pipe");
        let number = reader.as_raw_fd();
        // The registration is the only owner.
        let registration = get_hub().listen(reader, Interest::READ, |_| {}).expect("the hub accepts the listener");
        sleep(ms(1));
        drop(registration);
        assert_eq!(*forgotten.borrow(), [(number, Lent::Open)]);
    });
}
