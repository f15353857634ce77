//! What the feature `backtrace` adds to the reports of the blocking detector.

#[path = "it/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use crate::support::{in_child, is_child, run};
use greenhub::debug::hub_blocking_detection;
use greenhub::{Report, get_hub, set_report_stream, sleep, spawn};

/// Runs `test`, the body of the test `name`, in a process of its own.
fn alone(name: &str, test: fn()) {
    if is_child() {
        return run("alone", test);
    }
    let output = in_child(name, |_| ());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The backtraces that are reported from now on. Where the system takes the processor away for long, some are of others
/// than the test means.
fn backtraces() -> Receiver<String> {
    let (told, blocked) = channel();
    set_report_stream(move |report| {
        if let Report::Blocked { backtrace, .. } = report {
            let _ = told.send(backtrace.clone().unwrap_or_default());
        }
    });
    hub_blocking_detection(Duration::from_millis(50)).unwrap();
    sleep(Duration::from_millis(1));
    blocked
}

#[inline(never)]
fn computes_until_told(told: &Receiver<String>) -> String {
    let mut sum = 0_u64;
    loop {
        for number in 0..black_box(10_000) {
            sum = black_box(sum.wrapping_mul(31) ^ number);
        }
        match told.try_recv() {
            Ok(backtrace) if backtrace.contains("computes_until_told") => return backtrace,
            Ok(_) | Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => panic!("nobody tells"),
        }
    }
}

#[inline(never)]
fn blocks_the_os_thread(told: &Receiver<String>) -> String {
    loop {
        let backtrace = black_box(told.recv_timeout(Duration::from_secs(60)).expect("the detector tells"));
        if backtrace.contains("blocks_the_os_thread") {
            return backtrace;
        }
    }
}

/// Whether these calls are in it, the inner one first.
#[track_caller]
fn shows(backtrace: &str, calls: &[&str]) {
    let mut rest = backtrace;
    for call in calls {
        let at = rest.find(call);
        assert!(at.is_some(), "{call} is not in, or not in its place:\n{backtrace}");
        rest = &rest[at.unwrap_or_default()..];
    }
}

#[test]
fn a_green_thread_that_computes_is_shown_where_it_does() {
    alone("a_green_thread_that_computes_is_shown_where_it_does", || {
        let told = backtraces();
        let backtrace = spawn(move || computes_until_told(&told)).join().unwrap();
        shows(&backtrace, &["backtrace::computes_until_told", "tests/backtrace.rs:", "hub_core::greenlet"]);
    });
}

#[test]
fn a_green_thread_that_blocks_its_os_thread_is_shown_in_the_call() {
    alone("a_green_thread_that_blocks_its_os_thread_is_shown_in_the_call", || {
        let told = backtraces();
        let backtrace = spawn(move || blocks_the_os_thread(&told)).join().unwrap();
        shows(&backtrace, &["recv_timeout", "backtrace::blocks_the_os_thread", "hub_core::greenlet"]);
    });
}

#[test]
fn the_main_greenlet_is_shown_on_the_stack_of_its_os_thread() {
    alone("the_main_greenlet_is_shown_on_the_stack_of_its_os_thread", || {
        let told = backtraces();
        let backtrace = computes_until_told(&told);
        shows(&backtrace, &["backtrace::computes_until_told", "support::run"]);
    });
}

#[test]
fn a_callback_is_shown_below_the_main_loop() {
    alone("a_callback_is_shown_below_the_main_loop", || {
        let told = backtraces();
        let (tell, shown) = channel();
        get_hub().schedule(Duration::from_millis(1), move || tell.send(blocks_the_os_thread(&told)).unwrap());
        sleep(Duration::from_millis(5));
        shows(&shown.try_recv().unwrap(), &["backtrace::blocks_the_os_thread", "MainLoop>::run"]);
    });
}
