//! The error handler of a hub.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::alone;
use greenhub::debug::{Report, hub_exceptions, set_report_stream};
use greenhub::hub::{LoopErrorKind, Verdict};
use greenhub::{get_hub, sleep, spawn_n};

const SHORT: Duration = Duration::from_millis(1);

/// Collects the reports of the process.
fn stream() -> Receiver<String> {
    let (sender, reports) = channel();
    set_report_stream(move |report| drop(sender.send(report.to_string())));
    reports
}

fn fail() {
    get_hub().schedule_once(Duration::ZERO, || panic!("the callback"));
}

#[test]
fn a_silent_verdict_keeps_a_report_from_the_stream() {
    alone("a_silent_verdict_keeps_a_report_from_the_stream", || {
        let reports = stream();
        get_hub().set_error_handler(Some(|_: &Report| Verdict::Silent));
        fail();
        sleep(SHORT);
        assert_eq!(reports.try_iter().count(), 0);
        get_hub().set_error_handler(None::<fn(&Report) -> Verdict>);
        fail();
        sleep(SHORT);
        assert_eq!(reports.try_iter().count(), 1);
    });
}

#[test]
fn a_handler_sees_where_the_callback_was_made() {
    alone("a_handler_sees_where_the_callback_was_made", || {
        let (sender, seen) = channel();
        get_hub().set_error_handler(Some(move |report: &Report| {
            if let Report::CallbackFailed { made_at: Some(made_at), error, .. } = report {
                sender.send((made_at.file().to_owned(), error.to_string())).unwrap();
            }
            Verdict::Silent
        }));
        fail();
        sleep(SHORT);
        let (file, error) = seen.try_recv().expect("the handler was called");
        assert!(file.ends_with("error_handler.rs") && error.contains("the callback"), "{file}: {error}");
    });
}

#[test]
fn a_system_verdict_ends_the_loop_with_the_text_of_the_report() {
    alone("a_system_verdict_ends_the_loop_with_the_text_of_the_report", || {
        let reports = stream();
        get_hub().set_error_handler(Some(|_: &Report| Verdict::System));
        spawn_n(|| panic!("the index is corrupt"));
        let error = get_hub().run_once(None).expect_err("the loop ends");
        assert_eq!(error.kind(), LoopErrorKind::System);
        let report = reports.try_recv().expect("the stream gets the report");
        assert!(report.contains("the index is corrupt"), "{report}");
        assert_eq!(error.system_error().unwrap().to_string(), report);
    });
}

#[test]
fn a_handler_that_panics_lets_the_report_pass() {
    alone("a_handler_that_panics_lets_the_report_pass", || {
        let reports = stream();
        get_hub().set_error_handler(Some(|_: &Report| -> Verdict { panic!("the handler") }));
        fail();
        sleep(SHORT);
        assert_eq!(reports.try_iter().count(), 1);
    });
}

#[test]
fn a_handler_is_asked_though_reports_are_switched_off() {
    alone("a_handler_is_asked_though_reports_are_switched_off", || {
        let reports = stream();
        let (sender, seen) = channel();
        hub_exceptions(false);
        get_hub().set_error_handler(Some(move |_: &Report| {
            sender.send(()).unwrap();
            Verdict::Report
        }));
        fail();
        sleep(SHORT);
        assert_eq!((seen.try_iter().count(), reports.try_iter().count()), (1, 0));
    });
}

#[test]
fn a_handler_ends_with_its_hub() {
    alone("a_handler_ends_with_its_hub", || {
        let reports = stream();
        get_hub().set_error_handler(Some(|_: &Report| Verdict::Silent));
        greenhub::use_hub(get_hub().name()).unwrap();
        fail();
        sleep(SHORT);
        assert_eq!(reports.try_iter().count(), 1);
    });
}

#[test]
fn a_handler_hears_nothing_of_other_os_threads() {
    alone("a_handler_hears_nothing_of_other_os_threads", || {
        let reports = stream();
        get_hub().set_error_handler(Some(|_: &Report| Verdict::Silent));
        let other = || {
            fail();
            sleep(SHORT);
        };
        std::thread::spawn(other).join().unwrap();
        assert_eq!(reports.try_iter().count(), 1);
    });
}
