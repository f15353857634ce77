//! The names, descriptions and labels of the published values.

use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, Recorder, Unit, with_recorder};

use super::super::stats::Stats;
use super::slot::Slot;

const METADATA: Metadata<'static> = Metadata::new("greenhub", Level::INFO, Some(module_path!()));

const LATENCY: &str = "greenhub_loop_latency_seconds";
const LONGEST_TURN: &str = "greenhub_longest_turn_seconds";
const POOL_WAIT: &str = "greenhub_pool_wait_seconds";

/// A value: its name, its meaning, and its field of [`Stats`].
type Value<T> = (&'static str, &'static str, fn(&Stats) -> T);

/// The running totals of an OS thread.
const COUNTERS: [Value<u64>; 8] = [
    ("greenhub_turns_total", "Turns of the main loop", |stats| stats.turns),
    ("greenhub_switches_total", "Greenlets that were resumed from the run queue", |stats| stats.switches),
    ("greenhub_waits_total", "Calls by which the hub waited", |stats| stats.waits),
    ("greenhub_watches_total", "Calls by which the hub watched a descriptor", |stats| stats.watches),
    ("greenhub_operations_total", "Operations on descriptors that were tried", |stats| stats.operations),
    ("greenhub_wakeups_total", "Waits of greenlets that have ended", |stats| stats.wakeups),
    ("greenhub_timers_armed_total", "Timers that were armed", |stats| stats.timers_armed),
    ("greenhub_spawned_total", "Green threads that were spawned", |stats| stats.spawned),
];

/// The present contents of a loop.
const GAUGES: [Value<usize>; 11] = [
    ("greenhub_timers", "Armed timers, and callbacks that are due", |stats| stats.timers),
    ("greenhub_readers", "Waiters for reading", |stats| stats.readers),
    ("greenhub_writers", "Waiters for writing", |stats| stats.writers),
    ("greenhub_ready", "Greenlets in the run queue", |stats| stats.ready),
    ("greenhub_parked", "Parked greenlets", |stats| stats.parked),
    ("greenhub_greenlets", "Greenlets that have not ended", |stats| stats.greenlets),
    ("greenhub_green_threads", "Green threads that have not ended or have a handle", |stats| stats.green_threads),
    ("greenhub_stacks_in_use", "Stacks in use", |stats| stats.stacks_in_use),
    ("greenhub_stacks_idle", "Idle stacks", |stats| stats.stacks_idle),
    (STACK_RESERVED, "Address space reserved for stacks", |stats| stats.stack_bytes_mapped),
    (STACK_RESIDENT, "The minimum of memory that stacks take", |stats| stats.stack_bytes_resident),
];

const STACK_RESERVED: &str = "greenhub_stack_reserved_bytes";
const STACK_RESIDENT: &str = "greenhub_stack_resident_bytes";

/// The present contents of all pools, which have no label.
const POOL_GAUGES: [Value<usize>; 3] = [
    ("greenhub_pool_threads", "OS threads of all pools", |stats| stats.pool_threads),
    ("greenhub_pool_jobs", "Jobs of all pools, queued or running", |stats| stats.pool_jobs),
    ("greenhub_pool_queued", "Jobs of all pools that wait for an OS thread", |stats| stats.pool_queued),
];

/// Describes all values to the recorder.
pub(crate) fn describe() {
    with_recorder(|recorder| {
        for (name, meaning, _) in COUNTERS {
            recorder.describe_counter(name.into(), Some(Unit::Count), meaning.into());
        }
        for (name, meaning, _) in GAUGES.into_iter().chain(POOL_GAUGES) {
            let unit = if matches!(name, STACK_RESERVED | STACK_RESIDENT) { Unit::Bytes } else { Unit::Count };
            recorder.describe_gauge(name.into(), Some(unit), meaning.into());
        }
        let seconds = Some(Unit::Seconds);
        let latency = "Time from the end of one wait of the hub to the beginning of the next";
        recorder.describe_histogram(LATENCY.into(), seconds, latency.into());
        recorder.describe_gauge(LONGEST_TURN.into(), seconds, "The longest turn since the last publication".into());
        recorder.describe_histogram(POOL_WAIT.into(), seconds, "Time that a job waited for an OS thread".into());
    });
}

/// Records the times that jobs were queued, each with the name of its pool.
pub(super) fn record_pool_waits(waits: &[(&'static str, Duration)]) {
    with_recorder(|recorder| {
        for (pool, waited) in waits {
            let key = Key::from_parts(POOL_WAIT, vec![Label::new("pool", *pool)]);
            recorder.register_histogram(&key, &METADATA).record(*waited);
        }
    });
}

/// The series of one hub. Its labels distinguish them from those of other hubs.
pub(super) struct Series {
    labels: Vec<Label>,
}

impl Series {
    /// Returns the series of a hub of this OS thread. They are its own as long as it has the slot.
    pub(super) fn new(name: &'static str) -> (Series, Slot) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let slot = Slot::take(name, &thread);
        let number = slot.number().to_string();
        let labels = vec![Label::new("hub", name), Label::new("slot", number), Label::new("thread", thread)];
        (Series { labels }, slot)
    }

    pub(super) fn record_turns(&self, turns: &[Duration]) {
        if turns.is_empty() {
            return;
        }
        with_recorder(|recorder| {
            let histogram = recorder.register_histogram(&self.key(LATENCY), &METADATA);
            turns.iter().for_each(|turn| histogram.record(*turn));
        });
    }

    /// Publishes all numbers. The counters grow by the difference to `before`.
    pub(super) fn publish(&self, before: &Stats, now: &Stats, longest: Duration) {
        with_recorder(|recorder| {
            self.count(recorder, before, now);
            for (name, _, value) in GAUGES {
                recorder.register_gauge(&self.key(name), &METADATA).set(value(now) as f64);
            }
            for (name, _, value) in POOL_GAUGES {
                recorder.register_gauge(&Key::from_static_name(name), &METADATA).set(value(now) as f64);
            }
            recorder.register_gauge(&self.key(LONGEST_TURN), &METADATA).set(longest);
        });
    }

    /// Publishes the totals, and sets the gauges of the hub to zero.
    pub(super) fn end(&self, before: &Stats, now: &Stats) {
        with_recorder(|recorder| {
            self.count(recorder, before, now);
            for name in GAUGES.map(|(name, ..)| name).into_iter().chain([LONGEST_TURN]) {
                recorder.register_gauge(&self.key(name), &METADATA).set(0.0);
            }
        });
    }

    fn count(&self, recorder: &dyn Recorder, before: &Stats, now: &Stats) {
        for (name, _, value) in COUNTERS {
            let grown = value(now).saturating_sub(value(before));
            recorder.register_counter(&self.key(name), &METADATA).increment(grown);
        }
    }

    fn key(&self, name: &'static str) -> Key {
        Key::from_parts(name, self.labels.clone())
    }
}
