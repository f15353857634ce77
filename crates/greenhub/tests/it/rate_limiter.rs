//! `sync::RateLimiter`: the rate, the burst, and waiters in order of arrival.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::green::{LONG, Log, held, in_time};
use crate::support::hubs::use_manual_clock;
use crate::support::run;
use greenhub::hub::{LoopErrorKind, ManualClock};
use greenhub::sync::{RateLimitError, RateLimiter, WaitError};
use greenhub::thread::yield_now;
use greenhub::{GreenThread, get_hub, sleep, spawn, with_timeout};

const SECOND: Duration = Duration::from_secs(1);

/// Makes the hub's clock advance only while every green thread waits, and timers exact.
fn exact() -> ManualClock {
    let clock = use_manual_clock();
    get_hub().set_timer_slack(0, Duration::ZERO);
    clock
}

/// Returns a limiter of one permit each second.
fn each_second(burst: u32) -> Arc<RateLimiter> {
    Arc::new(RateLimiter::new(1, SECOND).with_burst(burst))
}

fn seconds(clock: &ManualClock) -> u64 {
    assert_eq!(clock.now().as_nanos() % 1_000_000_000, 0);
    clock.now().as_nanos() / 1_000_000_000
}

/// Spawns a green thread that takes permits and logs the time.
fn taker(limiter: &Arc<RateLimiter>, permits: u32, clock: &ManualClock, log: &Log) -> GreenThread<()> {
    let (limiter, clock, log) = (limiter.clone(), clock.clone(), log.clone());
    let green = spawn(move || {
        limiter.acquire_many(permits).unwrap();
        log.add(format!("{permits} at {}", seconds(&clock)));
    });
    yield_now();
    green
}

#[test]
fn a_burst_is_there_at_once_and_then_one_permit_each_period() {
    run("a_burst_is_there_at_once_and_then_one_permit_each_period", || {
        let clock = exact();
        let limiter = each_second(3);
        let at: Vec<u64> = (0..6)
            .map(|_| {
                limiter.acquire().unwrap();
                seconds(&clock)
            })
            .collect();
        assert_eq!(at, [0, 0, 0, 1, 2, 3]);
        sleep(SECOND * 2);
        let at: Vec<bool> = (0..3).map(|_| limiter.try_acquire()).collect();
        assert_eq!(at, [true, true, false]);
        sleep(SECOND * 100);
        let there = (0..10).filter(|_| limiter.try_acquire()).count();
        assert_eq!(there, 3, "an idle time gives one burst");
    });
}

#[test]
fn the_rate_is_kept_exactly() {
    run("the_rate_is_kept_exactly", || {
        let clock = exact();
        let limiter = RateLimiter::new(100, SECOND);
        assert_eq!(limiter.burst(), 100);
        (0..1100).for_each(|_| limiter.acquire().unwrap());
        assert_eq!(seconds(&clock), 10);
    });
}

#[test]
fn a_burst_of_one_spaces_every_two_permits() {
    run("a_burst_of_one_spaces_every_two_permits", || {
        let clock = exact();
        let limiter = each_second(1);
        limiter.acquire().unwrap();
        assert!(!limiter.try_acquire());
        sleep(SECOND * 5);
        limiter.acquire().unwrap();
        limiter.acquire().unwrap();
        assert_eq!(seconds(&clock), 6);
    });
}

#[test]
fn several_permits_are_taken_together() {
    run("several_permits_are_taken_together", || {
        let clock = exact();
        let limiter = each_second(4);
        assert!(limiter.try_acquire_many(3));
        assert!(!limiter.try_acquire_many(2));
        limiter.acquire_many(4).unwrap();
        assert_eq!(seconds(&clock), 3);
        limiter.acquire_many_timeout(2, SECOND * 2).unwrap();
        assert_eq!(seconds(&clock), 5);
    });
}

#[test]
fn more_permits_than_a_burst_are_refused_at_once() {
    run("more_permits_than_a_burst_are_refused_at_once", || {
        let limiter = each_second(3);
        let error = limiter.acquire_many(4).unwrap_err();
        assert!(matches!(error, RateLimitError::AboveBurst { permits: 4, burst: 3 }));
        assert_eq!(error.to_string(), "cannot acquire 4 permits at once: a burst has 3");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::InvalidInput);
        assert!(!limiter.try_acquire_many(4));
        assert!(limiter.try_acquire_many(3), "the refused calls have taken permits");
    });
}

#[test]
fn waiters_are_served_in_order_and_small_requests_overtake_no_large_one() {
    run("waiters_are_served_in_order_and_small_requests_overtake_no_large_one", || {
        let (clock, log, limiter) = (exact(), Log::new(), each_second(3));
        limiter.acquire_many(3).unwrap();
        let takers: Vec<_> = [3, 1, 2].into_iter().map(|permits| taker(&limiter, permits, &clock, &log)).collect();
        sleep(SECOND);
        assert!(!limiter.try_acquire(), "an attempt has overtaken the waiters");
        takers.into_iter().for_each(|green| green.join().unwrap());
        log.is(&["3 at 3", "1 at 4", "2 at 6"]);
    });
}

#[test]
fn a_limit_that_is_reached_takes_nothing() {
    run("a_limit_that_is_reached_takes_nothing", || {
        let (clock, before) = (exact(), held());
        let limiter = each_second(1);
        limiter.acquire().unwrap();
        let start = clock.now();
        assert!(matches!(limiter.acquire_timeout(SECOND / 2), Err(WaitError::TimedOut)));
        assert_eq!(clock.now() - start, SECOND / 2);
        assert!(matches!(limiter.acquire_many_timeout(1, Duration::ZERO), Err(RateLimitError::TimedOut)));
        assert!(with_timeout(SECOND / 4, || limiter.acquire()).is_err());
        limiter.acquire().unwrap();
        assert!(clock.now() - start <= SECOND, "a failed wait has taken a permit");
        // A permit that comes at the limit counts.
        limiter.acquire_timeout(SECOND).unwrap();
        assert_eq!(held(), before);
    });
}

#[test]
fn a_timeout_of_zero_lets_others_run_once() {
    run("a_timeout_of_zero_lets_others_run_once", || {
        let (limiter, log) = (each_second(1), Log::new());
        assert!(limiter.acquire_timeout(Duration::ZERO).is_ok());
        let other = log.clone();
        spawn(move || other.add("ran"));
        assert_eq!(in_time(limiter.acquire_timeout(Duration::ZERO)), None);
        log.is(&["ran"]);
    });
}

#[test]
fn the_next_waiter_moves_up_when_the_first_one_is_killed() {
    run("the_next_waiter_moves_up_when_the_first_one_is_killed", || {
        let (clock, log, limiter) = (exact(), Log::new(), each_second(3));
        limiter.acquire_many(3).unwrap();
        let takers: Vec<_> = [3, 2, 1, 1].into_iter().map(|permits| taker(&limiter, permits, &clock, &log)).collect();
        sleep(SECOND);
        // The first waiter and one in the queue.
        takers[0].kill();
        takers[2].kill();
        takers[1].wait().unwrap();
        takers[3].wait().unwrap();
        log.is(&["2 at 2", "1 at 3"]);
    });
}

#[test]
fn the_next_waiter_takes_what_is_there_when_the_first_one_leaves() {
    run("the_next_waiter_takes_what_is_there_when_the_first_one_leaves", || {
        let (clock, log, limiter) = (exact(), Log::new(), each_second(3));
        limiter.acquire_many(3).unwrap();
        let large = taker(&limiter, 3, &clock, &log);
        let small = taker(&limiter, 2, &clock, &log);
        sleep(SECOND * 2);
        large.kill();
        small.join().unwrap();
        log.is(&["2 at 2"]);
    });
}

#[test]
fn on_the_main_loop_a_permit_is_taken_and_a_wait_is_refused() {
    run("on_the_main_loop_a_permit_is_taken_and_a_wait_is_refused", || {
        let limiter = each_second(1);
        let other = limiter.clone();
        let log = Log::new();
        let logs = log.clone();
        let _timer = get_hub().schedule(Duration::ZERO, move || {
            other.acquire().unwrap();
            logs.add(format!("{:?}", other.acquire().unwrap_err().kind()));
        });
        sleep(Duration::from_millis(1));
        log.is(&[&format!("{:?}", LoopErrorKind::InMainloop)]);
        assert!(!format!("{limiter:?}").contains("waiting: 1"), "the refused call is still the first waiter");
    });
}

#[test]
fn an_interrupted_wait_of_main_leaves_the_line() {
    run("an_interrupted_wait_of_main_leaves_the_line", || {
        let limiter = each_second(1);
        limiter.acquire().unwrap();
        spawn(|| get_hub().interrupt());
        assert_eq!(limiter.acquire().unwrap_err().kind(), LoopErrorKind::Interrupted);
        let text = format!("{limiter:?}");
        assert_eq!(text, "RateLimiter { period: 1s, burst: 1, waiting: 0 }");
    });
}

#[test]
fn extreme_rates_and_bursts_do_not_overflow() {
    run("extreme_rates_and_bursts_do_not_overflow", || {
        for (rate, per) in [(1, Duration::MAX), (u32::MAX, Duration::MAX), (u32::MAX, SECOND), (1, LONG)] {
            for burst in [1, 1000, u32::MAX] {
                let limiter = RateLimiter::new(rate, per).with_burst(burst);
                assert!(limiter.try_acquire_many(burst), "{limiter:?}");
                if rate == 1 {
                    assert!(!limiter.try_acquire_many(burst), "{limiter:?}");
                    let waited = limiter.acquire_many_timeout(burst, Duration::from_millis(1));
                    assert!(matches!(waited, Err(RateLimitError::TimedOut)));
                }
            }
        }
    });
}

#[test]
#[should_panic(expected = "the rate of a limiter is zero")]
fn a_rate_of_zero_panics() {
    let _ = RateLimiter::new(0, SECOND);
}

#[test]
#[should_panic(expected = "the burst of a limiter is zero")]
fn a_burst_of_zero_panics() {
    let _ = RateLimiter::new(1, SECOND).with_burst(0);
}

#[test]
fn a_static_limiter_serves_green_threads_of_several_hubs_and_plain_os_threads() {
    const PERIOD: Duration = Duration::from_micros(200);
    const EACH: u32 = 20;
    static LIMITER: RateLimiter = RateLimiter::new(1, PERIOD).with_burst(4);
    run("a_static_limiter_serves_green_threads_of_several_hubs_and_plain_os_threads", || {
        let begun = Instant::now();
        let take = || (0..EACH).for_each(|_| LIMITER.acquire().unwrap());
        let threads: Vec<_> = (0..4)
            .map(|number| {
                std::thread::spawn(move || match number {
                    0 => {
                        take();
                        assert!(!greenhub::hub::has_hub());
                    }
                    _ => [spawn(take), spawn(take)].into_iter().for_each(|green| green.join().unwrap()),
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(begun.elapsed() >= PERIOD * (7 * EACH - 4), "{:?}", begun.elapsed());
    });
}
