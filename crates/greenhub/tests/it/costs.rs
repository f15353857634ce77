//! Bounds on the cost of operations: no allocation in the steady state, and few calls of the hub.

use std::cell::Cell;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::counting::allocations as allocations_so_far;
use crate::support::hubs::{Calls, default_hub};
use crate::support::{in_child, limited};
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::hub::{Readiness, set_turn_time};
use greenhub::park::{ReadHint, Source};
use greenhub::sync::Semaphore;
use greenhub::thread::yield_now;
use greenhub::{Interest, get_hub, sleep, spawn, spawn_n, use_hub_with, with_timeout};
use hub_core::hub::Rearm;

const ROUNDS: usize = 1000;

/// Returns the number of allocations of a thousand calls of `operation`, after a thousand calls that fill the pools.
fn allocations(mut operation: impl FnMut()) -> usize {
    for _ in 0..ROUNDS {
        operation();
    }
    let before = allocations_so_far();
    for _ in 0..ROUNDS {
        operation();
    }
    allocations_so_far() - before
}

#[test]
fn the_allocation_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), ROUNDS);
}

#[test]
fn a_yield_allocates_nothing() {
    limited(|| {
        let stop = Rc::new(Cell::new(false));
        let stopped = stop.clone();
        let other = spawn(move || {
            while !stopped.get() {
                yield_now();
            }
        });
        assert_eq!(allocations(yield_now), 0);
        assert_eq!(allocations(|| sleep(Duration::ZERO)), 0);
        stop.set(true);
        other.join().unwrap();
    });
}

#[test]
fn a_switch_by_hand_with_a_word_allocates_nothing() {
    limited(|| {
        let main = Greenlet::current();
        let echoes = Greenlet::new(move |mut value| {
            loop {
                value = main.switch(value)?;
            }
        });
        let mut number = 0_usize;
        let there_and_back = || {
            number += 1;
            let back = echoes.switch(Payload::new(number)).unwrap();
            assert_eq!(back.downcast::<usize>().unwrap(), number);
        };
        assert_eq!(allocations(there_and_back), 0);
    });
}

#[test]
fn spawn_and_join_allocate_nothing() {
    limited(|| {
        assert_eq!(allocations(|| assert_eq!(spawn(|| 7).join().unwrap(), 7)), 0);
        let batch = || {
            for _ in 0..10 {
                spawn_n(yield_now);
            }
            yield_now();
            yield_now();
        };
        assert_eq!(allocations(batch), 0);
    });
}

#[test]
fn a_park_and_a_wake_up_allocate_nothing() {
    limited(|| {
        // The green thread yields before it ends, so that the joiner has to park.
        let operation = || spawn(yield_now).join().unwrap();
        assert_eq!(allocations(operation), 0);
    });
}

#[test]
fn a_wait_of_an_os_thread_without_green_threads_allocates_nothing() {
    let semaphores = Arc::new([Semaphore::new(0), Semaphore::new(0)]);
    let is_over = Arc::new(AtomicBool::new(false));
    let (other, ends) = (Arc::clone(&semaphores), Arc::clone(&is_over));
    let partner = std::thread::spawn(move || {
        loop {
            other[0].acquire().unwrap();
            if ends.load(Ordering::SeqCst) {
                return;
            }
            other[1].release();
        }
    });
    let measured = std::thread::spawn(move || {
        let one = || {
            semaphores[0].release();
            semaphores[1].acquire().unwrap();
        };
        // A wait that lasts, because the system does not run the partner, is noted for the search for deadlocks.
        let is_free = (0..10).any(|_| allocations(one) == 0);
        is_over.store(true, Ordering::SeqCst);
        semaphores[0].release();
        is_free
    });
    assert!(measured.join().unwrap());
    partner.join().unwrap();
}

#[test]
fn fired_and_cancelled_timers_allocate_nothing() {
    limited(|| {
        assert_eq!(allocations(|| with_timeout(Duration::from_secs(60), || ()).unwrap()), 0);
        assert_eq!(allocations(|| with_timeout(Duration::from_secs(60), yield_now).unwrap()), 0);
        assert_eq!(allocations(|| sleep(Duration::from_nanos(1))), 0);
    });
}

/// Returns the two ends of a connection.
fn pair() -> (Source, Source) {
    let (left, right) = UnixStream::pair().unwrap();
    (Source::new(left.into()).unwrap(), Source::new(right.into()).unwrap())
}

fn read(source: &Source) -> usize {
    let mut buffer = [0; 64];
    source.read(None, |fd| Ok((rustix::io::read(fd, &mut buffer)?, ReadHint::Nothing))).unwrap()
}

fn write(source: &Source) -> usize {
    source.write(None, |fd| Ok(rustix::io::write(fd, b"x")?)).unwrap()
}

/// Echoes the bytes of the source until its end.
fn echo(source: Source) {
    while read(&source) != 0 {
        write(&source);
    }
}

#[test]
fn an_echo_allocates_nothing() {
    limited(|| {
        let (near, far) = pair();
        let server = spawn(move || echo(far));
        let round_trip = || {
            write(&near);
            assert_eq!(read(&near), 1);
        };
        assert_eq!(allocations(round_trip), 0);
        drop(near);
        server.join().unwrap();
    });
}

#[test]
fn a_call_of_a_listener_allocates_nothing() {
    limited(|| {
        let (reader, writer) = io::pipe().unwrap();
        let reader = Rc::new(reader);
        let drain = reader.clone();
        let calls = Rc::new(Cell::new(0));
        let count = calls.clone();
        let called = move |_: Readiness| {
            count.set(count.get() + io::Read::read(&mut &*drain, &mut [0]).unwrap());
        };
        let _listener = get_hub().listen(reader.try_clone().unwrap(), Interest::READ, called).unwrap();
        let mut wanted = 0;
        let operation = || {
            io::Write::write_all(&mut &writer, b"x").unwrap();
            wanted += 1;
            while calls.get() < wanted {
                yield_now();
            }
        };
        assert_eq!(allocations(operation), 0);
    });
}

/// Returns the numbers of `watch` and `wait` calls while each of `pairs` connections echoes a thousand times.
fn calls_of_echoes(pairs: usize) -> (usize, usize) {
    // A turn that ends early polls the descriptors once more.
    set_turn_time(Duration::MAX);
    let calls = Calls::default();
    let look = calls.clone();
    use_hub_with(move || look.hub()).unwrap();
    let clients: Vec<_> = (0..pairs)
        .map(|_| {
            let (near, far) = pair();
            spawn_n(move || echo(far));
            spawn(move || {
                for _ in 0..ROUNDS {
                    write(&near);
                    read(&near);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    (calls.watches.get(), calls.waits.get())
}

#[test]
fn a_round_of_echoes_makes_few_hub_calls() {
    in_child(|| {
        let explicit = default_hub().unwrap().rearm() == Rearm::Explicit;
        for pairs in [1, 50] {
            let (watches, waits) = calls_of_echoes(pairs);
            // One wait per direction serves all pairs. The beginning and the end need a few more.
            assert!(waits <= 2 * ROUNDS + 20, "{pairs} pairs: {waits} waits");
            // Each source is registered once, when a waiter first parks on it. So is the wake-up descriptor. An
            // explicit hub needs a call at each park.
            let most = if explicit { 2 * pairs * (ROUNDS + 1) } else { 2 * pairs } + 20;
            assert!(watches <= most, "{pairs} pairs: {watches} watches");
        }
    });
}

#[test]
fn an_echo_tries_each_of_its_four_operations_once() {
    in_child(|| {
        for pairs in [1, 50] {
            let before = get_hub().stats().operations;
            calls_of_echoes(pairs);
            let operations = get_hub().stats().operations - before;
            let least = (4 * pairs * ROUNDS) as u64;
            // The first read of each source is tried without a hint; the last read finds the end.
            let most = least + 4 * pairs as u64;
            assert!((least..=most).contains(&operations), "{pairs} pairs: {operations} operations");
        }
    });
}

#[test]
fn operations_without_descriptors_make_few_hub_calls() {
    let waits = |operation: fn()| {
        let calls = Calls::default();
        let look = calls.clone();
        use_hub_with(move || look.hub()).unwrap();
        spawn(yield_now).join().unwrap();
        let before = calls.waits.get();
        (0..ROUNDS).for_each(|_| operation());
        (calls.waits.get() - before, calls.watches.get())
    };
    limited(|| {
        let yields = waits(|| spawn(yield_now).join().unwrap());
        let timeouts = waits(|| with_timeout(Duration::from_secs(60), || ()).unwrap());
        // The main loop polls the descriptors now and then, even if greenlets are ready all the time.
        assert!(yields.0 <= ROUNDS / 50, "{} waits", yields.0);
        assert_eq!(timeouts.0, 0);
        // The only registration is the wake-up descriptor.
        assert!(yields.1 <= 1 && timeouts.1 <= 1, "{} and {} watches", yields.1, timeouts.1);
    });
}
