//! A main loop whose turns another loop runs.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use greenhub::greenlet::{Greenlet, Payload};
use greenhub::hub::{Embedded, Hub, HubError, LoopErrorKind, Readiness, Time};
use greenhub::os::unix::net::UnixStream;
use greenhub::sync::Event;
use greenhub::{GreenError, Interest, get_hub, sleep, spawn, use_hub_with, with_timeout};

use crate::support::descriptors::is_readable;
use crate::support::fork::{exit_after, exits_with, fork_here};
use crate::support::green::{OnDrop, quiet_panic};
use crate::support::hubs::{Tap, Watch, default_hub, use_tapped_hub};
use crate::support::{HANG, deadline, in_child, run};

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
fn an_embedding_that_is_leaked_does_not_prevent_the_end_of_its_thread() {
    run("an_embedding_that_is_leaked_does_not_prevent_the_end_of_its_thread", || {
        let unwound = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&unwound);
        let thread = greenhub::thread::os::spawn(move || {
            let guarded = spawn(move || {
                let _guard = OnDrop(move || _ = count.fetch_add(1, Ordering::Relaxed));
                sleep(HANG);
            });
            sleep(Duration::ZERO);
            assert!(!guarded.is_finished());
            std::mem::forget(get_hub().embed().unwrap());
        });
        thread.join().unwrap();
        assert_eq!(unwound.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn the_end_of_a_closure_in_a_green_thread_leaves_the_embedding_of_main() {
    run("the_end_of_a_closure_in_a_green_thread_leaves_the_embedding_of_main", || {
        let proceed: Rc<Event<()>> = Rc::default();
        let waits = Rc::clone(&proceed);
        let green = spawn(move || greenhub::thread::os::run_and_shutdown(None, || waits.wait().is_ok()));
        sleep(Duration::ZERO);
        let mut embedded = get_hub().embed().unwrap();
        proceed.send(()).unwrap();
        turn_until(&mut embedded, || green.is_finished());
        let refused = get_hub().run_once(None).unwrap_err();
        assert_eq!(refused.kind(), LoopErrorKind::InMainloop, "the embedding goes on");
        drop(embedded);
    });
}

#[test]
fn an_embedding_that_has_ended_runs_no_turn_and_ends_no_later_one() {
    run("an_embedding_that_has_ended_runs_no_turn_and_ends_no_later_one", || {
        let thread = std::thread::spawn(|| {
            let escaped = Rc::new(RefCell::new(None));
            let slot = Rc::clone(&escaped);
            greenhub::thread::os::run_and_shutdown(None, move || {
                slot.replace(Some(get_hub().embed().unwrap()));
            });
            let mut stale = escaped.take().unwrap();
            stale.turn(Waker::noop()).unwrap_err().kind()
        });
        assert_eq!(thread.join().unwrap(), LoopErrorKind::EmbedRefused);
    });
}

#[test]
fn a_job_leaves_neither_an_embedding_nor_an_interrupt_to_the_next_one() {
    run("a_job_leaves_neither_an_embedding_nor_an_interrupt_to_the_next_one", || {
        let pool = greenhub::tpool::Pool::new(1);
        pool.execute(|| std::mem::forget(get_hub().embed().unwrap())).unwrap();
        let green = || spawn(|| sleep(Duration::from_millis(1))).join().is_ok();
        assert!(pool.execute(green).unwrap());
        pool.execute(|| get_hub().interrupt()).unwrap();
        assert!(pool.execute(green).unwrap());
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
fn a_waker_that_a_close_wakes_may_schedule_a_callback() {
    thread_local!(static RAN: Cell<u32> = const { Cell::new(0) });
    struct Schedules;
    impl Wake for Schedules {
        fn wake(self: Arc<Self>) {
            get_hub().schedule(Duration::ZERO, || RAN.set(RAN.get() + 1));
        }
    }
    run("a_waker_that_a_close_wakes_may_schedule_a_callback", || {
        RAN.set(0);
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let number = reader.as_raw_fd();
        let _listener = get_hub().listen(Rc::new(reader), Interest::READ, |_: Readiness| ()).expect("a pipe");
        let mut embedded = get_hub().embed().expect("the main greenlet");
        settle(&mut embedded, &Waker::from(Arc::new(Schedules)));
        greenhub::park::notify_close(number);
        settle(&mut embedded, Waker::noop());
        assert_eq!(RAN.get(), 1);
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

thread_local! {
    static EMBEDDED: RefCell<Option<Embedded>> = const { RefCell::new(None) };
    static ON_WAKE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

/// A waker that runs code of the test, once.
struct Runs;

impl Wake for Runs {
    fn wake(self: Arc<Self>) {
        if let Some(run) = ON_WAKE.take() {
            run();
        }
    }
}

/// Embeds the loop, and runs `on_wake` inside the waker when a green thread becomes ready between two turns.
fn wake_between_turns(on_wake: impl FnOnce() + 'static) {
    let mut embedded = get_hub().embed().unwrap();
    settle(&mut embedded, &Waker::from(Arc::new(Runs)));
    EMBEDDED.set(Some(embedded));
    ON_WAKE.set(Some(Box::new(on_wake)));
    let _green = spawn(|| ());
    assert!(ON_WAKE.take().is_none(), "the waker was not woken");
}

#[test]
fn a_waker_that_runs_a_turn_is_refused() {
    run("a_waker_that_runs_a_turn_is_refused", || {
        let refused = Rc::new(Cell::new(None));
        let result = Rc::clone(&refused);
        wake_between_turns(move || {
            let turned = EMBEDDED.take().unwrap().turn(Waker::noop());
            result.set(turned.err().map(|error| error.kind()));
        });
        assert_eq!(refused.get(), Some(LoopErrorKind::InMainloop));
        sleep(Duration::from_millis(1));
    });
}

#[test]
fn a_waker_that_waits_after_the_end_of_the_embedding_is_refused() {
    run("a_waker_that_waits_after_the_end_of_the_embedding_is_refused", || {
        let refused = Rc::new(Cell::new(false));
        let result = Rc::clone(&refused);
        wake_between_turns(move || {
            drop(EMBEDDED.take());
            result.set(catch_unwind(|| sleep(Duration::from_millis(1))).is_err());
        });
        assert!(refused.get());
        sleep(Duration::from_millis(1));
    });
}

#[test]
fn a_listener_that_a_waker_cannot_register_keeps_no_descriptor() {
    run("a_listener_that_a_waker_cannot_register_keeps_no_descriptor", || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        wake_between_turns(move || {
            let listened = get_hub().listen(reader, Interest::READ, |_| ());
            drop(listened);
        });
        drop(EMBEDDED.take());
        sleep(Duration::from_millis(1));
        assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_timer_of_a_future_wakes_the_waker() {
    run("a_timer_of_a_future_wakes_the_waker", || {
        let mut embedded = get_hub().embed().unwrap();
        let (wakes, waker) = Wakes::new();
        settle(&mut embedded, &waker);
        let mut timer = std::pin::pin!(greenhub::future::sleep(Duration::from_millis(5)));
        assert!(timer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(wakes.count(), 1);
        assert!(embedded.next_deadline().is_some());
    });
}

#[test]
fn a_loop_is_not_embedded_where_others_wait_for_its_turns() {
    struct EmbedsWhenDropped(Rc<Cell<Option<LoopErrorKind>>>);
    impl Drop for EmbedsWhenDropped {
        fn drop(&mut self) {
            self.0.set(get_hub().embed().err().map(|error| error.kind()));
        }
    }
    run("a_loop_is_not_embedded_where_others_wait_for_its_turns", || {
        let in_scope = greenhub::scope(|_| get_hub().embed().map(drop).unwrap_err().kind());
        assert_eq!(in_scope, LoopErrorKind::EmbedRefused);
        let in_shutdown = Rc::new(Cell::new(None));
        let embeds = EmbedsWhenDropped(Rc::clone(&in_shutdown));
        let _green = spawn(move || drop(embeds));
        get_hub().shutdown(None).unwrap();
        assert_eq!(in_shutdown.get(), Some(LoopErrorKind::EmbedRefused));
    });
}

/// A hub that runs code of the test in a call, once.
struct Hooked {
    in_now: Cell<Option<Box<dyn FnOnce()>>>,
    panics: Rc<Cell<bool>>,
}

impl Tap for Hooked {
    fn watch(&mut self, hub: &mut dyn Hub, call: Watch<'_>) -> std::io::Result<()> {
        if self.panics.take() {
            quiet_panic("watch");
        }
        call.forward(hub)
    }
    fn now(&self, hub: &dyn Hub) -> Time {
        if let Some(hook) = self.in_now.take() {
            hook();
        }
        hub.now()
    }
}

#[test]
fn a_loop_is_not_embedded_in_a_call_of_its_hub() {
    run("a_loop_is_not_embedded_in_a_call_of_its_hub", || {
        let refused = Rc::new(Cell::new(None));
        let result = Rc::clone(&refused);
        let embed = move || result.set(get_hub().embed().err().map(|error| error.kind()));
        use_tapped_hub(Hooked { in_now: Cell::new(Some(Box::new(embed))), panics: Rc::default() });
        sleep(Duration::from_millis(1));
        assert_eq!(refused.get(), Some(LoopErrorKind::EmbedRefused));
        sleep(Duration::from_millis(1));
    });
}

#[test]
fn a_hub_that_panics_between_turns_wakes_the_waker() {
    run("a_hub_that_panics_between_turns_wakes_the_waker", || {
        let panics = Rc::new(Cell::new(false));
        use_tapped_hub(Hooked { in_now: Cell::default(), panics: Rc::clone(&panics) });
        let mut embedded = get_hub().embed().unwrap();
        let (wakes, waker) = Wakes::new();
        settle(&mut embedded, &waker);
        panics.set(true);
        let (reader, _writer) = std::io::pipe().unwrap();
        get_hub().listen(reader, Interest::READ, |_| ()).map(drop).unwrap_err();
        assert_eq!(wakes.count(), 1);
        // A hub from `use_hub_with` is built once.
        assert_eq!(embedded.turn(&waker).unwrap_err().kind(), LoopErrorKind::Hub);
    });
}

#[test]
fn an_exit_that_unwinds_a_turn_does_not_end_the_embedding() {
    run("an_exit_that_unwinds_a_turn_does_not_end_the_embedding", || {
        let mut embedded = get_hub().embed().unwrap();
        let timed_out = with_timeout(Duration::from_millis(5), || {
            loop {
                embedded.turn(Waker::noop()).unwrap();
            }
        });
        assert!(timed_out.is_err());
        assert!(catch_unwind(|| sleep(Duration::from_millis(1))).is_err());
    });
}

#[test]
fn a_timeout_around_an_embedding_strikes_after_it() {
    run("a_timeout_around_an_embedding_strikes_after_it", || {
        let (turned, ended) = (Cell::new(false), Cell::new(false));
        let timed_out = with_timeout(Duration::from_millis(1), || {
            let mut embedded = get_hub().embed().unwrap();
            let green = spawn(|| sleep(Duration::from_millis(20)));
            turn_until(&mut embedded, || green.is_finished());
            turned.set(true);
            drop(embedded);
            sleep(Duration::from_secs(3600));
            ended.set(true);
        });
        assert_eq!((timed_out.is_err(), turned.get(), ended.get()), (true, true, false));
    });
}

#[test]
fn a_swallowed_exit_lets_nothing_run_between_turns() {
    run("a_swallowed_exit_lets_nothing_run_between_turns", || {
        let mut embedded = get_hub().embed().unwrap();
        let (wakes, waker) = Wakes::new();
        let ran = Rc::new(Cell::new(0));
        let runs = Rc::clone(&ran);
        let _green = spawn(move || {
            loop {
                runs.set(runs.get() + 1);
                greenhub::thread::yield_now();
            }
        });
        let timed_out: Result<(), _> = with_timeout(Duration::from_millis(5), || {
            let swallowed = catch_unwind(AssertUnwindSafe(|| {
                loop {
                    embedded.turn(&waker).unwrap();
                }
            }));
            assert!(swallowed.is_err());
            let before = ran.get();
            let thrown = catch_unwind(greenhub::park::throw_exit);
            assert_eq!((ran.get(), wakes.count()), (before, 0));
            std::panic::resume_unwind(thrown.unwrap_err());
        });
        assert!(timed_out.is_err());
    });
}

#[test]
fn a_forked_child_of_an_embedding_program_has_a_loop_of_its_own() {
    in_child(|| {
        let mut embedded = get_hub().embed().unwrap();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let read = |far| spawn(move || UnixStream::from(OwnedFd::from(far)).read_exact(&mut [0]).unwrap());
        let green = read(far);
        settle(&mut embedded, Waker::noop());
        let Some(child) = fork_here() else {
            exit_after(|| {
                let slept = spawn(|| sleep(Duration::from_millis(1)));
                turn_until(&mut embedded, || slept.is_finished());
                let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
                let green = read(far);
                settle(&mut embedded, Waker::noop());
                let pollable = embedded.pollable();
                near.write_all(b"x").unwrap();
                assert!(pollable.is_err() || is_readable(pollable.unwrap().as_raw_fd(), HANG));
                turn_until(&mut embedded, || green.is_finished());
                drop(embedded);
                sleep(Duration::from_millis(1));
            });
        };
        exits_with(child, 0);
        let pollable = embedded.pollable();
        near.write_all(b"x").unwrap();
        assert!(pollable.is_err() || is_readable(pollable.unwrap().as_raw_fd(), HANG));
        turn_until(&mut embedded, || green.is_finished());
    });
}
