//! Cases about `watch` and `forget`.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use hub_core::hub::{Hub, Interest, Lease, Readiness};
use rustix::io::Errno;

use super::LEASES;
use crate::fixture::{self, Driver, File, Make, time_limit};
use crate::process::{allow_descriptors, skip};

/// A number that no test program reaches by itself.
const SPARE: i32 = 200;
/// A number above the usual limits of a hub, such as `FD_SETSIZE`.
const HIGH: i32 = 1500;

/// Clause 1: *a direction of `interest` that is ready or becomes ready MUST be reported*.
pub fn readable_descriptors_are_reported<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        let key = driver.add(&near, Interest::READ, lease);
        driver.expect_no_report();
        fixture::send(&far, b"x");
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ, "{lease:?}");
    }
}

/// Clause 1, for the other direction.
pub fn writable_descriptors_are_reported<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        fixture::fill(&near);
        let key = driver.add(&near, Interest::WRITE, lease);
        driver.expect_no_report();
        fixture::drain(&far);
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::WRITE, "{lease:?}");
    }
}

/// Clause 1: *even if `fd` was watched before and nothing new arrived: `watch` looks again*.
pub fn watching_again_reports_ready_directions<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        fixture::send(&far, b"x");
        let key = driver.add(&near, Interest::READ, lease);
        for _ in 0..3 {
            assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ, "{lease:?}");
            driver.drain_reports();
            driver.watch(key, Interest::READ, lease).expect("the hub watches the descriptor again");
        }
    }
}

/// Clause 2: *a later `watch` MUST replace key, interest and lease, wider*.
pub fn a_later_watch_adds_directions<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, _far) = fixture::pair();
        let key = driver.add(&near, Interest::READ, lease);
        driver.expect_no_report();
        driver.watch(key, Interest::BOTH, lease).expect("the hub watches the descriptor again");
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::WRITE, "{lease:?}");
    }
}

/// Clause 2: *or narrower*. The removed direction becomes ready only after the second `watch`.
pub fn a_later_watch_removes_directions<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        fixture::fill(&near);
        let key = driver.add(&near, Interest::BOTH, lease);
        driver.expect_no_report();
        driver.watch(key, Interest::READ, lease).expect("the hub watches the descriptor again");
        fixture::drain(&far);
        driver.expect_no_report();
        fixture::send(&far, b"x");
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ, "{lease:?}");
    }
}

/// Clause 2: *key, interest and lease*. A file that is lent for one wait may be closed without `forget`, even if it was
/// lent for life before.
pub fn a_later_watch_replaces_the_lease<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (near, far) = fixture::pair();
    let file = fixture::under(SPARE, &near);
    driver.add(&file, Interest::READ, Lease::Life);
    let key = driver.add(&file, Interest::READ, Lease::Wait);
    driver.release(key);
    drop(file);
    fixture::send(&far, b"never read");
    driver.expect_no_report();
}

/// Clause 10: *`forget` MUST release the open file before it returns*. The peer sees the end of the stream when the
/// loop closes its number.
pub fn forget_releases_the_open_file<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        let key = driver.add(&near, Interest::READ, lease);
        driver.wait(Some(Duration::ZERO));
        driver.forget(key);
        drop(near);
        assert!(fixture::reaches_end(&far), "the open file was not released ({lease:?})");
    }
}

/// Clauses 4 and 10: there is no report about a forgotten descriptor, even if a copy of the file is open.
pub fn a_forgotten_descriptor_is_not_reported<H: Hub>(make: Make<'_, H>) {
    for lease in LEASES {
        let mut driver = Driver::new(make);
        let (near, far) = fixture::pair();
        let key = driver.add(&near, Interest::READ, lease);
        driver.forget(key);
        fixture::send(&far, b"x");
        driver.wait(Some(fixture::NO_REPORT_TIME));
        assert_eq!(driver.reports(), 0, "{lease:?}");
    }
}

/// Clauses 9 and 10: a number is given up while its file is open, and `forget` gets no descriptor. Late reports about
/// the file come to an end.
pub fn a_released_number_is_no_longer_reported<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (near, far) = fixture::pair();
    let key = driver.add(&near, Interest::READ, Lease::Wait);
    driver.forget_number(key);
    fixture::send(&far, b"never read");
    driver.expect_no_report();
    let key = driver.add(&near, Interest::READ, Lease::Wait);
    assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ);
}

/// Clauses 2 and 7: *whatever file was there before*, *the key that is reported MUST be that of the
/// registration*.
pub fn a_reused_number_is_reported_under_its_new_key<H: Hub>(make: Make<'_, H>) {
    for forgotten in [true, false] {
        let mut driver = Driver::new(make);
        for lease in LEASES {
            let (near, far) = fixture::pair();
            let file = fixture::under(SPARE, &near);
            drop(near);
            // A descriptor that is lent for life is always forgotten.
            let key = driver.add(&file, Interest::READ, lease);
            fixture::send(&far, b"x");
            assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ, "{lease:?}, forgotten: {forgotten}");
            drop(file);
            if forgotten || lease == Lease::Life { driver.forget(key) } else { driver.release(key) }
        }
    }
}

/// Clauses 2 and 9: a number lent for one wait is closed and reused while a copy keeps the old file open. Reports about
/// the old file come to an end, and the new file is reported.
pub fn a_leaked_file_of_a_reused_number_does_not_disturb<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (old, old_far) = fixture::pair();
    let file = fixture::under(SPARE, &old);
    let key = driver.add(&file, Interest::READ, Lease::Wait);
    drop(file);
    driver.release(key);
    fixture::send(&old_far, b"never read");
    let (near, far) = fixture::pair();
    let file = fixture::under(SPARE, &near);
    let key = driver.add(&file, Interest::READ, Lease::Wait);
    driver.expect_no_report();
    fixture::send(&far, b"x");
    assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ);
}

/// Clause 8: *`watch` that returns an error MUST leave no trace*, *a regular file is EPERM or ready,
/// never silent*.
pub fn an_error_of_watch_leaves_no_trace<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let plain = std::env::current_exe().and_then(std::fs::File::open).expect("the test program is a file");
    let plain = File::new(plain.into());
    let file = fixture::under(SPARE, &plain);
    let key = driver.enter(&file);
    match driver.watch(key, Interest::READ, Lease::Wait) {
        Ok(()) => {
            assert!(driver.wait_for(key, time_limit()).contains(Readiness::READ), "the regular file was not reported")
        }
        Err(error) => assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM)),
    }
    drop(file);
    driver.release(key);
    let (near, far) = fixture::pair();
    let file = fixture::under(SPARE, &near);
    let key = driver.add(&file, Interest::READ, Lease::Wait);
    driver.expect_no_report();
    fixture::send(&far, b"x");
    assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ);
}

/// Clause 8: *EBADF for a number that is no descriptor*, or *INVALID at the next `wait`*.
pub fn a_dead_number_is_refused_or_invalid<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (near, _far) = fixture::pair();
    let file = fixture::under(SPARE, &near);
    let key = driver.add(&file, Interest::READ, Lease::Wait);
    drop(file);
    let dead = driver.close_while_armed(key);
    match driver.hub.watch(key, dead.as_fd(), Interest::READ, Lease::Wait) {
        Ok(()) => {
            assert!(
                driver.wait_for(key, time_limit()).contains(Readiness::INVALID),
                "the dead number was not reported as INVALID"
            )
        }
        Err(error) => assert_eq!(Errno::from_io_error(&error), Some(Errno::BADF)),
    }
}

/// Clause 8: *`InvalidInput` for a number too large*. An accepted number works like any other.
pub fn a_high_number_is_watched_or_refused<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    if !allow_descriptors(HIGH + 1) {
        return skip(driver.hub.name(), "the limit of descriptors on this system is too low");
    }
    let (near, far) = fixture::pair();
    let file = fixture::under(HIGH, &near);
    let key = driver.enter(&file);
    match driver.watch(key, Interest::READ, Lease::Life) {
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            skip(driver.hub.name(), "the hub has a limit for numbers");
        }
        Ok(()) => {
            fixture::send(&far, b"x");
            assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ);
        }
    }
}
