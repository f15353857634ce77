//! `greenhub::signal`: signals that green threads and OS threads wait for.
//!
//! Signals concern the whole process. So each test runs in a process of its own.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::descriptors::ms;
use crate::support::fork::{ends_well, exit_after, fork_here, forked, in_fork};
use crate::support::in_child;
use greenhub::debug::{self, set_report_stream};
use greenhub::greenthread::KillOutcome;
use greenhub::hub::LoopErrorKind;
use greenhub::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, Signals, ctrl_c, terminate};
use greenhub::sync::{Event, WaitError};
use greenhub::thread::yield_now;
use greenhub::{GreenError, get_hub, shield, sleep, spawn, spawn_after, with_timeout};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use signal_hook::low_level::raise;

fn caught<const N: usize>(signals: [i32; N]) -> Signals {
    Signals::new(signals).expect("signals that can be caught")
}

/// Sends a signal to this process, whose handler may run on any OS thread.
fn send(signal: i32) {
    let signal = Signal::try_from(signal).expect("a signal");
    kill(Pid::this(), signal).expect("our own process");
}

/// Sends a signal to this process from another OS thread after the loop has gone to sleep.
fn send_soon(signal: i32) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(ms(50));
        send(signal);
    })
}

#[test]
fn a_signal_ends_the_wait_of_the_main_greenlet() {
    in_child(|| {
        let signals = caught([SIGTERM]);
        let sender = send_soon(SIGTERM);
        assert_eq!(signals.wait().expect("the signal comes"), SIGTERM);
        sender.join().expect("no panic");
        assert_eq!(signals.try_wait(), None);
    });
}

#[test]
fn a_signal_that_came_before_the_wait_is_kept() {
    in_child(|| {
        let signals = caught([SIGTERM]);
        raise(SIGTERM).expect("a signal");
        let switches = get_hub().stats().switches;
        assert_eq!(signals.wait().expect("the signal has come"), SIGTERM);
        assert_eq!(get_hub().stats().switches, switches);
    });
}

#[test]
fn equal_signals_merge_and_others_come_in_numeric_order() {
    in_child(|| {
        let signals = caught([SIGUSR2, SIGHUP, SIGUSR2, SIGUSR1]);
        assert_eq!(signals.signals().collect::<Vec<_>>(), [SIGHUP, SIGUSR1, SIGUSR2]);
        for signal in [SIGUSR2, SIGUSR2, SIGHUP] {
            raise(signal).expect("a signal");
        }
        assert_eq!([signals.try_wait(), signals.try_wait(), signals.try_wait()], [Some(SIGHUP), Some(SIGUSR2), None]);
    });
}

#[test]
fn ctrl_c_is_sigint_and_terminate_is_sigterm() {
    in_child(|| {
        let (ctrl_c, terminate) = (ctrl_c().expect("SIGINT"), terminate().expect("SIGTERM"));
        raise(SIGTERM).expect("a signal");
        assert_eq!((ctrl_c.try_wait(), terminate.try_wait()), (None, Some(SIGTERM)));
        raise(SIGINT).expect("a signal");
        assert_eq!((ctrl_c.try_wait(), terminate.try_wait()), (Some(SIGINT), None));
    });
}

#[test]
fn a_wait_with_a_limit_times_out_and_loses_no_later_signal() {
    in_child(|| {
        let signals = caught([SIGUSR1]);
        let begin = Instant::now();
        assert!(matches!(signals.wait_timeout(ms(20)), Err(WaitError::TimedOut)));
        assert!(begin.elapsed() >= ms(20));
        raise(SIGUSR1).expect("a signal");
        assert_eq!(signals.wait_timeout(Duration::ZERO).expect("the signal has come"), SIGUSR1);
    });
}

#[test]
fn a_killed_waiter_takes_no_signal_along() {
    in_child(|| {
        let signals = Rc::new(caught([SIGUSR1]));
        let own = Rc::clone(&signals);
        let waiter = spawn(move || own.wait());
        yield_now();
        raise(SIGUSR1).expect("a signal");
        waiter.kill();
        assert!(waiter.join().expect_err("killed").is_kill());
        assert_eq!(signals.wait().expect("the signal has come"), SIGUSR1);
    });
}

#[test]
fn a_timeout_ends_a_wait_that_leaves_nothing_behind() {
    in_child(|| {
        let signals = caught([SIGUSR1]);
        for _ in 0..3 {
            assert!(with_timeout(ms(1), || signals.wait()).is_err());
        }
        // A wait that was left behind would keep the loop alive.
        assert!(get_hub().join(None).expect("nothing is left"));
    });
}

#[test]
fn an_exit_waits_for_the_signal_in_a_shield() {
    in_child(|| {
        let got = Rc::new(Cell::new(None));
        let shielded = {
            let got = Rc::clone(&got);
            spawn(move || {
                shield(|| got.set(caught([SIGUSR1]).wait().ok()));
                yield_now();
            })
        };
        yield_now();
        assert_eq!(shielded.kill(), KillOutcome::Scheduled);
        sleep(ms(5));
        assert!(!shielded.is_finished());
        raise(SIGUSR1).expect("a signal");
        assert!(shielded.join().expect_err("killed after the shield").is_kill());
        assert_eq!(got.get(), Some(SIGUSR1));
    });
}

#[test]
fn each_value_receives_each_signal() {
    in_child(|| {
        let waiters = [(); 3].map(|()| spawn(|| caught([SIGUSR1]).wait()));
        yield_now();
        raise(SIGUSR1).expect("a signal");
        for waiter in waiters {
            assert_eq!(waiter.join().expect("no panic").expect("the signal comes"), SIGUSR1);
        }
    });
}

#[test]
fn one_of_several_waiters_of_a_value_gets_the_signal() {
    in_child(|| {
        let signals = Rc::new(caught([SIGUSR1, SIGUSR2]));
        let (sender, got) = std::sync::mpsc::channel();
        let waiters = [(); 3].map(|()| {
            let (signals, sender) = (Rc::clone(&signals), sender.clone());
            spawn(move || sender.send(signals.wait().expect("the signal comes")).expect("the test waits"))
        });
        yield_now();
        for signal in [SIGUSR1, SIGUSR2] {
            raise(signal).expect("a signal");
            sleep(ms(5));
            assert_eq!(got.try_iter().collect::<Vec<_>>(), [signal]);
        }
        assert_eq!(waiters.iter().filter(|waiter| waiter.is_finished()).count(), 2);
        waiters.iter().for_each(|waiter| _ = waiter.kill());
    });
}

#[test]
fn waiters_on_several_os_threads_share_the_signals_of_a_value() {
    in_child(|| {
        let signals = Arc::new(caught([SIGUSR1]));
        let (sender, got) = std::sync::mpsc::channel();
        let threads = [false, true, false].map(|has_green_threads| {
            let (signals, sender) = (Arc::clone(&signals), sender.clone());
            std::thread::spawn(move || {
                let wait = move || sender.send(signals.wait().expect("the signal comes")).expect("the test waits");
                if has_green_threads { spawn(wait).join().expect("no panic") } else { wait() }
            })
        });
        for _ in &threads {
            send(SIGUSR1);
            // A signal for which no OS thread waits yet is kept. The next one must not be merged with it.
            assert_eq!(got.recv().expect("an OS thread gets it"), SIGUSR1);
        }
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(signals.try_wait(), None);
    });
}

#[test]
fn an_os_thread_without_a_hub_waits_for_a_signal() {
    in_child(|| {
        let signals = caught([SIGUSR1]);
        let waiter = std::thread::spawn(move || signals.wait());
        std::thread::sleep(ms(30));
        send(SIGUSR1);
        assert_eq!(waiter.join().expect("no panic").expect("the signal comes"), SIGUSR1);
    });
}

/// The number of reports of this process.
static REPORTS: AtomicUsize = AtomicUsize::new(0);

fn count_reports() {
    set_report_stream(|report| {
        eprintln!("{report}");
        REPORTS.fetch_add(1, Ordering::SeqCst);
    });
}

/// Sends a signal from a new process, so that this one has a single OS thread.
fn send_from_elsewhere(signal: i32, after: &str) -> std::process::Child {
    let script = format!("sleep {after}; kill -{signal} {}", std::process::id());
    std::process::Command::new("/bin/sh").args(["-c", &script]).spawn().expect("a shell")
}

#[test]
fn a_program_that_only_waits_for_a_signal_is_not_a_deadlock() {
    in_fork(|| {
        count_reports();
        debug::set_quiet_time(ms(100));
        let signals = caught([SIGTERM]);
        // A deadlock is found after a second.
        let mut sender = send_from_elsewhere(SIGTERM, "2.5");
        assert_eq!(signals.wait().expect("the signal comes"), SIGTERM);
        assert_eq!(REPORTS.load(Ordering::SeqCst), 0);
        assert!(sender.wait().expect("a shell").success());
    });
}

#[test]
fn a_main_greenlet_that_waits_for_the_waiter_of_a_signal_is_not_a_deadlock() {
    in_fork(|| {
        count_reports();
        debug::set_quiet_time(ms(100));
        let signals = caught([SIGTERM]);
        let event = Rc::new(Event::new());
        let sent = Rc::clone(&event);
        spawn(move || sent.send(signals.wait().expect("the signal comes")));
        let mut sender = send_from_elsewhere(SIGTERM, "2.5");
        assert_eq!(event.wait().expect("the event is sent"), SIGTERM);
        assert_eq!(REPORTS.load(Ordering::SeqCst), 0);
        assert!(sender.wait().expect("a shell").success());
    });
}

#[test]
fn os_threads_that_wait_for_the_waiter_of_a_signal_are_not_a_deadlock() {
    in_fork(|| {
        count_reports();
        let event = Arc::new(Event::new());
        let [sent, got] = [(); 2].map(|()| Arc::clone(&event));
        let signals = caught([SIGTERM]);
        let waiter = std::thread::spawn(move || sent.send(signals.wait().expect("the signal comes")));
        let other = std::thread::spawn(move || got.wait());
        let mut sender = send_from_elsewhere(SIGTERM, "2.5");
        assert_eq!(event.wait().expect("the event is sent"), SIGTERM);
        assert_eq!(other.join().expect("no panic").expect("the event is sent"), SIGTERM);
        waiter.join().expect("no panic").expect("sent once");
        assert_eq!(REPORTS.load(Ordering::SeqCst), 0);
        assert!(sender.wait().expect("a shell").success());
    });
}

#[test]
fn caught_signals_without_a_waiter_do_not_keep_the_loop_alive() {
    in_child(|| {
        let _signals = caught([SIGTERM]);
        let error = get_hub().run_once(None).expect_err("nothing is left");
        assert_eq!(error.kind(), LoopErrorKind::LoopExit);
    });
}

#[test]
fn a_wait_for_a_signal_keeps_the_loop_alive() {
    in_child(|| {
        let signals = caught([SIGUSR1]);
        let waiter = spawn(move || signals.wait());
        assert!(!get_hub().join(ms(50)).expect("the limit is reached"));
        raise(SIGUSR1).expect("a signal");
        assert!(get_hub().join(None).expect("nothing is left"));
        assert_eq!(waiter.join().expect("no panic").expect("the signal has come"), SIGUSR1);
    });
}

#[test]
fn a_signal_after_a_fork_wakes_the_waiter_of_the_process_that_gets_it() {
    in_child(|| {
        let signals = caught([SIGUSR1, SIGUSR2]);
        let waiter = spawn(move || (signals.wait(), signals));
        yield_now();
        let expect = |signal| {
            raise(signal).expect("a signal");
            let (waited, signals) = waiter.join().expect("no panic");
            assert_eq!(waited.expect("the signal comes"), signal);
            // The other process has got another signal.
            assert!(matches!(signals.wait_timeout(ms(50)), Err(WaitError::TimedOut)));
        };
        if let Some(child) = fork_here() {
            expect(SIGUSR1);
            ends_well(child);
        } else {
            exit_after(|| expect(SIGUSR2));
        }
    });
}

#[test]
fn a_signal_before_a_fork_wakes_parent_and_child() {
    in_child(|| {
        let signals = caught([SIGUSR1]);
        let waiter = spawn(move || signals.wait());
        yield_now();
        raise(SIGUSR1).expect("a signal");
        let expected = |waited: Result<Result<i32, _>, GreenError>| {
            assert_eq!(waited.expect("no panic").expect("the signal has come"), SIGUSR1);
        };
        if let Some(child) = fork_here() {
            expected(waiter.join());
            ends_well(child);
        } else {
            exit_after(|| expected(waiter.join()));
        }
    });
}

#[test]
fn a_hub_without_descriptors_notices_a_signal() {
    in_child(|| {
        greenhub::use_hub_with(|| Ok(crate::support::bare_hub::Bare::default())).expect("no hub yet");
        let signals = caught([SIGUSR1]);
        let sender = send_soon(SIGUSR1);
        assert_eq!(signals.wait().expect("the signal comes"), SIGUSR1);
        sender.join().expect("no panic");
    });
}

#[test]
fn each_signal_ends_one_wait() {
    in_child(|| {
        let signals = caught([SIGUSR1, SIGTERM]);
        spawn(|| {
            for signal in [SIGUSR1, SIGUSR1, SIGTERM] {
                sleep(ms(5));
                raise(signal).expect("a signal");
            }
        });
        let got: Vec<i32> = signals.iter().take_while(|&signal| signal != SIGTERM).collect();
        assert_eq!(got, [SIGUSR1; 2]);
        spawn_after(ms(1), || raise(SIGUSR1));
        assert_eq!(signals.into_iter().next(), Some(SIGUSR1));
    });
}

#[test]
fn a_dropped_value_leaves_a_signal_that_does_nothing() {
    in_child(|| {
        drop(caught([SIGTERM]));
        raise(SIGTERM).expect("a signal");
        let later = caught([SIGTERM]);
        assert_eq!(later.try_wait(), None);
    });
}

#[test]
fn a_signal_that_cannot_be_caught_is_refused_with_the_reason() {
    in_child(|| {
        let refused = |signals: &[i32]| {
            let error = Signals::new(signals.iter().copied()).expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            error.to_string()
        };
        assert!(refused(&[SIGTERM, libc::SIGKILL]).starts_with("cannot wait for signal 9: it cannot or must not be"));
        assert!(refused(&[12345]).starts_with("cannot wait for signal 12345: there is no such signal"));
        assert!(refused(&[]).starts_with("a wait for no signals would never end"));
    });
}

#[test]
fn a_refused_call_catches_none_of_its_signals() {
    in_child(|| {
        let child = forked(|| {
            Signals::new([SIGTERM, 12345]).expect_err("refused");
            raise(SIGTERM).expect("a signal");
        });
        let ended = waitpid(child, None).expect("our child");
        assert_eq!(ended, WaitStatus::Signaled(child, Signal::SIGTERM, false));
    });
}

#[test]
fn the_main_loop_refuses_the_wait_and_keeps_the_signal() {
    in_child(|| {
        let signals = Rc::new(caught([SIGUSR1]));
        let own = Rc::clone(&signals);
        let (sender, receiver) = std::sync::mpsc::channel();
        let _timer = get_hub().schedule(Duration::ZERO, move || sender.send(own.wait()).expect("the test waits"));
        sleep(ms(1));
        let error = receiver.recv().expect("the timer has fired").expect_err("refused");
        assert_eq!(error.kind(), LoopErrorKind::InMainloop);
        raise(SIGUSR1).expect("a signal");
        assert_eq!(signals.wait().expect("the signal has come"), SIGUSR1);
    });
}

#[test]
fn an_interruption_ends_the_wait_of_the_main_greenlet_with_an_error() {
    in_child(|| {
        let signals = caught([SIGTERM]);
        let _interrupt = greenhub::hub::interrupt_on(SIGINT).expect("SIGINT");
        let sender = send_soon(SIGINT);
        assert_eq!(signals.wait().expect_err("interrupted").kind(), LoopErrorKind::Interrupted);
        sender.join().expect("no panic");
        raise(SIGTERM).expect("a signal");
        assert_eq!(signals.wait().expect("the signal has come"), SIGTERM);
    });
}

#[test]
fn a_waiter_is_listed_with_its_reason() {
    in_child(|| {
        let signals = caught([SIGTERM]);
        let _waiter = spawn(move || signals.wait());
        yield_now();
        let listed = debug::format_green_threads();
        assert!(listed.contains("waiting for a signal"), "{listed}");
    });
}

#[test]
fn a_join_handle_makes_a_signal_one_of_several_events() {
    in_child(|| {
        let signals = caught([SIGTERM]);
        let waiter = spawn(move || signals.wait());
        let event: Event<()> = Event::new();
        let list = greenhub::park::ReadyList::new();
        let (first, second) = (
            greenhub::park::Waitable::leave(&waiter, list.mark(0)),
            greenhub::park::Waitable::leave(&event, list.mark(1)),
        );
        let sender = send_soon(SIGTERM);
        assert_eq!(list.next(&mut greenhub::park::Deadline::none()).expect("the wait succeeds"), Some(0));
        greenhub::park::Waitable::take_back(&waiter, first);
        greenhub::park::Waitable::take_back(&event, second);
        sender.join().expect("no panic");
    });
}

#[test]
fn a_loop_that_waits_for_a_signal_sleeps() {
    in_child(|| {
        let signals = caught([SIGUSR1]);
        let waiter = spawn(move || signals.wait());
        sleep(ms(1));
        let turns = get_hub().stats().turns;
        sleep(ms(300));
        assert!(get_hub().stats().turns - turns < 5);
        raise(SIGUSR1).expect("a signal");
        assert_eq!(waiter.join().expect("no panic").expect("the signal has come"), SIGUSR1);
    });
}

#[test]
fn a_value_that_is_younger_than_the_first_wait_of_its_loop_loses_no_signal() {
    in_child(|| {
        let old = caught([SIGUSR1]);
        assert!(matches!(old.wait_timeout(Duration::ZERO), Err(WaitError::TimedOut)));
        for _ in 0..200 {
            let young = caught([SIGUSR1]);
            let sender = std::thread::spawn(|| send(SIGUSR1));
            assert_eq!(young.wait().expect("the signal comes"), SIGUSR1);
            assert_eq!(old.wait().expect("the signal has come"), SIGUSR1);
            sender.join().expect("no panic");
        }
    });
}
