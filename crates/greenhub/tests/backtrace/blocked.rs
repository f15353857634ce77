//! Backtraces in the reports of the blocking detector.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use crate::shows;
use crate::support::alone;
use greenhub::debug::{Report, hub_blocking_detection, set_report_stream};
use greenhub::{get_hub, sleep, spawn};

/// Returns the backtraces that are reported from now on.
///
/// If the system suspends this process for a while, the detector also reports other places than the tested one.
fn backtraces() -> Receiver<String> {
    let (reports, blocked) = channel();
    set_report_stream(move |report| {
        if let Report::Blocked { backtrace, .. } = report {
            let _ = reports.send(backtrace.clone().unwrap_or_default());
        }
    });
    hub_blocking_detection(Duration::from_millis(50)).unwrap();
    sleep(Duration::from_millis(1));
    blocked
}

#[inline(never)]
fn compute_until_reported(reports: &Receiver<String>) -> String {
    let mut sum = 0_u64;
    loop {
        for number in 0..black_box(10_000) {
            sum = black_box(sum.wrapping_mul(31) ^ number);
        }
        match reports.try_recv() {
            Ok(backtrace) if backtrace.contains("compute_until_reported") => return backtrace,
            Ok(_) | Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => panic!("the report stream is gone"),
        }
    }
}

#[inline(never)]
fn block_the_os_thread(reports: &Receiver<String>) -> String {
    loop {
        let backtrace = black_box(reports.recv_timeout(Duration::from_secs(60)).expect("the detector reports"));
        if backtrace.contains("block_the_os_thread") {
            return backtrace;
        }
    }
}

#[test]
fn backtrace_shows_the_computing_frame_of_a_green_thread() {
    alone("backtrace_shows_the_computing_frame_of_a_green_thread", || {
        let reports = backtraces();
        let backtrace = spawn(move || compute_until_reported(&reports)).join().unwrap();
        shows(&backtrace, &["compute_until_reported", "tests/backtrace/blocked.rs:", "hub_core::greenlet"]);
    });
}

#[test]
fn backtrace_shows_the_blocking_call_of_a_green_thread() {
    alone("backtrace_shows_the_blocking_call_of_a_green_thread", || {
        let reports = backtraces();
        let backtrace = spawn(move || block_the_os_thread(&reports)).join().unwrap();
        shows(&backtrace, &["recv_timeout", "block_the_os_thread", "hub_core::greenlet"]);
    });
}

#[test]
fn backtrace_of_the_main_greenlet_shows_the_os_threads_stack() {
    alone("backtrace_of_the_main_greenlet_shows_the_os_threads_stack", || {
        let reports = backtraces();
        let backtrace = compute_until_reported(&reports);
        shows(&backtrace, &["compute_until_reported", "support::run"]);
    });
}

#[test]
fn backtrace_of_a_callback_shows_the_main_loop() {
    alone("backtrace_of_a_callback_shows_the_main_loop", || {
        let reports = backtraces();
        let (tell, shown) = channel();
        get_hub().schedule(Duration::from_millis(1), move || tell.send(block_the_os_thread(&reports)).unwrap());
        sleep(Duration::from_millis(5));
        shows(&shown.try_recv().unwrap(), &["block_the_os_thread", "main_loop/turn.rs:"]);
    });
}
