//! A green thread leaks nothing, in whichever way it leaves its park point.
//!
//! The tests count memory, descriptors and the resources of the hub before and after.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::counting::allocated;
use crate::support::green::{Drops, Held, OnDrop, PARK_POINTS, ParkPoint, SHORT, held, quiet_panic};
use crate::support::{in_child, open_descriptors};
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, sleep, spawn, spawn_after, spawn_n, with_timeout};

/// The memory and the resources of the process.
#[derive(Debug, PartialEq, Eq)]
struct Footprint {
    blocks: isize,
    bytes: isize,
    descriptors: usize,
    cells: Held,
}

fn footprint() -> Footprint {
    let cells = held();
    let descriptors = open_descriptors();
    let (blocks, bytes) = allocated();
    Footprint { blocks, bytes, descriptors, cells }
}

/// Fills each bucket of the timer wheel once. A bucket covers about a millisecond, and keeps its memory when emptied.
fn fill_every_bucket() {
    for half in 0..2400 {
        spawn_after(Duration::from_micros(half * 500), || ());
    }
    sleep(Duration::from_millis(1250));
}

/// Runs `round` at each park point until a round leaves the footprint unchanged.
///
/// The first rounds grow pools. A pool job outlives its killed waiter, and may end in a later round.
#[track_caller]
fn leaks_nothing(round: fn(&ParkPoint, &Drops)) {
    in_child(move || {
        fill_every_bucket();
        for point in PARK_POINTS {
            let mut grown = Vec::with_capacity(50);
            let steady = (0..50).any(|_| {
                let before = footprint();
                let drops = Drops::default();
                round(point, &drops);
                assert_eq!(drops.count(), 1, "{}: its value was not dropped once", point.name);
                drop(drops);
                let after = footprint();
                let same = after == before;
                grown.push(after);
                same
            });
            assert!(steady, "{}: {:?}", point.name, &grown[grown.len() - 5..]);
        }
    });
}

/// Returns a green thread that is parked at `point` and owns a value counted by `drops`.
fn parked_at(point: &ParkPoint, drops: &Drops) -> GreenThread<()> {
    let (inside, park) = (drops.one(), point.park);
    let one = spawn(move || {
        let _inside = inside;
        park();
        panic!("went on");
    });
    sleep(SHORT / 5);
    one
}

#[test]
fn a_kill_leaks_nothing() {
    leaks_nothing(|point, drops| {
        let one = parked_at(point, drops);
        one.kill();
        assert!(one.join().expect_err("the kill ends the wait").is_kill(), "{}", point.name);
    });
}

#[test]
fn a_thrown_error_leaks_nothing() {
    leaks_nothing(|point, drops| {
        let one = parked_at(point, drops);
        one.kill_with(GreenError::custom(std::io::Error::other("an error of its own")));
        assert!(matches!(one.join(), Err(GreenError::Custom(_))), "{}", point.name);
    });
}

#[test]
fn a_panic_after_a_kill_leaks_nothing() {
    leaks_nothing(|point, drops| {
        let (inside, park) = (drops.one(), point.park);
        let one = spawn(move || {
            let _inside = inside;
            // Panics after the catch: a panic while unwinding would abort the process.
            let caught = std::panic::catch_unwind(park);
            drop(caught.expect_err("the kill ends the wait"));
            quiet_panic("on the way out");
        });
        sleep(SHORT / 5);
        one.kill();
        assert!(one.join().is_err(), "{}", point.name);
    });
}

#[test]
fn a_timeout_leaks_nothing() {
    leaks_nothing(|point, drops| {
        let (inside, park) = (drops.one(), point.park);
        let one = spawn(move || {
            let _inside = inside;
            with_timeout(SHORT / 5, park).expect_err("parked forever");
        });
        if point.masked {
            // A timeout alone does not end a masked wait.
            sleep(SHORT);
            one.kill();
            drop(one.join());
        } else {
            one.join().unwrap_or_else(|error| panic!("{}: {error}", point.name));
        }
    });
}

#[test]
fn a_dropped_handle_and_a_kill_by_a_link_leak_nothing() {
    leaks_nothing(|point, drops| {
        let one = std::rc::Rc::new(parked_at(point, drops));
        let other = spawn(yield_now);
        let target = one.clone();
        other.link(move |_| {
            target.kill();
        });
        drop(other);
        assert!(one.wait().expect_err("the kill ends the wait").is_kill(), "{}", point.name);
    });
}

#[test]
fn the_end_of_an_os_thread_leaks_nothing() {
    leaks_nothing(|point, drops| {
        let park = point.park;
        let ended = Arc::new(AtomicUsize::new(0));
        let inside = OnDrop({
            let ended = ended.clone();
            move || _ = ended.fetch_add(1, Ordering::Relaxed)
        });
        let thread = greenhub::thread::os::spawn(move || {
            spawn_n(move || {
                let _inside = inside;
                park();
            });
            sleep(SHORT / 5);
        });
        thread.join().unwrap_or_else(|_| panic!("{}", point.name));
        (0..ended.load(Ordering::Relaxed)).for_each(|_| drop(drops.one()));
    });
}

#[test]
fn a_leak_changes_the_footprint() {
    in_child(|| {
        fill_every_bucket();
        let before = footprint();
        std::mem::forget(std::hint::black_box(Box::new(0_u64)));
        let after = footprint();
        assert_eq!((after.blocks, after.bytes), (before.blocks + 1, before.bytes + 8));
    });
}

#[test]
fn repeatedly_abandoned_parks_leak_nothing() {
    const ROUNDS: usize = 5_000;
    in_child(|| {
        fill_every_bucket();
        let give_up = || with_timeout(Duration::from_micros(1), greenhub::thread::park).unwrap_err();
        let green = spawn(move || {
            for _ in 0..100 {
                give_up();
            }
            let (_, before) = allocated();
            for _ in 0..ROUNDS {
                give_up();
            }
            let (_, after) = allocated();
            assert!(after - before < ROUNDS as isize, "{} bytes", after - before);
        });
        green.join().unwrap();
    });
}
