//! Batches of events that the hub below drops as a whole, before the event that a green thread waits for.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use greenhub::future::defer_to_green_thread;
use greenhub::os::unix::net::UnixStream;
use greenhub::thread::yield_now;
use greenhub::{sleep, spawn, use_hub};
use hub_tokio::run_until;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::alone;
use crate::{MILLISECOND, runtime};

/// The number of connections that hang up at once, which is more than the batch of any hub.
const MANY: usize = 1500;

/// The number of descriptors that a test needs.
const DESCRIPTORS: u64 = 2 * MANY as u64 + 100;

/// Runs a test in a process of its own, which may open many descriptors. Skips it if the system forbids that.
fn with_many_descriptors(name: &'static str, test: fn()) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if maximum.is_some_and(|maximum| maximum < DESCRIPTORS) {
        return eprintln!("skipped: {DESCRIPTORS} descriptors are needed, and the hard limit is {maximum:?}");
    }
    alone(name, move || {
        setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum }).unwrap();
        test();
    });
}

/// Lets many connections without a reader hang up before the byte that a green thread waits for.
///
/// The hub drops such hang-ups. All events are there when the loop looks, so no later one ends a sleep in between.
fn hang_up_before_a_byte() {
    let mut pairs: Vec<_> = (0..MANY).map(|_| UnixStream::pair().unwrap()).collect();
    for (near, _) in &mut pairs {
        // Registers the connection, and leaves it without a reader.
        near.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
        assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }
    let (mut reader, mut writer) = UnixStream::pair().unwrap();
    let waiter = spawn(move || reader.read_exact(&mut [0]).unwrap());
    yield_now();
    pairs.iter_mut().for_each(|(_, far)| far.write_all(b"x").unwrap());
    // The hub reports the unread data and then stops watching it. A turn handles at least one connection.
    (0..MANY).for_each(|_| yield_now());
    // A green thread that a timer wakes runs after the look of its turn.
    sleep(MILLISECOND);
    let _nears: Vec<_> = pairs.into_iter().map(|(near, _)| near).collect();
    writer.write_all(b"x").unwrap();
    waiter.join().unwrap();
}

#[test]
fn hang_ups_that_the_hub_drops_hide_no_event_from_the_hub_tokio() {
    with_many_descriptors("hang_ups_that_the_hub_drops_hide_no_event_from_the_hub_tokio", || {
        use_hub("tokio").unwrap();
        spawn(hang_up_before_a_byte).join().unwrap();
    });
}

#[test]
fn hang_ups_that_the_hub_drops_hide_no_event_from_a_joined_loop() {
    with_many_descriptors("hang_ups_that_the_hub_drops_hide_no_event_from_a_joined_loop", || {
        use_hub("epoll").unwrap();
        let done = runtime().block_on(run_until(defer_to_green_thread(hang_up_before_a_byte)));
        done.unwrap().unwrap();
    });
}
