//! Cases about the duration of `wait`, and about timeouts, notices and signals.

use std::thread;
use std::time::{Duration, Instant};

use hub_core::hub::{Hub, Interest, Lease, Readiness};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;

use crate::allocations;
use crate::fixture::{self, Driver, Make, time_limit};
use crate::process::let_interrupt;

/// A timeout far beyond the duration of any case. A wait that lasts so long was not ended by its report or notice.
const LONG: Duration = Duration::from_secs(60);

/// Sleeps for `timeout`, and returns the elapsed time and the number of waits.
fn sleep<H: Hub>(driver: &mut Driver<H>, timeout: Duration) -> (Duration, usize) {
    let start = Instant::now();
    let mut waits = 0;
    loop {
        driver.wait(Some(timeout.saturating_sub(start.elapsed())));
        waits += 1;
        if start.elapsed() >= timeout {
            return (start.elapsed(), waits);
        }
        assert!(waits < 100, "wait returns again and again without a report");
    }
}

/// Clause 11: *`wait` MUST NOT return before `timeout` is over*. One wait takes the whole timeout.
pub fn a_timeout_is_not_early<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let timeout = Duration::from_millis(40);
    // Several times, because on a busy machine a delay may hide an early return.
    for _ in 0..5 {
        let (_, waits) = sleep(&mut driver, timeout);
        assert!(waits <= 2, "{waits} waits for {timeout:?}");
    }
}

/// Clause 11: *it rounds up*. A timeout below the system's unit does not become zero.
pub fn a_short_timeout_rounds_up<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    for micros in [1, 200, 999, 1_001] {
        let (_, waits) = sleep(&mut driver, Duration::from_micros(micros));
        assert!(waits <= 2, "{waits} waits for {micros} microseconds");
    }
}

/// Clause 11: `wait` returns once `timeout` is over.
pub fn a_timeout_is_not_late<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let (took, _) = sleep(&mut driver, Duration::from_millis(5));
    assert!(took < time_limit(), "5 ms took {took:?}");
}

/// Clause 11: *a `timeout` of zero MUST NOT sleep*.
pub fn a_zero_timeout_never_sleeps<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    // The shortest of many: load delays some waits, but a hub that sleeps for zero delays all of them.
    let one = || {
        let start = Instant::now();
        driver.wait(Some(Duration::ZERO));
        start.elapsed()
    };
    let shortest = std::iter::repeat_with(one).take(1000).min().unwrap_or_default();
    assert!(shortest < Duration::from_millis(1), "each wait with a zero timeout took {shortest:?} or longer");
}

/// Clause 11: *`Duration::MAX` does not overflow*. The wait lasts until a report comes.
pub fn the_longest_timeout_does_not_overflow<H: Hub>(make: Make<'_, H>) {
    report_ends(make, Some(Duration::MAX));
}

/// Clause 11: with *`None`*, the wait lasts until a report comes.
pub fn no_timeout_sleeps_until_a_report<H: Hub>(make: Make<'_, H>) {
    report_ends(make, None);
}

/// Clause 11: *except for a report*. A report ends the wait when it comes.
pub fn a_report_ends_the_wait_at_once<H: Hub>(make: Make<'_, H>) {
    report_ends(make, Some(LONG));
}

/// Waits with `timeout` while another OS thread sends a byte after a moment.
fn report_ends<H: Hub>(make: Make<'_, H>, timeout: Option<Duration>) {
    let mut driver = Driver::new(make);
    let (near, far) = fixture::pair();
    let key = driver.add(&near, Interest::READ, Lease::Life);
    let sender = thread::spawn(move || {
        thread::sleep(fixture::NO_REPORT_TIME);
        fixture::send(&far, b"x");
        (Instant::now(), far)
    });
    let mut waits = 0;
    let reports = loop {
        waits += 1;
        assert!(waits <= 3, "wait returns again and again without a report");
        let reports = driver.wait(timeout);
        if !reports.is_empty() {
            break reports;
        }
    };
    let now = Instant::now();
    let (sent, _far) = sender.join().expect("a byte was sent");
    assert_eq!(reports, [(key, Readiness::READ)]);
    assert!(now.saturating_duration_since(sent) < time_limit(), "reported {:?} after it was sent", now - sent);
}

/// Clause 13: *a notice before `wait` MUST end it*.
pub fn a_notice_before_the_wait_ends_it<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let notifier = driver.notifier();
    notifier.notify();
    let start = Instant::now();
    driver.wait(Some(LONG));
    assert!(start.elapsed() < time_limit(), "took {:?}", start.elapsed());
}

/// Clause 13: *or during `wait`*, each time.
pub fn a_notice_during_the_wait_ends_it<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let notifier = driver.notifier();
    for round in 0..3 {
        let notifier = notifier.clone();
        let other = thread::spawn(move || {
            thread::sleep(fixture::NO_REPORT_TIME);
            notifier.notify();
        });
        let start = Instant::now();
        let reports = driver.wait(Some(LONG));
        assert!(start.elapsed() < time_limit(), "notice {round} took {:?}", start.elapsed());
        other.join().expect("a notice was given");
        driver.acknowledge(&reports);
    }
}

/// Clause 13: *many notices MUST end only a few waits*. A thousand notices end two waits at most.
pub fn many_notices_end_few_waits<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let notifier = driver.notifier();
    for _ in 0..1000 {
        notifier.notify();
    }
    for _ in 0..2 {
        let reports = driver.wait(Some(Duration::ZERO));
        driver.acknowledge(&reports);
    }
    driver.expect_no_report();
}

/// Clause 15: *`wait` MUST NOT allocate once `ready` has its size*.
pub fn a_wait_allocates_nothing<H: Hub>(make: Make<'_, H>) {
    let mut driver = Driver::new(make);
    let pairs: Vec<_> = (0..8).map(|_| fixture::pair()).collect();
    let mut fewest = usize::MAX;
    for _ in 0..4 {
        for (near, _) in &pairs {
            driver.add(near, Interest::WRITE, Lease::Life);
        }
        let (start, before) = (Instant::now(), allocations::count());
        driver.wait_alone(Some(time_limit()));
        while driver.reports() == 0 && start.elapsed() < time_limit() {
            driver.wait_alone(Some(time_limit()));
        }
        fewest = fewest.min(allocations::count() - before);
        assert!(driver.reports() > 0);
    }
    assert_eq!(fewest, 0, "a wait allocates");
}

/// Clause 12: *an interrupted `wait` MUST return `Ok` without a report*.
pub fn a_signal_is_no_error<H: Hub>(make: Make<'_, H>) {
    let_interrupt(Signal::SIGUSR1);
    let mut driver = Driver::new(make);
    let waiter = pthread_self();
    let other = thread::spawn(move || {
        for _ in 0..5 {
            thread::sleep(fixture::NO_REPORT_TIME);
            pthread_kill(waiter, Signal::SIGUSR1).expect("a signal is sent");
        }
    });
    while !other.is_finished() {
        assert_eq!(driver.wait(Some(fixture::NO_REPORT_TIME * 2)), []);
    }
    other.join().expect("signals were sent");
}
