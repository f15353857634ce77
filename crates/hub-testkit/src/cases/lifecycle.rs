//! Cases for forks and outer loops.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use hub_core::hub::{Hub, Interest, Key, Lease, Readiness};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::fixture::{self, Driver, Make, time_limit};
use crate::process::{identity_of, in_child, replace_all_descriptors, skip};

/// Clause 16: `after_fork` *MUST leave an empty, working hub*.
pub fn a_forked_child_has_a_working_hub<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (near, far) = fixture::pair();
    let key = driver.add(&near, Interest::READ, Lease::Life);
    fixture::send(&far, b"x");
    in_child(|| {
        driver.disarm(key, Interest::BOTH);
        driver.hub.after_fork().expect("a hub for the child");
        driver.wait(Some(Duration::ZERO));
        assert_eq!(driver.reports(), 0, "the hub of the child has reports of the parent");
        driver.watch(key, Interest::READ, Lease::Life).expect("watched in the child");
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ);
    });
}

/// Clause 16: *and MUST NOT touch system objects that the parent still uses*. The case checks the latency, too, because
/// a damaged hub may recover at its timeout.
pub fn a_forked_child_leaves_the_parent_alone<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (near, far) = fixture::pair();
    let key: Key = driver.add(&near, Interest::READ, Lease::Life);
    in_child(|| {
        driver.hub.after_fork().expect("a hub for the child");
        driver.watch(key, Interest::READ, Lease::Life).expect("watched in the child");
        driver.wait(Some(Duration::ZERO));
        driver.forget(key);
    });
    fixture::send(&far, b"x");
    let start = Instant::now();
    assert_eq!(driver.wait_for(key, time_limit() * 2), Readiness::READ, "the parent gets no report");
    assert!(start.elapsed() < time_limit(), "the parent got the report after {:?}", start.elapsed());
}

/// Clause 16: *it MUST NOT close a number that may be another file's by now*. A daemon closes all inherited
/// descriptors, and opens files of its own.
pub fn a_forked_child_keeps_the_files_that_it_has_opened<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (near, _far) = fixture::pair();
    driver.add(&near, Interest::READ, Lease::Life);
    in_child(|| {
        let files = replace_all_descriptors();
        driver.hub.after_fork().expect("a hub for the child");
        for (file, identity) in &files {
            assert_eq!(identity_of(file), *identity, "descriptor {} belongs to another file", file.as_raw_fd());
        }
        let (near, far) = fixture::pair();
        let key = driver.add(&near, Interest::READ, Lease::Life);
        fixture::send(&far, b"x");
        assert_eq!(driver.wait_for(key, time_limit()), Readiness::READ, "the hub of the child gets no report");
    });
}

/// Clause 17: *`pollable` MUST be readable when `wait` with a zero timeout would make a report*.
pub fn pollable_is_readable_with_a_report<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    if driver.hub.pollable().is_none() {
        return skip(driver.hub.name(), "the hub has no descriptor for outer loops");
    }
    let (near, far) = fixture::pair();
    let key = driver.add(&near, Interest::READ, Lease::Life);
    fixture::send(&far, b"x");
    let fd = driver.hub.pollable().expect("a descriptor for outer loops");
    let limit = Timespec { tv_sec: time_limit().as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&limit));
    assert_eq!(ready, Ok(1), "an outer loop does not see the report");
    assert_eq!(driver.wait_for(key, Duration::ZERO), Readiness::READ);
}
