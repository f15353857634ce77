//! The switch of the values for recorders of the crate `metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::base::wait_reason::WaitReason;
use crate::error::LoopError;
use crate::greenlet::local;
use crate::main_loop::deadline::Deadline;
use crate::main_loop::meter;
use crate::wait::parker::Parker;

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
/// of the next hub, so sums over hubs stay right. Gauges keep their values if publication is off at that time. The end
/// of the process publishes nothing: [`flush_metrics`] does. A loop that is [embedded](crate::Embedded) has no latency,
/// because the outer loop waits for it. A forked child publishes to its own copy of the recorder.
///
/// While publication is off, the feature costs a load for each wait. While it is on, each turn reads the clock up to
/// twice, and each publication visits every greenlet once, like [`HubRef::stats`](crate::HubRef::stats).
///
/// The recorder is the global one of that crate. An OS thread of the library calls it, so no loop waits for it. If 1024
/// publications wait for a slow recorder, the next ones are left out: then later ones have their counts, but their
/// latencies are lost. A recorder that panics is reported, and called no more.
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

/// Publishes the numbers of this OS thread's hub now, and waits until the recorder has all publications. Switches.
///
/// All publications are those of [`publish_metrics`] that were made before, of every OS thread. A program calls it at
/// its end. While publication is off it publishes nothing. Needs the feature `metrics`.
///
/// ```
/// use std::time::Duration;
/// greenhub::debug::publish_metrics(Duration::from_secs(10));
/// greenhub::sleep(Duration::from_millis(1));
/// greenhub::debug::flush_metrics()?;
/// # Ok::<(), greenhub::hub::LoopError>(())
/// ```
///
/// # Errors
///
/// Returns an error if the caller may not wait (in the main loop, while panicking), and if the main loop ends the wait
/// of the main greenlet by an error.
pub fn flush_metrics() -> Result<(), LoopError> {
    if let Some(local) = local::try_get() {
        local.main_loop.publish_now(local);
    }
    meter::publish_pool_waits();
    wait_for_recorder()
}

/// Waits until the recorder has all publications that were made. Switches.
///
/// # Errors
///
/// The same as [`flush_metrics`].
pub fn wait_for_recorder() -> Result<(), LoopError> {
    let done = Arc::new(AtomicBool::new(false));
    while !done.load(Ordering::Acquire) {
        let parker = Parker::new(WaitReason::Offload)?;
        let (told, unparker) = (Arc::clone(&done), parker.unparker());
        let is_accepted = meter::after_all(move || {
            told.store(true, Ordering::Release);
            unparker.unpark();
        });
        if !is_accepted {
            return Ok(());
        }
        parker.park(&mut Deadline::none())?;
    }
    Ok(())
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
