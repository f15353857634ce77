//! Cases about the reports of `wait`.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Lease, Readiness, Rearm};

use super::LEASES;
use crate::fixture::{self, Driver, Make, time_limit};
use crate::process::skip;

/// Clause 4: *a direction that was not asked for MUST NOT be reported*.
pub fn only_requested_directions_are_reported<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        fixture::fill(&near);
        fixture::send(&far, b"x");
        let key = driver.add(&near, Interest::WRITE, lease);
        driver.expect_no_report();
        fixture::drain(&far);
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::WRITE, "{lease:?}");
    }
}

/// Clause 3: *a hub MUST keep the promise of its `rearm` for descriptors lent for life*. A waiter that parks as `rearm`
/// demands gets a report for every arrival.
pub fn a_life_lease_reports_every_arrival<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (near, far) = fixture::pair();
    let key = driver.add(&near, Interest::READ, Lease::Life);
    for arrival in 0..200 {
        fixture::send(&far, b"x");
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ, "arrival {arrival}");
        fixture::drain(&near);
        driver.park(key, Interest::READ);
    }
}

/// Clause 3, `Automatic` and `Explicit`: an arrival is not reported again, even if (`Automatic`) a waiter parks without
/// a new arrival.
pub fn ready_descriptors_are_reported_once_without_level<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    if driver.hub.rearm() == Rearm::Level {
        return skip(driver.hub.name(), "the hub reports ready descriptors again");
    }
    let (near, far) = fixture::pair();
    let key = driver.add(&near, Interest::READ, Lease::Life);
    fixture::send(&far, b"x");
    assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ);
    if driver.hub.rearm() == Rearm::Automatic {
        driver.park(key, Interest::READ);
    }
    driver.expect_no_report();
}

/// Clause 3, `Level`: *a direction that is still ready is reported again, as long as it is armed*.
pub fn unread_data_is_reported_again_at_level<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    if driver.hub.rearm() != Rearm::Level {
        return skip(driver.hub.name(), "the hub does not report ready descriptors again");
    }
    let (near, far) = fixture::pair();
    let key = driver.add(&near, Interest::READ, Lease::Life);
    fixture::send(&far, b"abc");
    for left in [2, 1, 0] {
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ);
        assert_eq!(fixture::receive(&near, 1), 1, "{left} left");
        driver.park(key, Interest::READ);
    }
    driver.expect_no_report();
}

/// Clause 3, `Level`: *a direction that is reported while it is not armed is silent until the next `watch`*.
pub fn an_unarmed_direction_is_reported_once_at_level<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    if driver.hub.rearm() != Rearm::Level {
        return skip(driver.hub.name(), "the hub does not report ready descriptors again");
    }
    let (near, far) = fixture::pair();
    let key = driver.add(&near, Interest::READ, Lease::Life);
    driver.disarm(key, Interest::READ);
    fixture::send(&far, b"x");
    assert_eq!(
        driver.reported(time_limit()),
        [(key, Readiness::READ)],
        "a direction that is not armed was not reported once"
    );
    driver.expect_no_report();
    fixture::send(&far, b"more");
    driver.expect_no_report();
    driver.watch(key, Interest::READ, Lease::Life).expect("the hub watches the descriptor again");
    assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ, "`watch` has not enabled the direction again");
    assert_eq!(
        driver.reported(time_limit()),
        [(key, Readiness::READ)],
        "a direction without a waiter was not reported once"
    );
    drop(far);
    driver.expect_no_report();
    driver.watch(key, Interest::READ, Lease::Life).expect("the hub watches the descriptor again");
    assert_eq!(driver.wait_for(key, time_limit()), Readiness::HANGUP);
}

/// Clause 3: *a report of one direction MUST NOT silence the other*, with or without a waiter for the first.
pub fn a_report_of_one_direction_keeps_the_other_armed<H: Hub>(make: Make<'_, H>) {
    for waited_for in [true, false] {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        fixture::fill(&near);
        let key = driver.add(&near, Interest::BOTH, Lease::Life);
        if !waited_for {
            driver.disarm(key, Interest::BOTH);
        }
        fixture::send(&far, b"x");
        driver.wait(Some(if waited_for { time_limit() } else { fixture::NO_REPORT_TIME }));
        driver.drain_reports();
        driver.park(key, Interest::WRITE);
        driver.expect_no_report();
        fixture::drain(&far);
        // Unread data may be reported together with the room.
        assert!(
            driver.wait_for(key, time_limit()).contains(Readiness::WRITE),
            "with a waiter for the first: {waited_for}"
        );
    }
}

/// Clause 5: *a hang-up or an error MUST be reported as READ, WRITE and END*. Here a reader waits, and the peer closes
/// its socket.
pub fn a_hang_up_concerns_both_directions<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        let key = driver.add(&near, Interest::READ, lease);
        driver.expect_no_report();
        drop(far);
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::HANGUP, "{lease:?}");
    }
}

/// Clause 5, for an error: a writer waits for room in a full pipe, and the reading end is closed.
pub fn an_error_concerns_both_directions<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (reader, writer) = fixture::pipe();
        fixture::fill(&writer);
        let key = driver.add(&writer, Interest::WRITE, lease);
        driver.expect_no_report();
        drop(reader);
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::HANGUP, "{lease:?}");
    }
}

/// Clause 5, for a hang-up without an error: a writer gets the report, even if no reader waits.
pub fn a_hang_up_is_reported_to_a_lone_writer<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        fixture::fill(&near);
        let key = driver.add(&near, Interest::WRITE, lease);
        driver.expect_no_report();
        let _ended = hang_up(far);
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::HANGUP, "{lease:?}");
    }
}

/// Clauses 4 and 5: unread data, which the writer has not asked for, does not hide a hang-up from the writer.
pub fn a_hang_up_is_reported_to_a_writer_despite_unread_data<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        fixture::fill(&near);
        fixture::send(&far, b"unread");
        let key = driver.add(&near, Interest::WRITE, lease);
        driver.expect_no_report();
        let _ended = hang_up(far);
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::HANGUP, "{lease:?}");
    }
}

/// Clause 5: *a half close by the peer as READ and END, not as WRITE*.
pub fn a_half_close_ends_only_reading<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        fixture::fill(&near);
        let key = driver.add(&near, Interest::BOTH, lease);
        driver.expect_no_report();
        shut_down_writing(&far);
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ | Readiness::END, "{lease:?}");
    }
}

/// Clause 6: *a hub that is not `Explicit` MUST report END together with the last data, or report again*. After a short
/// read a reader may park without another read.
pub fn the_end_is_reported_with_the_last_data<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (near, far) = fixture::pair();
    let key = driver.add(&near, Interest::READ, Lease::Life);
    fixture::send(&far, b"last");
    shut_down_writing(&far);
    let mut found = driver.wait_for(key, time_limit());
    assert_eq!(fixture::receive(&near, 64), 4);
    if !found.contains(Readiness::END) {
        driver.park(key, Interest::READ);
        found = driver.wait_for(key, time_limit());
    }
    assert!(found.contains(Readiness::END), "the end was not reported");
}

/// Clause 18: *a hang-up without a waiter MUST NOT make `wait` return forever*.
pub fn a_hang_up_without_a_waiter_does_not_spin<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        let key = driver.add(&near, Interest::READ, lease);
        driver.disarm(key, Interest::READ);
        drop(far);
        assert!(fixture::reaches_end(&near), "there is no hang-up ({lease:?})");
        driver.drain_reports();
        driver.expect_no_report();
    }
}

/// Clause 14: *everything that is ready MUST be reported within a bounded number of waits*. Here 300 descriptors stay
/// ready, and each must be reported within 32 waits.
pub fn everything_ready_is_reported_in_few_waits<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let pairs: Vec<_> = (0..300).map(|_| fixture::pair()).collect();
    let keys: Vec<_> = pairs.iter().map(|(near, _)| driver.add(near, Interest::WRITE, Lease::Life)).collect();
    let mut seen = vec![false; keys.len()];
    for _ in 0..32 {
        for (key, _) in driver.wait(Some(Duration::ZERO)) {
            let found = keys.iter().position(|&other| other == key).expect("a key that was made here");
            seen[found] = true;
            driver.park(key, Interest::WRITE);
        }
    }
    let missing = seen.iter().filter(|&&seen| !seen).count();
    assert_eq!(missing, 0, "reports about 300 ready descriptors are missing");
}

/// Clause 9: *a dead descriptor MUST NOT make `wait` spin or fail. It is reported INVALID at most once, or stays
/// silent*.
pub fn a_dead_descriptor_does_not_spin<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (near, _far) = fixture::pair();
    let key = driver.add(&near, Interest::READ, Lease::Wait);
    drop(near);
    let _dead = driver.close_while_armed(key);
    let found = driver.wait_for(key, fixture::NO_REPORT_TIME);
    assert!(found.is_empty() || found.contains(Readiness::INVALID), "{found:?}");
    if found.is_empty() {
        driver.disarm(key, Interest::READ);
    }
    driver.expect_no_report();
}

/// Clause 9: *nor cost another its report*.
pub fn a_dead_descriptor_hides_no_other_report<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (dying, _far) = fixture::pair();
    let (near, far) = fixture::pair();
    let dead = driver.add(&dying, Interest::READ, Lease::Wait);
    let key = driver.add(&near, Interest::READ, Lease::Wait);
    fixture::send(&far, b"x");
    drop(dying);
    let _dead = driver.close_while_armed(dead);
    assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ);
}

fn shut_down_writing(file: &fixture::File) {
    shut_down(file, Shutdown::Write);
}

/// Makes the peer hang up without an error, and returns the peer's file if it has to stay open.
///
/// On Linux, closing a socket with unread data is an error, and errors wake writers in any case. So there the peer only
/// shuts down both directions. On other systems only a close is a hang-up.
fn hang_up(far: fixture::File) -> Option<fixture::File> {
    let stays_open = cfg!(any(target_os = "linux", target_os = "android"));
    stays_open.then(|| {
        shut_down(&far, Shutdown::Both);
        far
    })
}

fn shut_down(file: &fixture::File, how: Shutdown) {
    let copy = file.try_clone().expect("a copy of a descriptor");
    UnixStream::from(copy).shutdown(how).expect("a connected socket");
}
