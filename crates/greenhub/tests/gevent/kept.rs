//! Events that come while a wait for their watcher ends.

use std::io::{Read, Write, pipe};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use crate::files::put;
use crate::support::fork::{ends_well, forked};
use crate::support::web_server::Directory;
use crate::support::{alone, in_child, run};
use crate::{LONG, Log, SHORT};
use greenhub::gevent::{Async, Priority, WaitError, Waitable, Watcher, event_loop, iwait, killall, wait};
use greenhub::sync::Event;
use greenhub::thread::yield_now;
use greenhub::{GreenThread, Interest, get_hub, sleep, spawn, trampoline, with_timeout};
use nix::sys::signal::{Signal, raise};

const LIMIT: Duration = Duration::from_millis(20);

/// Returns the result of a wait with a limit, when `send` is called before the limit and the loop turns after it.
fn wait_past_the_limit<T: 'static>(wait: impl FnOnce() -> T + 'static, send: impl FnOnce()) -> T {
    let green = spawn(wait);
    yield_now();
    send();
    std::thread::sleep(2 * LIMIT);
    green.join().unwrap()
}

/// Asserts that an event in the turn of the limit ends the wait, in one of several rounds: the limit may elapse before
/// the event.
#[track_caller]
fn assert_comes_before_the_limit(mut round: impl FnMut() -> bool) {
    assert!((0..10).any(|_| round()));
}

/// Runs `f` at the point of the turn at which `watcher` is pending, before its event is delivered.
fn when_pending<W: Watcher + 'static>(watcher: &Rc<W>, f: impl FnOnce() + 'static) {
    let (check, watcher, mut f) = (event_loop().check(), Rc::clone(watcher), Some(f));
    check.set_priority(Priority::Highest).unwrap();
    check
        .start(move |_, ()| {
            if watcher.is_pending()
                && let Some(f) = f.take()
            {
                f();
            }
        })
        .unwrap();
    check.set_counted(false);
    spawn(move || {
        sleep(LONG);
        drop(check);
    });
}

/// Kills a green thread that waits, on the main loop.
fn kill<T>(green: &GreenThread<T>) {
    // The kill is done before the wait for the end, which is refused here.
    killall([green], None).unwrap_err();
}

fn waits_for(watcher: &Rc<Async>) -> GreenThread<Result<(), WaitError>> {
    let watcher = Rc::clone(watcher);
    let green = spawn(move || watcher.wait(None));
    yield_now();
    green
}

#[test]
fn a_send_in_the_turn_of_the_limit_ends_the_wait() {
    run("a_send_in_the_turn_of_the_limit_ends_the_wait", || {
        let watcher = Rc::new(event_loop().async_());
        assert_comes_before_the_limit(|| {
            let (waits, handle) = (Rc::clone(&watcher), watcher.handle());
            let first = wait_past_the_limit(move || waits.wait(LIMIT), || handle.send());
            // However the first wait has ended, the send is not lost.
            first.is_ok() || watcher.wait(None).is_err()
        });
    });
}

#[test]
fn a_send_in_the_turn_of_a_timeout_goes_to_the_next_wait() {
    run("a_send_in_the_turn_of_a_timeout_goes_to_the_next_wait", || {
        let watcher = Rc::new(event_loop().async_());
        let (waits, handle) = (Rc::clone(&watcher), watcher.handle());
        let first = wait_past_the_limit(move || with_timeout(LIMIT, || waits.wait(None)), || handle.send());
        if first.is_err() {
            watcher.wait(None).unwrap();
        }
    });
}

#[test]
fn a_send_that_a_killed_waiter_did_not_take_goes_to_the_next_wait() {
    run("a_send_that_a_killed_waiter_did_not_take_goes_to_the_next_wait", || {
        let watcher = Rc::new(event_loop().async_());
        let killed = Rc::new(waits_for(&watcher));
        let target = Rc::clone(&killed);
        when_pending(&watcher, move || kill(&target));
        watcher.handle().send();
        killed.wait_for_end().unwrap();
        assert!(watcher.is_pending() && !watcher.is_active());
        watcher.wait(None).unwrap();
        assert!(!watcher.is_pending());
    });
}

#[test]
fn a_kept_event_goes_to_the_next_callback_and_a_stop_drops_it() {
    run("a_kept_event_goes_to_the_next_callback_and_a_stop_drops_it", || {
        for is_stopped in [false, true] {
            let watcher = event_loop().async_();
            watcher.handle().send();
            drop(iwait([&watcher], None));
            assert!(watcher.is_pending());
            assert_eq!(event_loop().counts().pending, 1);
            if is_stopped {
                watcher.stop();
            }
            let log = Log::new();
            let calls = log.clone();
            watcher.start(move |_, ()| calls.push(())).unwrap();
            sleep(SHORT);
            assert_eq!(log.len(), usize::from(!is_stopped));
            assert_eq!(event_loop().counts().pending, 0);
        }
    });
}

#[test]
fn a_refused_wait_takes_no_send() {
    run("a_refused_wait_takes_no_send", || {
        let watcher = Rc::new(event_loop().async_());
        watcher.handle().send();
        let refused = Rc::clone(&watcher);
        let log = Log::new();
        let refusals = log.clone();
        event_loop().run_callback(move || refusals.push(refused.wait(None).is_err()));
        sleep(SHORT);
        assert_eq!(log.take(), [true]);
        watcher.wait(None).unwrap();
    });
}

#[test]
fn an_iterator_that_is_dropped_unused_takes_no_send() {
    run("an_iterator_that_is_dropped_unused_takes_no_send", || {
        let watcher = event_loop().async_();
        watcher.handle().send();
        drop(iwait([&watcher], None));
        watcher.wait(None).unwrap();
    });
}

#[test]
fn a_watcher_that_was_not_given_keeps_its_send() {
    run("a_watcher_that_was_not_given_keeps_its_send", || {
        let watchers = [event_loop().async_(), event_loop().async_()];
        watchers.iter().for_each(|watcher| watcher.handle().send());
        let first = wait(&watchers, None, 1).unwrap();
        let second = wait(&watchers, None, 1).unwrap();
        assert!(!std::ptr::eq(first[0], second[0]), "each of the two sends is given once");
        assert!(wait(&watchers, SHORT, 1).unwrap().is_empty());
    });
}

#[test]
fn a_killed_wait_for_several_watchers_keeps_their_sends() {
    run("a_killed_wait_for_several_watchers_keeps_their_sends", || {
        let watchers = Rc::new([event_loop().async_(), event_loop().async_()]);
        watchers.iter().for_each(|watcher| watcher.handle().send());
        let waits = Rc::clone(&watchers);
        let green = spawn(move || {
            let mut ready = iwait(&*waits, None);
            ready.next().unwrap().unwrap();
            sleep(LONG);
        });
        while watchers.iter().filter(|watcher| watcher.is_pending()).count() != 1 || watchers[0].is_active() {
            yield_now();
        }
        green.kill();
        let left: Vec<_> = watchers.iter().filter(|watcher| watcher.is_ready()).collect();
        assert_eq!(left.len(), 1, "one was given");
        left[0].wait(None).unwrap();
    });
}

#[test]
fn data_in_the_turn_of_the_limit_ends_the_wait() {
    run("data_in_the_turn_of_the_limit_ends_the_wait", || {
        let (reader, mut writer) = pipe().unwrap();
        let reader = Rc::new(reader);
        let io = Rc::new(event_loop().io(Rc::clone(&reader), Interest::READ).unwrap());
        for waits_for_several in [false, true] {
            assert_comes_before_the_limit(|| {
                let waits = Rc::clone(&io);
                let wait = move || match waits_for_several {
                    false => waits.wait(LIMIT).is_ok(),
                    true => wait([&*waits], LIMIT, None).unwrap().len() == 1,
                };
                let has_come = wait_past_the_limit(wait, || writer.write_all(b"x").unwrap());
                assert_eq!((&*reader).read(&mut [0; 8]).unwrap(), 1);
                has_come
            });
        }
    });
}

#[test]
fn a_signal_in_the_turn_of_the_limit_ends_the_wait() {
    alone("a_signal_in_the_turn_of_the_limit_ends_the_wait", || {
        let watcher = Rc::new(event_loop().signal(Signal::SIGUSR1 as i32).unwrap());
        watcher.set_counted(true);
        assert_comes_before_the_limit(|| {
            let waits = Rc::clone(&watcher);
            let first = wait_past_the_limit(move || waits.wait(LIMIT), || raise(Signal::SIGUSR1).unwrap());
            watcher.stop();
            first.is_ok()
        });
    });
}

#[test]
fn a_signal_that_a_killed_waiter_did_not_take_goes_to_the_next_wait() {
    alone("a_signal_that_a_killed_waiter_did_not_take_goes_to_the_next_wait", || {
        let watcher = Rc::new(event_loop().signal(Signal::SIGUSR1 as i32).unwrap());
        watcher.set_counted(true);
        let waits = Rc::clone(&watcher);
        let green = spawn(move || waits.wait(None));
        yield_now();
        raise(Signal::SIGUSR1).unwrap();
        green.kill();
        if green.join().is_err() {
            watcher.wait(None).unwrap();
        }
    });
}

#[test]
fn a_change_of_a_file_that_a_killed_waiter_did_not_take_goes_to_the_next_wait() {
    run("a_change_of_a_file_that_a_killed_waiter_did_not_take_goes_to_the_next_wait", || {
        let directory = Directory::new();
        let path = directory.path().join("watched");
        put(&directory, &path, 0);
        let watcher = Rc::new(event_loop().stat(&path, Duration::from_millis(100)));
        for size in 1..20 {
            let waits = Rc::clone(&watcher);
            let killed = Rc::new(spawn(move || waits.wait(None)));
            yield_now();
            let target = Rc::clone(&killed);
            when_pending(&watcher, move || kill(&target));
            put(&directory, &path, size);
            killed.wait_for_end().unwrap();
            assert!(watcher.is_pending() && !watcher.is_active());
            let change = watcher.wait(None).unwrap();
            let sizes = [change.prev, change.attr].map(|attr| attr.unwrap().len());
            assert_eq!(sizes, [size as u64 - 1, size as u64]);
        }
    });
}

#[test]
fn the_end_of_a_child_that_a_killed_waiter_did_not_take_goes_to_the_next_wait() {
    run("the_end_of_a_child_that_a_killed_waiter_did_not_take_goes_to_the_next_wait", || {
        #[expect(clippy::zombie_processes, reason = "the watcher under test reaps the process")]
        let mut process = Command::new("sh").args(["-c", "read _; exit 3"]).stdin(Stdio::piped()).spawn().unwrap();
        let child = Rc::new(event_loop().child(process.id()).unwrap());
        let waits = Rc::clone(&child);
        let killed = Rc::new(spawn(move || waits.wait(None)));
        yield_now();
        let target = Rc::clone(&killed);
        when_pending(&child, move || kill(&target));
        // The process ends only now, so that the wait does not find its end at once.
        drop(process.stdin.take());
        killed.wait_for_end().unwrap();
        assert_eq!(child.wait(None).unwrap().code(), Some(3));
    });
}

#[test]
fn a_fork_that_was_not_given_goes_to_the_next_wait() {
    in_child(|| {
        let (event, fork) = (Rc::new(Event::new()), Rc::new(event_loop().fork()));
        let (first, second) = (Rc::clone(&event), Rc::clone(&fork));
        let green = spawn(move || {
            let given = iwait([&*first as &dyn Waitable, &*second], None).next().unwrap().unwrap();
            assert!(std::ptr::addr_eq(given, &raw const *first));
        });
        yield_now();
        let child = forked(move || {
            event.send(()).unwrap();
            green.join().unwrap();
            fork.wait(LONG).unwrap();
        });
        ends_well(child);
    });
}

#[test]
fn a_wait_that_is_served_before_its_hub_ends_returns_the_event() {
    run("a_wait_that_is_served_before_its_hub_ends_returns_the_event", || {
        let watcher = Rc::new(event_loop().async_());
        let green = waits_for(&watcher);
        // The same wait wakes main, which runs before the event is delivered.
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        watcher.handle().send();
        trampoline(&reader, Interest::READ, None).unwrap();
        assert!(watcher.is_pending());
        greenhub::use_hub(get_hub().name()).unwrap();
        green.join().unwrap().unwrap();
    });
}
