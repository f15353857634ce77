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
            Shared registration readable_descriptors_are_reported
            Shared registration writable_descriptors_are_reported
            Shared registration watching_again_reports_ready_directions
            Shared registration a_later_watch_adds_directions
            Shared registration a_later_watch_removes_directions
            Own registration a_later_watch_replaces_the_lease
            Shared registration forget_releases_the_open_file
            Shared registration a_forgotten_descriptor_is_not_reported
            Shared registration a_released_number_is_no_longer_reported
            Own registration a_reused_number_is_reported_under_its_new_key
            Own registration a_leaked_file_of_a_reused_number_does_not_disturb
            Own registration an_error_of_watch_leaves_no_trace
            Own registration a_dead_number_is_refused_or_invalid
            Own registration a_high_number_is_watched_or_refused
            Shared readiness only_requested_directions_are_reported
            Shared readiness a_life_lease_reports_every_arrival
            Shared readiness ready_descriptors_are_reported_once_without_level
            Shared readiness unread_data_is_reported_again_at_level
            Shared readiness an_unarmed_direction_is_reported_once_at_level
            Shared readiness a_report_of_one_direction_keeps_the_other_armed
            Shared readiness a_hang_up_concerns_both_directions
            Shared readiness an_error_concerns_both_directions
            Shared readiness a_hang_up_is_reported_to_a_lone_writer
            Shared readiness a_hang_up_is_reported_to_a_writer_despite_unread_data
            Shared readiness a_half_close_ends_only_reading
            Shared readiness the_end_is_reported_with_the_last_data
            Shared readiness a_hang_up_without_a_waiter_does_not_spin
            Shared readiness everything_ready_is_reported_in_few_waits
            Shared traffic every_waiter_is_served_in_random_traffic
            Own readiness a_dead_descriptor_does_not_spin
            Own readiness a_dead_descriptor_hides_no_other_report
            Shared waiting a_timeout_is_not_early
            Shared waiting a_short_timeout_rounds_up
            Shared waiting a_timeout_is_not_late
            Shared waiting a_zero_timeout_never_sleeps
            Shared waiting the_longest_timeout_does_not_overflow
            Shared waiting no_timeout_sleeps_until_a_report
            Shared waiting a_report_ends_the_wait_at_once
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
