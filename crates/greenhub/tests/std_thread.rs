//! `thread`: what std does with OS threads, done with green threads.

#[macro_use]
#[path = "support/same.rs"]
mod same;
mod support;

use std::io;
use std::time::{Duration, Instant};

same_as_std! {
    fn spawned_code_runs_and_its_result_is_joined() {
        let handle = thread::spawn(|| 6 * 7);
        assert_eq!(handle.join().unwrap(), 42);
    }

    fn a_panic_is_an_error_of_join() {
        let handle = thread::spawn(|| if true { panic!("on purpose") });
        assert!(handle.join().is_err());
    }

    fn a_builder_gives_a_name() {
        let builder = thread::Builder::new().name("worker".to_owned()).stack_size(256 * 1024);
        let handle = builder.spawn(|| thread::current().name().map(str::to_owned)).unwrap();
        assert_eq!(handle.join().unwrap().as_deref(), Some("worker"));
    }

    fn those_who_live_have_different_ids() {
        let here = thread::current().id();
        let there = thread::spawn(|| thread::current().id()).join().unwrap();
        assert_ne!(here, there);
        assert_eq!(here, thread::current().id());
    }

    fn a_sleep_is_not_too_short() {
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(20));
        assert!(begun.elapsed() >= Duration::from_millis(20));
        thread::yield_now();
    }

    fn a_scope_lends_and_joins() {
        let data = [1, 2, 3];
        let mut sum = 0;
        let product = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(2));
                sum = data.iter().sum();
            });
            scope.spawn(|| data.iter().product::<i32>()).join().unwrap()
        });
        assert_eq!((sum, product), (6, 6));
    }

    fn handles_have_std_s_names() {
        let handle: thread::JoinHandle<i32> = thread::spawn(|| 1);
        while !handle.is_finished() {
            thread::yield_now();
        }
        assert_eq!(handle.join().unwrap(), 1);
        assert!(thread::available_parallelism().is_ok());
        assert!(!thread::panicking());
    }
}

#[test]
fn green_threads_of_two_os_threads_have_different_ids() {
    support::run("green_threads_of_two_os_threads_have_different_ids", || {
        let here = greenhub::thread::current().id();
        let there = std::thread::spawn(|| greenhub::thread::current().id()).join().unwrap();
        assert_ne!(here, there);
    });
}
