//! The switch of the values for recorders of the crate `metrics`.

use std::time::Duration;

use crate::main_loop::meter;

/// Publishes the numbers of each loop to the recorder of the crate `metrics`. Does not switch.
///
/// Each OS thread with a main loop publishes by itself, at most once in each `interval`: with its first turn, then at
/// the end of a turn when the interval has passed. A loop that has nothing new sleeps on. `None` switches publication
/// off; published values stay with the recorder. The setting applies to the whole process. It is off by default. A loop
/// that sleeps notices the call with its next turn. Needs the feature `metrics`.
///
/// The values have the labels `hub`, the hub's name, `thread`, the name of the OS thread, and `slot`, a number that
/// distinguishes hubs with the same `hub` and `thread`. A hub has the smallest number that no living one has, so the
/// program has no more series than it has hubs at one time:
///
/// - as counters, in `greenhub_NAME_total`: `turns`, `switches`, `waits`, `watches`, `operations`, `wakeups`,
///   `timers_armed`, `spawned`, with the meaning that [`Stats`](crate::Stats) gives them;
/// - as gauges, in `greenhub_NAME`: `timers`, `readers`, `writers`, `ready`, `parked`, `greenlets`, `green_threads`,
///   `stacks_in_use`, `stacks_idle`, `stack_reserved_bytes`, `stack_resident_bytes`;
/// - as histogram `greenhub_loop_latency_seconds`: the time from the end of one wait of the hub to the beginning of the
///   next. An event that comes in between waits for at most that long. The gauge `greenhub_longest_turn_seconds` has
///   the longest one since the last publication;
/// - for all pools together, without labels: the gauges `greenhub_pool_threads`, `greenhub_pool_jobs` and
///   `greenhub_pool_queued`. The histogram `greenhub_pool_wait_seconds` has the time that each job was queued, with the
///   label `pool`.
///
/// When an OS thread ends or replaces its hub, the gauges of the hub become zero. The counters go on under the labels
/// of the next hub, so sums over hubs stay right. Gauges keep their values if publication is off at that time. The main
/// OS thread does not publish when the process ends: the values since its last publication are lost. A loop that is
/// [embedded](crate::Embedded) has no latency, because the outer loop waits for it. A forked child publishes to its own
/// copy of the recorder.
///
/// While publication is off, the feature costs a load for each wait. While it is on, each turn reads the clock up to
/// twice, and each publication visits every greenlet once, like [`HubRef::stats`](crate::HubRef::stats).
///
/// The recorder is called in the main loop, and for the time of a job on an OS thread of the pool. In the main loop it
/// cannot wait for green threads. A recorder that panics is reported, and called no more. At the end of an OS thread,
/// where thread-locals of the recorder may be gone, a panic is only reported.
///
/// Publication uses the recorder that `metrics::with_recorder` finds. Never keep a green thread in
/// `metrics::with_local_recorder` across a call that switches. That function stores a pointer for the OS thread, and
/// restores the former pointer at its end. When two green threads overlap there, the pointer outlives its recorder, and
/// the loop, like each macro of that crate, calls a recorder that is freed.
///
/// ```
/// use std::time::Duration;
/// // After `metrics::set_global_recorder`, or the installation of an exporter:
/// greenhub::debug::describe_metrics();
/// greenhub::debug::publish_metrics(Duration::from_secs(1));
/// ```
pub fn publish_metrics(interval: impl Into<Option<Duration>>) {
    meter::set_interval(interval.into());
}

/// Describes the values of [`publish_metrics`] to the recorder of the crate `metrics`. Does not switch.
///
/// Call it after the recorder is installed. Needs the feature `metrics`.
///
/// ```
/// greenhub::debug::describe_metrics();
/// ```
pub fn describe_metrics() {
    meter::describe();
}
