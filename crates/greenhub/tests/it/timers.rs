//! Timers of the main loop: firing, order and cancellation.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use crate::support::green::{keep_reports, reports};
use crate::support::hubs;
use crate::support::limited;
use crate::support::random::Rng;
use greenhub::greenthread::{GreenletId, current_id};
use greenhub::hub::{Readiness, Timer, TimerHandle};
use greenhub::thread::yield_now;
use greenhub::{
    GreenError, HubRef, Interest, get_hub, sleep, spawn, spawn_after, spawn_after_local, trampoline, with_timeout,
};
use hub_core::hub::{ManualClock, Time};

const SHORT: Duration = Duration::from_millis(5);

/// Selects the default hub with a clock that only the test advances.
fn use_manual_clock() -> (HubRef, ManualClock) {
    let clock = hubs::use_manual_clock();
    let hub = get_hub();
    hub.set_timer_slack(0, Duration::ZERO);
    (hub, clock)
}

/// A log shared with the callbacks that write to it.
type Log<T> = Rc<RefCell<Vec<T>>>;

fn push<T: Clone + 'static>(log: &Log<T>, entry: T) -> impl Fn() + use<T> {
    let log = log.clone();
    move || log.borrow_mut().push(entry.clone())
}

#[test]
fn the_slack_of_timers_can_be_read_back() {
    limited(|| {
        let hub = get_hub();
        assert_eq!(hub.timer_slack(), (16, Duration::from_millis(1)));
        hub.set_timer_slack(3, SHORT);
        assert_eq!(hub.timer_slack(), (3, SHORT));
    });
}

#[test]
fn a_timer_fires_once_and_never_early() {
    limited(|| {
        let hub = get_hub();
        let mut random = Rng::with_seed(11);
        let early = Rc::new(RefCell::new(Vec::new()));
        let fired = Rc::new(RefCell::new(vec![0; 200]));
        for number in 0..200 {
            let delay = Duration::from_micros(random.u64(..30_000));
            let (early, fired) = (early.clone(), fired.clone());
            let start = Instant::now();
            hub.schedule(delay, move || {
                fired.borrow_mut()[number] += 1;
                if start.elapsed() < delay {
                    early.borrow_mut().push((delay, start.elapsed()));
                }
            });
        }
        sleep(Duration::from_millis(60));
        assert!(early.borrow().is_empty(), "{early:?}");
        assert_eq!(*fired.borrow(), [1; 200]);
        assert_eq!(hub.stats().timers, 0);
    });
}

#[test]
fn equal_deadlines_fire_in_the_order_of_arming() {
    limited(|| {
        let (hub, _clock) = use_manual_clock();
        for delay in [Duration::ZERO, SHORT, Duration::from_secs(9)] {
            let log = Log::default();
            for number in 0..2000 {
                hub.schedule(delay, push(&log, number));
            }
            sleep(delay);
            sleep(Duration::ZERO);
            assert!(log.borrow().iter().copied().eq(0..2000), "{delay:?}");
        }
    });
}

#[test]
fn deadlines_decide_whatever_the_order_of_arming() {
    limited(|| {
        let (hub, _clock) = use_manual_clock();
        let mut random = Rng::with_seed(12);
        let log = Log::default();
        let mut expected = Vec::new();
        for number in 0..500 {
            let delay = random.u64(..5_000_000_000) / 1000 * 1000;
            expected.push((delay, number));
            hub.schedule(Duration::from_nanos(delay), push(&log, (delay, number)));
        }
        expected.sort_unstable();
        sleep(Duration::from_secs(6));
        assert_eq!(*log.borrow(), expected);
    });
}

#[test]
fn a_timer_armed_while_firing_runs_after_a_poll() {
    limited(|| {
        for delay in [Duration::ZERO, Duration::from_nanos(1)] {
            let hub = get_hub();
            let log = Log::default();
            let (reader, writer) = io::pipe().unwrap();
            let _listener = {
                let seen = push(&log, "descriptor");
                let once = Cell::new(false);
                let see = move |_: Readiness| {
                    if !once.replace(true) {
                        seen()
                    }
                };
                hub.listen(reader, Interest::READ, see).unwrap()
            };
            let (outer, inner) = (push(&log, "outer"), push(&log, "inner"));
            let again = hub.clone();
            let inner = RefCell::new(Some(inner));
            hub.schedule(delay, move || {
                outer();
                io::Write::write_all(&mut &writer, b"x").unwrap();
                again.schedule(delay, inner.take().expect("the outer one fires once"));
            });
            while log.borrow().len() < 3 {
                sleep(SHORT);
            }
            assert_eq!(*log.borrow(), ["outer", "descriptor", "inner"], "{delay:?}");
        }
    });
}

#[test]
fn a_timer_outlives_the_green_thread_that_armed_it() {
    limited(|| {
        let (hub, _clock) = use_manual_clock();
        let log = Log::default();
        let (scheduled, spawned) = (push(&log, "scheduled"), push(&log, "spawned"));
        let green = spawn(move || {
            hub.schedule(SHORT, scheduled);
            drop(spawn_after(2 * SHORT, spawned));
        });
        green.join().unwrap();
        assert!(log.borrow().is_empty());
        sleep(3 * SHORT);
        assert_eq!(*log.borrow(), ["scheduled", "spawned"]);
    });
}

#[test]
fn a_local_timer_is_not_pending_after_its_green_thread_ended() {
    limited(|| {
        let (hub, _clock) = use_manual_clock();
        let log = Log::default();
        let late = push(&log, "late");
        let spawner = spawn(move || {
            let local = spawn_after_local(2 * SHORT, late);
            sleep(SHORT);
            local
        });
        let local = spawner.join().unwrap();
        assert_eq!(hub.stats().timers, 0);
        assert_eq!(local.join().unwrap(), None);
        sleep(3 * SHORT);
        assert!(log.borrow().is_empty());
    });
}

#[test]
fn a_local_timer_fires_while_its_green_thread_lives() {
    limited(|| {
        let (hub, _clock) = use_manual_clock();
        let spawner = spawn(|| {
            let local = spawn_after_local(SHORT, || 7);
            let cancelled = spawn_after_local(SHORT, || 8);
            assert!(cancelled.cancel());
            sleep(2 * SHORT);
            (local.join(), cancelled.join())
        });
        let (local, cancelled) = spawner.join().unwrap();
        assert_eq!(local.unwrap(), Some(7));
        assert!(matches!(cancelled, Err(GreenError::Kill)));
        assert_eq!(hub.stats().timers, 0);
        assert_eq!(
            spawn_after_local(SHORT, || 9).join().unwrap(),
            Some(9),
            "the timer of the main greenlet did not fire"
        );
    });
}

#[test]
fn cancelled_timers_leave_the_queue_at_once() {
    limited(|| {
        let (hub, _clock) = use_manual_clock();
        let held = Rc::new(());
        for delay in [Duration::ZERO, SHORT, Duration::from_secs(60)] {
            let handles: Vec<TimerHandle> = (0..2000)
                .map(|_| {
                    let held = held.clone();
                    hub.schedule(delay, move || drop(held.clone()))
                })
                .collect();
            assert_eq!(hub.stats().timers, 2000);
            if delay == SHORT {
                // Cancels timers that the loop has absorbed, too.
                hub.run_once(Some(Duration::ZERO)).unwrap();
            }
            assert!(handles.iter().all(TimerHandle::cancel));
            assert_eq!((hub.stats().timers, Rc::strong_count(&held)), (0, 1), "{delay:?}");
            assert!(!handles.iter().any(TimerHandle::cancel));
        }
    });
}

#[test]
fn a_handle_of_a_timer_that_fired_cancels_no_other() {
    limited(|| {
        let (hub, _clock) = use_manual_clock();
        let log = Log::default();
        let fired = hub.schedule(SHORT, push(&log, "first"));
        sleep(2 * SHORT);
        hub.schedule(SHORT, push(&log, "second"));
        assert!(!fired.cancel());
        sleep(2 * SHORT);
        assert_eq!(*log.borrow(), ["first", "second"]);
    });
}

#[test]
fn the_armed_count_follows_a_model_under_random_use() {
    limited(|| {
        let (hub, clock) = use_manual_clock();
        let mut random = Rng::with_seed(13);
        // The armed timers: deadline, order of arming, handle. A deadline counts from the loop's next reading of the
        // clock.
        let mut model: Vec<(Time, usize, TimerHandle)> = Vec::new();
        let log = Log::default();
        for number in 0..3000 {
            match random.u64(..10) {
                0..6 => {
                    let delay = Duration::from_micros(1 + random.u64(..3_000_000));
                    let handle = hub.schedule(delay, push(&log, number));
                    let _ = hub.next_deadline();
                    model.push((clock.now() + delay, number, handle));
                }
                6..8 if !model.is_empty() => {
                    let (_, _, handle) = model.swap_remove(random.usize(..model.len()));
                    assert!(handle.cancel());
                }
                _ => {
                    clock.advance(Duration::from_micros(random.u64(..300_000)));
                    hub.run_once(Some(Duration::ZERO)).unwrap();
                    let mut due: Vec<(Time, usize)> = model
                        .extract_if(.., |(deadline, ..)| *deadline <= clock.now())
                        .map(|(deadline, number, _)| (deadline, number))
                        .collect();
                    due.sort_unstable();
                    let due: Vec<usize> = due.into_iter().map(|(_, number)| number).collect();
                    assert_eq!(log.take(), due);
                }
            }
            assert_eq!(hub.stats().timers, model.len());
            assert_eq!(hub.next_deadline(), model.iter().map(|(deadline, ..)| *deadline).min());
        }
    });
}

/// A timer object with its own state.
#[derive(Default)]
struct Counter {
    fired: Cell<usize>,
    /// The number of times that the timer rearms itself.
    again: Cell<usize>,
    me: RefCell<Weak<Counter>>,
}

impl Timer for Counter {
    fn expired(&self) {
        self.fired.set(self.fired.get() + 1);
        if let Some(left) = self.again.get().checked_sub(1) {
            self.again.set(left);
            let me = self.me.borrow().upgrade().expect("the arming code holds the timer");
            get_hub().schedule(SHORT, me);
        }
    }
}

#[test]
fn one_timer_object_armed_twice_fires_twice() {
    limited(|| {
        let (hub, _clock) = use_manual_clock();
        let counter = Rc::new(Counter::default());
        hub.schedule(SHORT, counter.clone());
        hub.schedule(SHORT, counter.clone());
        let cancelled = hub.schedule(SHORT, counter.clone());
        assert!(cancelled.cancel());
        sleep(2 * SHORT);
        assert_eq!(counter.fired.get(), 2);
        assert_eq!(Rc::strong_count(&counter), 1);
    });
}

#[test]
fn a_fired_timer_can_be_armed_again() {
    limited(|| {
        let (hub, clock) = use_manual_clock();
        let counter = Rc::new(Counter { again: Cell::new(3), ..Counter::default() });
        *counter.me.borrow_mut() = Rc::downgrade(&counter);
        hub.schedule(SHORT, counter.clone());
        for fired in [1, 2, 3, 4, 4] {
            sleep(SHORT + Duration::from_nanos(1));
            assert_eq!(counter.fired.get(), fired);
        }
        assert!(clock.now() >= Time::from_nanos(0) + 5 * SHORT);
    });
}

#[test]
fn timers_follow_only_the_clock_of_the_hub() {
    limited(|| {
        let (hub, clock) = use_manual_clock();
        let log = Log::default();
        hub.schedule(SHORT, push(&log, ()));
        // Real time does not advance the manual clock.
        hub.run_once(Some(Duration::ZERO)).unwrap();
        std::thread::sleep(2 * SHORT);
        hub.run_once(Some(Duration::ZERO)).unwrap();
        assert!(log.borrow().is_empty());
        clock.advance(SHORT - Duration::from_nanos(1));
        hub.run_once(Some(Duration::ZERO)).unwrap();
        assert!(log.borrow().is_empty());
        clock.advance(Duration::from_nanos(1));
        hub.run_once(Some(Duration::ZERO)).unwrap();
        assert_eq!(log.borrow().len(), 1);
    });
}

#[test]
fn a_manual_clock_makes_sleeps_deterministic() {
    limited(|| {
        let run = || {
            let (_hub, clock) = use_manual_clock();
            let log = Log::default();
            let green: Vec<_> = [7, 3, 5]
                .into_iter()
                .map(|hours| {
                    let (log, clock) = (log.clone(), clock.clone());
                    spawn(move || {
                        for _ in 0..hours {
                            sleep(Duration::from_secs(3600 / hours));
                            log.borrow_mut().push((hours, clock.now()));
                        }
                    })
                })
                .collect();
            let (reader, _writer) = io::pipe().unwrap();
            let waited = with_timeout(Duration::from_secs(1800), || trampoline(&reader, Interest::READ, None));
            assert!(waited.is_err());
            assert_eq!(clock.now(), Time::from_nanos(0) + Duration::from_secs(1800));
            green.into_iter().for_each(|green| green.join().unwrap());
            log.take()
        };
        let first = run();
        assert_eq!(first.len(), 15);
        assert_eq!(run(), first);
    });
}

#[test]
fn a_ready_descriptor_is_served_while_the_clock_stands_still() {
    limited(|| {
        let (_hub, clock) = use_manual_clock();
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"x").unwrap();
        trampoline(&reader, Interest::READ, Some(SHORT)).unwrap();
        assert_eq!(clock.now(), Time::from_nanos(0));
    });
}

#[test]
fn the_armed_count_holds_fresh_timers_and_no_cancelled_ones() {
    limited(|| {
        let (hub, _clock) = use_manual_clock();
        let count = |hub: &HubRef| hub.stats().timers;
        hub.schedule(SHORT, || ());
        let fresh = hub.schedule(SHORT, || ());
        let immediate = hub.schedule(Duration::ZERO, || ());
        assert_eq!(count(&hub), 3);
        let counting = hub.clone();
        let green = spawn(move || {
            sleep(SHORT);
            // The timer of this sleep and those fired before it are spent.
            count(&counting)
        });
        fresh.cancel();
        immediate.cancel();
        assert_eq!(count(&hub), 1);
        assert_eq!(green.join().unwrap(), 0);
    });
}

#[test]
fn a_failing_timer_is_spent_and_freed() {
    limited(|| {
        keep_reports();
        let (hub, _clock) = use_manual_clock();
        let held = Rc::new(());
        let handles = [Duration::ZERO, SHORT].map(|delay| {
            let held = held.clone();
            hub.schedule(delay, move || panic!("the timer holds {held:?}"))
        });
        sleep(10 * SHORT);
        assert_eq!(reports().len(), 2);
        assert_eq!(Rc::strong_count(&held), 1);
        assert_eq!(hub.stats().timers, 0);
        assert!(!handles.iter().any(TimerHandle::cancel));
    });
}

#[test]
fn a_hundred_thousand_timers_fire_in_order() {
    limited(|| {
        let (hub, clock) = use_manual_clock();
        let mut random = Rng::with_seed(14);
        let last = Rc::new(Cell::new((Time::default(), 0)));
        for _ in 0..100_000 {
            let delay = Duration::from_nanos(1 + random.u64(..10_000_000_000));
            let (last, deadline) = (last.clone(), clock.now() + delay);
            hub.schedule(delay, move || {
                let (before, count) = last.get();
                assert!(before <= deadline);
                last.set((deadline, count + 1));
            });
        }
        assert_eq!(hub.stats().timers, 100_000);
        sleep(Duration::from_secs(11));
        assert_eq!(last.get().1, 100_000);
        assert_eq!(hub.stats().timers, 0);
    });
}

#[test]
fn the_shortest_and_the_longest_delay_are_kept() {
    limited(|| {
        // On the system's clock: a nanosecond is not rounded to zero, and the longest delay does not overflow the wait.
        let hub = get_hub();
        let log = Log::default();
        let far = [Duration::from_secs(1_000_000_000), Duration::from_secs(u64::MAX), Duration::MAX];
        let handles = far.map(|delay| hub.schedule(delay, push(&log, delay)));
        let start = Instant::now();
        hub.schedule(Duration::from_nanos(1), push(&log, Duration::from_nanos(1)));
        hub.schedule(Duration::from_micros(300), push(&log, Duration::from_micros(300)));
        sleep(Duration::from_micros(700));
        assert!(start.elapsed() >= Duration::from_micros(700));
        assert_eq!(*log.borrow(), [Duration::from_nanos(1), Duration::from_micros(300)]);
        assert!(hub.next_deadline().unwrap() - hub.now() > far[0] / 2);
        hub.run_once(Some(Duration::from_micros(1))).unwrap();
        assert!(handles.iter().all(TimerHandle::cancel));

        // On the manual clock, the far timer fires, and the endless ones do not.
        let (hub, clock) = use_manual_clock();
        log.borrow_mut().clear();
        for delay in far {
            hub.schedule(delay, push(&log, delay));
        }
        sleep(far[0] + SHORT);
        assert_eq!(*log.borrow(), [far[0]]);
        clock.advance(Duration::MAX);
        hub.run_once(Some(Duration::ZERO)).unwrap();
        assert_eq!(log.borrow().len(), 1);
    });
}

#[test]
fn a_short_sleep_takes_few_waits() {
    limited(|| {
        let hub = get_hub();
        sleep(Duration::ZERO);
        for micros in [1, 50, 200, 900, 1500, 4500] {
            let before = hub.stats().waits;
            for _ in 0..10 {
                sleep(Duration::from_micros(micros));
            }
            // A wait that ends slightly early would be repeated until the deadline.
            let waits = hub.stats().waits - before;
            assert!(waits <= 20, "{micros} µs: {waits} waits for 10 sleeps");
        }
    });
}

#[test]
fn no_sleep_ends_early() {
    limited(|| {
        let mut random = Rng::with_seed(15);
        let early = Rc::new(Cell::new(0));
        let sleepers: Vec<_> = (0..100)
            .map(|_| {
                let (early, micros) = (early.clone(), random.u64(..20_000));
                spawn(move || {
                    for part in 1..=3 {
                        let (start, delay) = (Instant::now(), Duration::from_micros(micros / part));
                        sleep(delay);
                        early.set(early.get() + usize::from(start.elapsed() < delay));
                    }
                })
            })
            .collect();
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        assert_eq!(early.get(), 0);
    });
}

#[test]
fn a_closure_that_is_called_once_may_give_its_captures_away() {
    limited(|| {
        let (given, seen) = (String::from("given away"), Rc::new(Cell::new(None)));
        let to = seen.clone();
        get_hub().schedule_once(SHORT, move || to.set(Some(given)));
        sleep(2 * SHORT);
        assert_eq!(seen.take().as_deref(), Some("given away"));
    });
}

#[test]
fn a_cancelled_closure_is_dropped_without_a_call() {
    limited(|| {
        let held = Rc::new(());
        let captured = held.clone();
        let handle = get_hub().schedule_once(SHORT, move || drop(captured));
        assert!(handle.cancel());
        assert_eq!(Rc::strong_count(&held), 1);
        assert!(!handle.cancel());
    });
}

#[test]
fn a_closure_in_a_cell_counts_how_often_its_timer_has_fired() {
    limited(|| {
        let seen = Rc::new(Cell::new(0));
        let to = seen.clone();
        let mut count = 0;
        let timer = Rc::new(RefCell::new(move || {
            count += 1;
            to.set(count);
        }));
        for _ in 0..3 {
            get_hub().schedule(Duration::ZERO, timer.clone());
        }
        sleep(SHORT);
        assert_eq!(seen.get(), 3);
    });
}

/// Returns the age of a green thread, rounded to seconds.
fn age_of(id: Option<GreenletId>) -> Option<Duration> {
    let all = greenhub::debug::greenlets();
    let one = all.iter().find(|one| Some(one.id) == id).expect("the green thread has not ended");
    assert_eq!(one.to_string().contains(" old: "), one.age.is_some());
    one.age.map(|age| Duration::from_secs((age + Duration::from_millis(100)).as_secs()))
}

#[test]
fn green_threads_are_listed_with_their_age() {
    limited(|| {
        let (_hub, _clock) = use_manual_clock();
        let forever = || spawn(|| sleep(Duration::from_secs(1_000_000)));
        let before_the_first_turn = forever();
        sleep(Duration::from_secs(10));
        let first = forever();
        sleep(Duration::from_secs(3600));
        let second = forever();
        sleep(Duration::from_secs(5));
        let ages = [&before_the_first_turn, &first, &second].map(|one| age_of(one.id()).unwrap().as_secs());
        assert_eq!(ages, [3615, 3605, 5]);
        // A green thread that reuses a control block starts with age zero.
        let id = first.id();
        first.kill();
        let again = forever();
        assert_eq!(again.id(), id);
        sleep(Duration::from_secs(1));
        assert_eq!(age_of(id), Some(Duration::from_secs(1)));
        assert_eq!(age_of(Some(current_id())), None, "the main greenlet has an age");
    });
}

#[test]
fn a_green_thread_that_outlives_its_hub_does_not_age_by_the_next_clock() {
    limited(|| {
        let (_hub, clock) = use_manual_clock();
        clock.advance(Duration::from_secs(1_000_000));
        // The loop takes note of the time.
        sleep(Duration::from_secs(1));
        let event = Rc::new(greenhub::sync::Event::<()>::new());
        let waits = Rc::clone(&event);
        let waiting = spawn(move || waits.wait().map(drop));
        sleep(Duration::from_secs(1));
        // The new clock starts at zero.
        let (_hub, _clock) = use_manual_clock();
        sleep(Duration::from_secs(1));
        assert_eq!(age_of(waiting.id()), Some(Duration::ZERO));
        event.send(()).unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn ages_are_known_to_a_loop_without_timers() {
    limited(|| {
        let (_hub, clock) = use_manual_clock();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let waiting = spawn(move || {
            trampoline(&reader, Interest::READ, None).unwrap();
            spawn(|| sleep(Duration::from_secs(1_000_000)))
        });
        yield_now();
        clock.advance(Duration::from_secs(100));
        io::Write::write_all(&mut writer, b"x").unwrap();
        let sleeping = waiting.join().unwrap();
        clock.advance(Duration::from_secs(7));
        assert_eq!(age_of(sleeping.id()), Some(Duration::from_secs(7)));
    });
}
