//! Whatever way a green thread leaves the place where it is parked, nothing of it stays: memory, descriptors and
//! cells are counted before and after.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::counting::allocated;
use crate::support::descriptors::{in_child, open_descriptors};
use crate::support::green::{Drops, Held, OnDrop, PARK_POINTS, ParkPoint, SHORT, held, quiet_panic};
use greenhub::{GreenError, GreenThread, sleep, spawn, spawn_after, spawn_n, with_timeout, yield_now};

/// What the process holds.
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

/// Timers of the next second lie in buckets by the millisecond, each of which keeps its memory.
fn fill_every_bucket() {
    for half in 0..2400 {
        spawn_after(Duration::from_micros(half * 500), || ());
    }
    sleep(Duration::from_millis(1250));
}

/// Runs `round` at each park point until nothing more has come of a round than was there before it: pools grow
/// in the first ones, and a job that nobody waits for ends by itself.
#[track_caller]
fn leaks_nothing(round: fn(&ParkPoint, &Drops)) {
    in_child(|| {
        fill_every_bucket();
        for point in PARK_POINTS {
            let mut grown = Vec::with_capacity(50);
            let steady = (0..50).any(|_| {
                let before = footprint();
                let drops = Drops::default();
                round(point, &drops);
                assert_eq!(drops.count(), 1, "{}: what it held was dropped once", point.name);
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

/// A green thread that is parked at `point`, and holds one of `drops`.
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
fn a_kill_leaves_nothing() {
    leaks_nothing(|point, drops| {
        let one = parked_at(point, drops);
        one.kill();
        assert!(one.join().expect_err("killed").is_exit(), "{}", point.name);
    });
}

#[test]
fn an_error_thrown_in_leaves_nothing() {
    leaks_nothing(|point, drops| {
        let one = parked_at(point, drops);
        one.kill_with(GreenError::custom(std::io::Error::other("an error of its own")));
        assert!(matches!(one.join(), Err(GreenError::Custom(_))), "{}", point.name);
    });
}

#[test]
fn a_panic_on_the_way_out_leaves_nothing() {
    leaks_nothing(|point, drops| {
        let (inside, park) = (drops.one(), point.park);
        let one = spawn(move || {
            let _inside = inside;
            // Not while unwinding, which would be the end of the process.
            let caught = std::panic::catch_unwind(park);
            drop(caught.expect_err("killed"));
            quiet_panic("on the way out");
        });
        sleep(SHORT / 5);
        one.kill();
        assert!(one.join().is_err(), "{}", point.name);
    });
}

#[test]
fn a_timeout_leaves_nothing() {
    leaks_nothing(|point, drops| {
        let (inside, park) = (drops.one(), point.park);
        let one = spawn(move || {
            let _inside = inside;
            with_timeout(SHORT / 5, park).expect_err("parked for ever");
        });
        if point.masked {
            // A wait for children is not cut short by a timeout, but by their end.
            sleep(SHORT);
            one.kill();
            drop(one.join());
        } else {
            one.join().unwrap_or_else(|error| panic!("{}: {error}", point.name));
        }
    });
}

#[test]
fn a_dropped_handle_and_a_kill_by_a_link_leave_nothing() {
    leaks_nothing(|point, drops| {
        let one = std::rc::Rc::new(parked_at(point, drops));
        let other = spawn(yield_now);
        let target = one.clone();
        other.link(move |_| {
            target.kill();
        });
        drop(other);
        assert!(one.wait().expect_err("killed").is_exit(), "{}", point.name);
    });
}

#[test]
fn the_end_of_a_thread_leaves_nothing() {
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
fn what_is_leaked_is_noticed() {
    in_child(|| {
        fill_every_bucket();
        let before = footprint();
        std::mem::forget(std::hint::black_box(Box::new(0_u64)));
        let after = footprint();
        assert_eq!((after.blocks, after.bytes), (before.blocks + 1, before.bytes + 8));
    });
}

#[test]
fn a_park_that_is_given_up_again_and_again_leaves_nothing() {
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
