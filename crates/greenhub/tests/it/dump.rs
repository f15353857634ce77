//! Dumps of all greenlets, on demand and on a signal.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

use crate::support::fork::{ends_well, forked};
use crate::support::green::{LONG, SHORT};
use crate::support::{alone, run};
use greenhub::debug::{BacktraceError, Report, backtrace_of, dump, dump_on, set_report_stream};
use greenhub::greenthread::current_id;
use greenhub::{Builder, get_hub, sleep, spawn};

#[test]
fn a_dump_lists_each_greenlet_or_says_how_to_get_backtraces() {
    run("a_dump_lists_each_greenlet_or_says_how_to_get_backtraces", || {
        let green = Builder::new().name("sleeper".into()).spawn(|| sleep(LONG)).unwrap();
        sleep(SHORT);
        let text = dump();
        assert!(text.starts_with("0 main greenlet: running\n"), "{text}");
        assert!(text.contains("\"sleeper\" (spawned at ") && text.contains("sleeping, "), "{text}");
        let lacks = BacktraceError::Unsupported.to_string();
        assert_eq!(text.ends_with(&format!("{lacks}\n")), backtrace_of(green.id().unwrap()).is_err(), "{text}");
        green.kill();
    });
}

#[test]
fn without_the_feature_no_greenlet_has_a_backtrace() {
    if cfg!(feature = "backtrace") {
        return;
    }
    run("without_the_feature_no_greenlet_has_a_backtrace", || {
        let green = spawn(|| sleep(LONG));
        sleep(SHORT);
        assert_eq!(backtrace_of(green.id().unwrap()), Err(BacktraceError::Unsupported));
        green.kill();
    });
}

#[test]
fn a_dump_without_greenlets_builds_no_hub() {
    let text = std::thread::spawn(|| {
        let text = dump();
        assert!(!greenhub::hub::has_hub());
        text
    });
    assert!(!text.join().unwrap().contains("greenlet:"));
}

/// Sends the dumps of the process to the returned channel, as the name of the OS thread and the text.
fn dumps() -> mpsc::Receiver<(String, String)> {
    let (sender, dumps) = mpsc::channel();
    set_report_stream(move |report| match report {
        Report::Dump { thread, greenlets } => {
            sender.send((thread.clone().unwrap_or_default(), greenlets.clone())).unwrap();
        }
        other => panic!("{other}"),
    });
    dumps
}

#[test]
fn a_signal_dumps_each_os_thread_with_a_hub() {
    alone("a_signal_dumps_each_os_thread_with_a_hub", || {
        let dumps = dumps();
        // Without a hub this OS thread has no dump.
        assert_eq!(get_hub().stats().readers, 0);
        let on_signal = dump_on(Signal::SIGUSR1 as i32).unwrap();
        assert_eq!(on_signal.signal(), Signal::SIGUSR1 as i32);
        let (stop, others): (Vec<_>, Vec<_>) = ["first", "second"]
            .map(|name| {
                let (built, is_built) = mpsc::channel();
                let begin = move || {
                    let body = move || {
                        built.send((get_hub().remote(), current_id())).unwrap();
                        sleep(LONG);
                    };
                    let green = Builder::new().name(format!("green of {name}")).spawn(body).unwrap();
                    assert!(green.join().unwrap_err().is_kill());
                };
                let other = std::thread::Builder::new().name(name.into()).spawn(begin).unwrap();
                (is_built.recv().unwrap(), other)
            })
            .into_iter()
            .unzip();
        for _ in 0..2 {
            raise(Signal::SIGUSR1).unwrap();
            let mut found = Vec::new();
            while found.len() < 3 {
                sleep(SHORT);
                found.extend(dumps.try_iter());
            }
            found.sort();
            let names: Vec<&str> = found.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names[1..], ["first", "second"]);
            assert!(names[0].contains("a_signal_dumps"), "{names:?}");
            for (name, text) in &found[1..] {
                assert!(text.contains(&format!("\"green of {name}\"")) && text.contains("sleeping"), "{text}");
            }
        }
        for (remote, id) in stop {
            remote.spawn(move || assert!(hub_core::internal::request_exit(id))).unwrap();
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn a_signal_before_the_first_wait_dumps_the_caller() {
    alone("a_signal_before_the_first_wait_dumps_the_caller", || {
        std::thread::spawn(|| {
            let dumps = dumps();
            let _on_signal = dump_on(Signal::SIGUSR1 as i32).unwrap();
            raise(Signal::SIGUSR1).unwrap();
            // A yield builds no hub.
            while dumps.try_recv().is_err() {
                greenhub::thread::yield_now();
            }
        })
        .join()
        .unwrap();
    });
}

#[test]
fn a_dropped_dump_leaves_a_signal_without_effect() {
    alone("a_dropped_dump_leaves_a_signal_without_effect", || {
        let dumps = dumps();
        sleep(SHORT);
        let count = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let before = count();
        let on_signal = dump_on(Signal::SIGUSR1 as i32).unwrap();
        assert_eq!(count(), before + 1);
        drop(on_signal);
        raise(Signal::SIGUSR1).unwrap();
        while count() != before {
            sleep(SHORT);
        }
        sleep(4 * SHORT);
        assert!(dumps.try_recv().is_err());
        // The signal can be used again.
        let _on_signal = dump_on(Signal::SIGUSR1 as i32).unwrap();
        raise(Signal::SIGUSR1).unwrap();
        while dumps.try_recv().is_err() {
            sleep(SHORT);
        }
    });
}

#[test]
fn an_os_thread_that_waits_to_dump_prevents_no_report_of_a_deadlock() {
    alone("an_os_thread_that_waits_to_dump_prevents_no_report_of_a_deadlock", || {
        let _on_signal = dump_on(Signal::SIGUSR1 as i32).unwrap();
        let [left, right] = super::main_loop::deadlock();
        let error = left.wait().unwrap_err();
        assert!(error.to_string().contains("block forever"), "{error}");
        left.kill();
        drop(right);
        sleep(Duration::ZERO);
    });
}

#[test]
fn a_signal_that_cannot_be_caught_is_refused() {
    run("a_signal_that_cannot_be_caught_is_refused", || {
        for signal in [Signal::SIGKILL as i32, Signal::SIGSEGV as i32, 0, 1000] {
            assert_eq!(dump_on(signal).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn signals_during_a_busy_turn_lead_to_one_dump() {
    alone("signals_during_a_busy_turn_lead_to_one_dump", || {
        let dumps = dumps();
        let _on_signal = dump_on(Signal::SIGUSR1 as i32).unwrap();
        // A loop that is not busy dumps once for each signal, and so tells that the signal was taken up.
        let (stop, stopped) = mpsc::channel::<()>();
        let (built, is_built) = mpsc::channel();
        let witness = move || {
            assert_eq!(get_hub().stats().readers, 0);
            built.send(()).unwrap();
            while stopped.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                sleep(SHORT);
            }
        };
        let witness = std::thread::Builder::new().name("witness".into()).spawn(witness).unwrap();
        is_built.recv().unwrap();
        for _ in 0..50 {
            raise(Signal::SIGUSR1).unwrap();
            // This blocks the OS thread: the loop has no turn.
            assert_eq!(dumps.recv().unwrap().0, "witness");
        }
        let mut own = 0;
        while own == 0 {
            sleep(SHORT);
            own += dumps.try_iter().filter(|(name, _)| name != "witness").count();
        }
        // A later signal leads to a dump of its own, after all that the busy turn has led to.
        raise(Signal::SIGUSR1).unwrap();
        while own < 2 {
            sleep(SHORT);
            own += dumps.try_iter().filter(|(name, _)| name != "witness").count();
        }
        assert_eq!(own, 2);
        drop(stop);
        witness.join().unwrap();
    });
}

#[test]
fn a_drop_cancels_dumps_that_no_loop_has_begun() {
    alone("a_drop_cancels_dumps_that_no_loop_has_begun", || {
        let dumps = dumps();
        sleep(SHORT);
        let on_signal = dump_on(Signal::SIGUSR1 as i32).unwrap();
        raise(Signal::SIGUSR1).unwrap();
        // Long enough for the request to reach the mailbox.
        std::thread::sleep(20 * SHORT);
        drop(on_signal);
        sleep(20 * SHORT);
        assert!(dumps.try_recv().is_err());
    });
}

#[test]
fn a_forked_child_does_not_carry_out_the_dump_that_its_parent_was_asked_for() {
    static IN_CHILD: AtomicUsize = AtomicUsize::new(0);
    alone("a_forked_child_does_not_carry_out_the_dump_that_its_parent_was_asked_for", || {
        let parent = std::process::id();
        let (sender, dumps) = mpsc::channel();
        set_report_stream(move |report| match report {
            Report::Dump { .. } if std::process::id() == parent => sender.send(()).unwrap(),
            _ => _ = IN_CHILD.fetch_add(1, Ordering::Relaxed),
        });
        sleep(SHORT);
        let _on_signal = dump_on(Signal::SIGUSR1 as i32).unwrap();
        let child = spawn(|| {
            raise(Signal::SIGUSR1).unwrap();
            std::thread::sleep(20 * SHORT);
            forked(|| {
                sleep(SHORT);
                // The child has the handler, and nothing behind it.
                raise(Signal::SIGUSR1).unwrap();
                sleep(20 * SHORT);
                assert_eq!(IN_CHILD.load(Ordering::Relaxed), 0);
            })
        });
        ends_well(child.join().unwrap());
        assert_eq!(dumps.try_iter().count(), 1, "the parent's own dump comes");
    });
}
