//! Tests of the green suite inside of a runtime of the program: the body of each runs in a green thread of a joined
//! loop.
//!
//! The modules are those of the suite that need nothing of the main greenlet but a place to run, and that no other file
//! belongs to.

#[macro_use]
#[path = "../it/support/mod.rs"]
mod it_support;

/// Tests that replace the hub, which is refused as long as the loop is joined. They run as in the suite.
const REPLACE_THE_HUB: &[&str] = &[
    "a_grant_from_another_os_thread_comes_before_a_later_timeout",
    "a_late_timeout_strikes_at_the_next_wait_of_its_scope",
    "a_read_timeout_holds_despite_spurious_reports",
    "a_sleep_ends_at_its_time_by_the_clock_of_the_hub",
    "a_sleep_outlives_a_change_of_hub_and_an_abort",
    "a_permit_refused_by_its_waiter_is_regranted",
    "a_waiter_that_pauses_keeps_its_place",
    "an_answer_during_a_long_listener_call_comes_before_the_timeout",
    "an_own_shutdown_wakes_a_sender_of_datagrams_at_once",
    "an_own_shutdown_wakes_the_waiters_of_every_clone_at_once",
    "closing_the_receiver_wakes_a_sender_that_waits_for_room",
    "connecting_has_one_deadline_however_often_it_is_woken",
    "every_exit_strikes_despite_spurious_reports",
    "sleeps_end_in_the_order_of_their_deadlines",
    "spurious_readiness_reports_cost_few_turns",
    "the_timeout_of_a_write_all_is_for_each_wait",
    "the_write_timeout_of_a_unix_socket_holds_across_retries",
];

/// Tests of the main greenlet: its errors, its interrupts, and its loop before the first wait. They run as in the
/// suite.
const NEED_THE_MAIN_GREENLET: &[&str] = &[
    "a_kill_by_main_loses_no_error_of_the_loop",
    "an_interrupt_reaches_main_and_an_abort_reaches_the_waiters",
    "a_missing_hub_is_an_error_of_the_call",
    "a_shield_builds_no_hub",
    "a_shield_does_not_outlast_a_shutdown",
    "a_shielded_sleep_ends_with_its_loop",
    "an_interrupt_by_a_getter_reaches_main",
];

/// The helpers of the suite. A helper that runs a test does so in a joined loop.
mod support {
    pub(crate) use crate::it_support::*;

    use std::panic::resume_unwind;

    use greenhub::GreenError;
    use greenhub::future::defer_to_green_thread;
    use hub_tokio::run_until;

    use super::{NEED_THE_MAIN_GREENLET, REPLACE_THE_HUB};

    /// Runs a test on a new OS thread, in a green thread of a loop that a runtime of Tokio drives.
    ///
    /// The hub is the default one, or that of `EVENTLET_HUB`, which must have a descriptor for outer loops.
    pub(crate) fn run<T: Send + 'static>(name: &str, test: impl FnOnce() -> T + Send + 'static) -> T {
        if is_excepted(name) {
            return crate::it_support::run(name, test);
        }
        crate::it_support::run(name, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            match runtime.block_on(run_until(defer_to_green_thread(test))).expect("the hub has a descriptor") {
                Ok(value) => value,
                Err(GreenError::Panic(panic)) => resume_unwind(panic.into_payload()),
                Err(error) => panic!("{error}"),
            }
        })
    }

    /// Returns whether the running test, or the one of that name, is an exception.
    fn is_excepted(name: &str) -> bool {
        let thread = std::thread::current();
        let names = [name, thread.name().and_then(|path| path.rsplit("::").next()).unwrap_or_default()];
        names.iter().any(|name| REPLACE_THE_HUB.contains(name) || NEED_THE_MAIN_GREENLET.contains(name))
    }

    /// Runs a test like [`run`], but in its own process.
    #[track_caller]
    pub(crate) fn alone(name: &str, test: impl FnOnce() + Send + 'static) {
        if is_child() {
            return run(name, test);
        }
        assert_succeeded(&rerun(name, |_| ()));
    }
}

#[path = "../it/async_io.rs"]
mod async_io;
#[path = "../it/ends.rs"]
mod ends;
#[path = "../it/granted.rs"]
mod granted;
#[path = "../it/green_threads.rs"]
mod green_threads;
#[path = "../it/group.rs"]
mod group;
#[path = "../it/links.rs"]
mod links;
#[path = "../it/listen.rs"]
mod listen;
#[path = "../it/local.rs"]
mod local;
#[path = "../it/net.rs"]
mod net;
#[path = "../it/select.rs"]
mod select;
#[path = "../it/shield.rs"]
mod shield;
#[path = "../it/sockets.rs"]
mod sockets;
#[path = "../it/sync_event.rs"]
mod sync_event;
#[path = "../it/sync_queue.rs"]
mod sync_queue;
#[path = "../it/sync_semaphore.rs"]
mod sync_semaphore;
#[path = "../it/timeouts.rs"]
mod timeouts;
#[path = "../it/timeouts_compose.rs"]
mod timeouts_compose;
#[path = "../it/udp.rs"]
mod udp;
#[path = "../it/unix.rs"]
mod unix;
