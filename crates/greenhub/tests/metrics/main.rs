//! The numbers that loops publish to a recorder of the crate `metrics`, by the feature `metrics`.
//!
//! Publication is set for the process, so each test that sets it runs in a process of its own.

mod example;
#[path = "../../examples/metrics/prometheus.rs"]
mod prometheus;
#[path = "../it/support/mod.rs"]
mod support;

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use crate::prometheus::Prometheus;
use crate::support::{alone, fork};
use greenhub::debug::{describe_metrics, flush_metrics, publish_metrics};
use greenhub::hub::ManualClock;
use greenhub::{Interest, get_hub, sleep, spawn, tpool, trampoline, use_hub};
use hub_core::internal::wait_for_recorder;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

const LONG: Duration = Duration::from_secs(3600);
const INTERVAL: Duration = Duration::from_secs(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Installs the recorder, publishes in each second, and chooses a clock that stands still while green threads run.
fn begin() -> (Prometheus, ManualClock) {
    let numbers = Prometheus::default();
    assert!(metrics::set_global_recorder(numbers.clone()).is_ok(), "the process has another recorder");
    publish_metrics(INTERVAL);
    let clock = ManualClock::new();
    clock.use_default_hub().expect("a hub");
    (numbers, clock)
}

/// Waits until the recorder has all publications. The loop takes no turn meanwhile.
fn settle() {
    std::thread::spawn(wait_for_recorder).join().expect("no panic").expect("an OS thread may wait");
}

/// Returns the lines of a value, without its name, once the recorder has all publications.
fn lines(numbers: &Prometheus, name: &str) -> Vec<String> {
    settle();
    let text = numbers.render();
    let found = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|line| line.starts_with(['{', ' ']));
    found.map(str::to_owned).collect()
}

/// Returns the sum of a value over all labels.
fn sum(numbers: &Prometheus, name: &str) -> f64 {
    let values = lines(numbers, name).into_iter();
    values.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")).sum()
}

#[test]
fn nothing_is_published_before_it_is_asked_for() {
    alone("nothing_is_published_before_it_is_asked_for", || {
        let numbers = Prometheus::default();
        assert!(metrics::set_global_recorder(numbers.clone()).is_ok());
        sleep(ms(1));
        tpool::execute(|| ()).expect("a job");
        assert_eq!(numbers.render(), "");
    });
}

#[test]
fn counters_are_those_of_the_hub() {
    alone("counters_are_those_of_the_hub", || {
        let (numbers, _clock) = begin();
        for _ in 0..10 {
            spawn(|| sleep(ms(300)));
            sleep(ms(700));
        }
        let stats = get_hub().stats();
        // The last publication was at most one interval ago.
        let close = |name: &str, now: u64, slack: f64| {
            let published = sum(&numbers, name);
            assert!(published <= now as f64 && published >= now as f64 - slack, "{name}: {published} of {now}");
        };
        close("greenhub_turns_total", stats.turns, 6.0);
        close("greenhub_switches_total", stats.switches, 10.0);
        close("greenhub_wakeups_total", stats.wakeups, 6.0);
        close("greenhub_spawned_total", stats.spawned, 2.0);
        let hub = get_hub();
        let labels = format!("{{hub=\"{}\",slot=\"0\",thread=\"", hub.name());
        assert!(lines(&numbers, "greenhub_turns_total")[0].starts_with(&labels), "{}", numbers.render());
    });
}

#[test]
fn gauges_show_the_contents_of_the_loop() {
    alone("gauges_show_the_contents_of_the_loop", || {
        let (numbers, _clock) = begin();
        let sleepers: Vec<_> = (0..5).map(|_| spawn(|| sleep(LONG))).collect();
        sleep(INTERVAL * 2);
        assert_eq!(sum(&numbers, "greenhub_parked"), 6.0, "five sleepers and the main greenlet");
        assert_eq!(sum(&numbers, "greenhub_timers"), 6.0);
        assert!(sum(&numbers, "greenhub_stack_reserved_bytes") >= 5.0 * 4096.0);
        sleepers.into_iter().for_each(|sleeper| _ = sleeper.kill());
        sleep(INTERVAL * 2);
        assert_eq!(sum(&numbers, "greenhub_parked"), 1.0);
    });
}

#[test]
fn latency_is_the_time_between_two_waits() {
    alone("latency_is_the_time_between_two_waits", || {
        let (numbers, clock) = begin();
        sleep(ms(1));
        // Two green threads run in the same turn, each for 150 ms.
        for _ in 0..2 {
            let clock = clock.clone();
            spawn(move || {
                sleep(ms(1));
                clock.advance(ms(150));
            });
        }
        sleep(INTERVAL * 3 / 2);
        let latency = "greenhub_loop_latency_seconds";
        assert_eq!(sum(&numbers, &format!("{latency}_sum")), 0.3);
        assert_eq!(sum(&numbers, "greenhub_longest_turn_seconds"), 0.3);
        let text = numbers.render();
        let above = |bound: &str| {
            let line = text.lines().find(|line| line.starts_with(latency) && line.contains(&format!("le=\"{bound}\"")));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).expect("a bucket")
        };
        assert_eq!(above("0.5") - above("0.1"), 1, "{text}");
        sleep(INTERVAL * 2);
        assert_eq!(sum(&numbers, "greenhub_longest_turn_seconds"), 0.0, "the long turn was an interval ago");
        assert_eq!(sum(&numbers, &format!("{latency}_sum")), 0.3);
    });
}

#[test]
fn the_time_while_publication_was_off_is_no_latency() {
    alone("the_time_while_publication_was_off_is_no_latency", || {
        let (numbers, clock) = begin();
        sleep(ms(1));
        publish_metrics(None);
        clock.advance(LONG);
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        // A wait without a timer, of which the loop takes no time.
        let written = std::thread::spawn(move || writer.write_all(b"x"));
        trampoline(&reader, Interest::READ, None).expect("the writer lives");
        written.join().expect("no panic").expect("the reader lives");
        publish_metrics(INTERVAL);
        sleep(INTERVAL * 2);
        assert_eq!(sum(&numbers, "greenhub_loop_latency_seconds_sum"), 0.0, "{}", numbers.render());
    });
}

#[test]
fn a_loop_that_falls_asleep_publishes_its_last_turns_once() {
    alone("a_loop_that_falls_asleep_publishes_its_last_turns_once", || {
        let (numbers, _clock) = begin();
        sleep(INTERVAL * 2);
        sleep(ms(10));
        spawn(|| sleep(LONG * 3));
        let before = get_hub().stats();
        sleep(LONG);
        let after = get_hub().stats();
        assert_eq!(sum(&numbers, "greenhub_parked"), 2.0);
        // One wait ends for the publication, and one with the sleep.
        assert!(after.waits - before.waits <= 4, "{before:?} {after:?}");
    });
}

#[test]
fn the_pool_publishes_its_jobs_and_their_waits() {
    alone("the_pool_publishes_its_jobs_and_their_waits", || {
        let numbers = Prometheus::default();
        assert!(metrics::set_global_recorder(numbers.clone()).is_ok());
        publish_metrics(ms(1));
        static POOL: tpool::Pool = tpool::Pool::new(1);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first = spawn(move || POOL.execute(move || held.recv().is_err()));
        let others: Vec<_> = (0..3).map(|_| spawn(|| POOL.execute(|| ()))).collect();
        while sum(&numbers, "greenhub_pool_queued") != 3.0 {
            sleep(ms(1));
        }
        assert_eq!((sum(&numbers, "greenhub_pool_threads"), sum(&numbers, "greenhub_pool_jobs")), (1.0, 4.0));
        sleep(ms(20));
        drop(release);
        assert!(first.join().expect("no panic").expect("a job"));
        others.into_iter().for_each(|other| other.join().expect("no panic").expect("a job"));
        while sum(&numbers, "greenhub_pool_jobs") != 0.0 {
            sleep(ms(1));
        }
        assert_eq!(lines(&numbers, "greenhub_pool_wait_seconds_count"), ["{pool=\"greenhub-own\"} 4"]);
        assert!(sum(&numbers, "greenhub_pool_wait_seconds_sum") >= 0.06);
    });
}

#[test]
fn the_next_hub_goes_on_with_the_totals() {
    alone("the_next_hub_goes_on_with_the_totals", || {
        let (numbers, _clock) = begin();
        (0..5).for_each(|_| sleep(INTERVAL));
        let first = sum(&numbers, "greenhub_turns_total");
        use_hub(None).expect("the default hub");
        publish_metrics(Duration::ZERO);
        sleep(ms(1));
        let second = lines(&numbers, "greenhub_turns_total");
        assert_eq!(second.len(), 1, "the hubs have the same name, and the first one has ended: {second:?}");
        assert!(sum(&numbers, "greenhub_turns_total") <= get_hub().stats().turns as f64);
        assert!(sum(&numbers, "greenhub_turns_total") > first);
        assert_eq!(sum(&numbers, "greenhub_greenlets"), get_hub().stats().greenlets as f64, "{}", numbers.render());
    });
}

#[test]
fn the_end_of_a_thread_clears_its_gauges() {
    alone("the_end_of_a_thread_clears_its_gauges", || {
        let numbers = Prometheus::default();
        assert!(metrics::set_global_recorder(numbers.clone()).is_ok());
        publish_metrics(LONG);
        let work = || {
            (0..100).for_each(|_| sleep(Duration::from_micros(1)));
            get_hub().stats().wakeups
        };
        let wakeups = std::thread::Builder::new().name("named".into()).spawn(work).unwrap().join().unwrap();
        let name = |line: &String| line.contains("thread=\"named\"");
        let counted = lines(&numbers, "greenhub_wakeups_total").into_iter().find(name).expect("a line");
        assert!(counted.ends_with(&format!(" {wakeups}")), "{counted}");
        let gauge = lines(&numbers, "greenhub_greenlets").into_iter().find(name).expect("a line");
        assert!(gauge.ends_with(" 0"), "{gauge}");
        let latencies = lines(&numbers, "greenhub_loop_latency_seconds_count").into_iter().find(name).expect("a line");
        let count: u64 = latencies.rsplit(' ').next().unwrap().parse().unwrap();
        // The turn before the first wait has no beginning.
        assert!(count >= 99, "{latencies}");
    });
}

#[test]
fn a_child_publishes_to_its_copy_of_the_recorder() {
    alone("a_child_publishes_to_its_copy_of_the_recorder", || {
        let (numbers, _clock) = begin();
        sleep(INTERVAL * 2);
        let before = sum(&numbers, "greenhub_wakeups_total");
        fork::ends_well(fork::forked(|| {
            (0..4).for_each(|_| sleep(INTERVAL));
            let published = sum(&numbers, "greenhub_wakeups_total");
            assert!(published > before && published <= get_hub().stats().wakeups as f64, "{published}");
        }));
        assert!(sum(&numbers, "greenhub_wakeups_total") <= get_hub().stats().wakeups as f64);
    });
}

/// A recorder that does something foreign when a value is registered.
struct Foreign<F>(F);

impl<F: Fn()> Recorder for Foreign<F> {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        (self.0)();
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        (self.0)();
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        (self.0)();
        Histogram::noop()
    }
}

/// A recorder that registers values when its gate is open.
struct Gated {
    numbers: Prometheus,
    gate: Arc<Mutex<()>>,
}

impl Recorder for Gated {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        drop(self.gate.lock());
        self.numbers.register_counter(key, metadata)
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.numbers.register_gauge(key, metadata)
    }
    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.numbers.register_histogram(key, metadata)
    }
}

#[test]
fn a_recorder_that_panics_is_reported_and_called_no_more() {
    alone("a_recorder_that_panics_is_reported_and_called_no_more", || {
        let (reports, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (told, called) = (Arc::clone(&reports), Arc::clone(&calls));
        greenhub::debug::set_report_stream(move |report| {
            assert!(report.to_string().contains("the recorder of metrics"), "{report}");
            told.fetch_add(1, Ordering::Relaxed);
        });
        let recorder = Foreign(move || {
            called.fetch_add(1, Ordering::Relaxed);
            std::panic::resume_unwind(Box::new("no room"));
        });
        assert!(metrics::set_global_recorder(recorder).is_ok());
        publish_metrics(Duration::ZERO);
        (0..5).for_each(|_| sleep(ms(1)));
        settle();
        assert_eq!((reports.load(Ordering::Relaxed), calls.load(Ordering::Relaxed)), (1, 1));
    });
}

#[test]
fn a_recorder_that_panics_later_is_called_no_more_in_the_same_publication() {
    alone("a_recorder_that_panics_later_is_called_no_more_in_the_same_publication", || {
        let (reports, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (told, called) = (Arc::clone(&reports), Arc::clone(&calls));
        greenhub::debug::set_report_stream(move |_| _ = told.fetch_add(1, Ordering::Relaxed));
        let fails = Arc::new(AtomicBool::new(false));
        let failing = Arc::clone(&fails);
        let recorder = Foreign(move || {
            if failing.load(Ordering::Relaxed) {
                called.fetch_add(1, Ordering::Relaxed);
                std::panic::resume_unwind(Box::new("no room"));
            }
        });
        assert!(metrics::set_global_recorder(recorder).is_ok());
        publish_metrics(Duration::ZERO);
        (0..3).for_each(|_| sleep(ms(1)));
        settle();
        // Now each publication has turns, which it records by a call of their own.
        fails.store(true, Ordering::Relaxed);
        (0..5).for_each(|_| sleep(ms(1)));
        settle();
        assert_eq!((reports.load(Ordering::Relaxed), calls.load(Ordering::Relaxed)), (1, 1));
    });
}

#[test]
fn a_recorder_of_a_green_thread_gets_nothing_of_the_loop() {
    alone("a_recorder_of_a_green_thread_gets_nothing_of_the_loop", || {
        let numbers = Prometheus::default();
        assert!(metrics::set_global_recorder(numbers.clone()).is_ok());
        publish_metrics(Duration::ZERO);
        let calls = Arc::new(AtomicUsize::new(0));
        let called = Arc::clone(&calls);
        // It would dangle if this green thread and another one overlapped.
        let own = spawn(move || {
            let recorder = Foreign(move || _ = called.fetch_add(1, Ordering::Relaxed));
            metrics::with_local_recorder(&recorder, || {
                metrics::counter!("own").increment(1);
                sleep(ms(20));
            });
        });
        own.join().expect("no panic");
        assert_eq!(calls.load(Ordering::Relaxed), 1, "its own counter");
        assert!(sum(&numbers, "greenhub_turns_total") > 0.0);
    });
}

#[test]
fn a_slow_recorder_holds_up_no_loop_and_gets_all_counts() {
    alone("a_slow_recorder_holds_up_no_loop_and_gets_all_counts", || {
        let numbers = Prometheus::default();
        let gate = Arc::new(Mutex::new(()));
        let passed = Arc::clone(&gate);
        let closed = gate.lock().expect("not poisoned");
        let recorder = Gated { numbers: numbers.clone(), gate: passed };
        assert!(metrics::set_global_recorder(recorder).is_ok());
        publish_metrics(Duration::ZERO);
        // More publications than may wait.
        (0..3000).for_each(|_| sleep(Duration::from_micros(1)));
        drop(closed);
        flush_metrics().expect("the main greenlet waits");
        let counted = sum(&numbers, "greenhub_wakeups_total");
        let stats = get_hub().stats();
        assert!(counted <= stats.wakeups as f64 && counted >= 2999.0, "{counted} of {}", stats.wakeups);
    });
}

#[test]
fn waits_of_jobs_are_published_without_a_loop() {
    alone("waits_of_jobs_are_published_without_a_loop", || {
        let numbers = Prometheus::default();
        assert!(metrics::set_global_recorder(numbers.clone()).is_ok());
        publish_metrics(LONG);
        let jobs = || {
            (0..2000).for_each(|_| tpool::execute(|| ()).expect("a job"));
            flush_metrics()
        };
        std::thread::spawn(jobs).join().expect("no panic").expect("an OS thread may wait");
        assert_eq!(sum(&numbers, "greenhub_pool_wait_seconds_count"), 2000.0);
    });
}

#[test]
fn a_flush_publishes_what_is_not_due_yet() {
    alone("a_flush_publishes_what_is_not_due_yet", || {
        let numbers = Prometheus::default();
        assert!(metrics::set_global_recorder(numbers.clone()).is_ok());
        flush_metrics().expect("nothing to wait for");
        assert_eq!(numbers.render(), "");
        publish_metrics(LONG);
        (0..10).for_each(|_| sleep(ms(1)));
        assert!(sum(&numbers, "greenhub_wakeups_total") < 10.0);
        flush_metrics().expect("the main greenlet waits");
        assert!(sum(&numbers, "greenhub_wakeups_total") >= 10.0);
    });
}

#[test]
fn a_thread_that_follows_another_goes_on_with_its_series() {
    alone("a_thread_that_follows_another_goes_on_with_its_series", || {
        let numbers = Prometheus::default();
        assert!(metrics::set_global_recorder(numbers.clone()).is_ok());
        publish_metrics(Duration::ZERO);
        let work = || {
            (0..3).for_each(|_| sleep(ms(1)));
            get_hub().stats().wakeups
        };
        let named = || std::thread::Builder::new().name("named".into());
        let one_by_one: Vec<u64> = (0..4).map(|_| named().spawn(work).unwrap().join().unwrap()).collect();
        let of_named = |name| lines(&numbers, name).into_iter().filter(|line| line.contains("thread=\"named\""));
        let wakeups: Vec<String> = of_named("greenhub_wakeups_total").collect();
        assert_eq!(wakeups.len(), 1, "{wakeups:?}");
        assert!(wakeups[0].contains("slot=\"0\""), "{wakeups:?}");
        assert!(wakeups[0].ends_with(&format!(" {}", one_by_one.iter().sum::<u64>())), "{wakeups:?} {one_by_one:?}");
        // Two at a time have two series.
        let barrier = Arc::new(Barrier::new(2));
        let together = [(); 2].map(|()| {
            let barrier = Arc::clone(&barrier);
            let wait = move || {
                work();
                barrier.wait();
            };
            named().spawn(wait).unwrap()
        });
        together.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(of_named("greenhub_wakeups_total").count(), 2);
    });
}

#[test]
fn a_recorder_may_wait() {
    alone("a_recorder_may_wait", || {
        let calls = Arc::new(AtomicUsize::new(0));
        let called = Arc::clone(&calls);
        let recorder = Foreign(move || {
            spawn(|| sleep(ms(1))).join().expect("no panic");
            called.fetch_add(1, Ordering::Relaxed);
        });
        assert!(metrics::set_global_recorder(recorder).is_ok());
        publish_metrics(LONG);
        sleep(ms(1));
        settle();
        assert!(calls.load(Ordering::Relaxed) >= 20, "{calls:?}");
    });
}

#[test]
fn a_loop_without_work_still_finds_its_deadlock() {
    fork::in_fork(|| {
        let numbers = Prometheus::default();
        assert!(metrics::set_global_recorder(numbers.clone()).is_ok());
        publish_metrics(ms(10));
        sleep(ms(1));
        let waited = greenhub::sync::Event::<()>::new().wait();
        assert!(waited.is_err(), "nothing could set the event");
        assert!(sum(&numbers, "greenhub_turns_total") > 0.0);
    });
}

#[test]
fn every_value_is_described() {
    alone("every_value_is_described", || {
        let (numbers, _clock) = begin();
        describe_metrics();
        tpool::execute(|| ()).expect("a job");
        // The job may end within the first turn. A latency needs a second one, and a third publishes it.
        (0..3).for_each(|_| sleep(INTERVAL));
        settle();
        let text = numbers.render();
        let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(kinds.len(), 25, "{text}");
        for name in kinds.iter().map(|kind| kind.split(' ').next().expect("a name")) {
            assert!(text.contains(&format!("# HELP {name} ")), "{name} is not described");
        }
    });
}
