//! Joins of OS threads: only the calling green thread waits.

use std::time::{Duration, Instant};

use crate::support::green::{LONG, SHORT, quiet_panic};
use crate::support::{in_child, run};
use greenhub::hub::{LoopErrorKind, interrupt_on};
use greenhub::select::Select;
use greenhub::sync::Event;
use greenhub::thread::os;
use greenhub::{get_hub, sleep, spawn, spawn_after, with_timeout};

#[test]
fn green_threads_run_during_a_join() {
    run("green_threads_run_during_a_join", || {
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = os::spawn(move || receiver.recv());
        let sending = spawn(move || {
            sleep(Duration::from_millis(1));
            sender.send(7)
        });
        // A join that blocked this OS thread would hang.
        assert_eq!(thread.join().expect("no panic").expect("the value is sent"), 7);
        sending.join().expect("no panic").expect("the OS thread receives");
    });
}

#[test]
fn an_os_thread_that_waits_for_the_joining_one_is_joined() {
    run("an_os_thread_that_waits_for_the_joining_one_is_joined", || {
        let here = get_hub().remote();
        let thread = os::spawn(move || {
            let event = std::sync::Arc::new(Event::new());
            let sent = std::sync::Arc::clone(&event);
            here.spawn(move || sent.send(7).expect("sent once")).expect("the hub exists");
            event.wait()
        });
        assert_eq!(thread.join().expect("no panic").expect("the event is sent"), 7);
    });
}

#[test]
fn a_join_returns_the_payload_of_a_panic() {
    run("a_join_returns_the_payload_of_a_panic", || {
        let thread = os::spawn(|| -> () { quiet_panic("the payload") });
        let payload = thread.join().expect_err("it panics");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"the payload"));
    });
}

#[test]
fn a_join_waits_for_the_green_threads_of_the_os_thread() {
    run("a_join_waits_for_the_green_threads_of_the_os_thread", || {
        let begun = Instant::now();
        let thread = os::spawn(|| {
            spawn(|| greenhub::shield(|| sleep(SHORT)));
            greenhub::thread::yield_now();
        });
        thread.join().expect("no panic");
        assert!(begun.elapsed() >= SHORT);
    });
}

#[test]
fn a_join_that_times_out_detaches_the_os_thread() {
    run("a_join_that_times_out_detaches_the_os_thread", || {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = os::spawn(move || ended.recv());
        assert!(with_timeout(SHORT, || thread.join()).is_err());
        end.send(()).expect("the OS thread runs");
    });
}

#[test]
fn an_os_thread_without_a_hub_joins_another_one() {
    run("an_os_thread_without_a_hub_joins_another_one", || {
        let joined = std::thread::spawn(|| os::spawn(|| 1).join().expect("no panic"));
        assert_eq!(joined.join().expect("no panic"), 1);
    });
}

#[test]
fn a_join_in_a_destructor_that_unwinds_blocks_the_os_thread() {
    run("a_join_in_a_destructor_that_unwinds_blocks_the_os_thread", || {
        struct Joins(Option<os::JoinHandle<()>>);
        impl Drop for Joins {
            fn drop(&mut self) {
                self.0.take().expect("joined once").join().expect("no panic");
            }
        }
        let begun = Instant::now();
        let thread = os::spawn(|| std::thread::sleep(SHORT));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _joins = Joins(Some(thread));
            quiet_panic("out");
        }));
        assert!(unwound.is_err() && begun.elapsed() >= SHORT);
    });
}

#[test]
fn an_aborted_loop_does_not_end_a_join() {
    in_child(|| {
        spawn_after(Duration::from_millis(1), || get_hub().abort());
        let thread = os::spawn(|| std::thread::sleep(SHORT * 2));
        thread.join().expect("no panic");
    });
}

#[test]
fn an_interrupted_join_panics() {
    in_child(|| {
        let _interrupt = interrupt_on(libc::SIGTERM).expect("a signal that can be caught");
        let thread = os::spawn(|| std::thread::sleep(LONG));
        spawn_after(Duration::from_millis(1), || signal_hook::low_level::raise(libc::SIGTERM));
        let joined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| thread.join()));
        let payload = joined.expect_err("interrupted");
        let text = payload.downcast_ref::<String>().expect("a text");
        assert_eq!(*text, format!("join: {}", LoopErrorKind::Interrupted));
    });
}

#[test]
fn the_end_of_an_os_thread_is_selected() {
    run("the_end_of_an_os_thread_is_selected", || {
        let thread = os::spawn(|| std::thread::sleep(SHORT));
        let never: Event<()> = Event::new();
        let mut select = Select::new();
        let (_event, ended) = (select.wait(&never), select.wait(&thread));
        assert_eq!(select.ready().expect("the OS thread ends"), ended);
        thread.join().expect("no panic");
    });
}

#[test]
fn the_handle_of_std_joins_the_same_os_thread() {
    run("the_handle_of_std_joins_the_same_os_thread", || {
        let thread = os::Builder::new().name("named".to_owned()).spawn(|| 1).expect("an OS thread");
        assert_eq!(thread.thread().name(), Some("named"));
        let thread: std::thread::JoinHandle<i32> = thread.into();
        assert_eq!(thread.join().expect("no panic"), 1);
    });
}
