//! Hooks at the phases of a turn.

use std::cell::{Cell, RefCell};
use std::io::{Write, pipe};
use std::rc::Rc;
use std::time::Duration;

use crate::support::fork::{ends_well, forked};
use crate::support::{alone, in_child, run};
use greenhub::debug::set_report_stream;
use greenhub::hub::{Hook, LoopErrorKind, Phase};
use greenhub::sync::Event;
use greenhub::{Interest, get_hub, sleep, spawn, trampoline};

const SHORT: Duration = Duration::from_millis(1);

/// A time that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

type Log = Rc<RefCell<Vec<Phase>>>;

/// Sets a hook for each phase, which writes the phase down.
fn hooks(log: &Log) -> Vec<Hook> {
    [Phase::Fork, Phase::Notice, Phase::Check, Phase::Prepare]
        .map(|phase| {
            let log = Rc::clone(log);
            get_hub().hook(phase, move || log.borrow_mut().push(phase))
        })
        .into()
}

#[test]
fn a_turn_that_waits_prepares_first_and_checks_afterwards() {
    run("a_turn_that_waits_prepares_first_and_checks_afterwards", || {
        let log = Log::default();
        let hooks = hooks(&log);
        sleep(SHORT);
        sleep(SHORT);
        drop(hooks);
        let log = log.take();
        assert_eq!(log[..3], [Phase::Prepare, Phase::Check, Phase::Prepare], "{log:?}");
    });
}

#[test]
fn green_threads_woken_by_a_report_run_before_the_check() {
    run("green_threads_woken_by_a_report_run_before_the_check", || {
        let (reader, mut writer) = pipe().unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        let (checked, read) = (Rc::clone(&order), Rc::clone(&order));
        let reader = spawn(move || {
            trampoline(&reader, Interest::READ, None).unwrap();
            read.borrow_mut().push("read");
        });
        greenhub::thread::yield_now();
        let hook = get_hub().hook(Phase::Check, move || checked.borrow_mut().push("check"));
        writer.write_all(b"x").unwrap();
        sleep(SHORT);
        drop(hook);
        reader.join().unwrap();
        let order = order.take();
        assert_eq!(order.iter().find(|what| **what == "check" || **what == "read"), Some(&"read"), "{order:?}");
    });
}

#[test]
fn mail_of_another_os_thread_is_noticed() {
    run("mail_of_another_os_thread_is_noticed", || {
        let (log, hub) = (Log::default(), get_hub());
        let hooks = hooks(&log);
        sleep(SHORT);
        assert!(!log.take().contains(&Phase::Notice));
        let remote = hub.remote();
        std::thread::spawn(move || remote.spawn(|| ())).join().unwrap().unwrap();
        while !log.borrow().contains(&Phase::Notice) {
            sleep(SHORT);
        }
        drop(hooks);
    });
}

#[test]
fn idle_hooks_are_called_while_nothing_happens() {
    run("idle_hooks_are_called_while_nothing_happens", || {
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let enough = Rc::new(Event::new());
        let second = Rc::clone(&enough);
        let idle = get_hub().hook(Phase::Idle, move || {
            count.set(count.get() + 1);
            if count.get() == 2 {
                second.send(()).unwrap();
            }
        });
        let timer = get_hub().schedule_once(LONG, || ());
        // A loop that sleeps makes the first call only.
        enough.wait().unwrap();
        timer.cancel();
        drop(idle);
        let before = get_hub().stats().turns;
        sleep(Duration::from_millis(20));
        assert!(get_hub().stats().turns - before < 10, "the loop sleeps again");
    });
}

#[test]
fn idle_hooks_wait_for_ready_green_threads() {
    run("idle_hooks_wait_for_ready_green_threads", || {
        let yields = Rc::new(Cell::new(0));
        let seen = Rc::new(Cell::new(None));
        let (counted, first) = (Rc::clone(&yields), Rc::clone(&seen));
        let idle = get_hub().hook(Phase::Idle, move || {
            if first.get().is_none() {
                first.set(Some(counted.get()));
            }
        });
        let busy = spawn(move || {
            for _ in 0..2000 {
                yields.set(yields.get() + 1);
                greenhub::thread::yield_now();
            }
        });
        busy.join().unwrap();
        while seen.get().is_none() {
            sleep(Duration::from_millis(5));
        }
        drop(idle);
        assert_eq!(seen.get(), Some(2000));
    });
}

#[test]
fn a_hook_sets_and_removes_hooks_from_within() {
    run("a_hook_sets_and_removes_hooks_from_within", || {
        let own: Rc<RefCell<Option<Hook>>> = Rc::default();
        let calls = Rc::new(RefCell::new(Vec::new()));
        let (slot, outer) = (Rc::clone(&own), Rc::clone(&calls));
        let hook = get_hub().hook(Phase::Prepare, move || {
            outer.borrow_mut().push("first");
            let inner = Rc::clone(&outer);
            // It removes itself, and sets another one in its place.
            let next = get_hub().hook(Phase::Prepare, move || inner.borrow_mut().push("second"));
            drop(slot.replace(Some(next)));
        });
        own.replace(Some(hook));
        sleep(SHORT);
        sleep(SHORT);
        drop(own.take());
        let calls = calls.take();
        assert_eq!(calls[0], "first");
        assert!(calls.len() > 1 && calls[1..].iter().all(|call| *call == "second"), "{calls:?}");
    });
}

#[test]
fn a_hook_that_was_removed_by_an_earlier_one_is_not_called() {
    run("a_hook_that_was_removed_by_an_earlier_one_is_not_called", || {
        let victim: Rc<RefCell<Option<Hook>>> = Rc::default();
        let slot = Rc::clone(&victim);
        let first = get_hub().hook(Phase::Prepare, move || drop(slot.take()));
        victim.replace(Some(get_hub().hook(Phase::Prepare, || panic!("a removed hook was called"))));
        sleep(SHORT);
        drop(first);
    });
}

#[test]
fn a_hook_that_panics_is_reported_with_its_place_and_removed() {
    alone("a_hook_that_panics_is_reported_with_its_place_and_removed", || {
        let (sender, reports) = std::sync::mpsc::channel();
        set_report_stream(move |report| drop(sender.send(report.to_string())));
        let line = line!() + 1;
        let hook = get_hub().hook(Phase::Prepare, || panic!("the hook"));
        sleep(SHORT);
        sleep(SHORT);
        drop(hook);
        let reports: Vec<String> = reports.try_iter().collect();
        let place = format!("phases.rs:{line}:");
        let parts = ["a hook that is now removed", &place, "panicked: the hook"];
        assert!(matches!(&reports[..], [one] if parts.iter().all(|part| one.contains(part))), "{reports:?}");
    });
}

#[test]
fn a_hook_must_not_block() {
    run("a_hook_must_not_block", || {
        let refusal = Rc::new(Cell::new(None));
        let found = Rc::clone(&refusal);
        let hook = get_hub().hook(Phase::Prepare, move || {
            found.set(get_hub().run_once(None).err().map(|error| error.kind()));
        });
        sleep(SHORT);
        drop(hook);
        assert_eq!(refusal.get(), Some(LoopErrorKind::InMainloop));
    });
}

#[test]
fn hooks_end_with_their_hub() {
    run("hooks_end_with_their_hub", || {
        let held = Rc::new(());
        let inside = Rc::clone(&held);
        let hook = get_hub().hook(Phase::Prepare, move || drop(Rc::clone(&inside)));
        greenhub::use_hub(get_hub().name()).unwrap();
        assert_eq!(Rc::strong_count(&held), 1);
        sleep(SHORT);
        drop(hook);
    });
}

#[test]
fn the_hooks_of_fork_are_called_once_in_the_child_alone() {
    in_child(|| {
        let forks = Rc::new(Cell::new(0));
        let count = Rc::clone(&forks);
        let hook = get_hub().hook(Phase::Fork, move || count.set(count.get() + 1));
        sleep(SHORT);
        let child = forked(|| {
            sleep(SHORT);
            sleep(SHORT);
            assert_eq!(forks.get(), 1);
        });
        ends_well(child);
        sleep(SHORT);
        drop(hook);
        assert_eq!(forks.get(), 0);
    });
}

#[test]
fn an_abort_in_a_hook_ends_the_loop_before_it_waits() {
    run("an_abort_in_a_hook_ends_the_loop_before_it_waits", || {
        let hook = get_hub().hook(Phase::Prepare, || get_hub().abort());
        let (reader, _writer) = pipe().unwrap();
        let error = trampoline(&reader, Interest::READ, None).unwrap_err();
        drop(hook);
        assert!(error.to_string().contains("aborted"), "{error}");
    });
}

#[test]
fn a_single_turn_includes_the_check() {
    run("a_single_turn_includes_the_check", || {
        let log = Log::default();
        let hooks = hooks(&log);
        get_hub().run_once(Duration::ZERO).unwrap();
        assert_eq!(log.take(), [Phase::Prepare, Phase::Check]);
        drop(hooks);
    });
}
