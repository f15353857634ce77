//! Waits that any thread can end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::fork::{exits_with, forked};
use crate::support::green::{LONG, SHORT, held, keep_reports, pipe};
use crate::support::hubs::{Tap, Wait, Watch, use_manual_clock, use_tapped_hub};
use crate::support::{in_child, run};
use greenhub::future::block_on;
use greenhub::hub::{Hub, LoopError, LoopErrorKind};
use greenhub::park::{Deadline, Parked, Parker, Unparker, WaitReason};
use greenhub::thread::yield_now;
use greenhub::{
    GreenThread, Interest, TrampolineError, get_hub, scope, sleep, spawn, trampoline, use_hub, with_timeout,
};

/// Parks until `done` returns true; passes the unparker of each park to `publish`.
fn park_until(done: impl Fn() -> bool, publish: impl Fn(Unparker)) -> Result<(), LoopError> {
    while !done() {
        let parker = Parker::new(WaitReason::Event)?;
        publish(parker.unparker());
        parker.park(&mut Deadline::none())?;
    }
    Ok(())
}

#[test]
fn a_green_thread_is_unparked_by_another() {
    run("a_green_thread_is_unparked_by_another", || {
        let slot: Rc<Cell<Option<Unparker>>> = Rc::default();
        let own_slot = slot.clone();
        let waiting = spawn(move || {
            let parker = Parker::new(WaitReason::Event).unwrap();
            own_slot.set(Some(parker.unparker()));
            parker.park(&mut Deadline::none()).unwrap()
        });
        yield_now();
        let unparker = slot.take().unwrap();
        unparker.unpark();
        assert!(!waiting.is_finished(), "a wake-up has switched");
        assert_eq!(waiting.join().unwrap(), Parked::Unparked);
        // A stale unparker does not affect a later wait.
        let parker = Parker::new(WaitReason::Event).unwrap();
        unparker.unpark();
        assert_eq!(parker.park(&mut Deadline::from(Some(SHORT))).unwrap(), Parked::TimedOut);
    });
}

#[test]
fn an_unpark_before_the_park_is_not_lost() {
    run("an_unpark_before_the_park_is_not_lost", || {
        yield_now();
        let parker = Parker::new(WaitReason::Event).unwrap();
        parker.unparker().unpark();
        assert_eq!(parker.park(&mut Deadline::none()).unwrap(), Parked::Unparked);
        let parker = Parker::new(WaitReason::Event).unwrap();
        let unparker = parker.unparker();
        std::thread::spawn(move || unparker.unpark()).join().unwrap();
        assert_eq!(parker.park(&mut Deadline::from(Some(LONG))).unwrap(), Parked::Unparked);
    });
}

#[test]
fn an_unparker_of_an_unstarted_wait_ends_no_later_wait() {
    let left_behind = || drop_after(Parker::new(WaitReason::Event).unwrap(), Parker::unparker);
    run("an_unparker_of_an_unstarted_wait_ends_no_later_wait", move || {
        yield_now();
        let unparker = left_behind();
        let parker = Parker::new(WaitReason::Event).unwrap();
        unparker.unpark();
        assert_eq!(parker.park(&mut Deadline::from(Some(SHORT))).unwrap(), Parked::TimedOut);
        let unparker = left_behind();
        spawn(move || unparker.unpark());
        let begin = Instant::now();
        sleep(SHORT);
        assert!(begin.elapsed() >= SHORT, "a stale unparker ended a sleep");
    });
    let plain = std::thread::spawn(move || {
        let unparker = left_behind();
        let parker = Parker::new(WaitReason::Event).unwrap();
        unparker.unpark();
        assert_eq!(parker.park(&mut Deadline::from(Some(SHORT))).unwrap(), Parked::TimedOut);
    });
    plain.join().unwrap();
}

#[test]
fn a_stale_unparker_ends_no_later_wait_of_an_os_thread() {
    let plain = std::thread::spawn(move || {
        let is_late =
            |parker: Parker| assert_eq!(parker.park(&mut Deadline::from(Some(SHORT))).unwrap(), Parked::TimedOut);
        let late = Parker::new(WaitReason::Event).unwrap();
        let stale = late.unparker();
        is_late(late);
        let next = Parker::new(WaitReason::Event).unwrap();
        stale.unpark();
        is_late(next);
        let forgotten = Parker::new(WaitReason::Event).unwrap();
        let stale = forgotten.unparker();
        std::mem::forget(forgotten);
        let next = Parker::new(WaitReason::Event).unwrap();
        stale.unpark();
        is_late(next);
    });
    plain.join().unwrap();
}

#[test]
fn unparking_a_waiter_abandoned_by_a_shutdown_returns_false() {
    run("unparking_a_waiter_abandoned_by_a_shutdown_returns_false", || {
        keep_reports();
        let unparkers: Rc<RefCell<Vec<Unparker>>> = Rc::default();
        let own_unparkers = unparkers.clone();
        // A wait for a lock defers the exit, so the green thread stays alive.
        let _waiting = spawn(move || {
            loop {
                let parker = Parker::new(WaitReason::Lock).unwrap();
                own_unparkers.borrow_mut().push(parker.unparker());
                parker.park_deferring_exit(&mut Deadline::none()).unwrap();
            }
        });
        sleep(SHORT);
        assert_eq!(get_hub().shutdown(Some(SHORT)).unwrap().abandoned, 1);
        for unparker in unparkers.take() {
            assert!(!std::thread::spawn(move || unparker.try_unpark()).join().unwrap());
            assert!(!unparker.try_unpark());
        }
    });
}

#[test]
fn unparking_an_earlier_wait_of_an_abandoned_waiter_returns_false() {
    run("unparking_an_earlier_wait_of_an_abandoned_waiter_returns_false", || {
        keep_reports();
        let unparker: Rc<Cell<Option<Unparker>>> = Rc::default();
        let own_unparker = unparker.clone();
        let _refusing = spawn(move || {
            let parker = Parker::new(WaitReason::Event).unwrap();
            own_unparker.set(Some(parker.unparker()));
            // The shutdown ends this wait. The next one goes on when the green thread has refused to exit.
            parker.park_deferring_exit(&mut Deadline::none()).unwrap();
            loop {
                let _ = catch_unwind(|| sleep(LONG));
            }
        });
        sleep(SHORT);
        assert_eq!(get_hub().shutdown(None).unwrap().abandoned, 1);
        let unparker = unparker.take().unwrap();
        assert!(!std::thread::spawn(move || unparker.try_unpark()).join().unwrap());
        assert!(!unparker.try_unpark());
    });
}

#[test]
fn a_wait_is_refused_while_a_green_thread_panics() {
    struct Waits;
    impl Drop for Waits {
        fn drop(&mut self) {
            let refused = Parker::new(WaitReason::Event).map(drop).unwrap_err();
            assert!(refused.kind() == LoopErrorKind::Panicking, "{refused:?}");
        }
    }
    run("a_wait_is_refused_while_a_green_thread_panics", || {
        keep_reports();
        let panics = spawn(|| {
            let _waits = Waits;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(panics.join().unwrap_err().to_string().contains("on purpose"));
    });
}

/// Queries a value, then drops it.
fn drop_after<T, R>(one: T, ask: impl FnOnce(&T) -> R) -> R {
    ask(&one)
}

#[test]
fn a_new_wait_supersedes_an_earlier_wait() {
    run("a_new_wait_supersedes_an_earlier_wait", || {
        yield_now();
        let first = Parker::new(WaitReason::Event).unwrap();
        let second = Parker::new(WaitReason::Event).unwrap();
        first.unparker().unpark();
        assert_eq!(second.park(&mut Deadline::from(Some(SHORT))).unwrap(), Parked::TimedOut);
    });
}

#[test]
fn a_run_once_that_timed_out_ends_no_later_wait() {
    run("a_run_once_that_timed_out_ends_no_later_wait", || {
        let given_up = with_timeout(SHORT, || get_hub().run_once(None));
        assert!(given_up.is_err());
        let parker = Parker::new(WaitReason::Event).unwrap();
        assert_eq!(parker.park(&mut Deadline::from(Some(SHORT))).unwrap(), Parked::TimedOut);
    });
}

#[test]
fn parking_for_another_green_thread_is_refused() {
    run("parking_for_another_green_thread_is_refused", || {
        keep_reports();
        yield_now();
        let parker = Parker::new(WaitReason::Event).unwrap();
        let other = spawn(move || parker.park(&mut Deadline::from(Some(SHORT))));
        let error = other.join().unwrap_err();
        assert!(error.to_string().contains("a wait that another greenlet has made"), "{error}");
        sleep(SHORT);
    });
}

#[test]
fn a_wait_may_outlive_its_hub_in_an_ending_thread() {
    /// Parks in a destructor that runs after the thread's green threads are gone.
    struct Last(Option<Parker>, mpsc::Sender<(Unparker, Result<Parked, String>)>);
    impl Drop for Last {
        fn drop(&mut self) {
            let parker = self.0.take().unwrap();
            let unparker = parker.unparker();
            let parked = parker.park(&mut Deadline::none()).map_err(|error| error.to_string());
            self.1.send((unparker, parked)).unwrap();
        }
    }
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    let (sender, results) = mpsc::channel();
    let ending = std::thread::spawn(move || {
        // Destructors run in reverse order of initialization, so this one runs after the hub's.
        LAST.with(|last| assert!(last.borrow().is_none()));
        yield_now();
        let parker = Parker::new(WaitReason::Event).unwrap();
        let unparker = parker.unparker();
        LAST.set(Some(Last(Some(parker), sender)));
        unparker
    });
    let unparker = ending.join().unwrap();
    let ending = LoopErrorKind::ThreadEnding.to_string();
    assert_eq!(results.recv().unwrap(), (unparker, Err(ending)));
}

#[test]
fn other_os_threads_unpark_a_sleeping_hub() {
    run("other_os_threads_unpark_a_sleeping_hub", || {
        yield_now();
        let (sender, receiver) = mpsc::channel::<Unparker>();
        let other = std::thread::spawn(move || {
            for unparker in receiver {
                std::thread::sleep(Duration::from_millis(1));
                unparker.unpark();
            }
        });
        for _ in 0..20 {
            let parker = Parker::new(WaitReason::Event).unwrap();
            sender.send(parker.unparker()).unwrap();
            assert_eq!(parker.park(&mut Deadline::from(Some(LONG))).unwrap(), Parked::Unparked);
        }
        drop(sender);
        other.join().unwrap();
    });
}

#[test]
fn an_os_thread_without_green_threads_blocks_itself() {
    let (sender, receiver) = mpsc::channel::<Unparker>();
    let plain = std::thread::spawn(move || {
        for _ in 0..100 {
            let parker = Parker::new(WaitReason::Event).unwrap();
            sender.send(parker.unparker()).unwrap();
            assert_eq!(parker.park(&mut Deadline::none()).unwrap(), Parked::Unparked);
        }
        assert!(!greenhub::hub::has_hub());
        let parker = Parker::new(WaitReason::Event).unwrap();
        let begin = Instant::now();
        assert_eq!(parker.park(&mut Deadline::from(Some(SHORT))).unwrap(), Parked::TimedOut);
        assert!(begin.elapsed() >= SHORT);
    });
    run("an_os_thread_without_green_threads_blocks_itself", move || {
        for unparker in receiver {
            unparker.unpark();
        }
    });
    plain.join().unwrap();
}

#[test]
fn a_limit_counts_over_several_parks() {
    run("a_limit_counts_over_several_parks", || {
        use_manual_clock();
        let slot: Rc<Cell<Option<Unparker>>> = Rc::default();
        let own_slot = slot.clone();
        let waking = spawn(move || {
            loop {
                sleep(SHORT);
                if let Some(unparker) = own_slot.take() {
                    unparker.unpark();
                }
            }
        });
        let hub = get_hub();
        let (begin, mut limit, mut parks) = (hub.now(), Deadline::from(Some(SHORT * 10)), 0);
        loop {
            let parker = Parker::new(WaitReason::Event).unwrap();
            slot.set(Some(parker.unparker()));
            parks += 1;
            if parker.park(&mut limit).unwrap() == Parked::TimedOut {
                break;
            }
        }
        assert!(hub.now() >= begin + SHORT * 10);
        assert!((2..=11).contains(&parks), "{parks}");
        waking.kill();
    });
}

#[test]
fn a_kill_or_a_timeout_ends_a_wait_and_leaves_nothing() {
    run("a_kill_or_a_timeout_ends_a_wait_and_leaves_nothing", || {
        let before = held();
        let waiting = spawn(|| {
            let parker = Parker::new(WaitReason::Queue).unwrap();
            parker.park(&mut Deadline::from(Some(LONG))).unwrap()
        });
        yield_now();
        waiting.kill();
        assert!(waiting.join().unwrap_err().is_kill());
        let timed = with_timeout(SHORT, || Parker::new(WaitReason::Queue).unwrap().park(&mut Deadline::none()));
        assert!(timed.is_err());
        assert_eq!(held(), before);
    });
}

#[test]
fn a_wait_in_the_main_loop_is_refused() {
    run("a_wait_in_the_main_loop_is_refused", || {
        let refused = Rc::new(Cell::new(None));
        let own_refused = refused.clone();
        let _timer =
            greenhub::get_hub().schedule(Duration::ZERO, move || own_refused.set(Parker::new(WaitReason::Lock).err()));
        sleep(SHORT);
        let error = refused.take().expect("the wait was refused");
        assert!(error.kind() == LoopErrorKind::InMainloop, "{error}");
    });
}

#[test]
fn an_unparker_outlives_its_thread() {
    let unparker = run("an_unparker_outlives_its_thread", || {
        yield_now();
        let parker = Parker::new(WaitReason::Event).unwrap();
        parker.unparker()
    });
    unparker.unpark();
    let plain = std::thread::spawn(|| Parker::new(WaitReason::Event).unwrap().unparker()).join().unwrap();
    plain.unpark();
}

#[test]
fn a_wait_outlives_the_hub() {
    run("a_wait_outlives_the_hub", || {
        let (sender, receiver) = mpsc::channel::<Unparker>();
        let waiting = spawn(move || {
            let parker = Parker::new(WaitReason::Event).unwrap();
            sender.send(parker.unparker()).unwrap();
            parker.park(&mut Deadline::none()).unwrap()
        });
        yield_now();
        use_hub(None).unwrap();
        let unparker = receiver.recv().unwrap();
        let other = std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            unparker.unpark();
        });
        assert_eq!(waiting.join().unwrap(), Parked::Unparked);
        other.join().unwrap();
    });
}

#[test]
fn a_loop_with_remote_wakers_keeps_waiting_and_reports_once() {
    let test = "a_loop_with_remote_wakers_keeps_waiting_and_reports_once";
    if !support::is_child() {
        let output = support::rerun(test, |_| ());
        return assert!(output.status.success(), "{output:?}");
    }
    let (sender, reports) = mpsc::channel();
    greenhub::debug::set_report_stream(move |report| sender.send(report.to_string()).unwrap());
    greenhub::debug::set_quiet_time(Some(SHORT));
    run(test, || {
        yield_now();
        let parker = Parker::new(WaitReason::Semaphore).unwrap();
        let unparker = parker.unparker();
        let other = std::thread::spawn(move || {
            let first = reports.recv().unwrap();
            std::thread::sleep(SHORT * 10);
            unparker.unpark();
            (first, reports)
        });
        assert_eq!(parker.park(&mut Deadline::none()).unwrap(), Parked::Unparked);
        let (first, reports) = other.join().unwrap();
        assert!(first.contains("waiting for a semaphore"), "{first}");
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), [""; 0]);
    });
}

#[test]
fn waits_and_wake_ups_of_many_threads_lose_nothing() {
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    run("waits_and_wake_ups_of_many_threads_lose_nothing", || {
        let (sender, receiver) = mpsc::channel::<(Unparker, std::sync::Arc<AtomicUsize>)>();
        let waker = std::thread::spawn(move || {
            for (unparker, state) in receiver {
                state.fetch_add(1, Ordering::SeqCst);
                unparker.unpark();
            }
        });
        let hubs: Vec<_> = (0..3)
            .map(|hub| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let work = move || {
                        for _ in 0..200 {
                            let state = std::sync::Arc::new(AtomicUsize::new(0));
                            let seen = state.clone();
                            let publish = |unparker| sender.send((unparker, state.clone())).unwrap();
                            park_until(|| seen.load(Ordering::SeqCst) != 0, publish).unwrap();
                            SERVED.fetch_add(1, Ordering::SeqCst);
                        }
                    };
                    // The first OS thread has no green threads.
                    if hub == 0 {
                        return work();
                    }
                    let all: Vec<_> = (0..4).map(|_| spawn(work.clone())).collect();
                    all.into_iter().for_each(|one| one.join().unwrap());
                })
            })
            .collect();
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
        drop(sender);
        waker.join().unwrap();
    });
    assert_eq!(SERVED.load(Ordering::SeqCst), 200 * 9);
}

#[test]
fn unparks_from_other_threads_of_a_forked_child_reach_its_loop() {
    in_child(|| {
        let slot: Rc<Cell<Option<Unparker>>> = Rc::default();
        let own_slot = slot.clone();
        let waiting = spawn(move || {
            let parker = Parker::new(WaitReason::Event).unwrap();
            own_slot.set(Some(parker.unparker()));
            parker.park(&mut Deadline::none()).unwrap()
        });
        let waiting = Cell::new(Some(waiting));
        sleep(SHORT);
        let unparker = slot.take().unwrap();
        let child = forked(|| {
            // The loop has not noticed the fork yet, and no other thread of the child has used the library.
            let from = unparker;
            std::thread::spawn(move || from.unpark()).join().unwrap();
            let other = || Parker::new(WaitReason::Event).unwrap().park(&mut Deadline::from(Some(SHORT)));
            std::thread::spawn(other).join().unwrap().unwrap();
            let woken = with_timeout(Duration::from_secs(60), || waiting.take().unwrap().join());
            assert_eq!(woken.unwrap().unwrap(), Parked::Unparked);
        });
        exits_with(child, 0);
        unparker.unpark();
        assert_eq!(waiting.take().unwrap().join().unwrap(), Parked::Unparked);
    });
}

#[test]
fn a_wait_of_an_os_thread_keeps_the_std_unpark_token() {
    run("a_wait_of_an_os_thread_keeps_the_std_unpark_token", || {
        let mutex = std::sync::Arc::new(greenhub::sync::Mutex::new(()));
        let guard = mutex.lock().unwrap();
        let waiting = mutex.clone();
        let plain = std::thread::spawn(move || {
            drop(waiting.lock());
            // As with std's mutex, the token set by `unpark` is still available.
            let begin = Instant::now();
            std::thread::park_timeout(Duration::from_secs(60));
            begin.elapsed()
        });
        std::thread::sleep(SHORT * 4);
        plain.thread().unpark();
        std::thread::sleep(SHORT * 4);
        drop(guard);
        assert!(plain.join().unwrap() < Duration::from_secs(30));
    });
}

/// Begins a wait, forgets its parker, and returns its unparker.
fn forget_parker() -> Unparker {
    let parker = Parker::new(WaitReason::Event).unwrap();
    let unparker = parker.unparker();
    std::mem::forget(parker);
    unparker
}

/// Runs `wait` in a green thread that has forgotten a parker, and unparks that parker during `wait`.
fn unpark_forgotten<T: 'static>(wait: impl FnOnce() -> T + 'static) -> GreenThread<T> {
    let slot: Rc<Cell<Option<Unparker>>> = Rc::default();
    let own_slot = Rc::clone(&slot);
    let waiting = spawn(move || {
        own_slot.set(Some(forget_parker()));
        wait()
    });
    yield_now();
    yield_now();
    slot.take().unwrap().unpark();
    waiting
}

#[test]
fn a_forgotten_parker_ends_no_sleep() {
    run("a_forgotten_parker_ends_no_sleep", || {
        let slept = unpark_forgotten(|| {
            let begin = Instant::now();
            sleep(SHORT);
            begin.elapsed()
        });
        assert!(slept.join().unwrap() >= SHORT, "a stale unparker ended a sleep");
        // The same in the main greenlet.
        let unparker = forget_parker();
        spawn(move || unparker.unpark());
        let begin = Instant::now();
        sleep(SHORT);
        assert!(begin.elapsed() >= SHORT, "a stale unparker ended a sleep of the main greenlet");
    });
}

#[test]
fn a_forgotten_parker_ends_no_wait_for_a_descriptor() {
    run("a_forgotten_parker_ends_no_wait_for_a_descriptor", || {
        let (reader, _writer) = pipe();
        let waited = unpark_forgotten(move || trampoline(&reader, Interest::READ, SHORT).map(drop));
        let waited = waited.join().unwrap();
        assert!(matches!(waited, Err(TrampolineError::TimedOut { .. })), "{waited:?}");
    });
}

#[test]
fn a_forgotten_parker_ends_no_wait_of_a_scope() {
    run("a_forgotten_parker_ends_no_wait_of_a_scope", || {
        let ended = unpark_forgotten(|| {
            let ended = Cell::new(false);
            scope(|s| {
                s.spawn(|| {
                    sleep(SHORT);
                    ended.set(true);
                });
            });
            ended.get()
        });
        assert!(ended.join().unwrap(), "a stale unparker made a scope kill its child");
    });
}

#[test]
fn a_yield_between_new_and_park_keeps_the_parker() {
    run("a_yield_between_new_and_park_keeps_the_parker", || {
        let parker = Parker::new(WaitReason::Event).unwrap();
        yield_now();
        assert_eq!(parker.park(&mut Deadline::from(Some(SHORT))).unwrap(), Parked::TimedOut);
    });
}

/// A hub that begins and forgets a park of the caller when it begins to watch `fd`, if `armed`.
struct ForgetsParkers {
    armed: Rc<Cell<bool>>,
    lent: Rc<Cell<Option<i32>>>,
}

impl Tap for ForgetsParkers {
    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> io::Result<()> {
        if self.armed.take() {
            forget_parker();
        }
        call.forward(hub)
    }
    fn wait(&mut self, hub: &mut dyn Hub, call: Wait<'_>) -> io::Result<()> {
        if let Some(fd) = self.lent.get() {
            assert!(call.watched.iter().all(|(key, ..)| key.fd() != fd), "a waiter stayed in the table");
        }
        call.forward(hub)
    }
}

#[test]
fn a_park_that_a_hub_begins_in_watch_leaves_no_waiter_behind() {
    run("a_park_that_a_hub_begins_in_watch_leaves_no_waiter_behind", || {
        let (armed, lent) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(None)));
        let tap = ForgetsParkers { armed: Rc::clone(&armed), lent: Rc::clone(&lent) };
        use_tapped_hub(tap);
        let waiting = spawn(move || {
            let (reader, mut writer) = pipe();
            Parker::new(WaitReason::Event).map(drop).unwrap();
            writer.write_all(b"x").unwrap();
            // This wait ends by a report, which the next one must not take for its own.
            trampoline(&reader, Interest::READ, None).unwrap();
            let (other, _writer) = pipe();
            armed.set(true);
            let waited = trampoline(&other, Interest::READ, None);
            assert!(!armed.get(), "the hub was not asked to watch");
            assert!(matches!(waited, Err(TrampolineError::Loop(_))), "{waited:?}");
            lent.set(Some(other.as_raw_fd()));
            sleep(SHORT);
        });
        waiting.join().unwrap();
    });
}

#[test]
fn a_parker_does_not_park_in_a_poll() {
    run("a_parker_does_not_park_in_a_poll", || {
        let in_a_poll = || {
            let ran = Rc::new(Cell::new(false));
            let other = ran.clone();
            let other = spawn(move || other.set(true));
            let parker = Cell::new(Some(Parker::new(WaitReason::Event).unwrap()));
            let parked = block_on(poll_fn(|_| {
                let parked = parker.take().unwrap().park(&mut Deadline::from(Some(SHORT)));
                assert!(!ran.get(), "another green thread ran inside a poll");
                Poll::Ready(parked)
            }));
            assert_eq!(parked.unwrap_err().kind(), LoopErrorKind::InPoll);
            other.join().unwrap();
        };
        in_a_poll();
        spawn(in_a_poll).join().unwrap();
    });
}

#[test]
fn a_parker_does_not_park_between_two_turns() {
    run("a_parker_does_not_park_between_two_turns", || {
        sleep(Duration::ZERO);
        let parker = Parker::new(WaitReason::Event).unwrap();
        let embedded = get_hub().embed().unwrap();
        let parked = parker.park(&mut Deadline::from(Some(SHORT)));
        assert_eq!(parked.unwrap_err().kind(), LoopErrorKind::InMainloop);
        drop(embedded);
        assert_eq!(
            Parker::new(WaitReason::Event).unwrap().park(&mut Deadline::from(Some(SHORT))).unwrap(),
            Parked::TimedOut
        );
    });
}

#[test]
fn a_stale_parker_leaves_the_ticket_of_a_forgotten_one_to_no_other_wait() {
    run("a_stale_parker_leaves_the_ticket_of_a_forgotten_one_to_no_other_wait", || {
        let body = || {
            let first = Parker::new(WaitReason::Event).unwrap();
            let second = Parker::new(WaitReason::Event).unwrap();
            let unparker = second.unparker();
            std::mem::forget(second);
            // The second parker has retired the ticket of the first.
            assert_eq!(first.park(&mut Deadline::none()).unwrap(), Parked::Unparked);
            greenhub::spawn_n(move || unparker.unpark());
            let began = greenhub::get_hub().now();
            greenhub::sleep(Duration::from_millis(20));
            assert!(greenhub::get_hub().now() - began >= Duration::from_millis(20), "another wait was ended");
        };
        body();
        greenhub::spawn(body).join().unwrap();
    });
}
