//! A second `block_on` inside of a green thread: greenhub's parks, and Tokio's does not.

use std::future::pending;
use std::panic::catch_unwind;
use std::time::Duration;

use greenhub::future::{block_in_place, block_on, defer_to_green_thread, try_block_on};
use greenhub::hub::LoopErrorKind;
use recipes::way::Way;
use tokio::runtime::Builder;

use crate::support::{EXPLICIT, Ticker, every_way, run};

/// Sleeps by a runtime of its own, which knows nothing of green threads.
fn sleep_in_another_runtime() {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    // The `async` block makes the timer in this runtime. Nothing drives the timers of the hub's runtime meanwhile.
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
}

#[test]
fn block_on_of_another_runtime_blocks_the_os_thread() {
    let ways: Vec<Way> = every_way().into_iter().filter(|way| !EXPLICIT.contains(way)).collect();
    run(&ways, |ticker| {
        ticker.gate().pass();
        let before = ticker.ticks();
        sleep_in_another_runtime();
        assert_eq!(ticker.ticks(), before, "another green thread ran meanwhile");
        ticker.gate().pass();
    });
}

#[test]
fn block_on_of_another_runtime_panics_in_the_explicit_mode() {
    run(EXPLICIT, |ticker| {
        let panic = catch_unwind(sleep_in_another_runtime).expect_err("a runtime is entered");
        let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let message = message.unwrap_or_default();
        assert!(message.starts_with("Cannot start a runtime from within a runtime"), "{message}");
        ticker.gate().pass();
    });
}

#[test]
fn green_threads_and_futures_nest() {
    run(&every_way(), |ticker| nest(ticker, 5));
}

fn nest(ticker: &Ticker, depth: u32) {
    fn at(depth: u32, pass: impl Fn() + Clone + 'static) -> u32 {
        pass();
        if depth == 0 {
            return 0;
        }
        block_on(async move { defer_to_green_thread(move || at(depth - 1, pass)).await }).expect("no panic") + 1
    }
    let gate = ticker.gate();
    assert_eq!(at(depth, move || gate.pass()), depth);
}

#[test]
fn a_task_of_this_os_thread_must_not_block() {
    run(&[Way::IMPLICIT, Way::Explicit], |_| {
        let task =
            tokio::spawn(async { block_in_place(|| try_block_on(pending::<()>())).map_err(|error| error.kind()) });
        assert_eq!(block_on(task).expect("no panic"), Err(LoopErrorKind::InMainloop));
    });
}
