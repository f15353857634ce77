//! Cases for forks and outer loops.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use hub_core::hub::{Hub, Interest, Key, Lease, Readiness};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::fixture::{self, Driver, Make, time_limit};
use crate::process::{allow_descriptors, identity_of, in_child, replace_all_descriptors, skip};

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
        driver.watch(key, Interest::READ, Lease::Life).expect("the hub of the child watches the descriptor");
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
        driver.watch(key, Interest::READ, Lease::Life).expect("the hub of the child watches the descriptor");
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

/// Clause 17: *a `wait` with a zero timeout that makes no report MUST leave nothing to report*. Each batch of hang-ups
/// without a waiter may be dropped as a whole, and a report comes after all of them.
pub fn a_wait_without_a_report_leaves_nothing_to_report<H: Hub>(make: Make<'_, H>) {
    // More than the batch of any hub.
    const MANY: usize = 1500;

    let mut driver = Driver::new(make);
    if driver.hub.pollable().is_none() {
        return skip(driver.hub.name(), "the hub has no descriptor for outer loops");
    }
    if !allow_descriptors(2 * MANY as RawFd + 100) {
        return skip(driver.hub.name(), "the limit of descriptors on this system is too low");
    }
    let pairs: Vec<_> = (0..MANY).map(|_| fixture::pair()).collect();
    let mut unreported = BTreeSet::new();
    for (near, far) in &pairs {
        unreported.insert(driver.add(near, Interest::READ, Lease::Life).fd());
        fixture::send(far, b"x");
    }
    loop {
        let reports = driver.wait(Some(Duration::ZERO));
        if driver.reports() == 0 {
            break;
        }
        reports.iter().for_each(|(key, _)| _ = unreported.remove(&key.fd()));
    }
    assert!(unreported.is_empty(), "a wait makes no report although {} are left", unreported.len());
    let (last, far) = fixture::pair();
    let key = driver.add(&last, Interest::READ, Lease::Life);
    let _nears: Vec<_> = pairs.into_iter().map(|(near, _)| near).collect();
    fixture::send(&far, b"x");
    while !driver.wait(Some(Duration::ZERO)).iter().any(|&(reported, _)| reported == key) {
        assert_ne!(driver.reports(), 0, "a wait makes no report although one is left");
    }
}
