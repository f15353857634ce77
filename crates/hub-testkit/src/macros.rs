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

/// Runs the case of clause 19, for a hub whose `wait` runs foreign code.
///
/// The first expression creates the hub, as for [`conformance`](crate::conformance). The second one is a function that
/// makes the hub run a closure in its next `wait`, such as a task of a runtime.
///
/// ```
/// use hub_core::hub::*;
/// # use std::{cell::RefCell, io, os::fd::BorrowedFd, time::Duration};
///
/// /// A hub that runs closures in its wait.
/// struct MyHub {
///     inner: hub_epoll::EpollHub,
///     closures: Vec<Box<dyn FnOnce()>>,
/// }
///
/// impl Hub for MyHub {
///     fn wait(&mut self, watched: &Watched, timeout: Option<Duration>, ready: &mut Ready) -> io::Result<()> {
///         // The waker of a real hub ends the wait of its runtime.
///         watched.wake_by(std::task::Waker::noop());
///         let has_run = !self.closures.is_empty();
///         self.closures.drain(..).for_each(|closure| closure());
///         if has_run { Ok(()) } else { self.inner.wait(watched, timeout, ready) }
///     }
///     // ...
/// #     fn name(&self) -> &'static str { "mine" }
/// #     fn rearm(&self) -> Rearm { self.inner.rearm() }
/// #     fn watch(&mut self, key: Key, fd: BorrowedFd<'_>, interest: Interest, lease: Lease) -> io::Result<()> {
/// #         self.inner.watch(key, fd, interest, lease)
/// #     }
/// #     fn forget(&mut self, key: Key, fd: Option<BorrowedFd<'_>>) { self.inner.forget(key, fd) }
/// #     fn after_fork(&mut self) -> io::Result<()> { self.inner.after_fork() }
/// }
///
/// hub_testkit::foreign_code!(
///     || Ok(MyHub { inner: hub_epoll::EpollHub::new()?, closures: Vec::new() }),
///     |hub: &mut MyHub, closure| hub.closures.push(closure)
/// );
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! foreign_code {
    ($make:expr, $run_in_wait:expr) => {
        #[test]
        fn a_wake_up_by_foreign_code_ends_the_wait() {
            let test = concat!(module_path!(), "::a_wake_up_by_foreign_code_ends_the_wait");
            $crate::run(test, $crate::process::Home::Shared, || {
                $crate::cases::foreign::a_wake_up_by_foreign_code_ends_the_wait(&$make, &$run_in_wait)
            });
        }
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
            Own lifecycle a_wait_without_a_report_leaves_nothing_to_report
        }
    };
}
