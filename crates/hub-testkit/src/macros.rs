//! The list of all cases, and the macros over it.

/// Runs every case over the hub that an expression creates.
///
/// See the [crate's documentation](crate).
#[macro_export]
macro_rules! conformance {
    ($name:ident: $make:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::__each_case! { __tests ($make) }
        }
    };
    ($make:expr) => {
        $crate::__each_case! { __tests ($make) }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    (($make:expr) $($home:ident $module:ident $case:ident)*) => {$(
        #[test]
        fn $case() {
            let test = concat!(module_path!(), "::", stringify!($case));
            $crate::run(test, $crate::process::Home::$home, || $crate::cases::$module::$case(&|| ($make)()));
        }
    )*};
}

/// Makes the table of the cases over hubs that are chosen at run time.
#[doc(hidden)]
#[macro_export]
macro_rules! __table {
    (() $($home:ident $module:ident $case:ident)*) => {
        &[$(Case { name: stringify!($case), run: $module::$case::<Box<dyn hub_core::hub::Hub>> }),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __each_case {
    ($then:ident $argument:tt) => {
        $crate::$then! { $argument
            Shared registration data_is_reported
            Shared registration room_is_reported
            Shared registration watching_again_looks_again
            Shared registration a_later_watch_widens
            Shared registration a_later_watch_narrows
            Own registration a_later_watch_replaces_the_lease
            Shared registration forget_lets_go_of_the_open_file
            Shared registration a_forgotten_descriptor_is_silent
            Shared registration a_number_that_is_given_up_falls_silent
            Own registration a_reused_number_is_reported_under_its_new_key
            Own registration an_old_file_that_lives_on_neither_spins_nor_deafens
            Own registration an_error_of_watch_leaves_no_trace
            Own registration a_dead_number_is_refused_or_invalid
            Own registration a_high_number_is_watched_or_refused
            Shared readiness nothing_is_reported_unasked
            Shared readiness every_arrival_is_reported_for_life
            Shared readiness what_was_reported_is_silent_without_level
            Shared readiness what_is_left_unread_is_reported_again_at_level
            Shared readiness an_unarmed_report_falls_silent_at_level
            Shared readiness a_report_of_one_direction_leaves_the_other
            Shared readiness a_hang_up_concerns_both_directions
            Shared readiness an_error_concerns_both_directions
            Shared readiness a_writer_alone_hears_of_a_hang_up
            Shared readiness unread_data_does_not_hide_a_hang_up_from_a_writer
            Shared readiness a_half_close_ends_reading_alone
            Shared readiness the_end_comes_with_the_last_data
            Shared readiness a_hang_up_nobody_waits_for_does_not_spin
            Shared readiness everything_ready_is_reported_in_few_waits
            Shared traffic whoever_waits_is_told_in_random_traffic
            Own readiness a_dead_descriptor_does_not_spin
            Own readiness a_dead_descriptor_costs_no_other_its_report
            Shared waiting a_timeout_is_not_early
            Shared waiting a_short_timeout_rounds_up
            Shared waiting a_timeout_is_not_late
            Shared waiting zero_never_sleeps
            Shared waiting the_longest_timeout_does_not_overflow
            Shared waiting no_timeout_sleeps_until_a_report
            Shared waiting a_report_ends_a_wait_at_once
            Shared waiting a_notice_before_the_wait_ends_it
            Shared waiting a_notice_during_the_wait_ends_it
            Shared waiting many_notices_end_few_waits
            Shared waiting a_wait_allocates_nothing
            Own waiting a_signal_is_no_error
            Own lifecycle a_forked_child_has_a_working_hub
            Own lifecycle a_forked_child_leaves_the_parent_alone
            Own lifecycle a_forked_child_keeps_the_files_that_it_has_opened
            Shared lifecycle pollable_is_readable_with_a_report
        }
    };
}
