//! Backtraces of many greenlets, and of several OS threads at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::support::fork::{ends_well, forked};
use crate::support::{alone, assert_succeeded, is_child, rerun, run};
use greenhub::debug::{backtrace_of, dump};
use greenhub::greenthread::current_id;
use greenhub::thread::yield_now;
use greenhub::{GreenThread, sleep, spawn};

const LONG: Duration = Duration::from_secs(600);

/// Returns the time for which this OS thread has run, which other processes and OS threads do not lengthen.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32)
}

#[test]
fn a_dump_of_thousands_of_green_threads_reads_the_mappings_once() {
    const NAME: &str = "a_dump_of_thousands_of_green_threads_reads_the_mappings_once";
    const GREEN: u32 = 3000;
    if !is_child() {
        // Each such guard is a line in the list of mappings.
        return assert_succeeded(&rerun(NAME, |command| _ = command.env("GREENHUB_GUARD", "mprotect")));
    }
    run(NAME, || {
        let all: Vec<GreenThread<()>> = (0..GREEN).map(|_| spawn(|| sleep(LONG))).collect();
        sleep(Duration::from_millis(1));
        let id = all[0].id().unwrap();
        backtrace_of(id).unwrap();
        let begun = cpu_time();
        (0..10).for_each(|_| drop(backtrace_of(id).unwrap()));
        let single = (cpu_time() - begun) / 10;
        let begun = cpu_time();
        let text = dump();
        let whole = cpu_time() - begun;
        assert!(text.matches("many.rs:").count() >= GREEN as usize);
        // One by one they would take all of this time.
        assert!(whole < single * GREEN / 2, "{whole:?} for all, {single:?} for one");
        all.iter().for_each(|green| _ = green.kill());
    });
}

#[test]
fn a_child_that_was_forked_during_backtraces_of_other_os_threads_makes_dumps() {
    static STOP: AtomicBool = AtomicBool::new(false);
    alone("a_child_that_was_forked_during_backtraces_of_other_os_threads_makes_dumps", || {
        yield_now();
        let work = || {
            yield_now();
            while !STOP.load(Ordering::Relaxed) {
                assert!(backtrace_of(current_id()).unwrap().contains("many.rs"));
            }
        };
        let others = [std::thread::spawn(work), std::thread::spawn(work)];
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(10));
            let child = forked(|| {
                nix::unistd::alarm::set(20);
                let text = dump();
                assert!(text.contains("main greenlet: running\n") && text.lines().count() > 4, "{text}");
            });
            ends_well(child);
        }
        STOP.store(true, Ordering::Relaxed);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}
