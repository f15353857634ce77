//! Green threads, callbacks and handles that a job leaves on its pool thread.

use std::cell::OnceCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::support::green::{LONG, OnDrop, SHORT};
use crate::support::{alone, run};
use greenhub::hub::Remote;
use greenhub::thread::yield_now;
use greenhub::tpool::{execute, execute_scoped, set_num_threads};
use greenhub::{GreenThread, get_hub, sleep, spawn, spawn_after, spawn_n, sync};

/// The time after which a wait counts as hung.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_leftover_green_thread_runs_to_its_end_on_the_pool_thread() {
    run("a_leftover_green_thread_runs_to_its_end_on_the_pool_thread", || {
        let (sender, receiver) = channel();
        let job = move || {
            spawn_n(move || {
                sleep(SHORT);
                // A leftover green thread starts another one later.
                drop(spawn_after(SHORT, move || sender.send(std::thread::current().id())));
            });
            std::thread::current().id()
        };
        let there = execute(job).unwrap();
        assert_eq!(receiver.recv_timeout(LIMIT), Ok(there));
    });
}

#[test]
fn a_leftover_green_thread_of_a_scoped_job_runs_to_its_end() {
    run("a_leftover_green_thread_of_a_scoped_job_runs_to_its_end", || {
        let (sender, receiver) = channel();
        let text = String::from("borrowed");
        execute_scoped(|| {
            let length = text.len();
            spawn_n(move || sender.send(length));
        })
        .unwrap();
        assert_eq!(receiver.recv_timeout(LIMIT), Ok(text.len()));
    });
}

#[test]
fn a_leftover_link_that_waits_runs_to_its_end() {
    run("a_leftover_link_that_waits_runs_to_its_end", || {
        let (sender, receiver) = channel();
        execute(move || {
            spawn(|| ()).link(move |_| {
                sleep(SHORT);
                sender.send(()).unwrap();
            });
        })
        .unwrap();
        receiver.recv_timeout(LIMIT).expect("the link ran to its end");
    });
}

#[test]
fn the_result_of_a_job_does_not_wait_for_its_leftovers() {
    run("the_result_of_a_job_does_not_wait_for_its_leftovers", || {
        let (go, gone) = sync::mpsc::channel::<u32>();
        let (sender, receiver) = channel();
        let result = execute(move || {
            spawn_n(move || sender.send(gone.recv()));
            yield_now();
            "result"
        });
        assert_eq!(result.unwrap(), "result");
        assert_eq!(receiver.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
        go.send(7).unwrap();
        assert_eq!(receiver.recv_timeout(LIMIT), Ok(Ok(7)));
    });
}

#[test]
fn a_pool_thread_takes_the_next_job_after_the_leftovers_have_ended() {
    const TEST: &str = "a_pool_thread_takes_the_next_job_after_the_leftovers_have_ended";
    alone(TEST, || {
        set_num_threads(NonZeroUsize::MIN);
        let (sender, receiver) = channel();
        let also = sender.clone();
        execute(move || {
            spawn_n(move || {
                sleep(SHORT * 4);
                sender.send("green thread").unwrap();
            });
        })
        .unwrap();
        execute(move || also.send("next job").unwrap()).unwrap();
        assert_eq!(receiver.iter().collect::<Vec<_>>(), ["green thread", "next job"]);
    });
}

#[test]
fn deadlocked_leftovers_are_reported_and_killed() {
    const TEST: &str = "deadlocked_leftovers_are_reported_and_killed";
    alone(TEST, || {
        let (report, reported) = channel();
        greenhub::debug::set_report_stream(move |one| report.send(one.to_string()).unwrap());
        let (sender, receiver) = channel();
        execute(move || {
            // The two green threads wait for each other.
            let other = Rc::new(OnceCell::<GreenThread<bool>>::new());
            let first = Rc::clone(&other);
            let second = spawn(move || {
                let _unwound = OnDrop(|| sender.send(()).unwrap());
                first.get().unwrap().wait_for_end().is_ok()
            });
            let _ = other.set(spawn(move || second.wait_for_end().is_ok()));
        })
        .unwrap();
        receiver.recv_timeout(LIMIT).expect("the green thread is unwound");
        let report = reported.recv_timeout(LIMIT).unwrap();
        assert_eq!(report.matches("job_leftovers.rs").count(), 2, "{report}");
        assert!(report.contains("are killed: nothing can wake them"), "{report}");
    });
}

/// Waits until the hub is gone.
fn wait_until_gone(remote: &Remote) {
    let begin = Instant::now();
    while !remote.is_gone() {
        assert!(begin.elapsed() < LIMIT, "the hub of the job is still there");
        sleep(SHORT);
    }
}

#[test]
fn a_remote_of_a_jobs_hub_is_gone_after_the_job() {
    run("a_remote_of_a_jobs_hub_is_gone_after_the_job", || {
        let (sender, receiver) = channel();
        let job = move || {
            spawn_n(move || {
                sleep(SHORT);
                sender.send(()).unwrap();
            });
            get_hub().remote()
        };
        let remote = execute(job).unwrap();
        receiver.recv_timeout(LIMIT).expect("the leftovers run first");
        wait_until_gone(&remote);
        assert!(remote.spawn(|| ()).is_err());
    });
}

#[test]
fn a_leftover_timer_is_dropped_and_reported() {
    const TEST: &str = "a_leftover_timer_is_dropped_and_reported";
    alone(TEST, || {
        let (report, reported) = channel();
        greenhub::debug::set_report_stream(move |one| report.send(one.to_string()).unwrap());
        let held = Arc::new(());
        let kept = Arc::clone(&held);
        execute(move || {
            let _ = get_hub().schedule(LONG, move || drop(kept.clone()));
        })
        .unwrap();
        assert!(reported.recv_timeout(LIMIT).unwrap().contains("1 timers or listeners"));
        let begin = Instant::now();
        while Arc::strong_count(&held) != 1 {
            assert!(begin.elapsed() < LIMIT, "the timer is still there");
            sleep(SHORT);
        }
    });
}
