//! `time::interval`, `sleep_until` and `timeout_at`: ticks without drift, and points in time in place of durations.

use std::cell::Cell;
use std::rc::Rc;

use crate::support::green::SHORT;
use crate::support::hubs::use_manual_clock;
use crate::support::run;
use greenhub::hub::LoopErrorKind;
use greenhub::time::{Duration, Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until, timeout_at};
use greenhub::{get_hub, sleep, spawn, with_timeout};

const PERIOD: Duration = Duration::from_secs(10);

/// Makes the hub's clock advance only while every green thread waits, and timers exact.
fn exact() -> greenhub::hub::ManualClock {
    let clock = use_manual_clock();
    get_hub().set_timer_slack(0, Duration::ZERO);
    clock
}

/// Returns the seconds by the hub's clock of `count` ticks, each followed by work that takes the next of `work`.
fn ticks(ticks: &mut Interval, work: &[u64]) -> Vec<u64> {
    work.iter()
        .map(|work| {
            ticks.tick();
            let at = get_hub().now().as_nanos() / 1_000_000_000;
            sleep(Duration::from_secs(*work));
            at
        })
        .collect()
}

#[test]
fn the_first_tick_comes_at_once_and_the_others_at_multiples() {
    run("the_first_tick_comes_at_once_and_the_others_at_multiples", || {
        let _clock = exact();
        let mut every = interval(PERIOD);
        assert_eq!(every.period(), PERIOD);
        assert_eq!(ticks(&mut every, &[0, 3, 9, 10, 1]), [0, 10, 20, 30, 40]);
    });
}

#[test]
fn a_tick_returns_the_instant_at_which_it_was_due() {
    run("a_tick_returns_the_instant_at_which_it_was_due", || {
        let clock = exact();
        let mut every = interval(PERIOD);
        let first = every.tick();
        clock.advance(PERIOD + Duration::from_secs(3));
        assert_eq!(every.tick(), first + PERIOD);
        assert_eq!(every.tick(), first + PERIOD * 2);
    });
}

#[test]
fn the_first_tick_of_interval_at_comes_at_its_start() {
    run("the_first_tick_of_interval_at_comes_at_its_start", || {
        let clock = exact();
        clock.advance(Duration::from_secs(100));
        // std's clock goes on between the two looks at it.
        let mut every = interval_at(Instant::now() + Duration::from_millis(5_500), PERIOD);
        assert_eq!(ticks(&mut every, &[0, 0, 0]), [105, 115, 125]);
    });
}

#[test]
fn missed_ticks_come_at_once_with_burst() {
    run("missed_ticks_come_at_once_with_burst", || {
        let _clock = exact();
        let mut every = interval(PERIOD);
        assert_eq!(every.missed_tick_behavior(), MissedTickBehavior::Burst);
        assert_eq!(ticks(&mut every, &[35, 0, 0, 0, 0, 0]), [0, 35, 35, 35, 40, 50]);
    });
}

#[test]
fn the_tick_after_a_missed_one_comes_a_period_later_with_delay() {
    run("the_tick_after_a_missed_one_comes_a_period_later_with_delay", || {
        let _clock = exact();
        let mut every = interval(PERIOD);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        assert_eq!(ticks(&mut every, &[35, 0, 4, 0]), [0, 35, 45, 55]);
    });
}

#[test]
fn small_delays_do_not_add_up_with_delay() {
    run("small_delays_do_not_add_up_with_delay", || {
        let clock = exact();
        let mut every = interval(PERIOD);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let first = every.tick();
        clock.advance(Duration::from_millis(4));
        for count in 1..20 {
            clock.advance(PERIOD);
            assert_eq!(every.tick(), first + PERIOD * count);
        }
    });
}

#[test]
fn missed_ticks_are_left_out_with_skip() {
    run("missed_ticks_are_left_out_with_skip", || {
        let _clock = exact();
        let mut every = interval(PERIOD);
        every.set_missed_tick_behavior(MissedTickBehavior::Skip);
        assert_eq!(ticks(&mut every, &[35, 0, 10, 0, 0]), [0, 35, 40, 50, 60]);
        // A tick that is due exactly at a multiple is not left out.
        let mut every = interval(PERIOD);
        every.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let begin = get_hub().now().as_nanos() / 1_000_000_000;
        let at: Vec<u64> = ticks(&mut every, &[20, 0, 0]).into_iter().map(|at| at - begin).collect();
        assert_eq!(at, [0, 20, 30]);
    });
}

#[test]
fn a_start_in_the_past_counts_as_missed_ticks() {
    run("a_start_in_the_past_counts_as_missed_ticks", || {
        let clock = exact();
        clock.advance(Duration::from_secs(1000));
        let Some(past) = Instant::now().checked_sub(Duration::from_millis(25_500)) else { return };
        let mut every = interval_at(past, PERIOD);
        assert_eq!(ticks(&mut every, &[0, 0, 0, 0]), [1000, 1000, 1000, 1004]);
        let mut every = interval_at(past, PERIOD);
        every.set_missed_tick_behavior(MissedTickBehavior::Skip);
        assert_eq!(ticks(&mut every, &[0, 0]).len(), 2);
    });
}

#[test]
fn reset_makes_the_next_tick_due_after_a_period() {
    run("reset_makes_the_next_tick_due_after_a_period", || {
        let _clock = exact();
        let mut every = interval(PERIOD);
        assert_eq!(ticks(&mut every, &[4]), [0]);
        every.reset();
        assert_eq!(ticks(&mut every, &[0, 0]), [14, 24]);
    });
}

#[test]
fn a_timeout_in_the_wait_takes_no_tick() {
    run("a_timeout_in_the_wait_takes_no_tick", || {
        let _clock = exact();
        let mut every = interval(PERIOD);
        every.tick();
        assert!(with_timeout(Duration::from_secs(4), || every.tick()).is_err());
        assert_eq!(ticks(&mut every, &[0]), [10]);
    });
}

#[test]
fn an_interrupt_of_main_is_the_error_of_try_tick_and_takes_no_tick() {
    run("an_interrupt_of_main_is_the_error_of_try_tick_and_takes_no_tick", || {
        let _clock = exact();
        let mut every = interval(PERIOD);
        every.tick();
        spawn(|| get_hub().interrupt());
        assert_eq!(every.try_tick().unwrap_err().kind(), LoopErrorKind::Interrupted);
        assert_eq!(ticks(&mut every, &[0]), [10]);
    });
}

#[test]
fn an_abort_of_the_loop_does_not_end_the_wait_for_a_tick() {
    run("an_abort_of_the_loop_does_not_end_the_wait_for_a_tick", || {
        let _clock = exact();
        let mut every = interval(PERIOD);
        every.tick();
        spawn(|| get_hub().abort());
        assert_eq!(ticks(&mut every, &[0]), [10]);
    });
}

#[test]
fn an_interval_that_bursts_lets_others_run_between_its_ticks() {
    run("an_interval_that_bursts_lets_others_run_between_its_ticks", || {
        let clock = exact();
        let mut every = interval(PERIOD);
        clock.advance(PERIOD * 100);
        let ran = Rc::new(Cell::new(0));
        let counted = ran.clone();
        let other = spawn(move || {
            loop {
                counted.set(counted.get() + 1);
                greenhub::thread::yield_now();
            }
        });
        (0..50).for_each(|_| _ = every.tick());
        assert!(ran.get() >= 50, "{}", ran.get());
        other.kill();
    });
}

#[test]
fn an_interval_is_an_endless_iterator() {
    run("an_interval_is_an_endless_iterator", || {
        let _clock = exact();
        let at: Vec<Instant> = interval(PERIOD).take(4).collect();
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] == PERIOD));
        assert_eq!(get_hub().now().as_nanos(), 30 * 1_000_000_000);
    });
}

#[test]
fn the_longest_period_never_ticks_again() {
    run("the_longest_period_never_ticks_again", || {
        for behavior in [MissedTickBehavior::Burst, MissedTickBehavior::Delay, MissedTickBehavior::Skip] {
            let mut every = interval(Duration::MAX);
            every.set_missed_tick_behavior(behavior);
            every.tick();
            assert!(with_timeout(SHORT, || every.tick()).is_err());
            every.reset();
            assert!(with_timeout(SHORT, || every.tick()).is_err());
        }
    });
}

#[test]
#[should_panic(expected = "the period of an interval is zero")]
fn a_period_of_zero_panics() {
    drop(interval(Duration::ZERO));
}

#[test]
fn an_interval_ticks_on_another_os_thread() {
    run("an_interval_ticks_on_another_os_thread", || {
        let mut every = interval(SHORT);
        let first = every.tick();
        let next = std::thread::spawn(move || every.tick()).join().unwrap();
        assert_eq!(next, first + SHORT);
        assert!(Instant::now() >= next);
    });
}

#[test]
fn sleep_until_ends_at_its_deadline_and_never_before() {
    run("sleep_until_ends_at_its_deadline_and_never_before", || {
        for _ in 0..20 {
            let deadline = Instant::now() + Duration::from_micros(300);
            sleep_until(deadline);
            assert!(Instant::now() >= deadline);
        }
        let ran = Rc::new(Cell::new(false));
        let other = ran.clone();
        spawn(move || other.set(true));
        sleep_until(Instant::now());
        assert!(ran.get(), "a deadline in the past does not yield");
    });
}

#[test]
fn sleep_until_uses_the_clock_of_the_hub() {
    run("sleep_until_uses_the_clock_of_the_hub", || {
        let clock = exact();
        sleep_until(Instant::now() + Duration::from_secs(3600));
        let slept = clock.now().as_nanos() / 1_000_000_000;
        assert!((3590..=3600).contains(&slept), "{slept}");
    });
}

#[test]
fn several_calls_share_the_deadline_of_timeout_at() {
    run("several_calls_share_the_deadline_of_timeout_at", || {
        let deadline = Instant::now() + SHORT;
        assert_eq!(timeout_at(deadline, || 7).unwrap(), 7);
        assert!(timeout_at(deadline, || sleep(Duration::from_secs(3600))).is_err());
        assert!(Instant::now() >= deadline);
        let begun = Instant::now();
        assert!(timeout_at(deadline, || sleep(Duration::from_secs(3600))).is_err());
        assert!(begun.elapsed() < Duration::from_secs(60));
        // A call that does not wait returns even after the deadline.
        assert_eq!(timeout_at(deadline, || 8).unwrap(), 8);
    });
}
