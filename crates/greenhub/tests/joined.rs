//! The green suite inside of a runtime of the program: the body of each test runs in a green thread of a joined loop.
//!
//! Single tests that a joined loop does not allow are in [`EXCEPTIONS`]. These modules are left out whole:
//!
//! - `dropped_sockets`, `edge`, `foreign_wait`, `hostile_hubs`, `hubs`, `intervals`, `lent_numbers`, `meddling_hubs`,
//!   `notifiers`, `poll_and_select`, `rate_limiter`, `turns`, `without_hub`: they replace the hub, which is refused as
//!   long as the loop is joined.
//! - `embedded`: it embeds the loop itself.
//! - `greenlets`: it switches to the main greenlet, which is the parent of all its greenlets.
//! - `late_operations`, `thread_end`: they shut the loop down and end its OS thread.
//! - `fork`, `fork_isolation`: a runtime of Tokio does not survive a fork of its thread while it runs.
//! - `blocking`: its detector watches and names the main greenlet.
//! - `costs`, `growth`: they count the calls and the memory of a loop without a runtime.
//! - `deadlock`: its deadlocks are between OS threads, most of which have no hub.
//! - `dump`, `panic_hook`: they list the main greenlet, and name panics outside of green threads.
//! - `faults`: the failed waits that it injects are errors of the main greenlet.
//! - `model`: it compares a virtual hub of its own with its model.
//! - `chat_example`, `cluster_example`, `crawler_example`, `echo_example`, `feed_service_example`, `peers`,
//!   `port_forwarder_example`, `producer_consumer_example`, `recursive_fetch_example`, `small_examples`,
//!   `threads_example`: they run programs, which have loops of their own.
//! - `auto_traits`, `smoke`: types that compile, and the choice of the hub, do not depend on what drives the loop.

#[macro_use]
#[path = "it/support/mod.rs"]
mod it_support;

/// Tests that run as in the suite, each with what they do that a joined loop does not allow.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    (
        "replace the hub, which is refused as long as the loop is joined",
        &[
            "a_broadcast_channel_matches_its_model",
            "a_change_of_hub_wakes_an_armed_waker",
            "a_failed_hub_from_use_hub_with_stays_an_error_until_use_hub",
            "a_failing_timer_is_spent_and_freed",
            "a_fired_timer_can_be_armed_again",
            "a_grant_from_another_os_thread_comes_before_a_later_timeout",
            "a_green_thread_that_outlives_its_hub_does_not_age_by_the_next_clock",
            "a_handle_of_a_timer_that_fired_cancels_no_other",
            "a_hub_may_be_replaced_in_a_poll",
            "a_hub_that_panics_does_not_keep_a_dead_loop_waiting",
            "a_hub_that_panics_reaches_main_and_the_next_call_builds_a_new_one",
            "a_hundred_thousand_timers_fire_in_order",
            "a_late_timeout_strikes_at_the_next_wait_of_its_scope",
            "a_lifo_queue_matches_its_model",
            "a_limit_counts_over_several_parks",
            "a_listener_is_closed_when_the_hub_refuses_to_rearm_it",
            "a_local_timer_fires_while_its_green_thread_lives",
            "a_local_timer_is_not_pending_after_its_green_thread_ended",
            "a_manual_clock_makes_sleeps_deterministic",
            "a_notification_matches_its_model",
            "a_number_released_inside_the_hub_leaves_no_trace",
            "a_oneshot_channel_matches_its_model",
            "a_park_that_a_hub_begins_in_watch_leaves_no_waiter_behind",
            "a_parker_does_not_park_between_two_turns",
            "a_poll_inside_the_wait_of_a_hub_gets_the_error_of_the_hub",
            "a_poll_inside_the_wait_of_a_hub_is_armed_after_it",
            "a_poll_inside_the_wait_of_a_hub_is_refused_beside_a_parked_reader",
            "a_priority_queue_matches_its_model",
            "a_rate_limiter_matches_its_model",
            "a_queue_matches_its_model",
            "a_queued_wake_up_survives_a_change_of_hub",
            "a_read_timeout_holds_despite_spurious_reports",
            "a_ready_descriptor_is_served_while_the_clock_stands_still",
            "a_replaced_hub_counts_nothing",
            "a_replaced_hub_of_the_same_thread_does_not_keep_a_socket",
            "a_sleep_ends_at_its_time_by_the_clock_of_the_hub",
            "a_sleep_outlives_a_change_of_hub_and_an_abort",
            "a_timer_outlives_the_green_thread_that_armed_it",
            "a_permit_refused_by_its_waiter_is_regranted",
            "a_tree_of_tokens_matches_its_model",
            "a_turn_does_not_end_early_while_the_hubs_clock_stands_still",
            "a_turn_ends_after_half_its_time_by_the_hubs_clock",
            "a_wait_inside_a_hub_call_is_the_blocking_error",
            "a_wait_outlives_the_hub",
            "a_wait_that_fails_reaches_main_and_the_next_call_builds_a_new_hub",
            "a_waiter_that_pauses_keeps_its_place",
            "a_watch_channel_matches_its_model",
            "abort_discards_the_timers",
            "ages_are_known_to_a_loop_without_timers",
            "an_answer_during_a_long_listener_call_comes_before_the_timeout",
            "an_arrival_that_builds_its_hub_is_not_released_by_an_earlier_opening",
            "an_error_of_a_poll_inside_the_wait_of_a_hub_does_not_outlive_its_cause",
            "an_operation_waits_again_after_a_spurious_report",
            "an_own_shutdown_wakes_a_sender_of_datagrams_at_once",
            "an_own_shutdown_wakes_the_waiters_of_every_clone_at_once",
            "cancelled_timers_leave_the_queue_at_once",
            "close_wakes_a_poll_that_pauses",
            "closing_the_receiver_wakes_a_sender_that_waits_for_room",
            "connecting_has_one_deadline_however_often_it_is_woken",
            "deadlines_decide_whatever_the_order_of_arming",
            "deregistration_lends_the_hub_an_open_descriptor",
            "equal_deadlines_fire_in_the_order_of_arming",
            "every_exit_strikes_despite_spurious_reports",
            "every_new_socket_is_registered_separately",
            "green_threads_are_listed_with_their_age",
            "green_threads_of_a_dead_loop_end_in_the_new_one",
            "main_waits_on_after_its_hub_was_replaced",
            "one_timer_object_armed_twice_fires_twice",
            "only_writes_of_a_retrying_source_are_tried_without_a_report",
            "polls_of_a_registered_source_watch_no_more_than_waits",
            "rule_03_nothing_begins_when_the_green_threads_are_gone",
            "rule_04_a_failed_registration_drops_its_descriptor",
            "rule_04_a_registration_is_forgotten_before_its_descriptor_is_closed",
            "rule_05_a_moved_socket_is_deregistered_by_its_former_hub",
            "rule_05_a_socket_closed_while_its_hub_is_built_is_not_waited_for",
            "rule_05_a_socket_dropped_on_another_thread_is_deregistered_before_the_close",
            "rule_05_into_fd_deregisters_the_socket",
            "rule_06_a_hostile_hub_cannot_break_the_loop",
            "rule_06_a_hub_whose_name_panics_switches_or_is_empty_is_a_build_error",
            "run_once_runs_one_turn",
            "sleeps_end_in_the_order_of_their_deadlines",
            "sockets_of_an_earlier_hub_are_closed_at_once",
            "spurious_readiness_reports_cost_few_turns",
            "the_armed_count_follows_a_model_under_random_use",
            "the_armed_count_holds_fresh_timers_and_no_cancelled_ones",
            "the_loop_restarts_after_a_system_error_with_its_timers",
            "the_timeout_of_a_write_all_is_for_each_wait",
            "the_write_timeout_of_a_unix_socket_holds_across_retries",
            "times_are_reported_in_order_and_stay_ready",
            "timers_follow_only_the_clock_of_the_hub",
            "unconfirmed_reports_of_polls_are_bounded",
        ],
    ),
    (
        "end the loop by an abort, an interrupt or an error, which ends the drive too",
        &[
            "a_hub_works_again_after_abort",
            "a_kill_by_main_loses_no_error_of_the_loop",
            "a_put_of_main_that_an_interrupt_ends_after_close_returns_its_item",
            "a_notification_of_all_that_a_waiter_refused_is_over",
            "a_notification_of_one_is_passed_on_although_all_are_notified_after_it",
            "a_notification_of_one_that_its_only_waiter_refused_is_stored",
            "a_notification_of_one_that_its_waiter_refused_goes_to_the_next",
            "a_remote_interrupts_an_idle_hub",
            "a_shielded_sleep_ends_with_its_loop",
            "a_value_refused_by_its_waiter_goes_to_the_next",
            "a_wait_that_the_loop_ends_loses_no_value",
            "abort_does_not_wait_for_far_timers",
            "abort_ends_the_loop_after_the_turn",
            "aborting_a_loop_that_never_ran_returns_at_once",
            "an_abort_wakes_an_armed_waker",
            "an_arrival_released_by_the_barrier_counts_despite_an_abort",
            "an_error_for_main_drops_the_future_and_is_returned",
            "an_interrupt_by_a_getter_reaches_main",
            "an_interrupt_reaches_main_and_an_abort_reaches_the_waiters",
            "an_interrupt_reaches_main_at_its_next_yield",
            "an_open_timeout_survives_an_abort",
            "ctrl_c_interrupts_a_hub_that_is_never_idle",
            "ctrl_c_interrupts_an_idle_hub",
            "main_gets_its_error_when_its_budget_is_used_up",
            "main_waits_on_after_an_abort",
            "two_signals_interrupt_each_for_itself",
        ],
    ),
    (
        "run single turns, or the loop itself, which only the main greenlet may",
        &[
            "a_limit_is_none_or_some_duration_or_a_duration",
            "a_notice_before_run_once_keeps_it_from_sleeping",
            "a_ready_greenlet_is_due_at_once_for_an_outer_loop",
            "a_remote_wakes_an_idle_hub",
            "a_run_once_that_timed_out_ends_no_later_wait",
            "a_signal_wakes_an_idle_hub",
            "an_outer_loop_is_woken_by_other_threads",
            "an_outer_loop_sees_a_ready_descriptor",
            "run_once_reads_the_mail_that_woke_it",
            "run_once_returns_the_failure_of_its_turn",
            "run_once_waits_no_longer_than_its_limit",
            "run_once_with_nothing_to_wait_for_is_a_loop_exit",
            "the_shortest_and_the_longest_delay_are_kept",
        ],
    ),
    (
        "expect `LoopExit`: an embedded loop waits for its runtime, and is never without a future",
        &[
            "a_loop_with_remote_wakers_keeps_waiting_and_reports_once",
            "a_remote_handle_keeps_main_waiting",
            "a_wait_that_has_ended_does_not_prevent_loop_exit",
            "a_wait_that_nothing_can_end_is_a_loop_exit_that_names_the_future",
            "an_interrupt_does_not_hide_a_loop_with_nothing_left",
            "main_gets_loop_exit_when_nothing_can_wake_it",
            "rule_01_a_masked_park_is_not_left_early",
            "rule_14_loop_exit_distinguishes_local_from_remote_waits",
        ],
    ),
    (
        "shut the loop down, which only the main greenlet may",
        &[
            "a_shield_does_not_outlast_a_shutdown",
            "a_shutdown_does_not_wait_for_a_refusing_green_thread",
            "a_shutdown_unwinds_closures_and_watchers_in_any_order",
            "rule_02_a_stack_abandoned_by_a_shutdown_is_not_reused",
            "unparking_a_waiter_abandoned_by_a_shutdown_returns_false",
            "unparking_an_earlier_wait_of_an_abandoned_waiter_returns_false",
        ],
    ),
    (
        "begin without a hub or before the first wait",
        &[
            "a_future_that_is_ready_neither_switches_nor_waits",
            "a_missing_hub_is_an_error_of_the_call",
            "a_program_without_green_threads_builds_no_hub_by_its_budget",
            "a_shield_builds_no_hub",
            "a_thread_without_a_loop_has_the_whole_grace_each_time",
            "the_loop_starts_at_the_first_blocking_call",
        ],
    ),
    (
        "switch to the main greenlet, or name or count it",
        &[
            "a_list_shows_a_thousand_entries_and_counts_the_others",
            "a_greenlet_dropped_while_another_unwinds_unwinds_afterwards",
            "a_kill_while_a_greenlet_unwinds_strikes_afterwards",
            "a_swallowed_timeout_gives_up_and_is_reported",
            "each_turn_of_a_greenlet_is_a_switch",
            "each_wait_that_ends_is_a_wake_up",
            "every_timer_is_listed_including_those_of_this_turn",
            "rule_02_a_stack_is_reused_only_after_its_root_returned",
            "rule_07_replacing_a_hub_never_unwinds_main",
            "switches_are_refused_while_a_greenlet_unwinds",
            "the_green_threads_of_a_server_and_a_console_are_listed_with_their_call",
            "waits_are_refused_or_hold_the_os_thread_while_a_greenlet_unwinds",
        ],
    ),
    (
        "fork, or block on another runtime: a runtime of Tokio allows neither while it runs",
        &[
            "a_fork_during_a_child_wait_by_signal_disturbs_neither_process",
            "a_fork_during_a_child_wait_without_descriptors_disturbs_neither_process",
            "guards_of_tokio_leave_in_the_order_in_which_they_were_entered",
            "unparks_from_other_threads_of_a_forked_child_reach_its_loop",
        ],
    ),
];

/// The helpers of the suite. A helper that runs a test does so in a joined loop.
mod support {
    pub(crate) use crate::it_support::*;

    use std::panic::resume_unwind;

    use greenhub::future::defer_to_green_thread;
    use greenhub::{GreenError, get_hub, use_hub};
    use hub_tokio::run_until;

    use super::EXCEPTIONS;

    /// Runs a test on a new OS thread, in a green thread of a loop that a runtime of Tokio drives.
    ///
    /// The hub is the default one, or that of `GREENHUB_HUB`.
    pub(crate) fn run<T: Send + 'static>(name: &str, test: impl FnOnce() -> T + Send + 'static) -> T {
        if is_excepted(name) {
            return crate::it_support::run(name, test);
        }
        crate::it_support::run(name, || joined(test))
    }

    /// Runs a test as [`run`] does, on this OS thread.
    #[track_caller]
    pub(crate) fn limited<T: 'static>(test: impl FnOnce() -> T + 'static) -> T {
        if is_excepted("") {
            return crate::it_support::limited(test);
        }
        crate::it_support::limited(|| joined(test))
    }

    /// Runs a test as [`limited`] does, in its own process.
    #[track_caller]
    pub(crate) fn in_child(test: impl FnOnce() + 'static) {
        if is_excepted("") {
            return crate::it_support::in_child(test);
        }
        crate::it_support::in_child(|| joined(test));
    }

    /// Runs a test in a green thread of a loop that a runtime of Tokio drives.
    ///
    /// A chosen hub without a descriptor for outer loops, which cannot be joined, is replaced.
    fn joined<T: 'static>(test: impl FnOnce() -> T + 'static) -> T {
        if get_hub().pollable().is_none() {
            use_hub(if cfg!(any(target_os = "linux", target_os = "android")) { "epoll" } else { "kqueue" })
                .expect("a hub");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        match runtime.block_on(run_until(defer_to_green_thread(test))).expect("the hub has a descriptor") {
            Ok(value) => value,
            Err(GreenError::Panic(panic)) => resume_unwind(panic.into_payload()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns whether the running test, or the one of that name, is an exception.
    fn is_excepted(name: &str) -> bool {
        let thread = std::thread::current();
        let names = [name, thread.name().and_then(|path| path.rsplit("::").next()).unwrap_or_default()];
        EXCEPTIONS.iter().flat_map(|(_, excepted)| *excepted).any(|excepted| names.contains(excepted))
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

#[path = "it"]
mod suite {
    mod async_io;
    mod cluster;
    #[cfg(feature = "console")]
    mod console;
    mod debug;
    mod descriptors;
    mod dns;
    mod end_states;
    mod ends;
    mod epoll;
    mod fairness;
    mod formatting;
    mod fs;
    mod future;
    mod given_up_numbers;
    mod grace;
    mod granted;
    mod green_threads;
    mod group;
    mod job_leftovers;
    mod leaks;
    mod limits;
    mod links;
    mod listen;
    mod listeners;
    mod local;
    mod lock_exits;
    mod main_loop;
    mod net;
    mod offload;
    mod panic_payloads;
    mod parker;
    mod pipes;
    mod pools;
    mod process;
    mod running_in_place;
    mod select;
    mod select_objects;
    mod serve;
    mod shared_descriptors;
    mod shield;
    mod signals;
    mod snapshot;
    mod socket_identity;
    mod socket_threads;
    mod sockets;
    mod soundness;
    mod source_polls;
    mod sources;
    mod special_files;
    mod stats;
    mod std_examples;
    mod std_thread;
    mod swallowed_exits;
    mod sync_broadcast;
    mod sync_cancellation;
    mod sync_channels;
    mod sync_event;
    mod sync_notify;
    mod sync_oneshot;
    mod sync_queue;
    mod sync_queue_close;
    mod sync_random;
    mod sync_semaphore;
    mod sync_std;
    mod sync_watch;
    mod threads;
    mod timeouts;
    mod timeouts_compose;
    mod timers;
    mod tpool;
    mod udp;
    mod unhandled;
    mod unix;
    mod unix_names;
    mod unwinding;
}

#[test]
fn every_exception_is_a_test() {
    let listed = std::process::Command::new(std::env::current_exe().expect("a test program")).arg("--list").output();
    let listed = String::from_utf8(listed.expect("the test program runs").stdout).expect("names are UTF-8");
    let tests: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")?.rsplit("::").next()).collect();
    for excepted in EXCEPTIONS.iter().flat_map(|(_, excepted)| *excepted) {
        assert!(tests.contains(excepted), "{excepted}");
    }
}
