//! Payloads of panics: kept for the green thread that joins. std's `join` is the oracle.

use std::any::Any;
use std::panic::{catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::green::{keep_reports, quiet_panic, reports};
use crate::support::run;
use greenhub::greenlet::{Greenlet, Payload};
use greenhub::thread::yield_now;
use greenhub::{GreenError, GreenThread, scope, spawn, thread};

type Caught = Box<dyn Any + Send>;

/// Each way to panic that gives a payload of another type.
const PANICS: [fn(); 3] = [|| panic!("x"), || panic!("x is {}", 1), || panic_any(7)];

/// Compares payloads, which have no equality of their own.
fn describe(payload: Caught) -> String {
    match payload.downcast::<&'static str>() {
        Ok(text) => format!("&str {text}"),
        Err(payload) => match payload.downcast::<String>() {
            Ok(text) => format!("String {text}"),
            Err(payload) => format!("i32 {}", payload.downcast::<i32>().expect("a number")),
        },
    }
}

fn std_payload(body: fn()) -> String {
    describe(std::thread::spawn(body).join().expect_err("a panic"))
}

fn failed(payload: impl Any + Send) -> GreenError {
    spawn(|| resume_unwind(Box::new(payload))).join().expect_err("a panic")
}

/// A payload that counts its drops, and panics in each.
struct Explosive(Arc<AtomicUsize>);

impl Drop for Explosive {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        quiet_panic("the drop of a payload")
    }
}

#[test]
fn join_returns_the_payload_that_std_returns() {
    run("join_returns_the_payload_that_std_returns", || {
        for body in PANICS {
            let expected = std_payload(body);
            assert_eq!(describe(spawn(body).join().unwrap_err().into_panic()), expected);
            assert_eq!(describe(thread::spawn(body).join().unwrap_err().into_panic()), expected);
            let scoped = scope(|s| s.spawn(body).join().unwrap_err().into_panic());
            assert_eq!(describe(scoped), expected);
            let plain = Greenlet::new(move |_| {
                body();
                Ok(Payload::unit())
            });
            assert_eq!(describe(plain.switch(Payload::unit()).unwrap_err().into_panic()), expected);
            let os = std::thread::spawn(move || spawn(body).join().unwrap_err());
            assert_eq!(describe(os.join().expect("no panic").into_panic()), expected);
        }
    });
}

#[test]
fn resume_unwind_continues_the_panic_of_a_green_thread() {
    run("resume_unwind_continues_the_panic_of_a_green_thread", || {
        let outer = spawn(|| {
            let inner: GreenThread<()> = spawn(|| resume_unwind(Box::new(7)));
            if let Err(error) = inner.join() {
                resume_unwind(error.into_panic());
            }
        });
        assert_eq!(describe(outer.join().unwrap_err().into_panic()), "i32 7");
        let caught = catch_unwind(|| resume_unwind(failed(7).into_panic()));
        assert_eq!(describe(caught.unwrap_err()), "i32 7");
    });
}

#[test]
fn clones_share_one_payload() {
    run("clones_share_one_payload", || {
        let error = failed("x");
        let clone = error.clone();
        assert_eq!(describe(clone.into_panic()), "&str x");
        assert_eq!(error.to_string(), "the green thread panicked: x");
        assert_eq!(describe(error.clone().into_panic()), "String x");
        assert_eq!(describe(error.into_panic()), "String x");
        let (error, number) = (failed(7), failed(7));
        assert_eq!(describe(number.into_panic()), "i32 7");
        drop(error.clone());
        assert_eq!(describe(error.into_panic()), "i32 7", "the drop of a clone has taken the payload");
    });
}

#[test]
fn waiters_of_one_green_thread_share_its_payload() {
    run("waiters_of_one_green_thread_share_its_payload", || {
        let green: Rc<GreenThread<()>> = Rc::new(spawn(|| {
            yield_now();
            resume_unwind(Box::new("x"))
        }));
        let waiters = [(); 2].map(|()| {
            let green = Rc::clone(&green);
            spawn(move || describe(green.wait().unwrap_err().into_panic()))
        });
        let mut payloads = waiters.map(|waiter| waiter.join().expect("no panic"));
        payloads.sort();
        assert_eq!(payloads, ["&str x", "String x"]);
    });
}

#[test]
fn only_a_panic_has_a_payload() {
    run("only_a_panic_has_a_payload", || {
        assert!(failed(7).is_panic());
        let killed = || {
            let green = spawn(|| ());
            green.kill();
            green.join().unwrap_err()
        };
        assert!(!killed().is_panic());
        assert!(killed().try_into_panic().unwrap_err().is_kill());
        let misused = spawn(move || drop(killed().into_panic())).join().unwrap_err();
        let expected = "into_panic for a green thread that did not panic: the green thread was killed";
        assert_eq!(describe(misused.into_panic()), format!("String {expected}"));
    });
}

#[test]
fn a_payload_is_dropped_with_its_last_error_and_a_panic_of_the_drop_is_contained() {
    run("a_payload_is_dropped_with_its_last_error_and_a_panic_of_the_drop_is_contained", || {
        let drops = Arc::new(AtomicUsize::new(0));
        let count = || drops.load(Ordering::SeqCst);
        let error = failed(Explosive(Arc::clone(&drops)));
        let clone = error.clone();
        drop(error);
        assert_eq!(count(), 0);
        drop(clone);
        assert_eq!(count(), 1);

        // The drop of an error during a panic: an escaping panic would abort the process.
        let error = failed(Explosive(Arc::clone(&drops)));
        let outer = spawn(move || {
            let _error = error;
            quiet_panic("outer")
        });
        assert_eq!(describe(outer.join().unwrap_err().into_panic()), "&str outer");
        assert_eq!(count(), 2);
    });
}

#[test]
fn an_unhandled_panic_is_reported_and_its_payload_dropped() {
    run("an_unhandled_panic_is_reported_and_its_payload_dropped", || {
        keep_reports();
        let drops = Arc::new(AtomicUsize::new(0));
        let payload = Explosive(Arc::clone(&drops));
        let failing: GreenThread<()> = spawn(|| resume_unwind(Box::new(payload)));
        drop(failing);
        yield_now();
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        let reports = reports();
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(reports[0].contains("a payload that is not text"), "{reports:?}");
        assert_eq!(spawn(|| 1).join().expect("the loop goes on"), 1);
    });
}
