//! The blocking detector: it finds greenlets that run for too long without a switch.
//!
//! An OS thread of its own, the watchdog, checks at intervals whether the watched loop has begun another turn or called
//! its hub, by two words that the loop writes anyway. If it has not, the watchdog samples the running greenlet by a
//! signal to the watched OS thread: see [`sample`]. Two samples of the same greenlet in the same run, with the
//! resolution between them, are reported.

mod sample;
mod sample_signal;
#[cfg_attr(
    not(all(feature = "backtrace", target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "blocking/no_snapshot.rs"
)]
mod snapshot;
mod variable;

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use self::sample::Heartbeat;
use self::sample::{Sample, Sampling, WatchedThread};
pub(super) use self::variable::{report_failure, resolution};
use crate::base::dormant::Dormant;
use crate::base::fork;
use crate::report::{self, Report};

/// The watchdog of one OS thread. Dropping it stops the watchdog, and waits until it has ended.
pub(crate) struct Detector {
    stop: Arc<Stop>,
    watchdog: Option<JoinHandle<()>>,
    generation: u32,
    /// Dropped after the watchdog has ended.
    _sampling: Sampling,
}

#[derive(Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Detector {
    /// Starts to watch the calling OS thread by its `heartbeat`.
    ///
    /// The loop keeps the detector, and it is stopped when the OS thread ends.
    pub(crate) fn start(heartbeat: &'static Heartbeat, resolution: Duration) -> io::Result<Detector> {
        fork::install()?;
        let sampling = Sampling::prepare()?;
        let stop = Arc::<Stop>::default();
        let watchdog = {
            let (watched, stop) = (sampling.watched(heartbeat)?, Arc::clone(&stop));
            let watch = move || watch(&watched, resolution, &stop);
            std::thread::Builder::new().name("greenhub-watchdog".into()).spawn(watch)?
        };
        sampling.begin();
        Ok(Detector { stop, watchdog: Some(watchdog), generation: fork::generation(), _sampling: sampling })
    }
}

impl Detector {
    /// Stops the watchdog like the drop, but waits for at most a second. Returns false if the watchdog still runs.
    pub(crate) fn end(self: Box<Self>) -> bool {
        const TIMEOUT: Duration = Duration::from_secs(1);
        self.stop.ask();
        let begun = Instant::now();
        while self.generation == fork::generation()
            && self.watchdog.as_ref().is_some_and(|watchdog| !watchdog.is_finished())
        {
            if begun.elapsed() >= TIMEOUT {
                std::mem::forget(self);
                return false;
            }
            #[expect(clippy::disallowed_methods, reason = "the OS thread has ended for its green threads")]
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        let Some(watchdog) = self.watchdog.take() else { return };
        if self.generation != fork::generation() {
            // The watchdog exists in the parent only, and may have held any lock.
            return std::mem::forget(watchdog);
        }
        self.stop.ask();
        // The watchdog does not panic; and if it did, it has ended.
        let _ = watchdog.join();
    }
}

impl Stop {
    fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits for at most `time`. Returns true if the watchdog has to end.
    fn wait(&self, time: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(asked, time, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A span without a new turn, and the greenlet that runs in it.
struct BusySpan {
    by: Sample,
    since: Instant,
    reported: bool,
}

/// Runs the watchdog.
fn watch(watched: &WatchedThread, resolution: Duration, stop: &Stop) {
    const SHORTEST: Duration = Duration::from_millis(1);

    let tick = (resolution / 4).max(SHORTEST);
    let mut turn = None;
    let mut span: Option<BusySpan> = None;
    let mut dormant = Some(Dormant::worker(|| true));
    while !stop.wait(tick) {
        let now = watched.turn();
        if now.is_none() || now != turn {
            turn = now;
            span = None;
            continue;
        }
        let Some(by) = watched.sample(tick) else { continue };
        match &mut span {
            Some(span) if span.by.is_same(&by) => {
                if !span.reported && span.since.elapsed() >= resolution {
                    span.reported = true;
                    // The report stream is foreign code, which may wait.
                    drop(dormant.take());
                    report::tell(Report::Blocked {
                        name: by.name(),
                        held: span.since.elapsed(),
                        backtrace: by.backtrace(),
                    });
                    dormant = Some(Dormant::worker(|| true));
                }
            }
            _ => span = Some(BusySpan { by, since: Instant::now(), reported: false }),
        }
    }
}
