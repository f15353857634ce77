//! Watchers that other OS threads wake.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Barrier, OnceLock};

use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

use crate::support::counting::allocations;
use crate::support::fork::{ends_well, forked};
use crate::support::{alone, in_child, open_descriptors, run};
use crate::{LONG, Log, SHORT, give_up_all_numbers, settle};
use greenhub::gevent::{Async, AsyncHandle, Run, Watcher, event_loop};
use greenhub::hub::LoopErrorKind;
use greenhub::thread::yield_now;
use greenhub::{get_hub, sleep, spawn};

fn assert_shared<T: Send + Sync + Clone>(_: &T) {}

/// Sends from another OS thread, and waits for its end.
fn send_from_outside(handle: &AsyncHandle) {
    let handle = handle.clone();
    std::thread::spawn(move || handle.send()).join().unwrap();
}

/// Returns an active watcher, its handle and the log of its calls.
fn logged() -> (Async, AsyncHandle, Log<()>) {
    let (watcher, log) = (event_loop().async_(), Log::new());
    let calls = log.clone();
    watcher.start(move |_, ()| calls.push(())).unwrap();
    let handle = watcher.handle();
    (watcher, handle, log)
}

#[test]
fn a_send_from_another_os_thread_ends_a_wait() {
    run("a_send_from_another_os_thread_ends_a_wait", || {
        let watcher = event_loop().async_();
        let handle = watcher.handle();
        assert_shared(&handle);
        let other = std::thread::spawn(move || {
            std::thread::sleep(5 * SHORT);
            handle.send();
        });
        watcher.wait(None).unwrap();
        assert!(!watcher.is_active());
        other.join().unwrap();
    });
}

#[test]
fn a_watcher_is_told_after_its_descriptor_was_given_up() {
    run("a_watcher_is_told_after_its_descriptor_was_given_up", || {
        let (_watcher, handle, log) = logged();
        for calls in 1..4 {
            give_up_all_numbers();
            settle();
            send_from_outside(&handle);
            settle();
            assert_eq!(log.len(), calls);
        }
        give_up_all_numbers();
        handle.send();
        settle();
        assert_eq!(log.len(), 4, "a send between the loss and the new listener");
    });
}

static SENT_BY_HANDLER: OnceLock<AsyncHandle> = OnceLock::new();

#[test]
fn a_send_in_a_signal_handler_wakes_the_loop() {
    extern "C" fn handle(_: std::ffi::c_int) {
        SENT_BY_HANDLER.get().expect("it was set before the signal").send();
    }

    alone("a_send_in_a_signal_handler_wakes_the_loop", || {
        let watcher = event_loop().async_();
        SENT_BY_HANDLER.set(watcher.handle()).unwrap();
        let action = SigAction::new(SigHandler::Handler(handle), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler sends only, which is async-signal-safe.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        let (main, waiting) = (pthread_self(), Arc::new(Barrier::new(2)));
        let begins = Arc::clone(&waiting);
        let other = std::thread::spawn(move || {
            begins.wait();
            std::thread::sleep(20 * SHORT);
            pthread_kill(main, Signal::SIGUSR1).unwrap();
        });
        waiting.wait();
        watcher.wait(None).unwrap(); // the signal interrupts the sleep of the hub
        other.join().unwrap();
        raise(Signal::SIGUSR1).unwrap(); // before the wait
        watcher.wait(None).unwrap();
    });
}

#[test]
fn sends_before_the_delivery_are_one_event() {
    run("sends_before_the_delivery_are_one_event", || {
        let (_watcher, handle, log) = logged();
        (0..100).for_each(|_| handle.send());
        send_from_outside(&handle);
        settle();
        assert_eq!(log.len(), 1);
        handle.send();
        settle();
        assert_eq!(log.len(), 2, "a later one is another event");
    });
}

#[test]
fn a_send_before_the_start_is_delivered_at_the_start() {
    run("a_send_before_the_start_is_delivered_at_the_start", || {
        let watcher = event_loop().async_();
        let handle = watcher.handle();
        send_from_outside(&handle);
        watcher.wait(None).unwrap();
        assert!(watcher.wait(SHORT).is_err(), "it is delivered once");
        handle.send();
        watcher.wait(None).unwrap();
    });
}

#[test]
fn each_of_several_watchers_gets_its_own_sends() {
    run("each_of_several_watchers_gets_its_own_sends", || {
        let watchers = [logged(), logged(), logged()];
        watchers[0].1.send();
        watchers[2].1.send();
        settle();
        assert_eq!(watchers.each_ref().map(|(_, _, log)| log.len()), [1, 0, 1]);
    });
}

#[test]
fn a_callback_stops_its_async_watcher_and_others_of_the_same_turn() {
    run("a_callback_stops_its_async_watcher_and_others_of_the_same_turn", || {
        let watchers: Rc<[Async; 2]> = Rc::new([event_loop().async_(), event_loop().async_()]);
        let log = Log::new();
        for watcher in watchers.iter() {
            let (all, log) = (Rc::downgrade(&watchers), log.clone());
            watcher
                .start(move |_, ()| {
                    log.push(());
                    all.upgrade().unwrap().iter().for_each(Watcher::stop);
                })
                .unwrap();
        }
        watchers.iter().for_each(|watcher| watcher.handle().send());
        event_loop().run(Run::UntilIdle).unwrap();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn an_async_watcher_may_be_dropped_in_its_own_callback() {
    run("an_async_watcher_may_be_dropped_in_its_own_callback", || {
        let own: Rc<RefCell<Option<Async>>> = Rc::default();
        let (watcher, slot) = (event_loop().async_(), Rc::clone(&own));
        let handle = watcher.handle();
        watcher.start(move |_, ()| drop(slot.take())).unwrap();
        own.replace(Some(watcher));
        handle.send();
        event_loop().run(Run::UntilIdle).unwrap();
        assert!(own.take().is_none());
        handle.send(); // to a closed watcher
    });
}

#[test]
fn an_async_watcher_keeps_the_loop_alive_only_while_it_is_counted() {
    run("an_async_watcher_keeps_the_loop_alive_only_while_it_is_counted", || {
        let (watcher, handle, log) = logged();
        assert!(event_loop().run(Run::NoWait).unwrap());
        watcher.set_counted(false);
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        let ended = get_hub().run_once(None).unwrap_err();
        assert_eq!(ended.kind(), LoopErrorKind::LoopExit);
        handle.send();
        settle();
        assert_eq!(log.len(), 1, "it works all the same");
        watcher.set_counted(true);
        let other = std::thread::spawn(move || handle.send());
        let stop = Rc::new(watcher);
        let stopped = Rc::clone(&stop);
        stop.start(move |_, ()| stopped.stop()).unwrap();
        event_loop().run(Run::UntilIdle).unwrap();
        stop.close();
        other.join().unwrap();
    });
}

#[test]
fn a_send_to_an_uncounted_watcher_is_delivered_before_the_loop_ends() {
    run("a_send_to_an_uncounted_watcher_is_delivered_before_the_loop_ends", || {
        let (watcher, handle, log) = logged();
        watcher.set_counted(false);
        handle.send();
        assert!(!event_loop().run(Run::UntilIdle).unwrap());
        assert_eq!(log.len(), 1);
        // The callback ends a wait that nothing else could end.
        let timer = Rc::new(event_loop().timer(LONG));
        timer.set_counted(false);
        let waited = Rc::clone(&timer);
        let waiting = spawn(move || waited.wait(None));
        watcher.start(move |_, ()| timer.feed(())).unwrap();
        handle.send();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_kill_ends_a_wait_for_an_async_watcher() {
    run("a_kill_ends_a_wait_for_an_async_watcher", || {
        let watcher = Rc::new(event_loop().async_());
        let waited = Rc::clone(&watcher);
        let waiting = spawn(move || waited.wait(None));
        yield_now();
        waiting.kill();
        assert!(!watcher.is_active());
        watcher.handle().send();
        watcher.wait(None).unwrap();
    });
}

#[test]
fn a_storm_of_sends_loses_no_wake_up() {
    run("a_storm_of_sends_loses_no_wake_up", || {
        let watcher = event_loop().async_();
        let (handle, turn) = (watcher.handle(), std::sync::mpsc::channel());
        let (next, turns) = turn;
        let other = std::thread::spawn(move || {
            while turns.recv().is_ok() {
                (0..10).for_each(|_| handle.send());
            }
        });
        for _ in 0..2000 {
            next.send(()).unwrap();
            watcher.wait(None).unwrap();
        }
        drop(next);
        other.join().unwrap();
    });
}

#[test]
fn a_delivered_send_allocates_nothing() {
    run("a_delivered_send_allocates_nothing", || {
        let (_watcher, handle, log) = logged();
        let count = |turns: usize| {
            let before = allocations();
            for _ in 0..turns {
                handle.send();
                get_hub().run_once(None).unwrap();
            }
            allocations() - before
        };
        log.0.borrow_mut().reserve(1000);
        count(10);
        assert_eq!(count(100), 0);
        assert_eq!(log.len(), 110);
    });
}

#[test]
fn async_watchers_leave_no_descriptor_behind() {
    alone("async_watchers_leave_no_descriptor_behind", || {
        event_loop().timer(SHORT).wait(None).unwrap();
        let before = open_descriptors();
        for _ in 0..10 {
            let watchers: Vec<_> = (0..10).map(|_| logged()).collect();
            assert_eq!(open_descriptors(), before + added(), "one wake-up for all");
            watchers[3].1.send();
            sleep(SHORT);
        }
        assert_eq!(open_descriptors(), before);
    });
}

/// Returns the number of descriptors of a wake-up.
fn added() -> usize {
    if std::env::var_os("GREENHUB_WAKEUP").is_some_and(|kind| kind == "pipe") { 2 } else { 1 }
}

#[test]
fn sends_of_parent_and_child_wake_their_own_process_only() {
    in_child(|| {
        let (watcher, handle, log) = logged();
        sleep(SHORT);
        let child = forked(|| {
            handle.send(); // the loop of the child has not run yet
            settle();
            assert_eq!(log.len(), 1);
            (0..100).for_each(|_| handle.send());
            settle();
            assert_eq!(log.len(), 2);
        });
        for round in 1..=50 {
            handle.send();
            settle();
            assert_eq!(log.len(), round, "the child has taken none");
        }
        ends_well(child);
        let waits = get_hub().stats().waits;
        settle();
        assert!(get_hub().stats().waits - waits <= 3, "the child has left no wake-up");
        assert_eq!(log.len(), 50);
        drop(watcher);
    });
}

#[test]
fn a_send_before_a_fork_is_delivered_in_both_processes() {
    in_child(|| {
        let (_watcher, handle, log) = logged();
        sleep(SHORT);
        handle.send();
        let child = forked(|| {
            settle();
            assert_eq!(log.len(), 1);
        });
        ends_well(child);
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn an_async_watcher_of_a_replaced_hub_is_left_alone() {
    run("an_async_watcher_of_a_replaced_hub_is_left_alone", || {
        let (_watcher, handle, log) = logged();
        greenhub::use_hub(get_hub().name()).unwrap();
        send_from_outside(&handle);
        settle();
        assert_eq!(log.len(), 0);
        let (_watcher, handle, log) = logged();
        send_from_outside(&handle);
        settle();
        assert_eq!(log.len(), 1);
        let _timer = event_loop().timer(LONG);
    });
}
