//! A main loop whose turns another loop runs.

use std::cell::Cell;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use greenhub::greenlet::{Greenlet, Payload};
use greenhub::hub::{Embedded, LoopErrorKind};
use greenhub::sync::Event;
use greenhub::{GreenError, HubError, get_hub, sleep, spawn, use_hub_with};

use crate::support::descriptors::is_readable;
use crate::support::green::OnDrop;
use crate::support::hubs::default_hub;
use crate::support::{HANG, deadline, run};

/// A waker that counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn new() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (Arc::clone(&wakes), Waker::from(wakes))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs turns until none has anything to do.
fn settle(embedded: &mut Embedded, waker: &Waker) {
    while embedded.turn(waker).unwrap() {}
}

/// Runs turns until `done` returns true.
fn turn_until(embedded: &mut Embedded, done: impl Fn() -> bool) {
    let _deadline = deadline();
    while !done() {
        embedded.turn(Waker::noop()).unwrap();
    }
}

#[test]
fn turns_run_green_threads_that_block() {
    run("turns_run_green_threads_that_block", || {
        let mut embedded = get_hub().embed().unwrap();
        let green = spawn(|| {
            sleep(Duration::from_millis(5));
            7
        });
        turn_until(&mut embedded, || green.is_finished());
        drop(embedded);
        assert_eq!(green.join().unwrap(), 7);
    });
}

#[test]
fn a_wait_of_the_embedding_greenlet_is_refused() {
    run("a_wait_of_the_embedding_greenlet_is_refused", || {
        let embedded = get_hub().embed().unwrap();
        let green = spawn(|| ());
        let event = Event::<()>::new();
        let waited = event.wait().unwrap_err();
        assert!(matches!(&waited, GreenError::Loop(error) if error.kind() == LoopErrorKind::InMainloop), "{waited:?}");
        assert_eq!(get_hub().run_once(None).unwrap_err().kind(), LoopErrorKind::InMainloop);
        assert_eq!(get_hub().abort_wait().map_err(|error| error.kind()), Ok(()));
        assert_eq!(get_hub().shutdown(None).unwrap_err().kind(), LoopErrorKind::InMainloop);
        let slept = catch_unwind(AssertUnwindSafe(|| sleep(Duration::from_millis(1))));
        let message = *slept.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("do not call blocking functions from the main loop"), "{message}");
        drop(embedded);
        green.join().unwrap();
        sleep(Duration::from_millis(1));
    });
}

#[test]
fn a_sleep_of_zero_in_the_embedding_greenlet_does_nothing() {
    run("a_sleep_of_zero_in_the_embedding_greenlet_does_nothing", || {
        let _embedded = get_hub().embed().unwrap();
        let ran = Rc::new(Cell::new(false));
        let runs = Rc::clone(&ran);
        let _green = spawn(move || runs.set(true));
        sleep(Duration::ZERO);
        assert!(!ran.get());
    });
}

#[test]
fn a_kill_by_the_embedding_greenlet_takes_effect_in_the_next_turn() {
    run("a_kill_by_the_embedding_greenlet_takes_effect_in_the_next_turn", || {
        let mut embedded = get_hub().embed().unwrap();
        let dropped = Rc::new(Cell::new(false));
        let drops = Rc::clone(&dropped);
        let victim = spawn(move || {
            let _guard = OnDrop(move || drops.set(true));
            sleep(Duration::from_secs(3600));
        });
        settle(&mut embedded, Waker::noop());
        victim.kill();
        assert!(!dropped.get());
        turn_until(&mut embedded, || victim.is_finished());
        assert!(dropped.get());
    });
}

#[test]
fn the_drop_of_a_plain_greenlet_takes_effect_in_the_next_turn() {
    run("the_drop_of_a_plain_greenlet_takes_effect_in_the_next_turn", || {
        let main = Greenlet::current();
        let dropped = Rc::new(Cell::new(false));
        let drops = Rc::clone(&dropped);
        let plain = Greenlet::new(move |_| {
            let _guard = OnDrop(move || drops.set(true));
            main.switch(Payload::unit())
        });
        plain.switch(Payload::unit()).unwrap();
        let mut embedded = get_hub().embed().unwrap();
        drop(plain);
        assert!(!dropped.get());
        turn_until(&mut embedded, || dropped.get());
    });
}

#[test]
fn a_loop_is_embedded_once_and_by_the_main_greenlet() {
    run("a_loop_is_embedded_once_and_by_the_main_greenlet", || {
        let by_green_thread = spawn(|| get_hub().embed().map(drop).unwrap_err().kind()).join().unwrap();
        assert_eq!(by_green_thread, LoopErrorKind::InMainloop);
        let embedded = get_hub().embed().unwrap();
        let second = get_hub().embed().map(drop).unwrap_err();
        assert_eq!(
            (second.kind(), second.to_string().as_str()),
            (LoopErrorKind::Embedded, "the main greenlet embeds the loop already")
        );
        drop(embedded);
        drop(get_hub().embed().unwrap());
    });
}

#[test]
fn the_hub_of_an_embedded_loop_stays() {
    run("the_hub_of_an_embedded_loop_stays", || {
        let mut embedded = get_hub().embed().unwrap();
        let id = get_hub().id();
        assert!(matches!(use_hub_with(default_hub), Err(HubError::Embedded)));
        let green = spawn(|| matches!(use_hub_with(default_hub), Err(HubError::Embedded)));
        turn_until(&mut embedded, || green.is_finished());
        assert_eq!(get_hub().id(), id);
        drop(embedded);
        assert!(green.join().unwrap());
        use_hub_with(default_hub).unwrap();
    });
}

#[test]
fn a_green_thread_that_becomes_ready_between_turns_wakes_the_waker_once() {
    run("a_green_thread_that_becomes_ready_between_turns_wakes_the_waker_once", || {
        let mut embedded = get_hub().embed().unwrap();
        let (wakes, waker) = Wakes::new();
        settle(&mut embedded, &waker);
        assert_eq!(wakes.count(), 0);
        let greens = [spawn(|| ()), spawn(|| ())];
        assert_eq!(wakes.count(), 1);
        settle(&mut embedded, &waker);
        assert!(greens.iter().all(|green| green.is_finished()));
        assert_eq!(wakes.count(), 1);
        let _green = spawn(|| ());
        assert_eq!(wakes.count(), 2);
    });
}

#[test]
fn a_new_deadline_wakes_the_waker() {
    run("a_new_deadline_wakes_the_waker", || {
        let mut embedded = get_hub().embed().unwrap();
        let (wakes, waker) = Wakes::new();
        settle(&mut embedded, &waker);
        assert_eq!(embedded.next_deadline(), None);
        let _timer = get_hub().schedule_once(Duration::from_secs(3600), || ());
        assert_eq!(wakes.count(), 1);
        assert!(embedded.next_deadline() > Some(get_hub().now() + Duration::from_secs(3000)));
        settle(&mut embedded, &waker);
        let _green = greenhub::spawn_after(Duration::from_secs(60), || ());
        assert_eq!(wakes.count(), 2);
        assert!(embedded.next_deadline() < Some(get_hub().now() + Duration::from_secs(3000)));
    });
}

#[test]
fn an_abort_wakes_the_waker_and_ends_the_next_turn() {
    run("an_abort_wakes_the_waker_and_ends_the_next_turn", || {
        let mut embedded = get_hub().embed().unwrap();
        let (wakes, waker) = Wakes::new();
        settle(&mut embedded, &waker);
        get_hub().abort();
        assert_eq!(wakes.count(), 1);
        let ended = embedded.turn(&waker).unwrap_err();
        assert_eq!(ended.kind(), LoopErrorKind::Aborted);
        // The next turn launches a new loop.
        let green = spawn(|| ());
        turn_until(&mut embedded, || green.is_finished());
    });
}

#[test]
fn an_embedded_loop_with_nothing_left_does_not_end() {
    run("an_embedded_loop_with_nothing_left_does_not_end", || {
        let mut embedded = get_hub().embed().unwrap();
        let event = Rc::new(Event::<u32>::new());
        let waited = Rc::clone(&event);
        let green = spawn(move || waited.wait().unwrap());
        for _ in 0..3 {
            settle(&mut embedded, Waker::noop());
        }
        event.send(7).unwrap();
        turn_until(&mut embedded, || green.is_finished());
        drop(embedded);
        assert_eq!(green.join().unwrap(), 7);
    });
}

#[test]
fn the_pollable_descriptor_reports_what_a_turn_would_find() {
    run("the_pollable_descriptor_reports_what_a_turn_would_find", || {
        let mut embedded = get_hub().embed().unwrap();
        let pollable = match embedded.pollable() {
            Ok(pollable) => pollable,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                return assert!(error.to_string().contains(get_hub().name()), "{error}");
            }
        };
        for _ in 0..3 {
            settle(&mut embedded, Waker::noop());
            assert!(!is_readable(pollable.as_raw_fd(), Duration::ZERO));
            let remote = get_hub().remote();
            std::thread::spawn(move || remote.spawn(|| ()).unwrap());
            assert!(is_readable(pollable.as_raw_fd(), HANG));
        }
    });
}
