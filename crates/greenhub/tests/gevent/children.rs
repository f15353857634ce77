//! Watchers of child processes.

#![expect(clippy::zombie_processes, reason = "the watchers under test reap the processes")]

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::mpsc::channel;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getpid, getppid};

use crate::support::descriptors::until;
use crate::support::fork::{ends_well, forked};
use crate::support::{alone, assert_succeeded, in_child, open_descriptors, rerun, run};
use crate::{Log, SHORT, give_up_all_numbers};
use greenhub::debug::set_report_stream;
use greenhub::gevent::{Child, ChildStatus, Priority, Run, WaitError, Watcher, WatcherError, event_loop};
use greenhub::hub::Phase;
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn};

/// Starts a shell, and returns its ID. The watcher of the test reaps it.
fn shell(script: &str) -> u32 {
    Command::new("sh").args(["-c", script]).spawn().unwrap().id()
}

/// Starts a shell that exits with `code` when its input is closed.
fn reader(code: i32) -> process::Child {
    let script = format!("read _; exit {code}");
    Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap()
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed())
}

/// Waits until a child has ended, and leaves it for others to reap.
fn wait_until_ended(child: u32) {
    waitid(Id::Pid(pid(child)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
}

fn is_reaped(child: u32) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    waitid(Id::Pid(pid(child)), flags) == Err(nix::Error::ECHILD)
}

/// Returns an active watcher, and the log of its calls.
fn logged(child: u32) -> (Child, Log<ChildStatus>) {
    let (watcher, log) = (event_loop().child(child).unwrap(), Log::new());
    let calls = log.clone();
    watcher.start(move |_, ended| calls.push(ended)).unwrap();
    (watcher, log)
}

#[test]
fn the_end_of_a_child_is_reported_after_its_descriptor_was_given_up() {
    run("the_end_of_a_child_is_reported_after_its_descriptor_was_given_up", || {
        let (mut first, mut second) = (reader(1), reader(2));
        let (_watcher, log) = logged(first.id());
        let waited = event_loop().child(second.id()).unwrap();
        let waiter = spawn(move || waited.wait(None));
        yield_now();
        give_up_all_numbers();
        sleep(SHORT);
        drop((first.stdin.take(), second.stdin.take()));
        assert_eq!(waiter.join().unwrap().unwrap().code(), Some(2));
        until(|| log.len() == 1);
        // One that has ended before the listener is made anew.
        let mut third = reader(3);
        let (_watcher, log) = logged(third.id());
        drop(third.stdin.take());
        wait_until_ended(third.id());
        give_up_all_numbers();
        until(|| log.len() == 1);
        assert_eq!(log.take()[0].code(), Some(3));
    });
}

#[test]
fn the_end_of_a_child_is_reported_once_with_its_status() {
    run("the_end_of_a_child_is_reported_once_with_its_status", || {
        let mut process = reader(7);
        let number = process.id();
        let (watcher, log) = logged(number);
        assert_eq!((watcher.pid(), watcher.status()), (number, None));
        drop(process.stdin.take());
        event_loop().run(Run::UntilIdle).unwrap();
        assert!(!watcher.is_active() && is_reaped(number));
        let status = ExitStatus::from_raw(7 << 8);
        assert_eq!(log.take(), [ChildStatus { pid: number, status: Some(status) }]);
        assert_eq!(watcher.status(), Some(status));
        sleep(5 * SHORT);
        assert_eq!(log.len(), 0);
    });
}

#[test]
fn the_signal_that_ended_a_child_is_in_its_status() {
    run("the_signal_that_ended_a_child_is_in_its_status", || {
        let child = event_loop().child(shell("kill -TERM $$")).unwrap();
        let ended = child.wait(None).unwrap();
        assert_eq!((ended.status.unwrap().signal(), ended.code()), (Some(libc::SIGTERM), None));
    });
}

#[test]
fn a_child_that_ended_before_its_watcher_was_made_is_reported() {
    run("a_child_that_ended_before_its_watcher_was_made_is_reported", || {
        let number = shell("exit 5");
        wait_until_ended(number);
        let child = event_loop().child(number).unwrap();
        assert_eq!(child.wait(None).unwrap().code(), Some(5));
        assert!(is_reaped(number));
    });
}

#[test]
fn a_process_that_is_no_child_is_an_error() {
    run("a_process_that_is_no_child_is_an_error", || {
        for number in [0, u32::MAX, getpid().as_raw().cast_unsigned(), getppid().as_raw().cast_unsigned()] {
            let error = event_loop().child(number).unwrap_err();
            assert!(matches!(error, WatcherError::Child { pid, .. } if pid == number), "{error}");
        }
        let mut process = Command::new("true").spawn().unwrap();
        process.wait().unwrap();
        let error = event_loop().child(process.id()).unwrap_err().to_string();
        assert!(error.contains("was reaped") && error.contains(&process.id().to_string()), "{error}");
    });
}

#[test]
fn each_watcher_reaps_its_own_child_only() {
    run("each_watcher_reaps_its_own_child_only", || {
        let mut other = Command::new("sh").args(["-c", "exit 9"]).spawn().unwrap();
        wait_until_ended(other.id());
        let children = [1, 2, 3].map(|code| logged(shell(&format!("exit {code}"))));
        event_loop().run(Run::UntilIdle).unwrap();
        let codes = children.map(|(_, log)| log.take().iter().map(|ended| ended.code()).collect::<Vec<_>>());
        assert_eq!(codes, [1, 2, 3].map(|code| vec![Some(code)]));
        assert_eq!(other.wait().unwrap().code(), Some(9));
    });
}

#[test]
fn children_of_the_module_process_are_left_alone() {
    run("children_of_the_module_process_are_left_alone", || {
        let waiting: Vec<_> = (0..5)
            .map(|code| {
                let script = format!("sleep 0.0{code}; exit {code}");
                let mut process = greenhub::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
                spawn(move || process.wait().unwrap().code())
            })
            .collect();
        let children: Vec<_> = (0..5).map(|code| logged(shell(&format!("exit 1{code}")))).collect();
        for (code, waiting) in (0..).zip(waiting) {
            assert_eq!(waiting.join().unwrap(), Some(code));
        }
        event_loop().run(Run::UntilIdle).unwrap();
        for (code, (_, log)) in (10..).zip(children) {
            assert_eq!(log.take()[0].code(), Some(code));
        }
    });
}

#[test]
fn children_are_watched_on_every_os_thread() {
    run("children_are_watched_on_every_os_thread", || {
        // A process is a child of all OS threads.
        let number = shell("exit 4");
        let threads: Vec<_> = (0..3)
            .map(|code| {
                std::thread::spawn(move || {
                    let child = event_loop().child(shell(&format!("exit {code}"))).unwrap();
                    assert_eq!(child.wait(None).unwrap().code(), Some(code));
                })
            })
            .collect();
        let here = std::thread::spawn(move || event_loop().child(number).unwrap().wait(None).unwrap().code());
        assert_eq!(here.join().unwrap(), Some(4));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_status_outlives_the_stop_of_a_pending_child_watcher() {
    run("a_status_outlives_the_stop_of_a_pending_child_watcher", || {
        let mut process = reader(6);
        let number = process.id();
        let (watcher, log) = logged(number);
        let watcher = Rc::new(watcher);
        let (check, stopped) = (event_loop().check(), Rc::clone(&watcher));
        check.set_priority(Priority::Highest).unwrap();
        check
            .start(move |check, ()| {
                if stopped.is_pending() {
                    stopped.stop();
                    check.stop();
                }
            })
            .unwrap();
        drop(process.stdin.take());
        event_loop().run(Run::UntilIdle).unwrap();
        assert!(log.len() == 0 && is_reaped(number));
        watcher.resume().unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take()[0].code(), Some(6));
    });
}

#[test]
fn a_child_watcher_that_is_not_counted_does_not_keep_the_loop_alive() {
    run("a_child_watcher_that_is_not_counted_does_not_keep_the_loop_alive", || {
        let mut process = reader(1);
        let (watcher, log) = logged(process.id());
        watcher.set_counted(false);
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        watcher.set_counted(true);
        assert!(event_loop().run(Run::NoWait).unwrap());
        drop(process.stdin.take());
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn a_callback_closes_and_drops_child_watchers() {
    run("a_callback_closes_and_drops_child_watchers", || {
        let numbers = [shell("exit 0"), shell("exit 0")];
        numbers.into_iter().for_each(wait_until_ended);
        let (own, log): (Rc<RefCell<Vec<Child>>>, _) = (Rc::default(), Log::new());
        for number in numbers {
            let (watcher, slot, calls) = (event_loop().child(number).unwrap(), Rc::clone(&own), log.clone());
            watcher
                .start(move |watcher, ended| {
                    calls.push(ended.pid);
                    watcher.close();
                    drop(slot.take());
                })
                .unwrap();
            own.borrow_mut().push(watcher);
        }
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), numbers[..1]);
        assert_eq!(event_loop().counts().active, 0);
    });
}

#[test]
fn a_kill_ends_a_wait_for_a_child_and_leaves_the_child() {
    run("a_kill_ends_a_wait_for_a_child_and_leaves_the_child", || {
        let mut process = reader(1);
        let child = Rc::new(event_loop().child(process.id()).unwrap());
        let waited = Rc::clone(&child);
        let waiting = spawn(move || waited.wait(None));
        yield_now();
        assert!(child.is_active());
        waiting.kill();
        assert!(!child.is_active() && !is_reaped(process.id()));
        drop(process.stdin.take());
        assert_eq!(child.wait(None).unwrap().code(), Some(1));
    });
}

#[test]
fn the_status_of_a_child_that_other_code_reaps_is_lost() {
    run("the_status_of_a_child_that_other_code_reaps_is_lost", || {
        let (mut process, mut waited) = (reader(1), reader(2));
        let (watcher, log) = logged(process.id());
        let child = event_loop().child(waited.id()).unwrap();
        let waiting = spawn(move || child.wait(None));
        yield_now();
        // Closes their inputs, and blocks the loop.
        process.wait().unwrap();
        waited.wait().unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        let lost = |process: &process::Child| ChildStatus { pid: process.id(), status: None };
        assert_eq!(log.take(), [lost(&process)]);
        assert_eq!(waiting.join().unwrap().unwrap(), lost(&waited));
        assert!(!watcher.is_active() && watcher.status().is_none());
        // The end is told again, as that of any other child.
        watcher.resume().unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), [lost(&process)]);
    });
}

#[test]
fn a_forked_child_closes_the_watchers_of_its_siblings() {
    in_child(|| {
        let mut process = reader(3);
        let (watcher, log) = logged(process.id());
        sleep(SHORT);
        let child = forked(|| {
            sleep(SHORT);
            assert!(!watcher.is_active() && event_loop().counts().active == 0);
            // A process of the child is watched there.
            let own = event_loop().child(shell("exit 2")).unwrap();
            assert_eq!(own.wait(None).unwrap().code(), Some(2));
        });
        ends_well(child);
        assert!(watcher.is_active() && log.len() == 0);
        drop(process.stdin.take());
        until(|| log.len() == 1);
        assert_eq!(log.take()[0].code(), Some(3));
    });
}

/// Lets the process open no more descriptors. Returns the former limit.
fn forbid_descriptors() -> u64 {
    // The lowest one that is free. A lower limit would make poll(2) refuse those that are open.
    let next = std::io::stdin().as_fd().try_clone_to_owned().unwrap().as_raw_fd();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, u64::try_from(next).unwrap(), hard).unwrap();
    soft
}

fn limit_descriptors(limit: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
}

/// Asserts that a wait for a child is refused while no descriptor can be made, and not afterwards.
#[track_caller]
fn assert_is_refused_without_descriptors() {
    let mut process = reader(3);
    let limit = forbid_descriptors();
    let child = event_loop().child(process.id()).unwrap();
    let refused = child.wait(None).unwrap_err();
    assert!(matches!(refused, WaitError::Watcher(WatcherError::System { .. })), "{refused}");
    limit_descriptors(limit);
    drop(process.stdin.take());
    assert_eq!(child.wait(None).unwrap().code(), Some(3));
}

#[test]
fn a_child_watcher_without_descriptors_is_refused_at_its_start() {
    alone("a_child_watcher_without_descriptors_is_refused_at_its_start", || {
        sleep(SHORT); // makes the descriptors of the hub
        assert_is_refused_without_descriptors();
    });
}

#[test]
fn a_loop_without_a_wake_up_descriptor_after_a_fork_says_so_and_makes_it_later() {
    in_child(|| {
        let (sender, reports) = channel();
        set_report_stream(move |report| sender.send(report.to_string()).unwrap());
        let limit = Rc::new(Cell::new(0));
        let former = Rc::clone(&limit);
        // Called before the hook of the loop, after the hub has made its own descriptors.
        let hook = get_hub().hook(Phase::Fork, move || former.set(forbid_descriptors()));
        let signal = event_loop().signal(libc::SIGCHLD).unwrap();
        signal.start(|_, ()| ()).unwrap();
        sleep(SHORT);
        let forked = forked(|| {
            sleep(SHORT);
            let report = reports.try_recv().unwrap();
            assert!(report.contains("wake-up"), "{report}");
            limit_descriptors(limit.get());
            // Without a process descriptor it needs that of the loop, beside the other watcher of the signal.
            assert_is_refused_without_descriptors();
        });
        ends_well(forked);
        drop(hook);
    });
}

#[test]
fn a_thousand_children_under_load_are_all_reaped_with_their_status() {
    alone("a_thousand_children_under_load_are_all_reaped_with_their_status", || {
        // The descriptors of the hub and of the loop are made for the first child.
        let first = event_loop().child(Command::new("true").spawn().unwrap().id()).unwrap();
        first.wait(None).unwrap();
        drop(first);
        let before = open_descriptors();
        let load = spawn(|| {
            loop {
                yield_now();
            }
        });
        for _ in 0..10 {
            let children: Vec<_> = (0..100)
                .map(|number| {
                    let name = if number % 3 == 0 { "false" } else { "true" };
                    let child = event_loop().child(Command::new(name).spawn().unwrap().id()).unwrap();
                    spawn(move || child.wait(None).unwrap())
                })
                .collect();
            for (number, child) in children.into_iter().enumerate() {
                assert_eq!(child.join().unwrap().code(), Some(i32::from(number % 3 == 0)));
            }
        }
        load.kill();
        assert_eq!(waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG), Err(nix::Error::ECHILD), "no zombie");
        assert_eq!(event_loop().counts().active, 0);
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn children_are_watched_by_their_signal_without_process_descriptors() {
    for test in [
        "the_end_of_a_child_is_reported_once_with_its_status",
        "a_child_that_ended_before_its_watcher_was_made_is_reported",
        "each_watcher_reaps_its_own_child_only",
        "children_of_the_module_process_are_left_alone",
        "children_are_watched_on_every_os_thread",
        "a_status_outlives_the_stop_of_a_pending_child_watcher",
        "the_status_of_a_child_that_other_code_reaps_is_lost",
        "a_forked_child_closes_the_watchers_of_its_siblings",
        "a_thousand_children_under_load_are_all_reaped_with_their_status",
    ] {
        let output = rerun(&format!("children::{test}"), |command| _ = command.env("GREENHUB_CHILD", "signal"));
        assert_succeeded(&output);
    }
}

#[test]
fn an_event_of_the_program_does_not_end_the_watch() {
    run("an_event_of_the_program_does_not_end_the_watch", || {
        let mut process = reader(3);
        let child = event_loop().child(process.id()).unwrap();
        let log = Log::new();
        let calls = log.clone();
        child.start(move |_, ended| calls.push(ended.code())).unwrap();
        child.feed(ChildStatus { pid: process.id(), status: Some(ExitStatus::default()) });
        sleep(SHORT);
        assert!(child.is_active());
        drop(process.stdin.take());
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.take(), [Some(0), Some(3)]);
    });
}
